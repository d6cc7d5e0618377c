"""Files of readings of any size in every format, written piece by piece.

The readings are speeds in tenths that repeat after some rows: reading and storing them takes as
long as if they did not, but for compressed formats, which are written without compression.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["FORMATS", "options_of"]

_SENSORS = 1_000
_PIECE_ROWS = 2_048
_START = pd.Timestamp("2020-01-01")
_STEP = pd.Timedelta(minutes=5)
_VALUE_BYTES = 8  # of a float64

Floats = NDArray[np.float64]


def _speeds(num_sensors: int = _SENSORS) -> Floats:
    """Speeds [_PIECE_ROWS, num_sensors] in tenths."""
    return np.random.default_rng(0).integers(100, 800, (_PIECE_ROWS, num_sensors)) / 10


def _pieces(num_rows: int) -> Iterator[tuple[int, Floats]]:
    """First row of consecutive pieces of readings, and the pieces."""
    speeds = _speeds()
    for first in range(0, num_rows, _PIECE_ROWS):
        yield first, speeds[: num_rows - first]


def _times(first: int, count: int) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(_START + _STEP * np.arange(first, first + count))


def _rows(size: int, cell_bytes: int) -> int:
    return max(4, size // (_SENSORS * cell_bytes))


def _write_wide_text(path: Path, size: int, num_sensors: int = _SENSORS) -> None:
    num_rows = max(4, size // (5 * num_sensors))
    speeds = _speeds(num_sensors)[:num_rows]
    lines = [",".join(f"{value:.1f}" for value in row) for row in speeds]
    names = ",".join(f"s{sensor}" for sensor in range(num_sensors))
    with path.open("w") as file:
        file.write(f"time,{names}\n")
        for first in range(0, num_rows, _PIECE_ROWS):
            times = _times(first, len(lines)).strftime("%Y-%m-%d %H:%M:%S")
            file.writelines(f"{time},{line}\n" for time, line in zip(times, lines, strict=True))


def _write_long_text(path: Path, size: int, *, by_sensor: bool = False) -> None:
    num_rows = _rows(size, 32)
    speeds = _speeds()
    with path.open("w") as file:
        file.write("time,sensor,speed\n")
        if by_sensor:
            times = _times(0, num_rows).strftime("%Y-%m-%d %H:%M:%S").tolist()
            texts = [f"{value:.1f}" for value in np.resize(speeds[:, 0], num_rows)]
            for sensor in range(_SENSORS):
                cells = zip(times, texts, strict=True)
                file.writelines(f"{time},s{sensor:04},{text}\n" for time, text in cells)
            return
        tails = [
            [f",s{sensor:04},{value:.1f}\n" for sensor, value in enumerate(row)] for row in speeds
        ]
        for row in range(num_rows):
            time = str(_START + _STEP * row)
            file.writelines(time + tail for tail in tails[row % _PIECE_ROWS])


def _write_parquet(
    path: Path, size: int, *, is_long: bool = False, is_one_group: bool = False
) -> None:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    num_rows = _rows(size, 8 if is_one_group or not is_long else 11)
    names = [f"s{sensor}" for sensor in range(_SENSORS)]
    writer: Any = None
    for first, speeds in _pieces(num_rows):
        times = _times(first, len(speeds))
        if is_long:
            table = pa.table(
                {
                    "time": np.repeat(times.to_numpy(), _SENSORS),
                    "sensor": pa.array(np.tile(names, len(speeds))),
                    "speed": speeds.ravel(),
                }
            )
        else:
            columns = dict(zip(names, speeds.T.copy(), strict=True))
            table = pa.table({"time": times.to_numpy(), **columns})
        plain = {"compression": "none", "use_dictionary": ["sensor"] if is_long else False}
        writer = writer or pq.ParquetWriter(path, table.schema, **plain)
        writer.write_table(table, row_group_size=len(table))
    writer.close()


def _write_by_sensor(path: Path, size: int) -> None:
    num_rows = _rows(size, _VALUE_BYTES)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float64, shape=(_SENSORS, num_rows))
    speeds = _speeds()
    for sensor in range(_SENSORS):
        array[sensor] = np.resize(speeds[:, sensor], num_rows)


def _write_hdf5(path: Path, size: int, *, chunk_rows: int) -> None:
    import h5py  # noqa: PLC0415

    num_rows = _rows(size, _VALUE_BYTES)
    chunk_sensors = max(1, (1 << 17) // min(chunk_rows, num_rows))
    chunks = (min(chunk_rows, num_rows), min(_SENSORS, chunk_sensors))
    with h5py.File(path, "w") as file:
        data = file.create_dataset("speed", (num_rows, _SENSORS), np.float64, chunks=chunks)
        speeds = _speeds()
        if chunks[0] == num_rows:
            for first in range(0, _SENSORS, chunks[1]):
                wide = speeds[:, first : first + chunks[1]]
                data[:, first : first + chunks[1]] = np.resize(wide, (num_rows, wide.shape[1]))
            return
        for first, piece in _pieces(num_rows):
            data[first : first + len(piece)] = piece


def _write_netcdf(path: Path, size: int) -> None:
    import h5netcdf  # noqa: PLC0415

    num_rows = _rows(size, _VALUE_BYTES)
    with h5netcdf.File(path, "w") as file:
        file.dimensions = {"time": num_rows, "lat": 25, "lon": _SENSORS // 25}
        for name, values, attributes in (
            ("time", 5.0 * np.arange(num_rows), {"units": "minutes since 2020-01-01"}),
            ("lat", 50 - 0.25 * np.arange(25), {"units": "degrees_north"}),
            ("lon", 5 + 0.25 * np.arange(_SENSORS // 25), {"units": "degrees_east"}),
        ):
            variable = file.create_variable(name, (name,), float, data=values)
            variable.attrs.update(attributes)
        chunks = (min(256, num_rows), 25, _SENSORS // 25)
        data = file.create_variable("speed", ("time", "lat", "lon"), float, chunks=chunks)
        for first, piece in _pieces(num_rows):
            data[first : first + len(piece)] = piece.reshape(-1, 25, _SENSORS // 25)


def _write_zarr(path: Path, size: int, *, chunk_rows: int) -> None:
    import zarr  # noqa: PLC0415

    num_rows = _rows(size, _VALUE_BYTES)
    chunk_rows = min(chunk_rows, num_rows)
    chunks = (chunk_rows, max(1, min(_SENSORS, (1 << 20) // chunk_rows)))
    group = zarr.create_group(path, zarr_format=3)
    plain: Mapping[str, Any] = {"compressors": None, "dtype": "f8"}
    time = group.create_array("time", shape=(num_rows,), dimension_names=("time",), **plain)
    time[:] = 5.0 * np.arange(num_rows)
    time.attrs["units"] = "minutes since 2020-01-01"
    data = group.create_array(
        "speed",
        shape=(num_rows, _SENSORS),
        chunks=chunks,
        dimension_names=("time", "station"),
        **plain,
    )
    speeds = _speeds()
    for first in range(0, _SENSORS, chunks[1]):
        wide = speeds[:, first : first + chunks[1]]
        for row in range(0, num_rows, chunk_rows):
            rows = np.arange(row, min(row + chunk_rows, num_rows)) % _PIECE_ROWS
            data[row : row + chunk_rows, first : first + chunks[1]] = wide[rows]


_LONG_IN_TIME = 1 << 30  # rows of a chunk: all of them

FORMATS: Mapping[str, tuple[str, Callable[[Path, int], None]]] = {
    "CSV wide": ("a.csv", _write_wide_text),
    "CSV of 207 sensors": ("a.csv", lambda path, size: _write_wide_text(path, size, 207)),
    "CSV of 11,160 sensors": ("a.csv", lambda path, size: _write_wide_text(path, size, 11_160)),
    "CSV long by time": ("a.csv", _write_long_text),
    "CSV long by sensor": ("a.csv", lambda p, size: _write_long_text(p, size, by_sensor=True)),
    "Parquet wide": ("a.parquet", _write_parquet),
    "Parquet long": ("a.parquet", lambda path, size: _write_parquet(path, size, is_long=True)),
    ".npy by sensor": ("a.npy", _write_by_sensor),
    "HDF5": ("a.h5", lambda path, size: _write_hdf5(path, size, chunk_rows=256)),
    "HDF5 by sensor": (
        "a.h5",
        lambda path, size: _write_hdf5(path, size, chunk_rows=_LONG_IN_TIME),
    ),
    "NetCDF": ("a.nc", _write_netcdf),
    "Zarr": ("a.zarr", lambda path, size: _write_zarr(path, size, chunk_rows=256)),
    "Zarr by sensor": (
        "a.zarr",
        lambda path, size: _write_zarr(path, size, chunk_rows=_LONG_IN_TIME),
    ),
}
"""The file's name and what writes it, given its path and about how many bytes it has."""


def options_of(name: str) -> list[str]:
    """Options that `pgti ingest` needs for a format."""
    return ["--axes", "sensor,time"] if name == ".npy by sensor" else []
