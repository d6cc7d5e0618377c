"""Damage valid inputs for some seconds, and report what breaks a promise.

    python -m tests.fuzz 60 --reader parquet --seed 7

Each failing input is kept in a directory, with the command that reads it and what was wrong;
`--replay` runs kept ones again. What is made of an input depends on the seed, the reader and a
number alone. Inputs run in processes of their own, which may crash.
"""

import argparse
import contextlib
import faulthandler
import gc
import importlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .corpus import READERS, read_corpus, write_corpus
from .runner import (
    Made,
    limit_resources,
    make_input,
    problems,
    run_input,
    saved_input,
    traceback_of,
    tree,
)

_BATCH = 40
_MOST_OF_A_KIND = 3


def main() -> int:
    """Fuzz as the command line says; 1 if an input broke a promise."""
    options = _parse()
    with tempfile.TemporaryDirectory(prefix="pgti-fuzz-") as place:
        root = Path(place)
        os.environ["TMPDIR"] = str(root / "tmp")
        (root / "tmp").mkdir()
        return _replay(options, root) if options.replay else _fuzz(options, root)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("seconds", type=float, nargs="?", default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--reader", action="append", choices=READERS)
    parser.add_argument("--inputs", type=int, default=2**62, help="at most so many of each reader")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--replay", type=Path, nargs="+", metavar="DIRECTORY")
    return parser.parse_args()


def _fuzz(options: argparse.Namespace, root: Path) -> int:
    print(f"seed {options.seed}", flush=True)
    for each in _in_a_child(lambda tell: _write(root / "corpus", tell)):
        assert not each.get("status"), "the corpus cannot be written"
        for name in each.get("modules", ()):
            with contextlib.suppress(Exception):  # some are not meant to be imported
                importlib.import_module(name)
    corpus = read_corpus(root / "corpus")
    gc.freeze()  # or collections in the children would copy the memory that they share
    counts, failed, deadline = Counter[str](), Counter[str](), time.monotonic() + options.seconds

    def make(reader: str, number: int, directory: Path) -> Made:
        rng = random.Random(f"{options.seed} {reader} {number}")
        return make_input(rng, corpus[reader], directory)

    for first in itertools.count(0, _BATCH):
        for reader in options.reader or READERS:
            numbers = range(first, min(first + _BATCH, options.inputs))
            if time.monotonic() > deadline or not numbers:
                return _summarize(counts, failed)
            for number, problem in _run(numbers, lambda *of, by=reader: make(by, *of), root):
                counts[reader] += 1
                if problem is None:
                    continue
                failed[f"{reader}: {problem}"] += 1
                if failed[f"{reader}: {problem}"] <= _MOST_OF_A_KIND:
                    kept = options.out / f"{reader.replace(' ', '-')}-{options.seed}-{number}"
                    shutil.copytree(root / "failed" / str(number), kept, dirs_exist_ok=True)
                    print(f"{kept}: {problem}", flush=True)
    return 0


def _replay(options: argparse.Namespace, root: Path) -> int:
    def make(number: int, directory: Path) -> Made:
        return saved_input(options.replay[number], directory)

    found = [*_run(range(len(options.replay)), make, root)]
    for number, problem in found:
        if problem is not None:
            report = (root / "failed" / str(number) / "report.txt").read_text()
            print(f"{options.replay[number]}: {problem}\n{report}")
    print(f"{len(found)} inputs")
    return any(problem is not None for _, problem in found)


def _summarize(counts: Counter[str], failed: Counter[str]) -> int:
    for reader in READERS:
        if counts[reader]:
            print(f"{counts[reader]:8,} {reader}")
    print(f"{counts.total():8,} inputs, {failed.total():,} failed")
    for line, count in failed.most_common():
        print(f"{count:8,} {line}")
    return failed.total() > 0


# -- processes ------------------------------------------------------------------------------------

Make = Callable[[int, Path], Made]


def _run(numbers: range, make: Make, root: Path) -> Iterator[tuple[int, str | None]]:
    """Run inputs in a child process, and in another one after each that ends it.

    Yields:
        The number of each, and its problem; the files of one that failed are in
        `root/failed/NUMBER`.
    """
    left = list(numbers)
    shutil.rmtree(root / "failed", ignore_errors=True)
    while left:
        began = None
        for each in _in_a_child(lambda tell: _run_inputs(left, make, root, tell)):
            if "began" in each:
                began = each["began"]
            elif "number" in each:
                left.remove(each["number"])
                yield each["number"], each["problem"]
            elif each["status"] != 0:
                assert began is not None, "a process cannot begin"
                report = f"status {each['status']}\n{_text(root / 'work' / 'stderr')}"
                shutil.copytree(root / "work" / "in", root / "failed" / str(began) / "in")
                (root / "failed" / str(began) / "report.txt").write_text(report)
                shutil.copy(root / "work" / "command.json", root / "failed" / str(began))
                left.remove(began)
                yield began, f"the process ended: status {each['status']}"


def _run_inputs(
    numbers: list[int], make: Make, root: Path, tell: Callable[[dict[str, Any]], None]
) -> None:
    limit_resources()
    faulthandler.register(signal.SIGUSR1)
    work = root / "work"
    for number in list(numbers):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        made = make(number, work)
        (work / "command.json").write_text(json.dumps(made.command) + "\n")
        before = tree(work)
        tell({"began": number})
        outcome = run_input(made)
        found = list(problems(made, outcome, before))
        left = sorted(path.name for path in (root / "tmp").iterdir())
        if left:
            found.append("files left in the directory of temporary files")
            shutil.rmtree(root / "tmp")
            (root / "tmp").mkdir()
        if found:
            raised = traceback_of(made) if outcome.code not in (0, 2) else ""
            report = (made.how, *found, *left, outcome.stderr[-3000:], raised)
            made.save(root / "failed" / str(number), "\n".join(report))
            found.append(_place(raised))
        tell({"number": number, "problem": "; ".join(found) or None})


def _place(raised: str) -> str:
    """Where in the package an internal error came from, and which one it is."""
    lines = [line.strip() for line in raised.splitlines()]
    places = [line for line in lines if line.startswith("File ") and "/src/pgti/" in line]
    return f"{places[-1].split('/src/')[1]} {lines[-1][:80]}" if places else ""


def _in_a_child(
    work: Callable[[Callable[[dict[str, Any]], None]], None],
) -> Iterator[dict[str, Any]]:
    """Work in a forked process: what it tells, and at the end its status."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as file:
            try:
                work(lambda each: print(json.dumps(each), file=file, flush=True))
            except BaseException:  # noqa: BLE001 - the fuzzer itself is wrong
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(99)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        for line in file:
            yield json.loads(line)
    yield {"status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}


def _write(directory: Path, tell: Callable[[dict[str, Any]], None]) -> None:
    """Write the corpus, and tell which modules that took, for this process imports them again."""
    outputs = [os.dup(number) for number in (1, 2)]
    with Path(os.devnull).open("w") as nowhere:
        for number in (1, 2):
            os.dup2(nowhere.fileno(), number)
        try:
            write_corpus(directory)
        finally:
            for number, each in zip((1, 2), outputs, strict=True):
                os.dup2(each, number)
    tell({"modules": [name for name in sys.modules if not name.startswith(("polars", "tests"))]})


def _text(path: Path) -> str:
    return path.read_text(errors="replace")[-3000:] if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
