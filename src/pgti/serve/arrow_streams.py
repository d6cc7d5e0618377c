"""Arrow IPC streams from strangers: checked before memory is taken for what they claim."""

import struct
from typing import Any

import pyarrow as pa
from pyarrow import types

from pgti.errors import PARSER_ERRORS
from pgti.serve.problems import RequestError

__all__ = ["MEDIA_TYPE", "read_stream", "write_stream"]

MEDIA_TYPE = "application/vnd.apache.arrow.stream"

_DICTIONARY_BYTES = 64 << 20
_HEADER, _DATA, _COMPRESSION = 2, 1, 3  # fields of tables in Arrow's Message.fbs


def read_stream(content: bytes, max_values: int) -> pa.Table:
    """The table of an IPC stream.

    Raises:
        RequestError: if it is damaged, has too many values, compressed buffers, or a column of
            another type than numbers, texts and times.
    """
    try:
        _refuse_compression(content)
        with pa.ipc.open_stream(pa.py_buffer(content)) as reader:
            for field in reader.schema:
                _check_type(field)
            num_values, batches = 0, []
            dictionaries: dict[int, int] = {}
            for batch in reader:
                num_values += batch.num_rows * max(1, batch.num_columns)
                if num_values > max_values:
                    raise RequestError(
                        413,
                        f"the table has over {max_values:,} values: send the newest rows alone",
                    )
                batch.validate(full=True)
                dictionaries |= _dictionary_sizes(batch)
                if sum(dictionaries.values()) > max(_DICTIONARY_BYTES, len(content)):
                    raise RequestError(
                        413, "the dictionaries of the table grow from batch to batch: send one"
                    )
                batches.append(batch)
            # What reads the table would look at each of many chunks again and again.
            return pa.Table.from_batches(batches, reader.schema).combine_chunks()
    except (pa.ArrowException, *PARSER_ERRORS) as error:
        reason = " ".join(str(error).split())[:200]
        raise RequestError(
            400, f"the body is no Arrow IPC stream that can be read: {reason}"
        ) from None


def write_stream(table: pa.Table) -> bytes:
    """A table as an IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _check_type(field: Any) -> None:
    kind = field.type.value_type if types.is_dictionary(field.type) else field.type
    if types.is_dictionary(field.type) and not types.is_integer(field.type.index_type):
        kind = field.type
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    if not (is_text or is_number or types.is_timestamp(kind) or types.is_date(kind)):
        raise RequestError(
            422,
            f"the column {str(field.name)[:100]!r} is {str(kind)[:100]}: send numbers, texts and "
            "times",
        )


def _dictionary_sizes(batch: pa.RecordBatch) -> dict[int, int]:
    """The bytes of each dictionary by its address: a delta makes a new one of the whole."""
    sizes = {}
    for column in batch.columns:
        if types.is_dictionary(column.type):
            addresses = [each.address for each in column.dictionary.buffers() if each is not None]
            sizes[max(addresses, default=0)] = column.dictionary.nbytes
    return sizes


def _refuse_compression(content: bytes) -> None:
    """Refuse compressed buffers, whose size is what they claim it is.

    Raises:
        RequestError: saying what to send.
    """
    for message in pa.ipc.MessageReader.open_stream(pa.py_buffer(content)):
        header = _Flatbuffer.root(message.metadata.to_pybytes()).child(_HEADER)
        if message.type == "dictionary" and header is not None:
            header = header.child(_DATA)
        elif message.type != "record batch":
            continue
        if header is not None and header.child(_COMPRESSION) is not None:
            raise RequestError(
                415,
                "the Arrow stream has compressed buffers: write it without compression, and "
                "compress the body with gzip",
            )


class _Flatbuffer:
    """A table of Google's FlatBuffers, as far as a pointer to another table."""

    def __init__(self, content: bytes, place: int) -> None:
        self._content, self._place = content, place

    @classmethod
    def root(cls, content: bytes) -> "_Flatbuffer":
        return cls(content, struct.unpack_from("<I", content, 0)[0])

    def child(self, number: int) -> "_Flatbuffer | None":
        """The table that a field points to; None where the field is absent."""
        (back,) = struct.unpack_from("<i", self._content, self._place)
        fields = self._place - back
        (size,) = struct.unpack_from("<H", self._content, fields)
        entry = 4 + 2 * number
        offset = struct.unpack_from("<H", self._content, fields + entry)[0] if entry < size else 0
        if not offset:
            return None
        place = self._place + offset
        return _Flatbuffer(self._content, place + struct.unpack_from("<I", self._content, place)[0])
