"""Copies of rows and what belongs to them: scratch memory, calendar features, typical times."""

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pgti.batching.source import WindowSource
from pgti.store import calendar_features
from pgti.windows import RowRanges

__all__ = [
    "PAGE_ROWS",
    "RowFeatures",
    "RowReader",
    "ScratchArrays",
    "bins_before",
    "copy_row_ranges",
]

PAGE_ROWS = 1 << 12
"""Rows that are computed at a time, when one of them is first asked for."""


class RowReader(Protocol):
    """Copies rows of the series, in their stored dtype."""

    def copy_rows(self, ranges: RowRanges, out: NDArray[Any]) -> None:
        """Copy ranges of rows, all of them inside the series, to `out` [rows, N * C]."""
        ...


class ScratchArrays:
    """Named scratch arrays, grown on demand; asking for a name again invalidates the last one.

    What is fetched for a batch lies in them until they are used for another one: call `wait` first.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An uninitialised array of that shape; `dtype` is always the same for a name."""
        size = math.prod(shape)
        array = self._arrays.get(name)
        if array is None or array.size < size:
            array = self._arrays[name] = self._allocate(size, dtype)
        return array[:size].reshape(shape)

    def place(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        """The content of an array where the compute device reads it: here, where it is."""
        return array

    def wait(self) -> None:
        """Block until nothing reads the arrays any more: here, nothing does."""

    def _allocate(self, size: int, dtype: DTypeLike) -> NDArray[Any]:
        return np.empty(size, dtype=dtype)


def copy_row_ranges(series: NDArray[Any], ranges: RowRanges, out: NDArray[Any]) -> None:
    """Copy ranges of rows, one after the other, without holding the interpreter's lock.

    A range is copied at once: from a mapped file that is half as fast again as row by row.

    Args:
        series: array of rows.
        ranges: which of them, all inside the series.
        out: written, the rows of all ranges.
    """
    position = 0
    for first, stop in ranges:
        end = position + stop - first
        np.copyto(out[position:end], series[first:stop])
        position = end


class RowFeatures:
    """Calendar features and typical times of rows, computed when a row is first asked for.

    Every row is part of many windows, and a time zone makes its clock slow to compute. A page of
    rows is computed at a time and cached: a few bytes a row, little beside its readings.

    Args:
        source: the series, its calendar features and its typical readings.
        page_rows: rows of a page.
    """

    def __init__(self, source: WindowSource, page_rows: int = PAGE_ROWS) -> None:
        self._source = source
        self._page_rows = page_rows
        num_rows = source.store.meta.num_steps + source.spec.horizon
        has_bins = bool(source.typical_offsets) or source.fills_history
        self._calendar = np.empty((num_rows, len(source.calendar)), dtype=np.float32)
        self._offsets = np.array(source.typical_offsets, dtype=np.int64)
        self._bins = np.empty(num_rows if has_bins else 0, dtype=np.int64)
        self._before: dict[int, NDArray[np.int64]] = {}
        self._is_known = np.zeros(-(-num_rows // page_rows), dtype=np.bool_)
        self._is_complete = False

    def calendar(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Calendar features of the rows, float32, of the shape of `rows` with F appended."""
        if self._source.calendar:
            self._compute(rows)
        return self._calendar[rows]

    def bins(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Entries of the typical readings of the rows; with a climatology those of H later, too.

        int64, of the shape of `rows` with the number of `typical_offsets` appended.
        """
        wanted = rows[..., None] + self._offsets
        if not len(self._offsets):
            return wanted
        self._compute(wanted)
        bins: NDArray[np.int64] = self._bins[wanted]
        return bins

    def history_bins(
        self, rows: NDArray[np.int64], begins: NDArray[np.int64]
    ) -> NDArray[np.int64] | None:
        """Entries of the table of typical readings for rows of history; None if none are filled.

        Args:
            rows: of each window, int64 [B, R].
            begins: the first row that each window may read, int64 [B]; the times of those before it
                are those that its own would follow without a hole.
        """
        if not self._source.fills_history:
            return None
        readable = np.maximum(rows, begins[:, None])
        self._compute(readable)
        bins: NDArray[np.int64] = self._bins[readable]
        for window in np.flatnonzero(rows[:, 0] < begins).tolist():
            begin = int(begins[window])
            missing = rows[window, rows[window] < begin] - begin
            bins[window, : len(missing)] = self._bins_before(begin)[missing]
        return bins

    def _bins_before(self, row: int) -> NDArray[np.int64]:
        """Entries of the table for the rows before one that lacks them, the last of them last."""
        if row not in self._before:
            self._before[row] = bins_before(self._source, row)
        return self._before[row]

    def _compute(self, rows: NDArray[np.int64]) -> None:
        if self._is_complete:
            return
        pages = rows // self._page_rows
        if self._is_known[pages].all():
            return
        source = self._source
        for page in np.unique(pages):
            if self._is_known[page]:
                continue
            first = int(page) * self._page_rows
            wanted = np.arange(first, min(first + self._page_rows, len(self._calendar)))
            axis = source.store.time_axis
            self._calendar[wanted] = calendar_features(axis, source.calendar, wanted)
            if source.typical is not None and len(self._bins):
                self._bins[wanted] = source.typical.bins(axis, wanted)
            self._is_known[page] = True  # last: another thread may be reading
        self._is_complete = bool(self._is_known.all())


def bins_before(source: WindowSource, row: int) -> NDArray[np.int64]:
    """Entries of the table of typical readings for the times before a row, the last of them last.

    As many as the history of a window that begins there reaches back, int64.
    """
    assert source.typical is not None  # where history is filled
    count = -source.spec.reach.start
    return source.typical.bins(source.store.time_axis.before(row, count), np.arange(count))
