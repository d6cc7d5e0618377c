"""`pgti.train`: what a user of Python gives, as a configuration and what is added to it."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any

from pgti.batching import WindowConfig
from pgti.distributed import Communicator, find_launch
from pgti.errors import ConfigError
from pgti.forecasting import Metrics, RichObserver, check_metrics
from pgti.models import MODELS, AbstractModel, ModelFactory, name_of_own_model
from pgti.options import check_options, require_path, require_type
from pgti.run.build import relocate_model
from pgti.run.config import RunConfig
from pgti.run.execute import train_run
from pgti.run.run import Run
from pgti.run.warm_start import StartRun
from pgti.signatures import accept_options
from pgti.store import SeriesStore, open_store
from pgti.training import (
    Callback,
    CustomLoss,
    Extensions,
    RunDirectory,
    TrainingConfig,
)
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
    batching: str | None = None,
    device: str | None = None,
    memory_budget: int | str | None = None,
    placement: Placement | None = None,
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
        batching: "auto" (the default), "index", "device" or "standard": see `RunConfig`.
        device: "auto" (the default), "cpu" or "cuda".
        memory_budget: bytes that the process may use on that device, or text such as "2GiB"; by
            default what is free.
        placement: "replicated" (the default) or "partitioned": see `RunConfig`.
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
    if communicator is None and find_launch(os.environ).world_size > 1:
        raise ConfigError(
            "this is one of several processes, which must train together: pass "
            "communicator= from `with pgti.init_communicator() as communicator`"
        )
    flags = {"resume": resume, "overwrite": overwrite, "progress": progress}
    for name, flag in {**flags, "refit_scaler": refit_scaler}.items():
        require_type(name, flag, bool, "True or False")
    kinds = (Run, str, Path, NoneType)
    require_type("init_from", init_from, kinds, "a run or the directory of one")
    if refit_scaler and init_from is None:
        raise ConfigError("refit_scaler belongs to init_from: a new run fits its scaler anyway")
    require_type("communicator", communicator, (Communicator, NoneType), "a Communicator")
    require_type("model_options", model_options, (Mapping, NoneType), "options by name")
    if resume and overwrite:
        raise ConfigError("resume and overwrite exclude each other: choose one of them")
    model = _check_model(model)
    start = None
    if init_from is not None:
        start = StartRun.of(init_from, model=model, refit_scaler=refit_scaler)
    known = model if start is None or model is not None else start.config.model.name
    _refuse_misplaced(training_options, known)
    check_options(training_options, TrainingConfig)
    opened, path = open_store(store), require_path("run", run)
    check_metrics({} if metrics is None else metrics)
    own_loss = loss if callable(loss) and not is_dataclass(loss) else None
    if own_loss is not None:
        loss = CustomLoss(name=getattr(loss, "__qualname__", type(loss).__name__))
    given = {
        "model": _model_table(model, model_options),
        "windows": asdict(windows) if isinstance(windows, WindowConfig) else windows,
        "training": _training_table(training, training_options, loss),
        "batching": batching,
        "device": device,
        "memory_budget": memory_budget,
        "placement": placement,
    }
    config = RunConfig(store=opened.path.absolute())
    is_resumed = resume and RunDirectory.exists(path)
    if is_resumed:
        config = RunConfig.of_run(RunDirectory(path).config_file, config.store)
    elif start is not None:
        config = start.config_for(opened)
    if model is not None and (is_resumed or start is not None):
        config = replace(config, model=relocate_model(config.model, model))
    config = config.override({name: each for name, each in given.items() if each is not None})
    trained, _ = train_run(
        config,
        path,
        store=opened,
        model=None if model is None or isinstance(model, str) else model,
        resume=resume,
        overwrite=overwrite,
        log=_print_line if progress else lambda _: None,
        observers=(lambda _: [RichObserver()]) if progress else None,
        communicator=communicator,
        extensions=Extensions(
            callbacks=_check_callbacks(callbacks), loss=own_loss, metrics=metrics
        ),
        start=start,
    )
    return trained


def _check_model(model: Any) -> str | ModelFactory | None:
    """The model as given; a class of pgti's own by its name."""
    if isinstance(model, type) and issubclass(model, AbstractModel):
        return next((name for name, each in MODELS.items() if each.model is model), model)
    if model is not None and not isinstance(model, str) and not callable(model):
        raise ConfigError(
            f"model is {model!r}: it must be the name of a model, or a class or function that "
            "builds one"
        )
    known: str | ModelFactory | None = model
    return known


def _check_callbacks(callbacks: Any) -> Sequence[Callback]:
    require_type("callbacks", callbacks, Sequence, "a list of pgti.Callback")
    for callback in callbacks:
        require_type("callbacks", callback, Callback, "a list of pgti.Callback")
    return tuple(callbacks)


def _refuse_misplaced(given: Mapping[str, Any], model: str | ModelFactory | None) -> None:
    """Say where options of the windows and of the model belong, but for own networks'."""
    for each in given:
        if each in WindowConfig.__slots__:
            raise ConfigError(f"{each} is an option of the windows: pass windows={{{each!r}: ...}}")
    name = "dcrnn" if model is None else model
    if isinstance(name, str) and name in MODELS:
        for each in {field.name for field in fields(MODELS[name].config)} & given.keys():
            raise ConfigError(
                f"{each} is an option of the model {name}: pass model_options={{{each!r}: ...}}"
            )


def _model_table(
    model: str | ModelFactory | None, options: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """The model's name and options as a table; None if neither is given."""
    table: dict[str, Any] = {}
    if isinstance(model, str):
        table["name"] = model
    elif model is not None:
        table["name"] = name_of_own_model(model)
    return {**table, **(options or {})} or None


def _training_table(
    training: TrainingConfig | Mapping[str, Any] | None, options: Mapping[str, Any], loss: Any
) -> dict[str, Any]:
    """The options of the training loop as a table; single ones come first."""
    table = asdict(training) if isinstance(training, TrainingConfig) else training or {}
    if not isinstance(table, Mapping):
        raise ConfigError(f"training is {training!r}: it must be a TrainingConfig or a mapping")
    return {**table, **options, **({} if loss is None else {"loss": loss})}


def _print_line(line: str) -> None:
    print(f"pgti: {line}", file=sys.stderr)  # noqa: T201 - progress for users of Python
