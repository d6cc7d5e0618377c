"""`pgti train`: learn a forecaster from a store."""

import time
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pgti.batching.memory import parse_bytes
from pgti.cli.first_step import FirstStep
from pgti.cli.model_options import option_value
from pgti.cli.output import print_json, say, show_errors
from pgti.errors import require_whole_number
from pgti.models import MODELS
from pgti.run import ModelConfig, RunConfig, WindowConfig, train_run
from pgti.training import (
    AbstractObserver,
    RichObserver,
    RunDirectory,
    TensorBoardObserver,
    TrainingConfig,
)
from pgti.training.peak_memory import PeakMemory

__all__ = ["train_command"]


def _model_help() -> str:
    """The models and their options, as they are in the code."""
    options = "; ".join(
        f"{name}: "
        + ", ".join(
            f"{each.name.replace('_', '-')} [{each.default}]" for each in fields(entry.config)
        )
        for name, entry in MODELS.items()
    )
    return f"Model, and its options as --model.OPTION VALUE. {options}."


def train_command(
    store: Path,
    /,
    *,
    run: Path,
    model: Annotated[
        dict[str, str] | None,
        Parameter(name="--model", help=_model_help()),
    ] = None,
    windows: WindowConfig = WindowConfig(),  # noqa: B008 - frozen
    training: Annotated[TrainingConfig, Parameter(name="*")] = TrainingConfig(),  # noqa: B008 - frozen
    batching: str = "auto",
    device: str = "auto",
    memory_budget: str | None = None,
    resume: bool = False,
    test_windows: int | None = None,
    tensorboard: bool = False,
    json: bool = False,
) -> None:
    """Train a model and evaluate it on the test windows.

    Options may stand in a TOML file too (--config run.toml), in the tables [windows], [model] and
    [training]; what is typed wins. The `config.toml` of a run is such a file.

    Args:
        store: The store to learn from.
        run: Directory of the run: made new, or with --resume gone on in.
        model: Name of the model, and its options.
        windows: Shape and split of the windows.
        training: How to train.
        batching: How batches are made: index (gathered from the store), device (from a copy of the
            series on the compute device), standard (all windows materialised, for comparison), or
            auto, the fastest that fits.
        device: Compute device: auto, cpu, cuda or cuda:1.
        memory_budget: Memory that the process may use on that device, such as 2GiB; what is free
            there if not given. What a run needs is told before it starts.
        resume: Go on from the run's last checkpoint.
        test_windows: Evaluate at most this many test windows at the end, spread evenly over the
            split.
        tensorboard: Write TensorBoard events too.
        json: Print one JSON object as the last line of standard output.
    """
    began = time.perf_counter()
    first_step = FirstStep()
    if test_windows is not None:
        require_whole_number("test-windows", test_windows, 1)
    chosen = dict(model or {})
    config = RunConfig(
        store=store.absolute(),
        windows=windows,
        model=ModelConfig(
            name=chosen.pop("name", "dcrnn"),
            options={key.replace("-", "_"): option_value(text) for key, text in chosen.items()},
        ),
        training=training,
        batching=batching,
        device=device,
        memory_budget=(
            None if memory_budget is None else parse_bytes("memory-budget", memory_budget)
        ),
    )

    def observers(directory: RunDirectory) -> list[AbstractObserver]:
        watching: list[AbstractObserver] = [RichObserver(), first_step]
        if tensorboard:
            watching.append(TensorBoardObserver(directory.tensorboard_directory))
        return watching

    with PeakMemory() as memory:
        trained, result = train_run(config, run, resume=resume, say=say, observers=observers)
        report: dict[str, Any] = {}
        if trained.splits.test:
            report = trained.evaluate("test", max_windows=test_windows)
            trained.directory.write_test(report["test"])
    if report:
        show_errors("test", report["test"], config.model.name)
    else:
        say("the test split has no window: nothing was evaluated")
    if first_step.began_after is not None and first_step.done_after is not None:
        say(
            f"the first optimiser step began {first_step.began_after:.1f} s after the command and "
            f"took {first_step.done_after - first_step.began_after:.1f} s"
        )
    say(f"the run is in {run}")
    if json:
        print_json(
            {
                "run": str(run),
                "epochs": result.epochs,
                "steps": result.steps,
                "train_loss": result.train_loss,
                "val": {"mae": result.best_val_mae},
                "best_epoch": result.best_epoch,
                "test": report.get("test"),
                "windows_per_second": result.windows_per_second,
                "seconds": time.perf_counter() - began,
                "seconds_to_training": first_step.began_after,
                "seconds_to_first_step": first_step.done_after,
                "peak_pss_bytes": memory.peak_bytes,
            }
        )
