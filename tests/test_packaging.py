"""What is distributed: the wheel has every file of the package, and works without the checkout."""

import json
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from pgti.cli.app import COMMANDS

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def packaged_files() -> set[str]:
    """Every file below src/pgti but what Python leaves there."""
    files = (path for path in (ROOT / "src" / "pgti").rglob("*") if path.is_file())
    return {
        str(path.relative_to(ROOT / "src")) for path in files if "__pycache__" not in path.parts
    }


def test_the_wheel_has_every_file_of_the_package(tmp_path: Path) -> None:
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    (wheel,) = builder.build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
    packaged = {name for name in names if ".dist-info/" not in name}
    assert packaged == packaged_files()
    assert "pgti/py.typed" in packaged
    assert any(name.endswith("recipes/metr-la/stid.toml") for name in packaged)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert relative_links(text) == []


def relative_links(text: str) -> list[str]:
    """Links that lead nowhere outside the repository."""
    return [link for link in re.findall(r"\]\(([^)\s]+)", text) if not link.startswith("https://")]


def test_relative_links_are_found() -> None:
    assert relative_links("[a](docs/guide.md) [b](https://arxiv.org) ![c](docs/images/c.png)") == [
        "docs/guide.md", "docs/images/c.png"
    ]  # fmt: skip


def test_the_description_begins_like_the_readme() -> None:
    """One definition of pgti, and the Python of the description is that of the first page."""
    readme, description = (
        (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "DESCRIPTION.md")
    )
    first, second = (" ".join(text.split("\n\n")[1].split()) for text in (readme, description))
    assert first == second


def test_the_citation_is_that_of_the_software() -> None:
    """By the schema of CFF 1.2.0: its required keys, types and identifiers."""
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    known = {"cff-version", "message", "type", "title", "version", "license", "authors"}
    assert known <= set(citation) <= known | {"keywords", "references", "abstract"}
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["version"] == project()["version"]
    assert citation["license"] == project()["license"]
    assert citation["authors"] == project()["authors"]
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert paper["url"] == project()["urls"]["The paper on index-batching"]
    kinds = {"doi", "url", "swh", "other"}
    assert {each["type"] for each in paper["identifiers"]} <= kinds


def test_the_forms_are_those_of_an_issue() -> None:
    yaml = pytest.importorskip("yaml")
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert [form.stem for form in forms] == ["bug", "config", "feature", "question"]
    for path in forms:
        if path.stem == "config":
            continue
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert {"name", "description", "body"} <= set(form)
        ids = [field["id"] for field in form["body"]]
        assert len(set(ids)) == len(ids)
        assert {field["type"] for field in form["body"]} <= {"textarea", "input", "dropdown"}
        assert all(field["attributes"]["label"] for field in form["body"])


@pytest.fixture(name="installed", scope="module")
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel of dist/, and with the libraries of this one but not its pgti.

    A directory that a `.pth` file names is searched, but its own `.pth` files are not read, so the
    editable installation of the checkout stays out.
    """
    wheels = sorted(DIST.glob("*.whl"))
    if not wheels:
        pytest.skip("there is no wheel in dist/: run make test-dist")
    directory = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(directory, symlinks=True)
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    ours = next(directory.glob("lib/python*/site-packages"))
    (ours / "libraries.pth").write_text(f"{libraries}\n")
    pip = [sys.executable, "-m", "pip", "--python", str(directory / "bin" / "python")]
    options = ["--no-deps", "--no-index", "--ignore-installed", "--quiet"]
    subprocess.run([*pip, "install", *options, str(wheels[-1])], check=True)
    return directory


@pytest.mark.slow
def test_the_wheel_works_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    """Simulate, train, evaluate, forecast and what else there is, in an empty directory."""

    def run(*command: str) -> str:
        program = [str(installed / "bin" / command[0]), *command[1:]]
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run("python", "-P", "-c", "import pgti, pgti.models; print(pgti.__file__)").strip()
    assert Path(where).is_relative_to(installed)
    assert run("pgti", "--version").strip() == version("pgti")
    run("pgti", "simulate", "--sensors", "5", "--steps", "900", "--out", "store")
    run("pgti", "train", "store", "--run", "run", "--model", "stid", "--max-steps", "3")
    assert json.loads(run("pgti", "evaluate", "run", "--json"))["test"]["mae"]
    run("pgti", "predict", "run", "--out", "forecast.csv")
    assert (tmp_path / "forecast.csv").stat().st_size > 0
    assert "metr-la/stid" in run("pgti", "recipes")
    known = {name for group in COMMANDS.values() for name in group}
    if "report" in known:
        run("pgti", "report", "run", "--out", "report.html")
        assert (tmp_path / "report.html").stat().st_size > 0
    for command in sorted(known):
        assert run("pgti", command, "--help")
