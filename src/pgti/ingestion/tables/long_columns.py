"""The times and the sensors of a long table: few different cells in many rows."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pgti.errors import DataError, PgtiError, option
from pgti.ingestion.instants import RowLabels
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import ids_to_text
from pgti.ingestion.tables.table import Table
from pgti.ingestion.tables.table_times import open_times
from pgti.ingestion.times.columns import (
    ColumnTimes,
    NoTimes,
    TextTimes,
    find_date_format,
    find_epoch_unit,
)

__all__ = ["DistinctValues", "LongSensors", "LongTimes"]

_WHOLE = re.compile(r"-?\d+")
_MAX_SENSORS = 1 << 20
_MAX_KNOWN_TIMES = 1 << 18  # texts of times that are not parsed again


def _missing_cells(cells: Any) -> NDArray[np.bool_]:
    missing = pc.is_null(cells, nan_is_null=True)
    if pa.types.is_string(cells.type):
        missing = pc.or_kleene(missing, pc.equal(cells, ""))
    found: NDArray[np.bool_] = missing.to_numpy(zero_copy_only=False)
    return found


class _Codes:
    """Numbers from 0 for the different cells of a column, in the order of appearance."""

    def __init__(self) -> None:
        self._known: dict[Any, int] = {}

    def __len__(self) -> int:
        return len(self._known)

    def encode(self, cells: Any) -> tuple[NDArray[np.int64], list[Any]]:
        """The number of each cell, and the cells that are new, whose numbers are the next ones."""
        known, num_known = self._known, len(self._known)
        encoded = cells.dictionary_encode()
        different = encoded.dictionary.to_pylist()
        numbers = [known.setdefault(cell, len(known)) for cell in different]
        codes = np.array(numbers, dtype=np.int64)[encoded.indices.to_numpy()]
        new = [cell for cell, number in zip(different, numbers, strict=True) if number >= num_known]
        return codes, new


class LongSensors:
    """The sensors of a long table."""

    def __init__(self, table: Table, place: int) -> None:
        self._table, self._place = table, place
        self._codes = _Codes()
        self._ids: list[str] = []

    def codes(self, cells: Any, first_row: int) -> NDArray[np.int64]:
        """The number of each cell's sensor, in the order of appearance.

        Raises:
            DataError: if a cell is empty, or there are too many sensors.
        """
        labels, column = self._table.labels, self._table.column(self._place)
        problem = f"has no sensor in {column}: name it, or remove the row"
        labels.refuse_where(_missing_cells(cells), first_row, lambda _: problem)
        codes, new = self._codes.encode(cells)
        self._ids += ids_to_text(new)
        if len(self._ids) > _MAX_SENSORS:
            raise DataError(
                f"{column} of {labels.source} names more than {_MAX_SENSORS:,} sensors, such as "
                f"{self._ids[-1]!r}: name the columns of times, sensors and values with "
                f"{option('long')}"
            )
        return codes

    def in_order(self) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """The ids in their order, and the place there of each code."""
        are_numbers = all(map(_WHOLE.fullmatch, self._ids))
        order = sorted(
            range(len(self._ids)),
            key=lambda code: (int(self._ids[code]) if are_numbers else 0, self._ids[code]),
        )
        places = np.empty(len(order), dtype=np.int64)
        places[order] = np.arange(len(order))
        return tuple(self._ids[code] for code in order), places


class LongTimes:
    """The times of a long table as whole seconds, or the numbers of its steps.

    Attributes:
        are_steps: whether they only number steps.
        column: what a format's reader makes of them.
    """

    def __init__(self, table: Table, place: int, options: IngestOptions) -> None:
        self._table, self._place = table, place
        self.are_steps = options.time_format is None and _are_steps(table, place)
        self.column: ColumnTimes = NoTimes()
        if not self.are_steps:
            self.column = open_times(table, place, options)
        self._codes = _Codes()
        self._seconds = np.empty(0, dtype=np.int64)

    def seconds(self, cells: Any, first_row: int) -> NDArray[np.int64]:
        """Seconds, or steps, of the cells.

        Raises:
            DataError: naming the first row whose time is missing or cannot be read.
        """
        if pa.types.is_temporal(cells.type):
            return self._convert(cells, first_row)
        if isinstance(self.column, TextTimes):
            plain = self.column.plain_seconds(cells)
            if plain is not None:
                return plain
        if len(self._codes) > _MAX_KNOWN_TIMES:
            self._codes, self._seconds = _Codes(), np.empty(0, dtype=np.int64)
        if _missing_cells(cells).any():
            self._convert(cells, first_row)  # which names the row
        codes, new = self._codes.encode(cells)
        if len(new):
            try:
                seconds = self._convert(pa.array(new, cells.type), 0)
            except PgtiError:
                self._convert(cells, first_row)  # as above
                raise
            self._seconds = np.concatenate([self._seconds, seconds])
        return self._seconds[codes]

    def _convert(self, cells: Any, first_row: int) -> NDArray[np.int64]:
        labels = self._table.labels
        labels.refuse_where(
            _missing_cells(cells), first_row, lambda _: "has no time: give it one, or remove it"
        )
        if self.are_steps:
            return _steps(cells.to_pandas(), first_row, labels)
        seconds = self.column.seconds(cells.to_pandas(), first_row)
        assert seconds is not None  # only NoTimes has none
        return seconds


def _are_steps(table: Table, place: int) -> bool:
    """Whether the first time is a whole number that no unit makes an epoch time.

    Raises:
        DataError: if it reads as a date.
    """
    if table.kinds[place] == "time":
        return False  # however its cells are shown, which no date of Python may be
    cell = table.sample[0][place]
    if table.kinds[place] == "text" and not isinstance(cell, str | None):
        raise DataError(
            f"{table.column(place)} of {table.name} holds {cell!r}, which is neither a time, a "
            f"text nor a number: name another column with {option('long')}"
        )
    if isinstance(cell, bool) or not _WHOLE.fullmatch(str(cell).strip()):
        return False
    number = int(cell)
    compact = find_date_format([number])
    if compact is not None:
        raise DataError(
            f"{table.column(place)} of {table.name} holds {number}, which reads as a date: name "
            f"its format with {option('time_format', compact)}"
        )
    return find_epoch_unit(number) is None


def _steps(cells: "pd.Series[Any]", first_row: int, labels: RowLabels) -> NDArray[np.int64]:
    numbers = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)
    labels.refuse_where(
        ~(np.abs(numbers) < 2**53) | (numbers % 1 != 0),
        first_row,
        lambda row: f"has the step {cells.iloc[row]}, which is not a whole number as in row 0",
    )
    return numbers.astype(np.int64)


class DistinctValues:
    """The different values of many chunks, in their order."""

    def __init__(self) -> None:
        self._values = np.empty(0, dtype=np.int64)
        self._new: list[NDArray[np.int64]] = []
        self._num_new = 0

    def add(self, values: NDArray[np.int64]) -> None:
        """Add the values of a chunk."""
        self._new.append(np.unique(values))
        self._num_new += len(self._new[-1])
        if self._num_new > max(1 << 16, len(self._values)):
            self.values()

    def values(self) -> NDArray[np.int64]:
        """All of them."""
        self._values = np.unique(np.concatenate([self._values, *self._new]))
        self._new, self._num_new = [], 0
        return self._values
