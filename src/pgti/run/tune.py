"""`pgti.tune`: a search of options as a user of Python says."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pgti.batching import WindowConfig
from pgti.display import print_line
from pgti.errors import ConfigError, MissingExtraError, require_whole_number
from pgti.forecasting import Metrics, Observer, RichObserver
from pgti.models import ModelFactory
from pgti.options import require_path, require_type
from pgti.run.arguments import RunArguments, check_model, require_communicator
from pgti.run.config import RunConfig
from pgti.run.search import Search
from pgti.run.search_report import write_search_report
from pgti.run.search_result import TuneResult
from pgti.run.search_space import SearchSpace
from pgti.run.search_study import Pruner, optuna, read_rows, require_pruner
from pgti.run.trackers import TrackerLike
from pgti.run.tracking import Tracking
from pgti.signatures import accept_options
from pgti.store import SeriesStore, open_store
from pgti.training import Callback, Extensions, TrainingConfig

__all__ = ["run_search", "tune"]


@accept_options(TrainingConfig)
def tune(  # noqa: PLR0913 - each names one part of a search
    store: str | Path | SeriesStore,
    out: str | Path,
    space: str | Path | Mapping[str, Any],
    *,
    trials: int = 50,
    pruner: Pruner = "median",
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
    progress: bool = True,
    **training_options: Any,
) -> TuneResult:
    """Search for the options of the lowest validation error; test windows are never read.

    The first trial is the configuration itself, where the space contains it. A search that was
    interrupted or killed resumes if it is called again; several processes that call it share it.

    Args:
        store: the store, or its path.
        out: directory of the search; `trials/0000` and so on in it are runs, and `best.toml` is the
            configuration of the best.
        space: what to try, by the name of the option: {"training.learning_rate": {"low": 1e-4,
            "high": 1e-2, "log": True}, "model.hidden": [32, 64]}, or a TOML file of such tables.
        trials: how many, of all processes and starts together; those that fail count.
        pruner: what ends trials by their validation MAE after an epoch: "median" those that are
            worse than the median of the trials before, "hyperband" as Li et al. (2018), or "none".
        model: as `pgti.train`.
        model_options: as `pgti.train`.
        windows: as `pgti.train`.
        training: as `pgti.train`.
        loss: as `pgti.train`.
        metrics: as `pgti.train`.
        callbacks: as `pgti.train`.
        track: as `pgti.train`, for the run of each trial; their group is the name of `out`.
        batching: as `pgti.train`.
        device: as `pgti.train`.
        memory_budget: as `pgti.train`.
        progress: as `pgti.train`.
        **training_options: options of `TrainingConfig`:

    Returns:
        All trials and the best.

    Raises:
        MissingExtraError: if Optuna (the extra `tune`) is not installed.
        PgtiError: if something given cannot be used, which is known before any trial; `out` holds
            another search; or no trial was complete.
        KeyboardInterrupt: an `Interrupted`, once the state is saved.
    """
    require_type("progress", progress, bool, "True or False")
    given = RunArguments.of(
        model=check_model(model),
        model_options=model_options,
        windows=windows,
        training=training,
        training_options=training_options,
        loss=loss,
        metrics=metrics,
        callbacks=callbacks,
        others={"batching": batching, "device": device, "memory_budget": memory_budget},
    )
    opened = open_store(store)
    return run_search(
        given.configure(opened),
        SearchSpace.of(space),
        require_path("out", out),
        trials=trials,
        pruner=pruner,
        store=opened,
        model=given.factory,
        extensions=given.extensions,
        track=track,
        progress=(RichObserver(),) if progress else (),
        log=print_line if progress else lambda _: None,
    )


def run_search(  # noqa: PLR0913 - each names one part of a search
    config: RunConfig,
    space: SearchSpace,
    out: Path,
    *,
    trials: int,
    pruner: Pruner,
    store: SeriesStore | None = None,
    model: ModelFactory | None = None,
    extensions: Extensions | None = None,
    track: TrackerLike | Sequence[TrackerLike] = (),
    progress: Sequence[Observer] = (),
    log: Callable[[str], None] = lambda _: None,
) -> TuneResult:
    """Search as a configuration and a space say, and write the report.

    Args:
        config: where the search starts.
        space: what to try.
        out: directory of the search.
        trials: as `tune`.
        pruner: as `tune`.
        store: the configuration's store, if it is open already.
        model: the user's own class or function.
        extensions: what the user adds to the trainings.
        track: as `tune`.
        progress: further observers of the trainings.
        log: receives one line for each thing that is done.

    Raises:
        PgtiError: as `tune`.
    """
    require_whole_number("trials", trials, 1)
    require_pruner(pruner)
    require_communicator(None)  # each trial is one process
    optuna()
    out = out.absolute()
    opened = SeriesStore.open(config.store) if store is None else store
    rows = read_rows(out)
    if rows is not None and rows < opened.meta.num_steps:
        opened = opened.prefix(rows)  # the store may have grown since the search began
    if config.training.epochs == 0:
        raise ConfigError("epochs is 0: a trial trains for one at least")
    tracking = Tracking(track, log=log, group=out.name)
    search = Search(
        path=out,
        config=config,
        space=space,
        store=opened,
        pruner=pruner,
        model=model,
        extensions=Extensions() if extensions is None else extensions,
        tracking=tracking,
        progress=tuple(progress),
        log=log,
    )
    with tracking:
        tracking.check()
        result = search.run(trials)
    targets = {opened.meta.units[index] for index in config.windows.target_indices(opened)}
    try:
        write_search_report(result, space, unit=targets.pop() if len(targets) == 1 else "")
    except MissingExtraError as error:
        log(f"no report: {error}")
    return result
