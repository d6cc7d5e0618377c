"""Usual codes of missing readings that stand among the readings are said."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from pgti.ingestion import append, ingest

TIMES = pd.date_range("2024-01-01", periods=40, freq="h", name="time")


def notes(tmp_path: Any, values: np.ndarray, **options: Any) -> list[str]:
    """The notes on codes in a table of readings."""
    table = pd.DataFrame(values, TIMES, columns=["a", "b"])
    table.to_csv(tmp_path / "a.csv")
    options |= {"budget_bytes": 2000, "overwrite": True}  # several chunks
    store = ingest(tmp_path / "a.csv", tmp_path / "s", **options)
    return [note for note in store.notes if "if it means missing" in note]


@pytest.mark.parametrize("code", [-999, -9999, -999.9, -32768, 999.9, 9999, 99999, 1e20])
def test_codes_at_either_end_are_said(tmp_path: Any, code: float) -> None:
    """With their number and the option, in whatever chunks they stand; --missing settles it."""
    values = np.arange(80.0).reshape(40, 2) / 2
    values[[3, 5, 39], [0, 1, 1]] = code
    end = "smallest" if code < 0 else "largest"
    (note,) = notes(tmp_path, values)
    assert f"3 readings of a.csv are {code}, the {end} of all" in note
    assert note.endswith(f"missing=({code},)")
    assert notes(tmp_path, values, missing=(code,)) == []


def test_readings_beyond_them_are_no_codes(tmp_path: Any) -> None:
    """What lies between other readings is one of them."""
    values = np.linspace(-20_000, 2_000_000, 80).reshape(40, 2).round()
    values[7] = -9999, 99999
    assert notes(tmp_path, values) == []


def test_codes_are_said_before_they_are_averaged(tmp_path: Any) -> None:
    """A mean with -9999 is no code any more."""
    values = np.arange(80.0).reshape(40, 2)
    values[4, 0] = -9999
    grid = {"resample": "4h", "aggregate": ("mean",)}
    (note,) = notes(tmp_path, values, **grid)
    assert "1 reading of a.csv is -9999, the smallest" in note
    assert notes(tmp_path, values, missing=(-9999,), **grid) == []


def test_codes_among_newer_readings(tmp_path: Any) -> None:
    """A station that fails after the store was made writes its code for the first time."""
    table = pd.DataFrame(np.arange(80.0).reshape(40, 2), TIMES, columns=["a", "b"])
    store = ingest(table.iloc[:30], tmp_path / "s")
    table.iloc[35, 1] = -999.9
    grown = append(store, table.iloc[30:])
    assert [note for note in grown.notes if "1 reading of the DataFrame is -999.9" in note]
