"""Reading an array in NumPy's format row by row from a stream, whatever its size."""

import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from pgti.errors import DataError

__all__ = ["NpyHeader", "iterate_rows", "npz_headers", "read_header"]


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What stands before the numbers.

    Args:
        shape: the array's shape.
        is_fortran: whether the first axis varies fastest.
        dtype: the array's dtype.
        offset: bytes of the header.
    """

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    offset: int

    @property
    def num_bytes(self) -> int:
        """Bytes of header and numbers."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    def check_size(self, name: str, size: int) -> None:
        """Refuse a file that is shorter than its header promises.

        Raises:
            DataError: giving both numbers of bytes.
        """
        if not self.dtype.hasobject and size < self.num_bytes:
            raise DataError(
                f"{name} is truncated: it has {size} bytes and its header promises "
                f"{self.num_bytes} ({self.dtype} {self.shape}); copy it again"
            )


def read_header(file: BinaryIO) -> NpyHeader:
    """Read the header; the stream stands at the first number afterwards.

    Raises:
        ValueError: if it is no header of format 1 or 2.
    """
    version = npy_format.read_magic(file)
    if version == (1, 0):
        shape, is_fortran, dtype = npy_format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, is_fortran, dtype = npy_format.read_array_header_2_0(file)
    else:
        raise ValueError(f"format version {version} is not supported")
    return NpyHeader(shape=shape, is_fortran=is_fortran, dtype=dtype, offset=file.tell())


def npz_headers(path: Path) -> dict[str, NpyHeader]:
    """The header of each array of an `.npz` archive, by its key; no array is read.

    Raises:
        DataError: if an array is shorter than its header promises.
    """
    headers = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                continue
            key = member.filename.removesuffix(".npy")
            with archive.open(member) as file:
                headers[key] = read_header(cast(BinaryIO, file))
            headers[key].check_size(f"{key} of {path.name}", member.file_size)
    return headers


def iterate_rows(file: BinaryIO, header: NpyHeader, rows: int, name: str) -> Iterator[NDArray[Any]]:
    """Blocks of at most `rows` rows of a C-ordered array, from a stream after its header.

    Raises:
        DataError: if the stream ends too early.
    """
    num_rows, *rest = header.shape
    for first in range(0, num_rows, rows):
        block = np.empty((min(rows, num_rows - first), *rest), dtype=header.dtype)
        _fill(file, block, name)
        yield block


def _fill(file: BinaryIO, block: NDArray[Any], name: str) -> None:
    """Fill the block; a compressed stream hands its bytes out in pieces."""
    view = memoryview(block.data).cast("B")
    filled = 0
    while filled < len(view):
        count = file.readinto(view[filled:])  # type: ignore[attr-defined] # every binary stream has it; BinaryIO does not say so
        if not count:
            raise DataError(f"{name} is truncated: it ends before its last row; copy it again")
        filled += count
