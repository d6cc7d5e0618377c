"""Train, evaluate and forecast as separate commands, and measure the memory that each takes.

Each is a process, in its own control group if a limit is given. The store's pages are dropped from
the page cache before, so that the group is charged for every page of the store that it reads.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from pgti.batching import BATCHINGS
from pgti.errors import ConfigError, require_whole_number
from pgti.store import SeriesStore
from pgti_bench.limited_run import LimitedRun, run_limited
from pgti_bench.paper_datasets import DatasetShape
from pgti_bench.synthetic_stores import drop_page_cache

__all__ = ["MeasuredCommand", "MemoryOptions", "Outcome", "measure_commands"]

Outcome = Literal["done", "killed", "refused", "failed"]

_MIN_LIMIT_BYTES = 1 << 20
_REFUSED = 2  # exit code of a command with an argument that it cannot use
_KILLED = -9


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryOptions:
    """What is run on every store.

    Attributes:
        limit_bytes: memory limit of each command's control group; None sets no limit.
        batching: Batching strategies to train with, comma-separated.
        max_steps: Optimizer steps of a training.
        batch_size: Windows per batch.
        network: Model to train.
        hidden: Hidden units of each layer of a DCRNN, which has two; other models have their
            defaults.
        history: History of the windows, as `--windows.history` takes it; none by default.
        windows: Maximum number of windows to validate, test and evaluate.

    Raises:
        ConfigError: a number is too small, or a batching is unknown.
    """

    limit_bytes: Annotated[int | None, Parameter(parse=False)] = None
    batching: tuple[str, ...] = BATCHINGS
    max_steps: int = 30
    batch_size: int = 8
    network: str = "dcrnn"
    hidden: int = 16
    history: tuple[str, ...] = ()
    windows: int = 200

    def __post_init__(self) -> None:
        for name in ("max_steps", "batch_size", "hidden", "windows"):
            require_whole_number(name, getattr(self, name), 1)
        if self.limit_bytes is not None:
            require_whole_number("limit_bytes", self.limit_bytes, _MIN_LIMIT_BYTES)
        if not self.batching:
            raise ConfigError(f"batching is empty: name some of {', '.join(BATCHINGS)}")
        for name in self.batching:
            if name not in BATCHINGS:
                raise ConfigError(
                    f"there is no batching {name!r}: it is one of {', '.join(BATCHINGS)}"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredCommand:
    """One command and the memory that it took.

    Attributes:
        command: train, evaluate or predict.
        batching: how batches were made.
        outcome: done; killed, usually because memory ran out; refused before it started; or
            failed.
        limit_bytes: of its control group; None without one.
        peak_pss_bytes: peak memory of its processes; None where it is not reported.
        group_peak_bytes: peak memory charged to its control group; None without a group.
        seconds: from its start to its end.
        seconds_to_first_step: of a training, from the start of the command; else None.
        notes: what the command logged, one line each.
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

    @classmethod
    def of(cls, command: str, batching: str, ended: LimitedRun) -> "MeasuredCommand":
        """What a finished run of the command says."""
        outcome = _outcome(ended)
        return cls(
            command=command,
            batching=batching,
            outcome=outcome,
            limit_bytes=ended.limit_bytes,
            peak_pss_bytes=ended.peak_bytes,
            group_peak_bytes=ended.group_peak_bytes,
            seconds=ended.seconds,
            seconds_to_first_step=ended.report.get("seconds_to_first_step"),
            notes=ended.notes,
            message=ended.last_message if outcome in {"refused", "failed"} else "",
        )


def measure_commands(
    store: SeriesStore,
    shape: DatasetShape,
    options: MemoryOptions,
    log: Callable[[str], None],
) -> tuple[MeasuredCommand, ...]:
    """Train with every batching; evaluate and forecast with the first run that was trained.

    Args:
        store: to train on; runs are written beside it and removed afterwards.
        shape: of its windows.
        options: of the commands.
        log: receives one line for each thing that is done.

    Returns:
        The commands in their order. One that fails or is killed is a result, not an error.
    """
    measured: list[MeasuredCommand] = []

    def is_done(command: str, batching: str, *arguments: object) -> bool:
        log(f"{command} {shape.name} with {batching} batches")
        drop_page_cache(store.path)
        tokens = [sys.executable, "-m", "pgti", command, *map(str, arguments), "--json"]
        ended = run_limited(tokens, options.limit_bytes)
        measured.append(MeasuredCommand.of(command, batching, ended))
        return measured[-1].outcome == "done"

    with tempfile.TemporaryDirectory(prefix=".runs-", dir=store.path.parent) as scratch:
        runs = Path(scratch)
        trained = [
            runs / batching
            for batching in options.batching
            if is_done("train", batching, *_train_arguments(store, shape, runs, batching, options))
        ]
        for run in trained[:1]:
            is_done("evaluate", "index", run, "--windows", options.windows)
            is_done("predict", "index", run, "--out", runs / "forecast.npz")
    return tuple(measured)


def _train_arguments(
    store: SeriesStore, shape: DatasetShape, runs: Path, batching: str, options: MemoryOptions
) -> tuple[object, ...]:
    return (
        store.path,
        *("--run", runs / batching),
        *("--batching", batching),
        *("--max-steps", options.max_steps),
        *("--batch-size", options.batch_size),
        *("--model", options.network),
        *(("--model.hidden", options.hidden) if options.network == "dcrnn" else ()),
        *(("--windows.history", ",".join(options.history)) if options.history else ()),
        *("--val-windows", options.windows),
        *("--test-windows", options.windows),
        *("--windows.input-steps", shape.window_steps),
        *("--windows.horizon", shape.window_steps),
    )


def _outcome(ended: LimitedRun) -> Outcome:
    if ended.was_oom_killed or ended.exit_code == _KILLED:
        return "killed"
    if ended.exit_code == 0:
        return "done"
    return "refused" if ended.exit_code == _REFUSED else "failed"
