"""Layouts of arrays, labelled arrays, frames, binary tables and several files."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import scipy.io
import xarray as xr

from .layouts import (
    BOTH,
    FLOW,
    IDS,
    NUM_STEPS,
    SPEED,
    TIMES,
    Layout,
    Stored,
    frame,
    long_frame,
    refused,
)

Make = Callable[[Path], object]
BARE = {"ids": None, "start": None, "interval": None}
GRID = np.arange(NUM_STEPS * 6, dtype=np.float64).reshape(NUM_STEPS, 2, 3) / 4
RING = np.roll(np.eye(3), 1, axis=1)


def _npy(array: np.ndarray) -> Make:
    def make(directory: Path) -> Path:
        np.save(directory / "a.npy", array)
        return directory / "a.npy"

    return make


def _npz(**arrays: np.ndarray) -> Make:
    def make(directory: Path) -> Path:
        np.savez(directory / "a.npz", **arrays)
        return directory / "a.npz"

    return make


def _h5(directory: Path, data: np.ndarray, **attributes: object) -> Path:
    with h5py.File(directory / "a.h5", "w") as file:
        file["speed"] = data
        file["speed"].attrs.update(attributes)
    return directory / "a.h5"


def _pandas_h5(directory: Path) -> Path:
    frame().to_hdf(directory / "a.h5", key="df")
    return directory / "a.h5"


def _mat(**arrays: object) -> Make:
    def make(directory: Path) -> Path:
        scipy.io.savemat(directory / "a.mat", arrays)
        return directory / "a.mat"

    return make


def _mat73(directory: Path) -> Path:
    with h5py.File(directory / "a.mat", "w", userblock_size=512) as file:
        file["speed"] = SPEED.T  # as MATLAB writes [steps, sensors]
        file["speed"].attrs["MATLAB_class"] = np.bytes_("double")
    with (directory / "a.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\x00\x02IM")
    return directory / "a.mat"


def _basicts(directory: Path) -> Path:
    data = BOTH.astype(np.float32)
    np.memmap(directory / "data.dat", dtype="float32", mode="w+", shape=data.shape)[:] = data
    described = {
        "name": "A",
        "shape": list(data.shape),
        "frequency (minutes)": 60,
        "feature_description": ["traffic speed", "traffic flow"],
    }
    (directory / "desc.json").write_text(json.dumps(described))
    return directory / "data.dat"


def _windows(order: np.ndarray) -> Make:
    def make(directory: Path) -> Path:
        starts = np.arange(NUM_STEPS - 5)[order]
        x = np.stack([FLOW[start : start + 3, :, None] for start in starts])
        y = np.stack([FLOW[start + 3 : start + 6, :, None] for start in starts])
        offsets = {"x_offsets": np.arange(-2, 1)[:, None], "y_offsets": np.arange(1, 4)[:, None]}
        np.savez(directory / "train.npz", x=x, y=y, **offsets)
        return directory / "train.npz"

    return make


def stations(packed: bool = False) -> xr.Dataset:
    """Readings of stations, as a labelled data set."""
    data = xr.DataArray(
        SPEED,
        dims=("time", "station"),
        coords={
            "time": TIMES,
            "station": list(IDS),
            "lat": ("station", [34.0, 34.1, 34.2]),
            "lon": ("station", [-118.0, -118.1, -118.2]),
        },
        attrs={"units": "mph"},
    )
    data.encoding = {"dtype": "int16", "scale_factor": 0.05, "_FillValue": -1} if packed else {}
    return data.to_dataset(name="speed")


def grid() -> xr.Dataset:
    """Readings on a grid of latitudes and longitudes."""
    coords = {"time": TIMES, "lat": [40.0, 39.75], "lon": [350.0, 350.25, 350.5]}
    return xr.DataArray(GRID, dims=("time", "lat", "lon"), coords=coords).to_dataset(name="t2m")


def _netcdf(data: xr.Dataset, **options: object) -> Make:
    def make(directory: Path) -> Path:
        data.to_netcdf(directory / "a.nc", **options)
        return directory / "a.nc"

    return make


def _zarr(version: int) -> Make:
    def make(directory: Path) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other programs may not read text of this kind
            stations().to_zarr(directory / "a.zarr", zarr_format=version, consolidated=False)
        return directory / "a.zarr"

    return make


def _parquet(table: pd.DataFrame, **options: object) -> Make:
    def make(directory: Path) -> Path:
        table.to_parquet(directory / "a.parquet", **options)
        return directory / "a.parquet"

    return make


def _feather(table: pd.DataFrame) -> Make:
    def make(directory: Path) -> Path:
        pyarrow.feather.write_feather(pa.Table.from_pandas(table), directory / "a.feather")
        return directory / "a.feather"

    return make


def _given(source: object) -> Make:
    return lambda _: source


def _several(tables: dict[str, pd.DataFrame]) -> Make:
    def make(directory: Path) -> list[Path]:
        for name, table in tables.items():
            table.to_csv(directory / name)
        return [directory / name for name in tables]

    return make


def _columns(values: np.ndarray, *levels: list[str], names: list[str | None]) -> pd.DataFrame:
    columns = pd.MultiIndex.from_product(levels, names=names)
    return pd.DataFrame(values.reshape(NUM_STEPS, -1), index=TIMES, columns=columns)


LABELLED = Stored(channels=("speed",))
ARRAYS = {
    ".npy [T, N]": Layout(make=_npy(SPEED), expected=Stored(**BARE), peer=np.load),
    ".npy [T, N, C]": Layout(make=_npy(BOTH), expected=Stored(values=BOTH, **BARE)),
    ".npy [N, T], said": Layout(
        make=_npy(SPEED.T), options={"axes": ("sensor", "time")}, expected=Stored(**BARE)
    ),
    ".npy [N, T], transposed": Layout(
        make=_npy(SPEED.T), options={"transpose": True}, expected=Stored(**BARE)
    ),
    ".npy [C, N, T]": Layout(
        make=_npy(BOTH.transpose(2, 1, 0)),
        options={"axes": ("channel", "sensor", "time")},
        expected=Stored(values=BOTH, **BARE),
    ),
    ".npy [N, T] with a graph of N nodes": Layout(
        make=_npy(SPEED.T), options={"graph": RING}, expected=refused("--transpose")
    ),
    ".npy [T, row, column]": Layout(
        make=_npy(GRID),
        options={"axes": ("time", "row", "column")},
        expected=Stored(
            values=GRID.reshape(NUM_STEPS, 6, 1),
            ids=("0,0", "0,1", "0,2", "1,0", "1,1", "1,2"),
            start=None,
            interval=None,
        ),
    ),
    ".npy 4-D without a word": Layout(
        make=_npy(GRID[..., None]), expected=refused("4-D", "--axes")
    ),
    ".npz, two arrays": Layout(
        make=_npz(speed=SPEED, flow=FLOW),
        options={"values": ("speed", "flow")},
        expected=Stored(values=BOTH, channels=("speed", "flow"), **BARE),
    ),
    ".npz of windows": Layout(
        make=_windows(np.arange(NUM_STEPS - 5)), expected=Stored(values=FLOW[..., None], **BARE)
    ),
    ".npz of shuffled windows": Layout(
        make=_windows(np.array([3, 0, 6, 1, 2, 5, 4])), expected=refused("consecutive")
    ),
    "HDF5 dataset": Layout(make=lambda d: _h5(d, SPEED), expected=Stored(**BARE)),
    "HDF5 with a fill value": Layout(
        make=lambda d: _h5(d, np.nan_to_num(SPEED, nan=1e20), _FillValue=1e20),
        expected=Stored(**BARE),
    ),
    "HDF5, packed": Layout(
        make=lambda d: _h5(
            d,
            np.nan_to_num(np.round((SPEED - 50) * 20), nan=-1).astype(np.int16),
            missing_value=np.int16(-1),
            scale_factor=0.05,
            add_offset=50.0,
        ),
        expected=Stored(**BARE),
    ),
    "HDF5 of pandas": Layout(
        make=_pandas_h5, peer=lambda path: np.asarray(pd.read_hdf(path, "df"))
    ),
    "MATLAB 5": Layout(
        make=_mat(speed=SPEED),
        expected=Stored(**BARE),
        peer=lambda path: scipy.io.loadmat(path)["speed"],
    ),
    "MATLAB 7.3": Layout(make=_mat73, expected=Stored(**BARE)),
    "MATLAB tensor of days": Layout(
        make=_mat(tensor=FLOW.T.reshape(3, 3, 4)),
        options={"axes": ("sensor", "day", "slot")},
        expected=Stored(values=FLOW[..., None], **BARE),
    ),
    "BasicTS": Layout(
        make=_basicts,
        expected=Stored(values=BOTH.astype(np.float32), ids=None, start=None, interval=3600),
    ),
}

LABELLED_ARRAYS = {
    "NetCDF 4 of stations": Layout(
        make=_netcdf(stations(), engine="h5netcdf"),
        expected=LABELLED,
        peer=lambda path: xr.load_dataset(path, engine="h5netcdf").speed.to_numpy(),
    ),
    "NetCDF 4, packed": Layout(
        make=_netcdf(stations(packed=True), engine="h5netcdf"), expected=LABELLED
    ),
    "NetCDF 3": Layout(make=_netcdf(stations(), engine="scipy"), expected=LABELLED),
    "NetCDF, stations first": Layout(
        make=_netcdf(stations().transpose(), engine="h5netcdf"), expected=LABELLED
    ),
    "NetCDF of a grid": Layout(
        make=_netcdf(grid(), engine="h5netcdf"),
        expected=Stored(values=GRID.reshape(NUM_STEPS, 6, 1), ids=None, channels=("t2m",)),
        peer=lambda path: xr.load_dataset(path, engine="h5netcdf").t2m.to_numpy().reshape(-1, 6),
    ),
    "NetCDF of two variables": Layout(
        make=_netcdf(stations().assign(flow=stations().speed * 0 + FLOW), engine="h5netcdf"),
        options={"values": ("speed", "flow")},
        expected=Stored(
            values=np.where(np.isnan(BOTH[..., :1]) & (FLOW[..., None] == BOTH), np.nan, BOTH),
            channels=("speed", "flow"),
        ),
    ),
    "NetCDF in 360 days": Layout(
        make=_netcdf(
            stations().assign_coords(
                time=("time", range(12), {"units": "days since 2000-02-28", "calendar": "360_day"})
            ),
            engine="h5netcdf",
        ),
        expected=refused("360_day"),
    ),
    "Zarr 2": Layout(make=_zarr(2), expected=LABELLED),
    "Zarr 3": Layout(make=_zarr(3), expected=LABELLED),
    "xarray Dataset": Layout(make=_given(stations()), expected=LABELLED),
    "xarray DataArray": Layout(make=_given(stations().speed), expected=LABELLED),
}

TABLES = {
    "Parquet, wide": Layout(
        make=_parquet(frame()),
        peer=lambda path: pl.read_parquet(path).to_numpy()[:, :3].astype(float),
    ),
    "Parquet, long": Layout(make=_parquet(long_frame(), index=False)),
    "Parquet, long, index of two levels": Layout(
        make=_parquet(long_frame().set_index(["time", "sensor"]))
    ),
    "Parquet, columns of two levels": Layout(
        make=_parquet(_columns(BOTH, list(IDS), ["speed", "flow"], names=["sensor", "channel"])),
        expected=Stored(values=BOTH, channels=("speed", "flow")),
    ),
    "Feather, wide": Layout(make=_feather(frame())),
    "Feather, long": Layout(make=_feather(long_frame())),
    "pandas, wide": Layout(make=_given(frame())),
    "pandas, long": Layout(make=_given(long_frame())),
    "pandas, long, index of two levels": Layout(
        make=_given(long_frame().set_index(["time", "sensor"]))
    ),
    "pandas, (channel, sensor) by name": Layout(
        make=_given(
            _columns(
                BOTH.transpose(0, 2, 1), ["speed", "flow"], list(IDS), names=["channel", "sensor"]
            )
        ),
        expected=Stored(values=BOTH, channels=("speed", "flow")),
    ),
    "pandas, two levels without names": Layout(
        make=_given(
            _columns(BOTH.transpose(0, 2, 1), ["speed", "flow"], list(IDS), names=[None, None])
        ),
        expected=refused("level"),
    ),
    "polars, wide": Layout(make=_given(pl.from_pandas(frame().reset_index(names="time")))),
    "polars, long": Layout(make=_given(pl.from_pandas(long_frame()))),
    "Arrow, wide": Layout(make=_given(pa.Table.from_pandas(frame().reset_index(names="time")))),
    "Arrow, long": Layout(make=_given(pa.Table.from_pandas(long_frame()))),
}

FILES = {
    "a file for each day": Layout(
        make=_several({"b.csv": frame().iloc[6:], "a.csv": frame().iloc[:6]})
    ),
    "files that overlap": Layout(
        make=_several({"a.csv": frame().iloc[:7], "b.csv": frame().iloc[5:] + 1}),
        expected=refused("a.csv", "b.csv"),
    ),
    "a file for each sensor": Layout(
        make=_several(
            {
                f"{name}.csv": pd.DataFrame({"speed": SPEED[:, i], "flow": FLOW[:, i]}, index=TIMES)
                for i, name in enumerate(IDS)
            }
        ),
        expected=Stored(values=BOTH, channels=("speed", "flow")),
    ),
    "a file for each channel": Layout(
        make=_several({"speed.csv": frame(SPEED), "flow.csv": frame(FLOW)}),
        expected=Stored(values=BOTH, channels=("speed", "flow")),
    ),
    "irregular times, resampled": Layout(
        make=lambda d: _several(
            {"a.csv": frame().set_index(TIMES + pd.to_timedelta(np.arange(12) * 97 % 59, "s"))}
        )(d)[0],
        options={"resample": "1h", "aggregate": "mean"},
    ),
    "Git LFS pointer": Layout(
        make=lambda d: _pointer(d / "metr-la.h5"), expected=refused("Git LFS", "git lfs pull")
    ),
    "a page in place of data": Layout(
        make=lambda d: _page(d / "speed.csv"), expected=refused("HTML")
    ),
}


def _pointer(path: Path) -> Path:
    path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 57038056\n"
    )
    return path


def _page(path: Path) -> Path:
    path.write_text("<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n")
    return path
