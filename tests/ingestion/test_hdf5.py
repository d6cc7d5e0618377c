"""Readings from HDF5 files, as pandas writes them and plain."""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest

from pgti.errors import DataError
from pgti.ingestion import IngestOptions, ingest
from pgti.store import SeriesStore

h5py = pytest.importorskip("h5py", reason="h5py is not installed")
pytest.importorskip("tables", reason="PyTables is not installed")

Layout = Literal["fixed", "table"]
VALUES = np.array([[64.3, 12.1, np.nan], [1.2, 0.0, 3.3], [7.7, 8.1, 9.9], [0.5, 1.5, 2.5]])
TIMES = pd.date_range("2012-03-01", periods=4, freq="5min")


def stored(path: Path) -> np.ndarray:
    """All readings of a one-channel store."""
    store = SeriesStore.open(path)
    return store.read(0, store.meta.num_steps)[..., 0]


@pytest.mark.parametrize("layout", ["fixed", "table"])
@pytest.mark.parametrize("unit", ["s", "us", "ns"])
@pytest.mark.parametrize("ids", [["400001", "b", "sensor_c"], [773869, 12, 3]])
@pytest.mark.parametrize("budget_bytes", [1, 1 << 20])
def test_pandas_layouts(
    tmp_path: Path, layout: Layout, unit: str, ids: list[object], budget_bytes: int
) -> None:
    """Both layouts come through under any key, with ids and times, in pieces or whole."""
    frame = pd.DataFrame(VALUES, index=TIMES.as_unit(unit), columns=ids)
    frame.to_hdf(tmp_path / "a.h5", key="some/speed", format=layout)
    options = IngestOptions(budget_bytes=budget_bytes)
    summary = ingest(tmp_path / "a.h5", tmp_path / "s", options)
    np.testing.assert_array_equal(stored(tmp_path / "s"), VALUES.astype(np.float32))
    assert summary.meta.node_ids == tuple(map(str, ids))
    assert (summary.meta.start, summary.meta.interval_seconds) == ("2012-03-01T00:00:00", 300)


@pytest.mark.parametrize("layout", ["fixed", "table"])
def test_mixed_dtypes_keep_their_columns(tmp_path: Path, layout: Layout) -> None:
    """Columns are grouped by dtype in the file; they come back in their own order."""
    frame = pd.DataFrame({"a": [1.5, 2.5], "b": [3, 4], "c": [5.5, 6.5], "d": [7, 8]})
    columns = {"data_columns": ["c"]} if layout == "table" else {}
    frame.to_hdf(tmp_path / "a.h5", key="df", format=layout, **columns)
    ingest(tmp_path / "a.h5", tmp_path / "s")
    np.testing.assert_array_equal(stored(tmp_path / "s"), [[1.5, 3, 5.5, 7], [2.5, 4, 6.5, 8]])


@pytest.mark.parametrize("layout", ["fixed", "table"])
@pytest.mark.parametrize(
    ("zone", "stored_zone", "start"),
    [
        ("America/Los_Angeles", "America/Los_Angeles", "2012-03-01T08:00:00"),
        ("UTC", "UTC", "2012-03-01T00:00:00"),
        ("+08:00", "Etc/GMT-8", "2012-02-29T16:00:00"),
        ("-03:00", "Etc/GMT+3", "2012-03-01T03:00:00"),
    ],
)
def test_zone_of_the_index(
    tmp_path: Path, layout: Layout, zone: str, stored_zone: str, start: str
) -> None:
    """An index with a zone gives true times, without running what PyTables pickled."""
    frame = pd.DataFrame(VALUES, index=TIMES.tz_localize(zone), columns=["a", "b", "c"])
    frame.to_hdf(tmp_path / "a.h5", key="df", format=layout)
    summary = ingest(tmp_path / "a.h5", tmp_path / "s")
    assert (summary.meta.time_zone, summary.meta.start) == (stored_zone, start)
    axis = SeriesStore.open(tmp_path / "s").time_axis
    assert str(axis.at(np.array([1]))[0]) == "2012-03-01T00:05:00"


def test_plain_datasets(tmp_path: Path) -> None:
    """Plain datasets of two or three axes are read; several must be chosen by name."""
    cube = np.arange(4 * 3 * 2, dtype=np.int32).reshape(4, 3, 2)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/speed"] = VALUES
        file["cube"] = cube
        file["node_ids"] = np.array([b"x", b"y", b"z"])
    with pytest.raises(DataError, match=r"cube \(4, 3, 2\), group/speed \(4, 3\)"):
        ingest(tmp_path / "a.h5", tmp_path / "s")
    ingest(tmp_path / "a.h5", tmp_path / "s", IngestOptions(values=("/group/speed",)))
    np.testing.assert_array_equal(stored(tmp_path / "s"), VALUES.astype(np.float32))
    ingest(tmp_path / "a.h5", tmp_path / "c", IngestOptions(values=("cube",), budget_bytes=1))
    store = SeriesStore.open(tmp_path / "c")
    np.testing.assert_array_equal(store.read(0, 4), cube)
    assert store.meta.node_ids == ("x", "y", "z")


def test_tables_become_channels(tmp_path: Path) -> None:
    """Several tables of one file become channels; other times in one of them are refused."""
    for key, shift in (("speed", 0), ("flow", 0), ("late", 1)):
        index = TIMES + pd.Timedelta(hours=shift)
        pd.DataFrame(VALUES + shift, index=index, columns=list("abc")).to_hdf(
            tmp_path / "a.h5", key=key
        )
    summary = ingest(tmp_path / "a.h5", tmp_path / "s", IngestOptions(values=("flow", "speed")))
    assert summary.meta.channels == ("flow", "speed")
    with pytest.raises(DataError, match="different times"):
        ingest(tmp_path / "a.h5", tmp_path / "t", IngestOptions(values=("flow", "late")))
