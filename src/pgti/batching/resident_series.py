"""Rows of a series that a rank holds: in chunks of host memory, or in a tensor on its device."""

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.copies import to_device
from pgti.batching.device_rows import copy_rows_to, empty_rows, take_rows
from pgti.batching.source import WindowSource
from pgti.store import SeriesStore
from pgti.windows import RowRanges

__all__ = ["DeviceSeries", "HeldRows", "ResidentSeries", "every_row"]

_CHUNK_BYTES = 1 << 20


class HeldRows(Protocol):
    """Some rows of a series, which come and go between epochs."""

    row_bytes: int

    def reserve(self, num_rows: int) -> None:
        """Have room for so many rows."""
        ...

    def load(self, ranges: Iterable[range]) -> None:
        """Copy rows from the store, where none are held."""
        ...

    def retain(self, ranges: Iterable[range]) -> None:
        """Give up the memory of rows outside the ranges."""
        ...

    def read(self, rows: range) -> Tensor:
        """A copy of rows that are held."""
        ...

    def write(self, rows: range, values: Tensor) -> None:
        """Hold these rows, too."""
        ...

    def empty(self, num_rows: int) -> Tensor:
        """Memory for rows that arrive."""
        ...


class ResidentSeries:
    """Some rows of a series in this process's own memory, in chunks that come and go.

    Args:
        store: the series.

    Attributes:
        dtype: the stored dtype.
        num_readings: readings of a row, N * C.
        row_bytes: memory of one row.
    """

    def __init__(self, store: SeriesStore) -> None:
        self._store = store
        self.dtype: np.dtype[Any] = store.raw.dtype
        self.num_readings = store.meta.num_nodes * store.meta.num_channels
        self.row_bytes = self.num_readings * self.dtype.itemsize
        self._chunk_rows = max(1, _CHUNK_BYTES // self.row_bytes)
        self._chunks: dict[int, NDArray[Any]] = {}

    def load(self, ranges: Iterable[range]) -> None:
        """Copy rows from the store."""
        raw = np.asarray(self._store.raw).reshape(self._store.meta.num_steps, -1)
        for rows in ranges:
            for first in range(rows.start, rows.stop, self._chunk_rows):
                piece = range(first, min(first + self._chunk_rows, rows.stop))
                self._write(piece, raw[piece.start : piece.stop])
            self._store.release()

    def write(self, rows: range, values: Tensor) -> None:
        """Copy the values [rows, N * C] of these rows."""
        self._write(rows, values.numpy())

    def _write(self, rows: range, values: NDArray[Any]) -> None:
        for number, inside, piece in self._pieces(rows):
            if number not in self._chunks:
                shape = (self._chunk_rows, self.num_readings)
                self._chunks[number] = np.empty(shape, dtype=self.dtype)
            self._chunks[number][inside] = values[piece]

    def retain(self, ranges: Iterable[range]) -> None:
        """Free every chunk that has no row of the ranges."""
        numbers = {number for rows in ranges for number, _, _ in self._pieces(rows)}
        self._chunks = {n: chunk for n, chunk in self._chunks.items() if n in numbers}

    def copy_rows(self, ranges: RowRanges, out: NDArray[Any]) -> None:
        """Copy ranges of resident rows, one after the other."""
        position = 0
        for first, stop in ranges:
            for number, inside, piece in self._pieces(range(first, stop)):
                into = slice(position + piece.start, position + piece.stop)
                np.copyto(out[into], self._chunks[number][inside])
            position += stop - first

    def read(self, rows: range) -> Tensor:
        """A copy of resident rows, [rows, N * C]."""
        copy = np.empty((len(rows), self.num_readings), dtype=self.dtype)
        self.copy_rows([(rows.start, rows.stop)], copy)
        return torch.from_numpy(copy)

    def empty(self, num_rows: int) -> Tensor:
        """Memory for rows that arrive, [rows, N * C]."""
        return torch.from_numpy(np.empty((num_rows, self.num_readings), dtype=self.dtype))

    def reserve(self, num_rows: int) -> None:
        """Have room for so many rows: chunks come as rows are written."""

    def _pieces(self, rows: range) -> Iterable[tuple[int, slice, slice]]:
        """Chunk, rows inside it, and which of `rows` these are, for each chunk they lie in."""
        first = rows.start
        while first < rows.stop:
            number, inside = divmod(first, self._chunk_rows)
            count = min(self._chunk_rows - inside, rows.stop - first)
            done = first - rows.start
            yield number, slice(inside, inside + count), slice(done, done + count)
            first += count


class DeviceSeries:
    """Some rows of a series in one tensor on the compute device, and where in it each of them is.

    Args:
        source: the series.
        device: where the rows are.

    Attributes:
        row_bytes: memory of one row.
    """

    def __init__(self, source: WindowSource, device: torch.device) -> None:
        self._source = source
        self._device = device
        self.row_bytes = source.stored_row_bytes
        self._slots = np.full(source.store.meta.num_steps, -1, dtype=np.int64)
        self._on_device: Tensor | None = None
        self.rows = self.empty(0)

    def empty(self, num_rows: int) -> Tensor:
        """Memory for rows, [rows, N, C]."""
        return empty_rows(self._source, num_rows, self._device)

    def reserve(self, num_rows: int) -> None:
        """Have room for so many rows; those that are held stay where they are."""
        if num_rows > len(self.rows):
            held, self.rows = self.rows, self.empty(num_rows)
            self.rows[: len(held)].copy_(held)

    def load(self, ranges: Iterable[range]) -> None:
        """Copy rows from the store, where none are held."""
        ranges = list(ranges)
        rows = every_row(ranges)
        self.reserve(len(rows))
        self._hold(rows, np.arange(len(rows)))
        copy_rows_to(self.rows, self._source, ranges)

    def retain(self, ranges: Iterable[range]) -> None:
        """Give up the places of rows outside the ranges."""
        wanted = every_row(ranges)
        slots = np.full_like(self._slots, -1)
        slots[wanted] = self._slots[wanted]
        self._slots, self._on_device = slots, None

    def read(self, rows: range) -> Tensor:
        """A copy of rows that are held, [rows, N, C]."""
        copy = self.empty(len(rows))
        take_rows(self.rows, to_device(self._slots[rows.start : rows.stop], self._device), copy)
        return copy

    def write(self, rows: range, values: Tensor) -> None:
        """Put the values [rows, N, C] where there is room for them."""
        is_free = np.ones(len(self.rows), dtype=np.bool_)
        is_free[self._slots[self._slots >= 0]] = False
        free = np.flatnonzero(is_free)[: len(rows)]
        if len(free) < len(rows):
            self.reserve(len(self.rows) + len(rows) - len(free))
            return self.write(rows, values)
        self._hold(np.arange(rows.start, rows.stop), free)
        self.rows.index_copy_(0, to_device(free, self._device), values)
        return None

    def places_of(self, rows: Tensor) -> Tensor:
        """Where rows are in `rows`, for int64 row numbers of any shape on the device."""
        if self._on_device is None:
            self._on_device = to_device(self._slots, self._device)
        return self._on_device[rows]

    def _hold(self, rows: NDArray[np.int64], slots: NDArray[np.int64]) -> None:
        self._slots[rows] = slots
        self._on_device = None


def every_row(ranges: Iterable[range]) -> NDArray[np.int64]:
    """The rows of ranges, one after the other, int64."""
    parts = [np.arange(each.start, each.stop) for each in ranges]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
