"""Training, evaluating and forecasting as commands of their own, and the memory that each takes.

Each is a process of its own, in a control group of its own where a limit is asked for. The store's
pages are forgotten before, so that the group pays for every page of the store that it reads.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pgti.batching import BATCHINGS
from pgti.bench.datasets import DatasetShape
from pgti.bench.limited_run import LimitedRun, run_limited
from pgti.bench.made_stores import forget_cached
from pgti.errors import ConfigError, require_whole_number
from pgti.store import SeriesStore

__all__ = [
    "MeasuredCommand",
    "MemoryOptions",
    "Outcome",
    "last_message",
    "last_object",
    "measure_commands",
    "peak_pss_bytes",
]

Outcome = Literal["done", "killed", "refused", "failed"]

_LEAST_LIMIT_BYTES = 1 << 20
_REFUSED = 2  # the exit code of a command that was given something that cannot be used
_KILLED = -9
_NOTE = "pgti: "  # before each line that a command says


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryOptions:
    """What is run on every store.

    Args:
        limit_bytes: of the control group that each command runs in; None sets no limit.
        batchings: trained with, one after the other.
        max_steps: optimiser steps of a training.
        batch_size: windows in a batch.
        hidden: size of the hidden state of the model, a DCRNN of two layers.
        windows: windows that are validated, tested and evaluated, at most.

    Raises:
        ConfigError: a number is too small, or there is no such batching.
    """

    limit_bytes: int | None = None
    batchings: tuple[str, ...] = BATCHINGS
    max_steps: int = 30
    batch_size: int = 8
    hidden: int = 16
    windows: int = 200

    def __post_init__(self) -> None:
        for name in ("max_steps", "batch_size", "hidden", "windows"):
            require_whole_number(name, getattr(self, name), 1)
        if self.limit_bytes is not None:
            require_whole_number("limit_bytes", self.limit_bytes, _LEAST_LIMIT_BYTES)
        if not self.batchings:
            raise ConfigError(f"no batching is named: give some of {', '.join(BATCHINGS)}")
        for name in self.batchings:
            if name not in BATCHINGS:
                raise ConfigError(
                    f"there is no batching {name!r}: it is one of {', '.join(BATCHINGS)}"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredCommand:
    """One command and the memory that it took.

    Args:
        command: train, evaluate or predict.
        batching: how batches were made.
        outcome: done; killed, for want of memory as a rule; refused before anything was done;
            or failed.
        limit_bytes: of its control group; None without one.
        peak_pss_bytes: the most memory of its processes; None where the system does not tell.
        group_peak_bytes: the most that its control group was charged with; None without a group.
        seconds: from its start to its end.
        seconds_to_first_step: of a training, from the start of the command; else None.
        notes: what the command said about itself, a line each: what it chose, and why.
        message: the last line of a command that was refused or failed; else empty.
    """

    command: str
    batching: str
    outcome: Outcome
    limit_bytes: int | None
    peak_pss_bytes: int | None
    group_peak_bytes: int | None
    seconds: float
    seconds_to_first_step: float | None
    notes: tuple[str, ...]
    message: str


def measure_commands(
    store: SeriesStore,
    shape: DatasetShape,
    options: MemoryOptions,
    log: Callable[[str], None],
) -> tuple[MeasuredCommand, ...]:
    """Train with every batching; evaluate and forecast with the first run that was trained.

    Args:
        store: to learn from; runs are made beside it and do not stay.
        shape: of its windows.
        options: of the commands.
        log: told what is being done, a line each.

    Returns:
        The commands in their order. One that fails or is killed is a result, not an error.
    """
    measured: list[MeasuredCommand] = []

    def is_done(command: str, batching: str, *arguments: object) -> bool:
        log(f"{command} {shape.name} with {batching} batches")
        forget_cached(store.path)
        tokens = [sys.executable, "-m", "pgti", command, *map(str, arguments), "--json"]
        measured.append(_told(command, batching, run_limited(tokens, options.limit_bytes)))
        return measured[-1].outcome == "done"

    with tempfile.TemporaryDirectory(prefix=".runs-", dir=store.path.parent) as scratch:
        runs = Path(scratch)
        trained = [
            runs / batching
            for batching in options.batchings
            if is_done("train", batching, *_training(store, shape, runs, batching, options))
        ]
        for run in trained[:1]:
            is_done("evaluate", "index", run, "--windows", options.windows)
            is_done("predict", "index", run, "--out", runs / "forecast.npz")
    return tuple(measured)


def _training(
    store: SeriesStore, shape: DatasetShape, runs: Path, batching: str, options: MemoryOptions
) -> tuple[object, ...]:
    """What stands behind `pgti train`."""
    return (
        store.path,
        *("--run", runs / batching),
        *("--batching", batching),
        *("--max-steps", options.max_steps),
        *("--batch-size", options.batch_size),
        *("--model.hidden", options.hidden),
        *("--val-windows", options.windows),
        *("--test-windows", options.windows),
        *("--windows.input-steps", shape.window_steps),
        *("--windows.horizon", shape.window_steps),
    )


def last_message(messages: str) -> str:
    """The last line that a command wrote to standard error; empty if there is none."""
    lines = messages.strip().splitlines()
    return lines[-1].removeprefix(_NOTE).removeprefix("error: ") if lines else ""


def last_object(output: str) -> Mapping[str, Any]:
    """The object on the last line of a command's output; an empty one if there is none."""
    lines = output.strip().splitlines()
    try:
        content = json.loads(lines[-1]) if lines else {}
    except json.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}


def peak_pss_bytes(ended: LimitedRun) -> int | None:
    """The most memory that was seen of a command, by us or by the command itself."""
    seen = (ended.peak_pss_bytes, last_object(ended.output).get("peak_pss_bytes"))
    return max((size for size in seen if size is not None), default=None)


def _told(command: str, batching: str, ended: LimitedRun) -> MeasuredCommand:
    outcome = _outcome(ended)
    return MeasuredCommand(
        command=command,
        batching=batching,
        outcome=outcome,
        limit_bytes=ended.limit_bytes,
        peak_pss_bytes=peak_pss_bytes(ended),
        group_peak_bytes=ended.group_peak_bytes,
        seconds=ended.seconds,
        seconds_to_first_step=last_object(ended.output).get("seconds_to_first_step"),
        notes=tuple(line.removeprefix(_NOTE) for line in _lines(ended) if line.startswith(_NOTE)),
        message=last_message(ended.messages) if outcome in {"refused", "failed"} else "",
    )


def _outcome(ended: LimitedRun) -> Outcome:
    if ended.was_oom_killed or ended.exit_code == _KILLED:
        return "killed"
    if ended.exit_code == 0:
        return "done"
    return "refused" if ended.exit_code == _REFUSED else "failed"


def _lines(ended: LimitedRun) -> list[str]:
    return [line.strip() for line in ended.messages.splitlines() if line.strip()]
