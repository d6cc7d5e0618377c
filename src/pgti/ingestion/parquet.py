"""Readings in Parquet files: one row a step, one column a sensor; times are one column more."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pgti.errors import DataError, option
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import Chunk, Readings, reraise_read_errors, rows_per_chunk
from pgti.ingestion.time_columns import (
    ColumnTimes,
    DateTimes,
    EpochTimes,
    NoTimes,
    TextTimes,
    classify_first_column,
)
from pgti.ingestion.times import RowLabels

__all__ = ["open_parquet"]

_FORMAT = "Parquet"
_SAMPLE_ROWS = 20
_READ_BYTES = 1 << 16  # pages are read as they are needed, not whole columns of a row group


def open_parquet(path: Path, options: IngestOptions) -> Readings:
    """Readings in a wide Parquet table, read by pieces of its row groups.

    Raises:
        DataError: if the file is damaged, or a column is neither numbers nor the times.
    """
    name = path.name
    with reraise_read_errors(name, _FORMAT), _open(path) as file:
        schema, num_rows = file.schema_arrow, file.metadata.num_rows
        columns, time_column = _find_columns(path, schema, options)
        times: ColumnTimes = NoTimes()
        if time_column is not None and num_rows:
            times = _open_times(path, time_column, schema.field(time_column).type, options)
    if not num_rows:
        raise DataError(f"{name} has shape (0, {len(columns)}): there are no rows")

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        rows = rows_per_chunk(budget_bytes, len(columns))
        wanted = columns if time_column is None else [*columns, time_column]
        first_row = 0
        with reraise_read_errors(name, _FORMAT), _open(path) as file:
            for batch in file.iter_batches(batch_size=rows, columns=wanted):
                values = np.empty((batch.num_rows, len(columns), 1), dtype=np.float64)
                for place, column in enumerate(columns):
                    values[:, place, 0] = batch.column(column).to_numpy(zero_copy_only=False)
                seconds = None
                if time_column is not None:
                    cells = batch.column(time_column).to_pandas()
                    if isinstance(times, TextTimes):
                        cells = cells.astype(str)
                    seconds = times.seconds(cells, first_row)
                yield Chunk(values=values, seconds=seconds)
                first_row += batch.num_rows

    return Readings(
        name=name,
        num_rows=num_rows,
        num_nodes=len(columns),
        node_ids=tuple(columns),
        is_aware=times.is_aware,
        time_zone=times.time_zone,
        chunks=chunks,
    )


def _open(path: Path) -> Any:
    import pyarrow.parquet as pq  # noqa: PLC0415 - it takes a while

    return pq.ParquetFile(path, buffer_size=_READ_BYTES, pre_buffer=False)


def _find_columns(path: Path, schema: Any, options: IngestOptions) -> tuple[list[str], str | None]:
    """The columns of readings, and the column of times if there is one."""
    twice = [column for column in schema.names if schema.names.count(column) > 1]
    if twice:
        raise DataError(f"{path.name} has the column {twice[0]!r} twice: each must be unique")
    described = schema.pandas_metadata
    described = described if isinstance(described, dict) else {}
    if len(described.get("column_indexes", ())) > 1:
        raise DataError(f"{path.name} has several levels of columns: give it one")
    # Columns that hold the index of the DataFrame that was written; a range is not one.
    index = [
        column
        for column in described.get("index_columns", [])
        if isinstance(column, str) and column in schema.names
    ]
    time, row_numbers = _time_column(path, schema, index, options)
    columns = [name for name in schema.names if name not in (time, row_numbers, *index)]
    for column in columns:
        kind = str(schema.field(column).type)
        if not kind.startswith(("int", "uint", "float", "halffloat", "double", "bool")):
            raise DataError(
                f"column {column!r} of {path.name} holds {kind}: it must hold numbers (times come "
                "first or in the index)"
            )
    if not columns:
        raise DataError(f"{path.name} has no column of readings; it has {schema.names}")
    return columns, time


def _time_column(
    path: Path, schema: Any, index: list[str], options: IngestOptions
) -> tuple[str | None, str | None]:
    """The column of times and the column that only counts rows, where there are any."""
    if not schema.names:
        return None, None
    kinds = {column: str(schema.field(column).type) for column in schema.names}
    dated = [c for c in schema.names if kinds[c].startswith(("timestamp", "date"))]
    if options.timestamps is not False and dated:
        if len(dated) > 1:
            raise DataError(
                f"{path.name} has {len(dated)} columns of times ({', '.join(dated)}): keep one"
            )
        return str(dated[0]), None
    first = str(index[0] if index else schema.names[0])
    if options.timestamps is not False and kinds[first] in ("string", "large_string"):
        return first, None
    if kinds[first].startswith(("int", "uint")):
        head = _head(path, first, _SAMPLE_ROWS)
        numbers = [] if None in head else [int(cell) for cell in head]
        title = "" if first.startswith("__index_level_") else first
        kind = classify_first_column(path.name, title, numbers, options.timestamps)
        return (first if kind == "times" else None), (first if kind == "rows" else None)
    if options.timestamps:
        problem = f"column {first!r} of {path.name} holds {kinds[first]}"
        raise DataError(f"{problem}: leave {option('timestamps', value=True)} out")
    return None, None


def _head(path: Path, column: str, count: int) -> list[Any]:
    """The first cells of a column."""
    with reraise_read_errors(path.name, _FORMAT), _open(path) as file:
        batch = next(file.iter_batches(batch_size=count, columns=[column]), None)
    return [] if batch is None else list(batch.column(0).to_pylist())


def _open_times(path: Path, column: str, kind: Any, options: IngestOptions) -> ColumnTimes:
    labels = RowLabels(path.name)
    if str(kind).startswith(("timestamp", "date")):
        zone: str | None = getattr(kind, "tz", None)
        return DateTimes(None if zone is None else pd.DatetimeTZDtype(tz=zone).tz, labels)
    (first,) = _head(path, column, 1)
    if first is None:
        raise DataError(f"{labels(0)} has no time: give it one")
    if isinstance(first, int):
        return EpochTimes(first, labels)
    return TextTimes(first, options, labels)
