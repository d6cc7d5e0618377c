"""Times of rows: gaps, zones, and what the user says beside what the source says."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pgti.errors import ConfigError, DataError
from pgti.ingestion import IngestOptions, ingest
from pgti.ingestion.instants import parse_interval
from pgti.store import SeriesStore, format_interval


def frame_at(minutes: list[int], start: str = "2012-03-01") -> pd.DataFrame:
    """Two sensors read at the given minutes; readings encode the minute."""
    index = pd.Timestamp(start) + pd.to_timedelta(minutes, unit="min")
    values = np.array(minutes, dtype=np.float64)[:, None] + [0.5, 0.25]
    return pd.DataFrame(values, index=index, columns=["a", "b"])


@pytest.mark.parametrize("budget_bytes", [1, 64, 1 << 20])
def test_gaps_are_filled(tmp_path: Path, budget_bytes: int) -> None:
    """Missing rows become rows of missing readings, wherever chunks begin and end."""
    frame = frame_at([0, 5, 10, 30, 35, 50])
    options = IngestOptions(gaps="fill", budget_bytes=budget_bytes)
    summary = ingest(frame, tmp_path / "s", options)
    store = SeriesStore.open(tmp_path / "s")
    regular = frame.reindex(pd.date_range(frame.index[0], frame.index[-1], freq="5min"))
    np.testing.assert_array_equal(store.read(0, 11)[..., 0], regular.to_numpy(dtype=np.float32))
    assert "5 rows of missing readings were inserted into gaps" in summary.notes
    assert store.meta.is_regular
    assert store.meta.interval_seconds == 300


@pytest.mark.parametrize("budget_bytes", [1, 1 << 20])
def test_gaps_are_kept(tmp_path: Path, budget_bytes: int) -> None:
    """Irregular times are stored as they are, with the commonest distance as the interval."""
    frame = frame_at([0, 3, 10, 15, 20, 50])
    options = IngestOptions(gaps="keep", budget_bytes=budget_bytes)
    ingest(frame, tmp_path / "s", options)
    store = SeriesStore.open(tmp_path / "s")
    assert store.meta.interval_seconds == 300
    times = store.time_axis.at(np.arange(6))
    np.testing.assert_array_equal(times, frame.index.to_numpy().astype("datetime64[s]"))


def test_regular_times_are_not_stored_one_by_one(tmp_path: Path) -> None:
    """Keeping gaps where there is none stores start and interval alone."""
    ingest(frame_at([0, 5, 10]), tmp_path / "s", IngestOptions(gaps="keep"))
    assert SeriesStore.open(tmp_path / "s").meta.is_regular


def test_autumn_and_spring_of_a_named_zone(tmp_path: Path) -> None:
    """Wall-clock times of a zone are regular across both changes of its clocks."""
    for day, name in (("2025-11-01", "autumn"), ("2025-03-08", "spring")):
        true = pd.date_range(day, periods=48, freq="1h", tz="America/Los_Angeles")
        frame = pd.DataFrame({"a": np.arange(48) + 0.125}, index=true.tz_localize(None))
        options = IngestOptions(time_zone="America/Los_Angeles", budget_bytes=100)
        summary = ingest(frame, tmp_path / name, options)
        assert summary.meta.interval_seconds == 3600
        axis = SeriesStore.open(tmp_path / name).time_axis
        wall = true.tz_localize(None).to_numpy().astype("datetime64[s]")
        np.testing.assert_array_equal(axis.at(np.arange(48)), wall)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (IngestOptions(start="2012-03-02T00:00"), r"2012-03-01T00:00:00 .*2012-03-02T00:00:00"),
        (IngestOptions(interval="10min"), r"00:05:00: .* of 10min \(as interval says\)"),
        (IngestOptions(interval="1min"), r"the source lacks 4 rows"),
        (IngestOptions(interval="10min", gaps="keep"), r"5min apart .* is 10min"),
    ],
)
def test_user_and_source_must_agree(tmp_path: Path, options: IngestOptions, message: str) -> None:
    """A start or interval that the times of the source contradict is refused."""
    with pytest.raises(DataError, match=message):
        ingest(frame_at([0, 5, 10]), tmp_path / "s", options)
    agreeing = IngestOptions(start="2012-03-01T00:00", interval="5min")
    ingest(frame_at([0, 5, 10]), tmp_path / "s", agreeing)


def test_one_dated_row_needs_an_interval(tmp_path: Path) -> None:
    """One row shows no interval."""
    with pytest.raises(DataError, match=r"one row .* interval"):
        ingest(frame_at([0]), tmp_path / "s")
    summary = ingest(frame_at([0]), tmp_path / "s", IngestOptions(interval="5min"))
    assert summary.meta.interval_seconds == 300


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5min", 300),
        ("15 minutes", 900),
        ("1h", 3600),
        ("7d", 604_800),
        ("1w", 604_800),
    ],
)
def test_intervals(text: str, seconds: int) -> None:
    """Intervals are a whole number and a unit."""
    assert parse_interval(text) == seconds
    assert parse_interval(format_interval(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "5", "min", "0min", "5 parsecs", "-5min", "1.5h", "5min 3s"])
def test_bad_intervals(text: str) -> None:
    """Anything else is refused by its value."""
    with pytest.raises(ConfigError, match="the interval"):
        IngestOptions(interval=text)
