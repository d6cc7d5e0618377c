"""Wide tables: a row for each time, a column for each sensor."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from pgti.errors import DataError, option
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import Chunk, Readings
from pgti.ingestion.tables.cells import is_missing, is_number
from pgti.ingestion.tables.column_levels import arrange_levels, check_single_level
from pgti.ingestion.tables.long_layout import MAX_LONG_COLUMNS
from pgti.ingestion.tables.long_names import is_description
from pgti.ingestion.tables.table import Table
from pgti.ingestion.tables.table_times import find_leading_columns, open_times
from pgti.ingestion.times.columns import ColumnTimes, find_date_format, find_epoch_unit

__all__ = ["open_wide"]

_TIMES_BYTES = 1 << 22  # of memory, to read a time again
_DATE_DIGITS, _FEW_ROWS = 8, 5
_HOUR = re.compile(r"(?:(?=.*:00)|h|hr|hour)[ _]?(\d\d?)(?::00)?", re.IGNORECASE)
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]


def open_wide(table: Table, options: IngestOptions) -> Readings:
    """Readings in a table with a row for each time and a column for each sensor.

    Raises:
        DataError: if there is no column of readings, or columns could be times or readings.
    """
    leading = find_leading_columns(table, options)
    others = () if leading.times is None else (leading.times,)
    skipped = {leading.times, *leading.rows, *range(table.num_index)}
    for place in range(table.num_index):
        if place != leading.times and table.kinds[place] != "number":
            raise DataError(
                f"the index of {table.name} holds {table.sample[0][place]!r}, which is neither a "
                "time nor a row number: reset the index, or name the format of its times with "
                f"{option('time_format')}"
            )
    numbers = tuple(place for place in range(table.num_columns) if place not in skipped)
    if not numbers:
        raise DataError(f"{table.name} has no column of readings: give one, or the delimiter")
    _refuse_texts(table, leading.times, numbers)
    times = open_times(table, leading.times, options)

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        for rows in table.read(numbers, others, budget_bytes):
            cells: Any = rows.others[0].to_pandas() if rows.others else None
            seconds = times.seconds(cells, rows.first_row)
            yield Chunk(values=rows.values[..., None], seconds=seconds)

    labels = table.labels
    if times.is_aware and leading.times is not None:
        labels = replace(labels, written=partial(_written_time, table, leading.times))
    readings = Readings(
        name=table.name,
        num_rows=table.num_rows,
        num_nodes=len(numbers),
        node_ids=None if table.titles is None else tuple(table.titles[p] for p in numbers),
        is_aware=times.is_aware,
        time_zone=times.time_zone,
        first_line=table.first_line,
        labels=labels,
        first_seconds=_first_time(table, leading.times, times),
        notes=(
            *table.notes,
            *times.notes,
            *_note_descriptions(table, leading.times, numbers),
            *_note_parts_of_times(table, numbers),
        ),
        chunks=chunks,
    )
    if not table.levels:
        check_single_level(table.name, options)
        return readings
    return _with_levels(readings, table, numbers, options)


def _refuse_texts(table: Table, time: int | None, numbers: tuple[int, ...]) -> None:
    """Refuse a column of words in every row, which would be a sensor without a reading.

    Raises:
        DataError: with what such a column could be, and the option for each.
    """
    texts = [
        place for place in numbers if table.kinds[place] == "text" and _has_words(table, place)
    ]
    if not texts:
        return
    titles = table.titles or tuple(map(str, range(1, table.num_columns + 1)))
    values = [titles[place] for place in numbers if place not in texts]
    words = [str(cell)[:40] for cell in dict.fromkeys(table.cells(texts[0])) if cell]
    ignored = option("ignore", tuple(titles[place] for place in texts))
    ways = [f"pass {ignored} to leave out what is no reading"]
    if time is not None and values and table.num_columns <= MAX_LONG_COLUMNS:
        long = option("long", (titles[time], titles[texts[0]], *values))
        ways.append(f"pass {long} if it names the sensor of each row")
    if time is None and texts[0] == 0:
        ways.append(f"pass {option('transpose', value=True)} if rows are sensors")
    if table.first_line is not None and values and len(words) == 1:
        ways.append(f"pass {option('missing', words[0])} if that means missing")
    raise DataError(
        f"{table.column(texts[0])} of {table.name} holds {words[0]!r} and no number in its first "
        f"rows, and a column of a wide table holds the readings of a sensor: {', or '.join(ways)}"
    )


def _has_words(table: Table, place: int) -> bool:
    """Whether no cell of a column in the sample is a number, and all have letters."""
    cells = [str(cell) for cell in table.cells(place) if cell not in (None, "")]
    letters = (any(map(str.isalpha, cell)) and not is_number(cell) for cell in cells)
    return bool(cells) and all(letters)


def _note_descriptions(table: Table, time: int | None, numbers: Sequence[int]) -> tuple[str, ...]:
    """A note of columns that seem to hold no readings, by their title or cells, unless all do."""
    titles = table.titles
    if titles is None:
        return ()
    found = [
        titles[place]
        for place in numbers
        if is_description(titles[place]) or (time is not None and _holds_dates(table, place, time))
    ]
    if not found or len(found) == len(numbers):
        return ()
    shown = ", ".join(found[:6])
    are = "are read as sensors" if len(found) > 1 else "is read as a sensor"
    return (
        f"{shown}{', ...' if found[6:] else ''} of {table.name} {are}: leave out "
        f"what is no reading with {option('ignore', tuple(found))}",
    )


def _note_parts_of_times(table: Table, numbers: Sequence[int]) -> tuple[str, ...]:
    """A note of columns that are called like the hours of a day or the months of a year."""
    titles = [table.titles[place] for place in numbers] if table.titles else []
    hours = [int(match[1]) for title in titles if (match := _HOUR.fullmatch(title))]
    is_day = len(hours) == len(titles) and hours in (list(range(24)), list(range(1, 25)))
    is_year = len(titles) == 12 and [title[:3].lower() for title in titles] == _MONTHS
    if not is_day and not is_year:
        return ()
    parts = "hours of a day" if is_day else "months of a year"
    return (
        f"the columns {titles[0]} to {titles[-1]} of {table.name} are read as {len(titles)} "
        f"sensors: if they are the {parts}, write a row for each time (pandas.melt does)",
    )


def _holds_dates(table: Table, place: int, time: int) -> bool:
    """Whether numbers read as dates or epoch times, or count rows in front of the times."""
    first = table.cells(place)[0]
    if table.kinds[place] != "number" or not (place < time or len(str(first)) >= _DATE_DIGITS):
        return False
    cells = [str(cell) for cell in table.cells(place)]
    if len(cells) < _FEW_ROWS or not all(map(is_number, cells)) or any(map(is_missing, cells)):
        return False
    numbers = list(map(float, cells))
    steps = {after - before for before, after in pairwise(numbers)}
    if find_date_format(numbers) is not None:
        return min(steps) >= 0
    is_epoch = all(find_epoch_unit(number) is not None for number in numbers)
    return len(steps) == 1 and min(steps) > 0 and (is_epoch or place < time)


def _with_levels(
    readings: Readings, table: Table, numbers: tuple[int, ...], options: IngestOptions
) -> Readings:
    """The readings of columns of two levels, as sensors and channels."""
    labels = [table.levels[place] for place in numbers]
    found = arrange_levels(labels, table.level_names, table.name, options)
    shape = (len(found.node_ids), len(found.channels))

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        for chunk in readings.chunks(budget_bytes // 2):
            values = np.take(chunk.values[..., 0], found.order, axis=1)
            yield Chunk(values=values.reshape(-1, *shape), seconds=chunk.seconds)

    return replace(
        readings,
        num_nodes=shape[0],
        num_channels=shape[1],
        node_ids=found.node_ids,
        channels=found.channels,
        chunks=chunks,
    )


def _first_time(table: Table, place: int | None, times: ColumnTimes) -> int | None:
    """The time of the first row as the sample shows it; None without times, or if it is wrong."""
    if place is None or not table.sample:
        return None
    try:
        seconds = times.seconds(pd.Series(table.cells(place)[:1]), 0)
    except DataError:
        return None  # reading the row refuses it
    return None if seconds is None else int(seconds[0])


def _written_time(table: Table, place: int, row: int) -> str:
    """The time of a row as the table writes it; the table is read again up to there."""
    for rows in table.read((), (place,), _TIMES_BYTES):
        if row < rows.first_row + len(rows.others[0]):
            cell = rows.others[0][row - rows.first_row].as_py()
            return cell.isoformat() if isinstance(cell, datetime) else str(cell)
    raise DataError(f"{table.name} changed while it was read: try again")
