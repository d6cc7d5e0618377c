"""`pgti bench equivalence`: does index-batching change any result?"""

import tempfile
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from pgti.bench import to_json
from pgti.bench.equivalence import EquivalenceResult, measure_equivalence
from pgti.cli.bench_output import finish
from pgti.cli.output import log, print_json, show
from pgti.errors import ConfigError, DifferenceError
from pgti.run import ModelConfig, RunConfig, WindowConfig
from pgti.run.build import resolve_model
from pgti.store import SeriesStore
from pgti.training import TrainingConfig

__all__ = ["bench_equivalence_command"]


def bench_equivalence_command(
    store: Path,
    /,
    *,
    models: str = "dcrnn,a3tgcn,tgcn",
    batchings: str = "index,device",
    windows: WindowConfig = WindowConfig(),
    epochs: int = 1,
    max_steps: int | None = 20,
    batch_size: int = 64,
    val_windows: int | None = None,
    seed: int = 0,
    json: bool = False,
) -> None:
    """Train models with materialised windows and with index-batching, and compare every bit.

    Compared are the loss after each step, the errors of each validation, and the parameters and
    the optimiser's moments at the end. Exit code 1 if anything differs, or cannot be
    trained that standard batching trains.

    Args:
        store: The store to learn from.
        models: Models, with commas, with their default options; pgt:LAYER too.
        batchings: Compared with standard batching, with commas: index, device.
        windows: Shape and split of the windows.
        epochs: Epochs of each training.
        max_steps: Optimiser steps after which each training ends.
        batch_size: Windows of a batch.
        val_windows: Windows of a validation at most.
        seed: Of parameters and order.
        json: Print one JSON object as the last line of standard output.
    """
    config = RunConfig(
        store=SeriesStore.open(store).path.absolute(),
        windows=windows,
        training=TrainingConfig(
            epochs=epochs,
            max_steps=max_steps,
            batch_size=batch_size,
            val_windows=val_windows,
            seed=seed,
        ),
    )
    names = _named("models", models)
    with tempfile.TemporaryDirectory(prefix="pgti-") as scratch:
        options = {}
        for number, name in enumerate(names):
            file = Path(scratch) / f"{number}.toml"
            each = replace(config, model=resolve_model(ModelConfig(name=name)))
            file.write_text(each.to_toml(), encoding="utf-8")
            options[name] = ("--config", str(file), "--test-windows", "1")
        result = measure_equivalence(
            config.store, options, batchings=_named("batchings", batchings), log=log
        )
    show(_table(result))
    if json:
        print_json(to_json(result))
    finish("Equivalence", result.machine, result.left_out, None, ())
    if result.differences:
        raise DifferenceError(f"results differ: {', '.join(result.differences)}")


def _named(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"{option} is {text!r}: name at least one")
    return names


def _table(result: EquivalenceResult) -> Table:
    table = Table(title="the same training, batch for batch", title_justify="left")
    for title in ("model", "batching"):
        table.add_column(title, no_wrap=True)
    for title in ("first loss", "last loss", "val MAE", "equal losses", "validation", "parameters"):
        table.add_column(title, justify="right")
    for each in result.trainings:
        table.add_row(
            each.model,
            each.batching,
            *(_number(value) for value in (each.first_loss, each.last_loss, each.val_mae)),
            f"{each.equal_losses} of {each.steps}",
            "equal" if each.equal_validations else "DIFFERENT",
            f"{'equal' if each.equal_parameters else 'DIFFERENT'} {each.parameters_sha256[:12]}",
        )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6f}"
