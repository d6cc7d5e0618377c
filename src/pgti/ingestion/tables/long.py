"""Long tables: a row for each time and sensor, in any order.

The table is read twice in bounded memory: first its times and sensors alone, then its values, which
a `RowStage` puts in the order of time. Rows are the distinct times in their order; sensors are in
the order of their ids (whole numbers by value, other ids by their characters), so that the store
does not depend on the order of the rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of, shorten
from pgti.errors import DataError, PgtiError, option
from pgti.ingestion.cleaning import drop_codes, numeric_codes
from pgti.ingestion.instants import Localizer, format_seconds
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import Chunk, Readings
from pgti.ingestion.staging import RowStage
from pgti.ingestion.tables.long_columns import DistinctValues, LongSensors, LongTimes
from pgti.ingestion.tables.long_layout import LongLayout
from pgti.ingestion.tables.table import Table

__all__ = ["open_long"]

_MAX_TIMES = 1 << 24
_SPARSE, _SPARSE_BYTES = 1_000, 1 << 30


def open_long(table: Table, layout: LongLayout, options: IngestOptions) -> Readings:
    """Readings in a long table; its times and sensors are read at once.

    Raises:
        DataError: if a time or a sensor is missing or cannot be read, or there are too many.
    """
    if options.time_format is None and layout.time_format is not None:
        options = replace(options, time_format=layout.time_format)
    return _LongTable.of(table, layout, options).readings()


@dataclass(kw_only=True, eq=False, slots=True)
class _LongTable:
    """A long table whose times and sensors are known.

    Attributes:
        table: the table.
        layout: of its columns.
        options: how to read it, and what to do with duplicates.
        sensors: its sensors.
        times: reads its times.
        rows: seconds (or step) of each row of the series, rising, [T].
        is_sorted: whether the table's rows are in the order of time.
        notes: what the user should know.
        late_notes: what reading the values showed.
    """

    table: Table
    layout: LongLayout
    options: IngestOptions
    sensors: LongSensors
    times: LongTimes
    rows: NDArray[np.int64]
    is_sorted: bool
    notes: tuple[str, ...] = ()
    late_notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, table: Table, layout: LongLayout, options: IngestOptions) -> "_LongTable":
        """Read the times and the sensors."""
        times, sensors = LongTimes(table, layout.time, options), LongSensors(table, layout.sensor)
        distinct, last, is_sorted, num_rows = DistinctValues(), None, True, 0
        columns = (layout.time, layout.sensor)
        for rows in table.read((), columns, options.budget_bytes // 2):
            seconds = times.seconds(rows.others[0], rows.first_row)
            sensors.codes(rows.others[1], rows.first_row)
            distinct.add(seconds)
            is_sorted = is_sorted and (last is None or last <= seconds[0])
            is_sorted = is_sorted and bool((seconds[1:] >= seconds[:-1]).all())
            last, num_rows = seconds[-1], num_rows + len(seconds)
        found = cls(
            table=table,
            layout=layout,
            options=options,
            sensors=sensors,
            times=times,
            rows=distinct.values(),
            is_sorted=is_sorted,
        )
        found._check_size(num_rows)
        if times.are_steps:
            found._fill_steps()
        return found

    def _check_size(self, num_rows: int) -> None:
        """Refuse a series of which the table has next to nothing."""
        num_sensors = len(self.sensors.in_order()[0])
        num_readings = len(self.rows) * num_sensors * len(self.layout.values)
        is_sparse = num_readings > _SPARSE * num_rows * len(self.layout.values)
        if len(self.rows) <= _MAX_TIMES and not (is_sparse and 8 * num_readings > _SPARSE_BYTES):
            return
        raise DataError(
            f"{self.table.name} has {len(self.rows):,} times of {num_sensors:,} sensors in "
            f"{num_rows:,} rows: round the times so that sensors share them, or name other columns "
            f"with {option('long')}"
        )

    def _fill_steps(self) -> None:
        """Rows for steps that no sensor has."""
        steps = np.diff(self.rows)
        apart = int(np.gcd.reduce(steps)) if len(steps) else 1
        num_rows = int(self.rows[-1] - self.rows[0]) // apart + 1
        num_missing = num_rows - len(self.rows)
        title = self.table.column(self.layout.time)
        if num_missing > max(len(self.rows), 1000):
            raise DataError(
                f"{title} of {self.table.name} holds neither times nor steps: from {self.rows[0]} "
                f"to {self.rows[-1]} it lacks {num_missing:,} of {num_rows:,}; name another column "
                f"with {option('long')}"
            )
        if num_missing:
            place = int(np.flatnonzero(steps != apart)[0])
            self.notes += (
                f"{count_of(num_missing, 'row')} of missing readings "
                f"{'stands' if num_missing == 1 else 'stand'} for steps that "
                f"{self.table.name} lacks, the first after {self.rows[place]}",
            )
        self.notes += (f"{title} of {self.table.name} numbers steps: the series has no times",)
        self.rows = self.rows[0] + apart * np.arange(num_rows, dtype=np.int64)

    def readings(self) -> Readings:
        """The readings, in the order of time."""
        ids, _ = self.sensors.in_order()
        table, layout = self.table, self.layout
        titles = table.titles
        channels = None if titles is None else tuple(titles[place] for place in layout.values)
        columns = [table.column(place) for place in (layout.time, layout.sensor)]
        note = (
            f"{table.name} is read as a long table: times in {columns[0]}, "
            f"{count_of(len(ids), 'sensor')} in {columns[1]}, in the order of their ids "
            f"({shorten(ids)}), values in {', '.join(map(table.column, layout.values))}"
        )
        return Readings(
            name=table.name,
            num_rows=len(self.rows),
            num_nodes=len(ids),
            num_channels=len(layout.values),
            node_ids=ids,
            channels=channels,
            is_aware=self.times.column.is_aware,
            time_zone=self.times.column.time_zone,
            has_codes=False,
            first_seconds=None if self.times.are_steps else int(self.rows[0]),
            notes=(*table.notes, *self.times.column.notes, note, *layout.notes, *self.notes),
            late_notes=lambda: self.late_notes,
            chunks=self.chunks,
        )

    def chunks(self, budget_bytes: int) -> Iterator[Chunk]:
        """Consecutive rows of the series."""
        layout, first = self.layout, 0
        ids, places = self.sensors.in_order()
        watched = () if layout.observed is None else (layout.observed,)
        num_values, num_rows, num_imputed = len(layout.values), 0, 0
        codes = numeric_codes(self.options.missing)
        with RowStage(
            len(self.rows),
            len(ids),
            num_values,
            budget_bytes=budget_bytes,
            duplicates=self.options.duplicates,
            conflict=self._conflict,
        ) as stage:
            columns = (layout.time, layout.sensor)
            for rows in self.table.read((*layout.values, *watched), columns, budget_bytes // 2):
                at = self._places(self.times.seconds(rows.others[0], rows.first_row))
                nodes = places[self.sensors.codes(rows.others[1], rows.first_row)]
                values = rows.values[:, :num_values]
                drop_codes(values, codes)  # before one of them could be a duplicate
                stage.put(at, nodes, values)
                num_rows += len(at)
                num_imputed += int(np.count_nonzero(rows.values[:, num_values:] == 0))
                if self.is_sorted:
                    for values in stage.chunks(before=int(at[-1])):
                        yield self._chunk(values, first)
                        first += len(values)
            for values in stage.chunks():
                yield self._chunk(values, first)
                first += len(values)
            self.late_notes = self._found(stage.num_repeated, num_imputed, num_rows)

    def _chunk(self, values: NDArray[np.floating[Any]], first: int) -> Chunk:
        seconds = None if self.times.are_steps else self.rows[first : first + len(values)]
        return Chunk(values=values, seconds=seconds)

    def _places(self, seconds: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row of the series at each time."""
        places = np.minimum(np.searchsorted(self.rows, seconds), len(self.rows) - 1)
        if (self.rows[places] != seconds).any():
            raise DataError(f"{self.table.name} changed while it was read: try again")
        return places

    def _found(self, num_repeated: int, num_imputed: int, num_rows: int) -> tuple[str, ...]:
        name, notes = self.table.name, []
        if num_repeated:
            rule = self.options.duplicates
            chosen = "their mean" if rule == "mean" else f"the {rule}"
            taken = "they are equal" if rule == "error" else f"{chosen} of each place is taken"
            notes.append(
                f"{count_of(num_repeated, 'reading')} of {name} "
                f"{'repeats' if num_repeated == 1 else 'repeat'} a time and sensor: {taken}"
            )
        if num_imputed:
            notes.append(
                f"PeMS measured nothing in {num_imputed:,} of {num_rows:,} rows of {name} "
                "(observed is 0) and imputed their values"
            )
        return tuple(notes)

    def _conflict(self, row: int, node: int, channel: int, old: float, new: float) -> PgtiError:
        """Two readings of a sensor at one time; the table is read again to find their rows."""
        sensor, second = self.sensors.in_order()[0][node], int(self.rows[row])
        labels, title = self.table.labels, self.table.column(self.layout.values[channel])
        where = ""
        if (lines := self._rows_with(row, node, channel, old, new)) is not None:
            where = f" ({labels.short(lines[0])} and {labels.short(lines[1])})"
        time = f"step {second}" if self.times.are_steps else f"time {format_seconds(second)}"
        if self.times.column.is_aware:
            time += " UTC"
        advice = f"remove one, or choose with {option('duplicates', 'first')}, last or mean"
        zone = self.options.time_zone
        is_wall = zone is not None and not self.times.column.is_aware
        if is_wall and Localizer(str(zone), labels).begins_twice(np.array([second])):
            advice = f"the clocks of {zone} show this time twice: write times with their offset"
        return DataError(
            f"sensor {sensor!r} of {labels.source} has {old:.15g} and {new:.15g} in {title} at the "
            f"{time}{where}: {advice}"
        )

    def _rows_with(
        self, row: int, node: int, channel: int, old: float, new: float
    ) -> tuple[int, int] | None:
        """Rows of the table that have two readings of one place."""
        _, places = self.sensors.in_order()
        found: list[tuple[int, float]] = []
        value, columns = self.layout.values[channel], (self.layout.time, self.layout.sensor)
        for rows in self.table.read((value,), columns, self.options.budget_bytes // 2):
            at = self._places(self.times.seconds(rows.others[0], rows.first_row))
            nodes = places[self.sensors.codes(rows.others[1], rows.first_row)]
            for place in np.flatnonzero((at == row) & (nodes == node)).tolist():
                found.append((rows.first_row + place, float(rows.values[place, 0])))
        first, second = (
            next((at for at, value in found if value == each), None) for each in (old, new)
        )
        return None if first is None or second is None else (first, second)
