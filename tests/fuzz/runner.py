"""One input: its damaged files, the command that reads them, and what must hold."""

import contextlib
import faulthandler
import hashlib
import json
import os
import random
import re
import resource
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pgti.cli.main import run_command
from pgti.store import SeriesStore

from .corpus import READINGS, Seed
from .damage import damage

__all__ = [
    "Made",
    "Outcome",
    "limit_resources",
    "make_input",
    "problems",
    "run_input",
    "saved_input",
    "traceback_of",
    "tree",
]

MIB = 1 << 20
MAX_BYTES = 256 * MIB
MAX_SECONDS = {"train": 20.0, "tune": 20.0}  # of the processor; a machine may be busy
MAX_SECONDS_TO_READ = 5.0
MAX_WAIT = 120
_MAX_LINE = 10_000  # notes may name several sensors


@dataclass(frozen=True)
class Made:
    """An input: files, and the command that reads them.

    Attributes:
        directory: where the command runs: the files are in `in`, and it may write into `out`.
        command: the command line.
        seed: what it was made of; None for an input that was saved.
        file: the file that was damaged.
        how: see `damage`.
    """

    directory: Path
    command: tuple[str, ...]
    seed: Seed | None = None
    file: Path = Path()
    how: str = ""

    def save(self, target: Path, report: str) -> None:
        """Keep the input, to run it again."""
        shutil.copytree(self.directory / "in", target / "in", dirs_exist_ok=True)
        (target / "command.json").write_text(json.dumps(self.command) + "\n")
        (target / "report.txt").write_text(report)


def saved_input(source: Path, directory: Path) -> Made:
    """An input that was saved, in `directory`."""
    shutil.copytree(source / "in", directory / "in")
    (directory / "out").mkdir()
    return Made(directory, tuple(json.loads((source / "command.json").read_text())))


def make_input(rng: random.Random, seeds: list[Seed], directory: Path) -> Made:
    """Make an input of one of the seeds of a reader, in `directory`."""
    seed = rng.choice(seeds)
    inner = directory / "in"
    shutil.copytree(seed.directory / "in", inner)
    (directory / "out").mkdir()
    files = sorted(
        path
        for path in inner.rglob("*")
        if path.is_file() and not set(path.relative_to(inner).parts) & set(seed.kept)
    )
    file = rng.choice(files)
    others = [path.read_bytes() for path in files if path.suffix == file.suffix]
    how, content = damage(rng, file.name, file.read_bytes(), others)
    file.write_bytes(content)
    if file.name == "meta.json" and how == "content" and rng.random() < 0.7:
        _reseal(file)
    return Made(directory, rng.choice(seed.commands), seed, file, how)


def _reseal(meta: Path) -> None:
    """Give the description of a store the digest that belongs to it."""
    with contextlib.suppress(AttributeError, RecursionError, TypeError, ValueError):
        entries = json.loads(meta.read_text())
        entries.pop("digest", None)
        lines = (f"{json.dumps(name)}: {json.dumps(each)}" for name, each in entries.items())
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        entries["digest"] = hashlib.sha256(text.encode()).hexdigest()
        meta.write_text(json.dumps(entries))


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    num_bytes: int


def run_input(made: Made) -> Outcome:
    """Run a command in this process; its outputs go to files, those of C libraries too."""
    os.chdir(made.directory)
    outputs = [made.directory / name for name in ("stdout", "stderr")]
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    began = time.process_time()
    with _redirected(*outputs), warnings.catch_warnings():
        warnings.simplefilter("default")
        faulthandler.dump_traceback_later(MAX_WAIT, exit=True)
        try:
            code = run_command(made.command)
        finally:
            faulthandler.cancel_dump_traceback_later()
    seconds = time.process_time() - began
    texts = [path.read_text(errors="replace") for path in outputs]
    return Outcome(code, *texts, seconds, _memory("VmHWM") - before)


def traceback_of(made: Made) -> str:
    """What `--debug` shows of an internal error."""
    for path in (made.directory / "out").glob("*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    try:
        with _redirected(*(made.directory / name for name in ("stdout", "stderr"))):
            run_command([*made.command, "--debug"])
    except Exception:  # noqa: BLE001 - it is shown
        return traceback.format_exc()
    return ""


@contextlib.contextmanager
def _redirected(*outputs: Path) -> Iterator[None]:
    kept = [os.dup(number) for number in (1, 2)]
    for number, path in zip((1, 2), outputs, strict=True):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, each in zip((1, 2), kept, strict=True):
            os.dup2(each, number)
            os.close(each)


def _memory(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    (found,) = re.findall(rf"{name}:\s+(\d+) kB", status)
    return int(found) << 10


def limit_resources() -> None:
    """End this process where it would take the machine: memory of gigabytes, or minutes."""
    gib = 1 << 30
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 8 * gib, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (gib, resource.RLIM_INFINITY))


# -- what must hold -------------------------------------------------------------------------------


def problems(made: Made, outcome: Outcome, before: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the end of a command.

    Args:
        made: the input.
        outcome: its end.
        before: the `tree` before it.
    """
    if outcome.seconds > MAX_SECONDS.get(made.command[0], MAX_SECONDS_TO_READ):
        yield f"slow: {outcome.seconds:.1f} s"
    if outcome.num_bytes > MAX_BYTES:
        yield f"memory: {outcome.num_bytes / MIB:.0f} MiB"
    if outcome.code not in (0, 2):
        yield f"exit code {outcome.code}"
    yield from _problems_of_lines(outcome)
    if outcome.code == 2:
        after = tree(made.directory)
        paths = sorted({*before, *after})
        changed = [path for path in paths if before.get(path, 0) != after.get(path, 0)]
        if made.command[0] == "append":  # it removes rows that a writer left who did not finish
            changed = [path for path in changed if not _was_cut(before.get(path), after.get(path))]
        if changed:
            yield f"left or changed: {changed[:3]}"
    elif outcome.code == 0:
        yield from _differences(made)


def _was_cut(before: bytes | None, after: bytes | None) -> bool:
    return before is not None and after is not None and before.startswith(after)


def _problems_of_lines(outcome: Outcome) -> Iterator[str]:
    lines = outcome.stderr.splitlines()
    if not all(line.startswith("pgti: ") and line.isprintable() for line in lines):
        yield "standard error has lines of others"
    if any(len(line) > _MAX_LINE for line in lines):
        yield "a long line"
    errors = [number for number, line in enumerate(lines) if line.startswith("pgti: error: ")]
    if outcome.code == 2 and (errors != [len(lines) - 1] or outcome.stdout):
        yield "not one line of error"
    if outcome.code == 0 and errors:
        yield "an error and exit code 0"


def tree(directory: Path) -> dict[str, Any]:
    """Every path of files that were given or written, with the content of the files."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for part in ("in", "out")
        for path in (directory / part).rglob("*")
        if path.name not in ("lock", ".lock")
    }


def _differences(made: Made) -> Iterator[str]:
    """What was taken although it is not what was written."""
    if made.command[0] == "info" and made.seed is not None and made.how != "content":
        places = (made.seed.directory / "in", made.directory / "in")
        if not _is_same(*(SeriesStore.open(place / "store") for place in places)):
            yield "different: a damaged store"
    if made.command[0] != "ingest":
        return
    try:
        store = SeriesStore.open(made.directory / "out" / "store")
        store.verify()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is reported
        yield f"different: the store that was written cannot be opened: {error!r}"
        return
    if made.seed is None:
        return
    values = store.read(0, store.meta.num_steps)
    if made.seed.is_whole and made.how == "few bytes":
        expected = np.load(made.seed.directory / READINGS)
        if not np.array_equal(values, expected, equal_nan=True):
            yield "different: bytes that checksums protect"
    if made.seed.peer is not None:
        with contextlib.suppress(Exception), warnings.catch_warnings():  # it may refuse the file
            warnings.simplefilter("ignore")
            theirs = made.seed.peer(made.file).astype(np.float32)
            if not np.array_equal(_distinct(values), _distinct(theirs)):
                yield "different: from what another library reads"


def _distinct(values: np.ndarray) -> np.ndarray:
    return np.unique(values[np.isfinite(values)])


def _is_same(one: SeriesStore, other: SeriesStore) -> bool:
    readings = [each.read(0, each.meta.num_steps) for each in (one, other)]
    return one.fingerprint == other.fingerprint and np.array_equal(*readings, equal_nan=True)
