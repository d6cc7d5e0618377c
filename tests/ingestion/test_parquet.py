"""Readings from Parquet files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pgti.ingestion import IngestOptions, ingest
from pgti.store import SeriesStore

pytest.importorskip("pyarrow", reason="pyarrow is not installed")

VALUES = np.array([[64.3, 12.1, np.nan], [1.2, 0.0, 3.3], [7.7, 8.1, 9.9], [0.5, 1.5, 2.5]])
TIMES = pd.date_range("2012-03-01", periods=4, freq="5min")


def stored(path: Path) -> np.ndarray:
    """All readings of a one-channel store."""
    store = SeriesStore.open(path)
    return store.read(0, store.meta.num_steps)[..., 0]


def frame(index: pd.Index | None = None) -> pd.DataFrame:
    """The readings as a table."""
    return pd.DataFrame(VALUES, columns=["a", "b", "c"], index=index)


def dated_frames() -> list[pd.DataFrame]:
    """The ways in which a table carries its times."""
    text = frame(TIMES.strftime("%Y-%m-%d %H:%M:%S"))
    column = frame(TIMES.rename("when")).reset_index()
    return [frame(TIMES), frame(TIMES.rename("when")), column, text, text.reset_index()]


@pytest.mark.parametrize("way", range(5))
@pytest.mark.parametrize("budget_bytes", [1, 1 << 20])
def test_times_in_index_or_column(tmp_path: Path, way: int, budget_bytes: int) -> None:
    """Times are found in the index or a column, as times or as text."""
    dated_frames()[way].to_parquet(tmp_path / "a.parquet", row_group_size=3)
    options = IngestOptions(budget_bytes=budget_bytes)
    summary = ingest(tmp_path / "a.parquet", tmp_path / "s", options)
    np.testing.assert_array_equal(stored(tmp_path / "s"), VALUES.astype(np.float32))
    assert summary.meta.node_ids == ("a", "b", "c")
    assert (summary.meta.start, summary.meta.interval_seconds) == ("2012-03-01T00:00:00", 300)


def test_without_times_and_with_nulls(tmp_path: Path) -> None:
    """Numbers alone are enough; a null in a column of whole numbers is missing."""
    table = frame().astype({"b": "float32"})
    table["d"] = pd.array([1, None, 3, 4], dtype="Int32")
    table.to_parquet(tmp_path / "a.parquet")
    ingest(tmp_path / "a.parquet", tmp_path / "s")
    expected = np.column_stack([VALUES, [1, np.nan, 3, 4]]).astype(np.float32)
    np.testing.assert_array_equal(stored(tmp_path / "s"), expected)


def test_zone(tmp_path: Path) -> None:
    """Times with a zone stay true times of that zone."""
    frame(TIMES.tz_localize("Europe/Berlin")).to_parquet(tmp_path / "a.parquet")
    summary = ingest(tmp_path / "a.parquet", tmp_path / "s")
    assert summary.meta.time_zone == "Europe/Berlin"
    assert summary.meta.start == "2012-02-29T23:00:00"
