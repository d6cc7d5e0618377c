"""The times of newer readings: on the clock of a series, at its interval or by its rule."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import DataError, option
from pgti.ingestion.instants import check_start
from pgti.ingestion.options import Gaps
from pgti.ingestion.readings import Chunk, Readings
from pgti.ingestion.times.rising import RisingTimes
from pgti.store import TimeAxis, format_interval
from pgti.store.clock import wall_seconds

__all__ = ["NewerTimes", "put_on_clock"]

_MAX_FILLED_ROWS = 110_000  # a year of five-minute steps: a longer gap is a mistyped time


def put_on_clock(
    readings: Readings, time_zone: str | None, given: str | None, *, series: str = "run"
) -> Readings:
    """Readings whose times are those of a series: true ones in a zone, else its wall clock.

    Args:
        readings: the newer ones.
        time_zone: zone of the series, if it has one.
        given: zone that the user gave: of the clock of times without an offset; for a series
            without a zone, that of the clock which it was read on.
        series: what messages call the series.

    Raises:
        DataError: if times have an offset and nothing says on which clock the series was read.
    """
    if time_zone is not None or not readings.is_aware:
        return readings
    if given is None:
        raise DataError(
            f"{readings.name} has times with an offset from UTC, and the {series} knows times "
            f"without a zone alone: name the zone of its clock with {option('time_zone')}, such as "
            f"{option('time_zone', 'Europe/Berlin')}, or write the times of that clock"
        )

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        for chunk in readings.chunks(budget_bytes):
            seconds = None if chunk.seconds is None else wall_seconds(chunk.seconds, given)
            yield replace(chunk, seconds=seconds)

    return replace(readings, chunks=chunks, is_aware=False, time_zone=None)


class NewerTimes:
    """Checks the times of newer rows chunk by chunk, and fills what is missing between them.

    Args:
        readings: the newer ones, as `put_on_clock` returns them.
        axis: times of the series.
        clock: zone in which wall-clock times are read; None for a series without a zone.
        gaps: what to do where rows are missing.
        start: wall-clock time of the first row, where the user gave it.

    Attributes:
        num_filled: rows of missing readings that were inserted so far.
        num_rows: rows so far, those included.
    """

    def __init__(
        self,
        readings: Readings,
        axis: TimeAxis,
        clock: str | None,
        gaps: Gaps,
        start: str | None = None,
    ) -> None:
        self._clock, self._start = clock, start
        self._labels = readings.row_labels
        self._axis = axis
        self._rising = RisingTimes(readings, clock, axis.time_zone)
        self._gaps: Gaps = gaps
        self._interval = axis.interval_seconds
        self._times: list[NDArray[np.int64]] = []
        self.num_filled = 0
        self.num_rows = 0

    @property
    def is_guess(self) -> bool:
        """Whether all rows are of the hour that the clock shows twice: the earlier is taken."""
        return self._rising.is_guess

    def place(
        self, values: NDArray[np.floating[Any]], seconds: NDArray[np.int64], first_row: int
    ) -> Iterator[NDArray[np.floating[Any]]]:
        """The rows of a chunk, with rows of NaN where rows are missing.

        Raises:
            DataError: naming the row where times repeat, go back, or are not those of the series.
        """
        times, num_before = self._rising.follow(seconds, first_row)
        seconds, steps = times[num_before:], np.diff(times)
        if not num_before:
            self._begin(seconds, steps)
        self._check_rule(seconds, first_row)
        done = 0
        for place in self._gaps_in(times, steps).tolist():
            row = place + 1 - num_before
            if row > done:
                yield self._keep(values[done:row], seconds[done:row])
            done = row
            yield from self._fill(values, times, place, first_row - num_before)
        yield self._keep(values[done:], seconds[done:])

    def finish(self) -> TimeAxis:
        """The times of all rows.

        Raises:
            DataError: if one row shows no interval, and the series has none.
        """
        seconds, interval = np.concatenate(self._times), self._interval
        if interval is None:
            raise DataError(
                f"{self._labels.source} has one row, which shows no interval, and the run has none"
            )
        is_regular = not (np.diff(seconds) != interval).any()
        return TimeAxis(
            num_steps=len(seconds),
            start_seconds=int(seconds[0]),
            interval_seconds=interval,
            time_zone=self._axis.time_zone,
            seconds=None if is_regular else seconds,
            rule=self._axis.rule,
        )

    def _keep(
        self, values: NDArray[np.floating[Any]], seconds: NDArray[np.int64]
    ) -> NDArray[np.floating[Any]]:
        self._times.append(seconds)
        self.num_rows += len(seconds)
        return values

    def _begin(self, seconds: NDArray[np.int64], steps: NDArray[np.int64]) -> None:
        """Compare start and interval of the first rows with what was given, and the series."""
        check_start(self._labels, int(seconds[0]), self._start, self._clock)
        axis = self._axis
        if axis.rule is not None or not len(steps):
            return
        found, counts = np.unique(steps, return_counts=True)
        common = int(found[counts.argmax()])
        if self._interval is None:
            self._interval = common
        elif axis.seconds is not None and (steps % self._interval).any():
            self._gaps = "keep"  # as irregular as the series
        elif self._interval not in found:
            raise DataError(
                f"the rows of {self._labels.source} are {format_interval(common)} apart and those "
                f"of the run {format_interval(self._interval)}: they must be the same"
            )

    def _check_rule(self, seconds: NDArray[np.int64], first_row: int) -> None:
        rule, zone = self._axis.rule, self._axis.time_zone
        if rule is None or rule.holds(seconds, zone):
            return
        wrong = np.array([not rule.holds(seconds[i : i + 1], zone) for i in range(len(seconds))])
        self._labels.refuse_where(
            wrong,
            first_row,
            lambda row: (
                f"has the time {self._show(first_row + row, seconds[row])}, which is none of the "
                f"run's, that is {rule.describe()}"
            ),
        )

    def _gaps_in(self, times: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places in `times` that missing rows follow."""
        if self._gaps == "keep" or not len(steps):
            return np.empty(0, dtype=np.int64)
        if self._axis.rule is not None:
            return np.flatnonzero(self._axis.rule.lacks(times, self._axis.time_zone))
        return np.flatnonzero(steps != self._interval)

    def _fill(
        self,
        values: NDArray[np.floating[Any]],
        times: NDArray[np.int64],
        place: int,
        first_row: int,
    ) -> Iterator[NDArray[np.floating[Any]]]:
        """Rows of NaN between the time at `place` and the next one, in blocks."""
        before, after = (int(time) for time in times[place : place + 2])
        missing = self._times_between(before, after, first_row + place)
        where = (
            f"{self._labels(first_row + place)} has the time "
            f"{self._show(first_row + place, before)} and "
            f"{self._labels.short(first_row + place + 1)} has "
            f"{self._show(first_row + place + 1, after)}"
        )
        if self._gaps == "error":
            raise DataError(
                f"{where}: the source lacks {count_of(len(missing), 'row')} between them; leave "
                f"{option('gaps', 'error')} out to fill them with missing readings"
            )
        if len(missing) > _MAX_FILLED_ROWS:
            raise DataError(
                f"{where}: {count_of(len(missing), 'row')} would be inserted, more than "
                f"{_MAX_FILLED_ROWS:,}; correct the time"
            )
        self.num_filled += len(missing)
        for first in range(0, len(missing), len(values)):
            block = missing[first : first + len(values)]
            rows = np.full((len(block), *values.shape[1:]), np.nan, dtype=values.dtype)
            yield self._keep(rows, block)

    def _times_between(self, before: int, after: int, row: int) -> NDArray[np.int64]:
        rule, interval = self._axis.rule, self._interval or 1
        if rule is not None:
            # No rule has times closer to one another than its interval, but for clock changes.
            count = (after - before) // (self._axis.interval_seconds or 1) + 2
            times = rule.after(before, count, self._axis.time_zone)
            return times[times < after]
        if (after - before) % interval:
            raise DataError(
                f"{self._labels(row)} has the time {self._show(row, before)} and "
                f"{self._labels.short(row + 1)} has {self._show(row + 1, after)}: that is not a "
                f"whole number of intervals of {format_interval(interval)}, the run's"
            )
        return np.arange(before + interval, after, interval, dtype=np.int64)

    def _show(self, row: int, second: int | np.int64) -> str:
        return self._labels.time(row, second, self._axis.time_zone)
