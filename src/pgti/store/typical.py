"""What is typical of every sensor: means by time of day or week, and the range of the readings."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pgti.errors import PARSER_ERRORS, StoreError, machine_fault
from pgti.storage import write_atomically
from pgti.store.codec import Values
from pgti.store.store import SeriesStore
from pgti.store.time_axis import MONTHS_PER_YEAR, SECONDS_PER_DAY, TimeAxis

__all__ = [
    "TypicalReadings",
    "add_by_bin",
    "has_times_of_day",
    "read_chunks",
    "sum_by_bin",
]

_SATURDAY = 5
_KINDS_OF_DAY = 2  # working days, weekends
_DAYS_OF_WEEK = 7
_MAX_BINS_PER_DAY = 288
"""Bins of a day at most: five minutes each. A finer series is averaged over that."""
_CACHED_READINGS = 1 << 14  # that are added at once: a core's cache holds them
_QUANTILES = 101
_MAX_SAMPLED = 1 << 20  # readings of a channel that its quantiles are of


def sum_by_bin(
    store: SeriesStore,
    rows: range,
    channels: tuple[int, ...],
    bins_of: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    num_bins: int,
    *,
    chunk_readings: int = 1 << 22,
    sensors: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Sum and number of the observed readings in each bin, in one pass over the rows.

    Args:
        store: the series.
        rows: consecutive rows to read.
        channels: positions of the channels, C of them.
        bins_of: maps row numbers to bins, 0..num_bins-1.
        num_bins: how many there are.
        chunk_readings: readings to decode at a time; 16 MiB of float32 by default.
        sensors: positions of the sensors to read, N of them; all if not given.

    Returns:
        Two arrays [num_bins, N, C].
    """
    num_nodes = store.meta.num_nodes if sensors is None else len(sensors)
    shape = (num_bins, num_nodes, len(channels))
    sums, counts = np.zeros(shape), np.zeros(shape, dtype=np.int32)
    for numbers, chunk in read_chunks(store, rows, chunk_readings, sensors):
        add_by_bin(sums, counts, bins_of(numbers), chunk[..., list(channels)])
    return sums, counts


def read_chunks(
    store: SeriesStore,
    rows: range,
    chunk_readings: int = 1 << 22,
    sensors: NDArray[np.int64] | None = None,
) -> Iterator[tuple[NDArray[np.int64], Values]]:
    """Row numbers and readings [rows, N, C] of one chunk after the other."""
    num_nodes = store.meta.num_nodes if sensors is None else len(sensors)
    size = max(1, chunk_readings // (num_nodes * store.meta.num_channels))
    for first in range(rows.start, rows.stop, size):
        last = min(first + size, rows.stop)
        raw = store.raw[first:last]
        yield (
            np.arange(first, last),
            store.codec.decode(raw if sensors is None else raw[:, sensors]),
        )
        store.release()


def add_by_bin(
    sums: NDArray[np.float64],
    counts: NDArray[np.int32],
    bins: NDArray[np.int64],
    readings: Values,
) -> None:
    """Add rows of readings [rows, N, C] to their bins, in time order.

    The first rows of all bins are added at once, then the second ones, and so on: as many additions
    as a bin has rows, of short rows above all.
    """
    by_bin = np.argsort(bins, kind="stable")
    _, firsts, sizes = np.unique(bins[by_bin], return_index=True, return_counts=True)
    turns = np.arange(len(bins)) - np.repeat(firsts, sizes)
    rows = by_bin[np.argsort(turns, kind="stable")]
    size = max(1, _CACHED_READINGS // readings[0].size)
    for turn in np.split(rows, np.cumsum(np.bincount(turns))[:-1]):
        for first in range(0, len(turn), size):
            chosen = turn[first : first + size]
            values, where = readings[chosen], bins[chosen]
            observed = ~np.isnan(values)
            sums[where] += np.where(observed, values, 0)
            counts[where] += observed


def has_times_of_day(time_axis: TimeAxis) -> bool:
    """Whether the time of each row is known, and a day has several rows."""
    interval = time_axis.interval_seconds
    return time_axis.is_dated and interval is not None and interval < SECONDS_PER_DAY


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class TypicalReadings:
    """What each sensor usually reads at each time, and the range of all readings.

    Fitted on training rows alone. A reading that is missing is filled with the typical one; a
    climatology tells a network that shares its weights over the sensors which of them slow down
    every afternoon; quantiles say whether newer readings lie where those of training did.

    Attributes:
        table: mean observed reading of each sensor and channel in original units, [bins, N, C]. All
            arrays are float32, those of an exact store float64. The bins are times of day, first
            those of working days, then those of Saturday and Sunday; or days of the week, from
            Monday; or months of the year, where rows are a week or more apart; or one.
        num_days: kinds of day: 2 with times of day, 7 with days of the week, 12 with months, 1 with
            none of them.
        minimum: least observed reading of each channel, [C]; NaN where it has none.
        maximum: greatest observed reading, likewise.
        observed: share of the readings of each sensor and channel that were observed, [N, C].
        quantiles: of the observed readings of each channel, at evenly spaced levels from 0 to 1,
            [Q, C]; of at most 2^20 readings a channel, from evenly spaced rows. NaN where a
            channel has none.
    """

    table: Values
    num_days: int
    minimum: Values
    maximum: Values
    observed: Values
    quantiles: Values

    @classmethod
    def fit(cls, store: SeriesStore, rows: range, *, every_step: bool = False) -> Self:
        """Average the observed readings of `rows`, a chunk at a time.

        Where a sensor was never observed at a time of day, the mean of the other kind of day
        stands in, then the mean of the sensor, then that of all sensors, then 0.

        Memory: 16 bytes per bin, sensor and channel, whatever the length of the series.

        Args:
            store: the series.
            rows: training rows.
            every_step: whether each step of a day has a bin; else a bin has five minutes at least.
        """
        axis, meta = store.time_axis, store.meta
        num_days, bins_per_day = _bins_of(axis)
        if not every_step:
            bins_per_day = min(bins_per_day, _MAX_BINS_PER_DAY)
        shape = (num_days * bins_per_day, meta.num_nodes, meta.num_channels)
        sums, counts = np.zeros(shape), np.zeros(shape, dtype=np.int32)
        dtype = store.codec.reading_dtype
        minimum: Values = np.full(meta.num_channels, np.nan, dtype=dtype)
        maximum = minimum.copy()
        stride = max(1, -(-len(rows) * meta.num_nodes // _MAX_SAMPLED))
        sampled: list[Values] = []
        for numbers, chunk in read_chunks(store, rows):
            add_by_bin(sums, counts, _bins_at(axis, numbers, num_days, bins_per_day), chunk)
            minimum = np.fmin(minimum, np.fmin.reduce(chunk, axis=(0, 1)))
            maximum = np.fmax(maximum, np.fmax.reduce(chunk, axis=(0, 1)))
            sampled.append(chunk[(rows.start - numbers[0]) % stride :: stride].copy())
        return cls(
            table=_means(sums, counts, num_days).astype(dtype),
            num_days=num_days,
            minimum=minimum,
            maximum=maximum,
            observed=(counts.sum(axis=0) / max(1, len(rows))).astype(dtype),
            quantiles=_quantiles(sampled, meta.num_channels).astype(dtype),
        )

    @staticmethod
    def fit_bytes(store: SeriesStore) -> int:
        """Memory that `fit` takes, and then the table, which has a quarter of it."""
        num_days, bins_per_day = _bins_of(store.time_axis)
        bins = num_days * min(bins_per_day, _MAX_BINS_PER_DAY)
        return 16 * bins * store.meta.num_nodes * store.meta.num_channels

    @property
    def has_times_of_day(self) -> bool:
        """Whether the bins are times of day."""
        return self.num_days == _KINDS_OF_DAY

    def bins(self, time_axis: TimeAxis, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The entry of the table for each row, of the shape of `rows`.

        Args:
            time_axis: of the fitted series or of a newer one.
            rows: row numbers, which may lie past the end.

        Raises:
            ConfigError: if the bins are times and the series has none.
        """
        return _bins_at(time_axis, rows, self.num_days, len(self.table) // self.num_days)

    # -- files ------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The content of a file, as `save` writes it."""
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **self._arrays())
        return content.getvalue()

    def save(self, path: Path) -> None:
        """Write an .npz file, replacing it in one step.

        Raises:
            OSError: if it cannot be written.
        """
        write_atomically(path, self.to_bytes())

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """What `to_bytes` returned.

        Raises:
            StoreError: if it is anything else.
        """
        return cls._read(io.BytesIO(content), "the typical readings")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote, without unpickling.

        Raises:
            StoreError: if the file is missing, or is anything else.
        """
        try:
            with path.open("rb") as file:
                return cls._read(file, str(path))
        except OSError as error:
            reason = error.strerror or error
            raise StoreError(f"{path} cannot be read: {reason}") from None

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "table": self.table,
            "num_days": np.array(self.num_days),
            "minimum": self.minimum,
            "maximum": self.maximum,
            "observed": self.observed,
            "quantiles": self.quantiles,
        }

    @classmethod
    def _read(cls, file: Any, name: str) -> Self:
        problem = f"{name} cannot be read as typical readings"
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {each: archive[each] for each in cls.__dataclass_fields__}
            num_days = int(arrays.pop("num_days"))
            table, quantiles = arrays["table"], arrays["quantiles"]
            channels = table.shape[2:]
            is_valid = (
                table.ndim == 3
                and num_days in (1, _KINDS_OF_DAY, _DAYS_OF_WEEK, MONTHS_PER_YEAR)
                and len(table) > 0
                and len(table) % num_days == 0
                and all(arrays[each].shape == channels for each in ("minimum", "maximum"))
                and arrays["observed"].shape == table.shape[1:]
                and quantiles.shape == (_QUANTILES, *channels)
                and table.dtype in (np.float32, np.float64)
                and all(array.dtype == table.dtype for array in arrays.values())
                and bool(np.isfinite(table).all())
            )
        except PARSER_ERRORS as error:
            reason = machine_fault(error) or " ".join(str(error).split())
            raise StoreError(f"{problem}: {reason}") from None
        if not is_valid:
            raise StoreError(f"{problem}: its arrays contradict one another")
        return cls(num_days=num_days, **arrays)


def _bins_of(time_axis: TimeAxis) -> tuple[int, int]:
    """Kinds of day, and bins of each."""
    if has_times_of_day(time_axis):
        return _KINDS_OF_DAY, -(-SECONDS_PER_DAY // (time_axis.interval_seconds or 1))
    if time_axis.has_months:
        return MONTHS_PER_YEAR, 1
    is_daily = time_axis.is_dated and time_axis.interval_seconds == SECONDS_PER_DAY
    return (_DAYS_OF_WEEK, 1) if is_daily else (1, 1)


def _bins_at(
    time_axis: TimeAxis, rows: NDArray[np.int64], num_days: int, bins_per_day: int
) -> NDArray[np.int64]:
    if num_days == 1:
        return np.zeros(rows.shape, dtype=np.int64)
    if num_days == MONTHS_PER_YEAR:
        return time_axis.month_of_year(rows)
    day = time_axis.day_of_week(rows)
    if num_days == _DAYS_OF_WEEK:
        return day
    # The fraction of the day, in float64, is off by far less than half a bin.
    of_day = (time_axis.time_of_day(rows).astype(np.float64) * bins_per_day + 0.01).astype(np.int64)
    return of_day + bins_per_day * (day >= _SATURDAY)


def _means(
    sums: NDArray[np.float64], counts: NDArray[np.int32], num_days: int
) -> NDArray[np.float64]:
    """Means of the bins; where a bin has no observed reading, the next wider mean."""
    by_day = (num_days, -1, *sums.shape[1:])
    days = sums.reshape(by_day), counts.reshape(by_day)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, filled by the next wider mean
        means = days[0] / days[1]
        for axes in (0, (0, 1), (0, 1, 2)):
            wide_sums, wide_counts = (part.sum(axis=axes, keepdims=True) for part in days)
            means = np.where(np.isnan(means), wide_sums / wide_counts, means)
    filled: NDArray[np.float64] = np.nan_to_num(means).reshape(sums.shape)
    return filled


def _quantiles(sampled: list[Values], num_channels: int) -> NDArray[np.float64]:
    quantiles = np.full((_QUANTILES, num_channels), np.nan)
    levels = np.linspace(0, 1, _QUANTILES)
    for channel in range(num_channels):
        readings = np.concatenate([chunk[..., channel].ravel() for chunk in sampled])
        readings = readings[~np.isnan(readings)]
        if len(readings):
            quantiles[:, channel] = np.quantile(readings, levels)
    return quantiles
