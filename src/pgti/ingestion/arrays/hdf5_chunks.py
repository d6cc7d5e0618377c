"""Parts of HDF5 datasets, of which what is packed is measured before the library unpacks it.

HDF5 takes a chunk that unpacks to fewer bytes than it should have for a whole one, and gives what
its memory holds behind it; one that unpacks to more takes as much memory as that.
"""

import math
import zlib
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.display import size_text
from pgti.errors import DataError
from pgti.memory import available_bytes

__all__ = ["check_box", "inflated_bytes", "read_box"]

_DEFLATE, _SHUFFLE, _FLETCHER32, _LZF, _BLOSC = 1, 2, 3, 32000, 32001
_PIECE_BYTES = 1 << 20
_CHECKSUM_BYTES = 4
_MAX_TEXT_BYTES = 1 << 14
_TEXTS_BYTES = 1 << 27  # of texts that are read together, each of which may be the whole file

Node = Any  # an h5py dataset; h5py has no types
Box = tuple[slice, ...]


def read_box(dataset: Node, box: Box = ()) -> NDArray[Any]:
    """A part of a dataset, `dataset[box]`.

    Args:
        dataset: of an open file.
        box: consecutive places along the first axes; without any, all of them.

    Raises:
        DataError: if a part of it unpacks to more or fewer bytes than it should, or a text of it
            is longer than any name.
    """
    check_box(dataset, box)
    ends = _ends(dataset, box)
    if dataset.dtype.kind in "SO" or not box:
        _check_size(dataset, [stop - start for start, stop in ends])
    if dataset.dtype.kind == "O" and ends:
        return _read_texts(dataset, ends)
    values: NDArray[Any] = np.asarray(dataset[tuple(slice(*each) for each in ends)])
    return values


def _ends(dataset: Node, box: Box) -> list[tuple[int, int]]:
    whole = (*box, *(slice(None),) * (len(dataset.shape) - len(box)))
    return [part.indices(size)[:2] for part, size in zip(whole, dataset.shape, strict=True)]


def _check_size(dataset: Node, lengths: list[int]) -> None:
    """Refuse labels that do not fit into memory, or are longer than any."""
    if dataset.dtype.kind == "S" and dataset.dtype.itemsize > _MAX_TEXT_BYTES:
        raise DataError(_too_long(dataset, dataset.dtype.itemsize))
    num_bytes = 2 * math.prod(lengths) * max(dataset.dtype.itemsize, 32)
    if num_bytes > (free := available_bytes()):
        raise DataError(
            f"{_name(dataset)} takes {size_text(num_bytes)} to read whole, and {size_text(free)} "
            "are free"
        )


def _read_texts(dataset: Node, ends: list[tuple[int, int]]) -> NDArray[Any]:
    """Texts of any length, several of which may be one place of the file."""
    (start, stop), *inner = ends
    row_bytes = dataset.file.id.get_filesize() * math.prod(end - begin for begin, end in inner)
    rows = max(1, _TEXTS_BYTES // max(1, row_bytes))
    parts = []
    for first in range(start, max(stop, start + 1), rows):
        box = (slice(first, min(first + rows, stop)), *(slice(*each) for each in inner))
        part: NDArray[Any] = np.asarray(dataset[box])
        longest = max((len(each) for each in part.flat if isinstance(each, str | bytes)), default=0)
        if longest > _MAX_TEXT_BYTES:
            raise DataError(_too_long(dataset, longest))
        parts.append(part)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def check_box(dataset: Node, box: Box = ()) -> None:
    """Check the chunks that a part of a dataset meets; see `read_box`.

    Raises:
        DataError: if one of them does not have the bytes that it should.
    """
    if dataset.chunks is None:
        return
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(place)[0] for place in range(plist.get_nfilters())]
    num_bytes = math.prod(dataset.chunks) * dataset.id.get_type().get_size()
    file_bytes = dataset.file.id.get_filesize()
    starts = (
        range(start - start % chunk, stop, chunk)
        for (start, stop), chunk in zip(_ends(dataset, box), dataset.chunks, strict=True)
    )
    for offset in product(*starts):
        info = dataset.id.get_chunk_info_by_coord(offset)
        if info.byte_offset is None:  # it was never written
            continue
        problem = "lies behind the end of the file"
        if info.byte_offset + info.size <= file_bytes:
            problem = _problem_of(dataset, info, filters, num_bytes)
        if problem:
            raise DataError(f"the chunk of {_name(dataset)} at {offset} {problem}: copy it again")


def _problem_of(dataset: Node, info: Any, filters: list[int], num_bytes: int) -> str:
    """What is wrong with a chunk, if anything."""
    size, packed, num_after = num_bytes, None, 0
    for place, code in enumerate(filters):  # in the order of writing
        if info.filter_mask >> place & 1:
            continue
        if packed is not None and code != _FLETCHER32:
            return "" if code not in (_DEFLATE, _LZF, _BLOSC) else "is packed twice"
        if code == _FLETCHER32:
            size += _CHECKSUM_BYTES * (packed is None)
            num_after += packed is not None
        elif code in (_DEFLATE, _LZF, _BLOSC):
            packed = code
        elif code != _SHUFFLE:
            return ""  # the library knows what others make
    if packed is None:
        found = info.size
    else:
        _, stored = dataset.id.read_direct_chunk(info.chunk_offset)
        found = _MEASURES[packed](stored[: len(stored) - _CHECKSUM_BYTES * num_after], size)
    return "" if found == size else f"should unpack to {size:,} bytes, and does not"


def inflated_bytes(data: bytes, size: int) -> int | None:
    """Bytes that a stream unpacks to, or a few more than `size`; None if it is damaged."""
    stream, found = zlib.decompressobj(), 0
    for start in range(0, len(data), _PIECE_BYTES):
        rest = data[start : start + _PIECE_BYTES]
        while rest and not stream.eof and found <= size:
            try:
                found += len(stream.decompress(rest, _PIECE_BYTES))
            except zlib.error:
                return None
            rest = stream.unconsumed_tail
    return found if stream.eof or found > size else None


def _lzf_size(data: bytes, size: int) -> int | None:
    place = found = 0
    while place < len(data) and found <= size:
        head = data[place]
        if head < 32:  # so many bytes and one follow as they are
            place, found = place + head + 2, found + head + 1
            continue
        length = head >> 5
        if length == 7:
            place += 1
            length += data[place] if place < len(data) else 0
        place, found = place + 2, found + length + 2
    return found if place == len(data) else None


def _blosc_size(data: bytes, size: int) -> int | None:
    del size
    return int.from_bytes(data[4:8], "little")


_MEASURES = {_DEFLATE: inflated_bytes, _LZF: _lzf_size, _BLOSC: _blosc_size}


def _too_long(dataset: Node, length: int) -> str:
    return (
        f"{_name(dataset)} holds texts of {length:,} bytes: names, ids and times have at most "
        f"{_MAX_TEXT_BYTES:,}"
    )


def _name(dataset: Node) -> str:
    file = dataset.file.filename
    file = file.decode("utf-8", "replace") if isinstance(file, bytes) else file
    return f"{dataset.name.lstrip('/')} of {file.rpartition('/')[2]}"
