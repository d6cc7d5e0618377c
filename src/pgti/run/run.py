"""A trained run: load, evaluate, forecast."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from pgti.batching import BatchLoader, WindowSource, build_loader
from pgti.distributed import Communicator, SingleProcess
from pgti.errors import ConfigError, RunError, option
from pgti.forecasting import (
    AbstractForecaster,
    AbstractObserver,
    ForecastLabels,
    HistoricalAverageForecaster,
    NetworkForecaster,
    PersistenceForecaster,
    Report,
    evaluate,
    evaluation_report,
    predict,
)
from pgti.run.build import (
    ModelFactory,
    build_forecaster,
    resolve_device,
    window_source,
)
from pgti.run.config import RunConfig
from pgti.store import Scaler, SeriesStore, open_store, parse_time
from pgti.training import RunDirectory
from pgti.training.compatibility import check_fingerprint
from pgti.windows import SplitName, Splits, subsample_evenly

__all__ = ["Run"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A store, a configuration and the forecaster trained with them.

    Attributes:
        config: every option, resolved.
        store: the series and its graph.
        splits: which windows train, validate and test.
        source: what a window holds.
        forecaster: the network with its un-scaling, on the compute device.
        directory: where checkpoints and metrics are.
        communicator: the ranks that share this run; each evaluates its part of the windows.
    """

    config: RunConfig
    store: SeriesStore
    splits: Splits
    source: WindowSource
    forecaster: NetworkForecaster
    directory: RunDirectory
    communicator: Communicator = field(default_factory=SingleProcess)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        store: str | Path | SeriesStore | None = None,
        model: ModelFactory | None = None,
        checkpoint: str = "best",
        device: str | None = None,
        communicator: Communicator | None = None,
    ) -> Self:
        """Load a trained run, with the parameters of a checkpoint.

        Args:
            path: the run's directory.
            store: the run's store, if it has moved.
            model: builds the network, for a run that was trained with your own network.
            checkpoint: "best" (by validation MAE) or "last".
            device: compute device, in place of the run's.
            communicator: the ranks that evaluate it together, all of which read the directory; one
                process by default.

        Raises:
            RunError: if there is no such run or checkpoint, or the store is another one.
        """
        ranks = SingleProcess() if communicator is None else communicator
        directory = RunDirectory.open(path)
        config = RunConfig.from_toml(directory.config_file)
        if device is not None:
            config = replace(config, device=device)
        if checkpoint not in ("best", "last"):
            raise ConfigError(f"checkpoint is {checkpoint!r}: it is best or last")
        state = directory.load_best() if checkpoint == "best" else directory.load_last()
        opened = SeriesStore.open(config.store) if store is None else open_store(store)
        check_fingerprint(state.fingerprint, opened.fingerprint)
        scaler = Scaler(mean=tuple(state.scaler["mean"]), std=tuple(state.scaler["std"]))
        source = window_source(config, opened, scaler)
        run = cls(
            config=config,
            store=opened,
            splits=config.windows.splits(opened),
            source=source,
            forecaster=build_forecaster(
                config,
                source,
                model,
                resolve_device(config.device, ranks.local_rank, ranks.local_world_size),
                is_restored=True,
            ),
            directory=directory,
            communicator=ranks,
        )
        state.load_into(run.forecaster.network)
        run.forecaster.eval()
        return run

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.forecaster.mean.device

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the target channels."""
        return tuple(self.store.meta.channels[index] for index in self.source.target_indices)

    # -- evaluate ---------------------------------------------------------------------------------

    def evaluate(
        self,
        splits: SplitName | Sequence[SplitName] = "test",
        *,
        max_windows: int | None = None,
        observers: Sequence[AbstractObserver] = (),
    ) -> Report:
        """Metrics on splits, in original units, beside those of both baselines.

        Args:
            splits: "train", "val", "test", or several of them.
            max_windows: windows of each split at most, spread evenly over it; None takes all.
            observers: shown the progress.

        Returns:
            The errors; `to_frame()` and `to_dict()` give them as a table and as plain values.

        Raises:
            ConfigError: if there is no such split or it has no window, or `max_windows` is not a
                positive whole number.
        """
        names = [splits] if isinstance(splits, str) else splits
        chosen = {name: subsample_evenly(self.splits.starts(name), max_windows) for name in names}
        forecasters: dict[str, AbstractForecaster] = {"model": self.forecaster, **self._baselines()}
        report: dict[str, Any] = {}
        for name, starts in chosen.items():
            metrics = evaluate(
                forecasters,
                self._loader(starts, self.source, communicator=self.communicator),
                observers=observers,
                communicator=self.communicator,
            )
            report[name] = evaluation_report(metrics, "model", self.target_names)
            report[name]["windows"] = len(starts)
            report[name]["split_windows"] = len(self.splits.starts(name))
        meta = self.store.meta
        units = dict(zip(meta.channels, meta.units, strict=True))
        return Report(
            report,
            model=self.config.model.name,
            units={name: units[name] for name in self.target_names},
            interval_seconds=meta.interval_seconds,
        )

    def _baselines(self) -> dict[str, AbstractForecaster]:
        spec, targets = self.source.spec, self.source.target_indices
        average = HistoricalAverageForecaster.fit(
            self.store,
            self.splits.train_rows(spec),
            target_indices=targets,
            input_steps=spec.input_steps,
            horizon=spec.horizon,
        )
        return {
            "persistence": PersistenceForecaster(self.source.scaler, targets, spec.horizon).to(
                self.device
            ),
            "historical-average": average.to(self.device),
        }

    # -- predict ----------------------------------------------------------------------------------

    def predict(
        self,
        out: str | Path,
        *,
        split: SplitName | None = None,
        between: tuple[str, str] | None = None,
        readings: SeriesStore | None = None,
        observers: Sequence[AbstractObserver] = (),
    ) -> int:
        """Write forecasts to a CSV, Parquet or NPZ file.

        Without further arguments, the steps after the end of the series are forecast.

        Args:
            out: the file; its suffix names the format.
            split: forecast the windows of this split instead.
            between: forecast the windows whose first forecast step lies in [first, last], two
                times in ISO 8601, instead.
            readings: a store of newer readings of the same sensors to forecast from.
            observers: shown the progress.

        Returns:
            Number of windows.

        Raises:
            ConfigError: if two of the choices are given, or there is nothing to forecast.
            RunError: if the newer readings are of other sensors or channels.
        """
        if split is not None and between is not None:
            raise ConfigError("forecast either a split or the windows between two times, not both")
        source = self.source if readings is None else self._source_of(readings)
        loaders = self._forecast_loaders(source, split, between)
        labels = ForecastLabels(
            time_axis=source.store.time_axis,
            input_steps=source.spec.input_steps,
            sensor_ids=source.store.meta.node_ids,
            channels=self.target_names,
        )
        for observer in observers:
            observer.begin("forecasting", sum(loader.num_windows for loader in loaders))
        batches = (batch for loader in loaders for batch in loader.epoch(0))
        return predict(self.forecaster, batches, labels, out, observers=observers)

    def _forecast_loaders(
        self, source: WindowSource, split: SplitName | None, between: tuple[str, str] | None
    ) -> list[BatchLoader]:
        num_steps, spec = source.store.meta.num_steps, source.spec
        if split is not None:
            if source is not self.source:
                raise ConfigError(f"newer readings have no splits: leave {option('split')} out")
            return [self._loader(self.splits.starts(split), source)]
        latest = num_steps - spec.input_steps
        if latest < 0:
            raise ConfigError(
                f"{num_steps} readings of each sensor are too few to forecast from: the model "
                f"needs the last {spec.input_steps}"
            )
        starts = np.array([latest])
        if between is not None:
            first, last = (parse_time("time", time) for time in between)
            rows = np.arange(spec.input_steps, num_steps + 1)
            times = source.store.time_axis.at(rows)
            starts = rows[(first <= times) & (times <= last)] - spec.input_steps
            if not len(starts):
                raise ConfigError(
                    f"no forecast can begin between {between[0]} and {between[1]}: the series has "
                    f"{num_steps} steps and a forecast needs {spec.input_steps} before it"
                )
        known = starts[starts + spec.span <= num_steps]
        beyond = starts[len(known) :]
        return [
            self._loader(part, source, with_targets=with_targets)
            for part, with_targets in ((known, True), (beyond, False))
            if len(part)
        ]

    def _source_of(self, readings: SeriesStore) -> WindowSource:
        mine, other = self.store.meta, readings.meta
        if mine.node_ids != other.node_ids:
            raise RunError(
                f"the readings in {readings.path} are of other sensors, or in another order, than "
                f"the run's ({_difference(mine.node_ids, other.node_ids)}): give the same columns"
            )
        for what, left, right in (
            ("channels", mine.channels, other.channels),
            ("seconds between rows", mine.interval_seconds, other.interval_seconds),
        ):
            if left != right:
                raise RunError(
                    f"the readings in {readings.path} have {what} {right} and the run has {left}: "
                    "they must be the same"
                )
        return replace(self.source, store=readings)

    def _loader(
        self,
        starts: range | NDArray[np.int64],
        source: WindowSource,
        *,
        with_targets: bool = True,
        communicator: Communicator | None = None,
    ) -> BatchLoader:
        """Batches in time order; index-batching, whose bits are those of every strategy."""
        return build_loader(
            source,
            starts,
            self.config.training.batch_size,
            device=self.device,
            communicator=communicator,
            with_targets=with_targets,
        )


def _difference(mine: tuple[str, ...], other: tuple[str, ...]) -> str:
    """Where two lists of sensors part, in a few words."""
    if len(mine) != len(other):
        return f"{len(other)} sensors instead of {len(mine)}"
    position = next(i for i, pair in enumerate(zip(mine, other, strict=True)) if pair[0] != pair[1])
    return f"number {position} is {other[position]!r} instead of {mine[position]!r}"
