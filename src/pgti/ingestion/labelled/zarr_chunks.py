"""Chunks of Zarr arrays, which must not unpack to more than their numbers have.

Zarr's codecs unpack what a chunk promises before anything compares it with the array.
"""

import bz2
import gzip
import io
import lzma
import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, BinaryIO

import zarr
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.registry import register_pipeline

from pgti.display import size_text
from pgti.errors import DataError
from pgti.ingestion.arrays.hdf5_chunks import inflated_bytes

__all__ = ["bounded_chunks"]

_PIECE_BYTES = 1 << 20
_SLACK, _SLACK_BYTES = 4, 1 << 20  # of filters that make numbers wider; of what is not numbers
_TEXT_BYTES = 256


class BoundedPipeline(BatchedCodecPipeline):
    """Zarr's own pipeline, which measures chunks before it unpacks them."""

    async def decode_batch(self, chunk_bytes_and_specs: Iterable[tuple[Any, Any]]) -> Any:
        """Decode chunks.

        Raises:
            DataError: if one of them unpacks to several times the bytes of its numbers.
        """
        chunks = list(chunk_bytes_and_specs)
        packing = [name for name in map(_name_of, self._unpacking()) if name in _MEASURES]
        for packed, spec in chunks:
            if packing and packed is not None:
                _check(packed.to_bytes(), packing, spec)
        return await super().decode_batch(chunks)

    def _unpacking(self) -> list[Any]:
        """The codecs of bytes, in the order of reading."""
        last = self.array_bytes_codec  # of format 2, which has all of them
        inner = [getattr(last, "compressor", None), *reversed(getattr(last, "filters", None) or ())]
        return [*reversed(self.bytes_bytes_codecs), *(each for each in inner if each is not None)]


register_pipeline(BoundedPipeline)


def bounded_chunks() -> AbstractContextManager[Any]:
    """Within it, arrays are opened that measure their chunks."""
    name = f"{BoundedPipeline.__module__}.{BoundedPipeline.__qualname__}"
    context: AbstractContextManager[Any] = zarr.config.set({"codec_pipeline.path": name})
    return context


def _name_of(codec: Any) -> str:
    described = codec.to_dict()["name"] if hasattr(codec, "to_dict") else codec.codec_id
    return str(described).removeprefix("numcodecs.")


def _check(packed: bytes, packing: list[str], spec: Any) -> None:
    if len(packing) > 1:
        raise DataError(f"its chunks are packed twice ({', '.join(packing)}): write it again")
    dtype = spec.dtype.to_native_dtype()
    item_bytes = _TEXT_BYTES if dtype.kind in "OT" else dtype.itemsize
    num_bytes = math.prod(spec.shape) * item_bytes
    most = _SLACK * num_bytes + _SLACK_BYTES
    if _MEASURES[packing[0]](packed, most) > most:
        raise DataError(
            f"a chunk of {size_text(num_bytes)} unpacks to more than {size_text(most)}: copy it "
            "again"
        )


def _streamed(open_stream: Callable[[BinaryIO], Any], packed: bytes, most: int) -> int:
    found = 0
    with open_stream(io.BytesIO(packed)) as stream:
        while found <= most and (piece := stream.read(_PIECE_BYTES)):
            found += len(piece)
    return found


def _blosc_bytes(packed: bytes, most: int) -> int:
    del most
    if int.from_bytes(packed[12:16], "little") != len(packed):  # else it reads beyond the end
        raise DataError("a chunk is truncated: copy it again")
    return int.from_bytes(packed[4:8], "little")


def _zstd_bytes(packed: bytes, most: int) -> int:
    """The size that the header of a frame states, or else what it unpacks to."""
    descriptor = packed[4] if len(packed) > 4 else 0
    is_single = descriptor >> 5 & 1
    size_bytes = (is_single, 2, 4, 8)[descriptor >> 6]
    first = 6 - is_single + (0, 1, 2, 4)[descriptor & 3]
    if size_bytes:
        stated = int.from_bytes(packed[first : first + size_bytes], "little")
        return stated + 256 * (size_bytes == 2)
    try:
        import pyarrow as pa  # noqa: PLC0415 - an optional library
    except ImportError:
        return 0
    return _streamed(lambda file: pa.CompressedInputStream(file, "zstd"), packed, most)


_MEASURES: dict[str, Callable[[bytes, int], int]] = {
    "blosc": _blosc_bytes,
    "bz2": partial(_streamed, bz2.open),
    "gzip": partial(_streamed, gzip.open),
    "lz4": lambda packed, _: int.from_bytes(packed[:4], "little"),
    "lzma": partial(_streamed, lzma.open),
    "zlib": lambda packed, most: inflated_bytes(packed, most) or 0,
    "zstd": _zstd_bytes,
}
