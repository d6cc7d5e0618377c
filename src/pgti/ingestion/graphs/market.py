"""Graphs in Matrix Market files: https://math.nist.gov/MatrixMarket/formats.html."""

import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pgti.display import count_of
from pgti.errors import DataError
from pgti.ingestion.graphs.arrays import matrix_graph
from pgti.ingestion.raw_graphs import RawMatrix
from pgti.ingestion.readings import reraise_read_errors
from pgti.ingestion.tables.text_files import open_text

__all__ = ["read_market_graph"]

_MAX_LINE, _MAX_ENTRY = 4096, 100
_NUMBER = rb"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf)"
_WHOLE = rb"[-+]?\d{1,18}"
_FIELDS = {"real": _NUMBER, "double": _NUMBER, "integer": _WHOLE, "unsigned-integer": _WHOLE}
_FIELDS["pattern"] = b""


def read_market_graph(path: Path) -> RawMatrix:
    """A sparse or a dense matrix in a Matrix Market file.

    Raises:
        DataError: if the file is damaged, or promises more numbers than it has.
    """
    from scipy.io import mminfo, mmread  # noqa: PLC0415 - it takes a while

    name = path.name
    with reraise_read_errors(name, "a Matrix Market file"):
        rows, columns, entries, layout, field, symmetry = mminfo(path)
        if rows != columns or rows < 1:
            raise DataError(
                f"{name} has shape ({rows}, {columns}): an adjacency matrix must be square"
            )
        if path.suffix != ".gz" and rows > max(64, path.stat().st_size):
            raise DataError(
                f"{name} promises {rows:,} nodes in {path.stat().st_size:,} bytes: copy it again"
            )
        if field not in _FIELDS:
            raise DataError(f"{name} holds {field} numbers: an adjacency matrix is real")
        if layout == "array":
            halves = {"symmetric": rows * (rows + 1) // 2, "skew-symmetric": rows * (rows - 1) // 2}
            entries = halves.get(symmetry, rows * rows)
        place = b"" if layout == "array" else rb"\d{1,18} \d{1,18} ?"
        matrix: Any = mmread(_checked(path, entries, place + _FIELDS[field]))
    return matrix_graph(matrix, name)


def _checked(path: Path, num_entries: int, entry: bytes) -> BinaryIO:
    """A file with the same header, and an entry a line without a blank too many.

    SciPy ends the process where a number lacks its end, and makes room for what is promised.
    """
    pattern, found, checked = re.compile(entry), 0, io.BytesIO()
    with open_text(path) as file:
        for number, line in _lines(file):
            words = b" ".join(line.split())
            if number > 0:
                found += 1
                if pattern.fullmatch(words) is None or len(words) > _MAX_ENTRY:
                    raise DataError(
                        f"line {number} of {path.name} is {words[:40]!r}, which is no entry of "
                        "its matrix: copy the file again"
                    )
            checked.write(words + b"\n")
    if found != num_entries:
        raise DataError(
            f"{path.name} promises {count_of(num_entries, 'entry', 'entries')} and has {found:,}: "
            "copy it again"
        )
    checked.seek(0)
    return checked


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The first line, that with the sizes, both as number 0, and the others by their number.

    Comments are left out.
    """
    header = 2
    for number in itertools.count(1):
        line = file.readline(_MAX_LINE)
        if not line:
            return
        if number > 1 and (line.startswith(b"%") or not line.strip()):
            continue
        yield 0 if header else number, line
        header = max(0, header - 1)
