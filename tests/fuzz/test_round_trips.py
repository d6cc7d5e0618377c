"""What other libraries write, in any of the ways that they have, is read back as it was."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import scipy.io
import xarray as xr
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy_format

import pgti

Draw = st.DrawFn
Choose = Callable[..., Any]


@dataclass(frozen=True)
class Written:
    """Readings [T, N] in a file.

    Attributes:
        frame: the readings, with their times and ids.
        path: of the file.
        has_names: whether the file has times and ids.
    """

    frame: pd.DataFrame
    path: Path
    has_names: bool = True


@st.composite
def frames(draw: Draw) -> pd.DataFrame:
    """Readings of any dtype; floats have missing ones, and all bits of float32."""
    rows, nodes = draw(st.integers(3, 30)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from(("<f4", "<f8", "<i2", "<i4", "<u1", "<u8")))
    values = rng.integers(0, 200, (rows, nodes)).astype(dtype)
    if dtype[1] == "f":
        shapes = (values / 8, rng.normal(size=values.shape) * 1e3, values * 1e30, values * 1e-30)
        values = draw(st.sampled_from(shapes)).astype(np.float32).astype(dtype)
        values[rng.random(values.shape) < draw(st.sampled_from((0.0, 0.2)))] = np.nan
        values[0] = 1.5
    freq = draw(st.sampled_from(("1min", "5min", "1h", "1D")))
    unit = draw(st.sampled_from(("s", "ms", "us", "ns")))
    first = draw(st.sampled_from(("1969-12-30", "2000-02-28", "2024-12-31 23:00", "2100-01-01")))
    times = pd.date_range(first, periods=rows, freq=freq, unit=unit, name="time")
    ids = draw(st.permutations(("north", "a b", "Süd", "北", "0x", "s6")))
    return pd.DataFrame(values, index=times, columns=ids[:nodes])


def _parquet(path: Path, frame: pd.DataFrame, choose: Choose) -> None:
    table = frame.reset_index() if choose(True, False) else frame
    pq.write_table(
        pa.Table.from_pandas(table),
        path,
        compression=choose("none", "snappy", "gzip", "brotli", "zstd", "lz4"),
        version=choose("1.0", "2.4", "2.6"),
        data_page_version=choose("1.0", "2.0"),
        use_dictionary=choose(True, False),
        row_group_size=choose(1, 7, 1000),
        data_page_size=choose(1, 1 << 20),
        write_statistics=choose(True, False),
        store_schema=choose(True, False),
        use_byte_stream_split=False,
        write_page_checksum=choose(True, False),
    )


def _feather(path: Path, frame: pd.DataFrame, choose: Choose) -> None:
    table = pa.Table.from_pandas(frame.reset_index() if choose(True, False) else frame)
    pyarrow.feather.write_feather(
        table,
        path,
        compression=choose("zstd", "lz4", "uncompressed"),
        chunksize=choose(1, 7, 1000),
    )


def _csv(path: Path, frame: pd.DataFrame, choose: Choose) -> None:
    # Python's bz2 and lzma write UTF-16 without its mark, and warn.
    encodings = ("utf-8", "utf-8-sig", *(() if path.suffix in (".bz2", ".xz") else ("utf-16",)))
    frame.to_csv(
        path,
        sep=choose(",", ";", "\t", "|"),
        quoting=choose(0, 1, 2),
        lineterminator=choose("\n", "\r\n"),
        encoding=choose(*encodings),
        compression="infer",
    )


def _npy(path: Path, frame: pd.DataFrame, choose: Choose) -> None:
    values = frame.to_numpy()
    values = values.astype(values.dtype.newbyteorder(choose("<", ">")))
    order: Any = choose("C", "F")
    with path.open("wb") as file:
        version = choose((1, 0), (2, 0))
        npy_format.write_array(file, np.asarray(values, order=order), version=version)


def _npz(path: Path, frame: pd.DataFrame, choose: Choose) -> None:
    values = np.asarray(frame.to_numpy(), order=choose("C", "F"))
    choose(np.savez, np.savez_compressed)(path, speed=values)


def _h5py(path: Path, frame: pd.DataFrame, choose: Choose) -> None:
    values = frame.to_numpy()
    values = values.astype(values.dtype.newbyteorder(choose("<", ">")))
    options: dict[str, Any] = {
        "chunks": (choose(1, 2, 3), 1),
        "compression": choose(None, "gzip", "lzf"),
        "shuffle": choose(True, False),
        "fletcher32": choose(True, False),
        "maxshape": choose(None, (None, None)),
    }
    with h5py.File(path, "w", libver=choose("earliest", "latest")) as file:
        file.create_dataset("speed", data=values, **(options if choose(True, False) else {}))


def _pandas_hdf5(path: Path, frame: pd.DataFrame, choose: Choose) -> None:
    frame = frame.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are no attributes of Python
        frame.to_hdf(path, key="df", format=choose("fixed", "table"), complevel=choose(0, 5))


def _matlab(path: Path, frame: pd.DataFrame, choose: Choose) -> None:
    assume(frame.shape[1] > 1)  # every array of MATLAB has two axes
    kind = choose("4", "5")
    values = frame.to_numpy()
    values = values.astype(np.float64) if kind == "4" else values
    scipy.io.savemat(path, {"speed": values}, format=kind, do_compression=choose(True, False))


def _dataset(frame: pd.DataFrame, choose: Choose) -> xr.Dataset:
    array = xr.DataArray(
        frame.to_numpy(),
        dims=("time", "station"),
        coords={"time": frame.index, "station": list(frame.columns)},
    )
    array = array.transpose() if choose(True, False) else array
    return array.to_dataset(name="speed")


def _netcdf(path: Path, frame: pd.DataFrame, choose: Choose) -> None:
    frame = frame.astype(np.float64) if frame.to_numpy().dtype.kind != "f" else frame
    dataset = _dataset(frame, choose)
    kind = choose("NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF4")
    stored: dict[str, Any] = {}
    if kind == "NETCDF4":
        stored = {"zlib": choose(True, False), "shuffle": choose(True, False)}
        stored["chunksizes"] = choose(None, (1,) * 2)
    units = choose("seconds since 1970-01-01", "days since 2000-01-01", "minutes since 1999-12-31")
    dataset.to_netcdf(
        path,
        engine="h5netcdf" if kind == "NETCDF4" else "scipy",
        format=kind,
        encoding={"speed": stored, "time": {"units": units, "dtype": "float64"}},
        unlimited_dims=choose((), ("time",)) if dataset["speed"].dims[0] == "time" else (),
    )


def _zarr(path: Path, frame: pd.DataFrame, choose: Choose) -> None:
    dataset = _dataset(frame, choose)
    encoding = {"speed": {"chunks": choose(dataset["speed"].shape, (1, 1), (2, 2))}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other programs may not read text of this kind
        dataset.to_zarr(
            path, zarr_format=choose(2, 3), consolidated=choose(True, False), encoding=encoding
        )


Writer = Callable[[Path, pd.DataFrame, Choose], None]
WRITERS: dict[str, tuple[tuple[str, ...], Writer, bool]] = {
    "csv": ((".csv", ".csv.gz", ".csv.bz2", ".csv.xz", ".csv.zip"), _csv, True),
    "parquet": ((".parquet", ".pq"), _parquet, True),
    "feather": ((".feather", ".arrow"), _feather, True),
    "npy": ((".npy",), _npy, False),
    "npz": ((".npz",), _npz, False),
    "h5py": ((".h5", ".hdf5"), _h5py, False),
    "pandas HDF5": ((".h5",), _pandas_hdf5, True),
    "MATLAB": ((".mat",), _matlab, False),
    "NetCDF": ((".nc",), _netcdf, True),
    "Zarr": ((".zarr",), _zarr, True),
}


@pytest.mark.parametrize("name", WRITERS)
def test_round_trip(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    check(name, 15, tmp_path_factory)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_many_round_trips(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    check(name, 1000, tmp_path_factory)


def check(name: str, num_examples: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Readings, times and ids of the store are those that a library wrote."""
    suffixes, write, has_names = WRITERS[name]

    @settings(max_examples=num_examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(frame=frames(), data=st.data())
    def round_trip(frame: pd.DataFrame, data: st.DataObject) -> None:
        directory = tmp_path_factory.mktemp("trip")
        path = directory / f"a{data.draw(st.sampled_from(suffixes))}"
        write(path, frame, lambda *values: data.draw(st.sampled_from(values)))
        store = pgti.ingest(path, directory / "store")
        values = store.read(0, store.meta.num_steps)[..., 0]
        np.testing.assert_array_equal(values, frame.to_numpy().astype(np.float32))
        if has_names:
            assert store.meta.node_ids == tuple(frame.columns)
            assert store.meta.start == frame.index[0].isoformat()
            step = (frame.index[1] - frame.index[0]).total_seconds()
            assert store.meta.interval_seconds == step

    round_trip()
