"""`pgti.train`: train as a user of Python says."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from pgti.batching import WindowConfig
from pgti.display import print_line
from pgti.distributed import Communicator
from pgti.errors import ConfigError
from pgti.forecasting import Metrics, RichObserver
from pgti.models import ModelFactory
from pgti.options import require_path, require_type
from pgti.run.arguments import RunArguments, check_model, require_communicator
from pgti.run.config import RunConfig
from pgti.run.execute import train_run
from pgti.run.protocol import apply_protocol, given_windows, note_windows
from pgti.run.recipe import note_recipe, open_recipe, recipe_config, require_recipe
from pgti.run.run import Run
from pgti.run.trackers import TrackerLike
from pgti.run.tracking import Tracking
from pgti.run.warm_start import StartRun
from pgti.signatures import accept_options
from pgti.store import SeriesStore, open_store
from pgti.training import Callback, RunDirectory, TrainingConfig
from pgti.windows import Placement

__all__ = ["train"]


@accept_options(TrainingConfig)
def train(  # noqa: PLR0913 - each names one part of a run
    store: str | Path | SeriesStore,
    run: str | Path,
    *,
    model: str | ModelFactory | None = None,
    model_options: Mapping[str, Any] | None = None,
    windows: WindowConfig | Mapping[str, Any] | None = None,
    training: TrainingConfig | Mapping[str, Any] | None = None,
    loss: Any = None,
    metrics: Metrics | None = None,
    callbacks: Sequence[Callback] = (),
    track: TrackerLike | Sequence[TrackerLike] = (),
    batching: str | None = None,
    device: str | None = None,
    memory_budget: int | str | None = None,
    placement: Placement | None = None,
    shard_sensors: int | None = None,
    protocol: str | None = None,
    recipe: str | None = None,
    communicator: Communicator | None = None,
    init_from: Run | str | Path | None = None,
    refit_scaler: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    **training_options: Any,
) -> Run:
    """Train a model on a store; the result is a run directory.

    Args:
        store: the store, or its path.
        run: directory to create, or with `resume` to continue in.
        model: name of a model, "dcrnn" by default; or a network of your own: its class, a function
            that returns it, or `module:Class`. It is built as `Class(shape, **model_options)`,
            `shape` a `ModelShape`, called with x [B, L, N, C + F], standardised, and with what else
            its `forward` names (`supports`, `x_mask`, `calendar`: docs/own-models.md), and returns
            [B, H, N, C_out], standardised.
        model_options: options of the model.
        windows: shape and split of the windows; a `WindowConfig`, or its options by name.
        training: options of the training loop; a `TrainingConfig`, or its options by name.
        loss: "mae", "huber", "mse" or an instance of their classes; or a function of your own that
            maps prediction, target and mask, [B, H, N, C_out] in original units, to the sum of
            the losses of observed targets and their count, two scalar tensors. Gradients are those
            of the sum over all ranks divided by the count over all ranks.
        metrics: functions of your own by name, which validation and evaluation compute beside MAE,
            RMSE and MAPE: each maps prediction, target and mask of one horizon step and channel,
            [B, N] in original units, to a sum and a count.
        callbacks: follow the training, and may stop it.
        track: where to show metrics, options and files of the run: "mlflow", "tensorboard",
            "trackio", "wandb" or several, or their classes with options (`pgti.interop.tracking`).
        batching: "auto" (the default), "index", "device" or "standard": see `RunConfig`.
        device: "auto" (the default), "cpu" or "cuda".
        memory_budget: bytes that the process may use on that device, or text such as "2GiB"; by
            default what is free.
        placement: "replicated" (the default) or "partitioned": see `RunConfig`.
        shard_sensors: ranks that share the sensors of each window, 1 by default.
        protocol: "published" takes windows, inputs, targets, calendar and split from the published
            protocol of the data set that the store is (`pgti.fetch` writes it), or the name of a
            data set from its protocol; `windows` come first.
        recipe: a published recipe, such as "metr-la/dcrnn" (`pgti recipes` lists them): windows,
            model and training as published for the data set of the store, below the other options.
        communicator: the ranks that train together (`init_communicator`); one process by default.
        init_from: a run, or its directory, whose weights to start from, with its options where none
            are given here; the store may have other sensors, or more rows. `Run.open(path,
            checkpoint="last")` starts from its last weights in place of its best. `freeze` names
            layers that stay as they are, and `epochs=0` takes the weights over without training.
        refit_scaler: with `init_from`, fit the scaler on the training rows of `store`, in place of
            taking that of the run over.
        resume: continue a run from its last checkpoint, with its own options where none are given
            here; a run that is finished stays as it is.
        overwrite: replace a run that is there.
        progress: show progress and choices on standard error, or in a notebook.
        **training_options: options of `TrainingConfig`:

    Returns:
        The run, with its best parameters.

    Raises:
        PgtiError: if something given cannot be used; nothing is left behind then.
        KeyboardInterrupt: an `Interrupted`, once the state is saved; `resume=True` continues.
    """
    flags = {"resume": resume, "overwrite": overwrite, "refit_scaler": refit_scaler}
    _check_flags({**flags, "progress": progress}, init_from)
    require_communicator(communicator)
    model = check_model(model)
    opened = open_store(store)
    log: Callable[[str], None] = print_line if progress else lambda _: None
    notes: tuple[str, ...] = ()
    if protocol is not None:
        require_type("protocol", protocol, str, "published, or the name of a data set")
        windows, notes = apply_protocol(protocol, opened, given_windows(windows))
    start = None
    if init_from is not None:
        start = StartRun.of(init_from, model=model, refit_scaler=refit_scaler)
    published = open_recipe(recipe, model=model, protocol=protocol, start=start is not None)
    base = None if published is None else recipe_config(published, opened)
    given = RunArguments.of(
        model=model,
        model_options=model_options,
        windows=windows,
        training=training,
        training_options=training_options,
        loss=loss,
        metrics=metrics,
        callbacks=callbacks,
        others={
            "batching": batching,
            "device": device,
            "memory_budget": memory_budget,
            "placement": placement,
            "shard_sensors": shard_sensors,
        },
        of_run=base if start is None else start.config,
    )
    path = require_path("run", run)
    before: RunConfig | None
    if resume and RunDirectory.exists(path):
        before = RunConfig.of_run(RunDirectory(path).config_file, opened.path.absolute())
        require_recipe(published, before, path)
    else:
        before = base if start is None else start.config_for(opened)
    config = given.configure(opened, before)
    if protocol is not None:
        notes += note_windows(protocol, opened, config)
    notes += note_recipe(opened, config)
    if communicator is None or communicator.is_main:
        for line in notes:
            log(line)
    with Tracking(track, log=log) as tracking:
        tracking.check(communicator)
        trained, _ = train_run(
            config,
            path,
            store=opened,
            model=given.factory,
            resume=resume,
            overwrite=overwrite,
            log=log,
            observers=tracking.observers([RichObserver()] if progress else ()),
            communicator=communicator,
            extensions=given.extensions,
            start=start,
        )
    return trained


def _check_flags(flags: Mapping[str, object], init_from: object) -> None:
    for name, flag in flags.items():
        require_type(name, flag, bool, "True or False")
    kinds = (Run, str, Path, NoneType)
    require_type("init_from", init_from, kinds, "a run or the directory of one")
    if flags["refit_scaler"] and init_from is None:
        raise ConfigError("refit_scaler belongs to init_from: a new run fits its scaler anyway")
    if flags["resume"] and flags["overwrite"]:
        raise ConfigError("resume and overwrite exclude each other: choose one of them")
