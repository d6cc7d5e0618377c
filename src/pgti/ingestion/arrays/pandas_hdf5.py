"""Tables that pandas wrote to HDF5 files ("fixed" and "table"), read with h5py.

PyTables, with which pandas writes them, unpickles every attribute that it meets, and pickles from
elsewhere are not trusted.

In the "fixed" layout a group has the datasets axis0 (columns), axis1 (index) and, for each dtype,
block{i}_items and block{i}_values. In the "table" layout it has one compound dataset `table`, whose
attributes are pickled.
"""

import pickletools
from dataclasses import dataclass
from datetime import timedelta, timezone
from typing import Any
from zoneinfo import available_timezones

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import DataError
from pgti.ingestion.arrays.hdf5_chunks import read_box
from pgti.ingestion.instants import RowLabels, epoch_seconds, zone_from_tzinfo
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import as_floats, ids_to_text
from pgti.ingestion.safe_pickle import loads_pickle, plain_labels
from pgti.ingestion.tables.column_levels import arrange_levels, check_single_level

__all__ = ["PandasTable", "is_pandas_table", "open_pandas_table", "read_locations"]

Node = Any  # an h5py group or dataset; h5py has no types
Words = list[str | int]
_PICKLED_NONE = "N."
Labels = tuple[str, ...] | tuple[tuple[str, ...], ...]  # of columns of one level, of several
# Rows, columns, dtype and columns of each block or field, unit of times, words that name a zone.
_Description = tuple[int, Labels, dict[str, tuple[np.dtype[Any], Labels]], str | None, Words | None]
_COORDINATES = (("latitude", "longitude"), ("lat", "lon"), ("lat", "lng"))


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class PandasTable:
    """A DataFrame of numbers in an HDF5 file.

    Attributes:
        name: what messages call it.
        num_rows: rows of the frame, T.
        node_ids: its columns, or the sensors of columns of two levels.
        channels: the other level of the columns, if there is one.
        time_unit: "s", "ms", "us" or "ns" if its index is dates, else None.
        is_aware: whether the index is true times.
        time_zone: zone of the index, where it names one.
        columns: places among the N C columns, sensor by sensor, for each block or field.
    """

    name: str
    num_rows: int
    node_ids: tuple[str, ...]
    channels: tuple[str, ...] | None
    time_unit: str | None
    is_aware: bool
    time_zone: str | None
    columns: dict[str, NDArray[np.int64]]

    def read(
        self, group: Node, first: int, stop: int
    ) -> tuple[NDArray[np.floating[Any]], NDArray[Any]]:
        """Floats [rows, N C] and the stored index [rows]."""
        if "table" in group:
            rows = read_box(group["table"], (slice(first, stop),))
            pieces = [rows[field].reshape(stop - first, -1) for field in self.columns]
            times = rows["index"]
        else:
            box = (slice(first, stop),)
            pieces = [read_box(group[f"{block}_values"], box) for block in self.columns]
            times = read_box(group["axis1"], box)
        return self._join([as_floats(piece) for piece in pieces]), times

    def epoch_seconds(self, index: NDArray[Any], first_row: int) -> NDArray[np.int64]:
        """Epoch seconds [rows] of a stored index of dates.

        Raises:
            DataError: naming the first row whose time is missing or not on a whole second.
        """
        times = np.asarray(index, dtype=np.int64).view(f"M8[{self.time_unit}]")
        return epoch_seconds(times, first_row, RowLabels(self.name))

    def _join(self, pieces: list[NDArray[np.floating[Any]]]) -> NDArray[np.floating[Any]]:
        num_columns = len(self.node_ids) * len(self.channels or ("value",))
        (places, *others) = self.columns.values()
        if not others and np.array_equal(places, np.arange(num_columns)):
            return pieces[0]
        joined = np.full((len(pieces[0]), num_columns), np.nan, np.result_type(*pieces))
        for piece, places in zip(pieces, self.columns.values(), strict=True):
            joined[:, places] = piece
        return joined


def is_pandas_table(item: Node) -> bool:
    """Whether an HDF5 item is a DataFrame that pandas wrote."""
    return "pandas_type" in item.attrs


def open_pandas_table(group: Node, name: str, options: IngestOptions | None = None) -> PandasTable:
    """An item that pandas wrote, in either layout.

    Args:
        group: the item.
        name: what messages call it.
        options: `axes` may say the order of two levels of columns.

    Raises:
        DataError: if it is not a frame of numbers with plain columns and index, or nothing says
            which of two levels of columns has the sensors.
    """
    options = options or IngestOptions()
    is_flexible = "table" in group
    kind = _text(group.attrs["pandas_type"])
    if kind != ("frame_table" if is_flexible else "frame"):
        raise DataError(f"{name} is a pandas {kind}: give a DataFrame")
    described = (_describe_flexible if is_flexible else _describe_fixed)(group, name)
    num_rows, labels, fields, time_unit, zone = described
    level_names = (_names_in_info if is_flexible else _names_of_levels)(group)
    node_ids, channels, positions = _place_columns(labels, level_names, name, options)
    columns = {}
    for field, (dtype, items) in fields.items():
        if dtype.kind not in "biuf":
            raise DataError(f"{name} holds columns of {dtype}, which are not numbers")
        columns[field] = np.array([positions[item] for item in items], dtype=np.int64)
    return PandasTable(
        name=name,
        num_rows=num_rows,
        node_ids=node_ids,
        channels=channels,
        time_unit=time_unit,
        is_aware=zone is not None,
        time_zone=None if zone is None else _find_zone(zone),
        columns=columns,
    )


def _describe_fixed(group: Node, name: str) -> _Description:
    if _text(group.attrs.get("axis1_variety", b"regular")) != "regular":
        raise DataError(f"{name} has several levels of rows: give it one")
    node_ids = _axis_labels(group, "axis0", name)
    fields = {
        block: (group[f"{block}_values"].dtype, _axis_labels(group, f"{block}_items", name))
        for block in (f"block{number}" for number in range(int(group.attrs["nblocks"])))
    }
    index = group["axis1"]
    if index.ndim != 1:
        raise DataError(f"{name} has times of shape {index.shape}, not one each row: copy it again")
    for block in fields:
        if len(group[f"{block}_values"]) != len(index):
            raise DataError(
                f"{name} has {count_of(len(index), 'time')} and {block} of it "
                f"{count_of(len(group[f'{block}_values']), 'row')}: copy it again"
            )
    if "shape" in index.attrs:  # pandas writes one empty row and this mark for none
        raise DataError(f"{name} is an empty DataFrame: there are no rows")
    unit = _time_unit(index.attrs.get("kind", b""), index.attrs.get("index_class", b""), name)
    zone = index.attrs.get("tz")
    return len(index), node_ids, fields, unit, None if zone is None else _zone_words(zone)


def _describe_flexible(group: Node, name: str) -> _Description:
    table = group["table"]
    if table.ndim != 1 or table.dtype["index"].shape:
        raise DataError(f"{name} has several times in a row, not one each: copy it again")
    ((_, labels),) = loads_pickle(_bytes(group.attrs["non_index_axes"]), name)
    fields = {
        field: (
            table.dtype[field].base,
            _field_labels(table, field, name),
        )
        for field in table.dtype.names
        if field != "index"
    }
    info = _words(_bytes(group.attrs.get("info", b"")))
    # Periods are whole numbers; only their frequency distinguishes them from row numbers.
    is_period = any(str(word).startswith("pandas._libs.tslibs") for word in info)
    unit = _time_unit(table.attrs.get("index_kind", b""), b"period" if is_period else b"", name)
    zone = info[info.index("tz") + 1 :] if unit is not None and "tz" in info else None
    return len(table), _to_labels(labels, name), fields, unit, zone


def _axis_labels(group: Node, axis: str, name: str) -> Labels:
    """Labels of an axis: text, or tuples of text where it has several levels."""
    if _text(group.attrs.get(f"{axis}_variety", b"regular")) == "regular":
        return _labels(group[axis], name)
    num_levels = int(group.attrs[f"{axis}_nlevels"])
    levels = []
    for level in range(num_levels):
        labels = _labels(group[f"{axis}_level{level}"], name)
        levels.append([labels[place] for place in read_box(group[f"{axis}_label{level}"]).tolist()])
    return tuple(zip(*levels, strict=True))


def _field_labels(table: Node, field: str, name: str) -> Labels:
    return _to_labels(loads_pickle(_bytes(table.attrs[f"{field}_kind"]), name), name)


def _to_labels(labels: Any, name: str) -> Labels:
    if isinstance(labels, list | tuple) and labels and all(isinstance(x, tuple) for x in labels):
        return tuple(ids_to_text(plain_labels(label, name)) for label in labels)
    return ids_to_text(plain_labels(labels, name))


def _names_of_levels(group: Node) -> list[str]:
    """Names of the levels of columns in the "fixed" layout, "" for one without."""
    names = []
    for level in range(int(group.attrs.get("axis0_nlevels", 0))):
        text = _text(group[f"axis0_level{level}"].attrs.get("name", b""))
        names.append(text if text != _PICKLED_NONE else "")
    return names


def _names_in_info(group: Node) -> list[str]:
    """The same in the "table" layout, whose description is pickled; none of it is called."""
    names: list[str] | None = None
    for opcode, argument, _ in pickletools.genops(_bytes(group.attrs.get("info", b""))):
        if names is None:
            names = [] if argument == "names" else None
        elif opcode.name == "NONE":
            names.append("")
        elif isinstance(argument, str):
            if argument == "type":
                break
            names.append(argument)
    return names or []


def _place_columns(
    labels: Labels, level_names: list[str], name: str, options: IngestOptions
) -> tuple[tuple[str, ...], tuple[str, ...] | None, dict[Any, int]]:
    """Sensors, channels, and the place of each column, sensor by sensor.

    Raises:
        DataError: if columns of several levels are not every pair of a sensor and a channel, or
            nothing says which level is which.
    """
    pairs = [label for label in labels if isinstance(label, tuple)]
    if not pairs:
        check_single_level(name, options)
        node_ids = tuple(map(str, labels))
        return node_ids, None, {label: place for place, label in enumerate(node_ids)}
    names = level_names if len(level_names) == len(pairs[0]) else [""] * len(pairs[0])
    found = arrange_levels(pairs, names, name, options)
    places = {pairs[column]: place for place, column in enumerate(found.order.tolist())}
    return found.node_ids, found.channels, places


def read_locations(group: Node, name: str) -> tuple[tuple[str, ...], NDArray[np.float64]] | None:
    """Stations and their latitude and longitude [N, 2], if a table has a row for each of them.

    Raises:
        DataError: if its labels are pickled in a way that is not read.
    """
    if "table" in group:
        table = group["table"]
        if not _text(table.attrs.get("index_kind", b"")).startswith(("string", "integer")):
            return None
        rows = read_box(table)
        cells = {
            label: rows[field].reshape(len(rows), -1)[:, place]
            for field in table.dtype.names
            if field != "index" and table.dtype[field].base.kind in "iuf"
            for place, label in enumerate(_field_labels(table, field, name))
        }
        ids = rows["index"]
    else:
        index = group.get("axis1")
        kind = "" if index is None else _text(index.attrs.get("kind", b""))
        if index is None or not kind.startswith(("string", "integer")):
            return None
        cells = {}
        for number in range(int(group.attrs["nblocks"])):
            values, items = (group[f"block{number}_{part}"] for part in ("values", "items"))
            if values.dtype.kind in "iuf" and items.dtype.kind in "iuS":
                labels = ids_to_text(read_box(items))
                cells.update(zip(labels, read_box(values).T, strict=True))
        ids = read_box(index)
    named = {str(label).lower(): label for label in cells}
    for latitude, longitude in _COORDINATES:
        if latitude in named and longitude in named:
            pair = [cells[named[key]].astype(np.float64) for key in (latitude, longitude)]
            return ids_to_text(ids), np.stack(pair, axis=1)
    return None


def _labels(dataset: Node, name: str) -> tuple[str, ...]:
    if dataset.dtype.kind not in "iufS":
        raise DataError(
            f"{name} has pickled columns ({dataset.dtype}): name columns by text or whole numbers"
        )
    return ids_to_text(read_box(dataset))


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
