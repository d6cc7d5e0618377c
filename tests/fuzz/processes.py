"""Inputs in processes of their own, which they may end."""

import json
import os
import pickle
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .runner import Made, limit_resources, problems, run_input, traceback_of, tree

__all__ = ["Tell", "run_apart", "run_inputs"]

Make = Callable[[int, Path], Made]
Tell = Callable[[dict[str, Any]], None]
_MADE = "made.pkl"


def run_inputs(numbers: Sequence[int], make: Make, root: Path) -> Iterator[tuple[int, str | None]]:
    """Make inputs in one child process, and run them in another.

    Args:
        numbers: of the inputs.
        make: makes the input of a number in a directory.
        root: of all files; its directory `tmp` is the one of temporary files.

    Yields:
        The number of each that could be made, and its problem; the files of one that has a problem
        are in `root/failed/NUMBER`.
    """
    for name in ("failed", "work"):
        shutil.rmtree(root / name, ignore_errors=True)
    left = list(numbers)
    while left:  # libraries crash when they write nonsense, too
        last = left[0]
        for told in run_apart(lambda tell, left=tuple(left): _make(left, make, root, tell)):
            last = told.get("number", last)
        left = left[left.index(last) + 1 :]
    left = [number for number in numbers if (root / "work" / str(number) / _MADE).exists()]
    while left:
        last = None
        for told in run_apart(lambda tell, left=tuple(left): _run(left, root, tell)):
            if "problem" in told:
                left.remove(told["number"])
                yield told["number"], told["problem"]
            elif "number" in told:
                last = told["number"]
            elif told["status"] != 0:
                assert last is not None, "a process cannot begin"
                yield last, _keep_crashed(root, last, told["status"], was_told=last not in left)
                left = [number for number in left if number != last]


def _make(numbers: Sequence[int], make: Make, root: Path, tell: Tell) -> None:
    for number in numbers:
        tell({"number": number})
        work = root / "work" / str(number)
        work.mkdir(parents=True)
        made = make(number, work)
        (work / _MADE).write_bytes(pickle.dumps(made))


def _run(numbers: Sequence[int], root: Path, tell: Tell) -> None:
    limit_resources()
    for number in numbers:
        made = pickle.loads((root / "work" / str(number) / _MADE).read_bytes())
        before = tree(made.directory)
        tell({"number": number})
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


def _keep_crashed(root: Path, number: int, status: int, *, was_told: bool) -> str:
    """Keep the input that ended its process, at once or while the next one ran."""
    work = root / "work" / str(number)
    made: Made = pickle.loads((work / _MADE).read_bytes())
    path = work / "stderr"
    text = path.read_text(errors="replace")[-3000:] if path.exists() else ""
    made.save(root / "failed" / str(number), f"{made.how}\nstatus {status}\n{text}")
    return f"the process ended: status {status}{' after it' * was_told}"


def _place(raised: str) -> str:
    """Where in the package an internal error came from, and which one it is."""
    lines = [line.strip() for line in raised.splitlines()]
    places = [line for line in lines if line.startswith("File ") and "/src/pgti/" in line]
    return f"{places[-1].split('/src/')[1]} {lines[-1][:80]}" if places else ""


def run_apart(work: Callable[[Tell], None]) -> Iterator[dict[str, Any]]:
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
