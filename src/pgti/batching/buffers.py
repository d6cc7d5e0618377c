"""Memory that one batch after another is written to."""

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Buffers", "take_rows"]


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


def take_rows(series: NDArray[Any], rows: NDArray[np.int64], out: NDArray[Any]) -> None:
    """Copy rows of an array, all of them inside it, to `out`, rows.size rows of that shape."""
    # Without a mode numpy copies through a second buffer, to leave `out` alone if a row is outside.
    np.take(series, rows.reshape(-1), axis=0, out=out, mode="clip")
