"""The columns of a table that hold times, or only count rows."""

import re
from dataclasses import dataclass

from pgti.errors import DataError
from pgti.ingestion.cells import is_missing, is_number
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.tables import Table
from pgti.ingestion.time_columns import (
    ColumnTimes,
    DateTimes,
    EpochTimes,
    NoTimes,
    TextTimes,
    classify_first_column,
)

__all__ = ["LeadingColumns", "find_leading_columns", "is_date", "open_times"]

_DATE = re.compile(r"\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(\D.*)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class LeadingColumns:
    """Columns of a table that are not readings.

    Attributes:
        times: position of the column of times, if any.
        rows: position of a column that only counts rows, if any.
    """

    times: int | None = None
    rows: int | None = None


def is_date(cell: str) -> bool:
    """Whether a cell begins like a date."""
    return _DATE.fullmatch(cell) is not None


def find_leading_columns(table: Table, options: IngestOptions) -> LeadingColumns:
    """The columns of a wide table that hold times, or only count rows.

    Raises:
        DataError: if there are several columns of times, or numbers could be times.
    """
    dated = [place for place, kind in enumerate(table.kinds) if kind == "time"]
    if options.timestamps is not False and dated:
        if len(dated) > 1:
            names = ", ".join(table.column(place) for place in dated)
            raise DataError(f"{table.name} has {len(dated)} columns of times ({names}): keep one")
        return LeadingColumns(times=dated[0])
    cells = [str(cell) for cell in table.cells(0)]
    if options.timestamps is not False and (options.time_format or all(map(is_date, cells))):
        return LeadingColumns(times=0)
    are_numbers = all(is_number(cell) and not is_missing(cell) for cell in cells)
    numbers = list(map(float, cells)) if are_numbers else []
    title = None if table.titles is None else table.titles[0]
    kind = classify_first_column(table.name, title, numbers, options.timestamps)
    return LeadingColumns(times=0 if kind == "times" else None, rows=0 if kind == "rows" else None)


def open_times(table: Table, place: int | None, options: IngestOptions) -> ColumnTimes:
    """The times in a column of a table, or none.

    Raises:
        DataError: if the first cell is not a time.
    """
    if place is None:
        return NoTimes()
    if table.kinds[place] == "time":
        return DateTimes(dict(table.zones).get(place), table.labels)
    first = table.sample[0][place]
    if first is None:
        raise DataError(f"{table.labels(0)} has no time: give it one")
    if options.time_format is None and not is_missing(str(first)) and is_number(str(first)):
        return EpochTimes(float(first), table.labels)
    return TextTimes(str(first), options, table.labels)
