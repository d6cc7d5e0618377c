"""The Python of README and docs runs as it stands there, and so do the commands of own-models.md.

The blocks of a page run in order, in one namespace and one directory. A block that begins with the
name of a file, `# my_models.py`, is saved under that name instead; one behind a comment
`<!-- not run: WHY -->` is only compiled.
"""

import importlib.util
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import pgti
from pgti.cli.main import run_command
from pgti.errors import MissingExtraError

ROOT = Path(__file__).parents[1]
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "```python" in page.read_text(encoding="utf-8")
    and page.name not in ("after-training.md", "index.md")
]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"# (\w+\.py)\n")
_NOT_RUN = re.compile(r"<!-- not run: .+ -->\n\Z")


def blocks(page: Path, *languages: str) -> Iterator[tuple[int, str]]:
    """First line and text of the fenced blocks in these languages."""
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        if match[1] in languages:
            line = text.count("\n", 0, match.start(2))
            if _NOT_RUN.search(text, 0, match.start()):
                compile("\n" * line + match[2], str(page), "exec")
            else:
                yield line, match[2]


@pytest.fixture(name="directory")
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A reader's working directory, from which their programs import."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def run_block(page: Path, line: int, block: str, names: dict[str, Any]) -> None:
    """Save or execute a block; errors have the page's line numbers."""
    if match := _FILE.match(block):
        Path(match[1]).write_text(block)
        return
    try:
        exec(compile("\n" * line + block, str(page), "exec"), names)
    except MissingExtraError as error:
        if "pgti[ray]" not in str(error):  # the one library that tests do without
            raise


def check_readme(names: dict[str, Any], printed: str) -> None:
    """The model beats persistence, as in the picture; the second block forecasts 4 sensors."""
    assert printed.startswith("stid on test (687 windows): speed in mph")
    first = pgti.Run.open("build/first-run").evaluate().to_frame(by_horizon=False)
    errors = dict(zip(first["forecaster"], first["mae"], strict=True))
    assert errors["stid"] < errors["persistence"]
    assert "plotly" in Path("build/first.html").read_text(encoding="utf-8")
    assert 0 < names["report"].mae < 2


def check_python(names: dict[str, Any], _: str) -> None:
    """The callback stops the training if enough forecasts are near, and metrics say so."""
    assert "val_within_5" in names["run"].history
    assert 0 <= names["report"]["test"].mean("within_5") <= 1
    assert Path("coverage.html").exists()


def check_windows(names: dict[str, Any], printed: str) -> None:
    """What it prints is what the page shows, but for the numbers."""
    page = (ROOT / "docs/windows.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"\n    (Batch of .*?)\n\n", page, re.DOTALL)
    numbers = r"\d+(\.\d+)?"
    same = [re.sub(numbers, "0", re.sub(r"\n +", "\n", text)) for text in (shown, printed)]
    assert printed.startswith("Batch of 64 windows on cpu")
    assert same[1].startswith(same[0])
    assert len(names["forecasts"]) > 1


CHECKS: dict[str, Callable[[dict[str, Any], str], None]] = {
    "README.md": check_readme,
    "python.md": check_python,
    "windows.md": check_windows,
}
LIBRARIES = {
    "plots.md": ("plotly",),
    "README.md": ("plotly",),
    "python.md": ("plotly",),
    "windows.md": ("lightning", "accelerate"),
    "pgt.md": ("torch_geometric_temporal",),
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.usefixtures("directory")
@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
def test_python_runs(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for library in LIBRARIES.get(page.name, ()):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    names: dict[str, Any] = {"__name__": "__main__"}
    for line, block in blocks(page, "python"):
        run_block(page, line, block, names)
    defined = {name for name in names if not name.startswith("__")}
    assert defined or list(Path().iterdir())  # a page's programs leave something behind
    CHECKS.get(page.name, lambda *_: None)(names, capsys.readouterr().out.strip())


def test_the_page_on_own_models_runs_with_its_commands(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but the study, which takes minutes and configurations of the reader's."""
    page = ROOT / "docs/own-models.md"
    found = [text for _, text in blocks(page, "")]
    run_block(page, *next(blocks(page, "python")), {})
    commands = [shlex.split(line) for text in found for line in text.splitlines()]
    assert [command[1] for command in commands] == [
        "simulate", "models", "train", "evaluate", "predict", "study"
    ]  # fmt: skip
    for command in commands[:-1]:
        assert run_command(command[1:]) == 0, capsys.readouterr().err
    assert (directory / "build/forecast.csv").stat().st_size > 0
    toml = next(text for _, text in blocks(page, "toml"))
    (directory / "own.toml").write_text(toml)
    tokens = ["train", "build/store", "--config", "own.toml", "--run", "build/toml"]
    assert run_command([*tokens, "--max-steps", "1"]) == 0


def test_after_training_runs_with_its_commands(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, names = ROOT / "docs/after-training.md", dict[str, Any]()
    commands = []
    for line, block in _blocks_and_commands(page):
        if not block.startswith("pgti "):
            run_block(page, line, block, names)
            continue
        assert run_command(shlex.split(block)[1:]) == 0, capsys.readouterr().err
        commands.append(block.split()[1])
    assert commands == [
        "predict", "append", "predict", "append", "predict", "evaluate", "evaluate", "train",
        "backtest",
    ]  # fmt: skip
    assert (directory / "forecast.csv").stat().st_size > 0


def _blocks_and_commands(page: Path) -> Iterator[tuple[int, str]]:
    """First line and text of Python blocks and of indented commands, in the page's order."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```python\n(.*?)^```$|^    (pgti [^\n]*)$", text, re.DOTALL | re.M):
        yield text.count("\n", 0, match.start(0)) + 1, match[1] or match[2]


def test_the_model_of_the_page_has_about_25_lines() -> None:
    _, text = next(blocks(ROOT / "docs/own-models.md", "python"))
    assert 20 <= len([line for line in text.splitlines() if line.strip()]) <= 30


def test_the_first_page_has_the_program_of_the_readme() -> None:
    programs = [next(blocks(ROOT / name, "python"))[1] for name in ("README.md", "docs/index.md")]
    assert programs[0] == programs[1]


def test_a_block_that_is_not_run_is_compiled(directory: Path) -> None:
    page = directory / "page.md"
    page.write_text("<!-- not run: needs a GPU -->\n```python\nno_gpu()\n```\n")
    assert list(blocks(page, "python")) == []
    page.write_text("<!-- not run: needs a GPU -->\n```python\nno gpu\n```\n")
    with pytest.raises(SyntaxError):
        list(blocks(page, "python"))


def test_a_failing_block_is_named_by_page_and_line(directory: Path) -> None:
    page = directory / "page.md"
    page.write_text("Text.\n\n```python\nx = 1\nassert x == 2\n```\n")
    ((line, block),) = blocks(page, "python")
    with pytest.raises(AssertionError) as caught:
        run_block(page, line, block, {})
    assert caught.traceback[-1].lineno == 4  # counted from 0
    assert str(caught.traceback[-1].path) == str(page)
