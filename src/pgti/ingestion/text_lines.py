"""The lines of a text file: decompressed, decoded, and cut into blocks of whole lines."""

import gzip
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from pgti.errors import DataError
from pgti.ingestion.readings import reraise_read_errors

__all__ = ["MAX_LINE_BYTES", "first_lines", "open_text", "read_blocks"]

MAX_LINE_BYTES = 64 << 20
_EMPTY_LINE = re.compile(rb"^\r?\n", re.MULTILINE)


def open_text(path: Path) -> BinaryIO:
    """Open a text file as bytes, decompressed if its name ends in `.gz`."""
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def first_lines(path: Path, count: int) -> list[str]:
    """The first lines of a file, as text; fewer if it has fewer.

    Raises:
        DataError: if it does not exist, is empty or is not text.
    """
    name = path.name
    with reraise_read_errors(name, "text"), open_text(path) as binary:
        lines: list[str] = []
        with io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as text:
            while len(lines) < count and (line := text.readline(MAX_LINE_BYTES)):
                lines.append(line.rstrip("\r\n"))
    if not any(lines):
        raise DataError(f"{name} is empty: there are no rows")
    if any("\0" in line for line in lines):
        raise DataError(f"{name} is not text (it holds NUL bytes): give the file its right suffix")
    return lines


def read_blocks(
    file: BinaryIO, name: str, block_bytes: int, skipped: int
) -> Iterator[tuple[bytes, int]]:
    """Blocks of whole lines, and the number of each one's first line, from 1.

    A line break inside quotes does not end a line, as in CSV. Empty lines may end a file.

    Args:
        file: UTF-8, from its beginning.
        name: what messages call it.
        block_bytes: about the size of a block; a longer line is a block of its own.
        skipped: lines before the first block, such as a header.

    Raises:
        DataError: if an empty line stands between others, or a line is too long.
    """
    line, empty = 1, None
    for lines in _whole_lines(file, name, block_bytes):
        block = lines
        while skipped and block:
            block = block[_first_line_end(block) :]
            skipped, line = skipped - 1, line + 1
        filled = block.rstrip(b"\r\n")
        if filled:
            empty = empty or _find_empty_line(filled, line)
            if empty is not None:
                raise DataError(
                    f"line {empty} of {name} is empty: write NaN for missing readings, or remove it"
                )
            yield filled, line
            line += _count_breaks(filled) + 1
        num_empty = block[len(filled) :].count(b"\n") - bool(filled)
        if num_empty > 0:
            empty, line = empty or line, line + num_empty


def _whole_lines(file: BinaryIO, name: str, block_bytes: int) -> Iterator[bytes]:
    """Blocks that end where a line does."""
    rest = b""
    while block := file.read(block_bytes):
        block = rest + block
        stop = _last_line_end(block)
        if not stop and len(block) > MAX_LINE_BYTES:
            raise DataError(
                f"{name} has a line of more than {MAX_LINE_BYTES >> 20} MiB: break it into rows, "
                "or close the quote that is open"
            )
        if stop:
            yield block[:stop]
        rest = block[stop:]
    if rest:
        yield rest


def _last_line_end(block: bytes) -> int:
    """The place behind the last line that is whole; 0 if there is none."""
    stop = block.rfind(b"\n") + 1
    if b'"' in block:
        while stop and block.count(b'"', 0, stop) % 2:
            stop = block.rfind(b"\n", 0, stop - 1) + 1
    return stop


def _first_line_end(block: bytes) -> int:
    """The place behind the first line."""
    stop = block.find(b"\n") + 1
    while stop and block.count(b'"', 0, stop) % 2:
        stop = block.find(b"\n", stop) + 1
    return stop or len(block)


def _find_empty_line(block: bytes, line: int) -> int | None:
    """The number of the first line that is empty."""
    if b"\n\n" not in block and b"\n\r\n" not in block and block[:1] not in b"\r\n":
        return None
    for found in _EMPTY_LINE.finditer(block):
        before = block[: found.start()]
        if before.count(b'"') % 2 == 0:
            return line + _count_breaks(before)
    return None


def _count_breaks(block: bytes) -> int:
    """Line breaks of a block that are not inside quotes."""
    if b'"' in block:
        block = b"".join(block.split(b'"')[::2])
    return block.count(b"\n")
