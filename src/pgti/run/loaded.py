"""The parts of a trained run, loaded from its directory, and what it shows of itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pandas as pd
import torch

from pgti.batching import WindowSource
from pgti.display import Display, count_of, shorten
from pgti.distributed import Communicator, SingleProcess, make_current
from pgti.errors import PARSER_ERRORS, ConfigError, RunError, option
from pgti.forecasting import Metrics, NetworkForecaster, Report, is_score
from pgti.forecasting.calibration import Calibration
from pgti.models import ModelFactory, num_trainable_parameters
from pgti.options import require_path
from pgti.run.build import build_forecaster, relocate_model, resolve_device, window_source
from pgti.run.config import RunConfig
from pgti.run.series import FollowedStore, RunData, find_series
from pgti.store import Scaler, SeriesStore, TypicalReadings
from pgti.training import RunDirectory
from pgti.windows import SPLIT_NAMES, Splits

__all__ = ["LoadedRun"]

_NO_WINDOWS = Splits(train=range(0), val=range(0), test=range(0))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LoadedRun(Display):
    """A store, a configuration and the forecaster trained with them.

    Attributes:
        config: every option, resolved.
        store: the series that the run has seen, and its graph; without rows where it is gone.
        latest: the whole store when the run was opened, which may have grown; see `newest_store`.
        newer: the store that was given, if it is not the run's: one of newer readings.
        problem: why the run's rows are not there; None where they are.
        logged_notes: lines on standard error about forecasts, each of which is there once.
        calibrated: the newest calibration of intervals, by what it is of.
        splits: which windows train, validate and test.
        source: what a window holds.
        forecaster: the network with its un-scaling, on the compute device.
        directory: where checkpoints and metrics are.
        communicator: the ranks that share this run; each evaluates its part of the windows.
        metrics: of the user's own, which `evaluate` computes beside MAE, RMSE and MAPE.
        epoch: epochs that the parameters have been trained for, so the best one is counted from 1;
            None where no checkpoint says it.
    """

    config: RunConfig
    store: SeriesStore
    latest: SeriesStore
    splits: Splits
    source: WindowSource
    forecaster: NetworkForecaster
    directory: RunDirectory
    communicator: Communicator = field(default_factory=SingleProcess)
    metrics: Metrics = field(default_factory=dict)
    newer: SeriesStore | None = None
    problem: str | None = None
    epoch: int | None = None
    logged_notes: set[str] = field(default_factory=set, init=False)
    calibrated: dict[str, Calibration] = field(default_factory=dict, init=False)
    _followed: FollowedStore = field(init=False)

    def __post_init__(self) -> None:
        followed = FollowedStore(self.latest, self.store, is_own=self.problem is None)
        object.__setattr__(self, "_followed", followed)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        store: str | Path | SeriesStore | None = None,
        model: str | ModelFactory | None = None,
        checkpoint: str = "best",
        device: str | None = None,
        communicator: Communicator | None = None,
    ) -> Self:
        """Load a trained run, with the parameters of a checkpoint.

        Args:
            path: the run's directory.
            store: the run's store, if it has moved; or another, of newer readings of its sensors,
                which `forecast` and `predict` take in place of `readings`.
            model: the class or function of your own network, or its name `module:Class`: for a
                run whose network no module defines, or whose module has moved.
            checkpoint: "best" (by validation MAE) or "last".
            device: compute device, in place of the run's.
            communicator: the ranks that evaluate it together, all of which read the directory; one
                process by default.

        Raises:
            RunError: if there is no such run or checkpoint, or it is damaged; if its store is
                gone, and it is of an earlier version, which needs it.
            ConfigError: if the run's own network cannot be found or built.
        """
        ranks = SingleProcess() if communicator is None else communicator
        directory = RunDirectory.open(require_path("path", path))
        config = RunConfig.of_run(directory.config_file)
        if device is not None:
            config = replace(config, device=device)
        if model is not None:
            config = replace(config, model=relocate_model(config.model, model))
        if checkpoint not in ("best", "last"):
            raise ConfigError(f"checkpoint is {checkpoint!r}: it is best or last")
        state = directory.load_best() if checkpoint == "best" else directory.load_last()
        on = resolve_device(config.device, ranks.local_rank, ranks.local_world_size)
        make_current(on)
        series = find_series(directory, config.store, state.fingerprint, store)
        scaler = Scaler.from_plain(state.scaler)
        source = window_source(config, series.store, scaler, series.typical)
        run = cls(
            config=config,
            store=series.store,
            latest=series.latest,
            newer=series.newer,
            problem=series.problem,
            splits=_NO_WINDOWS if series.problem else config.windows.splits(series.store),
            source=source,
            forecaster=build_forecaster(
                config,
                source,
                None if isinstance(model, str) else model,
                on,
                is_restored=True,
            ),
            directory=directory,
            communicator=ranks,
            epoch=state.progress.epochs,
        )
        state.load_into(run.forecaster.network)
        run.forecaster.eval()
        return run

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.forecaster.mean.device

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the rows that the run has seen, also where they are gone."""
        data = RunData.read(self.directory)
        return (self.store.meta if data is None else data.meta).fingerprint

    @property
    def typical(self) -> TypicalReadings | None:
        """What each sensor usually reads in the training rows; None if the run does not know it."""
        return self.source.typical

    def require_rows(self) -> None:
        """Refuse to go on without the rows that the run was trained on.

        Raises:
            RunError: saying why they are not there.
        """
        if self.problem is not None:
            raise RunError(
                f"{self.problem}, and this needs the readings that the run was trained on: give "
                f"their store with {option('store')}, or newer readings"
            )

    def require_all_sensors(self) -> None:
        """Refuse to go on with some of the sensors, where they are split over ranks.

        Raises:
            ConfigError: saying how to open the run with all of them.
        """
        if self.source.sensors is not None:
            raise ConfigError(
                "this rank has some of the sensors only, and this needs all of them: open the run "
                f"with Run.open({str(self.directory.path)!r})"
            )

    def newest_store(self) -> tuple[SeriesStore, str | None]:
        """The run's store as it is now, and a line if it lacks the rows that the run has seen.

        A store that has grown since the run was opened is opened again.

        Raises:
            RunError: if it is gone.
            StoreError: if it has changed and cannot be opened.
        """
        store, is_own = self._followed.now()
        if not store.meta.num_steps:
            self.require_rows()
        if is_own:
            return store, None
        return store, (
            f"the store {store.path} has other readings now than in training (they were corrected, "
            "or ingested again): it is taken as newer readings"
        )

    @property
    def peak_device_bytes(self) -> int | None:
        """The most that tensors took on a rank's GPU in training, in bytes; None on a CPU."""
        peak: int | None = self.directory.read_info().get("peak_device_bytes")
        return peak

    @property
    def history(self) -> pd.DataFrame:
        """A row for each epoch: see `RunDirectory.read_history`."""
        return self.directory.read_history()

    def describe(self) -> tuple[str, dict[str, str]]:
        """A title, and facts by name; each is one line."""
        spec, history = self.source.spec, self.history
        trained = "not validated yet"
        if len(history):
            best = int(history["val_mae"].argmin())
            trained = (
                f"{count_of(int(history['epoch'].max()), 'epoch')}, the best is "
                f"{history['epoch'][best]} with validation MAE {history['val_mae'][best]:.4g}"
            )
        counts = {name: len(self.splits.starts(name)) for name in SPLIT_NAMES}
        if self.problem is not None:
            counts = self.directory.read_info().get("windows", counts)
        windows = ", ".join(f"{name} {counts[name]:,}" for name in SPLIT_NAMES)
        parameters = num_trainable_parameters(self.forecaster.network)
        return f"Run {self.directory.path}", {
            "model": f"{self.config.model.name}, {count_of(parameters, 'parameter')}",
            "trained": trained,
            "windows": f"{windows}; {count_of(spec.input_steps, 'step')} in, {spec.horizon} out"
            + (f", history {', '.join(self.config.windows.history)}" if spec.history else ""),
            "targets": shorten(self.source.target_names),
            "store": f"{self.store.path}: {count_of(self.store.meta.num_nodes, 'sensor')}, "
            f"{count_of(self.store.meta.num_edges, 'edge')}"
            + ("" if self.problem is None else f"; {self.problem}"),
            "device": str(self.device),
        }

    def read_test(self) -> Report | None:
        """The errors of the test windows that `pgti train` stored; None if it stored none.

        Raises:
            RunError: if they cannot be read, or are not those of this run.
        """
        stored = self.directory.read_test()
        if stored is None:
            return None
        try:
            report = self.report_of({"test": stored})
            report.check()
        except PARSER_ERRORS as error:
            raise RunError(
                f"{self.directory.test_file} is damaged: {type(error).__name__} {error}; evaluate "
                "the run again"
            ) from None
        return report

    def report_of(
        self,
        splits: Mapping[str, Mapping[str, Any]],
        metrics: Metrics | None = None,
        notes: Sequence[str] = (),
        peak_device_bytes: int | None = None,
    ) -> Report:
        """Errors on splits with the names and units of this run.

        Args:
            splits: as `Report` takes them.
            metrics: of the user's own, whose errors they hold.
            notes: what is worth knowing about the evaluation, one line each.
            peak_device_bytes: as `Report` takes it.
        """
        first: Mapping[str, Any] = next(iter(splits.values()), {})
        return Report(
            splits,
            model=self.config.model.name,
            units=self.source.target_units,
            interval_seconds=self.store.time_axis.step_seconds,
            metrics=("mae", "rmse", "mape", *filter(is_score, first), *(metrics or {})),
            notes=notes,
            peak_device_bytes=peak_device_bytes,
        )
