"""The two layouts in which pandas writes a DataFrame to HDF5, read by blocks of rows.

"fixed" is a group with the datasets axis0 (columns), axis1 (index) and, for each dtype,
block{i}_items and block{i}_values. "table" is a group with one compound dataset `table`, whose
attributes are pickled.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from zoneinfo import available_timezones

import numpy as np
from numpy.typing import NDArray

from pgti.errors import DataError
from pgti.ingest.readings import as_floats
from pgti.ingest.safe_pickle import loads_pickle
from pgti.ingest.sensor_ids import text_ids
from pgti.ingest.times import zone_of_offset

__all__ = ["PandasTable", "fixed_table", "flexible_table", "is_pandas"]

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


def is_pandas(item: Node) -> bool:
    """Whether an HDF5 item is a DataFrame that pandas wrote."""
    return "pandas_type" in item.attrs


def fixed_table(group: Node, name: str) -> PandasTable:
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


def flexible_table(group: Node, name: str) -> PandasTable:
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
    node_ids = text_ids(list(columns))
    positions = []
    for field in fields:
        base = table.dtype[field].base
        if base.kind not in "biuf":
            raise DataError(f"{name} holds columns of {base}, which are not numbers")
        items = loads_pickle(_bytes(table.attrs[f"{field}_kind"]), name)
        positions.append(_positions(text_ids(list(items)), node_ids))
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
    return text_ids(dataset[:])


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
        return zone_of_offset(timedelta(days=days, seconds=seconds))
    known = available_timezones()
    return next((word for word in words if isinstance(word, str) and word in known), None)


def _text(value: bytes | str) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _bytes(value: Any) -> bytes:
    return value.encode("latin1") if isinstance(value, str) else bytes(value)
