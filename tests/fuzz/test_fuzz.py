"""Inputs that were damaged at random, and those that once broke a promise.

`make fuzz` does the same for longer; see `__main__.py`.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from .corpus import READERS

ROOT = Path(__file__).parents[2]
CASES = sorted(path for path in Path(__file__).with_name("cases").iterdir() if path.is_dir())
HALVES = {"files": READERS[: READERS.index("json")], "others": READERS[READERS.index("json") :]}


def fuzz(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def check(tmp_path: Path, half: str, *arguments: object) -> None:
    readers = [f"--reader={reader}" for reader in HALVES[half]]
    ended = fuzz(*arguments, *readers, f"--out={tmp_path}")
    reports = [path.read_text() for path in tmp_path.glob("*/report.txt")]
    assert ended.returncode == 0, "\n".join([ended.stdout, ended.stderr[-3000:], *reports])
    assert " inputs, 0 failed" in ended.stdout


@pytest.mark.parametrize("half", HALVES)
def test_inputs_of_a_fixed_seed(tmp_path: Path, half: str) -> None:
    check(tmp_path, half, 60, "--seed=1", "--inputs=6")


@pytest.mark.slow
@pytest.mark.parametrize("half", HALVES)
def test_inputs_of_a_fresh_seed(tmp_path: Path, half: str) -> None:
    """A failure shows the seed, with which `python -m tests.fuzz` makes the input again."""
    check(tmp_path, half, 10, "--batch=8")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("half", HALVES)
def test_many_inputs(tmp_path: Path, half: str) -> None:
    check(tmp_path, half, 1200)


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["pickle", "text"])
def test_inputs_guided_by_the_code_that_they_reach(reader: str) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed: pip install atheris")
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz.guided", reader, "120"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-5000:]


def test_cases() -> None:
    """Inputs that once broke a promise."""
    ended = fuzz("--replay", *CASES)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-3000:]
    assert f"{len(CASES)} inputs" in ended.stdout
