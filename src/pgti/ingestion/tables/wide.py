"""Wide tables: a row for each time, a column for each sensor."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from pgti.errors import DataError, option
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import Chunk, Readings
from pgti.ingestion.tables.column_levels import arrange_levels, check_single_level
from pgti.ingestion.tables.table import Table
from pgti.ingestion.tables.table_times import find_leading_columns, open_times
from pgti.ingestion.times.columns import ColumnTimes

__all__ = ["open_wide"]

_TIMES_BYTES = 1 << 22  # of memory, to read a time again


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
        notes=(*table.notes, *times.notes),
        chunks=chunks,
    )
    if not table.levels:
        check_single_level(table.name, options)
        return readings
    return _with_levels(readings, table, numbers, options)


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
