"""The typical day of every sensor: what it reads at a time of day, on working days and weekends."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pgti.errors import ConfigError
from pgti.store.store import SeriesStore
from pgti.store.time_axis import SECONDS_PER_DAY, TimeAxis
from pgti.store.week_bins import slot_sums

__all__ = ["Profile"]

_SATURDAY = 5


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Profile:
    """Mean observed reading of each sensor at each time of day, for two kinds of day.

    Sensors look alike to a graph network that shares its weights over them; a profile tells it
    which of them slow down every afternoon.

    Args:
        table: means in original units, float32 [2 * bins of a day, N, C]; the second half is for
            Saturday and Sunday.
    """

    table: NDArray[np.float32]

    @classmethod
    def fit(cls, store: SeriesStore, rows: range, channels: tuple[int, ...]) -> Self:
        """Average the observed readings of `rows`, a chunk at a time.

        Where a sensor was never observed at a time of day, the other kind of day stands in, then
        the sensor's mean, then that of all sensors.

        Args:
            store: the series.
            rows: training rows.
            channels: positions of the channels to average.

        Raises:
            ConfigError: if the series has no times, or not several readings a day.
        """
        interval = store.time_axis.interval_seconds
        if not store.time_axis.is_dated or interval is None or interval >= SECONDS_PER_DAY:
            raise ConfigError(
                "a profile is the mean of a time of day, and the series has no times or no more "
                "than one reading a day: leave the profile out"
            )
        bins_per_day = -(-SECONDS_PER_DAY // interval)
        sums, counts = slot_sums(
            store,
            rows,
            channels,
            lambda chunk: _week_bins(store.time_axis, chunk, bins_per_day),
            2 * bins_per_day,
        )
        return cls(table=_means(sums, counts))

    def week_bins(self, time_axis: TimeAxis, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which entry of the table belongs to each row; of the shape of `rows`."""
        return _week_bins(time_axis, rows, len(self.table) // 2)


def _week_bins(
    time_axis: TimeAxis, rows: NDArray[np.int64], bins_per_day: int
) -> NDArray[np.int64]:
    # The share of the day, in float64, is off by far less than half a slot.
    of_day = (time_axis.time_of_day(rows).astype(np.float64) * bins_per_day + 0.01).astype(np.int64)
    weekend = time_axis.day_of_week(rows) >= _SATURDAY
    return of_day + bins_per_day * weekend


def _means(sums: NDArray[np.float64], counts: NDArray[np.int32]) -> NDArray[np.float32]:
    """Means of the slots, wider means where a slot has no observed reading."""
    days = sums.reshape(2, -1, *sums.shape[1:]), counts.reshape(2, -1, *counts.shape[1:])
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, filled by the next wider mean
        means = days[0] / days[1]
        for axes in (0, (0, 1), (0, 1, 2)):
            wide_sums, wide_counts = (part.sum(axis=axes, keepdims=True) for part in days)
            means = np.where(np.isnan(means), wide_sums / wide_counts, means)
    return np.nan_to_num(means).reshape(sums.shape).astype(np.float32)
