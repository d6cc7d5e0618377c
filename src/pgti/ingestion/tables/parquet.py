"""Tables in Parquet and Arrow files, read by pieces."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pgti.errors import DataError
from pgti.ingestion.readings import reraise_read_errors
from pgti.ingestion.tables.arrow import arrow_table
from pgti.ingestion.tables.table import Table

__all__ = ["open_arrow_file", "open_parquet"]

_READ_BYTES = 1 << 16  # pages are read as they are needed, not whole columns of a row group
_PARQUET_FILE, _ENCRYPTED = b"PAR1", b"PARE"
_OLD_FEATHER, _ARROW_FILE = b"FEA1", b"ARROW1"


def open_parquet(path: Path) -> Table:
    """A Parquet file as a table, read by pieces of its row groups.

    Raises:
        DataError: if the file is damaged, or see `arrow_table`.
    """
    name = path.name

    def batches(columns: list[str], rows: int) -> Iterator[Any]:
        with reraise_read_errors(name, "Parquet"), _open_parquet(path) as file:
            yield from file.iter_batches(batch_size=rows, columns=columns)

    with reraise_read_errors(name, "Parquet"), _open_parquet(path) as file:
        schema, num_rows = file.schema_arrow, file.metadata.num_rows
        return arrow_table(name, schema, num_rows, batches)


def _open_parquet(path: Path) -> Any:
    import pyarrow.parquet as pq  # noqa: PLC0415 - it takes a while

    with path.open("rb") as file:
        if file.read(len(_PARQUET_FILE)) not in (_PARQUET_FILE, _ENCRYPTED):  # Arrow reads the end
            raise ValueError("it does not begin as Parquet does; copy it again")
    metadata = pq.read_metadata(path)
    columns = (metadata.schema.column(place) for place in range(metadata.num_columns))
    # Text is read as a dictionary: one that every row repeats is in memory once.
    texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    return pq.ParquetFile(
        path,
        metadata=metadata,
        buffer_size=_READ_BYTES,
        pre_buffer=False,
        read_dictionary=texts,
    )


def open_arrow_file(path: Path) -> Table:
    """A file of Arrow's IPC format (Feather is one) or a stream of it, read by record batches.

    Raises:
        DataError: if the file is damaged or of Feather's first version, or see `arrow_table`.
    """
    name = path.name

    def batches(columns: list[str], rows: int) -> Iterator[Any]:
        with reraise_read_errors(name, "Arrow IPC"), _open_arrow(path, columns) as (_, read):
            for batch in read:
                for first in range(0, batch.num_rows, rows):
                    yield batch.slice(first, rows)

    with reraise_read_errors(name, "Arrow IPC"):
        with path.open("rb") as file:
            if file.read(len(_OLD_FEATHER)) == _OLD_FEATHER:
                raise DataError(
                    f"{name} is of Feather's first version, which was replaced in 2020: write it "
                    "anew with pandas' to_feather"
                )
        return arrow_table(name, _schema_of(path), None, batches)


def _schema_of(path: Path) -> Any:
    with _open_arrow(path, None) as (schema, _):
        return schema


@contextlib.contextmanager
def _open_arrow(path: Path, columns: list[str] | None) -> Iterator[tuple[Any, Iterator[Any]]]:
    """The schema, and the record batches with some of the columns, of an IPC file or stream."""
    import pyarrow as pa  # noqa: PLC0415 - it takes a while

    with pa.memory_map(str(path)) as source:
        is_file = source.read(len(_ARROW_FILE)) == _ARROW_FILE
        source.seek(0)
        opened = pa.ipc.open_file if is_file else pa.ipc.open_stream
        schema = opened(source).schema
        source.seek(0)
        chosen = None if columns is None else list(map(schema.get_field_index, columns))
        with opened(source, options=pa.ipc.IpcReadOptions(included_fields=chosen)) as reader:
            yield schema, _checked_batches(reader, is_file=is_file)


def _checked_batches(reader: Any, *, is_file: bool) -> Iterator[Any]:
    """The record batches, whose offsets are checked before anything follows them."""
    places = range(reader.num_record_batches) if is_file else ()
    for batch in (reader.get_batch(place) for place in places) if is_file else reader:
        batch.validate(full=True)
        yield batch
