"""The times of consecutive rows: their order, interval and gaps."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import DataError, option
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import Readings
from pgti.ingestion.times import (
    FIRST_SECOND,
    LAST_SECOND,
    Localizer,
    format_seconds,
    parse_start,
)
from pgti.store import StoreMeta, StoreWriter, format_interval

__all__ = ["Timeline"]

_MAX_FILLED_ROWS = 110_000  # a year of five-minute steps: a longer gap is a mistyped time


class Timeline:
    """Checks the times of a source chunk by chunk, and finds their interval.

    Args:
        readings: the source.
        options: start and interval, if the user gave them, and what to do where rows are missing.
        time_zone: zone of the clock that wall-clock times were read on, if any.

    Attributes:
        num_filled: rows of missing readings that were inserted so far.
    """

    def __init__(self, readings: Readings, options: IngestOptions, time_zone: str | None) -> None:
        self._labels = readings.row_labels
        self._localizer = None
        if time_zone is not None and not readings.is_aware:
            self._localizer = Localizer(time_zone, self._labels)
        self._given_start = None
        if options.start is not None:
            self._given_start = parse_start(options.start, time_zone)
        self._gaps = options.gaps
        self._given_interval = self._interval = options.interval_seconds
        self._first: int | None = None
        self._last = 0
        self._kept: list[NDArray[np.int64]] = []
        self.num_filled = 0

    def place(
        self, values: NDArray[np.floating[Any]], seconds: NDArray[np.int64], first_row: int
    ) -> Iterator[NDArray[np.floating[Any]]]:
        """The rows of a chunk, with blocks of NaN rows where rows are missing.

        A block is never longer than the chunk.

        Raises:
            DataError: naming the row and both times where times repeat, go back, or leave a gap
                that the options do not allow.
        """
        self._labels.refuse_where(
            (seconds < FIRST_SECOND) | (seconds > LAST_SECOND),
            first_row,
            lambda row: (
                f"has a time {seconds[row]} s from 1970, outside the years 1 to 9999: correct it"
            ),
        )
        if self._localizer is not None:
            seconds = self._localizer.convert(seconds, first_row)
        if self._first is None:
            times = seconds
            self._begin(int(seconds[0]))
        else:
            times = np.concatenate([[self._last], seconds])
        num_before = len(times) - len(seconds)
        steps = np.diff(times)
        self._check_order(times, steps, first_row - num_before)
        self._last = int(seconds[-1])
        if self._interval is None and len(steps):
            self._interval = int(pd.Series(steps).mode()[0])
        if self._gaps == "keep":
            self._kept.append(seconds)
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

    def finish(self, writer: StoreWriter) -> StoreMeta:
        """Complete the store with start and interval, or with the time of each row.

        Raises:
            DataError: if there was one row and no interval was given, or the times contradict the
                given interval.
        """
        source = self._labels.source
        start = np.datetime64(self._first or 0, "s")
        if self._gaps == "keep":
            seconds = np.concatenate(self._kept)
            steps = np.diff(seconds)
            if len(steps):
                self._interval = int(pd.Series(steps).mode()[0])
            if self._given_interval not in (None, self._interval) and self._interval is not None:
                raise DataError(
                    f"the rows of {source} are {format_interval(self._interval)} apart and "
                    f"interval is {format_interval(self._given_interval or 0)}: leave "
                    f"{option('interval')} "
                    "out, or correct it"
                )
            if len(steps) and (steps != self._interval).any():
                return writer.finish(start=start, interval_seconds=self._interval, seconds=seconds)
        if self._interval is None:
            raise DataError(
                f"{source} has one row ({start}), which shows no interval: add "
                f"{option('interval', '5min')}"
            )
        return writer.finish(start=start, interval_seconds=self._interval)

    def _begin(self, first: int) -> None:
        self._first = first
        if self._given_start not in (None, first):
            raise DataError(
                f"{self._labels.source} starts at {format_seconds(first)} and start is "
                f"{format_seconds(self._given_start or 0)}: leave {option('start')} out, or "
                f"correct it"
            )

    def _check_order(
        self, times: NDArray[np.int64], steps: NDArray[np.int64], first_row: int
    ) -> None:
        wrong = np.flatnonzero(steps <= 0)
        if not len(wrong):
            return
        place = int(wrong[0])
        row = first_row + place
        earlier, later = (format_seconds(int(time)) for time in times[place : place + 2])
        rows = f"{self._labels.short(row)} and {self._labels(row + 1)}"
        if steps[place] == 0:
            raise DataError(f"{rows} have the same time {earlier}: each time may occur once")
        raise DataError(f"{rows} have the times {earlier} and {later}: sort the rows by time")

    def _missing_rows(self, times: NDArray[np.int64], place: int, first_row: int) -> int:
        """Rows that are missing between the time at `place` and the next one."""
        assert self._interval is not None  # there are two times
        interval = format_interval(self._interval)
        before, after = (int(time) for time in times[place : place + 2])
        row = first_row + place
        where = (
            f"{self._labels(row)} has the time {format_seconds(before)} and "
            f"{self._labels.short(row + 1)} has {format_seconds(after)}"
        )
        num_missing, rest = divmod(after - before, self._interval)
        if rest:
            hint = "" if self._given_interval is None else f" (as {option('interval')} says)"
            raise DataError(
                f"{where}: that is not a whole number of intervals of {interval}{hint}; correct "
                f"it, or keep irregular times with {option('gaps', 'keep')}"
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
