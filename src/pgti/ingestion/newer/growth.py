"""The times of a source that continues a store."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import DataError, option
from pgti.ingestion.instants import check_years, show_time
from pgti.ingestion.options import Gaps
from pgti.ingestion.readings import Readings
from pgti.ingestion.times.rules import daily_rule, most_common, recognize_rule
from pgti.store import CycleRule, SeriesStore, TimeAxis, format_interval
from pgti.store.time_axis import SECONDS_PER_DAY

__all__ = ["GrowingTimes", "show"]

_MAX_FILLED_ROWS = 110_000  # a year of five-minute steps: a longer gap is a mistyped time


class GrowingTimes:
    """Checks the times of a source that continues a store, and fills what is missing.

    Args:
        readings: the source.
        store: as it is on disk.
        gaps: what to do where rows are missing.

    Attributes:
        num_filled: rows of missing readings that were inserted so far.
    """

    def __init__(self, readings: Readings, store: SeriesStore, gaps: Gaps) -> None:
        self._labels, self._name = readings.row_labels, readings.name
        self._axis, self._gaps = store.time_axis, gaps
        self._rule = store.time_axis.rule
        self._end = store.time_axis.last_seconds if store.time_axis.is_dated else 0
        self._previous: int | None = None  # row of the source
        self._last = self._end
        self._new: list[NDArray[np.int64]] = []
        self.num_filled = 0

    def check(self, seconds: NDArray[np.int64], first_row: int) -> int:
        """The number of rows that the store has already, those that are not after its last row.

        Raises:
            DataError: naming the row where times repeat or go back.
        """
        check_years(self._labels, seconds, first_row)
        before = [] if self._previous is None else [self._previous]
        times = np.array([*before, *seconds.tolist()], dtype=np.int64)
        wrong = np.flatnonzero(np.diff(times) <= 0)
        if len(wrong):
            place = int(wrong[0])
            row = first_row + place - len(before)
            earlier, later = (self._show(row + each, times[place + each]) for each in (0, 1))
            raise DataError(
                f"{self._labels.short(row)} and {self._labels(row + 1)} have the times {earlier} "
                f"and {later}: each time may occur once, and rows are sorted by time"
            )
        self._previous = int(seconds[-1])
        return int(np.searchsorted(seconds, self._end, side="right"))

    def place(
        self, values: NDArray[np.floating[Any]], seconds: NDArray[np.int64], first_row: int
    ) -> Iterator[NDArray[np.floating[Any]]]:
        """New rows, with rows of NaN where rows are missing before them.

        Raises:
            DataError: naming the row whose time is not the next one of the store, unless gaps are
                filled or kept.
        """
        if self._gaps == "keep":
            self._new.append(seconds)
            yield values
            return
        done = 0
        times = np.concatenate([[self._last], seconds])
        self._last = int(seconds[-1])
        for place in self._gaps_in(times, first_row).tolist():
            missing = self._missing(times, place, first_row)
            self._new += [seconds[done:place], missing]
            if place > done:
                yield values[done:place]
            done = place
            for first in range(0, len(missing), len(values)):
                shape = (min(len(values), len(missing) - first), *values.shape[1:])
                yield np.full(shape, np.nan, dtype=values.dtype)
            self.num_filled += len(missing)
        self._new.append(seconds[done:])
        yield values[done:]

    def notes(self) -> tuple[str, ...]:
        """What was filled, one line each."""
        if not self.num_filled:
            return ()
        were = "was" if self.num_filled == 1 else "were"
        rows = count_of(self.num_filled, "row")
        return (f"{rows} of missing readings {were} inserted into gaps",)

    def grown_axis(self, num_steps: int) -> TimeAxis:
        """The times of the store with its new rows, as if all had been ingested at once."""
        axis, interval = self._axis, self._axis.interval_seconds
        if not self._new or interval is None:
            return replace(axis, num_steps=num_steps)
        new = np.concatenate(self._new)[: num_steps - axis.num_steps]
        regular = (axis.start_seconds or 0) + np.arange(axis.num_steps, num_steps) * interval
        if axis.seconds is None and np.array_equal(new, regular):
            rule = axis.rule
            if interval % SECONDS_PER_DAY == 0:  # as long as days, whose rule may end here
                times = np.concatenate([self._known(), new])
                rule = daily_rule(times, interval, axis.time_zone)
            return replace(axis, num_steps=num_steps, rule=rule)
        seconds = np.concatenate([self._known(), new])
        rule = axis.rule
        if rule is None or not rule.holds(new, axis.time_zone):
            rule = recognize_rule(seconds, axis.time_zone, with_holes=True)
        if isinstance(rule, CycleRule):
            interval = rule.interval_seconds
        else:
            interval = most_common(np.diff(seconds))
        return replace(
            axis, num_steps=num_steps, interval_seconds=interval, seconds=seconds, rule=rule
        )

    def _show(self, row: int, second: int | np.int64) -> str:
        return self._labels.time(row, second, self._axis.time_zone)

    def later(self, num_steps: int) -> NDArray[np.int64] | None:
        """The times of rows after so many of the series; None for a source without times."""
        if not self._new:
            return None
        return np.concatenate(self._new)[num_steps - self._axis.num_steps :]

    def _known(self) -> NDArray[np.int64]:
        rows = np.arange(self._axis.num_steps, dtype=np.int64)
        return self._axis.seconds_at(rows) if self._axis.seconds is None else self._axis.seconds

    def _gaps_in(self, times: NDArray[np.int64], first_row: int) -> NDArray[np.int64]:
        """Places in `times` that missing rows follow."""
        zone = self._axis.time_zone
        uneven = np.flatnonzero(np.diff(times) != self._axis.interval_seconds)
        # Days of 24 hours seem to follow the clock as well, until the clock changes.
        if self._axis.seconds is None and self._rule is not None:
            if not len(uneven):
                return uneven
            if not self._rule.holds(times, zone):
                self._rule = None
        rule = self._rule
        if rule is None:
            return uneven
        if not rule.holds(times, zone):
            wrong = np.array([not rule.holds(times[i : i + 1], zone) for i in range(1, len(times))])
            self._labels.refuse_where(
                wrong,
                first_row,
                lambda row: (
                    f"has the time {self._show(first_row + row, times[row + 1])}, which is none of "
                    f"the store's, that is {rule.describe()}: correct it, or keep irregular times "
                    f"with {option('gaps', 'keep')}"
                ),
            )
        return np.flatnonzero(rule.lacks(times, zone))

    def _missing(self, times: NDArray[np.int64], place: int, first_row: int) -> NDArray[np.int64]:
        """Times that are missing between the one at `place` and the next."""
        axis, interval = self._axis, self._axis.interval_seconds or 1
        before, after = (int(time) for time in times[place : place + 2])
        row, is_first = first_row + place, before == self._end
        last = show(before, axis) if is_first else self._show(row - 1, before)
        where = (
            f"{self._labels(row)} has the time {self._show(row, after)} and the row before"
            f"{' in the store' if is_first else ''} has {last}"
        )
        if self._rule is not None:
            count = (after - before) // interval + 2
            missing = self._rule.after(before, count, axis.time_zone)
            missing, between = missing[missing < after], self._rule.describe()
        elif (after - before) % interval:
            raise DataError(
                f"{where}: that is not a whole number of intervals of {format_interval(interval)}; "
                f"correct it, or keep irregular times with {option('gaps', 'keep')}"
            )
        else:
            missing = np.arange(before + interval, after, interval, dtype=np.int64)
            between = f"an interval of {format_interval(interval)}"
        if self._gaps == "error":
            raise DataError(
                f"{where}: at {between} the source lacks {count_of(len(missing), 'row')}; insert "
                f"missing readings with {option('gaps', 'fill')}, or keep irregular times with "
                f"{option('gaps', 'keep')}"
            )
        if len(missing) > _MAX_FILLED_ROWS:
            raise DataError(
                f"{where}: {count_of(len(missing), 'row')} would be inserted, more than "
                f"{_MAX_FILLED_ROWS:,}; correct the time, or use {option('gaps', 'keep')}"
            )
        return missing


def show(second: int | np.int64, axis: TimeAxis) -> str:
    """A time on the clock of a series."""
    return show_time(second, axis.time_zone)
