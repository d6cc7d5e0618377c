"""What the attributes of a stored array say about its numbers: missing, packed, outside a range.

The conventions are those of NetCDF and CF, which Zarr and HDF5 files use too: "NetCDF Users Guide",
appendix A, and "CF Metadata Conventions" 1.11, sections 2.5 and 8.1.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import DataError
from pgti.ingestion.cleaning import scale_values
from pgti.ingestion.readings import as_floats, decoded

__all__ = ["NETCDF_FILLS", "Packing"]

NETCDF_FILLS = {
    "i2": -32767,
    "u2": 65535,
    "i4": -2147483647,
    "u4": 4294967295,
    "i8": -9223372036854775806,
    "u8": 18446744073709551614,
    "f4": 9.9692099683868690e36,
    "f8": 9.9692099683868690e36,
}
"""What NetCDF writes where nothing was written, by dtype; bytes have none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Packing:
    """How stored numbers become readings.

    Attributes:
        dtype: of the numbers, with the sign that they are meant to have.
        codes: numbers of that dtype that mean "missing"; NaN always does.
        scale: factor from a number to a reading.
        offset: what is added then.
        packed_range: smallest and largest number that is valid; others are missing.
        range: smallest and largest reading that is valid; others are missing.
    """

    dtype: "np.dtype[Any]"
    codes: tuple[Any, ...] = ()
    scale: float = 1.0
    offset: float = 0.0
    packed_range: tuple[float, float] = (-math.inf, math.inf)
    range: tuple[float, float] = (-math.inf, math.inf)

    @classmethod
    def of(
        cls,
        attributes: Mapping[str, Any],
        dtype: "np.dtype[Any]",
        name: str,
        *,
        decoded: Mapping[str, Any] | None = None,
        has_default_fill: bool = False,
    ) -> "Packing":
        """The packing that attributes describe.

        Args:
            attributes: `_FillValue`, `missing_value`, `scale_factor`, `add_offset`, `valid_min`,
                `valid_max`, `valid_range` and `_Unsigned`; others are not looked at.
            dtype: of the stored numbers.
            name: what messages call the array.
            decoded: attributes that a library has applied already; a valid range is in the unit of
                the numbers before that.
            has_default_fill: whether NetCDF's own fill values are missing where no attribute
                names one.

        Raises:
            DataError: if an attribute is not a number, or the scale is zero.
        """
        dtype = _signed(dtype.newbyteorder("="), attributes)
        numbers = {
            key: _numbers(attributes[key], f"{key} of {name}")
            for key in ("_FillValue", "missing_value", "scale_factor", "add_offset", *_RANGE)
            if key in attributes
        }
        codes = [*numbers.get("_FillValue", ()), *numbers.get("missing_value", ())]
        if not codes and has_default_fill:
            codes = [NETCDF_FILLS[kind] for kind in [dtype.str[1:]] if kind in NETCDF_FILLS]
        scale, offset = (
            _one(numbers.get(key), default, f"{key} of {name}")
            for key, default in (("scale_factor", 1.0), ("add_offset", 0.0))
        )
        if scale == 0:
            raise DataError(f"scale_factor of {name} is 0: it must be another number")
        bounds, are_packed = _valid_range(numbers, dtype, name)
        if decoded and decoded.get("scale_factor", decoded.get("add_offset")) is not None:
            undo = cls.of({key: decoded[key] for key in _SCALES if key in decoded}, dtype, name)
            slack = abs(undo.scale) / 2  # readings were rounded
            ends = sorted(bound * undo.scale + undo.offset for bound in bounds)
            bounds, are_packed = (ends[0] - slack, ends[1] + slack), False
        return cls(
            dtype=dtype,
            codes=tuple(
                code for code in (_cast(code, dtype) for code in codes) if code is not None
            ),
            scale=scale,
            offset=offset,
            packed_range=bounds if are_packed else (-math.inf, math.inf),
            range=(-math.inf, math.inf) if are_packed else bounds,
        )

    @property
    def decoded_dtype(self) -> "np.dtype[Any]":
        """The dtype of readings."""
        return self.decode(np.zeros(1, self.dtype)).dtype

    def decode(self, stored: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """Readings of stored numbers, in a new array of the same shape; NaN for missing."""
        numbers = np.ascontiguousarray(stored)
        numbers = numbers.astype(numbers.dtype.newbyteorder("="), copy=False)
        numbers = numbers if numbers.dtype == self.dtype else numbers.view(self.dtype)
        values = as_floats(numbers)
        missing = np.zeros(numbers.shape, dtype=np.bool_)
        for code in self.codes:
            missing |= numbers == code
        _mark_outside(missing, numbers, self.packed_range)
        with np.errstate(over="ignore"):  # infinite readings are refused later
            if self.scale != 1:
                values = scale_values(values, self.scale)
            if self.offset:
                values = values.astype(np.float64) + self.offset
        _mark_outside(missing, values, self.range)
        if missing.any():
            values[missing] = np.nan
        return values


_SCALES = ("scale_factor", "add_offset")
_RANGE = ("valid_min", "valid_max", "valid_range")


def _signed(dtype: "np.dtype[Any]", attributes: Mapping[str, Any]) -> "np.dtype[Any]":
    """The dtype with the sign that `_Unsigned` says; NetCDF-3 has no unsigned integers."""
    said = attributes.get("_Unsigned")
    said = decoded(said) if isinstance(said, bytes) else str(said)
    kind = {"true": "u", "false": "i"}.get(said.lower())
    if kind is None or dtype.kind not in "iu":
        return dtype
    return np.dtype(f"{kind}{dtype.itemsize}")


def _numbers(value: Any, what: str) -> list[float | int]:
    """The numbers of an attribute, as the shortest decimals that mean them."""
    array = np.asarray(value).reshape(-1)
    try:
        if array.dtype.kind in "SUO":
            return [float(text.decode() if isinstance(text, bytes) else text) for text in array]
        # float32 writes 0.1 as 0.100000001: its text is what was meant.
        shortest = array.dtype.kind == "f" and array.dtype.itemsize < 8
        return [float(str(each)) if shortest else each.item() for each in array]
    except (TypeError, ValueError):
        raise DataError(f"{what} is {str(value)[:40]!r}: it must be a number") from None


def _one(numbers: list[float | int] | None, default: float, what: str) -> float:
    if not numbers:
        return default
    if len(numbers) > 1 or not math.isfinite(numbers[0]):
        raise DataError(f"{what} is {numbers[:3]}: it must be one finite number")
    return float(numbers[0])


def _cast(code: float | int, dtype: "np.dtype[Any]") -> Any:
    """A code as the dtype holds it; None where no number of the dtype is that code."""
    if dtype.kind == "f":
        return None if math.isnan(code) else dtype.type(code)
    info = np.iinfo(dtype)
    if not math.isfinite(code) or code != int(code):
        return None
    # A code of the other sign is that of the same bits, as where _Unsigned is said of bytes.
    wrapped = int(code) + (1 << info.bits if code < 0 and info.min == 0 else 0)
    if info.min < 0 and info.max < wrapped < 1 << info.bits:
        wrapped -= 1 << info.bits
    return dtype.type(wrapped) if info.min <= wrapped <= info.max else None


def _valid_range(
    numbers: Mapping[str, list[float | int]], dtype: "np.dtype[Any]", name: str
) -> tuple[tuple[float, float], bool]:
    """The valid range, and whether it is one of stored numbers (else of readings)."""
    low, high = -math.inf, math.inf
    if "valid_range" in numbers:
        if len(numbers["valid_range"]) != 2:
            raise DataError(f"valid_range of {name} is {numbers['valid_range']}: the rule is two")
        low, high = sorted(numbers["valid_range"])
    for key in ("valid_min", "valid_max"):
        if key in numbers:
            bound = _one(numbers[key], 0.0, f"{key} of {name}")
            low, high = (bound, high) if key == "valid_min" else (low, bound)
    # "If valid_range is of another type than the packed data, it is one of unpacked data."
    of_readings = dtype.kind in "iu" and any(
        isinstance(number, float) for key in _RANGE for number in numbers.get(key, ())
    )
    return (low, high), not of_readings


def _mark_outside(
    missing: NDArray[np.bool_], values: NDArray[Any], bounds: tuple[float, float]
) -> None:
    """Mark values outside the bounds, which are compared in the dtype of floating values."""
    low, high = (values.dtype.type(each) if values.dtype.kind == "f" else each for each in bounds)
    if math.isfinite(low):
        missing |= values < low
    if math.isfinite(high):
        missing |= values > high
