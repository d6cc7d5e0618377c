"""Readings that are in memory already."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pgti.errors import DataError
from pgti.ingestion import IngestOptions, ingest
from pgti.store import SeriesStore

TIMES = pd.date_range("2012-03-01", periods=5, freq="1h")
CUBE = np.random.default_rng(3).normal(size=(5, 3, 2)).astype(np.float32)


@pytest.mark.parametrize("budget_bytes", [1, 1 << 20])
def test_dataframe_with_times(tmp_path: Path, budget_bytes: int) -> None:
    """Columns give ids, a DatetimeIndex gives times, and the frame is left alone."""
    frame = pd.DataFrame(CUBE[..., 0], index=TIMES, columns=[7, 8, 9])
    before = frame.copy()
    options = IngestOptions(budget_bytes=budget_bytes, missing=(float(CUBE[2, 1, 0]),))
    summary = ingest(frame, tmp_path / "s", options)
    store = SeriesStore.open(tmp_path / "s")
    expected = CUBE[..., 0].copy()
    expected[2, 1] = np.nan
    np.testing.assert_array_equal(store.read(0, 5)[..., 0], expected)
    assert (summary.meta.node_ids, summary.meta.interval_seconds) == (("7", "8", "9"), 3600)
    pd.testing.assert_frame_equal(frame, before)


def test_two_levels_of_columns_are_sensors_and_channels(tmp_path: Path) -> None:
    """(sensor, channel) columns in any order become [T, N, C]."""
    columns = pd.MultiIndex.from_product(
        [["a", "b", "c"], ["flow", "speed"]], names=["sensor", "channel"]
    )
    frame = pd.DataFrame(CUBE.reshape(5, 6), index=TIMES, columns=columns)
    shuffled = frame.iloc[:, [0, 3, 1, 2, 5, 4]]
    summary = ingest(shuffled, tmp_path / "s")
    assert summary.meta.channels == ("flow", "speed")
    np.testing.assert_array_equal(SeriesStore.open(tmp_path / "s").read(0, 5), CUBE)
    with pytest.raises(DataError, match="5 columns for 3 sensors and 2 channels"):
        ingest(frame.iloc[:, :5], tmp_path / "t")


def test_zone_of_a_frame(tmp_path: Path) -> None:
    """A zone of the index becomes that of the store."""
    frame = pd.DataFrame(CUBE[..., 0], index=TIMES.tz_localize("Asia/Tokyo"))
    summary = ingest(frame, tmp_path / "s")
    assert (summary.meta.time_zone, summary.meta.start) == ("Asia/Tokyo", "2012-02-29T15:00:00")


def test_array_is_left_alone(tmp_path: Path) -> None:
    """An array of the user's is read, never written, whatever cleaning it needs."""
    array = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    before = array.copy()
    options = IngestOptions(scale=(0.1, 2.0), missing=(0.0,), channels=("a", "b"))
    ingest(array, tmp_path / "s", options)
    np.testing.assert_array_equal(array, before)
    expected = before.astype(np.float64) * [1, 2] / [10, 1]
    expected[0, 0, 0] = np.nan
    np.testing.assert_array_equal(
        SeriesStore.open(tmp_path / "s").read(0, 4), expected.astype(np.float32)
    )
