"""Memory that one batch after another is written to, and the copies that fill it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Buffers", "RowRanges", "copy_row_ranges"]

RowRanges = Sequence[tuple[int, int]]
"""First row of each run of consecutive rows, and the row after its last."""


class Buffers:
    """Arrays in memory that is kept and grows as it must: one of each name is valid at a time."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array of that shape, its content undefined; `dtype` is always the same for a name."""
        size = math.prod(shape)
        array = self._arrays.get(name)
        if array is None or array.size < size:
            array = self._arrays[name] = np.empty(size, dtype=dtype)
        return array[:size].reshape(shape)


def copy_row_ranges(series: NDArray[Any], runs: RowRanges, out: NDArray[Any]) -> None:
    """Copy runs of rows, one after the other; other threads go on meanwhile.

    A run is copied at once: from a mapped file that is half as fast again as row by row.

    Args:
        series: array of rows.
        runs: which of them, all inside the series.
        out: written, the rows of all runs.
    """
    position = 0
    for first, stop in runs:
        end = position + stop - first
        np.copyto(out[position:end], series[first:stop])
        position = end
