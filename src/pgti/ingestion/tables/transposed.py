"""Transposed tables: a row for each sensor, a column for each time."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.display import shorten
from pgti.errors import DataError, option
from pgti.ingestion.axes import LATITUDE_NAMES, LONGITUDE_NAMES, SENSOR_NAMES
from pgti.ingestion.instants import RowLabels
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.raw_graphs import RawCoordinates
from pgti.ingestion.readings import ID_NAMES, Chunk, Readings, ids_to_text
from pgti.ingestion.staging import RowStage
from pgti.ingestion.tables.table import Table
from pgti.ingestion.times.columns import (
    ColumnTimes,
    EpochTimes,
    NoTimes,
    TextTimes,
    find_epoch_unit,
)

__all__ = ["is_dated_title", "open_transposed", "refuse_dates_as_titles"]

_ISO_DATE = re.compile(r"\d{4}-\d{2}(-\d{2}([T ]\d.*)?)?")
_OTHER_DATE = re.compile(
    r"(\d{1,2}/\d{1,2}/(\d{4}|\d{2})|\d{1,2}\.\d{1,2}\.\d{4}|\d{4}/\d\d?/\d\d?)"
)
_DATE_FORMATS = ("%m/%d/%y", "%m/%d/%Y", "%d/%m/%y", "%d/%m/%Y", "%d.%m.%Y", "%Y/%m/%d")
_YEAR = re.compile(r"[12]\d{3}")
_COUNTED_TITLES = ("", "index", "unnamed: 0")
_META_BYTES = 1 << 22  # for the text of a batch of rows


def refuse_dates_as_titles(table: Table, options: IngestOptions) -> None:
    """Refuse a wide table whose titles are dates: its rows are sensors.

    Raises:
        DataError: naming the option that reads it.
    """
    dated = _dated_columns(table)
    if dated is None or options.header is False:
        return
    titles = table.titles or ()
    raise DataError(
        f"the header of {table.name} holds dates ({titles[dated[0]]}, {titles[dated[1]]}, ...), so "
        f"its rows are sensors: read it with {option('transpose', value=True)}"
    )


def open_transposed(table: Table, options: IngestOptions) -> Readings:
    """Readings in a table with a row for each sensor and a column for each time.

    Times are the titles, if they are dates. Columns before the readings give ids and coordinates;
    others of them are left out, with a note. The rows are put in the order of time in bounded
    memory.

    Raises:
        DataError: if no column holds readings, or titles could be read as two dates.
    """
    numbers = _readings_columns(table)
    about = _read_about(table, tuple(p for p in range(table.num_columns) if p not in set(numbers)))
    times = NoTimes() if table.titles is None else _title_times(table, numbers, options)
    seconds: NDArray[np.int64] | None = None
    if not isinstance(times, NoTimes) and table.titles is not None:
        seconds = times.seconds(pd.Series([table.titles[place] for place in numbers]), 0)
    node_ids, notes = about.node_ids(options)
    latlon = about.latlon()
    graph = None
    if latlon is not None:
        graph = RawCoordinates(name=table.name, latlon=latlon, node_ids=node_ids)

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        share = budget_bytes // 2
        with RowStage(len(numbers), about.num_rows, budget_bytes=share) as stage:
            for rows in table.read(numbers, (), share):
                stage.put_block(0, rows.first_row, rows.values.T[..., np.newaxis])
            first = 0
            for values in stage.chunks():
                stop = first + len(values)
                yield Chunk(values=values, seconds=None if seconds is None else seconds[first:stop])
                first = stop

    return Readings(
        name=table.name,
        num_rows=len(numbers),
        num_nodes=about.num_rows,
        node_ids=node_ids,
        is_aware=times.is_aware,
        time_zone=times.time_zone,
        graph=graph,
        has_named_axes=True,
        notes=(*table.notes, *notes),
        chunks=chunks,
    )


def is_dated_title(title: str) -> bool:
    """Whether a title is written as a date, or a month of a year."""
    return _ISO_DATE.fullmatch(title) is not None or _OTHER_DATE.fullmatch(title) is not None


def _dated_columns(table: Table) -> tuple[int, ...] | None:
    """Columns whose titles are rising dates; None if the titles may be names of sensors."""
    if table.titles is None:
        return None
    titles = table.titles
    dated = tuple(place for place, title in enumerate(titles) if is_dated_title(title))
    if len(dated) < 2:
        return _year_columns(table)
    has_times = dated[0] > 0 and all(is_dated_title(str(cell)) for cell in table.cells(0))
    return None if has_times or not _rise([titles[place] for place in dated]) else dated


def _rise(titles: list[str]) -> bool:
    """Whether titles are dates one after another; months are so in even steps."""
    cells = pd.Series(titles)
    for known in ("ISO8601", *_DATE_FORMATS):
        dates = pd.to_datetime(cells, format=known, errors="coerce", utc=True)
        if not dates.notna().all() or not (dates.diff().dropna() > pd.Timedelta(0)).all():
            continue
        months = dates.dt.year * 12 + dates.dt.month
        are_months = re.fullmatch(r"\d{4}-\d{2}", titles[0]) is not None
        return not are_months or months.diff().dropna().nunique() == 1
    return False


def _year_columns(table: Table) -> tuple[int, ...] | None:
    """Columns behind text whose titles are years, one after another."""
    titles = table.titles or ()
    years = tuple(place for place, title in enumerate(titles) if _YEAR.fullmatch(title))
    if len(years) < 3 or years[0] == 0 or table.kinds[0] != "text":
        return None
    if all(int(titles[a]) + 1 == int(titles[b]) for a, b in pairwise(years)):
        return years
    return None


def _readings_columns(table: Table) -> tuple[int, ...]:
    """The columns of readings: those with dates as titles, else all behind ids and coordinates."""
    dated = _dated_columns(table)
    if dated is not None:
        return dated
    first = 0
    while first < table.num_columns and _is_about(table, first):
        first += 1
    if first == table.num_columns:
        raise DataError(f"{table.name} has no column of readings: give a column for each time")
    return tuple(range(first, table.num_columns))


def _is_about(table: Table, place: int) -> bool:
    """Whether a column says something of its sensor."""
    if table.kinds[place] != "number":
        return True
    return table.titles is not None and (
        _is_id_title(table.titles[place])
        or _plain(table.titles[place]) in (*LATITUDE_NAMES, *LONGITUDE_NAMES)
    )


def _plain(title: str) -> str:
    return title.strip().strip("_").lower()


def _is_id_title(title: str) -> bool:
    plain = _plain(title)
    return plain in (*ID_NAMES, *SENSOR_NAMES, *_COUNTED_TITLES) or plain.endswith("id")


@dataclass(frozen=True, kw_only=True, slots=True)
class _About:
    """Columns that describe the sensors.

    Attributes:
        table: they are of.
        num_rows: rows of the table.
        columns: cells of each column as text, by position.
    """

    table: Table
    num_rows: int
    columns: dict[int, tuple[str, ...]]

    def node_ids(self, options: IngestOptions) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
        """Ids of the sensors, None where there are none, and notes."""
        places = self._id_columns(options)
        ids = None
        if places:
            cells = zip(*(self.columns[place] for place in places), strict=True)
            ids = tuple(", ".join(part for part in parts if part) for parts in cells)
        used = {*places, *self._coordinate_columns()}
        left = [self._title(place) for place in self.columns if place not in used]
        notes = []
        if len(places) > 1:
            joined = shorten([self._title(place) for place in places])
            notes.append(f"the ids of {self.table.name} are its columns {joined}, joined")
        if left:
            notes.append(
                f"{self.table.name} has {'a column' if len(left) == 1 else 'columns'} of other "
                f"things than readings, left out: {shorten(left)}"
            )
        return ids, tuple(notes)

    def latlon(self) -> NDArray[np.float64] | None:
        """Latitude and longitude, [N, 2]; None where a sensor has none."""
        places = self._coordinate_columns()
        if not places:
            return None
        columns = [pd.to_numeric(pd.Series(self.columns[p]), errors="coerce") for p in places]
        latlon = np.stack([column.to_numpy(np.float64) for column in columns], axis=1)
        return latlon if np.isfinite(latlon).all() else None

    def _title(self, place: int) -> str:
        return str(place + 1) if self.table.titles is None else self.table.titles[place]

    def _coordinate_columns(self) -> tuple[int, ...]:
        titles = {_plain(self._title(place)): place for place in self.columns}
        found = [
            next((titles[name] for name in names if name in titles), None)
            for names in (LATITUDE_NAMES, LONGITUDE_NAMES)
        ]
        return tuple(place for place in found if place is not None) if None not in found else ()

    def _id_columns(self, options: IngestOptions) -> tuple[int, ...]:
        """The column that the user names, one called so, the first unique one, or all of text."""
        if options.ids is not None:
            return (self.table.position(options.ids),)
        coordinates = self._coordinate_columns()
        places = [place for place in self.columns if place not in coordinates]
        called = [place for place in places if _is_id_title(self._title(place))]
        texts = [place for place in places if self.table.kinds[place] == "text"]
        for place in (*called, *texts):
            cells = self.columns[place]
            if all(cells) and len(set(cells)) == len(cells):
                return (place,)
        return tuple(texts)


def _read_about(table: Table, places: Sequence[int]) -> _About:
    columns: dict[int, list[str]] = {place: [] for place in places}
    num_rows = 0
    for rows in table.read((), tuple(places) or (0,), _META_BYTES):
        for place, cells in zip(places, rows.others, strict=False):
            texts = ("" if cell is None else cell for cell in cells.to_pylist())
            columns[place].extend(ids_to_text(list(texts)))
        num_rows += len(rows.others[0])
    if not num_rows:
        raise DataError(f"{table.name} has no rows: a series needs at least one sensor")
    return _About(
        table=table,
        num_rows=num_rows,
        columns={place: tuple(cells) for place, cells in columns.items()},
    )


def _title_times(table: Table, numbers: tuple[int, ...], options: IngestOptions) -> ColumnTimes:
    """The times that the titles are; none if they are no dates."""
    titles = [(table.titles or ())[place] for place in numbers]
    labels = RowLabels(f"the header of {table.name}")
    if options.timestamps is False:
        return NoTimes()
    if options.time_format is not None or all(map(_ISO_DATE.fullmatch, titles)):
        return TextTimes(titles[0], options, labels)
    if all(map(_OTHER_DATE.fullmatch, titles)):
        return TextTimes(titles[0], replace(options, time_format=_format(table, titles)), labels)
    if all(map(_YEAR.fullmatch, titles)):
        return TextTimes(titles[0], replace(options, time_format="%Y"), labels)
    numeric = pd.to_numeric(pd.Series(titles), errors="coerce").to_numpy(np.float64)
    if all(find_epoch_unit(value) is not None for value in numeric):
        return EpochTimes(float(numeric[0]), labels)
    return NoTimes()


def _format(table: Table, titles: list[str]) -> str:
    """The one format that reads all dates.

    Raises:
        DataError: if several do, or none.
    """
    cells = pd.Series(titles)
    fits = [
        known
        for known in _DATE_FORMATS
        if pd.to_datetime(cells, format=known, errors="coerce").notna().all()
    ]
    if len(fits) != 1:
        could = " or ".join(option("time_format", known) for known in fits)
        raise DataError(
            f"the header of {table.name} holds {titles[0]}, {titles[-1]}, which "
            f"{'could be two dates' if fits else 'are no dates of one format'}: name the format "
            f"with {could or option('time_format')}"
        )
    return fits[0]
