"""Columns of times: which first columns hold times, and how text and numbers become seconds."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone, tzinfo
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pgti.errors import DataError, option
from pgti.ingestion.instants import PER_SECOND, RowLabels, epoch_seconds, zone_from_tzinfo
from pgti.ingestion.options import IngestOptions

__all__ = [
    "TIME_NAMES",
    "ColumnTimes",
    "DateTimes",
    "EpochTimes",
    "FirstColumn",
    "NoTimes",
    "TextTimes",
    "classify_first_column",
    "counts_rows",
    "find_date_format",
    "find_epoch_unit",
]

FirstColumn: TypeAlias = Literal["times", "rows", "readings"]

TIME_NAMES = ("time", "timestamp", "timestamps", "date", "datetime", "date_time")
"""Titles of columns of times, in lower case."""
STEP_NAMES = (
    *("t", "step", "steps", "time_step", "timestep", "time_index", "time_idx", "tick", "period"),
    *("year", "month", "week", "day", "hour", "minute", "second", "seconds", "minutes", "hours"),
)
"""Titles of columns that may count time steps."""
_ROW_NAMES = ("", "index", "step", "row", "rows", "no", "no.", "nr", "nr.", "#", *TIME_NAMES)
_EPOCH_UNITS = ((1e8, 1e11, "s"), (1e11, 1e14, "ms"), (1e14, 1e17, "us"), (1e17, 9.2e18, "ns"))
_DAY = r"(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
_HOUR, _SIXTY = r"([01]\d|2[0-3])", r"[0-5]\d"
_COMPACT_DATES = {
    format: re.compile(digits)
    for format, digits in (
        ("%Y%m%d", rf"(19|20)\d\d{_DAY}"),
        ("%Y%m%d%H", rf"(19|20)\d\d{_DAY}{_HOUR}"),
        ("%Y%m%d%H%M", rf"(19|20)\d\d{_DAY}{_HOUR}{_SIXTY}"),
        ("%Y%m%d%H%M%S", rf"(19|20)\d\d{_DAY}{_HOUR}{_SIXTY}{_SIXTY}"),
        # As epoch times of today begin with 1, years before 20 are left to them.
        ("%y%m%d%H%M", rf"[2-9]\d{_DAY}{_HOUR}{_SIXTY}"),
        ("%y%m%d%H%M%S", rf"[0-3]\d{_DAY}{_HOUR}{_SIXTY}{_SIXTY}"),
    )
}
# An offset from UTC stands at the end, behind a time of day.
_OFFSET = re.compile(r"[T ]\d\d.*?(Z|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)\s*$", re.IGNORECASE)

_MIDNIGHT = re.compile(r"(?<=[T ])24:00")


def find_epoch_unit(value: float) -> str | None:
    """The unit in which `value` is an epoch time between 1973 and 5138; None if in none."""
    return next((unit for low, high, unit in _EPOCH_UNITS if low <= value < high), None)


def find_date_format(values: Iterable[float]) -> str | None:
    """The format in which numbers all read as dates, such as 20240131 or 2024013123; else None."""
    texts = [f"{value:.0f}" if float(value).is_integer() else "" for value in values]
    return next(
        (form for form, digits in _COMPACT_DATES.items() if all(map(digits.fullmatch, texts))), None
    )


def classify_first_column(
    name: str,
    title: str | None,
    numbers: Sequence[float],
    timestamps: bool | None,
    place: int = 0,
) -> FirstColumn:
    """What a first column of numbers, or one that is called so, holds: times, rows or readings.

    Args:
        name: what messages call the table.
        title: the column's title, None without a header.
        numbers: its first cells.
        timestamps: whether it holds times, where the user says so.
        place: its position.

    Raises:
        DataError: if it is likely to hold times and neither title nor user says so; or if its
            times are compact dates, which could pass for epoch times.
    """
    known = None if title is None else title.strip().lower()
    shown = "the first column" if place == 0 else f"column {place + 1}"
    shown += f" ({title.strip()})" if title else ""
    if counts_rows(title, numbers) and not timestamps:
        return "rows"
    is_called_time = known in TIME_NAMES and timestamps is None
    if timestamps is False or not numbers or not np.isfinite(numbers).all():
        return "times" if timestamps or is_called_time else "readings"
    compact = find_date_format(numbers)
    otherwise = f"or pass {option('timestamps', value=False)} if it holds readings"
    if timestamps or is_called_time:
        if compact is not None:
            raise DataError(
                f"{shown} of {name} holds {numbers[0]:.0f}, which reads as a date: name its format "
                f"({option('time_format', compact)}), {otherwise}"
            )
        return "times"
    steps = {after - before for before, after in pairwise(numbers)}
    column = option("time_columns", title.strip() if title else str(place + 1))
    says = option("timestamps", value=True) if place == 0 else column
    if compact is not None and steps and min(steps) >= 0:
        says += f" and {option('time_format', compact)}"
    elif known in STEP_NAMES and place == 0 and len(steps) == 1 and min(steps) > 0:
        says = (
            f"leave it out with {option('ignore', title)}, and give {option('start')} and "
            f"{option('interval')}"
        )
    elif not steps or min(steps) <= 0 or not all(map(_is_epoch, numbers)):
        return "readings"
    verb = "" if says.startswith("leave") else "pass "
    raise DataError(
        f"{shown} of {name} holds {numbers[0]:.15g}, {numbers[1]:.15g}, ..., which could be times: "
        f"{verb}{says}, {otherwise}"
    )


def _is_epoch(value: float) -> bool:
    return value == int(value) and find_epoch_unit(value) is not None


def counts_rows(title: str | None, cells: Sequence[Any]) -> bool:
    """Whether a column counts rows, from 0 or 1, under a title that says no more."""
    if title is None or not len(cells):
        return False
    known = title.strip().lower()
    if known not in _ROW_NAMES and not known.startswith("unnamed: "):
        return False
    texts = [str(cell).removesuffix(".0") for cell in cells]
    return any(texts == list(map(str, range(first, first + len(texts)))) for first in (0, 1))


class NoTimes:
    """The times of a source that has none."""

    is_aware = False
    time_zone = None
    notes = ()

    def seconds(self, cells: object, first_row: int) -> None:
        """None, for any rows."""


class DateTimes:
    """Times that a library has parsed, as an index or a column of dates.

    Args:
        zone: their zone or constant offset; None for wall-clock times.
        labels: what messages call the rows.
    """

    notes = ()

    def __init__(self, zone: tzinfo | None, labels: RowLabels) -> None:
        self.is_aware = zone is not None
        self.time_zone = zone_from_tzinfo(zone)
        self._labels = labels

    def seconds(self, cells: "pd.Series[Any]", first_row: int) -> NDArray[np.int64]:
        """Epoch seconds [rows] of the rows from `first_row`.

        Raises:
            DataError: naming the first row whose time is missing or not on a whole second.
        """
        return epoch_seconds(pd.DatetimeIndex(pd.to_datetime(cells)), first_row, self._labels)


class EpochTimes:
    """Times counted from 1970 in the unit that the first one shows; they are true times.

    Args:
        first: the first time.
        labels: what messages call the rows.

    Raises:
        DataError: if the first time is in no unit.
    """

    is_aware = True
    time_zone = "UTC"
    notes = ()

    def __init__(self, first: float, labels: RowLabels) -> None:
        compact = find_date_format([first])
        if compact is not None:
            raise DataError(
                f"{labels(0)} has the time {first:.0f}, which reads as a date: name its format "
                f"({option('time_format', compact)})"
            )
        unit = find_epoch_unit(first)
        if unit is None:
            raise DataError(
                f"{labels(0)} has the time {first:.15g}, which is neither a date nor an epoch "
                f"time: pass {option('timestamps', value=False)} if the column holds readings, or "
                f"leave it out with {option('ignore')}, and give {option('start')} and "
                f"{option('interval')}"
            )
        self._unit = unit
        self._labels = labels

    def seconds(self, cells: "pd.Series[Any]", first_row: int) -> NDArray[np.int64]:
        """Epoch seconds [rows] of the rows from `first_row`.

        Raises:
            DataError: naming the first row that is not a number, is in another unit, or is not on
                a whole second.
        """

        def refuse_where(wrong: NDArray[np.bool_], rule: str) -> None:
            self._labels.refuse_where(
                wrong, first_row, lambda row: f"has the time {cells.iloc[row]}: {rule}"
            )

        numbers = pd.to_numeric(cells, errors="coerce").to_numpy()
        other = np.array([find_epoch_unit(value) != self._unit for value in numbers.tolist()])
        refuse_where(other, f"it must be a number of {self._unit} as in the rows before")
        refuse_where(numbers % PER_SECOND[self._unit] != 0, "times must be on whole seconds")
        return np.asarray(numbers // PER_SECOND[self._unit], dtype=np.int64)


class TextTimes:
    """Times written as text, all like the first one.

    Args:
        first: the first time as written.
        options: the format, ISO 8601 by default; offsets may change from row to row only if the
            user names a zone.
        labels: what messages call the rows.
    """

    def __init__(self, first: str, options: IngestOptions, labels: RowLabels) -> None:
        self.notes: tuple[str, ...] = ()  # of how the format was found
        self._format = options.time_format
        self._labels = labels
        self._may_change = options.time_zone is not None
        self._offset: timezone | None = self._offsets(pd.Series([first], dtype=str))[0]
        self.is_aware = self._offset is not None
        self.time_zone = zone_from_tzinfo(self._offset)

    def seconds(self, cells: "pd.Series[str]", first_row: int) -> NDArray[np.int64]:
        """Epoch seconds [rows] of the rows from `first_row`.

        Raises:
            DataError: naming the first row that is not such a time, or whose offset differs.
        """
        plain = self.plain_seconds(cells)
        if plain is not None:
            return plain
        empty = (cells.isna() | (cells == "")).to_numpy()
        self._labels.refuse_where(
            empty, first_row, lambda _: "has no time: give it one, or remove it"
        )
        self._check_offsets(cells, first_row)
        parsed = self._parse(cells, utc=self.is_aware)
        if parsed.isna().any():
            parsed = parsed.fillna(self._parse_midnights(cells[parsed.isna()]))
        rule = f"format {self._format!r}" if self._format else "ISO 8601 (2012-03-01T00:05)"
        self._labels.refuse_where(
            parsed.isna().to_numpy(),
            first_row,
            lambda row: (
                f"has the time {cells.iloc[row]!r}, which is not {rule}: name the format "
                f"with {option('time_format')}"
            ),
        )
        return epoch_seconds(pd.DatetimeIndex(parsed), first_row, self._labels)

    def plain_seconds(self, cells: Any) -> NDArray[np.int64] | None:
        """Seconds of cells (pandas or pyarrow) that all read YYYY-MM-DD hh:mm[:ss]; else None."""
        return None if self.is_aware or self._format is not None else _parse_plain(cells)

    def _parse(self, cells: "pd.Series[str]", *, utc: bool) -> "pd.Series[Any]":
        return pd.to_datetime(cells, format=self._format or "ISO8601", errors="coerce", utc=utc)

    def _parse_midnights(self, cells: "pd.Series[str]") -> "pd.Series[Any]":
        """Cells that write the midnight at the end of a day as 24:00."""
        midnights = cells[cells.str.contains(_MIDNIGHT, na=False)]
        parsed = self._parse(midnights.str.replace(_MIDNIGHT, "00:00", regex=True),
                             utc=self.is_aware)  # fmt: skip
        return parsed + pd.Timedelta(days=1)

    def _offsets(self, cells: "pd.Series[str]") -> NDArray[Any]:
        """Offset of each cell from UTC, None where it has none."""
        if self._format is not None:
            has_offsets = "%z" in self._format
            found = [_parse_offset(cell, self._format) if has_offsets else None for cell in cells]
            return np.array(found, dtype=object)
        texts = cells.str.extract(_OFFSET, expand=False).fillna("")
        parsed = {
            text: _parse_offset(text.upper() + "00" * (len(text) == 3), "%z")  # +05 is +0500
            for text in texts.unique()
        }
        return np.array([parsed.get(text) for text in texts], dtype=object)

    def _check_offsets(self, cells: "pd.Series[str]", first_row: int) -> None:
        offsets = self._offsets(cells)
        for row in np.flatnonzero(offsets != self._offset).tolist():
            shown = f"{self._labels(first_row + row)} has the time {cells.iloc[row]!r}"
            if (offsets[row] is not None) != self.is_aware:
                if self._parse(cells.iloc[[row]], utc=True).isna().all():
                    return  # parsing refuses a cell that is not a time
                has, have = ("no", "one") if self.is_aware else ("an", "none")
                raise DataError(
                    f"{shown}, which has {has} offset from UTC, and the rows before have {have}: "
                    "write all times the same way"
                )
            if not self._may_change:
                raise DataError(
                    f"{shown}, and the first row has the offset {self._offset}: name the zone "
                    f"whose clocks change with {option('time_zone')} (such as Europe/Berlin)"
                )


def _parse_plain(cells: Any) -> NDArray[np.int64] | None:
    """Seconds of cells that all read YYYY-MM-DD hh:mm[:ss]; None if some do not."""
    try:
        texts = cells if isinstance(cells, pa.Array) else pa.Array.from_pandas(cells)
        times = texts.cast(pa.timestamp("s"))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return None
    return None if times.null_count else np.asarray(times.cast(pa.int64()), dtype=np.int64)


def _parse_offset(text: str, time_format: str) -> timezone | None:
    try:
        parsed = datetime.strptime(text.strip(), time_format).tzinfo
    except ValueError:
        return None
    return parsed if isinstance(parsed, timezone) else None


ColumnTimes: TypeAlias = NoTimes | DateTimes | EpochTimes | TextTimes
