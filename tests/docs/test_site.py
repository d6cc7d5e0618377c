"""The site: its navigation, its reference, and that it builds without a warning or an address."""

import inspect
import re
import subprocess
import sys
import tomllib
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import pgti

from ..browser import WIDTHS, Browser, assert_fits
from .pages import DOCS, ROOT, read

TOP = {"architecture.md", "changelog.md", "contributing.md", "security.md"}
TUTORIALS = {f"tutorials/{program.stem}.md" for program in (DOCS / "tutorials").glob("*.py")}
INTEROP = ("pgti.interop.lightning", "pgti.interop.ray", "pgti.interop.tracking")
PARTS = ("pgti.interop.pgt.data", "pgti.interop.pgt.layers")  # without __all__
FROM_ELSEWHERE = re.compile(
    r'<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)="(?:https?:)?//[^"]*"'
)


def pages_of(nav: list[Any]) -> list[str]:
    """The pages of the navigation, in order."""
    found: list[str] = []
    for entry in nav:
        parts = [entry] if isinstance(entry, str) else entry.values()
        for part in parts:
            found += [part] if isinstance(part, str) else pages_of(part)
    return found


def exported(module: str) -> set[str]:
    """Public names of a package of adapters."""
    imported = import_module(module)
    listed = getattr(imported, "__all__", None)
    names = listed or re.findall(r"(\w+) as \1\b", inspect.getsource(imported))
    return {f"{module}.{name}" for name in names}


def test_the_navigation_has_every_page_once() -> None:
    config = tomllib.loads(read(ROOT / "zensical.toml"))
    listed = Counter(pages_of(config["project"]["nav"]))
    written = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert listed == Counter(written | TUTORIALS | TOP)


def test_the_reference_has_every_public_name_once() -> None:
    text = "".join(map(read, (DOCS / "reference").glob("*.md")))
    listed = Counter(re.findall(r"^::: (\S+)", text, re.MULTILINE))
    expected = {f"pgti.{name}" for name in pgti.__all__} - {"pgti.simulate", "pgti.export"}
    # A module has their name, too.
    expected |= {"pgti.datasets.simulated.simulate.simulate", "pgti.interop.export.export.export"}
    expected |= {f"pgti.models.{name}" for name in _extra_models()}
    expected |= {name for module in (*INTEROP, *PARTS) for name in exported(module)}
    expected |= {"pgti.run.loaded.LoadedRun"}  # what others are documented by
    expected |= {"pgti.run.plots.RunPlots", "pgti.store.plots.StorePlots"}
    assert listed == Counter(expected)


def _extra_models() -> tuple[str, ...]:
    """What docs/api.md calls public of pgti.models."""
    (line,) = re.findall(r"(`MODELS`.*?) of `pgti\.models`", read(DOCS / "api.md"), re.DOTALL)
    return tuple(re.findall(r"`(\w+)`", line))


@pytest.fixture(name="site", scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, but that a tutorial is its title alone.

    Zensical says nothing about it that is worth a look.
    """
    pytest.importorskip("zensical", reason="Zensical is not installed")
    top = tmp_path_factory.mktemp("site")
    (top / "zensical.toml").write_text(read(ROOT / "zensical.toml"))
    for name in ("docs", "src"):
        (top / name).symlink_to(ROOT / name)
    pages = top / "build/pages"
    subprocess.run([sys.executable, ROOT / "docs/stage.py", pages], check=True)
    (pages / "tutorials").mkdir(exist_ok=True)
    for name in TUTORIALS:
        (pages / name).write_text(f"# {name}\n")
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    done = subprocess.run(command, cwd=top, capture_output=True, text=True, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line[:6] != "Build "]
    assert lines == ["No issues found"]
    return top / "build/site"


@pytest.mark.slow
def test_every_page_of_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    nav = tomllib.loads(read(ROOT / "zensical.toml"))["project"]["nav"]
    for name in pages_of(nav):
        page = read((site / name).with_suffix(".html"))
        assert not FROM_ELSEWHERE.findall(page), name


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_fit_their_window_and_are_searched_as_files(
    site: Path, browser: Browser, width: int
) -> None:
    """Pages with pictures, with wide tables, and of the reference, in light and in dark."""
    for name in ("how-it-works", "comparison", "words", "models", "reference/training"):
        for scheme in ("light", "dark"):
            with browser.page(site / f"{name}.html", width, color_scheme=scheme) as page:
                assert_fits(page)
    with browser.page(site / "index.html", width) as page:
        page.wait_for_timeout(300)
        page.keyboard.press("Control+k")
        page.wait_for_timeout(300)
        page.keyboard.type("conformal", delay=30)
        page.locator("a[href*='uncertainty.html?h=conformal']").first.wait_for()
