"""`pgti train`: learn a forecaster from a store."""

import time
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from pgti.cli.first_step import FirstStep
from pgti.cli.job import open_job, open_local_copy, this_job
from pgti.cli.model_options import option_value
from pgti.cli.output import log, print_json, show_errors
from pgti.distributed import TIMEOUT_SECONDS
from pgti.errors import require_whole_number
from pgti.forecasting import AbstractObserver, RichObserver, TensorBoardObserver
from pgti.memory.available import parse_bytes
from pgti.memory.process import PeakMemory
from pgti.models import MODELS
from pgti.run import ModelConfig, RunConfig, WindowConfig, train_run
from pgti.training import RunDirectory, TrainingConfig

__all__ = ["train_command"]


def _model_help() -> str:
    """The models and their options, as they are in the code, then layers of other libraries."""
    models = "; ".join(
        f"{name}: "
        + ", ".join(
            f"{each.name.replace('_', '-')} [{each.default}]" for each in fields(entry.config)
        )
        for name, entry in MODELS.items()
        if not entry.library
    )
    layers: dict[str, list[str]] = {}
    for name, entry in MODELS.items():
        if entry.library:
            prefix, _, layer = name.partition(":")
            layers.setdefault(f"{prefix}:LAYER for a layer of {entry.library}", []).append(layer)
    rest = "".join(f"; {what}: {', '.join(names)}" for what, names in layers.items())
    return f"Model, and its options as --model.OPTION VALUE. {models}{rest}."


def train_command(
    store: Path,
    /,
    *,
    run: Annotated[Path, Parameter(name=("--run", "--run-dir"))],
    model: Annotated[
        dict[str, str] | None,
        Parameter(name="--model", help=_model_help()),
    ] = None,
    windows: WindowConfig = WindowConfig(),  # noqa: B008 - frozen
    training: Annotated[TrainingConfig, Parameter(name="*")] = TrainingConfig(),  # noqa: B008 - frozen
    batching: str = "auto",
    placement: Literal["replicated", "partitioned"] = "replicated",
    local_copy: Path | None = None,
    device: str = "auto",
    memory_budget: str | None = None,
    resume: bool = False,
    peer_timeout: float = TIMEOUT_SECONDS,
    test_windows: int | None = None,
    tensorboard: bool = False,
    json: bool = False,
) -> None:
    """Train a model and evaluate it on the test windows.

    Options may stand in a TOML file too (--config run.toml), in the tables [windows], [model] and
    [training]; what is typed wins. The `config.toml` of a run is such a file.

    Args:
        store: The store to learn from.
        run: Directory of the run: made new, or with --resume gone on in. Behind torchrun, which
            has options that begin with --run, spell it --run-dir.
        model: Name of the model, and its options.
        windows: Shape and split of the windows.
        training: How to train.
        batching: How batches are made: index (gathered from the store), device (from a copy of the
            series on the compute device), standard (all windows materialised, for comparison), or
            auto, the fastest that fits.
        placement: Where the training rows are when several ranks train (torchrun, srun, mpirun):
            replicated, every rank maps the store; partitioned, each holds its part of the series.
        local_copy: Directory on a local disk to which each machine copies the store first, once;
            later runs use the copy. For stores on a shared file system.
        device: Compute device: auto, cpu, cuda or cuda:1; with several ranks auto and cuda are each
            rank's own GPU.
        memory_budget: Memory that the process may use on that device, such as 2GiB; what is free
            there if not given. What a run needs is told before it starts.
        resume: Go on from the run's last checkpoint, with any number of ranks. A process that
            torchrun has started again does so unasked.
        peer_timeout: Seconds after which a rank that does not answer ends the job.
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
        placement=placement,
        memory_budget=(
            None if memory_budget is None else parse_bytes("memory-budget", memory_budget)
        ),
    )

    def observers(directory: RunDirectory) -> list[AbstractObserver]:
        watching: list[AbstractObserver] = [RichObserver(), first_step]
        if tensorboard:
            watching.append(TensorBoardObserver(directory.tensorboard_directory))
        return watching

    with PeakMemory() as memory, open_job(device, peer_timeout) as communicator:
        trained, result = train_run(
            config,
            run,
            store=None if local_copy is None else open_local_copy(store, local_copy, communicator),
            resume=resume,
            job=this_job(),
            log=log,
            observers=observers,
            communicator=communicator,
        )
        report: dict[str, Any] = {}
        if trained.splits.test:
            report = trained.evaluate("test", max_windows=test_windows)
        with communicator.raise_together():
            if report and communicator.is_main:
                trained.directory.write_test(report["test"])
        sent = communicator.traffic.sent_bytes
    if not communicator.is_main:
        return
    if report:
        show_errors("test", report["test"], config.model.name)
    else:
        log("the test split has no window: nothing was evaluated")
    first_step.tell()
    if any(sent.values()):
        told = ", ".join(f"{kind} {num_bytes:,}" for kind, num_bytes in sent.items())
        log(f"{communicator.world_size} ranks; bytes that rank 0 sent: {told}")
    log(f"the run is in {run}")
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
                "parameters": result.parameters,
                "seconds": time.perf_counter() - began,
                "training_seconds": result.seconds,
                "seconds_to_training": first_step.began_after,
                "seconds_to_first_step": first_step.done_after,
                "peak_pss_bytes": memory.peak_bytes,
                "world_size": communicator.world_size,
                "sent_bytes": sent,
            }
        )
