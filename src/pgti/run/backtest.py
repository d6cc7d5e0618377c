"""`pgti.backtest`: a backtest as a user of Python says."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pgti.batching import WindowConfig
from pgti.display import print_line
from pgti.distributed import Communicator
from pgti.forecasting import Metrics, RichObserver
from pgti.models import ModelFactory
from pgti.options import require_path, require_type
from pgti.run.arguments import RunArguments, check_model, require_communicator
from pgti.run.backtest_result import BacktestResult
from pgti.run.rolling import BacktestOptions, Refit, run_backtest
from pgti.run.trackers import TrackerLike
from pgti.run.tracking import Tracking
from pgti.signatures import accept_options
from pgti.store import SeriesStore, open_store
from pgti.training import TrainingConfig
from pgti.windows import Placement

__all__ = ["backtest"]


@accept_options(TrainingConfig)
def backtest(  # noqa: PLR0913 - each names one part of a backtest
    store: str | Path | SeriesStore,
    out: str | Path,
    *,
    folds: int = 6,
    refit: Refit = "every",
    fold_steps: int | None = None,
    first_from: str | None = None,
    warm_epochs: int | None = None,
    model: str | ModelFactory | None = None,
    model_options: Mapping[str, Any] | None = None,
    windows: WindowConfig | Mapping[str, Any] | None = None,
    training: TrainingConfig | Mapping[str, Any] | None = None,
    loss: Any = None,
    metrics: Metrics | None = None,
    track: TrackerLike | Sequence[TrackerLike] = (),
    batching: str | None = None,
    device: str | None = None,
    memory_budget: int | str | None = None,
    placement: Placement | None = None,
    communicator: Communicator | None = None,
    progress: bool = True,
    **training_options: Any,
) -> BacktestResult:
    """Forecast one stretch of a series after another, each by a model of what lies before it.

    No statistic, training, validation or early stopping of a fold sees the fold or what follows. A
    backtest that was interrupted resumes if it is called again.

    Args:
        store: the store, or its path.
        out: directory of the backtest; `fold-1` and so on in it are runs, which `Run.open` opens.
        folds: how many stretches.
        refit: "every" trains a new model before each fold, "never" one before the first, and "warm"
            trains that of the fold before further.
        fold_steps: time steps of a fold; by default the folds divide what lies after `first_from`.
        first_from: time of the first fold's first target, ISO 8601; by default half the series
            lies before it.
        warm_epochs: epochs of a model that is trained further; by default `epochs`.
        model: as `pgti.train`.
        model_options: as `pgti.train`.
        windows: as `pgti.train`. Of the split only the ratio of train to validation windows counts:
            the last windows before a fold validate its model.
        training: as `pgti.train`.
        loss: as `pgti.train`.
        metrics: as `pgti.train`.
        track: as `pgti.train`, for the run of each fold; their group is the name of `out`.
        batching: as `pgti.train`.
        device: as `pgti.train`.
        memory_budget: as `pgti.train`.
        placement: as `pgti.train`.
        communicator: as `pgti.train`.
        progress: as `pgti.train`.
        **training_options: options of `TrainingConfig`:

    Returns:
        Errors of each fold and over all, beside those of the baselines, which know what lies before
        the fold, too.

    Raises:
        PgtiError: if something given cannot be used, or `out` holds another backtest.
        KeyboardInterrupt: an `Interrupted`, once the state is saved.
    """
    require_type("progress", progress, bool, "True or False")
    require_communicator(communicator)
    options = BacktestOptions(
        folds=folds,
        refit=refit,
        fold_steps=fold_steps,
        first_from=first_from,
        warm_epochs=warm_epochs,
    )
    given = RunArguments.of(
        model=check_model(model),
        model_options=model_options,
        windows=windows,
        training=training,
        training_options=training_options,
        loss=loss,
        metrics=metrics,
        callbacks=(),
        others={
            "batching": batching,
            "device": device,
            "memory_budget": memory_budget,
            "placement": placement,
        },
    )
    opened, path = open_store(store), require_path("out", out)
    log: Callable[[str], None] = print_line if progress else lambda _: None
    with Tracking(track, log=log, group=path.name) as tracking:
        tracking.check(communicator)
        return run_backtest(
            given.configure(opened),
            path,
            options,
            store=opened,
            model=given.factory,
            log=log,
            observers=tracking.observers([RichObserver()] if progress else ()),
            communicator=communicator,
            extensions=given.extensions,
        )
