"""Readings in HDF5 files: tables written by pandas ("fixed" and "table") and plain datasets.

Files are read with h5py, in blocks of rows. PyTables, with which pandas writes them, unpickles
every attribute that it meets, and pickles from elsewhere are not trusted.

In pandas' "fixed" layout a group has the datasets axis0 (columns), axis1 (index) and, for each
dtype, block{i}_items and block{i}_values. In the "table" layout it has one compound dataset
`table`, whose attributes are pickled.
"""

import pickletools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import numpy as np
from numpy.typing import NDArray

from pgti.errors import DataError, MissingExtraError
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import (
    ID_NAMES,
    Chunk,
    Readings,
    array_readings,
    as_floats,
    check_series_shape,
    choose_keys,
    find_ids,
    ids_to_text,
    reraise_read_errors,
    row_blocks,
    rows_per_chunk,
    split_rows,
    stack_channels,
)
from pgti.ingestion.safe_pickle import loads_pickle, plain_labels
from pgti.ingestion.times import RowLabels, epoch_seconds, zone_from_tzinfo

__all__ = ["PandasTable", "is_pandas_table", "open_hdf5", "open_hdf5_file", "open_pandas_table"]

_FORMAT = "HDF5 (if a compression filter is missing, rewrite it with `ptrepack --complib=zlib`)"

Node = Any  # an h5py group or dataset; h5py has no types
Words = list[str | int]
# Rows, columns, dtype and columns of each block or field, unit of times, words that name a zone.
_Description = tuple[
    int, tuple[str, ...], dict[str, tuple[np.dtype[Any], tuple[str, ...]]], str | None, Words | None
]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class PandasTable:
    """A DataFrame of numbers in an HDF5 file.

    Attributes:
        name: what messages call it.
        num_rows: rows of the frame, T.
        node_ids: its columns.
        time_unit: "s", "ms", "us" or "ns" if its index is dates, else None.
        is_aware: whether the index is true times.
        time_zone: zone of the index, where it names one.
        columns: places among the N columns, for each block or field of the file.
    """

    name: str
    num_rows: int
    node_ids: tuple[str, ...]
    time_unit: str | None
    is_aware: bool
    time_zone: str | None
    columns: dict[str, NDArray[np.int64]]

    def read(
        self, group: Node, first: int, stop: int
    ) -> tuple[NDArray[np.floating[Any]], NDArray[Any]]:
        """Floats [rows, N] and the stored index [rows]."""
        if "table" in group:
            rows = group["table"][first:stop]
            pieces = [rows[field].reshape(stop - first, -1) for field in self.columns]
            times = rows["index"]
        else:
            pieces = [group[f"{block}_values"][first:stop] for block in self.columns]
            times = group["axis1"][first:stop]
        return self._join([as_floats(piece) for piece in pieces]), times

    def epoch_seconds(self, index: NDArray[Any], first_row: int) -> NDArray[np.int64]:
        """Epoch seconds [rows] of a stored index of dates.

        Raises:
            DataError: naming the first row whose time is missing or not on a whole second.
        """
        times = np.asarray(index, dtype=np.int64).view(f"M8[{self.time_unit}]")
        return epoch_seconds(times, first_row, RowLabels(self.name))

    def _join(self, pieces: list[NDArray[np.floating[Any]]]) -> NDArray[np.floating[Any]]:
        num_nodes = len(self.node_ids)
        (places, *others) = self.columns.values()
        if not others and np.array_equal(places, np.arange(num_nodes)):
            return pieces[0]
        joined = np.full((len(pieces[0]), num_nodes), np.nan, np.result_type(*pieces))
        for piece, places in zip(pieces, self.columns.values(), strict=True):
            joined[:, places] = piece
        return joined


def open_hdf5(path: Path, options: IngestOptions) -> Readings:
    """Readings in an HDF5 file, under any key.

    Raises:
        DataError: if the file is damaged, or several keys hold readings and none was chosen.
        MissingExtraError: if h5py is not installed.
    """
    name = path.name
    with reraise_read_errors(name, _FORMAT), open_hdf5_file(path) as file:
        candidates = _candidates(file)
        wanted = tuple(key.strip("/") for key in options.values)
        keys = choose_keys(name, candidates, wanted, "table or dataset", "tables or datasets")
        parts = [_open_key(path, file, key, options) for key in keys]
    readings = parts[0] if len(keys) == 1 else stack_channels(parts, keys, name)
    return replace(readings, name=name)


def open_hdf5_file(path: Path) -> Any:
    """The file as h5py opens it.

    Raises:
        MissingExtraError: if h5py is not installed.
    """
    try:
        import h5py  # noqa: PLC0415 - an optional library
    except ImportError:
        raise MissingExtraError("h5py", "hdf5") from None
    return h5py.File(path, "r")


def _candidates(file: Node) -> dict[str, str]:
    """The shape of each table that pandas wrote and of each other dataset of two or three axes."""
    tables: list[str] = []
    found: dict[str, str] = {}

    def visit(key: str, item: Node) -> None:
        if any(key.startswith(f"{table}/") for table in tables):
            return
        if is_pandas_table(item):
            tables.append(key)
            found[key] = "(pandas table)"
        elif getattr(item, "ndim", 0) in (2, 3) and item.dtype.kind in "iuf":
            found[key] = str(item.shape)

    file.visititems(visit)
    return found


def _open_key(path: Path, file: Node, key: str, options: IngestOptions) -> Readings:
    name = f"{key} of {path.name}"
    if is_pandas_table(file[key]):
        return _open_table(path, key, open_pandas_table(file[key], name))
    shape: tuple[int, ...] = file[key].shape

    def blocks(rows: int) -> Iterator[NDArray[Any]]:
        with reraise_read_errors(name, _FORMAT), open_hdf5_file(path) as reopened:
            yield from split_rows(reopened[key], rows)

    readings = array_readings(name, shape, file[key].dtype, blocks)
    wanted = options.ids
    keys = ID_NAMES if wanted is None else (wanted,)
    arrays = {each: file[each] for each in keys if hasattr(file.get(each), "dtype")}
    # h5py gives text of any length as objects, which are bytes.
    ids = find_ids(arrays, lambda each: file[each][:], shape[1], wanted, path.name, kinds="iuSUO")
    return replace(readings, node_ids=ids)


def _open_table(path: Path, key: str, table: PandasTable) -> Readings:
    name = f"{key} of {path.name}"
    num_nodes = len(table.node_ids)
    check_series_shape(name, (table.num_rows, num_nodes), np.dtype(np.float64))

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        rows = rows_per_chunk(budget_bytes, num_nodes)
        with reraise_read_errors(name, _FORMAT), open_hdf5_file(path) as reopened:
            for first, stop in row_blocks(table.num_rows, rows):
                values, times = table.read(reopened[key], first, stop)
                seconds = None
                if table.time_unit is not None:
                    seconds = table.epoch_seconds(times, first)
                yield Chunk(values=values[..., np.newaxis], seconds=seconds)

    return Readings(
        name=name,
        num_rows=table.num_rows,
        num_nodes=num_nodes,
        node_ids=table.node_ids,
        is_aware=table.is_aware,
        time_zone=table.time_zone,
        chunks=chunks,
    )


def is_pandas_table(item: Node) -> bool:
    """Whether an HDF5 item is a DataFrame that pandas wrote."""
    return "pandas_type" in item.attrs


def open_pandas_table(group: Node, name: str) -> PandasTable:
    """An item that pandas wrote, in either layout; messages call it `name`.

    Raises:
        DataError: if it is not a frame of numbers with plain columns and index.
    """
    is_flexible = "table" in group
    kind = _text(group.attrs["pandas_type"])
    if kind != ("frame_table" if is_flexible else "frame"):
        raise DataError(f"{name} is a pandas {kind}: give a DataFrame")
    described = (_describe_flexible if is_flexible else _describe_fixed)(group, name)
    num_rows, node_ids, fields, time_unit, zone = described
    positions = {label: position for position, label in enumerate(node_ids)}
    columns = {}
    for field, (dtype, items) in fields.items():
        if dtype.kind not in "biuf":
            raise DataError(f"{name} holds columns of {dtype}, which are not numbers")
        columns[field] = np.array([positions[item] for item in items], dtype=np.int64)
    return PandasTable(
        name=name,
        num_rows=num_rows,
        node_ids=node_ids,
        time_unit=time_unit,
        is_aware=zone is not None,
        time_zone=None if zone is None else _find_zone(zone),
        columns=columns,
    )


def _describe_fixed(group: Node, name: str) -> _Description:
    for axis in ("axis0", "axis1"):
        if _text(group.attrs.get(f"{axis}_variety", b"regular")) != "regular":
            raise DataError(f"{name} has several levels of rows or columns: give it one of each")
    node_ids = _labels(group["axis0"], name)
    fields = {
        block: (group[f"{block}_values"].dtype, _labels(group[f"{block}_items"], name))
        for block in (f"block{number}" for number in range(int(group.attrs["nblocks"])))
    }
    index = group["axis1"]
    if "shape" in index.attrs:  # pandas writes one empty row and this mark for none
        raise DataError(f"{name} is an empty DataFrame: there are no rows")
    unit = _time_unit(index.attrs.get("kind", b""), index.attrs.get("index_class", b""), name)
    zone = index.attrs.get("tz")
    return len(index), node_ids, fields, unit, None if zone is None else _zone_words(zone)


def _describe_flexible(group: Node, name: str) -> _Description:
    table = group["table"]
    ((_, labels),) = loads_pickle(_bytes(group.attrs["non_index_axes"]), name)
    if any(isinstance(label, tuple) for label in labels):
        raise DataError(f"{name} has several levels of columns: give it one")
    fields = {
        field: (
            table.dtype[field].base,
            ids_to_text(
                plain_labels(loads_pickle(_bytes(table.attrs[f"{field}_kind"]), name), name)
            ),
        )
        for field in table.dtype.names
        if field != "index"
    }
    info = _words(_bytes(group.attrs.get("info", b"")))
    # Periods are whole numbers; only their frequency distinguishes them from row numbers.
    is_period = any(str(word).startswith("pandas._libs.tslibs") for word in info)
    unit = _time_unit(table.attrs.get("index_kind", b""), b"period" if is_period else b"", name)
    zone = info[info.index("tz") + 1 :] if unit is not None and "tz" in info else None
    return len(table), ids_to_text(plain_labels(labels, name)), fields, unit, zone


def _labels(dataset: Node, name: str) -> tuple[str, ...]:
    if dataset.dtype.kind not in "iufS":
        raise DataError(
            f"{name} has pickled columns ({dataset.dtype}): name columns by text or whole numbers"
        )
    return ids_to_text(dataset[:])


def _time_unit(kind: bytes | str, index_class: bytes | str, name: str) -> str | None:
    """Unit of an index of dates; None if it is row numbers."""
    text, described = _text(kind), _text(index_class)
    if text.startswith("datetime64"):
        return text[11:-1] if text.endswith("]") else "ns"
    if described == "datetime":
        return "ns"
    if text != "integer" or described == "period":
        what = "periods" if described == "period" else text or "an unknown kind"
        raise DataError(
            f"{name} has an index of {what}, which is neither dates nor row numbers: convert it "
            "with pandas.to_datetime or to_timestamp and write the file again"
        )
    return None


def _zone_words(attribute: bytes | str) -> Words:
    """A zone's name is stored as it is; any other zone is pickled."""
    text = _text(attribute)
    return [text] if text in available_timezones() else _words(_bytes(attribute))


def _words(pickled: bytes) -> Words:
    """The text, numbers and names in a pickle, in order; none of it is called."""
    return [
        argument
        for opcode, argument, _ in pickletools.genops(pickled)
        if isinstance(argument, str | int) and opcode.name not in ("PUT", "GET", "BINPUT", "PROTO")
    ]


def _find_zone(words: Words) -> str | None:
    """The zone that pickled words describe: a name known to the system, or a constant offset."""
    if words[:1] == ["datetime timezone"] and words[1:2] == ["datetime timedelta"]:
        days, seconds = (int(word) for word in words[2:4])
        return zone_from_tzinfo(timezone(timedelta(days=days, seconds=seconds)))
    known = available_timezones()
    return next((word for word in words if isinstance(word, str) and word in known), None)


def _text(value: bytes | str) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _bytes(value: Any) -> bytes:
    return value.encode("latin1") if isinstance(value, str) else bytes(value)
