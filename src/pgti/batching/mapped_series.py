"""Rows copied from the memory-mapped series, also where memory does not hold all of it.

The system reads a mapped file on demand, a few pages at a time while the copy waits, and counts
all pages that were touched as the process's own. Where the series exceeds the available memory,
the rows of a batch are announced before they are copied, so that the disk reads them all at once,
and mapped pages are released again and again. Where it fits, both would cost more than they give.
"""

import mmap
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.batching.rows import copy_row_ranges
from pgti.memory import available_bytes
from pgti.store import SeriesStore
from pgti.windows import RowRanges

__all__ = ["MappedSeries", "pages_of"]

_RELEASE_BYTES = 1 << 26
_MOST_RUNS = 64  # pieces of a row that are announced one by one


class MappedSeries:
    """Reads rows of a store's series.

    Args:
        store: the series.
        available: bytes of memory for it; what the machine has if not given.
        release_bytes: where the series exceeds that, copy so much before its pages are released.
        sensors: positions of the sensors to read, rising int64 [n]; all N if not given.

    Attributes:
        dtype: the stored dtype.
        num_readings: readings of a row, N * C, or n * C.
    """

    def __init__(
        self,
        store: SeriesStore,
        available: int | None = None,
        release_bytes: int = _RELEASE_BYTES,
        sensors: NDArray[np.int64] | None = None,
    ) -> None:
        # Without the methods of a memory map, each slice of which costs more than a small copy.
        self._series = np.asarray(store.raw).reshape(store.meta.num_steps, -1)
        self._store = store
        self._exceeds_memory = store.num_bytes > (
            available_bytes() if available is None else available
        )
        self._release_bytes = release_bytes
        self._copied_bytes = 0
        self.dtype: np.dtype[Any] = self._series.dtype
        self._sensors = sensors
        num_channels = store.meta.num_channels
        self.num_readings = num_channels * (
            store.meta.num_nodes if sensors is None else len(sensors)
        )
        sensor_bytes = num_channels * self._series.itemsize
        self._runs = None if sensors is None else _runs_of(sensors, sensor_bytes)

    def copy_rows(self, ranges: RowRanges, out: NDArray[Any]) -> None:
        """Copy ranges of rows, all of them inside the series.

        Args:
            ranges: first row of each range, and the row after its last.
            out: written, [rows of all ranges, num_readings], in the stored dtype.
        """
        if not self._exceeds_memory:
            self._copy(ranges, out)
            return
        self._announce(ranges)
        self._copy(ranges, out)
        self._copied_bytes += out.nbytes
        if self._copied_bytes >= self._release_bytes:
            self._copied_bytes = 0
            self._store.release()

    def _copy(self, ranges: RowRanges, out: NDArray[Any]) -> None:
        if self._sensors is None:
            copy_row_ranges(self._series, ranges, out)
            return
        channels = self._store.meta.num_channels
        series = self._series.reshape(len(self._series), -1, channels)
        position = 0
        for first, stop in ranges:
            end = position + stop - first
            into = out[position:end].reshape(stop - first, -1, channels)
            # Without a mode numpy copies through a second buffer, in case a sensor is outside.
            np.take(series[first:stop], self._sensors, axis=1, out=into, mode="clip")
            position = end

    def _announce(self, ranges: RowRanges) -> None:
        """Have the system read rows that it does not hold, without waiting for them."""
        mapped = self._store.mapping
        if mapped is None or not hasattr(mmap, "MADV_WILLNEED"):
            return
        begin = self._series.ctypes.data - np.frombuffer(mapped, dtype=np.uint8).ctypes.data
        row_bytes = self._series.strides[0]
        with suppress(OSError):  # advice that is not taken costs nothing but time
            for first, stop in ranges:
                if self._runs is None:
                    place = pages_of(begin + first * row_bytes, begin + stop * row_bytes)
                    mapped.madvise(mmap.MADV_WILLNEED, *place)
                    continue
                for at in range(begin + first * row_bytes, begin + stop * row_bytes, row_bytes):
                    for run_first, run_stop in self._runs:
                        place = pages_of(at + run_first, at + run_stop)
                        mapped.madvise(mmap.MADV_WILLNEED, *place)


def _runs_of(sensors: NDArray[np.int64], sensor_bytes: int) -> list[tuple[int, int]] | None:
    """Bytes of a row that hold the sensors, joined across less than a page; None if many."""
    gaps = np.flatnonzero(np.diff(sensors) * sensor_bytes > mmap.PAGESIZE)
    if len(gaps) > _MOST_RUNS:
        return None
    bounds = zip([0, *(gaps + 1)], [*gaps, len(sensors) - 1], strict=True)
    return [
        (int(sensors[a]) * sensor_bytes, (int(sensors[b]) + 1) * sensor_bytes) for a, b in bounds
    ]


def pages_of(first: int, stop: int, page_bytes: int = mmap.PAGESIZE) -> tuple[int, int]:
    """First byte and length of the pages that hold bytes first..stop-1, the last one cut off.

    >>> pages_of(70, 90, page_bytes=32)
    (64, 26)
    """
    begin = first - first % page_bytes
    return begin, stop - begin
