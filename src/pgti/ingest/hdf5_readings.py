"""Readings in HDF5 files: tables written by pandas ("fixed" and "table") and plain datasets.

Files are read with h5py, in blocks of rows. PyTables, with which pandas writes them, unpickles
every attribute that it meets, and pickles from elsewhere are not trusted.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pgti.errors import MissingExtraError
from pgti.ingest.options import IngestOptions
from pgti.ingest.pandas_hdf5 import PandasTable, fixed_table, flexible_table, is_pandas
from pgti.ingest.readings import (
    Chunk,
    Readings,
    as_floats,
    check_series_shape,
    choose,
    numbered_row,
    reading,
    rows_per_chunk,
    stack,
)
from pgti.ingest.sensor_ids import ID_NAMES, find_ids
from pgti.ingest.times import seconds_of_numbers

__all__ = ["open_hdf5"]

_FORMAT = "HDF5 (if a compression filter is missing, rewrite it with `ptrepack --complib=zlib`)"


def open_hdf5(path: Path, options: IngestOptions) -> Readings:
    """Readings in an HDF5 file, under any key.

    Raises:
        DataError: if the file is damaged, or it is not clear which key is meant.
        MissingExtraError: if h5py is not installed.
    """
    h5py = _h5py()
    name = path.name
    with reading(name, _FORMAT), h5py.File(path, "r") as file:
        candidates = _candidates(h5py, file)
        wanted = tuple(key.strip("/") for key in options.values)
        keys = choose(name, candidates, wanted, "table or dataset", "tables or datasets")
        parts = [_open_key(path, file, key, options) for key in keys]
    readings = parts[0] if len(keys) == 1 else stack(parts, keys, name)
    return replace(readings, name=name)


def _h5py() -> Any:
    try:
        import h5py  # noqa: PLC0415 - an optional library
    except ImportError:
        raise MissingExtraError("h5py", "hdf5") from None
    return h5py


def _candidates(h5py: Any, file: Any) -> dict[str, str]:
    """The shape of each table that pandas wrote and of each other dataset of two or three axes."""
    tables: list[str] = []
    found: dict[str, str] = {}

    def visit(key: str, item: Any) -> None:
        if any(key.startswith(f"{table}/") for table in tables):
            return
        if is_pandas(item):
            tables.append(key)
            found[key] = "(pandas table)"
        elif isinstance(item, h5py.Dataset) and item.ndim in (2, 3) and item.dtype.kind in "iuf":
            found[key] = str(item.shape)

    file.visititems(visit)
    return found


def _open_key(path: Path, file: Any, key: str, options: IngestOptions) -> Readings:
    item = file[key]
    if not is_pandas(item):
        return _plain(path, file, key, options)
    is_fixed = "table" not in item
    table = (fixed_table if is_fixed else flexible_table)(item, f"{key} of {path.name}")
    return _table_readings(path, key, table)


def _plain(path: Path, file: Any, key: str, options: IngestOptions) -> Readings:
    name = f"{key} of {path.name}"
    dataset = file[key]
    shape: tuple[int, ...] = dataset.shape
    check_series_shape(name, shape, dataset.dtype)
    num_channels = shape[2] if len(shape) == 3 else 1

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        rows = rows_per_chunk(budget_bytes, shape[1] * num_channels)
        with reading(name, _FORMAT), _h5py().File(path, "r") as reopened:
            dataset = reopened[key]
            for first in range(0, shape[0], rows):
                values = as_floats(dataset[first : first + rows])
                yield Chunk(values=values.reshape(len(values), shape[1], num_channels))

    return Readings(
        name=name,
        num_rows=shape[0],
        num_nodes=shape[1],
        num_channels=num_channels,
        node_ids=_plain_ids(file, shape[1], options, path.name),
        chunks=chunks,
    )


def _plain_ids(
    file: Any,
    num_nodes: int,
    options: IngestOptions,
    name: str,
) -> tuple[str, ...] | None:
    wanted = options.ids
    keys = ID_NAMES if wanted is None else (wanted,)
    arrays = {key: file[key] for key in keys if hasattr(file.get(key), "dtype")}
    # h5py gives text of any length as objects, which are bytes.
    return find_ids(arrays, lambda key: file[key][:], num_nodes, wanted, name, kinds="iuSUO")


def _table_readings(path: Path, key: str, table: PandasTable) -> Readings:
    name = f"{key} of {path.name}"
    num_nodes = len(table.node_ids)
    check_series_shape(name, (table.num_rows, num_nodes), np.dtype(np.float64))

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        rows = rows_per_chunk(budget_bytes, num_nodes)
        with reading(name, _FORMAT), _h5py().File(path, "r") as reopened:
            for first in range(0, table.num_rows, rows):
                stop = min(first + rows, table.num_rows)
                values, times = table.read(reopened[key], first, stop)
                seconds = None
                if table.time_unit is not None:
                    seconds = seconds_of_numbers(times, table.time_unit, first, name, numbered_row)
                yield Chunk(values=values[..., np.newaxis], seconds=seconds)

    return Readings(
        name=name,
        num_rows=table.num_rows,
        num_nodes=num_nodes,
        num_channels=1,
        node_ids=table.node_ids,
        is_aware=table.is_aware,
        time_zone=table.time_zone,
        row_label=numbered_row,
        chunks=chunks,
    )
