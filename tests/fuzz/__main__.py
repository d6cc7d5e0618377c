"""Damage valid inputs for some seconds, and report what breaks a promise.

    python -m tests.fuzz 60 --reader parquet --seed 7

Each failing input is kept in a directory, with the command that reads it and what was wrong;
`--replay` runs kept ones again. What is made of an input depends on the seed, the reader and a
number alone. Inputs run in processes of their own, which may crash.
"""

import argparse
import contextlib
import gc
import importlib
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from .command_lines import parse_once
from .corpus import READERS, read_corpus, write_corpus
from .processes import Tell, run_apart, run_inputs
from .runner import Made, make_input, saved_input

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
    parser.add_argument("--batch", type=int, default=40, help="inputs of a reader in turn")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--replay", type=Path, nargs="+", metavar="DIRECTORY")
    return parser.parse_args()


def _fuzz(options: argparse.Namespace, root: Path) -> int:
    print(f"seed {options.seed}", flush=True)
    readers = options.reader or READERS
    for told in run_apart(lambda tell: _write(root / "corpus", readers, tell)):
        assert not told.get("status"), "the corpus cannot be written"
        for name in told.get("modules", ()):
            with contextlib.suppress(Exception):  # some are not meant to be imported
                importlib.import_module(name)
    corpus = read_corpus(root / "corpus")
    parse_once(command for seeds in corpus.values() for seed in seeds for command in seed.commands)
    gc.freeze()  # or collections in the children would copy the memory that they share
    counts, failed, deadline = Counter[str](), Counter[str](), time.monotonic() + options.seconds
    for first in itertools.count(0, options.batch):
        for reader in readers:
            numbers = range(first, min(first + options.batch, options.inputs))
            if time.monotonic() > deadline or not numbers:
                return _summarize(counts, failed)

            def make(number: int, directory: Path, reader: str = reader) -> Made:
                rng = random.Random(f"{options.seed} {reader} {number}")
                return make_input(rng, corpus[reader], directory)

            for number, problem in run_inputs(numbers, make, root):
                counts[reader] += 1
                if problem is None:
                    continue
                failed[f"{reader}: {problem}"] += 1
                if failed[f"{reader}: {problem}"] <= _MOST_OF_A_KIND:
                    kept = options.out / f"{reader.replace(' ', '-')}-{options.seed}-{number}"
                    shutil.copytree(root / "failed" / str(number), kept, dirs_exist_ok=True)
                    print(f"{kept}: {problem}", flush=True)
    return 0


def _write(directory: Path, readers: Collection[str], tell: Tell) -> None:
    """Write the corpus, and tell which modules that took, for this process imports them again."""
    outputs = [os.dup(number) for number in (1, 2)]
    with Path(os.devnull).open("w") as nowhere:
        for number in (1, 2):
            os.dup2(nowhere.fileno(), number)
        try:
            write_corpus(directory, readers)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, each in zip((1, 2), outputs, strict=True):
                os.dup2(each, number)
    tell({"modules": [name for name in sys.modules if not name.startswith(("polars", "tests"))]})


def _replay(options: argparse.Namespace, root: Path) -> int:
    def make(number: int, directory: Path) -> Made:
        return saved_input(options.replay[number], directory)

    found = [*run_inputs(range(len(options.replay)), make, root)]
    for number, problem in found:
        if problem is not None:
            report = (root / "failed" / str(number) / "report.txt").read_text()
            print(f"{options.replay[number]}: {problem}\n{report}")
    print(f"{len(found)} inputs")
    return len(found) < len(options.replay) or any(problem is not None for _, problem in found)


def _summarize(counts: Counter[str], failed: Counter[str]) -> int:
    for reader in READERS:
        if counts[reader]:
            print(f"{counts[reader]:8,} {reader}")
    print(f"{counts.total():8,} inputs, {failed.total():,} failed")
    for line, count in failed.most_common():
        print(f"{count:8,} {line}")
    return failed.total() > 0


if __name__ == "__main__":
    sys.exit(main())
