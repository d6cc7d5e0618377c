"""Sources with more digits than float32: exact stores have them, others say what is lost."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

import pgti
from pgti import DataError

TIMES = pd.date_range("2024-01-01", periods=30, freq="h", name="time")
CLOCK = {"start": "2024-01-01", "interval": "1h"}
NUMBERS = np.arange(30)[:, None] + np.array([40_000_001, 50_000_003])
HUGE = NUMBERS + 2**60


def frame(values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values, index=TIMES, columns=["a", "b"])


def as_csv(path: Path, values: np.ndarray) -> Path:
    frame(values).to_csv(path / "s.csv")
    return path / "s.csv"


def as_long(path: Path, values: np.ndarray) -> Path:
    table = frame(values).reset_index().melt("time", var_name="sensor")
    table.to_csv(path / "long.csv", index=False)
    return path / "long.csv"


def as_parquet(path: Path, values: np.ndarray) -> Path:
    frame(values).reset_index().to_parquet(path / "s.parquet", index=False)
    return path / "s.parquet"


def as_npy(path: Path, values: np.ndarray) -> Path:
    np.save(path / "s.npy", values)
    return path / "s.npy"


def as_hdf5(path: Path, values: np.ndarray) -> Path:
    with h5py.File(path / "s.h5", "w") as file:
        file["v"] = values
    return path / "s.h5"


def as_decimals(_: Path, values: np.ndarray) -> pd.DataFrame:
    return frame(values).map(lambda value: Decimal(int(value)))


def as_decimal_parquet(path: Path, values: np.ndarray) -> Path:
    table = {
        name: pa.array([Decimal(int(v)) for v in c]) for name, c in zip("ab", values.T, strict=True)
    }
    pa.parquet.write_table(pa.table({"time": pa.array(TIMES), **table}), path / "s.parquet")
    return path / "s.parquet"


MAKERS: dict[str, tuple[Callable[[Path, np.ndarray], Any], dict[str, Any]]] = {
    "int64": (lambda _, values: frame(values), {}),
    "uint64": (lambda _, values: frame(values).astype("uint64"), {}),
    "Int64": (lambda _, values: frame(values).astype("Int64"), {}),
    "int64[pyarrow]": (lambda _, values: frame(values).astype("int64[pyarrow]"), {}),
    "polars": (lambda _, values: pl.from_pandas(frame(values).reset_index()), {}),
    "array": (lambda _, values: values, CLOCK),
    "csv": (as_csv, {}),
    "long": (as_long, {"long": ("time", "sensor", "value")}),
    "parquet": (as_parquet, {}),
    "npy": (as_npy, CLOCK),
    "hdf5": (as_hdf5, CLOCK),
    "decimals": (as_decimals, {}),
    "decimal parquet": (as_decimal_parquet, {}),
}
DECIMALS = ("decimals", "decimal parquet")


@pytest.mark.parametrize("kind", MAKERS)
def test_whole_numbers_above_two_to_the_24(tmp_path: Path, kind: str) -> None:
    """Exact stores have them; others have one line that counts them."""
    make, options = MAKERS[kind]
    source = make(tmp_path, NUMBERS)
    store = pgti.ingest(source, tmp_path / "exact", exact=True, **options)
    assert store.meta.dtype == "int32"
    np.testing.assert_array_equal(store.read(0, 30)[..., 0], NUMBERS)
    compact = pgti.ingest(source, tmp_path / "compact", **options)
    lost = np.abs(compact.read(0, 30)[..., 0].astype(np.float64) - NUMBERS)
    (note,) = (each for each in compact.notes if "digits" in each)
    assert note.startswith(f"{np.count_nonzero(lost)} readings have more digits than float32")
    assert f"changed by up to {lost.max():g}" in note
    assert "40000001 became 40000000" in note


@pytest.mark.parametrize("kind", [*MAKERS])
def test_whole_numbers_beyond_two_to_the_53(tmp_path: Path, kind: str) -> None:
    """They are refused where they are whole numbers; decimals are rounded, and it is said."""
    make, options = MAKERS[kind]
    source = make(tmp_path, HUGE)
    if kind in DECIMALS:
        store = pgti.ingest(source, tmp_path / "s", exact=True, **options)
        assert any(each.startswith("60 readings are beyond 2^53") for each in store.notes)
        np.testing.assert_array_equal(store.read(0, 30)[..., 0], HUGE.astype(np.float64))
        return
    for exact in (True, False):
        with pytest.raises(DataError, match=r"2\^53"):
            pgti.ingest(source, tmp_path / "s", exact=exact, **options)
        assert not (tmp_path / "s").exists()


def test_large_whole_numbers_that_float64_has(tmp_path: Path) -> None:
    """The smallest int64 stands for "missing" in some files, and is a power of two."""
    values = NUMBERS.copy()
    values[3, 1] = np.iinfo(np.int64).min
    store = pgti.ingest(
        values, tmp_path / "s", exact=True, missing=(float(np.iinfo(np.int64).min),), **CLOCK
    )
    assert np.isnan(store.read(3, 4)[0, 1, 0])
    assert store.read(4, 5)[0, 1, 0] == NUMBERS[4, 1]


@pytest.mark.parametrize("kind", DECIMALS)
def test_decimals_are_rounded_once(tmp_path: Path, kind: str) -> None:
    """Each is the float64 nearest to the decimal; a scale is a division."""
    cents = [Decimal(int(value)) / 100 for value in NUMBERS.ravel() + 1_234_567_812]
    table = pd.DataFrame(np.array(cents).reshape(30, 2), index=TIMES, columns=["a", "b"])
    source: Any = table
    if kind == "decimal parquet":
        source = tmp_path / "s.parquet"
        pa.parquet.write_table(pa.Table.from_pandas(table.reset_index()), source)
    store = pgti.ingest(source, tmp_path / "s", exact=True)
    np.testing.assert_array_equal(store.read(0, 30)[..., 0], table.astype(float))
    small = (NUMBERS % 10_000).astype(np.int16)  # which float32 holds
    tenths = pgti.ingest(small, tmp_path / "u", exact=True, scale=(0.1,), **CLOCK)
    np.testing.assert_array_equal(tenths.read(0, 30)[..., 0], small / 10)
    scaled = pgti.ingest(NUMBERS, tmp_path / "t", exact=True, scale=(0.001,), **CLOCK)
    np.testing.assert_array_equal(scaled.read(0, 30)[..., 0], NUMBERS / 1000)


def test_a_table_that_pandas_wrote_comes_back(tmp_path: Path) -> None:
    """Random float64 numbers, each with 15 to 17 digits."""
    values = np.random.default_rng(2).normal(size=(30, 2)) * [1e-5, 1e9]
    store = pgti.ingest(as_csv(tmp_path, values), tmp_path / "s", exact=True)
    assert store.meta.dtype == "float64"
    np.testing.assert_array_equal(store.read(0, 30)[..., 0], values)
