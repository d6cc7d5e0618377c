"""Stores as xarray Datasets, and back."""

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import pgti
from pgti.errors import ConfigError, MissingExtraError
from pgti.store import SeriesStore

xr = pytest.importorskip("xarray", reason="xarray is not installed")

VALUES = np.round(np.random.default_rng(1).normal(50, 9, (20, 3, 2)), 1)
VALUES[3, 1, 0] = np.nan
GRAPH = pgti.SensorGraph.from_edges(
    3, [0, 1], [1, 2], [0.5, 1.5], np.array([[50.0, 6.0], [50.1, 6.1], [50.2, 6.2]])
)


def a_store(path: Path, **options: Any) -> SeriesStore:
    """A store of two channels with units, coordinates and edges."""
    columns = pd.MultiIndex.from_product(
        [["a", "b", "c"], ["speed", "flow"]], names=["sensor", "channel"]
    )
    frame = pd.DataFrame(
        VALUES.reshape(20, 6), index=pd.date_range("2024-03-30T20:00", periods=20, freq="h")
    ).set_axis(columns, axis=1)
    zone = options.pop("zone", None)
    if zone is not None:
        frame.index = frame.index.tz_localize("UTC").tz_convert(zone)
    return pgti.ingest(frame, path, graph=GRAPH, units=("km/h", ""), **options)


@pytest.mark.parametrize("options", [{}, {"zone": "Europe/Rome"}, {"exact": True}])
@pytest.mark.parametrize("by", ["memory", "dask", "netcdf", "zarr"])
def test_there_and_back(tmp_path: Path, by: str, options: dict[str, Any]) -> None:
    """A store made of the Dataset, in memory or from a file of it, is the same store."""
    store = a_store(tmp_path / "s", **options)
    source: Any = store.to_xarray()
    if by == "dask":
        source = source.chunk(time=7)
    elif by == "netcdf":
        pytest.importorskip("h5netcdf", reason="h5netcdf is not installed")
        source.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
        source = tmp_path / "a.nc"
    elif by == "zarr":
        pytest.importorskip("zarr", reason="zarr is not installed")
        source.to_zarr(tmp_path / "a.zarr", zarr_format=2)
        source = tmp_path / "a.zarr"
    again = pgti.ingest(
        source, tmp_path / "t", graph=store.graph, exact=options.get("exact", False)
    )
    assert again.fingerprint == store.fingerprint
    assert again.meta.time_zone == store.meta.time_zone
    assert again.meta.dtype == store.meta.dtype
    located = pgti.ingest(source, tmp_path / "u")
    np.testing.assert_array_equal(located.graph.coordinates, GRAPH.coordinates)


def test_what_it_holds(tmp_path: Path) -> None:
    """Readings, times in UTC, units and coordinates, whatever is indexed."""
    store = a_store(tmp_path / "s", zone="Europe/Rome")
    data = store.to_xarray()
    assert dict(data.sizes) == {"time": 20, "sensor": 3}
    assert data.speed.attrs == {"units": "km/h"}
    assert data.time.attrs == {"time_zone": "Europe/Rome"}
    assert data.time.values[0] == np.datetime64("2024-03-30T20:00")
    values = VALUES.astype(np.float32)
    np.testing.assert_array_equal(data.flow.values, values[..., 1])
    picked = data.speed.sel(sensor=["c", "a"]).isel(time=slice(None, None, -3))
    np.testing.assert_array_equal(picked, values[::-3, [2, 0], 0])
    np.testing.assert_array_equal(data.speed[3], values[3, :, 0])
    assert float(data.latitude.sel(sensor="b")) == 50.1
    copied = pickle.loads(pickle.dumps(data.speed))
    np.testing.assert_array_equal(copied, values[..., 0])


def test_only_what_is_indexed_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making the Dataset decodes nothing, and a row decodes a row."""
    store, sizes = a_store(tmp_path / "s"), []
    kind = type(store.codec)
    decode = kind.decode
    monkeypatch.setattr(
        kind, "decode", lambda codec, raw: sizes.append(raw.size) or decode(codec, raw)
    )
    data = store.to_xarray()
    assert sizes == []
    data.speed.isel(time=5).load()
    assert sizes == [3]


def test_without_times(tmp_path: Path) -> None:
    """A store without times gives a Dataset without them, which is read back."""
    store = pgti.ingest(VALUES, tmp_path / "s", channels=("x", "y"))
    data = store.to_xarray()
    assert "time" not in data.coords
    again = pgti.ingest(data, tmp_path / "t")
    assert again.fingerprint == store.fingerprint


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that collide, and a library that is not there."""
    store = pgti.ingest(VALUES, tmp_path / "s", channels=("x", "sensor"))
    with pytest.raises(ConfigError, match=r"the channel 'sensor' of .* name of a coordinate"):
        store.to_xarray()
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(MissingExtraError, match=r"xarray .*pgti\[netcdf\]"):
        store.to_xarray()
