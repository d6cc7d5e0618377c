"""The columns of a table that hold times, or only count rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from pgti.errors import DataError, option
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.tables.cells import is_missing, is_number
from pgti.ingestion.tables.table import Table
from pgti.ingestion.times.columns import (
    TIME_NAMES,
    ColumnTimes,
    DateTimes,
    EpochTimes,
    NoTimes,
    TextTimes,
    classify_first_column,
    counts_rows,
)
from pgti.ingestion.times.texts import day_month_places, find_formats, fit_format, is_date

__all__ = ["LeadingColumns", "find_leading_columns", "open_times"]

_SCAN_BYTES = 1 << 22
_FIRST = 16  # columns


@dataclass(frozen=True, kw_only=True, slots=True)
class LeadingColumns:
    """Columns of a table that are not readings.

    Attributes:
        times: position of the column of times, if any.
        rows: positions of columns that only count rows.
    """

    times: int | None = None
    rows: tuple[int, ...] = ()


def find_leading_columns(table: Table, options: IngestOptions) -> LeadingColumns:
    """The columns of a wide table that hold times, or only count rows.

    Raises:
        DataError: if there are several columns of times, or numbers could be times.
    """
    times = table.time if table.time is not None else _find_times(table, options)
    rows: list[int] = []
    for place in range(table.num_columns):
        if place == times or (times is None and rows):
            continue
        title = None if table.titles is None else table.titles[place]
        # Without times, only the first column counts rows and is not a reading.
        if not counts_rows(title, table.cells(place)) or (times is None and place):
            break
        rows.append(place)
    return LeadingColumns(times=times, rows=tuple(rows))


def _find_times(table: Table, options: IngestOptions) -> int | None:
    """The column of times, by its kind, its cells or its title."""
    if options.timestamps is False:
        return None
    every = range(table.num_columns)
    dated = [place for place in every if table.kinds[place] == "time"]
    if not dated and options.time_format is not None:
        dated = [place for place in every if fit_format(table.cells(place), options.time_format)]
        return 0 if 0 in dated or not dated else _only(table, dated)
    if not dated:
        texts = [place for place in every if table.kinds[place] == "text"]
        share = {place: _share_of_dates(table.cells(place)) for place in texts}
        dated = [place for place in texts if share[place] == 1]
        if not dated and texts and share[texts[0]] > 1 / 2:
            dated = texts[:1]  # reading it names the cell that is no time
    if dated:
        return _only(table, dated)
    titles = table.titles or ()
    called = [place for place, title in enumerate(titles) if title.lower() in TIME_NAMES]
    # Dates that are written as numbers, such as 20240131, may stand in any of the first columns.
    first = [
        each for each in range(1, min(table.num_columns, _FIRST)) if table.kinds[each] != "text"
    ]
    for place in dict.fromkeys((0, *called, *first)):
        cells = [str(cell) for cell in table.cells(place)]
        are_numbers = all(is_number(cell) and not is_missing(cell) for cell in cells)
        numbers = list(map(float, cells)) if are_numbers else []
        title = titles[place] if titles else None
        kind = classify_first_column(table.name, title, numbers, options.timestamps, place)
        if kind == "times":
            return place
    return None


def _only(table: Table, places: Sequence[int]) -> int:
    if len(places) > 1:
        names = ", ".join(table.column(place) for place in places)
        raise DataError(
            f"{table.name} has {len(places)} columns of times ({names}): name those that together "
            f"hold the time of a row with {option('time_columns')}, and leave out the others with "
            f"{option('ignore')}"
        )
    return places[0]


def _share_of_dates(cells: Sequence[Any]) -> float:
    return sum(map(_is_date, cells)) / max(1, len(cells))


def _is_date(cell: Any) -> bool:
    return isinstance(cell, str) and is_date(cell)


def open_times(table: Table, place: int | None, options: IngestOptions) -> ColumnTimes:
    """The times in a column of a table, or none.

    Raises:
        DataError: if the first cell is not a time, or it could be two.
    """
    if place is None:
        return NoTimes()
    if table.kinds[place] == "time":
        return DateTimes(dict(table.zones).get(place), table.labels)
    first = table.sample[0][place]
    if first is None:
        raise DataError(f"{table.labels(0)} has no time: give it one")
    text = str(first).strip()
    if options.time_format is not None:
        return TextTimes(text, options, table.labels)
    if not is_missing(text) and is_number(text):
        return EpochTimes(float(text), table.labels)
    formats = find_formats(text)
    if len(formats) < 2:
        found = options if not formats else replace(options, time_format=formats[0])
        return TextTimes(text, found, table.labels)
    order = _find_day(table, place)
    if order is None:
        either = " or ".join(option("time_format", each) for each in formats)
        raise DataError(
            f"{table.labels(0)} has the time {text!r}, whose day and month could be either, and no "
            f"row has a day above 12: pass {either}"
        )
    day, shown = order
    times = TextTimes(text, replace(options, time_format=formats[day]), table.labels)
    what = ("the day before the month", "the month before the day")[day]
    times.notes = (f"times of {table.name} have {what}, as {shown!r} shows",)
    return times


def _find_day(table: Table, place: int) -> tuple[int, str] | None:
    """Whether the day is the first or the second number of dates, and a date that shows it."""
    for rows in table.read((), (place,), _SCAN_BYTES):
        found = day_month_places(filter(None, rows.others[0].cast(pa.string()).to_pylist()))
        if found is not None:
            return found
    return None
