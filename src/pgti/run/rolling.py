"""A backtest: consecutive folds of a series, each forecast by a model of what lies before it.

A fold's model is trained on `store.prefix(rows)`, a store that ends where the fold begins: nothing
that is fitted, validated or stopped early can see the fold. Models, and the results of finished
folds, stay in the directory of the backtest, which resumes from them.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pgti.batching import build_loader
from pgti.display import count_of
from pgti.distributed import Communicator, SingleProcess
from pgti.errors import ConfigError, option, require_whole_number
from pgti.forecasting import ForecastMetrics, build_baselines, evaluate, evaluation_report, is_score
from pgti.models import ModelFactory
from pgti.options import convert_fields
from pgti.run.backtest_directory import BacktestDirectory
from pgti.run.backtest_result import BacktestResult, FoldResult
from pgti.run.build import resolve_model
from pgti.run.config import RunConfig
from pgti.run.execute import Log, train_run
from pgti.run.prepare import ObserverFactory
from pgti.run.run import Run
from pgti.run.warm_start import StartRun
from pgti.store import SeriesStore, TypicalReadings, parse_time
from pgti.training import Extensions
from pgti.training.compatibility import free_options
from pgti.windows import Fold, rolling_folds

__all__ = ["BacktestOptions", "Refit", "run_backtest"]

Refit = Literal["every", "never", "warm"]

_MODEL = "model"


@dataclass(frozen=True, kw_only=True, slots=True)
class BacktestOptions:
    """How a backtest cuts a series, and how its folds get their models.

    Attributes:
        folds: Stretches that are forecast, one after the other.
        refit: Models of the folds: every, never or warm. "every" trains a new one before each fold,
            "never" one before the first, "warm" trains that of the fold before further.
        fold_steps: Time steps of a fold. By default the folds divide what lies after first-from.
        first_from: Time of the first fold's first target, ISO 8601. By default half the series lies
            before it.
        warm_epochs: Epochs of a model that is trained further. By default those of the
            configuration.
    """

    folds: int = 6
    refit: Refit = "every"
    fold_steps: int | None = None
    first_from: str | None = None
    warm_epochs: int | None = None

    def __post_init__(self) -> None:
        convert_fields(self)
        require_whole_number("folds", self.folds, 1)
        for name in ("fold_steps", "warm_epochs"):
            if getattr(self, name) is not None:
                require_whole_number(name, getattr(self, name), 1)
        if self.warm_epochs is not None and self.refit != "warm":
            raise ConfigError(
                f"warm_epochs is {self.warm_epochs} and refit is {self.refit}: it belongs to "
                f"{option('refit', 'warm')}"
            )


def run_backtest(  # noqa: PLR0913 - each names one part of a backtest
    config: RunConfig,
    out: Path,
    options: BacktestOptions,
    *,
    store: SeriesStore | None = None,
    model: ModelFactory | None = None,
    log: Log = lambda _: None,
    observers: ObserverFactory | None = None,
    communicator: Communicator | None = None,
    extensions: Extensions | None = None,
) -> BacktestResult:
    """Forecast consecutive folds, each with a model of what lies before it.

    Args:
        config: options of every training. Of its split only the ratio of train to validation
            windows counts: a fold's model is validated on the last windows before the fold.
        out: directory of the backtest, which continues there if it was interrupted.
        options: how to cut the series, and how folds get their models.
        store: the configuration's store, if it is open already.
        model: the user's own class or function, in place of the one that the configuration names.
        log: receives one line for each thing that is done.
        observers: creates the observers of each training.
        communicator: the ranks that train together; each of them calls this.
        extensions: what the user adds to the trainings.

    Raises:
        PgtiError: if something given cannot be used, or the directory holds a backtest of another
            store or with other options.
    """
    ranks = SingleProcess() if communicator is None else communicator
    with ranks.raise_together():
        opened = SeriesStore.open(config.store) if store is None else store
        config = replace(config, model=resolve_model(config.model, model))
        config, notes = _without_test(config.resolved(ranks.world_size))
        directory = BacktestDirectory(out.absolute())
        rows = directory.read_rows()
        if rows is not None and rows <= opened.meta.num_steps:
            opened = opened.prefix(rows)  # the store may have grown since the backtest began
        first_row = None
        if options.first_from is not None:
            time = parse_time("first_from", options.first_from)
            first_row = int(opened.time_axis.row_of(time))
        folds = rolling_folds(
            opened.meta.num_steps,
            config.windows.spec,
            options.folds,
            first_row=first_row,
            fold_steps=options.fold_steps,
            holes=None if config.windows.across_holes else opened.time_axis.holes,
        )
        for fold in folds:
            config.windows.splits(_training_store(opened, fold))
    backtest = _Backtest(
        config=config,
        directory=directory,
        options=options,
        store=opened,
        model=model,
        log=log if ranks.is_main else lambda _: None,
        observers=observers,
        communicator=ranks,
        extensions=Extensions() if extensions is None else extensions,
    )
    settings = {
        "store": opened.fingerprint,
        "rows": opened.meta.num_steps,
        **asdict(options),
        "metrics": sorted(backtest.extensions.metrics or ()),
        **config.settings(),
    }
    with ExitStack() as held:
        with ranks.raise_together():
            if ranks.is_main:
                held.enter_context(directory.opened(settings, free_options(config.training)))
        for line in notes:
            backtest.log(line)
        records = [backtest.run_fold(i, fold, folds) for i, fold in enumerate(folds)]
        return backtest.collect(records)


def _training_store(store: SeriesStore, fold: Fold) -> SeriesStore:
    """All that the model and the baselines of a fold may know."""
    return store.prefix(fold.first_row)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class _Backtest:
    """What the folds of a backtest have in common; see `run_backtest`."""

    config: RunConfig
    directory: BacktestDirectory
    options: BacktestOptions
    store: SeriesStore
    model: ModelFactory | None
    log: Callable[[str], None]
    observers: ObserverFactory | None
    communicator: Communicator
    extensions: Extensions

    # -- a fold -----------------------------------------------------------------------------------

    def run_fold(self, index: int, fold: Fold, folds: tuple[Fold, ...]) -> dict[str, Any]:
        """Train and evaluate a fold, unless that is done; what its file holds."""
        name = f"fold-{index + 1}.json"
        record: dict[str, Any] = {}
        with self.communicator.raise_together():
            if self.communicator.is_main:
                record = self.directory.read(name) or {}
        record = self.communicator.broadcast_json(record)
        if record:
            return record
        begins, ends = self._period(fold)
        self.log(
            f"fold {index + 1} of {len(folds)}: {count_of(len(fold.starts), 'window')} from "
            f"{begins}, after {count_of(fold.first_row, 'step')}"
        )
        run, trained = self._train(index, folds)
        sums = self._evaluate(run, fold)
        record = {
            "number": index + 1,
            "begins": begins,
            "ends": ends,
            "first_row": fold.first_row,
            "windows": len(fold.starts),
            "train_windows": len(run.splits.train),
            **trained,
            "sums": sums,
        }
        with self.communicator.raise_together():
            if self.communicator.is_main:
                self.directory.write(name, record)
        return self.communicator.broadcast_json(record)  # seconds differ by rank

    def _train(self, index: int, folds: tuple[Fold, ...]) -> tuple[Run, dict[str, Any]]:
        """The model of a fold, and what its training took."""
        is_later = index > 0
        if is_later and self.options.refit == "never":
            run, _ = self._train_on(0, folds[0], self.config, None)
            return run, {"epochs": 0, "best_epoch": 0, "seconds": 0.0}
        config, start = self.config, None
        if is_later and self.options.refit == "warm":
            before = self.directory.path / f"fold-{index}"
            known = _training_store(self.store, folds[index - 1])
            opened = Run.open(before, store=known, model=self.model, device="cpu")
            start = StartRun.of(opened, model=self.model)
            if self.options.warm_epochs is not None:
                training = replace(config.training, epochs=self.options.warm_epochs)
                config = replace(config, training=training)
        return self._train_on(index, folds[index], config, start)

    def _train_on(
        self, index: int, fold: Fold, config: RunConfig, start: StartRun | None
    ) -> tuple[Run, dict[str, Any]]:
        """Train before a fold, resume that, or read the trained model."""
        run, result = train_run(
            config,
            self.directory.path / f"fold-{index + 1}",
            store=_training_store(self.store, fold),
            model=self.model,
            resume=True,
            log=self.log,
            observers=self.observers,
            communicator=self.communicator,
            extensions=self.extensions,
            start=start,
        )
        trained = {
            "epochs": result.epochs,
            "best_epoch": result.best_epoch,
            "seconds": result.seconds,
        }
        return run, trained

    def _evaluate(self, run: Run, fold: Fold) -> dict[str, Any]:
        """Sums of the errors in a fold, by forecaster; baselines know what lies before it."""
        known = _training_store(self.store, fold)
        typical = run.source.typical
        if typical is None:
            typical = TypicalReadings.fit(run.store, run.splits.train_rows(run.source.spec))
        before = replace(run.source, store=known, typical=typical)
        source = replace(before, store=self.store)
        splits = self.config.windows.splits(known)
        baselines = build_baselines(before, splits, evaluated=source)
        loader = build_loader(
            source,
            fold.starts,
            self.config.training.evaluated_at_once(self.communicator.world_size),
            device=run.device,
            communicator=self.communicator,
        )
        forecasters = {_MODEL: run.forecaster} | baselines
        errors = evaluate(
            {name: each.to(run.device) for name, each in forecasters.items()},
            loader,
            own_metrics=self.extensions.metrics,
            communicator=self.communicator,
        )
        return {name: each.sums.cpu().tolist() for name, each in errors.items()}

    def _period(self, fold: Fold) -> tuple[str, str]:
        """Times of the first and the last target; rows where the series has no times."""
        axis, spec = self.store.time_axis, self.config.windows.spec
        rows = int(fold.starts[0]) + spec.input_steps, int(fold.starts[-1]) + spec.span - 1
        if not axis.is_dated:
            return f"row {rows[0]}", f"row {rows[1]}"
        return axis.isoformat(rows[0]), axis.isoformat(rows[1])

    # -- the result -------------------------------------------------------------------------------

    def collect(self, records: list[dict[str, Any]]) -> BacktestResult:
        """Errors of the folds, and of the sums over all of them."""
        targets = self.config.windows.target_indices(self.store)
        meta = self.store.meta
        units = {meta.channels[index]: meta.units[index] for index in targets}
        sums = [record["sums"] for record in records]
        total = {name: np.sum([each[name] for each in sums], axis=0).tolist() for name in sums[0]}
        folds = tuple(
            FoldResult(
                **{name: value for name, value in record.items() if name != "sums"},
                errors=self._report(record["sums"], tuple(units)),
            )
            for record in records
        )
        errors = self._report(total, tuple(units))
        scores = filter(is_score, errors)
        return BacktestResult(
            store=str(self.store.path),
            model=self.config.model.name,
            refit=self.options.refit,
            folds=folds,
            errors=errors,
            units=units,
            interval_seconds=self.store.time_axis.step_seconds,
            metrics=("mae", "rmse", "mape", *scores, *(self.extensions.metrics or ())),
        )

    def _report(self, sums: Mapping[str, Any], targets: tuple[str, ...]) -> dict[str, Any]:
        def metrics(name: str, values: Any) -> ForecastMetrics:
            levels = self.config.training.quantiles if name == _MODEL else ()
            horizon, own = self.config.windows.horizon, self.extensions.metrics
            table = ForecastMetrics(horizon, len(targets), own=own, levels=levels)
            table.sums = torch.tensor(values, dtype=torch.float64)
            return table

        return evaluation_report(
            {name: metrics(name, values) for name, values in sums.items()}, _MODEL, targets
        )


def _without_test(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """The configuration of a fold's training, whose store ends before the fold."""
    windows = config.windows
    train, val, _ = windows.fractions
    notes = []
    if windows.val_from is not None:
        notes.append(
            "the split by dates of the configuration does not count: each fold has its own, "
            f"{train:g} train to {val:g} validation windows before it"
        )
    if val == 0:
        raise ConfigError(
            f"windows.fractions are {windows.fractions}: a fold's model needs validation windows"
        )
    share = train / (train + val)
    fractions = (share, 1.0 - share, 0.0)
    windows = replace(windows, fractions=fractions, val_from=None, test_from=None)
    return replace(config, windows=windows), notes
