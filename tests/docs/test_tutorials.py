"""The tutorials run: here on tiny sizes; marked slow, in kernels, as `make docs` runs them.

Their commands name options that exist, and their links lead somewhere.
"""

import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from .pages import DOCS
from .test_commands import find_commands, mistakes

TUTORIALS = sorted((DOCS / "tutorials").glob("*.py"))
SMALL: Mapping[str, Mapping[str, object]] = {
    "1-first-forecast": {"days": 8, "sensors": 4, "epochs": 1},
    "2-metr-la": {"days": 2, "options": {"max_steps": 1}},
    "3-own-model": {"days": 2, "sensors": 4, "options": {"max_steps": 2}},
    "5-operation": {"days": 8, "sensors": 4, "options": {"model": "stid", "max_steps": 2}},
}
ELSEWHERE = {"4-ranks": "starts seven processes: the test marked slow runs it"}
_CELL = re.compile(r"^# %%", re.MULTILINE)


@pytest.fixture(name="directory")
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def run_tutorial(path: Path, sizes: Mapping[str, object]) -> dict[str, Any]:
    """Run a tutorial as a program, with other sizes; gives the names that it defines."""
    text = path.read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "__main__"}
    starts = [match.start() for match in _CELL.finditer(text)]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        cell = text[start:end]
        exec(compile("\n" * text.count("\n", 0, start) + cell, str(path), "exec"), names)
        if "parameters" in cell.partition("\n")[0]:
            assert set(sizes) <= set(names), f"parameters of {path.stem}"
            names |= sizes
    return names


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
@pytest.mark.usefixtures("directory")
def test_a_tutorial_runs(path: Path) -> None:
    if path.stem in ELSEWHERE:
        pytest.skip(ELSEWHERE[path.stem])
    pytest.importorskip("plotly")
    run_tutorial(path, SMALL[path.stem])


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_the_commands_of_a_tutorial_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^# ```bash\n(.*?)^# ```$", text, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n#", "").splitlines()
    commands = [each for line in lines for each in find_commands(line.removeprefix("# "))]
    assert commands
    assert [wrong for command in commands for wrong in mistakes(command)] == []


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_leads_on(path: Path) -> None:
    """It ends with what to read next, and every link to a page leads somewhere."""
    text = path.read_text(encoding="utf-8")
    cells = re.split(r"^# %%.*\n", text, flags=re.MULTILINE)
    assert "# ## What to read next\n" in cells[-1]
    for link in re.findall(r"\]\((?!http)([^)#\s]+)", text):
        target = DOCS / "tutorials" / link
        if target.parent == DOCS / "tutorials":
            target = target.with_suffix(".py")
        assert target.exists(), link


def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_tutorials", DOCS / "build_tutorials.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_page_and_a_notebook_are_made_of_it(path: Path, tmp_path: Path) -> None:
    """In a kernel of its own, without an error or a warning; figures need no network."""
    builder().build(tmp_path, [path.stem])
    page = (tmp_path / f"{path.stem}.md").read_text(encoding="utf-8")
    assert page.startswith("# ")
    assert f"({path.stem}.ipynb)" in page
    assert "Traceback" not in page
    assert "Warning" not in page
    assert page.count("<script src=") == 1
    assert '<script src="plotly.min.js"' in page
    notebook = (tmp_path / f"{path.stem}.ipynb").read_text(encoding="utf-8")
    assert '"output_type": "error"' not in notebook
    assert '"application/vnd.plotly.v1+json"' in notebook
