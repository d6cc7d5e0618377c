"""What the first column of a table is, and times that are written as numbers."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.errors import DataError
from pgti.ingest.times import (
    UTC_ZONE,
    RowLabel,
    epoch_seconds,
    epoch_seconds_of_numbers,
    zone_from_offset,
)

__all__ = [
    "EpochTimes",
    "FirstColumn",
    "TextTimes",
    "find_epoch_unit",
    "first_column",
    "is_compact_date",
]

FirstColumn = Literal["times", "rows", "readings"]

_TIME_NAMES = ("time", "timestamp", "timestamps", "date", "datetime", "date_time")
_ROW_NAMES = ("", "index", "step", "row", "unnamed: 0", *_TIME_NAMES)
_EPOCH_UNITS = ((1e8, 1e11, "s"), (1e11, 1e14, "ms"), (1e14, 1e17, "us"), (1e17, 9.2e18, "ns"))
_COMPACT_DATE = re.compile(
    r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(([01]\d|2[0-3])[0-5]\d([0-5]\d)?)?"
)


def find_epoch_unit(value: float) -> str | None:
    """The unit in which `value` is an epoch time between 1973 and 5138; None if in none."""
    return next((unit for low, high, unit in _EPOCH_UNITS if low <= value < high), None)


def is_compact_date(value: float) -> bool:
    """Whether a number reads as yyyymmdd, yyyymmddHHMM or yyyymmddHHMMSS."""
    return value == int(value) and _COMPACT_DATE.fullmatch(str(int(value))) is not None


def first_column(
    name: str, title: str | None, numbers: Sequence[float], timestamps: bool | None
) -> FirstColumn:
    """What a first column of numbers holds.

    Args:
        name: what messages call the table.
        title: the column's title, None without a header.
        numbers: its first cells.
        timestamps: what the user says of it.

    Raises:
        DataError: if it is likely to hold times and nothing says so; or if its times are compact
            dates, which would be taken for epoch times.
    """
    known = None if title is None else title.strip().lower()
    shown = "the first column" if not title else f"the first column ({title.strip()})"
    counts = bool(numbers) and list(numbers) == list(range(len(numbers)))
    if counts and known in _ROW_NAMES and not timestamps:
        return "rows"
    if timestamps is False or not numbers or not np.isfinite(numbers).all():
        return (
            "times" if timestamps or (known in _TIME_NAMES and timestamps is None) else "readings"
        )
    compact = all(is_compact_date(value) for value in numbers)
    if timestamps or known in _TIME_NAMES:
        if compact:
            raise DataError(
                f"{shown} of {name} holds {numbers[0]:.0f}, which reads as a date without "
                "separators: name its format (--time-format %Y%m%d), or say --no-timestamps if it "
                "holds readings"
            )
        return "times"
    whole = all(value == int(value) for value in numbers)
    rises = len(numbers) > 1 and all(a < b for a, b in pairwise(numbers))
    if whole and rises and (compact or all(find_epoch_unit(value) for value in numbers)):
        raise DataError(
            f"{shown} of {name} holds {numbers[0]:.0f}, {numbers[1]:.0f}, ..., which could be "
            "times: say --timestamps if it holds times (with --time-format for dates such as "
            "20250131), or --no-timestamps if it holds readings"
        )
    return "readings"


class EpochTimes:
    """Times counted from 1970 in the unit that the first one shows.

    Args:
        first: the first time.
        name: what messages call the source.
        label: how messages call a row.

    Raises:
        DataError: if the first time is in no unit.
    """

    def __init__(self, first: float, name: str, label: RowLabel) -> None:
        unit = find_epoch_unit(first)
        if unit is None:
            raise DataError(
                f"{label(0)} of {name} has the time {first:.15g}, which is neither a date nor an "
                "epoch time: say --no-timestamps if the column holds readings"
            )
        self._unit = unit
        self._name = name
        self._label = label

    @property
    def is_aware(self) -> bool:
        """Epoch times are true times."""
        return True

    @property
    def time_zone(self) -> str:
        """They name no zone: UTC."""
        return UTC_ZONE

    def seconds(self, cells: "pd.Series[Any]", first_row: int) -> NDArray[np.int64]:
        """Epoch seconds of the rows from `first_row`.

        Raises:
            DataError: naming the first row that is no number, in another unit, or not on a whole
                second.
        """
        numbers = pd.to_numeric(cells, errors="coerce")
        bad = numbers.isna().to_numpy(dtype=bool)
        if not bad.any():
            values = numbers.to_numpy()
            bad = np.array([find_epoch_unit(value) != self._unit for value in values.tolist()])
        if bad.any():
            raise self._refused(
                cells, bad, first_row, f"it must be a number of {self._unit} as in the rows before"
            )
        if values.dtype.kind == "f":
            uneven = values != np.floor(values)
            if uneven.any():
                raise self._refused(cells, uneven, first_row, "times must be on whole seconds")
        return epoch_seconds_of_numbers(
            values.astype(np.int64), self._unit, first_row, self._name, self._label
        )

    def _refused(
        self, cells: "pd.Series[Any]", bad: NDArray[np.bool_], first_row: int, rule: str
    ) -> DataError:
        row = int(np.flatnonzero(bad)[0])
        cell = cells.iloc[row]
        return DataError(
            f"{self._label(first_row + row)} of {self._name} has the time "
            f"{cell if isinstance(cell, str) else f'{cell:.15g}'}: {rule}"
        )


# An offset from UTC stands at the end, behind a time of day.
_OFFSET = re.compile(r"[T ]\d\d.*?(Z|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)\s*$", re.IGNORECASE)


class TextTimes:
    """The times of a source whose first one tells how they are written.

    Args:
        first: the first time as written.
        time_format: as for `strptime`; None for ISO 8601.
        name: what messages call the source.
        label: how messages call a row.
        time_zone: the zone that the user names; then offsets may change from row to row.
    """

    def __init__(
        self,
        first: str,
        *,
        time_format: str | None,
        name: str,
        label: RowLabel,
        time_zone: str | None,
    ) -> None:
        self._format = time_format
        self._name = name
        self._label = label
        self._may_change = time_zone is not None
        self._offset: str = self._offsets(pd.Series([first], dtype=str))[0]

    @property
    def is_aware(self) -> bool:
        """Whether the times carry offsets from UTC."""
        return bool(self._offset)

    @property
    def time_zone(self) -> str | None:
        """The zone with the offset of the first time; None if there is none so."""
        if not self._offset:
            return None
        sign = -1 if self._offset[0] == "-" else 1
        hours, minutes = int(self._offset[1:3]), int(self._offset[3:5])
        return zone_from_offset(sign * timedelta(hours=hours, minutes=minutes))

    def seconds(self, cells: "pd.Series[str]", first_row: int) -> NDArray[np.int64]:
        """Epoch seconds of the rows from `first_row`.

        Raises:
            DataError: naming the first row that holds no such time, or whose offset is another.
        """
        self._check_offsets(cells, first_row)
        parsed = pd.to_datetime(
            cells, format=self._format or "ISO8601", errors="coerce", utc=self.is_aware
        )
        unknown = np.flatnonzero(parsed.isna().to_numpy())
        if len(unknown):
            rule = f"format {self._format!r}" if self._format else "ISO 8601 (2012-03-01T00:05)"
            raise DataError(
                f"{self._at(cells, first_row, int(unknown[0]))}, which is not {rule}: name the "
                "format with --time-format"
            )
        return epoch_seconds(pd.DatetimeIndex(parsed), first_row, self._name, self._label)

    def _at(self, cells: "pd.Series[str]", first_row: int, row: int) -> str:
        return f"{self._label(first_row + row)} of {self._name} has the time {cells.iloc[row]!r}"

    def _offsets(self, cells: "pd.Series[str]") -> NDArray[Any]:
        """Offset of each cell as +HHMM, "" where it has none."""
        if self._format is None:
            found = cells.str.extract(_OFFSET, expand=False).fillna("")
            spelled = {offset: _spelled(str(offset)) for offset in found.unique()}
            return found.map(spelled).to_numpy(dtype=object)
        if "%z" not in self._format:
            return np.full(len(cells), "", dtype=object)
        return np.array([_offset_of(str(cell), self._format) for cell in cells], dtype=object)

    def _check_offsets(self, cells: "pd.Series[str]", first_row: int) -> None:
        offsets = self._offsets(cells)
        other = np.flatnonzero(offsets != self._offset)
        for row in other.tolist():
            offset = offsets[row]
            if bool(offset) != self.is_aware:
                # A cell that is no time at all is told as such, by parsing it.
                if self._is_no_time(str(cells.iloc[row])):
                    return
                has, have = ("an", "none") if offset else ("no", "one")
                raise DataError(
                    f"{self._at(cells, first_row, row)}, which has {has} offset from UTC, and the "
                    f"rows before have {have}: write all times the same way"
                )
            if not self._may_change:
                raise DataError(
                    f"{self._at(cells, first_row, row)}, and the first row has the offset "
                    f"{self._offset[:3]}:{self._offset[3:5]}: offsets that change belong to a zone "
                    "whose clocks change, name it with --time-zone (such as Europe/Berlin)"
                )

    def _is_no_time(self, cell: str) -> bool:
        parsed = pd.to_datetime(
            pd.Series([cell], dtype=str),
            format=self._format or "ISO8601",
            errors="coerce",
            utc=True,
        )
        return bool(parsed.isna().iloc[0])


def _spelled(offset: str) -> str:
    if not offset:
        return ""
    return "+0000" if offset in "Zz" else offset.replace(":", "").ljust(5, "0")


def _offset_of(cell: str, time_format: str) -> str:
    try:
        return datetime.strptime(cell.strip(), time_format).strftime("%z")
    except ValueError:
        return ""
