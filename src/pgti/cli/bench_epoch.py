"""`pgti bench epoch`: an epoch of training from end to end, with each batching."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from pgti.bench import to_json
from pgti.bench.epoch import EpochResult, measure_epochs
from pgti.bench.plot import Bar, Chart, check_plot
from pgti.cli.bench_output import finish, number
from pgti.cli.output import log, print_json, show
from pgti.cli.run_options import RunFlags, run_config
from pgti.run.build import resolve_model
from pgti.store import SeriesStore

__all__ = ["bench_epoch_command"]

_MIB = 1 << 20


def bench_epoch_command(
    store: Path,
    /,
    *,
    options: Annotated[RunFlags | None, Parameter(name="*")] = None,
    batchings: str = "index,device,standard",
    rounds: int = 3,
    plot: Path | None = None,
    json: bool = False,
) -> None:
    """Time one epoch of training with each batching, in alternation, each a process of its own.

    The options are those of pgti train; --epochs is always 1, and --max-steps may cut it short.
    Validation and test look at one batch each, unless --val-windows says otherwise.

    Args:
        store: The store to learn from.
        options: Options of the run.
        batchings: Batchings to compare, with commas.
        rounds: Epochs with each batching.
        plot: HTML file for a plot.
        json: Print one JSON object as the last line of standard output.
    """
    check_plot(plot)
    config = run_config(SeriesStore.open(store).path, options or {})
    few = config.training.val_windows or config.training.batch_size
    config = replace(
        config,
        model=resolve_model(config.model),
        training=replace(config.training, epochs=1, val_windows=few),
        batching="auto",
    )
    with tempfile.TemporaryDirectory(prefix="pgti-") as scratch:
        file = Path(scratch) / "config.toml"
        file.write_text(config.to_toml(), encoding="utf-8")
        result = measure_epochs(
            config.store,
            ("--config", str(file), "--test-windows", str(few)),
            batchings=[name.strip() for name in batchings.split(",") if name.strip()],
            rounds=rounds,
            log=log,
        )
    _show(result)
    if json:
        print_json(to_json(result))
    finish(f"An epoch of {store.name}", result.machine, result.left_out, plot, _charts(result))


def _show(result: EpochResult) -> None:
    rounds = result.epochs[0].seconds.runs
    table = Table(
        title=f"an epoch of {result.steps:,} steps: median (least to most) of {rounds}",
        title_justify="left",
    )
    table.add_column("batching")
    for name in ("windows/s", "seconds", "to the first step", "peak PSS, MiB"):
        table.add_column(name, justify="right")
    for each in result.epochs:
        table.add_row(
            each.batching,
            number(each.windows_per_second),
            number(each.seconds),
            number(each.seconds_to_first_step),
            number(each.peak_pss_bytes, _MIB),
        )
    show(table)


def _charts(result: EpochResult) -> list[Chart]:
    speeds = [Bar(name=each.batching, value=each.windows_per_second) for each in result.epochs]
    waits = [Bar(name=each.batching, value=each.seconds_to_first_step) for each in result.epochs]
    sizes = [
        Bar(name=each.batching, value=each.peak_pss_bytes.scaled(1 / _MIB))
        for each in result.epochs
        if each.peak_pss_bytes is not None
    ]
    charts = [
        Chart(title="training", unit="windows per second", bars=tuple(speeds)),
        Chart(title="from the command to the first step", unit="seconds", bars=tuple(waits)),
    ]
    return [*charts, Chart(title="peak PSS", unit="MiB", bars=tuple(sizes))] if sizes else charts
