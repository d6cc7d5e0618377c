"""Readings in Parquet files: one row a step, one column a sensor; times are one column more."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.errors import DataError, MissingExtraError
from pgti.ingest.options import IngestOptions
from pgti.ingest.readings import Chunk, Readings, reading, rows_per_chunk
from pgti.ingest.times import parse_times, seconds_of, zone_of_text

__all__ = ["open_parquet"]

_FORMAT = "Parquet"


def open_parquet(path: Path, options: IngestOptions) -> Readings:
    """Readings in a wide Parquet table, read by pieces of its row groups.

    Raises:
        DataError: if the file is damaged, or a column is neither numbers nor the times.
        MissingExtraError: if pyarrow is not installed.
    """
    name = path.name
    with reading(name, _FORMAT), _open(path) as file:
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
        time_zone=source.time_zone,
        row_label=_row_label,
        chunks=source.chunks,
    )


def _open(path: Path) -> Any:  # noqa: ANN401 - pyarrow has no types
    try:
        import pyarrow as pa  # noqa: PLC0415 - an optional library
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet") from None
    try:
        return pq.ParquetFile(path)
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path.name} cannot be read as {_FORMAT}: {reason}") from error


def _row_label(row: int) -> str:
    return f"row {row}"


class _ParquetSource:
    def __init__(self, path: Path, schema: Any, num_rows: int, options: IngestOptions) -> None:  # noqa: ANN401 - as above
        self._path = path
        self._num_rows = num_rows
        self._time_format = options.time_format
        self.time_zone: str | None = None
        index = _index_columns(schema)
        self._time = self._time_column(schema, index, options)
        if self._time is not None:
            self.time_zone = self._zone(options)
        self.columns = [n for n in schema.names if n != self._time and n not in index]
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
        schema: Any,  # noqa: ANN401 - as above
        index: list[str],
        options: IngestOptions,
    ) -> str | None:
        if options.timestamps is False or not schema.names:
            return None
        kinds = {column: str(schema.field(column).type) for column in schema.names}
        dated = [c for c in schema.names if kinds[c].startswith(("timestamp", "date"))]
        if len(dated) > 1:
            raise DataError(
                f"{self._path.name} has {len(dated)} columns of times ({', '.join(dated)}): "
                "keep one"
            )
        if dated:
            return str(dated[0])
        first = index[0] if index else schema.names[0]
        if kinds[first] in ("string", "large_string"):
            return first
        if options.timestamps:
            raise DataError(f"column {first!r} of {self._path.name} holds {kinds[first]}, no times")
        return None

    def _zone(self, options: IngestOptions) -> str | None:
        assert self._time is not None  # the caller looked
        with reading(self._path.name, _FORMAT), _open(self._path) as file:
            batches = file.iter_batches(batch_size=1, columns=[self._time])
            first = next(batches, None)
        if first is None:
            return None
        column = first.column(0)
        zone: str | None = getattr(column.type, "tz", None)
        if zone is None and column.type in _text_types():
            zone = zone_of_text(str(column[0].as_py()), self._time_format, self._path.name)
        elif zone is not None and zone[0] in "+-":
            zone = zone_of_text(column[0].as_py().isoformat(), None, self._path.name)
        return None if zone is None else str(options.time_zone or zone)

    def chunks(self, budget_bytes: int) -> Iterator[Chunk]:
        name = self._path.name
        rows = rows_per_chunk(budget_bytes, len(self.columns))
        wanted = [*self.columns, *([] if self._time is None else [self._time])]
        first_row = 0
        with reading(name, _FORMAT), _open(self._path) as file:
            for batch in file.iter_batches(batch_size=rows, columns=wanted):
                values = np.empty((batch.num_rows, len(self.columns), 1), dtype=np.float64)
                for place, column in enumerate(self.columns):
                    values[:, place, 0] = batch.column(column).to_numpy(zero_copy_only=False)
                yield Chunk(values=values, seconds=self._seconds(batch, first_row))
                first_row += batch.num_rows

    def _seconds(self, batch: Any, first_row: int) -> NDArray[np.int64] | None:  # noqa: ANN401 - as above
        if self._time is None:
            return None
        name = self._path.name
        cells = batch.column(self._time)
        if cells.type in _text_types():
            return parse_times(
                pd.Series(cells.to_pylist(), dtype=str),
                self._time_format,
                aware=self.time_zone is not None,
                first_row=first_row,
                name=name,
                label=_row_label,
            )
        times = pd.DatetimeIndex(pd.to_datetime(cells.to_pandas()))
        return seconds_of(times, first_row, name, _row_label)


def _text_types() -> tuple[Any, ...]:
    import pyarrow as pa  # noqa: PLC0415 - an optional library; opening the file has checked

    return (pa.string(), pa.large_string())


def _is_numeric(kind: Any) -> bool:  # noqa: ANN401 - as above
    return str(kind).startswith(("int", "uint", "float", "halffloat", "double", "bool"))


def _index_columns(schema: Any) -> list[str]:  # noqa: ANN401 - as above
    """Columns that hold the index of the DataFrame that was written; a range is none."""
    described = (schema.metadata or {}).get(b"pandas")
    if described is None:
        return []
    columns = json.loads(described).get("index_columns", [])
    return [column for column in columns if isinstance(column, str) and column in schema.names]
