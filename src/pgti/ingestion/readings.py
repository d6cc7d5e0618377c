"""What every reader of readings returns: a description, and chunks of rows."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import PARSER_ERRORS, ConfigError, DataError, PgtiError, machine_fault, option
from pgti.ingestion.instants import Localizer, RowLabels
from pgti.ingestion.raw_graphs import RawGraph

__all__ = [
    "ID_NAMES",
    "Chunk",
    "Readings",
    "array_readings",
    "as_floats",
    "check_series_shape",
    "check_whole_numbers",
    "decoded",
    "find_ids",
    "ids_to_text",
    "reraise_read_errors",
    "row_blocks",
    "rows_per_chunk",
    "split_rows",
    "with_seconds",
]

_MAX_WHOLE = 2.0**53
_MAX_ID_BYTES = 1 << 14

ID_NAMES = ("node_ids", "sensor_ids", "sensor_id", "station", "ids", "id")


_GRID_AXES = ("time", "row", "column", "channel")


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Chunk:
    """Consecutive rows of a source.

    Attributes:
        values: raw values, float32 or float64 [rows, N, C], owned by the receiver; NaN = missing.
        seconds: epoch seconds of each row, int64 [rows], where the source has times.
    """

    values: NDArray[np.floating[Any]]
    seconds: NDArray[np.int64] | None = None


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Readings:
    """An opened source of readings.

    Attributes:
        name: what messages call the source.
        num_nodes: sensors, N.
        chunks: `chunks(budget_bytes)` reads all rows by chunks of about that size, a row at least.
        num_channels: channels, C.
        num_rows: rows, T, where the source gives them in advance.
        node_ids: sensor ids, where the source has them.
        channels: channel names, where the source has them.
        units: of the channels, "" for one without, where the source has them.
        is_aware: whether the times are true epoch seconds; else they are wall-clock times.
        time_zone: zone of aware times, where the source names one.
        graph: the graph that the source itself contains.
        first_line: number of the line that holds row 0, if it has lines.
        notes: what a user should know about how the source was read, one line each.
        late_notes: gives the notes that only reading the chunks showed.
        interval_seconds: seconds between rows, where a source without times says so.
        has_named_axes: whether options say which axis is time, so that nothing else was meant.
        dataset: name of the published data set that they are, where known.
        counts_ids: whether the ids only count the columns, as a table without names has them.
        has_codes: whether codes of missing readings are still among the values.
        labels: what messages call its rows, where they have other names than lines and numbers.
        files: what each of several files holds.
        first_seconds: time of the first row as its chunk gives it, if it is known before.
    """

    name: str
    num_nodes: int
    chunks: Callable[[int], Iterator[Chunk]]
    num_channels: int = 1
    num_rows: int | None = None
    node_ids: tuple[str, ...] | None = None
    channels: tuple[str, ...] | None = None
    units: tuple[str, ...] | None = None
    is_aware: bool = False
    time_zone: str | None = None
    graph: RawGraph | None = None
    first_line: int | None = None
    notes: tuple[str, ...] = ()
    late_notes: Callable[[], tuple[str, ...]] = tuple
    interval_seconds: int | None = None
    has_named_axes: bool = False
    counts_ids: bool = False
    dataset: str | None = None
    has_codes: bool = True
    labels: RowLabels | None = None
    files: str | None = None
    first_seconds: int | None = None

    @property
    def row_labels(self) -> RowLabels:
        """What messages call its rows."""
        return self.labels or RowLabels(self.name, self.first_line)

    def localizer(self, clock: str | None) -> Localizer | None:
        """What makes true times of wall-clock ones, where there are any and their zone is known."""
        if clock is None or self.is_aware:
            return None
        return Localizer(clock, self.row_labels)


@contextlib.contextmanager
def reraise_read_errors(name: str, what: str) -> Iterator[None]:
    """Turn what a parser raises on a damaged file into a `DataError` that names the file."""
    try:
        yield
    except PgtiError:
        raise
    except FileNotFoundError:
        raise DataError(f"{name} does not exist: check the path") from None
    except PARSER_ERRORS as error:
        if fault := machine_fault(error):
            raise DataError(f"{name} cannot be read: {fault}") from error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{name} cannot be read as {what}: {reason}") from error


def rows_per_chunk(budget_bytes: int, num_values: int) -> int:
    """Rows of `num_values` whose raw values and floats, 8 bytes each, fit the budget; at least one.

    The dtype does not matter, so that channels of different dtypes are read in step.
    """
    return max(1, budget_bytes // (16 * num_values))


def row_blocks(num_rows: int, rows: int) -> Iterator[tuple[int, int]]:
    """First row, and row after the last, of consecutive blocks of at most `rows` rows."""
    for first in range(0, num_rows, rows):
        yield first, min(first + rows, num_rows)


def split_rows(array: Any, rows: int) -> Iterator[NDArray[Any]]:
    """Consecutive blocks of at most `rows` rows of an array or a dataset, read one at a time."""
    for first, stop in row_blocks(len(array), rows):
        yield array[first:stop]


def as_floats(values: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """A new array: float32 where that holds every value of the dtype exactly, else float64.

    Raises:
        DataError: naming a whole number beyond 2^53 that float64 would round.
    """
    exact = values.dtype.kind in "biuf" and np.can_cast(values.dtype, np.float32, "safe")
    floats: NDArray[np.floating[Any]] = values.astype(
        np.float32 if exact else np.float64, order="C", copy=True
    )
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8:
        check_whole_numbers(values[np.abs(floats) >= _MAX_WHOLE].tolist())
    return floats


def check_whole_numbers(numbers: Iterable[int]) -> None:
    """Refuse, by a `DataError`, whole numbers that float64 would round."""
    for number in numbers:
        if int(float(number)) != number:
            raise DataError(
                f"the reading {number} is a whole number above 2^53, which float64 rounds: "
                "subtract an offset, or divide the readings"
            )


def check_series_shape(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse an array that is not numbers of shape [T, N] or [T, N, C], with T, N, C above 0.

    Raises:
        DataError: giving the shape or the dtype.
    """
    if dtype.kind == "b":
        raise DataError(
            f"{name} holds bool, as a mask does, and readings are numbers: save them as such, "
            "array.astype('uint8') where true and false are what was measured"
        )
    if dtype.hasobject or dtype.kind not in "iuf":
        raise DataError(
            f"{name} holds {dtype}, which is not numbers (Python objects are never unpickled): "
            "save the readings as an integer or floating array"
        )
    if len(shape) not in (2, 3):
        raise DataError(
            f"{name} has shape {shape}, which is {len(shape)}-D: the rule is [steps, sensors] or "
            f"[steps, sensors, channels]; name other axes, such as {option('axes', _GRID_AXES)}"
        )
    for size, what in zip(shape, ("rows", "sensors", "channels"), strict=False):
        if size == 0:
            raise DataError(f"{name} has shape {shape}: there are no {what}")


def array_readings(
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    blocks: Callable[[int], Iterator[NDArray[Any]]],
) -> Readings:
    """Readings in an array [T, N] or [T, N, C].

    Args:
        name: what messages call the array.
        shape: its shape.
        dtype: its dtype.
        blocks: `blocks(rows)` reads consecutive blocks of at most `rows` rows.

    Raises:
        DataError: if the array is not numbers of such a shape.
    """
    check_series_shape(name, shape, dtype)
    num_rows, num_nodes, num_channels = shape if len(shape) == 3 else (*shape, 1)

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        for block in blocks(rows_per_chunk(budget_bytes, num_nodes * num_channels)):
            yield Chunk(values=as_floats(block).reshape(len(block), num_nodes, num_channels))

    return Readings(
        name=name, num_rows=num_rows, num_nodes=num_nodes, num_channels=num_channels, chunks=chunks
    )


def with_seconds(readings: Readings, seconds: NDArray[np.int64]) -> Readings:
    """The readings with the epoch seconds [T] of their rows."""

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        first = 0
        for chunk in readings.chunks(budget_bytes):
            stop = first + len(chunk.values)
            yield Chunk(values=chunk.values, seconds=seconds[first:stop])
            first = stop

    return replace(readings, chunks=chunks)


def find_ids(
    arrays: Mapping[str, Any],
    read: Callable[[str], NDArray[Any]],
    num_nodes: int,
    wanted: str | None,
    name: str,
    *,
    kinds: str = "iuSU",
) -> tuple[str, ...] | None:
    """Sensor ids from the wanted array, or from the first array of a usual name that fits.

    Args:
        arrays: what there is; of each, its shape and dtype are used.
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
            if found.dtype.itemsize > _MAX_ID_BYTES:
                raise DataError(
                    f"{key} of {name} holds ids of {found.dtype.itemsize:,} bytes each: an id has "
                    f"at most {_MAX_ID_BYTES:,}"
                )
            return ids_to_text(read(key))
    if wanted is None:
        return None
    shown = arrays.get(wanted)
    what = "there is no such array" if shown is None else f"it is {shown.dtype} {shown.shape}"
    raise ConfigError(
        f"{name} has no array {wanted!r} of {count_of(num_nodes, 'id')} ({option('ids')}): {what}"
    )


def ids_to_text(ids: NDArray[Any] | list[Any]) -> tuple[str, ...]:
    """Ids as text: bytes decoded, whole numbers without a decimal point."""
    return tuple(map(_id_to_text, ids.tolist() if isinstance(ids, np.ndarray) else ids))


def decoded(text: bytes) -> str:
    """Text of bytes without a stated encoding: UTF-8 where they are it, else Latin-1."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin1")


def _id_to_text(label: object) -> str:
    if isinstance(label, bytes):
        return decoded(label)
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label)
