"""Which windows to forecast: of the run's own series, or of newer readings of its sensors."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import NoneType
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.batching import Batch, BatchLoader, WindowSource
from pgti.display import count_of, shorten
from pgti.errors import ConfigError, RunError, option
from pgti.forecasting import ForecastLabels
from pgti.ingestion import IngestOptions, ingest
from pgti.options import require_type
from pgti.store import SeriesStore, TypicalReadings, parse_time
from pgti.windows import SplitName, Splits, Starts

__all__ = ["NewerReadings", "Selection", "TimeLike"]

NewerReadings: TypeAlias = SeriesStore | str | Path | pd.DataFrame | NDArray[Any]
"""A store or its path, a file that `pgti.ingest` reads, a DataFrame or an array."""

TimeLike: TypeAlias = str | datetime | np.datetime64
"""A wall-clock time: ISO 8601 text, or an object whose `str` is that."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Selection:
    """Windows to forecast; by default the one whose horizon follows the end of the series.

    Attributes:
        readings: newer readings, in place of the run's series.
        split: the windows of this split.
        between: the windows whose first forecast step lies in [first, last].
        options: how to read `readings` that are a file, a table or an array.

    Raises:
        ConfigError: if the choices contradict one another.
    """

    readings: NewerReadings | None = None
    split: SplitName | None = None
    between: tuple[TimeLike, TimeLike] | None = None
    options: IngestOptions | None = None

    def __post_init__(self) -> None:
        kinds = (SeriesStore, str, Path, pd.DataFrame, np.ndarray, NoneType)
        what = "a DataFrame, an array, a store or the path of a file or store"
        require_type("readings", self.readings, kinds, what)
        require_type("options", self.options, (IngestOptions, NoneType), "IngestOptions")
        between: object = self.between
        if between is not None and not (isinstance(between, tuple | list) and len(between) == 2):
            raise ConfigError(f"between is {between!r}: it must be two times, (first, last)")
        if self.split is not None and self.between is not None:
            raise ConfigError("forecast either a split or the windows between two times, not both")
        if self.split is not None and self.readings is not None:
            raise ConfigError(f"newer readings have no splits: leave {option('split')} out")

    @contextmanager
    def open(
        self, source: WindowSource, splits: Splits, load: Callable[..., BatchLoader]
    ) -> Iterator[tuple[Iterator[Batch], ForecastLabels, int]]:
        """The batches to forecast, the labels of their forecasts, and the number of windows.

        Args:
            source: of the run's own series; newer readings exist in the block alone.
            splits: of the run's own series.
            load: a loader of (starts, source, with_targets=).

        Raises:
            ConfigError: if there is nothing to forecast, or options cannot be used.
            DataError: if newer readings break a rule.
            RunError: if they are of other sensors or channels.
            StoreError: if their store cannot be opened.
        """
        with self._open_source(source, splits) as chosen:
            known, beyond = self._choose_starts(chosen, splits)
            loaders = [
                load(starts, chosen, with_targets=starts is known)
                for starts in (known, beyond)
                if len(starts)
            ]
            labels = ForecastLabels.of_source(chosen, past_the_end=len(beyond) > 0)
            batches = (batch for loader in loaders for batch in loader.epoch(0))
            yield batches, labels, len(known) + len(beyond)

    @contextmanager
    def _open_source(self, source: WindowSource, splits: Splits) -> Iterator[WindowSource]:
        """The run's own source, or that of the newer readings."""
        if self.readings is None:
            yield source
            return
        with _open_store(self.readings, source.store, self.options) as store:
            _check_same_series(store, source.store, _name_of(self.readings))
            typical = source.typical
            if typical is None and source.fill == "last" and store.meta.missing_count:
                typical = TypicalReadings.fit(source.store, splits.train_rows(source.spec))
            yield replace(source, store=store, typical=typical)

    def _choose_starts(self, source: WindowSource, splits: Splits) -> tuple[Starts, Starts]:
        """Starts of the windows, first those with targets, then those that end the series."""
        none = range(0)
        if self.split is not None:
            return splits.starts(self.split), none
        num_steps, spec = source.store.meta.num_steps, source.spec
        latest = num_steps - spec.input_steps
        if latest < 0:
            raise ConfigError(
                f"the readings have {count_of(num_steps, 'step')}, too few to forecast from: the "
                f"model needs the last {spec.input_steps}"
            )
        starts = np.array([latest])
        if self.between is not None:
            zone = source.store.time_axis.time_zone
            first, last = (_wall_clock(time, zone) for time in self.between)
            rows = np.arange(spec.input_steps, num_steps + 1)
            times = source.store.time_axis.at(rows)
            starts = rows[(first <= times) & (times <= last)] - spec.input_steps
            if not len(starts):
                raise ConfigError(
                    f"no forecast can begin between {self.between[0]} and {self.between[1]}: the "
                    f"series has {count_of(num_steps, 'step')} and a forecast needs "
                    f"{spec.input_steps} before it"
                )
        num_known = int((starts + spec.span <= num_steps).sum())
        return starts[:num_known], starts[num_known:]


@contextmanager
def _open_store(
    readings: NewerReadings, run_store: SeriesStore, options: IngestOptions | None
) -> Iterator[SeriesStore]:
    """The readings as a store; a temporary one unless they are a store already."""
    if isinstance(readings, str):
        readings = Path(readings)
    if isinstance(readings, SeriesStore) or (isinstance(readings, Path) and readings.is_dir()):
        if options is not None and options != IngestOptions():
            raise ConfigError(
                "options of ingest describe a file or a table, and the readings are a store: leave "
                "them out"
            )
        yield readings if isinstance(readings, SeriesStore) else SeriesStore.open(readings)
        return
    options = options or IngestOptions()
    interval, meta = options.interval, run_store.meta
    if interval is None and options.start is not None and meta.interval_seconds is not None:
        interval = f"{meta.interval_seconds}s"
    options = replace(options, interval=interval, channels=options.channels or meta.channels)
    with tempfile.TemporaryDirectory(prefix="pgti-") as scratch:
        target = Path(scratch) / "readings"
        ingest(readings, target, options, node_ids=meta.node_ids)
        yield SeriesStore.open(target)


def _check_same_series(newer: SeriesStore, store: SeriesStore, name: str) -> None:
    """Refuse readings of other sensors or channels, or at another interval."""
    mine, other = store.meta, newer.meta
    if mine.node_ids != other.node_ids:
        raise RunError(
            f"{name} has other sensors, or in another order, than the run "
            f"({_difference(mine.node_ids, other.node_ids)}): give the same columns"
        )
    if mine.channels != other.channels:
        raise RunError(
            f"{name} has the channels {', '.join(other.channels)} and the run has "
            f"{', '.join(mine.channels)}: they must be the same"
        )
    if other.interval_seconds is None and mine.interval_seconds is not None:
        raise RunError(
            f"{name} has no times and the run has them: add {option('start')}, the time of the "
            "first row"
        )
    if mine.interval_seconds != other.interval_seconds:
        raise RunError(
            f"the rows of {name} are {other.interval_seconds} s apart and those of the run "
            f"{mine.interval_seconds} s: they must be the same"
        )


def _wall_clock(time: TimeLike, zone: str | None) -> np.datetime64:
    """The time on the clock of the series; one with an offset is shown on that clock."""
    if isinstance(time, datetime) and time.tzinfo is not None and zone is not None:
        time = time.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    return parse_time("time", str(time))


def _name_of(readings: NewerReadings) -> str:
    """What a message calls them."""
    if isinstance(readings, SeriesStore):
        return str(readings.path)
    return str(readings) if isinstance(readings, str | Path) else f"the {type(readings).__name__}"


def _difference(mine: tuple[str, ...], other: tuple[str, ...]) -> str:
    """Where two lists of sensors part, in a few words."""
    missing = [each for each in mine if each not in set(other)]
    extra = [each for each in other if each not in set(mine)]
    parts = [("missing", missing), ("not in the run", extra)]
    if missing or extra:
        return "; ".join(f"{what}: {shorten(names)}" for what, names in parts if names)
    position = next(i for i, pair in enumerate(zip(mine, other, strict=True)) if pair[0] != pair[1])
    return f"number {position} is {other[position]!r} instead of {mine[position]!r}"
