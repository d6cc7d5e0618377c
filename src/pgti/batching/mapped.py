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

from pgti.batching.buffers import take_rows
from pgti.batching.memory import available_bytes
from pgti.series import SeriesStore

__all__ = ["MappedRows", "byte_ranges"]

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

    def take(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Copy rows of the series, all of them inside it.

        Args:
            rows: their numbers, int64, of any shape.
            out: written, [rows.size, N * C], in the stored dtype.
        """
        if not self._is_from_disk:
            take_rows(self._series, rows, out)
            return
        self._announce(rows)
        take_rows(self._series, rows, out)
        self._copied_bytes += out.nbytes
        if self._copied_bytes >= _MAPPED_BYTES:
            self._copied_bytes = 0
            self._store.release()

    def _announce(self, rows: NDArray[np.int64]) -> None:
        """Have the system read rows that it does not hold, without waiting for them."""
        mapped: object = self._store.raw.base
        if not isinstance(mapped, mmap.mmap) or not hasattr(mmap, "MADV_WILLNEED"):
            return
        begin = self._series.ctypes.data - np.frombuffer(mapped, dtype=np.uint8).ctypes.data
        row_bytes = self._series.strides[0]
        with suppress(OSError):  # advice that is not taken costs nothing but time
            for first, num_bytes in byte_ranges(rows, row_bytes, begin, mmap.PAGESIZE):
                mapped.madvise(mmap.MADV_WILLNEED, first, num_bytes)


def byte_ranges(
    rows: NDArray[np.int64], row_bytes: int, begin: int, page_bytes: int
) -> list[tuple[int, int]]:
    """First byte and length of each run of consecutive rows in a map.

    Args:
        rows: row numbers, int64, of any shape.
        row_bytes: of a row.
        begin: where row 0 begins in the map.
        page_bytes: every range begins at a multiple of it, at or before its first row.

    >>> byte_ranges(np.array([[7, 8, 9], [8, 9, 10]]), row_bytes=10, begin=4, page_bytes=8)
    [(72, 32), (80, 34)]
    """
    flat = rows.reshape(-1)
    is_last = np.append(np.diff(flat) != 1, True) if flat.size else np.empty(0, dtype=np.bool_)
    stops = begin + (flat[is_last] + 1) * row_bytes
    firsts = begin + flat[np.roll(is_last, 1)] * row_bytes
    firsts -= firsts % page_bytes
    return list(zip(firsts.tolist(), (stops - firsts).tolist(), strict=True))
