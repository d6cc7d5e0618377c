"""Readings in a pandas DataFrame."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.errors import DataError
from pgti.ingestion.contents import NoRowsError
from pgti.ingestion.instants import RowLabels
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import (
    Chunk,
    Readings,
    as_floats,
    check_whole_numbers,
    ids_to_text,
    row_blocks,
    rows_per_chunk,
)
from pgti.ingestion.tables.column_levels import arrange_levels, check_single_level
from pgti.ingestion.tables.frame_tables import pandas_table
from pgti.ingestion.tables.long_layout import could_be_long
from pgti.ingestion.tables.shape import open_table
from pgti.ingestion.tables.time_parts import join_time_columns
from pgti.ingestion.tables.transposed import is_dated_title
from pgti.ingestion.times.columns import ColumnTimes, DateTimes, NoTimes, TextTimes

__all__ = ["open_frame"]

_MAX_WHOLE = 2**53


def open_frame(frame: pd.DataFrame, options: IngestOptions) -> Readings:
    """Readings in a DataFrame: a row each step; a column each sensor, or each (sensor, channel).

    A long one, or one with other columns than numbers, is read as any table.

    An index of dates, or of dates as text, gives the times; whole numbers only count rows.

    Raises:
        DataError: if a column is not numbers, (sensor, channel) pairs are missing, or the index
            is neither times nor whole numbers.
    """
    if _is_table(frame, options):
        return open_table(pandas_table(frame), options)
    name = "the DataFrame"
    nodes, channels, order = _columns(frame, name, options)
    dtypes = frame.dtypes.to_numpy()
    wrong = [each for each in set(dtypes) if not _is_number(each)]  # few of thousands differ
    if wrong:
        place = min(int(np.flatnonzero(dtypes == each)[0]) for each in wrong)
        raise DataError(
            f"column {frame.columns[place]!r} of {name} holds {dtypes[place]}: it must hold numbers"
        )
    if not len(frame):
        raise NoRowsError(f"{name} has shape {frame.shape}: there are no rows")
    num_channels = len(channels) if channels is not None else 1
    times = _index_times(frame.index, options, name)

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        for first, stop in row_blocks(len(frame), rows_per_chunk(budget_bytes, len(order))):
            block = frame.iloc[first:stop]
            values = as_floats(block.to_numpy(dtype=_common_dtype(frame), na_value=np.nan))
            _check_large(block)
            cells = block.index.astype(str) if isinstance(times, TextTimes) else block.index
            # take, unlike values[:, order], keeps rows contiguous
            values = np.take(values, order, axis=1).reshape(len(block), len(nodes), num_channels)
            yield Chunk(values=values, seconds=times.seconds(pd.Series(cells), first))

    return Readings(
        name=name,
        num_rows=len(frame),
        num_nodes=len(nodes),
        num_channels=num_channels,
        node_ids=nodes,
        channels=channels,
        counts_ids=frame.columns.equals(pd.RangeIndex(len(frame.columns))),
        is_aware=times.is_aware,
        time_zone=times.time_zone,
        chunks=chunks,
    )


def _is_table(frame: pd.DataFrame, options: IngestOptions) -> bool:
    """Whether columns or levels of the index say what a row is, as in a file."""
    if frame.columns.nlevels > 1 or not frame.size or not frame.columns.is_unique:
        return False
    if options.transpose or is_dated_title(str(frame.columns[-1])):
        return True
    others = [each for each in set(frame.dtypes.to_numpy()) if not _is_number(each)]
    if options.long or options.time_columns or options.ignore or others or frame.index.nlevels > 1:
        return True
    head = pandas_table(frame.iloc[:20])
    return could_be_long(head, options) or join_time_columns(head, options) is not head


def _check_large(block: pd.DataFrame) -> None:
    """Refuse whole numbers that have become other floats."""
    for _, column in block.select_dtypes("integer").items():
        dtype: Any = column.dtype
        if dtype.itemsize == 8:
            large = column[(column > _MAX_WHOLE) | (column < -_MAX_WHOLE)]
            check_whole_numbers(large.dropna().tolist())


def _index_times(index: "pd.Index[Any]", options: IngestOptions, name: str) -> ColumnTimes:
    """The times of an index; none if it counts rows."""
    labels = RowLabels(name)
    if isinstance(index, pd.DatetimeIndex):
        return DateTimes(index.tz, labels)
    if pd.api.types.is_integer_dtype(index.dtype):
        return NoTimes()
    if index.nlevels == 1 and all(isinstance(label, str) for label in index[:20]):
        return TextTimes(str(index[0]), options, labels)
    raise DataError(
        f"{name} has an index of {type(index).__name__} {index.dtype}, which is neither dates nor "
        "row numbers: convert it with pandas.to_datetime or to_timestamp, or reset_index(drop=True)"
    )


def _is_number(dtype: Any) -> bool:
    is_complex = pd.api.types.is_complex_dtype(dtype)
    return pd.api.types.is_numeric_dtype(dtype) and not is_complex


def _common_dtype(frame: pd.DataFrame) -> type[np.floating[Any]]:
    dtypes = set(frame.dtypes.to_numpy())
    plain = all(isinstance(dtype, np.dtype) for dtype in dtypes)
    if plain and all(np.can_cast(dtype, np.float32, "safe") for dtype in dtypes):
        return np.float32
    return np.float64


def _columns(
    frame: pd.DataFrame, name: str, options: IngestOptions
) -> tuple[tuple[str, ...], tuple[str, ...] | None, NDArray[np.int64]]:
    columns = frame.columns
    if not len(columns):
        raise DataError(f"{name} has shape {frame.shape}: there are no sensors")
    if columns.nlevels == 1:
        check_single_level(name, options)
        return ids_to_text(columns.tolist()), None, np.arange(len(columns), dtype=np.int64)
    labels = [ids_to_text(list(label)) for label in columns]
    names = [None if each is None else str(each) for each in columns.names]
    levels = arrange_levels(labels, names, name, options)
    return levels.node_ids, levels.channels, levels.order
