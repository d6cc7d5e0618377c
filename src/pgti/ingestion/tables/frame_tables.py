"""Frames in memory as a `Table`: pandas by its rows, and all that hands out Arrow's columns."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import pandas as pd
import pyarrow as pa

from pgti.ingestion.readings import reraise_read_errors, row_blocks
from pgti.ingestion.tables.arrow import arrow_table, memory_table
from pgti.ingestion.tables.table import Table

__all__ = ["ArrowFrame", "LazyFrame", "pandas_table", "stream_table"]


@runtime_checkable
class ArrowFrame(Protocol):
    """A frame with Arrow's PyCapsule interface: polars, pyarrow, DuckDB and others."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """A capsule with a stream of record batches."""


@runtime_checkable
class LazyFrame(Protocol):
    """A query that gives such a frame once it is run, as polars has them."""

    def collect(self) -> ArrowFrame:
        """Run the query."""


def stream_table(frame: ArrowFrame | LazyFrame) -> Table:
    """A frame that hands out Arrow's columns as a table; a query is run.

    Raises:
        DataError: if it is not a table, or see `arrow_table`.
    """
    name = f"the {type(frame).__name__}"
    with reraise_read_errors(name, "a table"):
        if not isinstance(frame, ArrowFrame):
            frame = frame.collect()
        return memory_table(name, pa.RecordBatchReader.from_stream(frame).read_all())


def pandas_table(frame: pd.DataFrame, name: str = "the DataFrame") -> Table:
    """A DataFrame as a table, whose index comes first if it is not a plain range.

    Periods are the times at which they begin.

    Raises:
        DataError: if a column holds objects of several types, or see `arrow_table`.
    """
    levels = [
        level.to_timestamp() if isinstance(level, pd.PeriodIndex) else level
        for level in map(frame.index.get_level_values, range(frame.index.nlevels))
    ]
    periods = {
        column: frame[column].dt.to_timestamp()
        for column, kind in frame.dtypes.items()
        if isinstance(kind, pd.PeriodDtype)
    }
    frame = frame.assign(**{str(column): times for column, times in periods.items()})
    if isinstance(frame.index, pd.RangeIndex) and frame.index.name is None:
        levels = []
    titles = [
        *(
            f"__index_level_{place}__" if each.name is None else str(each.name)
            for place, each in enumerate(levels)
        ),
        *map(str, frame.columns),
    ]
    place_of = {title: place for place, title in enumerate(titles)}
    with reraise_read_errors(name, "a table"):
        numbered = frame.set_axis(list(map(str, range(frame.shape[1]))), axis=1)
        parts = [*(level.to_frame(name="0", index=False) for level in levels), numbered]
        kinds = [
            kind
            for part in parts
            for kind in pa.Schema.from_pandas(part, preserve_index=False).types
        ]

    def batches(columns: list[str], rows: int) -> Iterator[Any]:
        places = list(map(place_of.__getitem__, columns))
        for first, stop in row_blocks(len(frame), rows):
            with reraise_read_errors(name, "a table"):
                arrays = [_convert(place, first, stop) for place in places]
            yield pa.RecordBatch.from_arrays(arrays, names=columns)

    def _convert(place: int, first: int, stop: int) -> Any:
        cells = levels[place] if place < len(levels) else frame.iloc[:, place - len(levels)]
        converted = pa.Array.from_pandas(cells[first:stop], type=kinds[place])
        return converted.combine_chunks() if isinstance(converted, pa.ChunkedArray) else converted

    schema = pa.schema([pa.field(title, kind) for title, kind in zip(titles, kinds, strict=True)])
    return arrow_table(name, schema, len(frame), batches, index=titles[: len(levels)])
