"""Which columns of a long table hold its times, its sensors and its values.

A long table has a row for each time and sensor. It is recognized where the names that people use
say so, or its first rows leave no doubt; what could be long and could be something else is refused
with the option that settles it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from pgti.errors import DataError, option
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.tables.cells import is_number
from pgti.ingestion.tables.long_names import (
    COUNTS,
    DESCRIPTIONS,
    MAYBE_SENSORS,
    PEMS_STATION,
    SENSORS,
    STEPS,
    TIMES,
    plain_title,
)
from pgti.ingestion.tables.table import Table
from pgti.ingestion.times.columns import find_date_format, find_epoch_unit
from pgti.ingestion.times.texts import is_date

__all__ = ["MAX_LONG_COLUMNS", "LongLayout", "could_be_long", "find_long_layout", "name_columns"]


_PEMS_TIME = re.compile(r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d")
_PEMS_LANES = frozenset(["ML", "HV", "FR", "OR", "FF", "CD", "CH"])
MAX_LONG_COLUMNS = 64  # a table with more is wide, unless the user says otherwise


@dataclass(frozen=True, kw_only=True, slots=True)
class LongLayout:
    """Columns of a long table, by position.

    Attributes:
        time: of the times.
        sensor: of the sensors.
        values: of the values, which become channels.
        observed: of the share of samples that PeMS measured and did not impute.
        time_format: of the times, where the layout tells.
        notes: what the user should know of how it was recognized.
    """

    time: int
    sensor: int
    values: tuple[int, ...]
    observed: int | None = None
    time_format: str | None = None
    notes: tuple[str, ...] = ()


def name_columns(table: Table) -> Table:
    """The table; with titles if it is a station file of the PeMS clearinghouse, which has none."""
    if table.titles is not None or table.num_columns < len(PEMS_STATION) or not table.sample:
        return table
    for row in table.sample:
        cells = [str(cell).strip() for cell in row]
        is_station = cells[1].isdecimal() and cells[4] in ("N", "S", "E", "W")
        if not (is_station and cells[5] in _PEMS_LANES and _PEMS_TIME.fullmatch(cells[0])):
            return table
    others = map(str, range(len(PEMS_STATION) + 1, table.num_columns + 1))
    return replace(table, titles=(*PEMS_STATION, *others))


def find_long_layout(table: Table, options: IngestOptions) -> LongLayout | None:
    """The layout of a long table; None if the table is not long.

    Args:
        table: any table, after `name_columns`.
        options: `long`, if the user says what it is.

    Raises:
        DataError: if a column that the user names does not suit, or the table could be long.
    """
    if options.long:
        return _named_by_user(table, options)
    if options.transpose or table.num_columns > MAX_LONG_COLUMNS or table.num_columns < 3:
        return None
    if table.titles is not None and tuple(table.titles[: len(PEMS_STATION)]) == PEMS_STATION:
        return _pems_layout(table, None)
    return _Candidates.of(table).decide()


def could_be_long(table: Table, options: IngestOptions) -> bool:
    """Whether a table is long, or could be."""
    try:
        return find_long_layout(table, options) is not None
    except DataError:
        return True


def _named_by_user(table: Table, options: IngestOptions) -> LongLayout:
    time_name, *others = options.long
    # Columns that were joined have their names joined too.
    joined = table.time if time_name in options.time_columns else None
    places = [table.position(time_name) if joined is None else joined]
    places += map(table.position, others)
    for name, place in zip(options.long, places, strict=True):
        if places.count(place) > 1:
            raise DataError(
                f"{option('long')} names {name!r} twice: it takes the columns time, sensor, value "
                f"of {table.name}, and more values as channels"
            )
    time, sensor, *values = places
    for place in values:
        if table.kinds[place] != "number":
            _refuse_text(table, place)
    if table.titles is not None and tuple(table.titles[: len(PEMS_STATION)]) == PEMS_STATION:
        return _pems_layout(table, (time, sensor, tuple(values)))
    return LongLayout(time=time, sensor=sensor, values=tuple(values))


def _refuse_text(table: Table, place: int) -> NoReturn:
    cells = (cell for cell in table.cells(place) if isinstance(cell, str) and not is_number(cell))
    shown = next(cells, table.kinds[place])
    raise DataError(
        f"{table.column(place)} of {table.name} holds {shown[:40]!r}: values must be numbers; "
        f"leave the column out of {option('long')}, or name what stands for a missing value with "
        f"{option('missing')}"
    )


def _pems_layout(table: Table, chosen: tuple[int, int, tuple[int, ...]] | None) -> LongLayout:
    """Flow, occupancy and speed of a PeMS station file, or what the user chooses."""
    observed = PEMS_STATION.index("observed")
    time, sensor, values = chosen or (0, 1, tuple(range(observed + 1, len(PEMS_STATION))))
    names = (*PEMS_STATION[:2], *PEMS_STATION[observed:])
    note = (
        f"{table.name} is a station file of PeMS: its channels are flow, occupancy and speed; "
        f"choose others by name or number, as in {option('long', names)}"
    )
    return LongLayout(
        time=time,
        sensor=sensor,
        values=values,
        observed=observed,
        time_format="%m/%d/%Y %H:%M:%S" if time == 0 else None,
        notes=() if chosen else (note,),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Candidates:
    """The columns of a table by what they may be.

    Attributes:
        table: the table.
        times: columns of times.
        steps: columns that may number time steps.
        sensors: columns whose name says that they hold sensors.
        perhaps: columns whose name may say so.
        texts: columns of text that are none of these.
        numbers: columns of numbers that are none of these.
        places: columns of numbers that describe a sensor or a time by their name.
    """

    table: Table
    times: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    sensors: list[int] = field(default_factory=list)
    perhaps: list[int] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, table: Table) -> "_Candidates":
        """Sort the columns of a table."""
        found = cls(table=table)
        for place in range(table.num_columns):
            role = _role(table, place)
            if role is not None:
                getattr(found, role).append(place)
        return found

    def decide(self) -> LongLayout | None:
        """The layout if there is no doubt, None if the table is not long.

        Raises:
            DataError: if it could be.
        """
        time = self.times[0] if len(self.times) == 1 else None
        if self.table.num_index == 2 and time is not None and time < 2:
            return self._layout(time, 1 - time)  # a time and something else name each row
        if time is not None and len(self.sensors) == 1 and not self.perhaps:
            return self._layout(time, self.sensors[0])
        ids = self.sensors or self.perhaps or self.texts
        if time is not None and len(ids) == 1 and self._is_keyed_by(time, ids[0]):
            return self._layout(time, ids[0])
        if self.sensors and (self.times or self.steps):
            self._refuse(self.sensors[0])
        if time is not None and _repeat(self.table.cells(time)):
            self._refuse(next(iter((*ids, *self.numbers)), None))
        if time is not None and self.perhaps:
            self._refuse(self.perhaps[0])
        return None

    def _layout(self, time: int, sensor: int) -> LongLayout:
        """The layout with all other columns as values, if they are."""
        values = tuple(place for place in self.numbers if place not in (time, sensor))
        others = {*self.times, *self.steps, *self.sensors, *self.perhaps, *self.texts, *self.places}
        table = self.table
        texts = [place for place in self.texts if place not in (time, sensor)]
        if len(texts) == 1 and not values and others == {time, sensor, *texts}:
            _refuse_text(table, texts[0])
        if others - {time, sensor} or not values or table.titles is None:
            self._refuse(sensor)
        return LongLayout(time=time, sensor=sensor, values=values)

    def _is_keyed_by(self, time: int, sensor: int) -> bool:
        """Whether several sensors have the same times in the first rows, and no time twice."""
        times, sensors = self.table.cells(time), self.table.cells(sensor)
        return len(set(zip(times, sensors, strict=True))) == len(times) and _repeat(times)

    def _refuse(self, sensor: int | None) -> NoReturn:
        table = self.table
        time = next(iter((*self.times, *self.steps)))
        names = list(map(str, range(1, table.num_columns + 1)))
        titles = list(table.titles or names)
        values = [place for place in self.numbers if place not in (time, sensor)]
        places = [time, *([] if sensor is None else [sensor]), *values]
        shown = tuple(titles[place] or "?" for place in places)
        if sensor is None or not values:
            shown = ("time", "sensor", "value")
        left_out = [titles[place] for place in self.texts if titles[place] not in shown]
        raise DataError(
            f"{table.name} could be a long table, which has a row for each time and sensor: name "
            f"its columns of times, sensors and values, as in {option('long', shown)}"
            + (f"; that leaves out {', '.join(left_out)}" if left_out else "")
            + ("; quantities that a column names need columns of their own" if left_out else "")
        )


def _role(table: Table, place: int) -> str | None:
    """Which of the lists of `_Candidates` a column belongs to; None if it only numbers rows."""
    titles = [plain_title(title) for title in table.titles or [""] * table.num_columns]
    title, kind, cells = titles[place], table.kinds[place], table.cells(place)
    # Rows that were shuffled or chosen still have their numbers in the index.
    is_row = table.num_index == 1 and place == 0 and title == "" and kind == "number"
    is_libcity_type = title == "type" and {"dyna_id", "entity_id"} <= set(titles)
    if is_libcity_type or is_row or _counts_rows(title, cells):
        return None
    if place == table.time:
        return "times"
    if kind == "time" or (kind == "text" and all(map(_is_date, cells))):
        return "times" if table.time is None else "texts"
    if title in TIMES:
        return "steps" if kind == "number" and _count_steps(cells) else "times"
    named = {"sensors": SENSORS, "perhaps": MAYBE_SENSORS}
    if kind == "number":
        others = [title] if title.endswith(("_id", "_ids")) else ()
        named |= {"steps": STEPS, "places": DESCRIPTIONS.union(others)}
    rest = "texts" if kind == "text" else "numbers"
    return next((role for role, names in named.items() if title in names), rest)


def _is_date(cell: Any) -> bool:
    return isinstance(cell, str) and is_date(cell)


def _count_steps(cells: Sequence[Any]) -> bool:
    """Whether numbers are too small for times: no dates such as 20240131, nor epoch times."""
    numbers = [float(cell) for cell in cells if cell not in (None, "")]
    return not all(find_date_format([each]) or find_epoch_unit(each) for each in numbers)


def _counts_rows(title: str, cells: Sequence[Any]) -> bool:
    """Whether a column only numbers the rows from 0 or 1."""
    texts = [str(cell) for cell in cells]
    return title in COUNTS and any(texts == list(_count(first, texts)) for first in (0, 1))


def _count(first: int, cells: Sequence[Any]) -> Iterator[str]:
    return map(str, range(first, first + len(cells)))


def _repeat(cells: Sequence[Any]) -> bool:
    """Whether values recur, more than a clock that is put back would let times recur."""
    return 2 * len(set(cells)) <= len(cells)
