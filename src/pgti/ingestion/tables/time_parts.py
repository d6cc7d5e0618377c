"""Times that stand in several columns of a table: date and time, or year, month, day and hour."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from pgti.errors import ConfigError, option
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.tables.table import Table, TableRows
from pgti.ingestion.times.texts import is_date

__all__ = ["join_time_columns"]

_Compose: TypeAlias = Callable[[Sequence[Any]], Any]  # of columns of text, one of times as text

_UNITS = (  # names, smallest and largest value
    (("year", "yr", "yyyy"), 1700, 2300),
    (("month", "mon", "mo"), 1, 12),
    (("day", "dd", "dy"), 1, 31),
    (("hour", "hr", "hh"), 0, 24),
    (("minute", "min", "mi"), 0, 59),
    (("second", "sec"), 0, 59),
)
_HOURS = ("hour", "hr", "hh", "stunde", "heure", "hora", "ora")
_TIME_OF_DAY = re.compile(r"\s*\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?\s*([AaPp][Mm])?\s*")
_SPAN = " - "
_WHOLE = re.compile(r"\d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parts:
    """Columns that together hold the times.

    Attributes:
        places: positions of the columns.
        compose: makes times as text of their cells.
    """

    places: tuple[int, ...]
    compose: _Compose


def join_time_columns(table: Table, options: IngestOptions) -> Table:
    """The table with one column in place of several that hold its times; else the table itself.

    Raises:
        ConfigError: if a column is named twice.
        DataError: if there is no column that the user names.
    """
    if options.time_columns:
        places = tuple(map(table.position, options.time_columns))
        if len(set(places)) < len(places):
            raise ConfigError(
                f"{option('time_columns')} names a column twice: {', '.join(options.time_columns)}"
            )
        if len(places) == 1:
            span = _beginnings(table, places)
            return replace(table, time=places[0]) if span is None else _join(table, span)
        parts = _calendar_parts(table, places) or _day_and_time(table, places)
        return _join(table, parts or _Parts(places=places, compose=_join_texts))
    if options.timestamps is False or "time" in table.kinds or table.num_columns < 2:
        return table
    found = _find_parts(table, options)
    if found is None:
        return table
    names = ", ".join(table.column(place) for place in found.places)
    what = "the beginnings of" if found.compose is _take_beginnings else "those of"
    note = f"the times of {table.name} are {what} {names}"
    return _join(replace(table, notes=(*table.notes, note)), found)


def _find_parts(table: Table, options: IngestOptions) -> _Parts | None:
    """The columns that hold dates, times of day, years, months, ... by their titles and cells."""
    every = range(table.num_columns)
    texts = [place for place in every if table.kinds[place] == "text"]
    dates = [place for place in texts if all(is_date(str(cell)) for cell in table.cells(place))]
    span = _beginnings(table, dates)
    if span is not None:
        return span
    if not dates and options.time_format is None:
        return _calendar_parts(table, tuple(every))
    if len(dates) != 1 or any(":" in cell for cell in table.cells(dates[0])):
        return None
    titles = table.titles or ("",) * table.num_columns
    times = [
        place
        for place in every
        if place != dates[0] and (place == dates[0] + 1 or _plain(titles[place]) in _HOURS)
    ]
    pairs = (_day_and_time(table, (dates[0], place)) for place in (*times, *texts))
    return next((pair for pair in pairs if pair is not None), None)


def _beginnings(table: Table, places: Sequence[int]) -> _Parts | None:
    """A column of spans of time such as "01.02.2024 00:00 - 01.02.2024 00:15", if it is the one."""
    if len(places) != 1:
        return None
    halves = [str(cell).partition(_SPAN) for cell in table.cells(places[0])]
    if not halves or not all(is_date(begin) and is_date(end) for begin, _, end in halves):
        return None
    return _Parts(places=tuple(places), compose=_take_beginnings)


def _take_beginnings(columns: Sequence[Any]) -> Any:
    return pc.list_element(pc.split_pattern(columns[0], _SPAN, max_splits=1), 0)


def _plain(title: str) -> str:
    return title.strip().lower()


def _calendar_parts(table: Table, places: tuple[int, ...]) -> _Parts | None:
    """The columns of year, month, day, ... among some; None if they hold no such numbers."""
    titles = {_plain(table.titles[place]): place for place in places} if table.titles else {}
    found: list[int] = []
    for names, low, high in _UNITS:
        place = next((titles[name] for name in names if name in titles), None)
        if place is None:
            break
        cells = [str(cell).strip() for cell in table.cells(place)]
        if not all(_WHOLE.fullmatch(cell) and low <= int(cell) <= high for cell in cells):
            break
        found.append(place)
    if len(found) == 1:  # years alone are times where they follow one another
        years = [int(str(cell)) for cell in table.cells(found[0])]
        if any(after - before != 1 for before, after in pairwise(years)):
            return None
    return _Parts(places=tuple(found), compose=_join_units) if found else None


def _day_and_time(table: Table, places: tuple[int, ...]) -> _Parts | None:
    """A column of dates and one of times of day, or of hours by its title."""
    if len(places) != 2:
        return None
    days, times = ([str(cell) for cell in table.cells(place)] for place in places)
    if not all(map(is_date, days)):
        return None
    if all(map(_TIME_OF_DAY.fullmatch, times)):
        return _Parts(places=places, compose=_join_texts)
    title = "" if table.titles is None else _plain(table.titles[places[1]])
    compose = _clock_of(title, [cell.strip() for cell in times])
    return None if compose is None else _Parts(places=places, compose=compose)


def _clock_of(title: str, cells: list[str]) -> _Compose | None:
    """How whole numbers under a title become times of day: as hours, or as hours and minutes."""
    if title not in (*_HOURS, "time") or not all(map(_WHOLE.fullmatch, cells)):
        return None
    numbers = list(map(int, cells))
    if max(numbers) <= 24:
        return _join_hours if title in _HOURS else None
    return _join_clock if all(each <= 2400 and each % 100 < 60 for each in numbers) else None


def _join_texts(columns: Sequence[Any]) -> Any:
    return pc.binary_join_element_wise(*columns, " ")


def _join_hours(columns: Sequence[Any]) -> Any:
    hours = pc.binary_join_element_wise(_two_digits(columns[1]), "00", ":")
    return _join_texts((columns[0], hours))


def _join_clock(columns: Sequence[Any]) -> Any:
    """Dates and times of day such as 30, 100 and 2345, which are hours and minutes."""
    clock = pc.utf8_lpad(columns[1], 4, "0")
    hours, minutes = (pc.utf8_slice_codeunits(clock, start, start + 2) for start in (0, 2))
    return _join_texts((columns[0], pc.binary_join_element_wise(hours, minutes, ":")))


def _join_units(columns: Sequence[Any]) -> Any:
    year, *others = columns
    month, day, *clock = map(_two_digits, (*others, *["1"] * (2 - len(others))))
    date = pc.binary_join_element_wise(year, month, day, "-")
    if not clock:
        return date
    return _join_texts((date, pc.binary_join_element_wise(*clock, *["00"] * (3 - len(clock)), ":")))


def _two_digits(column: Any) -> Any:
    return pc.utf8_lpad(pa.scalar(column) if isinstance(column, str) else column, 2, "0")


def _join(table: Table, parts: _Parts) -> Table:
    """The table with one column of text in place of the first of some; the others are left out."""
    place = sum(each not in parts.places for each in range(parts.places[0]))
    kept = [each for each in range(table.num_columns) if each not in parts.places]
    order: list[int | None] = [*kept[:place], None, *kept[place:]]
    titles = None
    if table.titles is not None:
        joined = " ".join(table.titles[each] for each in parts.places)
        titles = tuple(joined if each is None else table.titles[each] for each in order)
    cells = [pa.array([str(cell) for cell in table.cells(each)]) for each in parts.places]
    times = parts.compose(cells).to_pylist()

    def read(
        numbers: Sequence[int], others: Sequence[int], budget_bytes: int
    ) -> Iterator[TableRows]:
        wanted: list[int] = []
        for each in others:
            source = order[each]
            wanted += parts.places if source is None else [source]
        sources = [source for each in numbers if (source := order[each]) is not None]
        for rows in table.read(sources, wanted, budget_bytes):
            columns = iter(rows.others)
            yield replace(
                rows,
                others=tuple(
                    parts.compose([_as_text(next(columns)) for _ in parts.places])
                    if order[each] is None
                    else next(columns)
                    for each in others
                ),
            )

    return replace(
        table,
        titles=titles,
        kinds=tuple("text" if each is None else table.kinds[each] for each in order),
        sample=tuple(
            tuple(times[number] if each is None else row[each] for each in order)
            for number, row in enumerate(table.sample)
        ),
        read=read,
        zones=tuple((order.index(each), zone) for each, zone in table.zones if each in kept),
        time=place,
    )


def _as_text(column: Any) -> Any:
    if pa.types.is_floating(column.type):
        column = column.cast(pa.int64())
    return column.cast(pa.string())
