"""The lines of a text file, and blocks of whole lines."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from pgti.errors import DataError
from pgti.ingestion.readings import reraise_read_errors
from pgti.ingestion.tables.text_files import Utf8, check_utf8, find_encoding, open_text

__all__ = ["first_lines", "open_utf8", "read_blocks", "squeeze_blanks"]

_MAX_LINE_BYTES = 64 << 20
_BEGINNING_BYTES = 1 << 16
_BLANKS = re.compile(rb"[ \t]+")
_END_BLANKS = re.compile(rb"^ | (?=\r?$)", re.MULTILINE)
_EMPTY_LINE = re.compile(rb"^\r?\n", re.MULTILINE)


def first_lines(path: Path, count: int, encoding: str | None = None) -> list[str]:
    """The first lines of a text file without their ends; fewer if it has fewer.

    A line break inside quotes does not end a line.

    Args:
        path: the file, which may be compressed.
        count: of lines.
        encoding: that the user names.

    Raises:
        DataError: if it does not exist, is empty or is not text.
    """
    name = path.name
    lines: list[str] = []
    with open_utf8(path, encoding) as text:
        for block in _whole_lines(text, name, _BEGINNING_BYTES):
            place = 0
            while place < len(block) and len(lines) < count:
                stop = _line_end(block, place)
                lines.append(block[place:stop].decode().rstrip("\r\n"))
                place = stop
            if len(lines) >= count:
                break
    if not any(lines):
        raise DataError(f"{name} is empty: there are no rows")
    return lines


@contextlib.contextmanager
def open_utf8(path: Path, encoding: str | None) -> Iterator[Utf8]:
    """Open a text file, compressed or not, as UTF-8.

    Args:
        path: the file.
        encoding: that the user names.

    Raises:
        DataError: if it is not text, also while it is read in the context.
    """
    with reraise_read_errors(path.name, "text"):
        with open_text(path) as file:
            beginning = file.read(_BEGINNING_BYTES)
        found = find_encoding(beginning, path.name, encoding)
        has_returns = b"\r" in beginning and b"\n" not in beginning
        with open_text(path) as file:
            yield Utf8(file, found, path.name, has_returns=has_returns)


def read_blocks(
    file: Utf8, name: str, block_bytes: int, skipped: int
) -> Iterator[tuple[bytes, int]]:
    """Blocks of whole lines, and the number of each one's first line, from 1.

    A line break inside quotes does not end a line, as in CSV. Empty lines may end a file.

    Args:
        file: from its beginning.
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
            block = block[_line_end(block, 0) :]
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


def squeeze_blanks(block: bytes) -> bytes:
    """Lines with one blank in place of several outside quotes, and none at their ends."""
    parts = block.split(b'"')
    parts[::2] = [_BLANKS.sub(b" ", part) for part in parts[::2]]
    return _END_BLANKS.sub(b"", b'"'.join(parts))


def _whole_lines(file: Utf8, name: str, block_bytes: int) -> Iterator[bytes]:
    """Blocks that end where a line does."""
    rest = b""
    while block := file.read(max(block_bytes, len(rest))):  # a long line is copied a few times
        block = rest + block
        stop = _last_line_end(block)
        if not stop and len(block) > _MAX_LINE_BYTES:
            raise DataError(
                f"{name} has a line of more than {_MAX_LINE_BYTES >> 20} MiB: break it into rows, "
                "or close the quote that is open"
            )
        if stop:
            yield _checked(block[:stop], name)
        rest = block[stop:]
    if rest:
        yield _checked(rest, name)


def _checked(block: bytes, name: str) -> bytes:
    if not block.isascii():
        check_utf8(block, name)
    return block


def _last_line_end(block: bytes) -> int:
    """The place behind the last line that is whole; 0 if there is none."""
    stop = block.rfind(b"\n") + 1
    if b'"' in block:
        while stop and block.count(b'"', 0, stop) % 2:
            stop = block.rfind(b"\n", 0, stop - 1) + 1
    return stop


def _line_end(block: bytes, start: int) -> int:
    """The place behind the line that starts at a place."""
    stop = block.find(b"\n", start) + 1
    while stop and block.count(b'"', start, stop) % 2:
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
