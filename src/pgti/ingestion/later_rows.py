"""Rows after the last reading: values of channels that are known in advance.

A source may go on where all other channels are missing, as exports with a weather forecast do; the
series ends with the last row that has a reading of another channel.
"""

import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import DataError
from pgti.ingestion.scratch import scratch_directory
from pgti.store import TimeAxis
from pgti.store.codec import Values
from pgti.store.rounding import LostDigits
from pgti.store.statistics import canonical

__all__ = ["RowSplitter", "WaitingRows", "lay_over", "note_on_rows", "place_rows"]

_MAX_STEPS = 1_000_000
"""Rows after the last one, missing ones included: a longer stretch is a mistyped time."""


class RowSplitter:
    """Passes the rows of a series on, and holds back those after the last reading.

    Rows without a reading of another channel wait, on the disk if they are many: if a reading
    follows, they are rows of the series.

    Args:
        name: what messages call the source.
        append: takes the rows of the series [rows, N, C].
        lost: counts the digits that float32 loses, of rows that wait; other rows are counted where
            they are written. It knows the channels of the series.
        known: those that are known in advance.
        dtype: of the readings of the series.
        earlier: values that were known before for the first rows and those after them [rows, N, F];
            they stand where a row has none.
        num_before: rows that the series has already.
        budget_bytes: memory for rows that wait.

    Attributes:
        seconds: times of the rows that wait, where the source has times; set before `later`.
    """

    def __init__(
        self,
        name: str,
        append: Callable[[Values], None],
        lost: LostDigits,
        known: tuple[str, ...],
        dtype: np.dtype[Any],
        *,
        earlier: Values | None = None,
        num_before: int = 0,
        budget_bytes: int = 32 << 20,
    ) -> None:
        self._name, self._append = name, append
        channels = lost.channels
        self._known = [channels.index(each) for each in known]
        self._others = [place for place in range(len(channels)) if place not in self._known]
        self._dtype, self._lost, self._earlier = dtype, lost, earlier
        self._budget_bytes, self._num_before = budget_bytes, num_before
        self._num_rows = 0
        self._waiting: WaitingRows | None = None
        self.seconds: NDArray[np.int64] | None = None
        self._num_taken: list[int] = []  # values of `earlier`, by row

    @property
    def num_waiting(self) -> int:
        """Rows after the last one with a reading."""
        return 0 if self._waiting is None else self._waiting.num_rows

    @property
    def num_used(self) -> int:
        """Values of `earlier` that rows of the series took."""
        return sum(self._num_taken[: self._num_rows - self.num_waiting])

    def notes(self) -> tuple[str, ...]:
        """What is left out, one line each."""
        num_empty = 0 if self._waiting is None else self._waiting.num_empty
        if not num_empty:
            return ()
        rows, has = count_of(num_empty, "row"), "has" if num_empty == 1 else "have"
        return (f"the last {rows} of {self._name} {has} no value of any channel: left out",)

    def append(self, values: Values) -> None:
        """Take the next rows [rows, N, C], cleaned."""
        if not self._known:
            self._append(values)
            return
        values = self._completed(values)
        has_reading = ~np.isnan(values[..., self._others]).all(axis=(1, 2))
        stop = int(np.flatnonzero(has_reading)[-1]) + 1 if has_reading.any() else 0
        if stop:
            self._release(values.shape[1:])
            self._append(values[:stop])
        if stop < len(values):
            if self._waiting is None:
                shape = (values.shape[1], len(self._known))
                self._waiting = WaitingRows(shape, self._dtype, self._budget_bytes)
            rest = values[stop:]
            first_row = self._num_before + self._num_rows - len(rest)
            self._lost.compare(rest, canonical(rest, self._dtype), first_row)
            self._waiting.add(rest[..., self._known])

    def _completed(self, values: Values) -> Values:
        """The rows, with earlier values of channels known in advance where they have none."""
        first = self._num_rows
        self._num_rows += len(values)
        if self._earlier is None or first >= len(self._earlier):
            return values
        before = self._earlier[first : first + len(values)]
        rows, num_taken = values[: len(before)], np.zeros(len(before), dtype=np.int64)
        for place, channel in enumerate(self._known):
            lacks = np.isnan(rows[..., channel]) & ~np.isnan(before[..., place])
            num_taken += lacks.sum(axis=1)
            rows[..., channel] = np.where(lacks, before[..., place], rows[..., channel])
        self._num_taken += num_taken.tolist()
        return values

    def _release(self, shape: tuple[int, ...]) -> None:
        """Make the rows that wait rows of the series."""
        if self._waiting is None:
            return
        for known in self._waiting.pieces():
            rows = np.full((len(known), *shape), np.nan, dtype=known.dtype)
            rows[..., self._known] = known
            self._append(rows)
        self._waiting = None

    def later(self, axis: TimeAxis) -> Values:
        """The values after the last row, at the times that follow it; those known before, too.

        Args:
            axis: of the rows of the series.

        Raises:
            DataError: if a time is none of those that follow the last row.
        """
        values: Values = np.empty((0, 0, 0), dtype=self._dtype)
        if self._waiting is not None:
            values = self._waiting.values()
            if self.seconds is not None and axis.is_dated:
                values = place_rows(self._name, axis, self.seconds[: len(values)], values)
        if self._earlier is not None:
            done = self._num_rows - self.num_waiting
            values = lay_over(self._earlier[done:], values)
        return values


class WaitingRows:
    """Rows [rows, N, F] in order, in memory or in a file.

    Args:
        shape: of a row, (N, F).
        dtype: of its values.
        budget_bytes: of them in memory.
    """

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any], budget_bytes: int) -> None:
        self._shape, self._dtype = shape, dtype
        self._row_bytes = max(1, int(np.prod(shape)) * dtype.itemsize)
        self._piece_rows = max(1, budget_bytes // self._row_bytes)
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - it lives as long as the rows
            max_size=budget_bytes, dir=str(scratch_directory()), prefix="pgti-"
        )
        weakref.finalize(self, self._file.close)
        self.num_rows = self._num_used = 0

    @property
    def num_empty(self) -> int:
        """Rows after the last one with a value."""
        return self.num_rows - self._num_used

    def add(self, rows: Values) -> None:
        """Take the next rows."""
        known = np.flatnonzero(~np.isnan(rows).all(axis=(1, 2)))
        if len(known):
            self._num_used = self.num_rows + int(known[-1]) + 1
        self._file.write(np.ascontiguousarray(canonical(rows, self._dtype)).tobytes())
        self.num_rows += len(rows)

    def pieces(self) -> Iterator[Values]:
        """All rows, a piece after the other; then they are gone."""
        self._file.seek(0)
        while content := self._file.read(self._piece_rows * self._row_bytes):
            yield np.frombuffer(content, dtype=self._dtype).reshape(-1, *self._shape).copy()
        self._file.close()

    def values(self) -> Values:
        """The rows up to the last with a value; mapped, if there are many. Then they are gone."""
        shape = (self._num_used, *self._shape)
        with self._file as file:
            file.seek(0)
            if self._num_used <= self._piece_rows:
                content = file.read(self._num_used * self._row_bytes)
                return np.frombuffer(content, dtype=self._dtype).reshape(shape).copy()
            file.rollover()
            file.flush()
            mapped: Values = np.memmap(file, dtype=self._dtype, mode="r", shape=shape)
        return mapped


def place_rows(name: str, axis: TimeAxis, seconds: NDArray[np.int64], values: Values) -> Values:
    """Rows at the times that follow the last row of a series; those between are missing.

    Args:
        name: what messages call the source.
        axis: of the series, dated.
        seconds: times of the rows, all after the last one, int64 [rows].
        values: [rows, N, F].

    Raises:
        DataError: if the times do not rise, or one is none of those that follow.
    """
    if not len(seconds):
        return values
    if not axis.continues:
        raise DataError(
            f"{name} has rows after the last reading, and the times of the rows before are "
            "irregular: what follows is not known; leave them out"
        )
    if (np.diff(seconds) <= 0).any():
        raise DataError(f"{name} has rows after the last reading that are not sorted by time")
    step = max(1, axis.interval_seconds or 1)
    count = (int(seconds[-1]) - axis.last_seconds) // step + 2
    if count > _MAX_STEPS:
        raise DataError(
            f"{name} has a row {count:,} steps after the last reading, more than {_MAX_STEPS:,}: "
            "correct its time"
        )
    times = axis.next_seconds(count)
    places = np.minimum(np.searchsorted(times, seconds), count - 1)
    wrong = times[places] != seconds
    if wrong.any():
        row = replace(axis, num_steps=1, start_seconds=int(seconds[wrong][0]), seconds=None)
        last = axis.isoformat(axis.num_steps - 1)
        raise DataError(
            f"{name} has values known in advance at {row.isoformat(0)}, which is none of the times "
            f"that follow the last reading ({last}): correct it"
        )
    if places[-1] == len(places) - 1:
        return values
    placed = np.full((int(places[-1]) + 1, *values.shape[1:]), np.nan, dtype=values.dtype)
    placed[places] = values
    return placed


def lay_over(old: Values, new: Values) -> Values:
    """New values [rows, N, F] in place of old ones, which stay where there is no new one."""
    if not len(new) or not len(old):
        return new if len(new) else old
    rows = max(len(old), len(new))
    both = np.full((rows, *new.shape[1:]), np.nan, dtype=new.dtype)
    both[: len(old)] = old
    part = both[: len(new)]
    np.copyto(part, new, where=~np.isnan(new))
    return both


def note_on_rows(name: str, axis: TimeAxis, values: Values, known: tuple[str, ...]) -> str:
    """What is known in advance, in one line."""
    until = axis.num_steps + len(values) - 1
    end = f" (to {axis.isoformat(until)})" if axis.is_dated else ""
    return (
        f"{name} has {count_of(len(values), 'row')} of {', '.join(known)} after the last "
        f"reading{end}: they are known in advance"
    )
