"""What every reader of readings returns: a description and chunks of rows."""

import contextlib
import csv
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pgti.errors import ConfigError, DataError, PgtiError
from pgti.ingest.node_matching import RawGraph

__all__ = [
    "ID_NAMES",
    "Chunk",
    "Described",
    "Readings",
    "as_floats",
    "check_series_shape",
    "choose_keys",
    "find_ids",
    "ids_to_text",
    "numbered_row",
    "reraise_read_errors",
    "rows_per_chunk",
    "stack",
]

_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    RuntimeError,
    MemoryError,
    OverflowError,
    struct.error,
    csv.Error,
    lzma.LZMAError,
    zlib.error,
    zipfile.BadZipFile,
)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Chunk:
    """Consecutive rows of a source.

    Args:
        values: raw values, float32 or float64 [rows, N, C], owned by the receiver; NaN = missing.
        seconds: epoch seconds of each row, int64 [rows], where the source has times.
    """

    values: NDArray[np.floating[Any]]
    seconds: NDArray[np.int64] | None = None


def numbered_row(row: int) -> str:
    """How messages call a row of a source without lines."""
    return f"row {row}"


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Readings:
    """An opened source of readings.

    Args:
        name: what messages call the source.
        num_nodes: sensors, N.
        num_channels: channels, C.
        chunks: `chunks(budget_bytes)` reads the source from its beginning; each chunk, with what
            it takes to make it, stays near that many bytes (one row at least).
        num_rows: rows, T, where the source says so in advance.
        node_ids: sensor ids, where the source has them.
        channels: channel names, where the source has them.
        is_aware: whether the times are true epoch seconds; else they are wall-clock times.
        time_zone: zone of aware times, where the source names one.
        graph: the graph that the source holds itself.
        row_label: how messages call row `i`, for example "line 7".
    """

    name: str
    num_nodes: int
    num_channels: int
    chunks: Callable[[int], Iterator[Chunk]]
    num_rows: int | None = None
    node_ids: tuple[str, ...] | None = None
    channels: tuple[str, ...] | None = None
    is_aware: bool = False
    time_zone: str | None = None
    graph: RawGraph | None = None
    row_label: Callable[[int], str] = numbered_row


@contextlib.contextmanager
def reraise_read_errors(name: str, what: str) -> Iterator[None]:
    """Turn whatever a parser raises on a damaged file into one line that names the file."""
    try:
        yield
    except PgtiError:
        raise
    except FileNotFoundError:
        raise DataError(f"{name} does not exist: check the path") from None
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{name} cannot be read as {what}: {reason}") from error


def rows_per_chunk(budget_bytes: int, num_values: int) -> int:
    """Rows of `num_values` whose raw values and floats, 8 bytes each, fit the budget; at least one.

    The dtype has no say, so that channels of different dtypes are read in step.
    """
    return max(1, budget_bytes // (16 * num_values))


def as_floats(values: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """A new array: float32 where that holds every value of the dtype exactly, else float64."""
    exact = values.dtype.kind in "biuf" and np.can_cast(values.dtype, np.float32, "safe")
    return values.astype(np.float32 if exact else np.float64, order="C", copy=True)


def check_series_shape(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse an array that is not numbers of shape [T, N] or [T, N, C], with T, N, C above 0.

    Raises:
        DataError: saying the shape or the dtype.
    """
    if dtype.hasobject or dtype.kind not in "biuf":
        raise DataError(
            f"{name} holds {dtype}, which is not numbers (Python objects are never unpickled): "
            "save the readings as an integer or floating array"
        )
    if len(shape) not in (2, 3):
        raise DataError(
            f"{name} has shape {shape}, which is {len(shape)}-D: the rule is [steps, sensors] or "
            "[steps, sensors, channels]"
        )
    for size, what in zip(shape, ("rows", "sensors", "channels"), strict=False):
        if size == 0:
            raise DataError(f"{name} has shape {shape}: there are no {what}")


def choose_keys(
    name: str, candidates: dict[str, str], wanted: tuple[str, ...], what: str, several: str
) -> tuple[str, ...]:
    """The wanted keys, or the only candidate.

    Args:
        name: what messages call the source.
        candidates: description (a shape) of each key that could be meant.
        wanted: keys that the user named; empty for "the only one".
        what: what a key is, for messages.
        several: the same in the plural.

    Raises:
        DataError: if a key is unknown, or none was named where there are several or none.
    """
    listing = ", ".join(f"{key} {shape}" for key, shape in candidates.items()) or "none"
    for key in wanted:
        if key not in candidates:
            raise DataError(f"{name} has no {what} {key!r} that could be used; it has {listing}")
    if wanted:
        return wanted
    if not candidates:
        raise DataError(f"{name} holds none of the {several} that could be meant")
    if len(candidates) != 1:
        raise DataError(
            f"{name} holds {len(candidates)} {several} that could be meant: name one of {listing}"
        )
    return tuple(candidates)


def stack(parts: list[Readings], names: tuple[str, ...], name: str) -> Readings:
    """Join several one-channel sources of one source file into channels.

    Raises:
        DataError: if a part has channels of its own, or the parts differ in shape, ids or times.
    """
    first = parts[0]
    for part, key in zip(parts, names, strict=True):
        if part.num_channels != 1:
            raise DataError(
                f"{key} of {name} has {part.num_channels} channels: only arrays of "
                "[steps, sensors] can be joined into channels"
            )
        if (part.num_rows, part.num_nodes) != (first.num_rows, first.num_nodes):
            raise DataError(
                f"{key} of {name} is {part.num_rows} x {part.num_nodes} and {names[0]} is "
                f"{first.num_rows} x {first.num_nodes}: channels must have one shape"
            )
        if part.node_ids != first.node_ids:
            raise DataError(f"{key} and {names[0]} of {name} have other sensors, or another order")

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        share = max(1, budget_bytes // (2 * len(parts)))
        streams = [part.chunks(share) for part in parts]
        for pieces in zip(*streams, strict=True):
            if len({len(piece.values) for piece in pieces}) != 1:
                raise DataError(f"the channels of {name} end at different rows")
            yield Chunk(
                values=np.concatenate([piece.values for piece in pieces], axis=2),
                seconds=_same_seconds(pieces, name),
            )

    return replace(first, name=name, num_channels=len(parts), channels=names, chunks=chunks)


def _same_seconds(pieces: tuple[Chunk, ...], name: str) -> NDArray[np.int64] | None:
    seconds = pieces[0].seconds
    for piece in pieces[1:]:
        other = piece.seconds
        same = other is None if seconds is None else np.array_equal(seconds, _or_empty(other))
        if not same:
            raise DataError(f"the channels of {name} have different times")
    return seconds


def _or_empty(seconds: NDArray[np.int64] | None) -> NDArray[np.int64]:
    return np.empty(0, dtype=np.int64) if seconds is None else seconds


ID_NAMES = ("node_ids", "sensor_ids", "sensor_id", "station", "ids", "id")


class Described(Protocol):
    """An array that is not read yet."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its dtype."""


def find_ids(
    arrays: Mapping[str, Described],
    read: Callable[[str], NDArray[Any]],
    num_nodes: int,
    wanted: str | None,
    name: str,
    *,
    kinds: str = "iuSU",
) -> tuple[str, ...] | None:
    """Sensor ids from the wanted array, or from the first of the customary names that fits.

    Args:
        arrays: what there is.
        read: gives the array of a name.
        num_nodes: sensors.
        wanted: the name that the user gave.
        name: what messages call the source.
        kinds: kinds of dtypes that may hold ids.

    Raises:
        ConfigError: if the wanted array does not hold one id for each sensor.
    """
    for key in ID_NAMES if wanted is None else (wanted,):
        found = arrays.get(key)
        if found is not None and found.shape == (num_nodes,) and found.dtype.kind in kinds:
            return ids_to_text(read(key))
    if wanted is None:
        return None
    shown = arrays.get(wanted)
    what = "there is no such array" if shown is None else f"it is {shown.dtype} {shown.shape}"
    raise ConfigError(f"{name} has no array {wanted!r} of {num_nodes} ids (--ids): {what}")


def ids_to_text(ids: NDArray[Any] | list[Any]) -> tuple[str, ...]:
    """Ids as text: bytes decoded, whole numbers without a decimal point."""
    return tuple(
        _text_id(label) for label in (ids.tolist() if isinstance(ids, np.ndarray) else ids)
    )


def _text_id(label: object) -> str:
    if isinstance(label, bytes):
        return label.decode("latin1")
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label)
