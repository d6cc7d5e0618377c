"""How readings are encoded: as float32, or as int16 where that is lossless.

Sensors report on a grid (speeds in tenths, counts in ones). A reading v on the grid 1/d is stored
as the whole number q = v * d, and `q / d` in float32 is the correctly rounded quotient of two
exact numbers: bit for bit the float32 nearest to the decimal that the source wrote.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["MISSING_CODE", "Codec", "Float32Codec", "GridCodec", "Raw", "grid_divisor"]

Raw = NDArray[np.int16] | NDArray[np.float32]
"""Stored readings."""

MISSING_CODE = -32768
_MAX_CODE = 32767
# Grids that sensors use, coarsest first.
DIVISORS = (1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 40, 50, 64, 100, 128, 200, 256, 500, 1000, 10_000)


@dataclass(frozen=True, slots=True)
class Float32Codec:
    """Readings stored as float32, missing ones as NaN.

    Attributes:
        dtype: the dtype on disk.
        divisors: None: float32 has no grid.
    """

    dtype: ClassVar[np.dtype[np.float32]] = np.dtype("<f4")
    divisors: ClassVar[None] = None

    def encode(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The readings themselves."""
        return np.ascontiguousarray(values, dtype="<f4")

    def decode(self, raw: Raw) -> NDArray[np.float32]:
        """The readings themselves, copied."""
        return np.array(raw, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class GridCodec:
    """Readings stored as int16 multiples of 1/divisor, one divisor per channel.

    Attributes:
        dtype: the dtype on disk.
        divisors: grid steps per unit, one for each channel, whole numbers.
    """

    dtype: ClassVar[np.dtype[np.int16]] = np.dtype("<i2")
    divisors: tuple[int, ...]

    def encode(self, values: NDArray[np.float32]) -> NDArray[np.int16] | None:
        """Codes of `values` [rows, N, C], or None if a reading is not on its channel's grid."""
        divisors = np.asarray(self.divisors, dtype=np.float32)
        missing = np.isnan(values)
        has_missing = bool(missing.any())
        filled = np.where(missing, np.float32(0), values) if has_missing else values
        with np.errstate(over="ignore"):  # inf exceeds every code
            codes = np.rint(filled * divisors)
        if float(np.abs(codes).max(initial=0)) > _MAX_CODE:
            return None
        if not np.array_equal(codes / divisors, filled):
            return None
        encoded = codes.astype("<i2")
        if has_missing:
            encoded[missing] = MISSING_CODE
        return encoded

    def decode(self, raw: Raw) -> NDArray[np.float32]:
        """Readings of the codes `raw` [rows, N, C], float32 with NaN for missing."""
        values = raw.astype(np.float32)
        values /= np.asarray(self.divisors, dtype=np.float32)
        missing = raw == MISSING_CODE
        if missing.any():
            values[missing] = np.nan
        return values


Codec = Float32Codec | GridCodec


def grid_divisor(values: NDArray[np.float32], multiple_of: int = 1) -> int | None:
    """The coarsest known grid with every observed reading on it, or None.

    Args:
        values: readings of one channel, any shape, NaN for missing.
        multiple_of: try only grids that refine this one.

    Returns:
        The grid's steps per unit, such that int16 codes reproduce the float32 readings exactly.
    """
    for divisor in DIVISORS:
        if divisor % multiple_of == 0 and GridCodec((divisor,)).encode(values) is not None:
            return divisor
    return None
