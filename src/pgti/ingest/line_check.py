"""Checking, while a text file streams by, that every line has as many cells as the first."""

import io
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pgti.errors import DataError

__all__ = ["CheckedLines"]

_NEWLINE, _RETURN, _QUOTE = 10, 13, 34


class CheckedLines(io.RawIOBase):
    """A binary stream that hands its bytes on and refuses ragged or empty lines.

    pandas fills short lines with NaN without a word, so that a line which lost its end would
    become missing readings. Counting delimiters here costs little beside parsing.

    Args:
        file: the stream, at its beginning.
        delimiter: one ASCII character.
        num_cells: cells that every line must have.
        name: what messages call the file.
    """

    def __init__(self, file: BinaryIO, delimiter: str, num_cells: int, name: str) -> None:
        super().__init__()
        self._file = file
        self._delimiter = ord(delimiter)
        self._expected = num_cells - 1
        self._name = name
        self._line = 1
        self._delimiters = 0  # in the line that is not complete yet
        self._length = 0  # of that line
        self._in_quotes = False
        self._empty_line: int | None = None

    def readable(self) -> bool:
        """It is read from, never written."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # any writable buffer comes as a memoryview
        """Hand on what the file gives, once its lines have been counted."""
        block = self._file.read(len(buffer))
        if block:
            self._count(np.frombuffer(block, dtype=np.uint8))
        elif self._length:
            self._check(np.array([self._delimiters]), np.array([self._length]))
            self._length = 0
        buffer[: len(block)] = block
        return len(block)

    def _count(self, block: NDArray[np.uint8]) -> None:
        newlines = np.flatnonzero(block == _NEWLINE)
        delimiters = np.flatnonzero(block == self._delimiter)
        quotes = np.flatnonzero(block == _QUOTE)
        if len(quotes) or self._in_quotes:
            newlines = newlines[~self._quoted(newlines, quotes)]
            delimiters = delimiters[~self._quoted(delimiters, quotes)]
            self._in_quotes ^= bool(len(quotes) % 2)
        if not len(newlines):
            self._delimiters += len(delimiters)
            self._length += len(block)
            return
        before = np.searchsorted(delimiters, newlines)
        counts = np.diff(before, prepend=0)
        counts[0] += self._delimiters
        lengths = np.diff(newlines, prepend=-1) - 1
        lengths[0] += self._length
        ends_in_return = (newlines > 0) & (block[newlines - 1] == _RETURN)
        self._check(counts, lengths - ends_in_return)
        self._delimiters = len(delimiters) - int(before[-1])
        self._length = len(block) - int(newlines[-1]) - 1

    def _quoted(self, places: NDArray[np.intp], quotes: NDArray[np.intp]) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = (np.searchsorted(quotes, places) + self._in_quotes) % 2 == 1
        return inside

    def _check(self, counts: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        empty = lengths <= 0
        filled = np.flatnonzero(~empty)
        if empty.any() and self._empty_line is None:
            self._empty_line = self._line + int(np.flatnonzero(empty)[0])
        # Empty lines may end a file; between lines they would shift the time of what follows.
        if self._empty_line is not None and len(filled):
            last = self._line + int(filled[-1])
            if last > self._empty_line:
                raise DataError(
                    f"line {self._empty_line} of {self._name} is empty: write NaN for missing "
                    "readings, or remove the line"
                )
        ragged = filled[counts[filled] != self._expected]
        if len(ragged):
            line = int(ragged[0])
            raise DataError(
                f"line {self._line + line} of {self._name} has {counts[line] + 1} cells and the "
                f"first line has {self._expected + 1}: every line must have as many"
            )
        self._line += len(counts)
