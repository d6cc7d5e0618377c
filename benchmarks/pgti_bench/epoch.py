"""Time an epoch of training from end to end with each batching strategy, in separate processes."""

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from pgti.batching import BATCHINGS
from pgti.cli.output import log as log_line
from pgti.cli.output import print_results
from pgti.errors import ConfigError, require_whole_number
from pgti.run.results import Machine, Spread, to_json
from pgti.store import SeriesStore
from pgti_bench.errors import BenchError
from pgti_bench.interleave import interleave
from pgti_bench.limited_run import run_limited
from pgti_bench.output import finish, number
from pgti_bench.plot import Bar, Chart, check_plot, scale_spread

__all__ = ["BatchingEpochs", "EpochResult", "epoch_command", "measure_epochs"]

_AUTO = "auto"
_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchingEpochs:
    """Epochs with one batching strategy.

    Attributes:
        batching: its name.
        windows_per_second: of training, validation left out.
        seconds: from the start of the command to its end, validation and test included.
        seconds_to_first_step: from the start of the command to the end of its first step.
        peak_pss_bytes: peak memory of the process; None where it is not reported.
    """

    batching: str
    windows_per_second: Spread
    seconds: Spread
    seconds_to_first_step: Spread
    peak_pss_bytes: Spread | None


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochResult:
    """Epochs of one store and model.

    Attributes:
        machine: where it was measured.
        store: the store.
        steps: optimizer steps of each epoch.
        epochs: by batching, in the given order; those that could not train are left out.
        left_out: which batchings those are and why, one line each.
    """

    machine: Machine
    store: Path
    steps: int
    epochs: tuple[BatchingEpochs, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Epoch:
    steps: int
    windows_per_second: float
    seconds: float
    seconds_to_first_step: float
    peak_pss_bytes: int | None


def measure_epochs(
    store: Path,
    options: Sequence[str],
    *,
    batching: Sequence[str],
    rounds: int,
    log: Callable[[str], None] = lambda _: None,
) -> EpochResult:
    """Train one epoch with each batching strategy in turn, `rounds` times, interleaved.

    Args:
        store: the store.
        options: of `pgti train`, without `--batching`, `--epochs` and `--run`.
        batching: names of strategies; auto is what pgti would choose.
        rounds: epochs of each.
        log: receives one line for each thing that is done.

    Raises:
        ConfigError: a batching is unknown, or `rounds` is not a positive whole number.
        BenchError: no batching could train; the first one's reason is in the message.
    """
    require_whole_number("rounds", rounds, 1)
    known = (_AUTO, *BATCHINGS)
    for name in batching:
        if name not in known:
            raise ConfigError(f"there is no batching {name!r}: it is one of {', '.join(known)}")
    if not batching:
        raise ConfigError(f"batching is empty: name some of {', '.join(known)}")
    epochs: dict[str, list[_Epoch]] = {name: [] for name in batching}
    problems: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="pgti-") as scratch:

        def train(name: str) -> float:
            if name in problems:
                return 0.0
            epoch = len(epochs[name]) + 1
            log(f"epoch {epoch} of {rounds} with {name} batches")
            run = Path(scratch) / f"{name}-{epoch}"
            tokens = ("--batching", name, "--run", str(run), "--epochs", "1", *options)
            try:
                epochs[name].append(_train(store, tokens))
            except BenchError as error:
                problems[name] = str(error)
                return 0.0
            return epochs[name][-1].seconds

        interleave({name: partial(train, name) for name in epochs}, rounds, warmups=0)
    if len(problems) == len(epochs):
        raise BenchError(next(iter(problems.values())))
    measured = {name: runs for name, runs in epochs.items() if name not in problems}
    return EpochResult(
        machine=Machine.here(),
        store=store,
        steps=next(iter(measured.values()))[0].steps,
        epochs=tuple(_summarize(name, runs) for name, runs in measured.items()),
        left_out=tuple(f"{name} batches: {problem}" for name, problem in problems.items()),
    )


def _train(store: Path, tokens: Sequence[str]) -> _Epoch:
    """Train once, in a separate process.

    Raises:
        BenchError: it did not train to the end.
    """
    command = [sys.executable, "-m", "pgti", "train", str(store), *tokens, "--json"]
    ended = run_limited(command, None)
    report = ended.report
    if ended.exit_code != 0 or report.get("seconds_to_first_step") is None:
        reason = ended.last_message
        if ended.exit_code < 0:
            reason = f"killed by signal {-ended.exit_code}"
        raise BenchError(f"pgti train did not train to the end: {reason}")
    return _Epoch(
        steps=report["steps"],
        windows_per_second=report["windows_per_second"],
        seconds=ended.seconds,
        seconds_to_first_step=report["seconds_to_first_step"],
        peak_pss_bytes=ended.peak_bytes,
    )


def _summarize(batching: str, epochs: Sequence[_Epoch]) -> BatchingEpochs:
    sizes = [each.peak_pss_bytes for each in epochs if each.peak_pss_bytes is not None]
    return BatchingEpochs(
        batching=batching,
        windows_per_second=Spread.of([each.windows_per_second for each in epochs]),
        seconds=Spread.of([each.seconds for each in epochs]),
        seconds_to_first_step=Spread.of([each.seconds_to_first_step for each in epochs]),
        peak_pss_bytes=Spread.of(sizes) if sizes else None,
    )


def epoch_command(
    store: Path,
    /,
    *options: Annotated[str, Parameter(allow_leading_hyphen=True)],
    batching: tuple[str, ...] = BATCHINGS,
    rounds: int = 3,
    plot: Path | None = None,
    json: bool = False,
) -> None:
    """Time an epoch of pgti train with each batching, interleaved, as separate processes.

    Options that are not listed here go to pgti train: --model, --batch-size, --config, --max-steps
    and so on. Validation and test use at most 64 windows unless --val-windows and --test-windows
    are given.

    Args:
        store: The store to train on.
        options: Options of pgti train, without --batching, --epochs and --run.
        batching: Comma-separated strategies to compare: index, device, standard, auto.
        rounds: Epochs with each strategy.
        plot: HTML file for a plot.
        json: Print one JSON object on standard output, and no tables.
    """
    check_plot(plot)
    few = [f"--{split}-windows" for split in ("val", "test")]
    limits = [token for flag in few if flag not in options for token in (flag, "64")]
    result = measure_epochs(
        SeriesStore.open(store).path.absolute(),
        (*limits, *options),
        batching=batching,
        rounds=rounds,
        log=log_line,
    )
    print_results(to_json(result), _table(result), as_json=json)
    finish(f"An epoch of {store.name}", result.machine, result.left_out, plot, _charts(result))


def _table(result: EpochResult) -> Table:
    rounds = result.epochs[0].seconds.runs
    table = Table(
        title=f"an epoch of {result.steps:,} steps: median (range) of {rounds}",
        title_justify="left",
    )
    table.add_column("batching")
    for name in ("windows/s", "seconds", "to first step", "peak PSS, MiB"):
        table.add_column(name, justify="right")
    for each in result.epochs:
        table.add_row(
            each.batching,
            number(each.windows_per_second),
            number(each.seconds),
            number(each.seconds_to_first_step),
            number(each.peak_pss_bytes, _MIB),
        )
    return table


def _charts(result: EpochResult) -> list[Chart]:
    speeds = [Bar(name=each.batching, value=each.windows_per_second) for each in result.epochs]
    waits = [Bar(name=each.batching, value=each.seconds_to_first_step) for each in result.epochs]
    sizes = [
        Bar(name=each.batching, value=scale_spread(each.peak_pss_bytes, 1 / _MIB))
        for each in result.epochs
        if each.peak_pss_bytes is not None
    ]
    charts = [
        Chart(title="training", unit="windows per second", bars=tuple(speeds)),
        Chart(title="from the command to the first step", unit="seconds", bars=tuple(waits)),
    ]
    return [*charts, Chart(title="peak PSS", unit="MiB", bars=tuple(sizes))] if sizes else charts
