"""Attributes of stored arrays: fill values, scales, ranges and signs."""

import math

import numpy as np
import pytest

from pgti.errors import DataError
from pgti.ingestion.arrays.packing import Packing

NAN = math.nan


def decoded(stored: np.ndarray, attributes: dict[str, object], **more: object) -> np.ndarray:
    """Readings of the stored numbers."""
    return Packing.of(attributes, stored.dtype, "a", **more).decode(stored)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stored", "attributes", "expected"),
    [
        (np.array([1, 1e20], "f4"), {"_FillValue": 1e20}, [1, NAN]),
        (np.array([1, -9999.9], "f4"), {"missing_value": np.array([-9999.9])}, [1, NAN]),
        (np.array([1, -8, -9], "i2"), {"missing_value": np.array([-9, -8], "i2")}, [1, NAN, NAN]),
        (np.array([1, 99], ">i4"), {"missing_value": "99"}, [1, NAN]),
        (np.array([645, -1], "i2"), {"scale_factor": np.float32(0.1)}, [64.5, -0.1]),
        (np.array([645, -1], "i2"), {"scale_factor": 0.5, "add_offset": 273.15}, [595.65, 272.65]),
        (np.array([0, 254, 255], "i2").astype("i1"), {"_Unsigned": "true"}, [0, 254, 255]),
        (
            np.array([0, -2, -1], "i1"),
            {"_Unsigned": b"true", "_FillValue": np.int8(-1), "scale_factor": 2},
            [0, 508, NAN],
        ),
        (np.array([200, 3], "u1"), {"_Unsigned": "false", "_FillValue": np.uint8(200)}, [NAN, 3]),
        (np.array([0, 5, 11], "i2"), {"valid_range": np.array([1, 10], "i2")}, [NAN, 5, NAN]),
        (np.array([0, 5, 11], "f4"), {"valid_min": 1.0, "valid_max": 10}, [NAN, 5, NAN]),
        (np.array([0, 5, 11], "i2"), {"valid_max": np.int16(5), "scale_factor": 3}, [0, 15, NAN]),
        (np.array([0, 5, 11], "i2"), {"valid_max": 16.0, "scale_factor": 3}, [0, 15, NAN]),
        (np.array([0.1, 0.2], "f4"), {"valid_max": 0.1}, [np.float32(0.1), NAN]),
        (np.array([3, 255], "u1"), {"_FillValue": -9999}, [3, 255]),
        (np.array([3.0, NAN]), {"_FillValue": NAN}, [3, NAN]),
        (np.array([3, 0], "i2"), {"scale_factor": 1e308}, [math.inf, 0]),
    ],
)
def test_conventions(stored: np.ndarray, attributes: dict[str, object], expected: list) -> None:
    """Numbers become readings as NetCDF's and CF's conventions say."""
    values = decoded(stored, attributes)
    np.testing.assert_array_equal(values, expected)
    if "scale_factor" not in attributes:
        assert values.dtype == (np.float32 if stored.dtype.itemsize < 4 else values.dtype)


def test_default_fill() -> None:
    """NetCDF's own fill values are missing where no attribute names one, and only where asked."""
    stored = np.array([1, 9.9692099683868690e36], "f4")
    np.testing.assert_array_equal(decoded(stored, {}, has_default_fill=True), [1, NAN])
    np.testing.assert_array_equal(decoded(stored, {}), stored)
    whole = np.array([-32767, 7], "i2")
    np.testing.assert_array_equal(decoded(whole, {}, has_default_fill=True), [NAN, 7])
    np.testing.assert_array_equal(
        decoded(whole, {"_FillValue": np.int16(7)}, has_default_fill=True), [-32767, NAN]
    )


def test_ranges_of_decoded_readings() -> None:
    """A library has applied the scale and left the range, which is one of packed numbers."""
    readings = np.array([0.1, 0.5, 0.6], "f4")
    packed = {"scale_factor": 0.1, "add_offset": 0.0}
    attributes = {"valid_range": np.array([1, 5], "i2")}
    np.testing.assert_array_equal(
        decoded(readings, attributes, decoded=packed), [np.float32(0.1), 0.5, NAN]
    )


def test_packed_numbers_are_the_decimals_that_were_packed() -> None:
    """Every int16 number times 0.01 is the float32 nearest to its decimal."""
    stored = np.arange(-32768, 32768, dtype=np.int32).astype("i2")
    values = decoded(stored, {"scale_factor": np.float32(0.01)}).astype(np.float32)
    texts = np.array([f"{number}e-2" for number in stored.tolist()], dtype=object)
    np.testing.assert_array_equal(values, texts.astype(np.float64).astype(np.float32))


@pytest.mark.parametrize(
    ("attributes", "match"),
    [
        ({"_FillValue": "none"}, "_FillValue of a is 'none'.*number"),
        ({"scale_factor": 0}, "scale_factor of a is 0"),
        ({"scale_factor": NAN}, "scale_factor of a is .nan.*one finite"),
        ({"add_offset": np.array([1.0, 2.0])}, "add_offset of a is .1.0, 2.0.*one finite"),
        ({"valid_range": 3}, "valid_range of a is .3.: the rule is two"),
    ],
)
def test_attributes_that_cannot_be_meant(attributes: dict[str, object], match: str) -> None:
    """One line names the attribute and its value."""
    with pytest.raises(DataError, match=match):
        decoded(np.array([1, 2], "i2"), attributes)
