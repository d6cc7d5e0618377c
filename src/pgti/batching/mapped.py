"""Rows copied from the memory-mapped series, also where memory does not hold all of it.

The system reads a mapped file on demand, a few pages at a time while the copy waits, and counts
all pages that were touched as the process's own. Where the series exceeds the memory that is
available, the rows of a batch are announced before they are copied, so that the disk has all of
them to do at once, and what was mapped is let go again and again. Where it fits, both would cost
more than they give.
"""

import mmap
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.batching.buffers import RowRanges, copy_row_ranges
from pgti.memory.available import available_bytes
from pgti.store import SeriesStore

__all__ = ["MappedRows", "pages_of"]

_MAPPED_BYTES = 1 << 26  # copied from the map before its pages are let go


class MappedRows:
    """The rows of a store's series.

    Args:
        store: the series.
    """

    def __init__(self, store: SeriesStore) -> None:
        # Without the methods of a memory map, each slice of which costs more than a small copy.
        self._series = np.asarray(store.raw).reshape(store.meta.num_steps, -1)
        self._store = store
        self._is_from_disk = store.num_bytes > available_bytes()
        self._copied_bytes = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """The stored dtype."""
        return self._series.dtype

    @property
    def num_readings(self) -> int:
        """Readings of a row, N * C."""
        return int(self._series.shape[1])

    def take(self, runs: RowRanges, out: NDArray[Any]) -> None:
        """Copy runs of rows of the series, all of them inside it.

        Args:
            runs: first row of each run, and the row after its last.
            out: written, [rows of all runs, N * C], in the stored dtype.
        """
        if not self._is_from_disk:
            copy_row_ranges(self._series, runs, out)
            return
        self._announce(runs)
        copy_row_ranges(self._series, runs, out)
        self._copied_bytes += out.nbytes
        if self._copied_bytes >= _MAPPED_BYTES:
            self._copied_bytes = 0
            self._store.release()

    def _announce(self, runs: RowRanges) -> None:
        """Have the system read rows that it does not hold, without waiting for them."""
        mapped: object = self._store.raw.base
        if not isinstance(mapped, mmap.mmap) or not hasattr(mmap, "MADV_WILLNEED"):
            return
        begin = self._series.ctypes.data - np.frombuffer(mapped, dtype=np.uint8).ctypes.data
        row_bytes = self._series.strides[0]
        with suppress(OSError):  # advice that is not taken costs nothing but time
            for first, stop in runs:
                place = pages_of(begin + first * row_bytes, begin + stop * row_bytes)
                mapped.madvise(mmap.MADV_WILLNEED, *place)


def pages_of(first: int, stop: int, page_bytes: int = mmap.PAGESIZE) -> tuple[int, int]:
    """First byte and length of the pages that hold bytes first..stop-1, the last one cut off.

    >>> pages_of(70, 90, page_bytes=32)
    (64, 26)
    """
    begin = first - first % page_bytes
    return begin, stop - begin
