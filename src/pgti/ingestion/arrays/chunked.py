"""Arrays stored in chunks as rows: each chunk is read once, in bounded memory.

Chunks that are short in time are read as rows. Others are read whole, in the order in which they
are stored, and wait on disk until their rows are complete.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pgti.display import size_text
from pgti.errors import DataError
from pgti.ingestion.arrays.packing import Packing
from pgti.ingestion.readings import row_blocks, rows_per_chunk
from pgti.ingestion.staging import RowStage
from pgti.memory import available_bytes

__all__ = [
    "ChunkedArray",
    "check_chunk",
    "check_overhang",
    "check_row",
    "find_observed",
    "read_rows",
]

Opener: TypeAlias = Callable[[], AbstractContextManager[Any]]
Slices: TypeAlias = tuple[slice, ...]

_VALUE_BYTES = 16  # a stored number and its float64
_OVERHANG_BYTES = 1 << 26


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ChunkedArray:
    """An array [T, *space, channels] in a file.

    Attributes:
        name: what messages call it.
        shape: sizes of the array; one channel where it has no axis of channels.
        chunks: of what is stored together, in the order of `shape`; 1 where any part can be read.
        stored: axes of `shape` in the order in which they are stored.
        packing: from stored numbers to readings.
        fetch: gives the stored numbers of a part of the opened file's array, in the axes of
            `shape`, the last of which may be left out where there is one channel.
    """

    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    stored: tuple[int, ...]
    packing: Packing
    fetch: Callable[[Any, Slices], NDArray[Any]]

    @property
    def rows_together(self) -> int:
        """Rows that are stored together, so that reading one of them reads all."""
        is_scattered = self.chunks[0] == 1 and any(
            self.shape[axis] > 1 for axis in self.stored[: self.stored.index(0)]
        )
        # Rows of an array whose first axis is another one are everywhere in the file.
        return self.shape[0] if is_scattered else self.chunks[0]

    def read(self, file: Any, slices: Slices) -> NDArray[np.floating[Any]]:
        """Readings of a part of the array, in its axes."""
        values = self.packing.decode(self.fetch(file, slices))
        return values.reshape(*(each.stop - each.start for each in slices))

    def tiles(self, file: Any, budget_bytes: int) -> Iterator[tuple[Slices, Any]]:
        """All readings, in parts that cut no chunk and fit the budget where one chunk does.

        Raises:
            DataError: if a chunk does not fit into memory.
        """
        tile = list(self.chunks)
        check_chunk(self.name, self.chunks, self.packing.dtype.itemsize, budget_bytes)
        for axis in reversed(self.stored):
            room = budget_bytes // (math.prod(tile) * _VALUE_BYTES)
            if room < 2:
                break
            tile[axis] = min(self.shape[axis], tile[axis] * room)
            if tile[axis] < self.shape[axis]:
                break
        starts = [range(0, size, step) for size, step in zip(self.shape, tile, strict=True)]
        for corner in product(*(starts[axis] for axis in self.stored)):
            first = dict(zip(self.stored, corner, strict=True))
            slices = tuple(
                slice(first[axis], min(first[axis] + tile[axis], size))
                for axis, size in enumerate(self.shape)
            )
            yield slices, self.read(file, slices)


def check_chunk(name: str, chunk: tuple[int, ...], itemsize: int, budget_bytes: int) -> None:
    """Refuse what is stored in chunks that do not fit into memory.

    Args:
        name: what messages call the array.
        chunk: sizes of what is stored together.
        itemsize: bytes of a stored number.
        budget_bytes: what always fits.

    Raises:
        DataError: giving the size.
    """
    num_bytes = math.prod(chunk) * itemsize
    if num_bytes > budget_bytes and 3 * num_bytes > (free := available_bytes()):
        raise DataError(
            f"{name} is stored in chunks of {num_bytes / 2**20:,.0f} MiB "
            f"({' x '.join(map(str, chunk))}), which must be read whole, and "
            f"{free / 2**20:,.0f} MiB are free: write it again in smaller chunks"
        )


def check_overhang(
    name: str, shape: tuple[int, ...], chunks: tuple[int, ...], itemsize: int
) -> None:
    """Refuse chunks that are much larger than the whole array, for a chunk is unpacked whole.

    Args:
        name: what messages call the array.
        shape: its shape.
        chunks: sizes of what is stored together.
        itemsize: bytes of a stored number.

    Raises:
        DataError: giving both.
    """
    num_bytes = math.prod(chunks) * itemsize
    if num_bytes > max(_OVERHANG_BYTES, 2 * math.prod(shape) * itemsize):
        raise DataError(
            f"{name} has the shape {shape} and is stored in chunks of {chunks}, which take "
            f"{size_text(num_bytes)}: write it again in smaller chunks"
        )


def check_row(name: str, num_values: int) -> None:
    """Refuse an array of which one row does not fit into memory.

    Args:
        name: what messages call the array.
        num_values: of a row.

    Raises:
        DataError: giving the size.
    """
    row_bytes = num_values * _VALUE_BYTES
    if row_bytes > (free := available_bytes()):
        raise DataError(
            f"{name} takes {row_bytes / 2**20:,.0f} MiB for one row, and {free / 2**20:,.0f} MiB "
            "are free"
        )


def read_rows(
    opener: Opener, arrays: tuple[ChunkedArray, ...], budget_bytes: int
) -> Iterator[NDArray[np.floating[Any]]]:
    """Consecutive rows [rows, N, C] of arrays that have the same times and sensors."""
    num_rows, num_nodes = arrays[0].shape[0], math.prod(arrays[0].shape[1:-1])
    num_channels = sum(array.shape[-1] for array in arrays)
    rows = rows_per_chunk(budget_bytes, num_nodes * num_channels)
    together = max(array.rows_together for array in arrays)
    with opener() as file:
        if rows < min(together, num_rows):
            yield from _read_staged(file, arrays, budget_bytes)
            return
        joint = math.lcm(*(array.rows_together for array in arrays))
        rows -= rows % (joint if joint <= rows else together)
        for first, stop in row_blocks(num_rows, rows):
            parts = [_read_block(file, array, first, stop) for array in arrays]
            yield parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def _read_block(file: Any, array: ChunkedArray, first: int, stop: int) -> NDArray[np.floating[Any]]:
    slices = (slice(first, stop), *(slice(0, size) for size in array.shape[1:]))
    values = array.read(file, slices)
    return np.ascontiguousarray(values.reshape(stop - first, -1, array.shape[-1]))


def _read_staged(
    file: Any, arrays: tuple[ChunkedArray, ...], budget_bytes: int
) -> Iterator[NDArray[np.floating[Any]]]:
    """Rows of chunks that are long in time: the columns of the stage are [C, N]."""
    num_rows, num_nodes = arrays[0].shape[0], math.prod(arrays[0].shape[1:-1])
    num_channels = sum(array.shape[-1] for array in arrays)
    dtype = np.result_type(*(array.packing.decoded_dtype for array in arrays)).type
    with RowStage(
        num_rows, num_channels * num_nodes, budget_bytes=budget_bytes // 2, dtype=dtype
    ) as stage:
        channel = 0
        for array in arrays:
            for slices, values in array.tiles(file, budget_bytes // 4):
                for place in range(values.shape[-1]):
                    column = (channel + slices[-1].start + place) * num_nodes
                    for node, cells in _runs(array.shape[1:-1], slices[1:-1]):
                        run = values[(slice(None), *cells, ..., place)].reshape(len(values), -1, 1)
                        stage.put_block(slices[0].start, column + node, run)
            channel += array.shape[-1]
        for block in stage.chunks():
            split = block.reshape(len(block), num_channels, num_nodes)
            yield np.ascontiguousarray(np.moveaxis(split, 1, 2))


def _runs(shape: tuple[int, ...], slices: Slices) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Consecutive sensors of a part of a grid: the first of each run, and where in the part."""
    if not shape:
        yield 0, ()
        return
    # The last dimensions that the part has whole are one run, with a part of the one before.
    whole = len(shape) - 1
    while whole > 0 and slices[whole] == slice(0, shape[whole]):
        whole -= 1
    for outer in product(*(range(each.stop - each.start) for each in slices[:whole])):
        places = [each.start + at for each, at in zip(slices, outer, strict=False)]
        places += [each.start for each in slices[whole:]]
        yield int(np.ravel_multi_index(places, shape)), outer


def find_observed(
    opener: Opener, arrays: tuple[ChunkedArray, ...], budget_bytes: int
) -> NDArray[np.bool_]:
    """Whether each sensor has any reading, bool [N]; it reads until all are known to have one."""
    observed = np.zeros(arrays[0].shape[1:-1], dtype=np.bool_)
    with opener() as file:
        for array in arrays:
            for slices, values in array.tiles(file, budget_bytes // 2):
                observed[slices[1:-1]] |= (~np.isnan(values)).any(axis=(0, -1))
                if observed.all():
                    return observed.reshape(-1)
    return observed.reshape(-1)
