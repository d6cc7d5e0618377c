"""Readings in HDF5 files: tables written by pandas ("fixed" and "table") and plain datasets.

Files are read with h5py, in blocks of rows. PyTables, with which pandas writes them, unpickles
every attribute that it meets, and pickles from elsewhere are not trusted.
"""

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import numpy as np
from numpy.typing import NDArray

from pgti.errors import DataError, MissingExtraError
from pgti.ingest.options import IngestOptions
from pgti.ingest.readings import (
    ID_NAMES,
    Chunk,
    Readings,
    as_floats,
    check_series_shape,
    choose_keys,
    find_ids,
    ids_to_text,
    numbered_row,
    reraise_read_errors,
    rows_per_chunk,
    stack,
)
from pgti.ingest.safe_pickle import loads_pickle
from pgti.ingest.times import epoch_seconds_of_numbers, zone_from_offset

__all__ = ["PandasTable", "is_pandas_table", "open_fixed_table", "open_flexible_table", "open_hdf5"]

_NAT = np.iinfo(np.int64).min

Node = Any  # an h5py group or dataset; h5py has no types


@dataclass(frozen=True, kw_only=True, slots=True)
class PandasTable:
    """A DataFrame in an HDF5 file.

    Args:
        num_rows: rows of the frame.
        node_ids: its columns.
        time_unit: "s", "ms", "us" or "ns" if its index is dates, else None.
        is_aware: whether the index is true times.
        time_zone: zone of the index, where it names one.
        read: `read(group, first, stop)` gives floats [rows, N] and the index as int64 [rows].
    """

    num_rows: int
    node_ids: tuple[str, ...]
    time_unit: str | None
    is_aware: bool
    time_zone: str | None
    read: Callable[[Node, int, int], tuple[NDArray[np.floating[Any]], NDArray[np.int64]]]


def is_pandas_table(item: Node) -> bool:
    """Whether an HDF5 item is a DataFrame that pandas wrote."""
    return "pandas_type" in item.attrs


def open_fixed_table(group: Node, name: str) -> PandasTable:
    """A frame in the "fixed" layout.

    Raises:
        DataError: if it is no frame of numbers with plain columns and index.
    """
    if _text(group.attrs["pandas_type"]) != "frame":
        raise DataError(f"{name} is a pandas {_text(group.attrs['pandas_type'])}: give a DataFrame")
    for axis in ("axis0", "axis1"):
        if _text(group.attrs.get(f"{axis}_variety", b"regular")) != "regular":
            raise DataError(f"{name} has several levels of rows or columns: give it one of each")
    node_ids = _labels(group["axis0"], name)
    num_blocks = int(group.attrs["nblocks"])
    positions = []
    for block in range(num_blocks):
        dataset = group[f"block{block}_values"]
        if dataset.dtype.kind not in "biuf":
            raise DataError(f"{name} holds columns of {dataset.dtype}, which are not numbers")
        items = _labels(group[f"block{block}_items"], name)
        positions.append(_positions(items, node_ids))
    index = group["axis1"]
    if "shape" in index.attrs:  # pandas writes one empty row and this mark for none
        raise DataError(f"{name} is an empty DataFrame: there are no rows")
    unit = _time_unit(index.attrs.get("kind", b""), index.attrs.get("index_class", b""), name)

    def read(
        group: Node, first: int, stop: int
    ) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]:
        pieces = [group[f"block{block}_values"][first:stop] for block in range(num_blocks)]
        times = group["axis1"][first:stop] if unit is not None else np.empty(0, np.int64)
        return _joined(pieces, positions, len(node_ids)), _checked_times(times, first, name)

    zone = index.attrs.get("tz")
    return PandasTable(
        num_rows=len(index),
        node_ids=node_ids,
        time_unit=unit,
        is_aware=zone is not None,
        time_zone=None if zone is None else _zone_in(_zone_words(zone)),
        read=read,
    )


def open_flexible_table(group: Node, name: str) -> PandasTable:
    """A frame in the "table" layout.

    Raises:
        DataError: if it is no frame of numbers with plain columns and index.
    """
    if _text(group.attrs["pandas_type"]) != "frame_table":
        raise DataError(f"{name} is a pandas {_text(group.attrs['pandas_type'])}: give a DataFrame")
    table = group["table"]
    fields = [field for field in table.dtype.names if field != "index"]
    ((_, columns),) = loads_pickle(_bytes(group.attrs["non_index_axes"]), name)
    if any(isinstance(column, tuple) for column in columns):
        raise DataError(f"{name} has several levels of columns: give it one")
    node_ids = ids_to_text(list(columns))
    positions = []
    for field in fields:
        base = table.dtype[field].base
        if base.kind not in "biuf":
            raise DataError(f"{name} holds columns of {base}, which are not numbers")
        items = loads_pickle(_bytes(table.attrs[f"{field}_kind"]), name)
        positions.append(_positions(ids_to_text(list(items)), node_ids))
    info = _words(_bytes(group.attrs.get("info", b"")))
    # A period is a whole number with a frequency, which alone tells it from row numbers.
    is_period = any(str(word).startswith("pandas._libs.tslibs") for word in info)
    unit = _time_unit(table.attrs.get("index_kind", b""), b"period" if is_period else b"", name)
    is_aware = unit is not None and "tz" in info

    def read(
        group: Node, first: int, stop: int
    ) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]:
        rows = group["table"][first:stop]
        times = rows["index"] if unit is not None else np.empty(0, np.int64)
        pieces = [rows[field].reshape(stop - first, -1) for field in fields]
        return _joined(pieces, positions, len(node_ids)), _checked_times(times, first, name)

    return PandasTable(
        num_rows=len(table),
        node_ids=node_ids,
        time_unit=unit,
        is_aware=is_aware,
        time_zone=_zone_in(info[info.index("tz") + 1 :]) if is_aware else None,
        read=read,
    )


def _joined(
    pieces: list[NDArray[Any]], positions: list[NDArray[np.int64]], num_nodes: int
) -> NDArray[np.floating[Any]]:
    if len(pieces) == 1 and np.array_equal(positions[0], np.arange(num_nodes)):
        return as_floats(pieces[0])
    floats = [as_floats(piece) for piece in pieces]
    joined = np.full((len(floats[0]), num_nodes), np.nan, np.result_type(*floats))
    for piece, places in zip(floats, positions, strict=True):
        joined[:, places] = piece
    return joined


def _positions(items: tuple[str, ...], node_ids: tuple[str, ...]) -> NDArray[np.int64]:
    if items == node_ids:
        return np.arange(len(items), dtype=np.int64)
    place = {label: position for position, label in enumerate(node_ids)}
    return np.array([place[item] for item in items], dtype=np.int64)


def _labels(dataset: Node, name: str) -> tuple[str, ...]:
    if dataset.dtype.kind not in "iufS":
        raise DataError(
            f"{name} has columns that pandas pickled ({dataset.dtype}): write it with plain text "
            "or whole numbers as columns"
        )
    return ids_to_text(dataset[:])


def _checked_times(times: NDArray[np.int64], first: int, name: str) -> NDArray[np.int64]:
    empty = np.flatnonzero(times == _NAT)
    if len(empty):
        raise DataError(f"row {first + int(empty[0])} of {name} has no time: give it one")
    return times


def _time_unit(kind: bytes | str, index_class: bytes | str, name: str) -> str | None:
    """Unit of an index of dates; None if it is row numbers."""
    text, described = _text(kind), _text(index_class)
    if text.startswith("datetime64"):
        return text[11:-1] if text.endswith("]") else "ns"
    if described == "datetime":
        return "ns"
    if text != "integer" or described == "period":
        what = "periods" if described == "period" else f"{text or 'an unknown kind'}"
        raise DataError(
            f"{name} has an index of {what}, which is neither dates nor row numbers: convert it "
            "with pandas.to_datetime or to_timestamp and write the file again"
        )
    return None


def _zone_words(attribute: bytes | str) -> list[str | int]:
    """A zone's name is stored as it is; any other zone is pickled."""
    text = _text(attribute)
    return [text] if text in available_timezones() else _words(_bytes(attribute))


def _words(pickled: bytes) -> list[str | int]:
    """The text, numbers and names in a pickle, in order; none of it is called."""
    return [
        argument
        for opcode, argument, _ in pickletools.genops(pickled)
        if isinstance(argument, str | int) and opcode.name not in ("PUT", "GET", "BINPUT", "PROTO")
    ]


def _zone_in(words: list[str | int]) -> str | None:
    """The zone that pickled words describe: a name known to the system, or a constant offset."""
    if words[:1] == ["datetime timezone"] and words[1:2] == ["datetime timedelta"]:
        days, seconds = (int(word) for word in words[2:4])
        return zone_from_offset(timedelta(days=days, seconds=seconds))
    known = available_timezones()
    return next((word for word in words if isinstance(word, str) and word in known), None)


def _text(value: bytes | str) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _bytes(value: Any) -> bytes:
    return value.encode("latin1") if isinstance(value, str) else bytes(value)


_FORMAT = "HDF5 (if a compression filter is missing, rewrite it with `ptrepack --complib=zlib`)"


def open_hdf5(path: Path, options: IngestOptions) -> Readings:
    """Readings in an HDF5 file, under any key.

    Raises:
        DataError: if the file is damaged, or it is not clear which key is meant.
        MissingExtraError: if h5py is not installed.
    """
    h5py = _h5py()
    name = path.name
    with reraise_read_errors(name, _FORMAT), h5py.File(path, "r") as file:
        candidates = _candidates(h5py, file)
        wanted = tuple(key.strip("/") for key in options.values)
        keys = choose_keys(name, candidates, wanted, "table or dataset", "tables or datasets")
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
        if is_pandas_table(item):
            tables.append(key)
            found[key] = "(pandas table)"
        elif isinstance(item, h5py.Dataset) and item.ndim in (2, 3) and item.dtype.kind in "iuf":
            found[key] = str(item.shape)

    file.visititems(visit)
    return found


def _open_key(path: Path, file: Any, key: str, options: IngestOptions) -> Readings:
    item = file[key]
    if not is_pandas_table(item):
        return _plain(path, file, key, options)
    is_fixed = "table" not in item
    table = (open_fixed_table if is_fixed else open_flexible_table)(item, f"{key} of {path.name}")
    return _table_readings(path, key, table)


def _plain(path: Path, file: Any, key: str, options: IngestOptions) -> Readings:
    name = f"{key} of {path.name}"
    dataset = file[key]
    shape: tuple[int, ...] = dataset.shape
    check_series_shape(name, shape, dataset.dtype)
    num_channels = shape[2] if len(shape) == 3 else 1

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        rows = rows_per_chunk(budget_bytes, shape[1] * num_channels)
        with reraise_read_errors(name, _FORMAT), _h5py().File(path, "r") as reopened:
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
        with reraise_read_errors(name, _FORMAT), _h5py().File(path, "r") as reopened:
            for first in range(0, table.num_rows, rows):
                stop = min(first + rows, table.num_rows)
                values, times = table.read(reopened[key], first, stop)
                seconds = None
                if table.time_unit is not None:
                    seconds = epoch_seconds_of_numbers(
                        times, table.time_unit, first, name, numbered_row
                    )
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
