"""Readings of any rows of a series, beside the windows of a batch."""

import numpy as np
from numpy.typing import NDArray

from pgti.batching import WindowSource
from pgti.store import SeriesStore, TimeAxis
from pgti.store.clock import SECONDS_PER_WEEK
from pgti.store.codec import Values

__all__ = ["PastReadings", "season_steps"]

_SECONDS_PER_YEAR = 31_556_952  # 365.2425 days


def season_steps(axis: TimeAxis) -> int | None:
    """Rows of a season: a week, or a year where rows are a week or more apart.

    Args:
        axis: the times of a series.

    Returns:
        None where times are unknown, follow no rule, or a season is not at least two rows.
    """
    interval = axis.interval_seconds
    if not axis.is_dated or not axis.continues or interval is None:
        return None
    season = _SECONDS_PER_YEAR if axis.has_months else SECONDS_PER_WEEK
    if axis.rule is not None:
        last = axis.last_seconds
        times = axis.rule.after(last, season // interval + 2, axis.time_zone)
        # Half an interval, because months and years differ in length.
        steps = int((times <= last + season + interval // 2).sum())
    else:
        steps = round(season / interval)
        if not axis.has_months and steps * interval != season:
            return None
    return steps if steps > 1 else None


class PastReadings:
    """Readings of the target channels of any rows, in original units.

    Args:
        source: the series, its target channels and the n sensors of its batches.
        older: a series of the same sensors that has the readings before its first row, where it
            begins at the same interval; None for no other.
        sensors: some of those sensors, by position; all by default.
    """

    def __init__(
        self,
        source: WindowSource,
        older: SeriesStore | None = None,
        sensors: slice = slice(None),
    ) -> None:
        self._store = source.store
        self._targets = list(source.target_indices)
        every = np.arange(source.store.meta.num_nodes)
        self._sensors = (every if source.sensors is None else every[source.sensors])[sensors]
        self._has_all = len(self._sensors) == len(every)
        self._holes = source.store.time_axis.holes
        self._older, self._rows_before = older, 0
        if older is not None:
            self._rows_before = _rows_between(older.time_axis, source.store.time_axis)

    def at(self, rows: NDArray[np.int64]) -> Values:
        """Readings of rows, wherever they lie.

        Args:
            rows: row numbers of any shape.

        Returns:
            Of that shape with [n, C_out] appended, of the type of the store's readings; NaN where a
            reading is missing or its row is outside the series.
        """
        distinct, places = np.unique(rows, return_inverse=True)
        shape = (len(distinct), len(self._sensors), len(self._targets))
        values = np.full(shape, np.nan, self._store.codec.reading_dtype)
        inside = (distinct >= 0) & (distinct < self._store.meta.num_steps)
        values[inside] = self._read(self._store, distinct[inside])
        if self._older is not None:
            before = (distinct < 0) & (distinct >= -self._rows_before)
            values[before] = self._read(self._older, distinct[before] + self._rows_before)
        found: Values = values[places.reshape(rows.shape)]
        return found

    def _read(self, store: SeriesStore, rows: NDArray[np.int64]) -> Values:
        raw = store.raw[rows]
        if not self._has_all:
            raw = raw[:, self._sensors]
        decoded: Values = store.codec.decode(raw)[..., self._targets]
        return decoded

    def earlier(self, rows: NDArray[np.int64], steps: NDArray[np.int64]) -> Values:
        """Readings some rows earlier; NaN also where a hole in the times lies between.

        Args:
            rows: row numbers.
            steps: how many rows earlier, of a shape that broadcasts with `rows`.

        Returns:
            As `at`, of the shape of `rows - steps`.
        """
        wanted = rows - steps
        values = self.at(wanted)
        if len(self._holes):
            first = np.searchsorted(self._holes, wanted)
            last = np.searchsorted(self._holes, np.broadcast_to(rows, wanted.shape))
            values[first != last] = np.nan
        return values


def _rows_between(older: TimeAxis, newer: TimeAxis) -> int:
    """Rows of an older series before the first of a newer one; 0 if they have no common clock."""
    interval = newer.interval_seconds
    if newer.start_seconds is None or older.start_seconds is None or interval is None:
        return 0
    if older.interval_seconds != interval or older.seconds is not None:
        return 0
    seconds = newer.start_seconds - older.start_seconds
    rows = seconds // interval
    return rows if seconds % interval == 0 and 0 < rows <= older.num_steps else 0
