"""What a training takes over from a run that was trained before: weights, options and scaler."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import Tensor

from pgti.batching import WindowSource
from pgti.display import count_of, shorten
from pgti.errors import RunError, option
from pgti.forecasting import NetworkForecaster
from pgti.models import ModelFactory, is_own_model
from pgti.run.build import network_shape
from pgti.run.config import RunConfig
from pgti.run.covariates import check_covariates
from pgti.run.run import Run
from pgti.run.series import RunData
from pgti.run.transfer import carry_over, check_fit, find_sensor_dimensions
from pgti.store import Scaler, SeriesStore

__all__ = ["StartRun", "StartedFrom"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StartedFrom:
    """What a run takes over from another, beside the weights.

    Attributes:
        record: what `run.json` says of it.
        scaler: of its inputs; None if it is fitted on the new run's training rows.
    """

    record: Mapping[str, Any]
    scaler: Scaler | None


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class StartRun:
    """A run whose weights another run starts from.

    Attributes:
        path: its directory.
        config: its options.
        source: what its windows hold.
        weights: its parameters and buffers by name.
        fingerprint: of the rows that it has seen.
        rows: how many.
        refit_scaler: fit the scaler on the new training rows, in place of taking the run's over.
        model: the user's own class or function, in place of the one that the run's model names.
        reads: names of the inputs of a batch that its network and its head read.
    """

    path: Path
    config: RunConfig
    source: WindowSource
    weights: Mapping[str, Tensor]
    fingerprint: str
    rows: int
    refit_scaler: bool = False
    model: ModelFactory | None = None
    reads: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        run: Run | str | Path,
        *,
        checkpoint: str = "best",
        model: str | ModelFactory | None = None,
        refit_scaler: bool = False,
    ) -> Self:
        """The run to start from.

        Args:
            run: the run, whose present weights count, or its directory.
            checkpoint: "best" or "last"; of a directory.
            model: as `Run.open`.
            refit_scaler: as the attribute.

        Raises:
            ConfigError, RunError, StoreError: as `Run.open`.
        """
        if not isinstance(run, Run):
            run = Run.open(run, checkpoint=checkpoint, model=model, device="cpu")
        data = RunData.read(run.directory)
        seen = run.store.meta if data is None else data.meta  # its store may be gone
        return cls(
            path=run.directory.path,
            config=run.config,
            source=run.source,
            weights={
                name: each.detach().cpu().clone()
                for name, each in run.forecaster.network.state_dict().items()
            },
            fingerprint=seen.fingerprint,
            rows=seen.num_steps,
            refit_scaler=refit_scaler,
            model=None if isinstance(model, str) else model,
            reads=run.forecaster.reads,
        )

    @property
    def started_from(self) -> StartedFrom:
        """What a new run takes over, and remembers of it."""
        record = {
            "path": str(self.path),
            "fingerprint": self.fingerprint,
            "rows": self.rows,
            "refit_scaler": self.refit_scaler,
        }
        scaler = self.source.scaler.with_static(self.source.static)
        return StartedFrom(record=record, scaler=None if self.refit_scaler else scaler)

    def config_for(self, store: SeriesStore) -> RunConfig:
        """The run's options for another store; its inputs are spelled out.

        A split by dates is of the old series, and frozen layers are of that training: neither is
        taken over.
        """
        windows = replace(
            self.config.windows,
            targets=self.source.target_names,
            calendar=self.source.calendar,
            val_from=None,
            test_from=None,
        )
        return replace(
            self.config,
            store=store.path.absolute(),
            windows=windows,
            training=replace(self.config.training, freeze=()),
            recipe=None,
        )

    def check_path(self, directory: Path) -> None:
        """Refuse the directory of this run for the new one.

        Raises:
            RunError: saying to choose another.
        """
        if directory.resolve() == self.path.resolve():
            raise RunError(
                f"{self.path} is the run to start from, and training would replace it: choose "
                f"another {option('run')}"
            )

    def check(self, config: RunConfig, store: SeriesStore) -> None:
        """Refuse another model, and a store for whose channels the weights mean something else.

        Args:
            config: of the new run, resolved.
            store: to train on.

        Raises:
            RunError: naming what differs.
        """
        mine, other = self.source.store.meta, store.meta
        facts: list[tuple[str, Any, Any]] = [
            ("channels", ", ".join(mine.channels), ", ".join(other.channels)),
            ("an interval of", _seconds(mine.interval_seconds), _seconds(other.interval_seconds)),
        ]
        for name, unit, others in zip(mine.channels, mine.units, other.units, strict=False):
            if unit and others:
                facts.append((f"{name} in", unit, others))
        for what, before, now in facts:
            if before != now:
                raise RunError(
                    f"the run {self.path} has {what} {before} and the store {store.path} {now}: "
                    "weights can be used where both agree; ingest the readings in that form"
                )
        self._check_offsets(store)
        self._check_quantiles(config)
        one, two = self.config.model.name, config.model.name
        if one != two and not (is_own_model(one) and is_own_model(two)):
            raise RunError(
                f"the run {self.path} has the model {one} and the new one {two}: leave "
                f"{option('model')} out"
            )

    def _check_quantiles(self, config: RunConfig) -> None:
        """Refuse other quantiles: the weights of the network's last layer are for its own."""
        before, now = self.config.training.quantiles, config.training.quantiles
        if before != now:
            raise RunError(
                f"the run {self.path} has the quantiles {before or 'none'} and the new one "
                f"{now or 'none'}: the weights of its last layer are for its own; leave "
                f"{option('loss')} and {option('quantiles')} out"
            )

    def _check_offsets(self, store: SeriesStore) -> None:
        """Refuse a scaler with the offsets of other sensors, or with none for an exact store."""
        has_offsets, mine = self.source.scaler.offsets is not None, self.source.store.meta
        if has_offsets and mine.node_ids != store.meta.node_ids:
            problem = "the offsets of other sensors"
        elif store.meta.is_exact and not has_offsets:
            problem = "no offsets, which the readings of an exact store need"
        else:
            return
        if not self.refit_scaler:
            raise RunError(
                f"the scaler of the run {self.path} has {problem}: pass "
                f"{option('refit_scaler', value=True)} to fit one on {store.path}"
            )

    def weights_for(
        self, config: RunConfig, source: WindowSource, forecaster: NetworkForecaster
    ) -> tuple[dict[str, Tensor], list[str]]:
        """The weights for the sensors of the new run.

        Args:
            config: of the new run, resolved.
            source: what its windows hold.
            forecaster: of the new run.

        Returns:
            The weights by name, and a line where sensors are new or in another order and the model
            has weights of each.

        Raises:
            RunError: if the weights do not fit, or cannot be carried over to other sensors.
        """
        for name, (mine, other) in _inputs(self.source, source).items():
            if mine != other:
                raise RunError(
                    f"the run {self.path} has {name} {mine!r} and the new one {other!r}: its "
                    f"weights are for its own inputs; leave {option(f'windows.{name}')} out"
                )
        check_covariates(self.path, self.source, self.reads, source, forecaster.reads)
        network = forecaster.network
        before, after = self.source.store.meta.node_ids, source.store.meta.node_ids
        weights: dict[str, Tensor] = dict(self.weights)
        lines: list[str] = []
        if before != after:
            dimensions = find_sensor_dimensions(
                self.config.model.name,
                self.config.model.options,
                network_shape(self.config, self.source),
                self.model,
            )
            weights, lines = carry_over(weights, dimensions, network.state_dict(), before, after)
        check_fit(weights, network, self._differences(config))
        return weights, lines

    def describe(self, store: SeriesStore) -> str:
        """One line: what is new since the run."""
        num_steps = store.meta.num_steps
        if num_steps >= self.rows and store.fingerprint_at(self.rows) == self.fingerprint:
            new = num_steps - self.rows
            what = f"{new:,} of the {count_of(num_steps, 'row')} are new since then"
            return f"starting from the run {self.path}: {what if new else 'its rows are the same'}"
        known, here = set(self.source.store.meta.node_ids), store.meta.node_ids
        num_known = sum(each in known for each in here)
        return (
            f"starting from the run {self.path}, on another store: {num_known:,} of its "
            f"{count_of(len(here), 'sensor')} are those of the run"
        )

    def find_overlaps(self, run: Run) -> list[str]:
        """A line for each split of a new run with windows that this run was trained on.

        They are looked for where the store is that of this run, grown or not.
        """
        if run.store.meta.num_steps < self.rows:
            return []
        seen = run.store.prefix(self.rows)
        if seen.fingerprint != self.fingerprint:
            return []
        trained = self.config.windows.splits(seen).train
        last = int(trained[-1]) + self.source.spec.input_steps - run.source.spec.input_steps
        lines = []
        for name in ("val", "test"):
            starts = run.splits.starts(name)
            count = int((np.asarray(starts) <= last).sum())
            if count:
                lines.append(
                    f"{count:,} of {count_of(len(starts), f'{name} window')} begin in the time "
                    f"that the run {self.path} was trained on, so errors on them are too low: "
                    f"split later, with {option('windows.val_from')} and "
                    f"{option('windows.test_from')}"
                )
        return lines

    def _differences(self, config: RunConfig) -> list[str]:
        """Options that differ from the run's and may change the sizes of a network."""
        pairs = {
            **{
                f"model.{name}": (value, config.model.options.get(name))
                for name, value in self.config.model.options.items()
            },
            **{
                f"windows.{name}": (
                    getattr(self.config.windows, name),
                    getattr(config.windows, name),
                )
                for name in ("input_steps", "horizon", "history", "covariates")
            },
        }
        changed = [f"{name} {a!r} there, {b!r} here" for name, (a, b) in pairs.items() if a != b]
        return [shorten(changed)] if changed else []


def _inputs(one: WindowSource, two: WindowSource) -> dict[str, tuple[Any, Any]]:
    """What the inputs and outputs of two networks are, by option."""
    return {
        "inputs": (_input_names(one), _input_names(two)),
        "targets": (one.target_names, two.target_names),
        "calendar": (one.calendar, two.calendar),
        "climatology": (one.climatology, two.climatology),
        "observed_mask": (one.observed_mask, two.observed_mask),
    }


def _input_names(source: WindowSource) -> tuple[str, ...]:
    return tuple(source.store.meta.channels[index] for index in source.input_indices)


def _seconds(interval: int | None) -> str:
    return "unknown length" if interval is None else f"{interval} s"
