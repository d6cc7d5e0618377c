"""The shape of a table, decided in one place: what is a row, and what is a column."""

from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import Readings
from pgti.ingestion.tables.long import open_long
from pgti.ingestion.tables.long_layout import find_long_layout, name_columns
from pgti.ingestion.tables.table import Table
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
    table = table.without(options.ignore)
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
