"""Means by time of day or week: the typical day of every sensor, and the sums behind it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pgti.errors import ConfigError
from pgti.store.store import SeriesStore
from pgti.store.time_axis import SECONDS_PER_DAY, TimeAxis

__all__ = ["Profile", "sum_by_bin"]

_SATURDAY = 5


def sum_by_bin(
    store: SeriesStore,
    rows: range,
    channels: tuple[int, ...],
    bins_of: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    num_bins: int,
    *,
    chunk_readings: int = 1 << 22,
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Sum and number of the observed readings in each bin, in one pass over the rows.

    Args:
        store: the series.
        rows: consecutive rows to read.
        channels: positions of the channels, C of them.
        bins_of: maps row numbers to bins, 0..num_bins-1.
        num_bins: how many there are.
        chunk_readings: readings to decode at a time; 16 MiB of float32 by default.

    Returns:
        Two arrays [num_bins, N, C].
    """
    shape = (num_bins, store.meta.num_nodes, len(channels))
    sums, counts = np.zeros(shape), np.zeros(shape, dtype=np.int32)
    size = max(1, chunk_readings // (store.meta.num_nodes * store.meta.num_channels))
    for first in range(rows.start, rows.stop, size):
        last = min(first + size, rows.stop)
        readings = store.read(first, last)[..., list(channels)]
        for index, reading in zip(bins_of(np.arange(first, last)), readings, strict=True):
            observed = ~np.isnan(reading)
            np.add(sums[index], reading, out=sums[index], where=observed)
            counts[index] += observed
        store.release()
    return sums, counts


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Profile:
    """Mean observed reading of each sensor at each time of day, for two kinds of day.

    Sensors look alike to a graph network that shares its weights over them; a profile tells it
    which of them slow down every afternoon.

    Attributes:
        table: means in original units, float32 [2 * bins of a day, N, C]; the second half is for
            Saturday and Sunday.
    """

    table: NDArray[np.float32]

    @classmethod
    def fit(cls, store: SeriesStore, rows: range, channels: tuple[int, ...]) -> Self:
        """Average the observed readings of `rows`, a chunk at a time.

        Where a sensor was never observed at a time of day, the mean of the other kind of day
        stands in, then the mean of the sensor, then that of all sensors.

        Args:
            store: the series.
            rows: training rows.
            channels: positions of the channels to average.

        Raises:
            ConfigError: if the series has no times, or no more than one row a day.
        """
        interval = store.time_axis.interval_seconds
        if not store.time_axis.is_dated or interval is None or interval >= SECONDS_PER_DAY:
            raise ConfigError(
                "a profile is the mean of a time of day, and the series has no times or no more "
                "than one reading a day: leave the profile out"
            )
        bins_per_day = -(-SECONDS_PER_DAY // interval)
        sums, counts = sum_by_bin(
            store,
            rows,
            channels,
            lambda chunk: _week_bins(store.time_axis, chunk, bins_per_day),
            2 * bins_per_day,
        )
        return cls(table=_means(sums, counts))

    def week_bins(self, time_axis: TimeAxis, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The entry of the table for each row; of the shape of `rows`."""
        return _week_bins(time_axis, rows, len(self.table) // 2)


def _week_bins(
    time_axis: TimeAxis, rows: NDArray[np.int64], bins_per_day: int
) -> NDArray[np.int64]:
    # The fraction of the day, in float64, is off by far less than half a bin.
    of_day = (time_axis.time_of_day(rows).astype(np.float64) * bins_per_day + 0.01).astype(np.int64)
    weekend = time_axis.day_of_week(rows) >= _SATURDAY
    return of_day + bins_per_day * weekend


def _means(sums: NDArray[np.float64], counts: NDArray[np.int32]) -> NDArray[np.float32]:
    """Means of the bins; where a bin has no observed reading, the next wider mean."""
    days = sums.reshape(2, -1, *sums.shape[1:]), counts.reshape(2, -1, *counts.shape[1:])
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, filled by the next wider mean
        means = days[0] / days[1]
        for axes in (0, (0, 1), (0, 1, 2)):
            wide_sums, wide_counts = (part.sum(axis=axes, keepdims=True) for part in days)
            means = np.where(np.isnan(means), wide_sums / wide_counts, means)
    return np.nan_to_num(means).reshape(sums.shape).astype(np.float32)
