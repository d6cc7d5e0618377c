"""Readings in Parquet files: one row a step, one column a sensor; times are one column more."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.errors import DataError, MissingExtraError
from pgti.ingest.options import IngestOptions
from pgti.ingest.readings import Chunk, Readings, numbered_row, reraise_read_errors, rows_per_chunk
from pgti.ingest.time_columns import EpochTimes, TextTimes, first_column
from pgti.ingest.times import epoch_seconds, zone_from_offset

__all__ = [
    "open_parquet",
]

_FORMAT = "Parquet"
_SAMPLE_ROWS = 20
_READ_BYTES = 1 << 16  # pages are read as they are needed, not whole columns of a row group


def open_parquet(path: Path, options: IngestOptions) -> Readings:
    """Readings in a wide Parquet table, read by pieces of its row groups.

    Raises:
        DataError: if the file is damaged, or a column is neither numbers nor the times.
        MissingExtraError: if pyarrow is not installed.
    """
    name = path.name
    with reraise_read_errors(name, _FORMAT), _open(path) as file:
        schema, num_rows = file.schema_arrow, file.metadata.num_rows
        source = _ParquetSource(path, schema, num_rows, options)
    if not num_rows:
        raise DataError(f"{name} has shape (0, {len(source.columns)}): there are no rows")
    return Readings(
        name=name,
        num_rows=num_rows,
        num_nodes=len(source.columns),
        num_channels=1,
        node_ids=tuple(source.columns),
        is_aware=source.is_aware,
        time_zone=source.time_zone,
        row_label=numbered_row,
        chunks=source.chunks,
    )


def _open(path: Path) -> Any:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an optional library
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet") from None
    try:
        return pq.ParquetFile(path, buffer_size=_READ_BYTES, pre_buffer=False)
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path.name} cannot be read as {_FORMAT}: {reason}") from error


class _ParquetSource:
    def __init__(self, path: Path, schema: Any, num_rows: int, options: IngestOptions) -> None:
        self._path = path
        self._num_rows = num_rows
        self._times: TextTimes | EpochTimes | None = None  # None where Arrow knows the times
        self.is_aware = False
        self.time_zone: str | None = None
        twice = [column for column in schema.names if schema.names.count(column) > 1]
        if twice:
            raise DataError(f"{path.name} has the column {twice[0]!r} twice: each must be unique")
        described = _describe(schema)
        if len(described.get("column_indexes", ())) > 1:
            raise DataError(f"{path.name} has several levels of columns: give it one")
        index = _index_columns(described, schema)
        self._time, beside = self._time_column(schema, index, options)
        if self._time is not None and num_rows:
            self._look_at_times(schema.field(self._time).type, self._time, options)
        self.columns = [n for n in schema.names if n != self._time and n not in (*index, *beside)]
        for column in self.columns:
            if not _is_numeric(schema.field(column).type):
                raise DataError(
                    f"column {column!r} of {path.name} holds {schema.field(column).type}: it "
                    "must hold numbers (times go first, or into the index)"
                )
        if not self.columns:
            raise DataError(f"{path.name} has no column of readings; it has {schema.names}")

    def _time_column(
        self,
        schema: Any,
        index: list[str],
        options: IngestOptions,
    ) -> tuple[str | None, tuple[str, ...]]:
        """The column of times, if there is one, and columns that only count rows."""
        if not schema.names:
            return None, ()
        kinds = {column: str(schema.field(column).type) for column in schema.names}
        dated = [c for c in schema.names if kinds[c].startswith(("timestamp", "date"))]
        if options.timestamps is not False:
            if len(dated) > 1:
                raise DataError(
                    f"{self._path.name} has {len(dated)} columns of times ({', '.join(dated)}): "
                    "keep one"
                )
            if dated:
                return str(dated[0]), ()
        first = str(index[0] if index else schema.names[0])
        if options.timestamps is not False and kinds[first] in ("string", "large_string"):
            return first, ()
        if kinds[first].startswith(("int", "uint")):
            head = self._head(first, _SAMPLE_ROWS)
            numbers = [] if None in head else [int(cell) for cell in head]
            title = "" if first.startswith("__index_level_") else first
            kind = first_column(self._path.name, title, numbers, options.timestamps)
            return (first if kind == "times" else None), ((first,) if kind == "rows" else ())
        if options.timestamps:
            raise DataError(
                f"column {first!r} of {self._path.name} holds {kinds[first]}, no times: leave "
                "--timestamps out"
            )
        return None, ()

    def _head(self, column: str, count: int) -> list[Any]:
        """The first cells of a column."""
        with reraise_read_errors(self._path.name, _FORMAT), _open(self._path) as file:
            batch = next(file.iter_batches(batch_size=count, columns=[column]), None)
        cells: list[Any] = [] if batch is None else batch.column(0).to_pylist()
        return cells

    def _look_at_times(self, kind: Any, column: str, options: IngestOptions) -> None:
        name = self._path.name
        if str(kind).startswith(("timestamp", "date")):
            zone: str | None = getattr(kind, "tz", None)
            self.is_aware = zone is not None
            self.time_zone = None if zone is None else _known_zone(zone)
            return
        (first,) = self._head(column, 1)
        if first is None:
            raise DataError(f"{numbered_row(0)} of {name} has no time: give it one")
        if isinstance(first, int):
            self._times = EpochTimes(first, name, numbered_row)
        else:
            self._times = TextTimes(
                first,
                time_format=options.time_format,
                name=name,
                label=numbered_row,
                time_zone=options.time_zone,
            )
        self.is_aware, self.time_zone = self._times.is_aware, self._times.time_zone

    def chunks(self, budget_bytes: int) -> Iterator[Chunk]:
        name = self._path.name
        rows = rows_per_chunk(budget_bytes, len(self.columns))
        wanted = [*self.columns, *([] if self._time is None else [self._time])]
        first_row = 0
        with reraise_read_errors(name, _FORMAT), _open(self._path) as file:
            for batch in file.iter_batches(batch_size=rows, columns=wanted):
                values = np.empty((batch.num_rows, len(self.columns), 1), dtype=np.float64)
                for place, column in enumerate(self.columns):
                    values[:, place, 0] = batch.column(column).to_numpy(zero_copy_only=False)
                yield Chunk(values=values, seconds=self._seconds(batch, first_row))
                first_row += batch.num_rows

    def _seconds(self, batch: Any, first_row: int) -> NDArray[np.int64] | None:
        if self._time is None:
            return None
        cells = batch.column(self._time)
        if isinstance(self._times, TextTimes):
            return self._times.seconds(pd.Series(cells.to_pylist(), dtype=str), first_row)
        if self._times is not None:
            return self._times.seconds(cells.to_pandas(), first_row)
        times = pd.DatetimeIndex(pd.to_datetime(cells.to_pandas()))
        return epoch_seconds(times, first_row, self._path.name, numbered_row)


def _known_zone(zone: str) -> str | None:
    """A zone as Arrow names it: from the IANA list, or "+05:30"; None if neither helps."""
    offset = re.fullmatch(r"([+-])(\d\d):(\d\d)", zone)
    if offset is not None:
        sign = -1 if offset[1] == "-" else 1
        return zone_from_offset(sign * timedelta(hours=int(offset[2]), minutes=int(offset[3])))
    return zone if zone in available_timezones() else None


def _is_numeric(kind: Any) -> bool:
    return str(kind).startswith(("int", "uint", "float", "halffloat", "double", "bool"))


def _describe(schema: Any) -> dict[str, Any]:
    """What pandas says of the DataFrame that it wrote; empty if something else wrote it."""
    text = (schema.metadata or {}).get(b"pandas")
    described = {} if text is None else json.loads(text)
    return described if isinstance(described, dict) else {}


def _index_columns(described: dict[str, Any], schema: Any) -> list[str]:
    """Columns that hold the index of the DataFrame that was written; a range is none."""
    columns = described.get("index_columns", [])
    return [column for column in columns if isinstance(column, str) and column in schema.names]
