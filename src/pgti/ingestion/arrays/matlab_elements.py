"""Types of the elements in MATLAB's files of version 5 to 7, which SciPy follows unchecked.

A type that does not exist is a place in SciPy's table of types, and the process ends.
"""

import io
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from pgti.errors import DataError

__all__ = ["check_elements", "complex_numbers"]

_MATRIX, _COMPRESSED = 14, 15
_CELL, _CHAR, _NUMERIC = 1, 4, range(6, 16)  # classes of arrays
_NUMBERS = (1, 2, 3, 4, 5, 6, 7, 9, 12, 13)
_TEXT = (*_NUMBERS, 16, 17, 18)
_COMPLEX = 0x800
_HEADER_BYTES, _BLOCK, _MOST_DIMENSIONS = 128, 1 << 16, 32


class _Inflated(io.RawIOBase):
    """The bytes of a compressed element, as they are needed."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self._file, self._left, self._rest = file, left, b""
        self._inflater = zlib.decompressobj()

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and self._left > 0:
            packed = self._inflater.unconsumed_tail
            if not packed:
                packed = self._file.read(min(self._left, _BLOCK))
                self._left -= len(packed)
                if not packed:
                    break
            self._rest += self._inflater.decompress(packed, _BLOCK)
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def complex_numbers(name: str) -> DataError:
    """The error of a variable of complex numbers."""
    return DataError(
        f"{name} holds complex numbers: save its real part, or the absolute values, as a variable "
        "of its own"
    )


def check_elements(path: Path, key: str) -> None:
    """Refuse a variable of numbers, text or cells with an element of a type that cannot be.

    Raises:
        DataError: if it holds complex numbers.
        ValueError: naming the type, or if the variable is damaged otherwise.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        if b"\0" in header[:4] or header[126:] not in (b"IM", b"MI"):
            return  # version 4, or none
        order = "<" if header[126:] == b"IM" else ">"
        while tag := file.read(8):
            kind, size = struct.unpack(f"{order}2I", tag)
            after = file.tell() + size
            inside: BinaryIO | _Inflated = file
            if kind == _COMPRESSED:
                inside = _Inflated(file, size)
                kind, _ = struct.unpack(f"{order}2I", inside.read(8))
            if kind == _MATRIX:
                _check_matrix(inside, order, key, path)
            file.seek(after)


def _element(file: "BinaryIO | _Inflated", order: str) -> tuple[int, bytes]:
    """The type and the bytes of a short element."""
    tag = file.read(8)
    kind, size = struct.unpack(f"{order}2I", tag)
    if kind >> 16:
        return kind & 0xFFFF, tag[4 : 4 + (kind >> 16)]
    if size > _BLOCK:
        raise ValueError(f"an element of {size} bytes where a name or sizes belong")
    return kind, file.read(size + -size % 8)[:size]


def _check_matrix(file: "BinaryIO | _Inflated", order: str, key: str | None, path: Path) -> None:
    _, flags = _element(file, order)
    word = struct.unpack(f"{order}I", flags[:4])[0]
    _, sizes = _element(file, order)
    _, name = _element(file, order)
    if key is not None and name.decode("latin1") != key:
        return
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes[: len(sizes) // 4 * 4])
    if not 2 <= len(shape) <= _MOST_DIMENSIONS or min(shape) < 0:
        raise ValueError(f"a variable of the shape {shape}")
    kind = word & 0xFF
    if kind in _NUMERIC or kind == _CHAR:
        (first,) = struct.unpack(f"{order}I", file.read(8)[:4])
        stored = first & 0xFFFF if first >> 16 else first
        if stored not in (_TEXT if kind == _CHAR else _NUMBERS):
            raise ValueError(f"an element of the type {stored}, which is none; copy it again")
        if word & _COMPLEX:
            raise complex_numbers(f"{key} of {path.name}" if key else "a cell")
    elif kind == _CELL and key is not None:
        _check_cells(file, order, math.prod(shape), path)


def _check_cells(file: "BinaryIO | _Inflated", order: str, count: int, path: Path) -> None:
    for _ in range(count):
        tag = file.read(8)
        cell, size = struct.unpack(f"{order}2I", tag)
        if cell != _MATRIX:
            raise ValueError(f"a cell of the type {cell}, which is none; copy it again")
        content = file.read(size) if size <= _BLOCK else b""
        if len(content) != size:
            raise ValueError(f"a cell of {size} bytes, which is no name")
        if size:
            _check_matrix(io.BytesIO(content), order, None, path)
