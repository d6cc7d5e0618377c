"""The times of consecutive rows: their order, interval and gaps."""

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import DataError, option
from pgti.ingestion.instants import check_start
from pgti.ingestion.later_rows import RowSplitter
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import Readings
from pgti.ingestion.times.rising import RisingTimes
from pgti.ingestion.times.rules import (
    ENOUGH_ROWS,
    ENOUGH_SECONDS,
    daily_rule,
    most_common,
    recognize_rule,
)
from pgti.store import CycleRule, StoreMeta, StoreWriter, TimeAxis, TimeRule, format_interval
from pgti.store.codec import Values

__all__ = ["Timeline"]

_MAX_FILLED_ROWS = 110_000  # a year of five-minute steps: a longer gap is a mistyped time


class Timeline:
    """Checks the times of a source chunk by chunk, and finds their interval.

    Where the distance of rows varies and no gap is allowed, times are collected to see whether they
    follow a rule; a source that follows none is refused once enough of it is read.

    Args:
        readings: the source.
        options: start and interval, if the user gave them, and what to do where rows are missing.
        time_zone: zone of the clock that wall-clock times were read on, if any.

    Attributes:
        num_filled: rows of missing readings that were inserted so far.
        notes: what was found about the times, one line each; complete after `finish`.
    """

    def __init__(self, readings: Readings, options: IngestOptions, time_zone: str | None) -> None:
        self._labels = readings.row_labels
        self._times = RisingTimes(readings, time_zone, time_zone)
        self._given_start = options.start
        self._gaps = options.gaps
        self._given_interval = self._interval = options.interval_seconds
        self._first: int | None = None
        self._num_rows = 0
        self._time_zone = time_zone
        self._kept: list[NDArray[np.int64]] | None = [] if options.gaps == "keep" else None
        self._refusal: DataError | None = None
        self._next_check = ENOUGH_ROWS
        self.num_filled = 0
        self.notes: tuple[str, ...] = ()

    def place(
        self, values: NDArray[np.floating[Any]], seconds: NDArray[np.int64], first_row: int
    ) -> Iterator[NDArray[np.floating[Any]]]:
        """The rows of a chunk, with blocks of NaN rows where rows are missing.

        A block is never longer than the chunk.

        Raises:
            DataError: naming the row and both times where times repeat, go back, or leave a gap
                that the options do not allow.
        """
        times, num_before = self._times.follow(seconds, first_row)
        seconds, steps = times[num_before:], np.diff(times)
        if self._first is None:
            self._begin(int(seconds[0]))
        if self._interval is None and len(steps):
            self._interval = most_common(steps)
        if self._gaps == "error" and self._kept is None and (steps != self._interval).any():
            self._refuse_later(times, steps, first_row - num_before)
        self._num_rows += len(seconds)
        if self._kept is not None:
            self._kept.append(seconds)
            self._check_refusal()
            yield values
            return
        done = 0
        for place in np.flatnonzero(steps != self._interval).tolist():
            num_missing = self._missing_rows(times, place, first_row - num_before)
            row = place + 1 - num_before
            if row > done:
                yield values[done:row]
            done = row
            for first in range(0, num_missing, len(values)):
                shape = (min(len(values), num_missing - first), *values.shape[1:])
                yield np.full(shape, np.nan, dtype=values.dtype)
            self.num_filled += num_missing
        yield values[done:]

    @property
    def has_times(self) -> bool:
        """Whether any row had a time."""
        return self._first is not None

    def finish(
        self, writer: StoreWriter, rows: RowSplitter, future: Callable[[TimeAxis], Values]
    ) -> StoreMeta:
        """Complete the store with start and interval, or with the time of each row.

        Args:
            writer: that has the rows of the series.
            rows: that holds back those after the last reading; it gets their times.
            future: gives what is known after the last row.

        Raises:
            DataError: if there was one row and no interval was given, or the times contradict the
                given interval.
        """
        first, interval = self._first or 0, self._interval
        start = np.datetime64(first, "s")
        if self._kept is None:
            if interval is None:
                self._refuse_one_row(first)
            times = self._regular_times(writer.num_steps + rows.num_waiting)
            rule = daily_rule(times[: writer.num_steps], interval, self._time_zone)
            rows.seconds = times[writer.num_steps :]
            return writer.finish(
                start=start, interval_seconds=interval, time_rule=_plain(rule), future=future
            )
        seconds = np.concatenate(self._kept)
        steps = np.diff(seconds)
        if len(steps):
            interval = most_common(steps)
        given = self._given_interval
        rule = None if given is None else daily_rule(seconds, given, self._time_zone)
        if rule is None:
            rule = self._find_rule(seconds, interval)
        else:
            interval = given  # of a few days, most may be of 23 hours
        if rule is None and self._refusal is not None:
            raise self._refusal
        if self._given_interval not in (None, interval) and interval is not None:
            raise DataError(
                f"the rows of {self._labels.source} are {format_interval(interval)} apart and "
                f"interval is {format_interval(self._given_interval or 0)}: leave "
                f"{option('interval')} out, or correct it"
            )
        if interval is None:
            self._refuse_one_row(first)
        if isinstance(rule, CycleRule):  # which two days of a week have two distances
            interval = rule.interval_seconds
        seconds, rows.seconds = np.split(seconds, [writer.num_steps])
        is_regular = not (np.diff(seconds) != interval).any()
        axis = TimeAxis(
            num_steps=len(seconds),
            start_seconds=first,
            interval_seconds=interval,
            time_zone=self._time_zone,
            seconds=None if is_regular else seconds,
            rule=rule,
        )
        self.notes = _notes_of(axis)
        return writer.finish(
            start=start,
            interval_seconds=interval,
            seconds=axis.seconds,
            time_rule=_plain(rule),
            future=future,
        )

    def _find_rule(self, seconds: NDArray[np.int64], interval: int | None) -> TimeRule | None:
        """The rule that the times follow, if it is sure that they follow one."""
        zone = self._time_zone
        if interval is None or not (np.diff(seconds) != interval).any():
            return None if interval is None else daily_rule(seconds, interval, zone)
        if self._given_interval not in (None, interval):
            return None
        return recognize_rule(seconds, zone, with_holes=self._gaps == "keep")

    def _refuse_later(
        self, times: NDArray[np.int64], steps: NDArray[np.int64], first_row: int
    ) -> None:
        """Note what is wrong with the first step that is not the interval, and collect times."""
        try:
            self._missing_rows(times, int(np.flatnonzero(steps != self._interval)[0]), first_row)
        except DataError as error:
            self._refusal = error
        self._kept = [self._regular_times(self._num_rows)]

    def _regular_times(self, num_rows: int) -> NDArray[np.int64]:
        rows = np.arange(num_rows, dtype=np.int64)
        return (self._first or 0) + rows * (self._interval or 0)

    def _check_refusal(self) -> None:
        """Refuse a source now whose rows, as far as they were read, cannot follow a rule."""
        if self._refusal is None or self._kept is None or self._num_rows < self._next_check:
            return
        self._next_check = 2 * self._num_rows
        if (self._times.last or 0) - (self._first or 0) >= ENOUGH_SECONDS:
            seconds = np.concatenate(self._kept)
            if self._find_rule(seconds, most_common(np.diff(seconds))) is None:
                raise self._refusal

    def _refuse_one_row(self, first: int) -> NoReturn:
        raise DataError(
            f"{self._labels.source} has one row "
            f"({self._labels.time(0, first, self._time_zone)}), which shows no interval: add "
            f"{option('interval', '5min')}"
        )

    def _begin(self, first: int) -> None:
        self._first = first
        check_start(self._labels, first, self._given_start, self._time_zone)

    def _missing_rows(self, times: NDArray[np.int64], place: int, first_row: int) -> int:
        """Rows that are missing between the time at `place` and the next one."""
        assert self._interval is not None  # there are two times
        interval = format_interval(self._interval)
        before, after = (int(time) for time in times[place : place + 2])
        row = first_row + place
        where = (
            f"{self._labels(row)} has the time {self._labels.time(row, before, self._time_zone)} "
            f"and {self._labels.short(row + 1)} has "
            f"{self._labels.time(row + 1, after, self._time_zone)}"
        )
        num_missing, rest = divmod(after - before, self._interval)
        if rest:
            hint = "" if self._given_interval is None else f" (as {option('interval')} says)"
            raise DataError(
                f"{where}: that is not a whole number of intervals of {interval}{hint}; correct "
                f"it, put irregular times onto a grid with {option('resample', '5min')} and "
                f"{option('aggregate', 'mean')}, or keep them with {option('gaps', 'keep')}"
            )
        num_missing -= 1
        if self._gaps == "error":
            raise DataError(
                f"{where}: at an interval of {interval} the source lacks "
                f"{count_of(num_missing, 'row')}; insert missing readings with "
                f"{option('gaps', 'fill')}, or keep irregular times with {option('gaps', 'keep')}"
            )
        if num_missing > _MAX_FILLED_ROWS:
            raise DataError(
                f"{where}: {count_of(num_missing, 'row')} would be inserted, more than "
                f"{_MAX_FILLED_ROWS:,}; correct the time, or use {option('gaps', 'keep')}"
            )
        return num_missing


def _plain(rule: TimeRule | None) -> dict[str, Any] | None:
    return None if rule is None else rule.to_plain()


def _notes_of(axis: TimeAxis) -> tuple[str, ...]:
    """What the times of a source are, where they are not an interval apart; one line each."""
    holes = axis.holes
    if axis.seconds is None:
        return ()
    if not axis.continues:
        interval = format_interval(axis.interval_seconds or 0)
        return (
            f"the times of the rows are irregular (the most common step is {interval}): forecasts "
            "past the end are numbered, not dated",
        )
    notes = []
    if axis.rule is not None:
        notes.append(f"the times of the rows repeat {axis.rule.describe()}: forecasts follow that")
    if len(holes):
        before, after = (axis.isoformat(int(holes[0]) + row) for row in (0, 1))
        notes.append(
            f"rows are missing in {count_of(len(holes), 'place')}, first between {before} and "
            f"{after}: windows that reach across are left out of training and evaluation"
        )
    return tuple(notes)
