"""Offsets, zones and kinds of indexes: what becomes of the times of a source."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pgti.errors import DataError
from pgti.ingestion import IngestOptions, ingest
from pgti.ingestion.newer.newer import open_newer_series
from pgti.store import SeriesStore

TIMES = pd.date_range("2024-03-30", periods=48, freq="1h", tz="Europe/Berlin")  # 31: one hour less
FORMATS = ["frame", "csv", "parquet", "parquet text", "fixed", "table"]


def frame(index: "pd.Index[object]") -> pd.DataFrame:
    """Readings of two sensors."""
    return pd.DataFrame({"a": np.arange(len(index)) + 0.5, "b": 1.5}, index=index)


def source(folder: Path, index: "pd.Index[object]", form: str) -> Path | pd.DataFrame:
    """The readings in a format."""
    readings = frame(index)
    if form == "frame":
        return readings
    if form == "csv":
        readings.to_csv(folder / "a.csv")
        return folder / "a.csv"
    if form.startswith("parquet"):
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
        if form == "parquet text":
            readings = readings.set_axis(index.astype(str))
        readings.to_parquet(folder / "a.parquet")
        return folder / "a.parquet"
    pytest.importorskip("tables", reason="PyTables is not installed")
    readings.to_hdf(folder / "a.h5", key="df", format=form)
    return folder / "a.h5"


@pytest.mark.parametrize("form", ["csv", "parquet text"])
@pytest.mark.parametrize("budget_bytes", [1, 1 << 20])
def test_offsets_that_change_need_a_zone(tmp_path: Path, form: str, budget_bytes: int) -> None:
    """Offsets of a zone whose clocks change are not taken for one constant offset."""
    path = source(tmp_path, TIMES, form)
    with pytest.raises(DataError, match=r"2024-03-31 03:00:00\+02:00.*\+01:00.*time_zone"):
        ingest(path, tmp_path / "s", IngestOptions(budget_bytes=budget_bytes))
    options = IngestOptions(time_zone="Europe/Berlin", budget_bytes=budget_bytes)
    ingest(path, tmp_path / "s", options)
    wall = TIMES.tz_localize(None).to_numpy().astype("datetime64[s]")
    axis = SeriesStore.open(tmp_path / "s").time_axis
    np.testing.assert_array_equal(axis.at(np.arange(len(wall))), wall)


@pytest.mark.parametrize("form", FORMATS)
def test_offset_of_half_an_hour(tmp_path: Path, form: str) -> None:
    """Times at +05:30 come in from every format once their zone is named."""
    index = pd.date_range("2024-01-01", periods=3, freq="5min", tz="+05:30")
    readings = source(tmp_path, index, form)
    with pytest.raises(DataError, match="time_zone"):
        ingest(readings, tmp_path / "s")
    meta = ingest(readings, tmp_path / "s", IngestOptions(time_zone="Asia/Kolkata")).meta
    assert (meta.start, meta.time_zone) == ("2023-12-31T18:30:00", "Asia/Kolkata")


@pytest.mark.parametrize(
    "times", [("2024-01-01T00:00Z", "2024-01-01T00:05"), ("2024-01-01T00:00", "2024-01-01T00:05Z")]
)
def test_some_offsets_are_not_enough(tmp_path: Path, times: tuple[str, str]) -> None:
    """Times with and without an offset in one column are refused in the project's own words."""
    (tmp_path / "a.csv").write_text("time,a\n" + "".join(f"{time},1\n" for time in times))
    with pytest.raises(DataError, match=rf"line 3 .*'{times[1]}'.*the same way") as caught:
        ingest(tmp_path / "a.csv", tmp_path / "s")
    assert "utc=True" not in str(caught.value)


def test_offsets_in_a_named_format(tmp_path: Path) -> None:
    """A format with %z is held to the same rule."""
    (tmp_path / "a.csv").write_text("t,a\n31/03/2024 01:00 +0100,1\n31/03/2024 03:00 +0200,2\n")
    options = IngestOptions(time_format="%d/%m/%Y %H:%M %z")
    with pytest.raises(DataError, match=r"03:00 \+0200.*\+01:00.*time_zone"):
        ingest(tmp_path / "a.csv", tmp_path / "s", options)


def test_text_in_the_index_of_a_frame_is_times(tmp_path: Path) -> None:
    """Dates as text give the times; other words are refused."""
    index = TIMES[:3].tz_localize(None).astype(str)
    meta = ingest(frame(index), tmp_path / "s").meta
    assert (meta.start, meta.interval_seconds) == ("2024-03-30T00:00:00", 3600)
    with pytest.raises(DataError, match=r"row 0 .*'x'"):
        ingest(frame(pd.Index(["x", "y"])), tmp_path / "t")


@pytest.mark.parametrize("form", ["frame", "fixed", "table"])
def test_other_indexes_are_refused(tmp_path: Path, form: str) -> None:
    """Periods and (in HDF5) text are neither dropped nor guessed at; row numbers are not times."""
    naive = TIMES[:3].tz_localize(None)
    others = [naive.to_period("1h"), pd.Index([0.5, 1.5, 2.5])]
    if form != "frame":
        others.append(naive.astype(str))
    for number, index in enumerate(others):
        (tmp_path / str(number)).mkdir()
        readings = source(tmp_path / str(number), index, form)
        with pytest.raises(DataError, match="neither dates nor row numbers"):
            ingest(readings, tmp_path / "s")
    meta = ingest(source(tmp_path, pd.Index([3, 1, 2]), form), tmp_path / "s").meta
    assert meta.start is None


def test_messages_show_the_times_of_the_source(tmp_path: Path) -> None:
    """On the clock of the zone, with the offset: not in UTC, which no line of the file has."""
    naive = pd.date_range("2024-03-04T18:00", periods=3).append(
        pd.DatetimeIndex(["2024-03-07T17:00"])
    )
    options = IngestOptions(time_zone="Europe/Rome")
    with pytest.raises(DataError, match=r"2024-03-06T18:00:00\+01:00 and .*2024-03-07T17:00:00\+"):
        ingest(frame(naive), tmp_path / "s", options)
    with pytest.raises(DataError, match=r"times 2024-03-06T18:00:00\+01:00 and 2024-03-05T18:00"):
        ingest(frame(naive[[2, 1]]), tmp_path / "s", options)
    hour = pd.date_range("2025-11-02T00:00", periods=48, freq="5min", tz="America/Los_Angeles")
    with pytest.raises(DataError, match=r"T01:55:00 and .*T01:00:00: sort .*, or name the zone"):
        ingest(frame(hour.tz_localize(None)), tmp_path / "s")


AWARE = pd.to_datetime(
    ["2024-03-04T18:00Z", "2024-03-05T18:00Z", "2024-03-06T18:00Z", "2024-03-07T17:00Z"]
)


@pytest.mark.parametrize("form", ["csv", "parquet", "parquet text", "gz"])
def test_messages_show_times_with_offsets_as_they_are_written(tmp_path: Path, form: str) -> None:
    """Also where the store has another zone: each time is one that stands in the file."""
    path = source(tmp_path, AWARE, "csv" if form == "gz" else form)
    if form == "gz":
        path = tmp_path / "a.csv.gz"
        frame(AWARE).to_csv(path)
    shown = r"2024-03-06.18:00:00\+00:00 and .* has 2024-03-07.17:00:00\+00:00"
    for options in (IngestOptions(time_zone="Europe/Rome"), IngestOptions()):
        with pytest.raises(DataError, match=shown):
            ingest(path, tmp_path / "s", options)
    with pytest.raises(DataError, match=r"starts at 2024-03-04.18:00:00"):
        ingest(path, tmp_path / "s", IngestOptions(start="2024-03-04", time_zone="Europe/Rome"))


def test_messages_show_epoch_times_as_they_are_written(tmp_path: Path) -> None:
    seconds = [1_709_575_200, 1_709_575_500, 1_709_575_800, 1_709_575_900]
    frame(pd.Index(seconds, name="time")).to_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"line 4 .* time 1709575800 and line 5 has 1709575900"):
        ingest(tmp_path / "a.csv", tmp_path / "s", IngestOptions(time_zone="Europe/Rome"))


def test_one_row_is_shown_on_the_clock(tmp_path: Path) -> None:
    naive = AWARE[:1].tz_localize(None)
    with pytest.raises(DataError, match=r"one row \(2024-03-04T18:00:00\+01:00\)"):
        ingest(frame(naive), tmp_path / "s", IngestOptions(time_zone="Europe/Rome"))


def test_newer_times_are_shown_as_they_are_written(tmp_path: Path) -> None:
    hours = pd.date_range("2024-01-01", periods=24, freq="1h", tz="Europe/Rome")
    store = ingest(frame(hours), tmp_path / "s", IngestOptions(time_zone="Europe/Rome"))
    newer = hours[[23] * 3] + pd.to_timedelta(["1h", "2h", "2h40min"])
    path = source(tmp_path, newer.tz_convert("UTC"), "csv")
    shown = r"time 2024-01-02 00:40:00\+00:00 and the row before has 2024-01-02 00:00:00\+00:00"
    with pytest.raises(DataError, match=shown):
        store.append(path)
    shown = r"time 2024-01-02 00:00:00\+00:00 and line 4 has 2024-01-02 00:40:00\+00:00"
    with pytest.raises(DataError, match=shown), open_newer_series(path, store):
        pass
