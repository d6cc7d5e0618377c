"""The shape of a table, decided in one place: what is a row, and what is a column."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import Readings
from pgti.ingestion.tables.long import open_long
from pgti.ingestion.tables.long_layout import find_long_layout, name_columns
from pgti.ingestion.tables.table import Table, TableRows
from pgti.ingestion.tables.time_parts import join_time_columns
from pgti.ingestion.tables.transposed import open_transposed, refuse_dates_as_titles
from pgti.ingestion.tables.wide import open_wide

__all__ = ["open_table"]


def open_table(table: Table, options: IngestOptions) -> Readings:
    """Readings in a table of any shape; the options decide, else what the table shows.

    A table that could have two shapes is refused with the option that says which.

    Raises:
        ConfigError: if an option names what the table does not have.
        DataError: if the table breaks a rule of its shape, or could have two.
    """
    table = _without_blank(table.without(options.ignore))
    if table.levels:
        return open_wide(table, options)
    if options.transpose:
        return open_transposed(table, options)
    table = join_time_columns(name_columns(table), options)
    layout = find_long_layout(table, options)
    if layout is not None:
        return open_long(table, layout, options)
    refuse_dates_as_titles(table, options)
    return open_wide(table, options)


def _without_blank(table: Table) -> Table:
    """The table without columns that have neither a title nor cells, as a last delimiter makes."""
    titles = table.titles or ()
    blank = [
        place
        for place, title in enumerate(titles)
        if not title and place and all(cell in (None, "") for cell in table.cells(place))
    ]
    if not blank:
        return table
    kept = [place for place in range(table.num_columns) if place not in blank]

    def read(
        numbers: Sequence[int], others: Sequence[int], budget_bytes: int
    ) -> Iterator[TableRows]:
        wanted = [[kept[each] for each in places] for places in (numbers, others)]
        for rows in table.read(wanted[0], [*wanted[1], *blank], budget_bytes):
            for place, column in zip(blank, rows.others[len(others) :], strict=True):
                cells = pc.fill_null(column.cast(pa.string()), "")
                table.labels.refuse_where(
                    pc.not_equal(cells, "").to_numpy(zero_copy_only=False),
                    rows.first_row,
                    partial(_untitled, place, cells),
                )
            yield replace(rows, others=rows.others[: len(others)])

    were = "1 column" if len(blank) == 1 else f"{len(blank)} columns"
    note = f"{were} of {table.name} without a title and without readings: left out"
    return replace(table.without_places(blank), read=read, notes=(*table.notes, note))


def _untitled(place: int, cells: Any, row: int) -> str:
    return (
        f"holds {cells[row].as_py()[:40]!r} in column {place + 1}, which has neither a title nor "
        "other cells: give the column a title, or empty the cell"
    )
