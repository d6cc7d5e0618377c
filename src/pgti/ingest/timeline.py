"""The times of consecutive rows: checked, their interval found, their gaps filled or kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import DataError
from pgti.ingest.options import Gaps
from pgti.ingest.times import RowLabels, format_interval, format_seconds

__all__ = ["Timeline", "Times"]

_MAX_FILLED_ROWS = 110_000  # a year of five-minute steps: a longer gap is a mistyped time


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Times:
    """The times of the rows of a series.

    Attributes:
        start: time of row 0, or None.
        interval_seconds: seconds between rows (the commonest, if irregular), or None.
        seconds: epoch seconds of every row if they are irregular, else None.
    """

    start: np.datetime64 | None
    interval_seconds: int | None
    seconds: NDArray[np.int64] | None = None


class Timeline:
    """Checks the times of a source chunk by chunk, and finds their interval.

    Args:
        labels: what messages call the rows.
        gaps: what to do where rows are missing.
        start: epoch seconds of the first row if the user gave them.
        interval_seconds: the interval if the user gave it.

    Attributes:
        num_filled: rows of missing readings that were inserted so far.
    """

    def __init__(
        self,
        labels: RowLabels,
        *,
        gaps: Gaps,
        start: int | None,
        interval_seconds: int | None,
    ) -> None:
        self._labels = labels
        self._gaps = gaps
        self._given_start = start
        self._given_interval = interval_seconds
        self._interval = interval_seconds
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
        steps = self._steps(seconds, first_row)
        if self._gaps == "keep":
            self._kept.append(seconds)
            yield values
            return
        done = 0
        for row in np.flatnonzero(steps != self._interval) if self._interval else ():
            num_missing = self._missing_rows(int(steps[row]), seconds, int(row), first_row)
            if row > done:
                yield values[done:row]
            done = int(row)
            yield from _missing_blocks(values, num_missing)
            self.num_filled += num_missing
        yield values[done:]

    def finish(self) -> Times:
        """What to store of the times.

        Raises:
            DataError: if there was one row and no interval was given, or kept times disagree with
                the given interval.
        """
        if self._first is None:
            return Times(start=None, interval_seconds=None)
        start = np.datetime64(self._first, "s")
        if self._gaps == "keep":
            seconds = np.concatenate(self._kept)
            steps = np.diff(seconds)
            if len(steps):
                self._interval = _commonest(steps)
            if self._given_interval not in (None, self._interval) and self._interval is not None:
                raise DataError(
                    f"the rows of {self._labels.source} are {format_interval(self._interval)} "
                    f"apart and interval says {format_interval(self._given_interval or 0)}: leave "
                    "--interval out, or correct it"
                )
            if len(steps) and (steps != self._interval).any():
                return Times(start=start, interval_seconds=self._interval, seconds=seconds)
        if self._interval is None:
            raise DataError(
                f"{self._labels.source} has one row ({format_seconds(self._first)}), which shows "
                "no interval: name it, for example --interval 5min"
            )
        return Times(start=start, interval_seconds=self._interval)

    def _steps(self, seconds: NDArray[np.int64], first_row: int) -> NDArray[np.int64]:
        """Seconds from each row's predecessor; for the very first row, the interval."""
        is_first = self._first is None
        before = int(seconds[0]) if is_first else self._last
        if is_first:
            self._first = before
            if self._given_start not in (None, before):
                raise DataError(
                    f"{self._labels.source} starts at {format_seconds(before)} and start says "
                    f"{format_seconds(int(self._given_start or 0))}: leave --start out, or "
                    "correct it"
                )
        steps = np.diff(seconds, prepend=before)
        followers = steps[1:] if is_first else steps
        self._check_order(followers, seconds, first_row + int(is_first))
        if self._interval is None and len(followers):
            self._interval = _commonest(followers)
        if is_first and self._interval is not None:
            steps[0] = self._interval
        self._last = int(seconds[-1])
        return steps

    def _check_order(
        self, steps: NDArray[np.int64], seconds: NDArray[np.int64], first_row: int
    ) -> None:
        wrong = np.flatnonzero(steps <= 0)
        if not len(wrong):
            return
        place = int(wrong[0])
        later = int(seconds[place + len(seconds) - len(steps)])
        earlier = format_seconds(later - int(steps[place]))
        row = first_row + place
        rows = f"{self._labels.short(row - 1)} and {self._labels(row)}"
        if steps[place] == 0:
            raise DataError(f"{rows} have the same time {earlier}: each time may be there once")
        raise DataError(
            f"{rows} have the times {earlier} and {format_seconds(later)}, which go back: sort the "
            "rows by time"
        )

    def _missing_rows(self, step: int, seconds: NDArray[np.int64], row: int, first_row: int) -> int:
        assert self._interval is not None  # the caller looked
        interval = format_interval(self._interval)
        later = format_seconds(int(seconds[row]))
        earlier = format_seconds(int(seconds[row]) - step)
        number = first_row + row
        where = (
            f"{self._labels(number - 1)} has the time {earlier} and {self._labels.short(number)} "
            f"has {later}"
        )
        num_missing, rest = divmod(step, self._interval)
        if rest:
            hint = "" if self._given_interval is None else " (as --interval says)"
            raise DataError(
                f"{where}: that is not a whole number of intervals of {interval}{hint}; store the "
                "time of each row with --gaps keep, or correct the source"
            )
        num_missing -= 1
        if self._gaps == "error":
            raise DataError(
                f"{where}: at an interval of {interval}, {num_missing} rows are missing; insert "
                "them as missing readings with --gaps fill, or store the time of each row with "
                "--gaps keep"
            )
        if num_missing > _MAX_FILLED_ROWS:
            raise DataError(
                f"{where}: {num_missing} rows would be inserted, more than {_MAX_FILLED_ROWS}; "
                "correct the time, or use --gaps keep"
            )
        return num_missing


def _commonest(steps: NDArray[np.int64]) -> int:
    lengths, counts = np.unique(steps, return_counts=True)
    return int(lengths[np.argmax(counts)])


def _missing_blocks(
    like: NDArray[np.floating[Any]], num_rows: int
) -> Iterator[NDArray[np.floating[Any]]]:
    for first in range(0, num_rows, len(like)):
        rows = min(len(like), num_rows - first)
        yield np.full((rows, *like.shape[1:]), np.nan, dtype=like.dtype)
