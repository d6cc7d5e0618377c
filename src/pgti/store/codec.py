"""How readings are encoded: compactly, or so that no digit is lost.

Sensors report on a grid (speeds in tenths, counts in ones). A reading v on the grid 1/d is stored
as the whole number q = v * d, and `q / d` is the correctly rounded quotient of two exact numbers:
bit for bit the float nearest to the decimal that the source wrote.

A compact store has int16 codes, or float32 readings where they do not fit; readings are float32. An
exact store has int32 codes, or float64 readings; readings are float64, as they stand in the source.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = [
    "MISSING_CODE",
    "Codec",
    "ExactGridCodec",
    "Float32Codec",
    "Float64Codec",
    "GridCodec",
    "Raw",
    "Values",
    "codec_of_dtype",
    "grid_divisor",
]

Raw: TypeAlias = NDArray[np.int16] | NDArray[np.float32] | NDArray[np.int32] | NDArray[np.float64]
"""Stored readings."""

Values: TypeAlias = NDArray[np.floating[Any]]
"""Readings: float32, of an exact store float64."""

MISSING_CODE = -32768
# Grids that sensors use, coarsest first.
DIVISORS = (1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 40, 50, 64, 100, 128, 200, 256, 500, 1000, 10_000)


@dataclass(frozen=True, slots=True)
class Float32Codec:
    """Readings stored as float32, missing ones as NaN.

    Attributes:
        dtype: the dtype on disk.
        reading_dtype: that of the readings.
        divisors: None: floats have no grid.
        missing_code: None: NaN stands for what is missing.
    """

    dtype: ClassVar[np.dtype[Any]] = np.dtype("<f4")
    reading_dtype: ClassVar[np.dtype[Any]] = np.dtype("<f4")
    divisors: ClassVar[None] = None
    missing_code: ClassVar[None] = None

    def encode(self, values: Values) -> Raw:
        """The readings themselves."""
        return np.ascontiguousarray(values, dtype=self.dtype)

    def decode(self, raw: Raw, dtype: DTypeLike | None = None) -> Values:
        """The readings themselves, copied; in `dtype`, if that is another."""
        return np.array(raw, dtype=self.reading_dtype if dtype is None else dtype)


@dataclass(frozen=True, slots=True)
class Float64Codec(Float32Codec):
    """Readings stored as float64, missing ones as NaN: see `Float32Codec`."""

    dtype: ClassVar[np.dtype[Any]] = np.dtype("<f8")
    reading_dtype: ClassVar[np.dtype[Any]] = np.dtype("<f8")


@dataclass(frozen=True, slots=True)
class GridCodec:
    """Readings stored as int16 multiples of 1/divisor, one divisor per channel.

    Attributes:
        dtype: the dtype on disk.
        reading_dtype: that of the readings.
        missing_code: stands for what is missing; it is less than every other code.
        grids: divisors to try, coarsest grid first.
        divisors: grid steps per unit, one for each channel, whole numbers.
    """

    dtype: ClassVar[np.dtype[Any]] = np.dtype("<i2")
    reading_dtype: ClassVar[np.dtype[Any]] = np.dtype("<f4")
    missing_code: ClassVar[int] = MISSING_CODE
    grids: ClassVar[tuple[int, ...]] = DIVISORS
    divisors: tuple[int, ...]

    @property
    def max_code(self) -> int:
        """The largest code in absolute value."""
        return -self.missing_code - 1

    def encode(self, values: Values) -> Raw | None:
        """Codes of `values` [rows, N, C], or None if a reading is not on its channel's grid."""
        divisors = np.asarray(self.divisors, dtype=self.reading_dtype)
        missing = np.isnan(values)
        has_missing = bool(missing.any())
        filled = np.where(missing, values.dtype.type(0), values) if has_missing else values
        with np.errstate(over="ignore"):  # inf exceeds every code
            codes = np.rint(filled * divisors)
        if float(np.abs(codes).max(initial=0)) > self.max_code:
            return None
        if not np.array_equal(codes / divisors, filled):
            return None
        encoded: Raw = codes.astype(self.dtype)
        if has_missing:
            encoded[missing] = self.missing_code
        return encoded

    def decode(self, raw: Raw, dtype: DTypeLike | None = None) -> Values:
        """Readings of the codes `raw` [rows, N, C], NaN for missing; in `dtype`, if given."""
        values: Values = raw.astype(self.reading_dtype if dtype is None else dtype)
        values /= np.asarray(self.divisors, dtype=values.dtype)
        missing = raw == self.missing_code
        if missing.any():
            values[missing] = np.nan
        return values


@dataclass(frozen=True, slots=True)
class ExactGridCodec(GridCodec):
    """Readings stored as int32 multiples of 1/divisor: see `GridCodec`."""

    dtype: ClassVar[np.dtype[Any]] = np.dtype("<i4")
    reading_dtype: ClassVar[np.dtype[Any]] = np.dtype("<f8")
    missing_code: ClassVar[int] = -(2**31)
    grids: ClassVar[tuple[int, ...]] = (*DIVISORS, 100_000, 1_000_000)


Codec = Float32Codec | GridCodec


def codec_of_dtype(dtype: str, divisors: tuple[int, ...] | None) -> Codec:
    """What decodes numbers of a dtype: "int16", "float32", "int32" or "float64"."""
    if divisors is not None:
        return ExactGridCodec(divisors) if dtype == "int32" else GridCodec(divisors)
    return Float64Codec() if dtype == "float64" else Float32Codec()


def grid_divisor(
    values: Values, multiple_of: int = 1, kind: type[GridCodec] = GridCodec
) -> int | None:
    """The coarsest known grid with every observed reading on it, or None.

    Args:
        values: readings of one channel, any shape, NaN for missing.
        multiple_of: try only grids that refine this one.
        kind: the codec, whose grids are tried.

    Returns:
        The grid's steps per unit, such that the codes reproduce the readings exactly.
    """
    for divisor in kind.grids:
        if divisor % multiple_of == 0 and kind((divisor,)).encode(values) is not None:
            return divisor
    return None
