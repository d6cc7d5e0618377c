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
from pgti.cli.model_options import option_value
from pgti.cli.output import log, print_json, show
from pgti.memory.available import parse_bytes
from pgti.run import ModelConfig, RunConfig, WindowConfig
from pgti.run.build import resolve_model
from pgti.store import SeriesStore
from pgti.training import TrainingConfig

__all__ = ["bench_epoch_command"]

_MIB = 1 << 20


def bench_epoch_command(
    store: Path,
    /,
    *,
    model: Annotated[
        dict[str, str] | None,
        Parameter(
            name="--model",
            help="Model, and its options as --model.OPTION VALUE, as in pgti train.",
        ),
    ] = None,
    windows: WindowConfig = WindowConfig(),
    training: Annotated[TrainingConfig, Parameter(name="*")] = TrainingConfig(),
    batching: str = "index,device,standard",
    device: str = "auto",
    memory_budget: str | None = None,
    rounds: int = 3,
    plot: Path | None = None,
    json: bool = False,
) -> None:
    """Time one epoch of training with each batching, in alternation, each a process of its own.

    The options are those of pgti train; --epochs is always 1, and --max-steps may cut it short.
    Validation and test look at one batch each, unless --val-windows says otherwise.

    Args:
        store: The store to learn from.
        model: Name of the model, and its options.
        windows: Shape and split of the windows.
        training: How to train.
        batching: Batchings to compare, with commas.
        device: Compute device: auto, cpu, cuda or cuda:1.
        memory_budget: Memory that each process may use on that device, such as 2GiB.
        rounds: Epochs with each batching.
        plot: HTML file for a plot.
        json: Print one JSON object as the last line of standard output.
    """
    check_plot(plot)
    chosen = dict(model or {})
    few = training.val_windows or training.batch_size
    config = RunConfig(
        store=SeriesStore.open(store).path.absolute(),
        windows=windows,
        model=resolve_model(
            ModelConfig(
                name=chosen.pop("name", "dcrnn"),
                options={key.replace("-", "_"): option_value(text) for key, text in chosen.items()},
            )
        ),
        training=replace(training, epochs=1, val_windows=few),
        device=device,
        memory_budget=(
            None if memory_budget is None else parse_bytes("memory-budget", memory_budget)
        ),
    )
    with tempfile.TemporaryDirectory(prefix="pgti-") as scratch:
        file = Path(scratch) / "config.toml"
        file.write_text(config.to_toml(), encoding="utf-8")
        result = measure_epochs(
            config.store,
            ("--config", str(file), "--test-windows", str(few)),
            batchings=[name.strip() for name in batching.split(",") if name.strip()],
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
