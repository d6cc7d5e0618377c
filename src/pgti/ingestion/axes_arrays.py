"""Arrays with axes in any order as rows of sensors, read in the order in which they are stored."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pgti.ingestion.axes import Axes
from pgti.ingestion.readings import (
    Chunk,
    Readings,
    as_floats,
    check_series_shape,
    rows_per_chunk,
)
from pgti.ingestion.staging import RowStage

__all__ = ["PieceReader", "StoredArray", "arrange"]

Piece: TypeAlias = tuple[tuple[int, ...], int, int]
PieceReader: TypeAlias = Callable[[tuple[int, ...], int, int], NDArray[Any]]
"""`read(prefix, first, stop)` gives `array[*prefix, first:stop]`; calls come in C order."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class StoredArray:
    """An array in a file or in memory.

    Attributes:
        name: what messages call it.
        shape: its shape, in the order in which it is stored: the last axis varies fastest.
        dtype: its dtype.
        open: opens it for one reading from the beginning to the end.
        block_rows: indices of the first axis that the file stores together, as a chunk of HDF5.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    open: Callable[[], AbstractContextManager[PieceReader]]
    block_rows: int = 1

    def pieces(self, max_values: int, max_depth: int) -> Iterator[tuple[Piece, NDArray[Any]]]:
        """Consecutive pieces of at most `max_values`, where a cell of axis `max_depth` fits."""
        depth = 0
        while depth < max_depth and math.prod(self.shape[depth + 1 :]) > max_values:
            depth += 1
        size = max(1, max_values // math.prod(self.shape[depth + 1 :]))
        if depth == 0 and size > self.block_rows:
            size -= size % self.block_rows
        with self.open() as read:
            for prefix in np.ndindex(*self.shape[:depth]):
                for first in range(0, self.shape[depth], size):
                    stop = min(first + size, self.shape[depth])
                    yield (prefix, first, stop), read(prefix, first, stop)


def arrange(stored: StoredArray, axes: Axes, *, is_reversed: bool = False) -> Readings:
    """The readings of an array with the given axes.

    Sensors are the cells of the axes that are neither time nor channels, in the order of the axes.
    An array whose slowest axes are not time is arranged on disk, unless it is small.

    Args:
        stored: the array, its axes in stored order.
        axes: what the axes are.
        is_reversed: whether the array is stored with the last of the axes first.

    Raises:
        DataError: if the array is not numbers, is empty, or has another number of axes.
    """
    axes.check(stored.name, stored.shape)
    last = len(stored.shape) - 1
    order = _Order.of(axes, last if is_reversed else None)
    shape = stored.shape[::-1] if is_reversed else stored.shape
    num_rows, num_nodes, num_channels = axes.sizes(shape)
    check_series_shape(stored.name, (num_rows, num_nodes, num_channels), stored.dtype)
    is_in_time_order = order.time == tuple(range(len(order.time)))
    read = _stream if is_in_time_order else _stage
    return Readings(
        name=stored.name,
        num_rows=num_rows,
        num_nodes=num_nodes,
        num_channels=num_channels,
        chunks=lambda budget_bytes: read(stored, order, budget_bytes),
    )


@dataclass(frozen=True, slots=True)
class _Order:
    """Where in a stored array the axes are: time from the slowest, sensors, channels or none."""

    time: tuple[int, ...]
    sensors: tuple[int, ...]
    channel: tuple[int, ...]

    @staticmethod
    def of(axes: Axes, last: int | None) -> "_Order":
        """The places of axes, counted from the last place if that is given."""
        parts = [axes.time, axes.sensors, () if axes.channel is None else (axes.channel,)]
        if last is not None:
            parts = [tuple(last - place for place in part) for part in parts]
        return _Order(*parts)

    @property
    def others(self) -> tuple[int, ...]:
        """All places but those of time, in stored order."""
        return tuple(sorted((*self.sensors, *self.channel)))

    def arrange(self, rows: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """Floats [rows, N, C] of rows whose other axes are in stored order."""
        wanted = [1 + self.others.index(place) for place in (*self.sensors, *self.channel)]
        num_channels = rows.shape[wanted[-1]] if self.channel else 1
        return as_floats(rows.transpose(0, *wanted)).reshape(len(rows), -1, num_channels)


def _stream(stored: StoredArray, order: _Order, budget_bytes: int) -> Iterator[Chunk]:
    """Rows of an array whose first axes are time."""
    num_time = len(order.time)
    num_values = math.prod(stored.shape[num_time:])
    max_values = num_values * rows_per_chunk(budget_bytes, num_values)
    for _, piece in stored.pieces(max_values, num_time - 1):
        yield Chunk(values=order.arrange(piece.reshape(-1, *stored.shape[num_time:])))


def _stage(stored: StoredArray, order: _Order, budget_bytes: int) -> Iterator[Chunk]:
    """Rows of an array in another order: its cells are put in their rows, then these are read."""
    num_rows = math.prod(stored.shape[place] for place in order.time)
    other_shape = tuple(stored.shape[place] for place in order.others)
    dtype = as_floats(np.empty(0, stored.dtype)).dtype.type
    max_values = max(1, budget_bytes // (4 * 8))  # a piece and its floats take half of the budget
    budget_bytes //= 2
    with RowStage(num_rows, math.prod(other_shape), dtype=dtype, budget_bytes=budget_bytes) as rows:
        for where, piece in stored.pieces(max_values, len(stored.shape) - 1):
            _put(rows, stored.shape, order, where, piece)
        for block in rows.chunks():
            yield Chunk(values=order.arrange(block.reshape(-1, *other_shape)))


def _put(
    stage: RowStage, shape: tuple[int, ...], order: _Order, where: Piece, piece: NDArray[Any]
) -> None:
    """Put a piece, which is contiguous in the array, into the rows of its times."""
    prefix, first, stop = where
    places = [*(np.arange(i, i + 1) for i in prefix), np.arange(first, stop)]
    places += [np.arange(size) for size in shape[len(places) :]]
    cells = piece.reshape([len(each) for each in places]).transpose(*order.time, *order.others)
    rows = _flat([places[i] for i in order.time], [shape[i] for i in order.time])
    nodes = _flat([places[i] for i in order.others], [shape[i] for i in order.others])
    values = as_floats(cells).reshape(len(rows), len(nodes))
    # One run of rows, but for axes of time that the array has in another order.
    for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
        block = values[run[0] : run[-1] + 1, :, np.newaxis]
        stage.put_block(int(rows[run[0]]), int(nodes[0]), block)


def _flat(places: list[NDArray[np.intp]], sizes: list[int]) -> NDArray[np.intp]:
    """Flat index of each cell, the last axis fastest."""
    if not places:
        return np.zeros(1, dtype=np.intp)
    mesh = np.meshgrid(*places, indexing="ij")
    return np.ravel_multi_index([each.reshape(-1) for each in mesh], sizes)
