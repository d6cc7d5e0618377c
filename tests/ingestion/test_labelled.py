"""NetCDF, Zarr and xarray: dimensions, coordinates, packed numbers, chunks, and refusals."""

import json
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgti.errors import ConfigError, DataError, PgtiError
from pgti.ingestion import IngestOptions, append, ingest, open_readings
from pgti.ingestion.newer.newer import open_newer_series

xr = pytest.importorskip("xarray", reason="xarray is not installed")
pytest.importorskip("h5netcdf", reason="h5netcdf is not installed")
zarr = pytest.importorskip("zarr", reason="zarr is not installed")

TIMES = pd.date_range("2020-01-01", periods=30, freq="h")
LATITUDES, LONGITUDES = [52.5, 52.25, 52.0], [359.5, 359.75, 0.0, 0.25]


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings that other programs may not read text in Zarr 3."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def field(seed: int = 0) -> np.ndarray:
    """Temperatures [time, lat, lon] in hundredths."""
    return np.round(np.random.default_rng(seed).normal(280, 5, (30, 3, 4)), 2)


def grid(**attributes: object) -> "xr.Dataset":
    """A grid with one cell at sea and one missing reading."""
    values = field()
    values[:, 0, 1] = values[5, 1, 1] = np.nan
    return xr.Dataset(
        {"t2m": (("time", "lat", "lon"), values, {"units": "K", **attributes})},
        coords={
            "time": TIMES,
            "lat": ("lat", LATITUDES, {"units": "degrees_north"}),
            "lon": ("lon", LONGITUDES, {"units": "degrees_east"}),
        },
    )


def stations(**more: object) -> "xr.Dataset":
    """Two stations with names and coordinates."""
    return xr.Dataset(
        {"pm25": (("time", "station"), field()[:, 0, 2:], {"units": "ug m-3"})},
        coords={
            "time": TIMES,
            "station_name": ("station", np.array(["Köln", "Bonn"], dtype=object)),
            "lat": ("station", [50.94, 50.73]),
            "lon": ("station", [6.96, 7.1]),
            **more,
        },
    )


PACKED = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 273.15, "_FillValue": -32768}
WAYS: dict[str, Callable[[Path], object]] = {
    "NetCDF 4, long chunks": lambda path: to_netcdf(
        grid(), path, encoding={"t2m": {**PACKED, "chunksizes": (30, 1, 3), "zlib": True}}
    ),
    "NetCDF 4, longitude first": lambda path: to_netcdf(
        grid().transpose("lon", "lat", "time"), path
    ),
    "NetCDF 3": lambda path: to_netcdf(grid(), path, engine="scipy", unlimited_dims=["time"]),
    "Zarr 2": lambda path: to_zarr(grid().chunk(time=7), path, zarr_format=2),
    "Zarr 3": lambda path: to_zarr(grid().chunk(lon=3), path, zarr_format=3, consolidated=False),
    "in memory": lambda _: grid(),
    "Dask, short in time": lambda _: grid().chunk(time=4),
    "Dask, long in time": lambda _: grid().chunk(lat=2, lon=3),
    "DataArray": lambda _: grid().t2m,
}


def to_netcdf(dataset: "xr.Dataset", path: Path, **options: object) -> Path:
    """The dataset as a file."""
    dataset.to_netcdf(path / "a.nc", **{"engine": "h5netcdf", **options})
    return path / "a.nc"


def to_zarr(dataset: "xr.Dataset", path: Path, name: str = "a.zarr", **options: object) -> Path:
    """The dataset as a Zarr store."""
    with quiet():
        dataset.to_zarr(path / name, **options)
    return path / name


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("budget_bytes", [1, 5_000, 1 << 25])
def test_every_way_and_budget_gives_one_store(tmp_path: Path, way: str, budget_bytes: int) -> None:
    """Chunks of any shape are read as rows, with the cells that ever have a reading as sensors."""
    source = WAYS[way](tmp_path)
    store = ingest(source, tmp_path / "s", budget_bytes=budget_bytes, neighbours=2)
    expected = np.delete(grid().t2m.values.reshape(30, 12), 1, axis=1)
    if way == "NetCDF 4, longitude first":
        expected = np.delete(grid().t2m.values.transpose(0, 2, 1).reshape(30, 12), 3, axis=1)
    np.testing.assert_array_equal(store.read(0, 30)[..., 0], expected.astype(np.float32))
    meta = store.meta
    assert (meta.channels, meta.units, meta.dtype) == (("t2m",), ("K",), "int16")
    assert (meta.start, meta.interval_seconds) == ("2020-01-01T00:00:00", 3600)
    if way != "NetCDF 4, longitude first":
        assert meta.node_ids[:3] == ("52.5,359.5", "52.5,0", "52.5,0.25")
        np.testing.assert_array_equal(store.graph.coordinates[:2], [[52.5, -0.5], [52.5, 0.0]])
    assert store.graph.num_edges >= 2 * 11
    assert any(note.startswith("1 of the 12 cells") for note in store.notes)


def test_longitude_first_is_the_same_sensors(tmp_path: Path) -> None:
    """Sensors are in the order in which the grid is stored, each with its own readings."""
    store = ingest(WAYS["NetCDF 4, longitude first"](tmp_path), tmp_path / "s")
    place = store.meta.node_ids.index("0.25,52")
    np.testing.assert_array_equal(store.read(0, 30)[:, place, 0], np.float32(field()[:, 2, 3]))


@pytest.mark.parametrize("kind", ["nc", "zarr", "zarr.zip", "memory"])
def test_stations(tmp_path: Path, kind: str) -> None:
    """Names are ids, coordinates make a graph, and a single variable needs no name."""
    source: object = stations()
    if kind == "nc":
        source = to_netcdf(stations(), tmp_path)
    elif kind.startswith("zarr"):
        source = to_zarr(stations(), tmp_path, zarr_format=2)
        if kind == "zarr.zip":
            with zarr.storage.ZipStore(tmp_path / "a.zarr.zip", mode="w") as store, quiet():
                stations().to_zarr(store, zarr_format=2)
            source = tmp_path / "a.zarr.zip"
    stored = ingest(source, tmp_path / "s", neighbours=1)
    assert stored.meta.node_ids == ("Köln", "Bonn")
    assert stored.meta.units == ("ug m-3",)
    assert stored.graph.num_edges == 2
    np.testing.assert_array_equal(stored.read(0, 30)[..., 0], field()[:, 0, 2:].astype("f4"))


def test_several_variables(tmp_path: Path) -> None:
    """One of several must be named; several become channels with their units."""
    dataset = grid().drop_vars("lat").assign(tp=grid().t2m * 2)
    dataset.tp.attrs["units"] = "mm"
    with pytest.raises(DataError, match=r"2 variables.*t2m \(time 30, lat 3, lon 4\), tp"):
        ingest(dataset, tmp_path / "s")
    store = ingest(dataset, tmp_path / "s", values=("tp", "t2m"), budget_bytes=1000)
    assert (store.meta.channels, store.meta.units) == (("tp", "t2m"), ("mm", "K"))
    values = store.read(0, 30)
    np.testing.assert_array_equal(values[..., 0], values[..., 1] * 2)


def test_dimension_of_channels(tmp_path: Path) -> None:
    """Channels along a dimension have its labels, whatever their place."""
    values = np.moveaxis(field(), 2, 0)
    array = xr.DataArray(values, dims=("feature", "time", "node"), name="x")
    array = array.assign_coords(feature=list("abcd"), time=TIMES, node=[7, 8, 9])
    for budget in (1, 1 << 20):
        store = ingest(array, tmp_path / "s", budget_bytes=budget, overwrite=True)
        assert store.meta.channels == ("a", "b", "c", "d")
        assert store.meta.node_ids == ("7", "8", "9")
        np.testing.assert_array_equal(store.read(0, 30), field().astype("f4"))


def test_one_series(tmp_path: Path) -> None:
    """A variable along time alone is one sensor."""
    store = ingest(stations().pm25.isel(station=0), tmp_path / "s")
    assert store.meta.num_nodes == 1


def test_curvilinear_grid(tmp_path: Path) -> None:
    """Coordinates of two dimensions; ids count rows and columns."""
    lat, lon = np.meshgrid(LATITUDES, [10.0, 11.0, 12.0, 13.0], indexing="ij")
    dataset = grid().rename(lat="south_north", lon="west_east")
    dataset = dataset.drop_vars(["south_north", "west_east"]).assign_coords(
        XLAT=(("south_north", "west_east"), lat + 0.1),
        XLONG=(("south_north", "west_east"), lon),
    )
    store = ingest(to_netcdf(dataset, tmp_path), tmp_path / "s", neighbours=2)
    assert store.meta.node_ids[:2] == ("0,0", "0,2")
    np.testing.assert_allclose(store.graph.coordinates[1], [52.6, 12.0])


def test_char_ids_and_scalar_level(tmp_path: Path) -> None:
    """Characters along a dimension of their own are text; a level of one entry is no axis."""
    dataset = stations().drop_vars("station_name").expand_dims(height=[2.0], axis=1)
    dataset["station_id"] = ("station", np.array([b"AB1 ", b"XY22"], dtype="S4"))
    path = to_netcdf(dataset, tmp_path, engine="scipy")
    assert ingest(path, tmp_path / "s").meta.node_ids == ("AB1", "XY22")
    assert ingest(path, tmp_path / "t", ids="station_id").meta.node_ids == ("AB1", "XY22")
    with pytest.raises(ConfigError, match=r"ids='height' of a.nc has the dimensions"):
        ingest(path, tmp_path / "u", ids="height")


@pytest.mark.parametrize(
    ("units", "option", "zone", "start"),
    [
        ("hours since 2020-01-01", None, None, "2020-01-01T00:00:00"),
        ("hours since 2020-01-01 00:00 UTC", None, "UTC", "2020-01-01T00:00:00"),
        ("hours since 2020-01-01 00:00 +02:00", "Europe/Rome", "Europe/Rome", "2019-12-31T22:00"),
        ("hours since 2020-01-01", "Europe/Rome", "Europe/Rome", "2020-01-01T00:00:00"),
    ],
)
def test_zones(
    tmp_path: Path, units: str, option: str | None, zone: str | None, start: str
) -> None:
    """Times without an offset are UTC by CF where the user names a zone, and a note says so."""
    dataset = stations().assign_coords(time=("time", np.arange(30), {"units": units}))
    path = to_netcdf(dataset, tmp_path)
    store = ingest(path, tmp_path / "s", time_zone=option)
    assert store.meta.time_zone == zone
    assert store.meta.start.startswith(start)
    assert any("CF says" in note for note in store.notes) == (
        option is not None and "00:00" not in units
    )
    later = dataset.assign_coords(time=("time", np.arange(30, 60), {"units": units}))
    grown = append(store, to_netcdf(later, tmp_path))
    assert grown.meta.num_steps == 60


def test_newer_file_of_a_grid(tmp_path: Path) -> None:
    """An append recalls the variable; cells at sea are no sensors of it."""
    dataset = grid().assign(tp=grid().t2m)
    store = ingest(to_netcdf(dataset, tmp_path), tmp_path / "s", values="t2m")
    later = dataset.assign_coords(time=dataset.time + np.timedelta64(30, "h"))
    grown = append(store, to_netcdf(later, tmp_path))
    np.testing.assert_array_equal(grown.read(30, 60), grown.read(0, 30))


def test_calendar_without_leap_days(tmp_path: Path) -> None:
    """Dates are civil ones of the same name: the leap day is a gap, which an option fills."""
    times = ("time", np.arange(57, 87), {"units": "days since 2020-01-01", "calendar": "noleap"})
    path = to_netcdf(stations().assign_coords(time=times), tmp_path)
    with pytest.raises(DataError, match=r"gaps"):
        ingest(path, tmp_path / "s")
    store = ingest(path, tmp_path / "s", gaps="fill")
    assert store.meta.num_steps == 31
    assert np.isnan(store.read(2, 3)).all()
    assert any("lacks 29 February" in note for note in store.notes)


def test_cftime_in_memory(tmp_path: Path) -> None:
    """Dates of cftime are read as those in files."""
    times = xr.date_range("2021-01-01", periods=30, freq="h", calendar="noleap", use_cftime=True)
    store = ingest(stations().assign_coords(time=times), tmp_path / "s")
    assert store.meta.start == "2021-01-01T00:00:00"


def ragged() -> "xr.Dataset":
    """Series of different lengths one after another, as CF's section 9.3.3 has them."""
    return xr.Dataset(
        {
            "temp": ("obs", np.arange(5.0)),
            "row_size": ("station", [2, 3], {"sample_dimension": "obs"}),
        },
        coords={"time": ("obs", TIMES[:5])},
        attrs={"featureType": "timeSeries"},
    )


@pytest.mark.parametrize(
    ("dataset", "options", "match"),
    [
        (lambda: grid().expand_dims(level=[1, 2], axis=1), {}, r"dimension level could.*axes="),
        (lambda: grid().rename(lat="a").drop_vars("a"), {}, r"dimension a could be.*axes="),
        (lambda: grid().rename(time="run", lat="a", lon="b").drop_vars("run"), {},
         r"no variable of .* has a dimension of times; it has t2m \(run 30"),
        (ragged, {}, r"row_size says which station.*long table"),
        (grid, {"values": "u10"}, r"no variable 'u10' that could be used; it has t2m"),
        (grid, {"axes": ("time", "sensor")}, r"names 2 dimensions, and .* has t2m"),
        (grid, {"axes": ("lat", "sensor", "node")}, r"none of them is time"),
        (lambda: grid(scale_factor="x"), {}, r"scale_factor of t2m of the Dataset is 'x'"),
        (lambda: grid() * np.nan, {}, r"every reading of t2m of the Dataset is missing"),
        (lambda: grid().isel(time=slice(0, 0)), {}, r"no entry along time"),
        (lambda: grid().isel(time=[0, 1, 1]), {}, r"same time"),
        (lambda: grid().isel(time=[0, 2, 1]), {}, r"sort the rows"),
        (lambda: grid().assign_coords(time=np.arange(30.0)), {}, r"of the unit None: give it"),
        (lambda: stations(late=("time", TIMES)).drop_vars("time").assign_coords(t2=("time", TIMES)),
         {}, r"2 variables of times along time \(late, t2\)"),
    ],
)  # fmt: skip
def test_refusals(
    tmp_path: Path, dataset: Callable[[], object], options: dict[str, object], match: str
) -> None:
    """One line says what could be two things, and which option says it."""
    with pytest.raises((DataError, ConfigError), match=match):
        ingest(dataset(), tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


def test_axes_say_what_is_not_known(tmp_path: Path) -> None:
    """Named in their order, dimensions of any names are read."""
    dataset = grid().rename(time="run", lat="a", lon="b").fillna(0)
    store = ingest(dataset, tmp_path / "s", axes=("time", "row", "column"))
    np.testing.assert_array_equal(
        store.read(0, 30)[..., 0], dataset.t2m.values.reshape(30, 12).astype("f4")
    )
    assert store.meta.start == "2020-01-01T00:00:00"
    channels = ingest(dataset, tmp_path / "c", axes=("time", "sensor", "channel"))
    assert channels.meta.channels == ("359.5", "359.75", "0", "0.25")


def test_times_that_count_rows(tmp_path: Path) -> None:
    """Row numbers are no times, and a note says so."""
    store = ingest(grid().assign_coords(time=np.arange(30)), tmp_path / "s")
    assert store.meta.start is None
    assert any("only counts the rows" in note for note in store.notes)


def test_basins(tmp_path: Path) -> None:
    """CAMELS: dates of each basin, the basins first."""
    dates = pd.date_range("1980-10-01", periods=30)
    basins = np.array(["01013500", "01022500", "01030500", "01031500"], dtype=object)
    flows = xr.DataArray(field()[:, 0].T, dims=("basin", "date"), coords=(basins, dates))
    store = ingest(to_netcdf(flows.to_dataset(name="streamflow"), tmp_path), tmp_path / "s")
    assert store.meta.node_ids == tuple(basins)
    np.testing.assert_array_equal(store.read(0, 30)[..., 0], field()[:, 0].astype(np.float32))


def test_groups(tmp_path: Path) -> None:
    """Variables in groups are named with their group."""
    grid().to_netcdf(tmp_path / "a.nc", engine="h5netcdf", group="surface")
    with pytest.raises(DataError, match=r"groups \(surface\).*values='surface/variable'"):
        ingest(tmp_path / "a.nc", tmp_path / "s")
    assert ingest(tmp_path / "a.nc", tmp_path / "s", values="surface/t2m").meta.num_nodes == 11


def test_fills_of_netcdf(tmp_path: Path) -> None:
    """What NetCDF writes where nothing was written is missing, without any attribute."""
    dataset = stations()
    dataset.pm25.values[3, 0] = np.float64(9.9692099683868690e36)
    dataset.pm25.encoding["_FillValue"] = None
    store = ingest(to_netcdf(dataset, tmp_path), tmp_path / "s")
    assert np.isnan(store.read(3, 4)[0, 0, 0])


def test_hostile_files(tmp_path: Path) -> None:
    """Damaged files, pickled objects and rows beyond all memory are one line."""
    (tmp_path / "a.nc").write_bytes(b"CDF\x05" + bytes(100))
    with pytest.raises(DataError, match=r"CDF-5.*nccopy"):
        ingest(tmp_path / "a.nc", tmp_path / "s")
    whole = to_netcdf(grid(), tmp_path).read_bytes()
    (tmp_path / "b.nc").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"b.nc cannot be read as"):
        ingest(tmp_path / "b.nc", tmp_path / "s")
    group = zarr.open_group(tmp_path / "p.zarr", mode="w", zarr_format=2)
    group.create_array("x", shape=(3, 2), chunks=(3, 2), dtype="f8")
    described = json.loads((tmp_path / "p.zarr/x/.zarray").read_text())
    described |= {"filters": [{"id": "pickle", "protocol": 5}], "dtype": "|O", "fill_value": None}
    (tmp_path / "p.zarr/x/.zarray").write_text(json.dumps(described))
    with pytest.raises(DataError, match=r"p.zarr cannot be read as Zarr.*pickle"):
        ingest(tmp_path / "p.zarr", tmp_path / "s")
    huge = zarr.open_group(tmp_path / "h.zarr", mode="w", zarr_format=3)
    huge.create_array(
        "x", shape=(10, 10**13), chunks=(1, 10), dtype="f4", dimension_names=("time", "node")
    )
    with pytest.raises(DataError, match=r"x of h.zarr .* for one row"):
        ingest(tmp_path / "h.zarr", tmp_path / "s")


@pytest.mark.parametrize("engine", ["scipy", "h5netcdf"])
def test_changed_bytes(tmp_path: Path, engine: str) -> None:
    """Whatever bytes of a header are changed, there is a store or one line."""
    whole, rng = to_netcdf(stations(), tmp_path, engine=engine).read_bytes(), random.Random(4)
    for _ in range(40):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 5)):
            content[rng.randrange(min(len(content), 3000))] = rng.randrange(256)
        (tmp_path / "b.nc").write_bytes(content)
        try:
            ingest(tmp_path / "b.nc", tmp_path / "s", overwrite=True)
        except PgtiError as error:
            assert "\n" not in str(error)  # noqa: PT017 - most are stores


def test_huge_chunk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that does not fit into memory is refused with its size."""
    path = to_netcdf(grid(), tmp_path, encoding={"t2m": {"chunksizes": (30, 3, 4)}})
    monkeypatch.setattr("pgti.ingestion.arrays.chunked.available_bytes", lambda: 4000)
    with pytest.raises(DataError, match=r"stored in chunks of .*30 x 3 x 4"):
        sum(len(each.values) for each in open_readings(path, IngestOptions()).chunks(1000))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_order_chunks_and_packing_equal_xarray(data: st.DataObject) -> None:
    """Whatever the order of dimensions, chunks, dtype and budget, values are xarray's."""
    sizes = {"time": data.draw(st.integers(2, 9)), "lat": 3, "lon": data.draw(st.integers(1, 4))}
    order = data.draw(st.permutations(list(sizes)))
    packing = data.draw(st.sampled_from([{}, {"dtype": "f4"}, {**PACKED, "scale_factor": 0.05}]))
    seed = data.draw(st.integers(0, 99))
    values = np.random.default_rng(seed).normal(280, 5, [sizes[dim] for dim in order]).round(1)
    values.reshape(-1)[seed % values.size] = np.nan
    dataset = xr.Dataset(
        {"x": (order, values)},
        coords={"time": TIMES[: sizes["time"]], "lat": LATITUDES, "lon": range(sizes["lon"])},
    )
    encoding: dict[str, object] = dict(packing)
    if data.draw(st.booleans()):
        encoding["chunksizes"] = tuple(data.draw(st.integers(1, sizes[dim])) for dim in order)
    with TemporaryDirectory() as directory:
        path = to_netcdf(dataset, Path(directory), encoding={"x": encoding})
        budget = data.draw(st.sampled_from([1, 200, 1 << 20]))
        store = ingest(path, Path(directory) / "s", budget_bytes=budget)
        with xr.open_dataset(path, engine="h5netcdf") as opened:
            space = [dim for dim in order if dim != "time"]
            expected = opened.x.transpose("time", *space).values.reshape(sizes["time"], -1)
        seen = ~np.isnan(expected).all(axis=0)
        np.testing.assert_allclose(
            store.read(0, sizes["time"])[..., 0], expected[:, seen].astype("f4"), rtol=2e-7
        )


def test_daily_files(tmp_path: Path) -> None:
    """A pattern of files is one series, of all cells that one of them has, in one unit."""
    dataset = grid()
    dataset.t2m.values[:15, 0, 0] = np.nan
    for day, first in (("b", 0), ("a", 15)):
        part = dataset.isel(time=slice(first, first + 15))
        part.to_netcdf(tmp_path / f"{day}.nc", engine="h5netcdf")
    store = ingest(str(tmp_path / "*.nc"), tmp_path / "s", neighbours=2)
    place = store.meta.node_ids.index("52.5,359.5")
    np.testing.assert_array_equal(
        store.read(0, 30)[:, place, 0], dataset.t2m.values[:, 0, 0].astype("f4")
    )
    assert (store.meta.num_nodes, store.meta.units) == (11, ("K",))
    np.testing.assert_array_equal(store.graph.coordinates[place], [52.5, -0.5])
    dataset.t2m.attrs["units"] = "degC"
    dataset.isel(time=slice(0, 15)).to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    with pytest.raises(DataError, match=r"t2m is in degC in b.nc and in K in a.nc"):
        ingest(str(tmp_path / "*.nc"), tmp_path / "t")


def test_newer_readings_recall_axes_and_variables(tmp_path: Path) -> None:
    """Newer arrays are read with the axes, the variable and the ids of the series."""
    dataset = grid().rename(time="run", lat="a", lon="b").fillna(0).assign(other=grid().t2m)
    options = {"axes": ("time", "row", "column"), "values": "t2m"}
    path = to_netcdf(dataset, tmp_path)
    store = ingest(path, tmp_path / "s", **options)
    later = dataset.assign_coords(run=dataset.run + np.timedelta64(30, "h"))
    (tmp_path / "later").mkdir()
    newer_path = to_netcdf(later, tmp_path / "later")
    with open_newer_series(newer_path, store) as newer:
        np.testing.assert_array_equal(newer.store.read(0, 30), store.read(0, 30))
        assert newer.store.time_axis.start_seconds == store.time_axis.start_seconds + 30 * 3600
        assert any("axes time,row,column" in note for note in newer.notes)
    assert append(store, later).meta.num_steps == 60
