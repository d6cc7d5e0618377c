"""Arrays in NumPy's format that grow: rows after a header of a fixed length.

The description of the store says how many rows there are. The header says it too, for others that
open the file, but it is written last: rows beyond the description were left by a writer that did
not finish, and the next one writes over them.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DIGESTS_FILE",
    "FUTURE_FILE",
    "GRAPH_FILE",
    "MOMENTS_FILE",
    "PART_OFFSET",
    "SERIES_FILE",
    "STATIC_FILE",
    "TIME_FILE",
    "check_header",
    "extend_rows",
    "read_rows",
    "write_header",
    "write_rows",
]

SERIES_FILE = "series.npy"
TIME_FILE = "time.npy"
FUTURE_FILE = "future.npy"
STATIC_FILE = "static.npz"
MOMENTS_FILE = "moments.npy"
DIGESTS_FILE = "digests.npy"
GRAPH_FILE = "graph.npz"
PART_OFFSET = 128  # bytes of the header of small parts, room for any number of rows
_MAGIC_BYTES = 10  # magic, version, length of the header
_HEADER = re.compile(
    r"\{'descr': '(?P<descr>[^']*)', 'fortran_order': (?P<fortran_order>\w+), +"
    r"'shape': \((?P<shape>[0-9, ]*)\),? ?\} *\n",
    re.ASCII,
)


def write_header(
    file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int = PART_OFFSET
) -> None:
    """Write the header of an array [rows, ...] in C order whose numbers begin at byte `offset`."""
    text = repr({"descr": dtype.str, "fortran_order": False, "shape": shape}).encode("latin1")
    length = offset - _MAGIC_BYTES
    file.seek(0)
    file.write(
        np.lib.format.magic(1, 0) + length.to_bytes(2, "little") + text.ljust(length - 1) + b"\n"
    )


def check_header(file: BinaryIO, dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> Iterator[str]:
    """Yield what is wrong with a header; the stream stands at the first number afterwards.

    Raises:
        ValueError: if it is not a header.
    """
    if np.lib.format.read_magic(file) != (1, 0):
        yield "has a header of another version"
        return
    length = int.from_bytes(file.read(2), "little")
    # By its text: NumPy warns of a damaged type that was once one of its own.
    header = _HEADER.fullmatch(file.read(length).decode("latin1"))
    if header is None:
        yield "has a header that is none of an array"
        return
    shape = tuple(int(size) for size in header["shape"].replace(",", " ").split())
    if header["descr"] != dtype.str or shape[1:] != row_shape or not shape:
        yield f"is {header['descr']} {shape} and should be {dtype} {('rows', *row_shape)}"
    if header["fortran_order"] != "False":
        yield "is not in C order"


def read_rows(
    path: Path, num_rows: int, row_shape: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """The first `num_rows` rows of a small part, [num_rows, *row_shape].

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not such an array, or has fewer rows.
    """
    with path.open("rb") as file:
        for problem in check_header(file, dtype, row_shape):
            raise ValueError(f"{path.name} {problem}")
        wanted = num_rows * dtype.itemsize * int(np.prod(row_shape, dtype=np.int64))
        content = file.read(wanted)
    if len(content) != wanted:
        raise ValueError(f"{path.name} has {len(content)} bytes of {wanted}")
    return np.frombuffer(content, dtype=dtype).reshape(num_rows, *row_shape)


def write_rows(path: Path, rows: NDArray[Any]) -> None:
    """Write a small part, and flush it to the disk.

    Raises:
        OSError: if it cannot be written.
    """
    with path.open("wb") as file:
        write_header(file, rows.dtype, rows.shape)
        file.write(np.ascontiguousarray(rows).data if rows.size else b"")
        file.flush()
        os.fsync(file.fileno())


def extend_rows(path: Path, num_rows: int, rows: NDArray[Any]) -> None:
    """Write rows after the first `num_rows` of a small part, and flush them to the disk.

    Raises:
        OSError: if it cannot be written.
    """
    with path.open("r+b") as file:
        file.seek(PART_OFFSET + num_rows * rows[:1].nbytes)
        file.truncate()
        file.write(np.ascontiguousarray(rows).data)
        file.flush()
        os.fsync(file.fileno())
