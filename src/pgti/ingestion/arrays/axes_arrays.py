"""Arrays with axes in any order as rows of sensors, read in the order in which they are stored."""

import contextlib
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pgti.ingestion.arrays.chunked import check_chunk, check_row
from pgti.ingestion.axes import Axes
from pgti.ingestion.readings import (
    Chunk,
    Readings,
    as_floats,
    check_series_shape,
    rows_per_chunk,
)
from pgti.ingestion.staging import RowStage

__all__ = ["Box", "BoxReader", "StoredArray", "arrange"]

Box: TypeAlias = tuple[slice, ...]
BoxReader: TypeAlias = Callable[[Box], NDArray[Any]]
"""`read(box)` gives `array[box]`; boxes of an array without chunks come one after another."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class StoredArray:
    """An array in a file or in memory.

    Attributes:
        name: what messages call it.
        shape: its shape, in the order in which it is stored: the last axis varies fastest.
        dtype: its dtype.
        open: opens it for one reading from the beginning to the end.
        chunks: shape of the parts that its file stores, and compresses, each as a whole.
        is_in_memory: whether any box may be read at any time.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    open: Callable[[], AbstractContextManager[BoxReader]]
    chunks: tuple[int, ...] | None = None
    is_in_memory: bool = False

    def permuted(self, order: tuple[int, ...]) -> "StoredArray":
        """The array with its axes in another order, for one in memory."""

        @contextlib.contextmanager
        def open_permuted() -> Iterator[BoxReader]:
            with self.open() as read:
                yield lambda box: read(
                    tuple(box[order.index(i)] for i in range(len(order)))
                ).transpose(order)

        shape = tuple(self.shape[place] for place in order)
        return replace(self, shape=shape, open=open_permuted)

    def can_stream(self, max_values: int) -> bool:
        """Whether the chunks of some rows of the first axis fit, so that each is read once."""
        return self.chunks is None or self.chunks[0] * math.prod(self.shape[1:]) <= max_values

    def pieces(self, max_values: int, max_depth: int) -> Iterator[tuple[Box, NDArray[Any]]]:
        """Consecutive boxes of at most `max_values`, where a cell of axis `max_depth` fits."""
        depth = 0
        while depth < max_depth and math.prod(self.shape[depth + 1 :]) > max_values:
            depth += 1
        size = max(1, max_values // math.prod(self.shape[depth + 1 :]))
        if self.chunks is not None and size > self.chunks[0]:
            size -= size % self.chunks[0]
        inner = tuple(slice(0, size) for size in self.shape[depth + 1 :])
        with self.open() as read:
            for prefix in np.ndindex(*self.shape[:depth]):
                outer = tuple(slice(place, place + 1) for place in prefix)
                for first in range(0, self.shape[depth], size):
                    stop = min(first + size, self.shape[depth])
                    box = (*outer, slice(first, stop), *inner)
                    yield box, read(box)

    def tiles(self, max_values: int) -> Iterator[tuple[Box, NDArray[Any]]]:
        """Boxes of whole chunks, as many as fit and at least one."""
        if self.chunks is None:
            yield from self.pieces(max_values, len(self.shape) - 1)
            return
        tile = list(self.chunks)
        for axis in reversed(range(len(tile))):
            room = max(1, max_values // math.prod(tile))
            tile[axis] = min(self.shape[axis], tile[axis] * room)
        starts = (range(0, size, step) for size, step in zip(self.shape, tile, strict=True))
        with self.open() as read:
            for first in product(*starts):
                box = tuple(
                    slice(start, min(start + step, size))
                    for start, step, size in zip(first, tile, self.shape, strict=True)
                )
                yield box, read(box)


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
    check_row(f"{stored.name} {shape}", num_nodes * num_channels)
    if stored.is_in_memory:
        places = (*order.time, *order.others)
        stored, order = stored.permuted(places), order.permuted(places)
    is_in_time_order = order.time == tuple(range(len(order.time)))

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        num_values = num_nodes * num_channels
        max_values = num_values * rows_per_chunk(budget_bytes, num_values)
        if stored.chunks is not None:
            check_chunk(stored.name, stored.chunks, stored.dtype.itemsize, budget_bytes)
        if is_in_time_order and stored.can_stream(max_values):
            return _stream(stored, order, max_values)
        return _stage(stored, order, budget_bytes)

    return Readings(
        name=stored.name,
        num_rows=num_rows,
        num_nodes=num_nodes,
        num_channels=num_channels,
        chunks=chunks,
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

    def permuted(self, order: tuple[int, ...]) -> "_Order":
        """The places in the array whose axes are in another order."""
        parts = (self.time, self.sensors, self.channel)
        return _Order(*(tuple(order.index(place) for place in part) for part in parts))

    def arrange(self, rows: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """Floats [rows, N, C] of rows whose other axes are in stored order."""
        wanted = [1 + self.others.index(place) for place in (*self.sensors, *self.channel)]
        num_channels = rows.shape[wanted[-1]] if self.channel else 1
        return as_floats(rows.transpose(0, *wanted)).reshape(len(rows), -1, num_channels)


def _stream(stored: StoredArray, order: _Order, max_values: int) -> Iterator[Chunk]:
    """Rows of an array whose first axes are time."""
    num_time = len(order.time)
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
        for box, piece in stored.tiles(max_values):
            _put(rows, stored.shape, order, box, piece)
        for block in rows.chunks():
            yield Chunk(values=order.arrange(block.reshape(-1, *other_shape)))


def _put(
    stage: RowStage, shape: tuple[int, ...], order: _Order, box: Box, piece: NDArray[Any]
) -> None:
    """Put a box of the array into the rows of its times."""
    places = [np.arange(part.start, part.stop) for part in box]
    cells = piece.transpose(*order.time, *order.others)
    rows = _flat([places[i] for i in order.time], [shape[i] for i in order.time])
    nodes = _flat([places[i] for i in order.others], [shape[i] for i in order.others])
    values = as_floats(cells).reshape(len(rows), len(nodes), 1)
    # Mostly one run; several where axes of time have another order, or a box ends within an axis.
    for first, stop in _runs(rows):
        for left, right in _runs(nodes):
            stage.put_block(int(rows[first]), int(nodes[left]), values[first:stop, left:right])


def _runs(places: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """First and after the last of runs of consecutive places."""
    ends = np.flatnonzero(np.diff(places) != 1) + 1
    return pairwise([0, *ends.tolist(), len(places)])


def _flat(places: list[NDArray[np.intp]], sizes: list[int]) -> NDArray[np.intp]:
    """Flat index of each cell, the last axis fastest."""
    if not places:
        return np.zeros(1, dtype=np.intp)
    mesh = np.meshgrid(*places, indexing="ij")
    return np.ravel_multi_index([each.reshape(-1) for each in mesh], sizes)
