"""Columns of Arrow as a `Table`: what Parquet, Arrow files and frames in memory have in common."""

import ast
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pgti.errors import DataError
from pgti.ingestion.contents import NoRowsError
from pgti.ingestion.tables.table import ColumnKind, Table, TableRows

__all__ = ["Batches", "arrow_table", "memory_table"]

Batches: TypeAlias = Callable[[list[str], int], Iterator[Any]]
"""`batches(columns, rows)` reads record batches of those columns, in any order of columns."""

_SAMPLE_ROWS = 20
_MAX_TEXT_BYTES = 1 << 14
_BYTES_PER_NUMBER, _BYTES_PER_TEXT = 24, 64  # of the format, its columns as floats, and the values
_UNNAMED_INDEX = "__index_level_"


def arrow_table(
    name: str,
    schema: Any,
    num_rows: int | None,
    batches: Batches,
    index: Sequence[str] | None = None,
) -> Table:
    """A table whose columns have a schema of Arrow; the index of a DataFrame comes first.

    Args:
        name: what messages call it.
        schema: of its columns.
        num_rows: rows, where they are known.
        batches: reads it from its beginning.
        index: columns that were the index; by default those that pandas notes in the schema.

    Raises:
        DataError: if there is no column, or two have one name.
    """
    names = list(schema.names)
    if len(set(names)) < len(names):
        twice = next(column for column in names if names.count(column) > 1)
        raise DataError(f"{name} has the column {twice!r} twice: each must be unique")
    sample = _sample(batches, names, name)
    if not sample:
        what = "rows" if names else "columns"
        error = NoRowsError if names else DataError
        raise error(f"{name} has shape ({num_rows or 0}, {len(names)}): there are no {what}")
    index = _index_of(schema) if index is None else index
    columns = [*index, *(column for column in names if column not in set(index))]
    order = list(map({column: place for place, column in enumerate(names)}.__getitem__, columns))
    types = [schema.field(column).type for column in columns]
    kinds = tuple(map(_kind, types))
    levels, level_names = _levels_of(schema, columns, len(index))

    def read(
        numbers: Sequence[int], others: Sequence[int], budget_bytes: int
    ) -> Iterator[TableRows]:
        for place in numbers:
            if kinds[place] != "number":
                raise DataError(
                    f"column {columns[place]!r} of {name} holds {types[place]}: it must hold "
                    "numbers (times come first or in the index)"
                )
        row_bytes = _BYTES_PER_NUMBER * len(numbers) + _BYTES_PER_TEXT * len(others)
        rows = max(1, budget_bytes // max(1, row_bytes))
        wanted = [columns[place] for place in (*numbers, *others)]
        first_row = 0
        for batch in batches(wanted, rows):
            yield TableRows(
                first_row=first_row,
                values=_join(batch, wanted[: len(numbers)], name),
                others=tuple(
                    _plain(batch.column(each), f"column {each!r} of {name}")
                    for each in wanted[len(numbers) :]
                ),
            )
            first_row += batch.num_rows

    return Table(
        name=name,
        titles=tuple("" if each.startswith(_UNNAMED_INDEX) else each for each in columns),
        kinds=kinds,
        sample=tuple(tuple(row[place] for place in order) for row in sample),
        read=read,
        levels=levels,
        level_names=level_names,
        num_rows=num_rows,
        zones=tuple(
            (place, _zone(each)) for place, each in enumerate(types) if getattr(each, "tz", None)
        ),
        num_index=len(index),
    )


def memory_table(name: str, table: Any) -> Table:
    """A pyarrow Table as a `Table`.

    Raises:
        DataError: see `arrow_table`.
    """

    def batches(columns: list[str], rows: int) -> Iterator[Any]:
        yield from table.select(columns).to_batches(max_chunksize=rows)

    return arrow_table(name, table.schema, table.num_rows, batches)


def _index_of(schema: Any) -> list[str]:
    """The columns that hold the index of a DataFrame that was written; a range is not one."""
    described = schema.pandas_metadata
    described = described if isinstance(described, Mapping) else {}
    index = described.get("index_columns") or ()
    known = set(schema.names)
    return [column for column in index if isinstance(column, str) and column in known]


def _levels_of(
    schema: Any, columns: list[str], num_index: int
) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """Labels of each column, and names of the levels, of a DataFrame whose columns have several.

    pandas writes ('a', 'speed') as the name of such a column.
    """
    described = schema.pandas_metadata
    described = described if isinstance(described, Mapping) else {}
    levels = described.get("column_indexes") or ()
    if len(levels) < 2:
        return (), ()
    labels: list[tuple[str, ...]] = []
    for place, column in enumerate(columns):
        parts: Any = None
        with contextlib.suppress(ValueError, SyntaxError):
            parts = ast.literal_eval(column)
        if place < num_index or not isinstance(parts, tuple) or len(parts) != len(levels):
            parts = ("",) * len(levels)
        labels.append(tuple(map(str, parts)))
    return tuple(labels), tuple(str(each.get("name") or "") for each in levels)


def _kind(kind: Any) -> ColumnKind:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    types = pa.types
    if types.is_timestamp(kind) or types.is_date(kind):
        return "time"
    is_number = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    return "number" if any(each(kind) for each in is_number) or types.is_null(kind) else "text"


def _zone(kind: Any) -> Any:
    import pandas as pd  # noqa: PLC0415 - only where there is a zone

    return pd.DatetimeTZDtype(tz=kind.tz).tz


def _sample(batches: Batches, columns: list[str], name: str) -> tuple[tuple[Any, ...], ...]:
    """The first rows, as Python's values."""
    rows: list[tuple[Any, ...]] = []
    for batch in batches(columns, _SAMPLE_ROWS):
        cells = (
            _values(_plain(batch.column(each)[:_SAMPLE_ROWS], f"column {each!r} of {name}"))
            for each in columns
        )
        rows += zip(*cells, strict=True)
        if len(rows) >= _SAMPLE_ROWS:
            break
    return tuple(islice(rows, _SAMPLE_ROWS))


def _values(column: Any) -> list[Any]:
    """Python's values of a column; times that Python cannot write as they are counted."""
    try:
        return list(column.to_pylist())
    except OverflowError:
        return list(column.cast(pa.int64()).to_pylist())


def _plain(column: Any, name: str) -> Any:
    """A column without what only a format needs: dictionaries, long strings, dates.

    Raises:
        DataError: if a text is longer than any id or time: a dictionary has it once, and would
            give it to every row.
    """
    if column.nbytes > _MAX_TEXT_BYTES and pa.types.is_string(column.type):
        longest = pc.max(pc.binary_length(column)).as_py() or 0
        if longest > _MAX_TEXT_BYTES:
            raise DataError(
                f"{name} holds a text of {longest:,} bytes: at most {_MAX_TEXT_BYTES:,} are read"
            )
    if pa.types.is_dictionary(column.type):
        values = _plain(column.dictionary, name)
        return pa.DictionaryArray.from_arrays(column.indices, values).dictionary_decode()
    kind = column.type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _plain(column.cast(pa.string()), name)
    return column.cast(pa.timestamp("s")) if pa.types.is_date(kind) else column


def _join(batch: Any, columns: list[str], name: str) -> NDArray[np.float64]:
    """Columns of numbers as float64 [rows, columns]; NaN where they have no value."""
    if not columns:
        return np.empty((batch.num_rows, 0))
    floats = [_as_floats(batch.column(each), each, name) for each in columns]
    joined = pa.RecordBatch.from_arrays(floats, names=list(map(str, range(len(floats)))))
    values: NDArray[np.float64] = joined.to_tensor(null_to_nan=True).to_numpy()
    return np.array(values, order="C")  # the receiver's own


def _as_floats(column: Any, title: str, name: str) -> Any:
    if pa.types.is_float64(column.type):
        return column
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.string())  # a cast of decimals to floats rounds more than once
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid:
        raise DataError(
            f"column {title!r} of {name} holds whole numbers above 2^53, which float64 rounds: "
            "subtract an offset, or divide them"
        ) from None
