"""Readings from HDF5 files, as pandas writes them and plain."""

from collections.abc import Callable
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


@pytest.mark.parametrize("layout", ["fixed", "table"])
def test_columns_of_two_levels(tmp_path: Path, layout: Layout) -> None:
    """Pairs of (sensor, channel), as tsl's PvUS and EngRad have them, in any order of columns."""
    pairs = pd.MultiIndex.from_tuples(
        [("a", "t"), ("b", "u"), ("b", "t"), ("a", "u")], names=["nodes", "channels"]
    )
    frame = pd.DataFrame(np.arange(16.0).reshape(4, 4), index=TIMES, columns=pairs)
    frame["a", "u"] = frame["a", "u"].astype(np.float32)
    frame.to_hdf(tmp_path / "a.h5", key="data", format=layout)
    store = ingest(tmp_path / "a.h5", tmp_path / "s", budget_bytes=1)
    assert (store.meta.node_ids, store.meta.channels) == (("a", "b"), ("t", "u"))
    np.testing.assert_array_equal(store.read(1, 2), [[[4, 7], [6, 5]]])


def tsl_file(path: Path, stations: dict[str, list[object]], layout: Layout = "fixed") -> Path:
    """Tsl's layout of air quality: readings, stations and a mask for imputation."""
    frame = pd.DataFrame(VALUES, index=TIMES, columns=["001", "002", "003"])
    frame.to_hdf(path, key="pm25")
    frame.notna().astype("uint8").to_hdf(path, key="eval_mask")
    table = pd.DataFrame(stations).set_index("id")
    table.to_hdf(path, key="stations", format=layout)
    return path


@pytest.mark.parametrize("layout", ["fixed", "table"])
def test_tsl_stations_are_the_graph(tmp_path: Path, layout: Layout) -> None:
    """Of tsl's tables the readings need no name; stations join neighbors; the mask is said."""
    stations = {
        "id": ["003", "001", "002", "009"],
        "latitude": [40.0, 40.1, 40.2, 50.0],
        "longitude": [116.0, 116.0, 116.0, 100.0],
    }
    path = tsl_file(tmp_path / "a.h5", stations, layout)
    store = ingest(path, tmp_path / "s", neighbours=1)
    np.testing.assert_array_equal(stored(tmp_path / "s"), VALUES.astype(np.float32))
    np.testing.assert_allclose(store.graph.coordinates[:, 0], [40.1, 40.2, 40.0])
    assert any("eval_mask of a.h5 marks readings" in note for note in store.notes)
    with pytest.raises(DataError, match=r"no table or dataset 'pm10'.*stations"):
        ingest(path, tmp_path / "t", values="pm10")


def test_stations_of_other_sensors_are_left_out(tmp_path: Path) -> None:
    """A table that lacks a sensor is no graph of the readings, and a note names the sensor."""
    stations = {"id": ["001", "002"], "lat": [40.0, 40.1], "lon": [116.0, 116.0]}
    store = ingest(tsl_file(tmp_path / "a.h5", stations), tmp_path / "s")
    assert store.graph.coordinates is None
    assert any("no location of the sensor '003'" in note for note in store.notes)


def test_attributes_of_plain_datasets(tmp_path: Path) -> None:
    """Fill values and scales are honored as in NetCDF, in pieces or whole."""
    codes = np.array([[643, -1, 12], [7, 8, 9999]], dtype=np.int16)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["speed"] = codes
        file["speed"].attrs.update(_FillValue=np.int16(-1), missing_value=9999, scale_factor=0.1)
    for budget in (1, 1 << 20):
        store = ingest(tmp_path / "a.h5", tmp_path / "s", budget_bytes=budget, overwrite=True)
        expected = np.array([[64.3, np.nan, 1.2], [0.7, 0.8, np.nan]], dtype=np.float32)
        np.testing.assert_array_equal(stored(tmp_path / "s"), expected)
    assert store.meta.dtype == "int16"


def test_chunks_of_any_shape(tmp_path: Path) -> None:
    """Chunks that are long in time are read once each, however small the budget."""
    cube = np.round(np.random.default_rng(2).normal(60, 9, (40, 5, 2)), 1)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("long", data=cube, chunks=(40, 2, 1), compression="gzip")
        file.create_dataset("late", data=cube.transpose(1, 2, 0), chunks=(5, 1, 7))
    for key, axes in (("long", ()), ("late", ("sensor", "channel", "time"))):
        for budget in (1, 3000, 1 << 20):
            options = IngestOptions(values=(key,), axes=axes, budget_bytes=budget)
            store = ingest(tmp_path / "a.h5", tmp_path / "s", options, overwrite=True)
            np.testing.assert_array_equal(store.read(0, 40), cube.astype(np.float32))


def test_axes_of_plain_datasets(tmp_path: Path) -> None:
    """Datasets with other axes are read by their names."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("speed", data=np.nan_to_num(VALUES).T, chunks=(2, 3))
    store = ingest(tmp_path / "a.h5", tmp_path / "s", axes=("sensor", "time"))
    assert store.meta.num_steps == 4
    ingest(tmp_path / "a.h5", tmp_path / "t", transpose=True)
    np.testing.assert_array_equal(stored(tmp_path / "s"), stored(tmp_path / "t"))
    np.testing.assert_array_equal(stored(tmp_path / "s"), np.nan_to_num(VALUES).astype("f4"))


def test_dimension_scales_and_netcdf_under_another_name(tmp_path: Path) -> None:
    """Scales of which one is times label the axes; NetCDF is read whatever its name."""
    xr = pytest.importorskip("xarray", reason="xarray is not installed")
    pytest.importorskip("h5netcdf", reason="h5netcdf is not installed")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["speed"] = VALUES.T
        file["time"], file["station"] = np.arange(4) * 300, np.array([b"x", b"y", b"z"])
        file["time"].attrs["units"] = "seconds since 2012-03-01"
        for place, name in enumerate(("station", "time")):
            file[name].make_scale(name)
            file["speed"].dims[place].attach_scale(file[name])
    store = ingest(tmp_path / "a.h5", tmp_path / "s")
    np.testing.assert_array_equal(stored(tmp_path / "s"), VALUES.astype(np.float32))
    assert (store.meta.node_ids, store.meta.interval_seconds) == (("x", "y", "z"), 300)
    array = xr.DataArray(VALUES, dims=("time", "node"), coords={"time": TIMES}, name="speed")
    array.to_netcdf(tmp_path / "b.h5", engine="h5netcdf")
    assert ingest(tmp_path / "b.h5", tmp_path / "t").meta.start == "2012-03-01T00:00:00"


def test_netcdf4_python(tmp_path: Path) -> None:
    """A file that netCDF4-python wrote, with its default fill value where nothing was written."""
    netCDF4 = pytest.importorskip("netCDF4", reason="netCDF4 is not installed")
    pytest.importorskip("h5netcdf", reason="h5netcdf is not installed")
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        file.createDimension("time", None)
        file.createDimension("station", 2)
        file.createVariable("time", "f8", ("time",)).units = "hours since 2000-01-01"
        file.createVariable("flow", "i2", ("time", "station"))
        file["time"][:] = np.arange(3)
        file["flow"][0:2] = [[1, 2], [3, 4]]
    store = ingest(tmp_path / "a.nc", tmp_path / "s")
    np.testing.assert_array_equal(stored(tmp_path / "s")[:2], [[1, 2], [3, 4]])
    assert np.isnan(stored(tmp_path / "s")[2]).all()
    assert store.meta.interval_seconds == 3600


def _virtual(file: "h5py.File", path: Path) -> None:
    layout = h5py.VirtualLayout(shape=(20, 3), dtype="f8")
    layout[:] = h5py.VirtualSource(str(path), "v", shape=(20, 3))
    file.create_virtual_dataset("speed", layout)


LEADING: dict[str, Callable[["h5py.File", Path], object]] = {
    "external storage": lambda file, path: file.create_dataset(
        "speed", (8, 2), "u1", external=[(str(path), 0, 16)]
    ),
    "a virtual dataset": _virtual,
    "a link": lambda file, path: file.__setitem__("speed", h5py.ExternalLink(str(path), "/v")),
}


@pytest.mark.parametrize("kind", LEADING)
@pytest.mark.parametrize("suffix", [".h5", ".nc", ".mat"])
def test_files_that_lead_to_others_are_refused(tmp_path: Path, kind: str, suffix: str) -> None:
    """Any file could be read as raw storage, and what is not found would be read as zeros."""
    (tmp_path / "other.txt").write_text("something private\n")
    with h5py.File(tmp_path / f"a{suffix}", "w") as file:
        LEADING[kind](file, tmp_path / "other.txt")
    with pytest.raises(DataError, match=r"^speed of a\..*other\.txt.*: give th"):
        ingest(tmp_path / f"a{suffix}", tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_what_was_never_written(tmp_path: Path) -> None:
    """It would be read as the fill value: refused as a whole, said of a part, fine as missing."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("none", (10**12, 3), "f4", chunks=(1000, 3))
        part = file.create_dataset("part", (40, 3), "f4", chunks=(10, 3))
        part[:10] = 1.5
        nan = file.create_dataset("nan", (40, 3), "f4", chunks=(10, 3), fillvalue=np.nan)
        nan[:10] = 1.5
    with pytest.raises(DataError, match=r"none of a\.h5 has the shape .* nothing was written"):
        ingest(tmp_path / "a.h5", tmp_path / "s", values=("none",))
    store = ingest(tmp_path / "a.h5", tmp_path / "part", values=("part",))
    assert any("3 of the 4 chunks of part" in note for note in store.notes)
    store = ingest(tmp_path / "a.h5", tmp_path / "nan", values=("nan",))
    assert np.isnan(stored(tmp_path / "nan")[10:]).all()
    assert not any("chunks" in note for note in store.notes)


def test_what_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and chunks of any claimed size are refused before they are read."""
    monkeypatch.setattr("pgti.ingestion.arrays.chunked.available_bytes", lambda: 1 << 20)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        wide = file.create_dataset("wide", (10, 10**9), "f4", chunks=(1, 1000))
        tall = file.create_dataset("tall", (10**6, 4), "f4", chunks=(10**5, 4), compression=1)
        wide[0, 0] = tall[0, 0] = 1
    with pytest.raises(DataError, match=r"wide of a\.h5 .*MiB for one row"):
        ingest(tmp_path / "a.h5", tmp_path / "s", values=("wide",))
    with pytest.raises(DataError, match=r"tall of a\.h5 is stored in chunks .*smaller chunks"):
        ingest(tmp_path / "a.h5", tmp_path / "s", values=("tall",), budget_bytes=1)


def test_ids_beside_the_readings(tmp_path: Path) -> None:
    """Ids in the group of the readings are theirs; other arrays are named with their shapes."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/speed"] = VALUES
        file["group/ids"] = [b"x", b"y", b"z"]
        file["ids"] = [b"of", b"others", b"here"]
        file["flows"] = np.zeros((4, 2, 3, 3))
    assert ingest(tmp_path / "a.h5", tmp_path / "s").meta.node_ids == ("x", "y", "z")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["data"] = np.zeros((4, 2, 3, 3))
    with pytest.raises(DataError, match=r"it has data float64 \(4, 2, 3, 3\): .* axes"):
        ingest(tmp_path / "b.h5", tmp_path / "t")


def test_fill_of_netcdf_without_a_word(tmp_path: Path) -> None:
    """Plain HDF5 that copies NetCDF's numbers without its attributes gets a note."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["speed"] = np.nan_to_num(VALUES, nan=9.969209968386869e36)
    store = ingest(tmp_path / "a.h5", tmp_path / "s")
    (note,) = (note for note in store.notes if "9.969" in note)
    assert "missing=(9.969209968386869e+36,)" in note
    store = ingest(tmp_path / "a.h5", tmp_path / "t", missing=(9.969209968386869e36,))
    assert np.isnan(stored(tmp_path / "t")).sum() == 1
