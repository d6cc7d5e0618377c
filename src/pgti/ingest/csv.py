"""Readings in CSV and TSV files, compressed or not: a column for each sensor."""

import csv
import gzip
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.errors import DataError
from pgti.ingest.options import IngestOptions
from pgti.ingest.readings import Chunk, Readings, ids_to_text, reraise_read_errors, rows_per_chunk
from pgti.ingest.time_columns import (
    EpochTimes,
    FirstColumn,
    TextTimes,
    find_epoch_unit,
    first_column,
)

__all__ = [
    "MISSING_CELLS",
    "CheckedLines",
    "TextLayout",
    "find_layout",
    "first_lines",
    "is_number",
    "open_csv",
    "open_text",
]

MISSING_CELLS = (
    *("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "-nan", "-NaN"),
    *("null", "NULL", "Null", "None", "none"),
)
_SAMPLE_LINES = 20
_MAX_LINE_BYTES = 64 << 20
_MIN_COUNTED_IDS = 8  # fewer readings may well rise 0, 1, 2, ...
_MIN_ID, _ID_FACTOR = 1000, 10  # ids that are far above every reading
_DATE = re.compile(r"\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(\D.*)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextLayout:
    """Where things stand in a text file.

    Args:
        delimiter: what separates cells.
        num_cells: cells of each line.
        cells: the first line, if it is a header.
        has_times: whether the first column holds times.
        has_row_numbers: whether the first column only counts the rows 0, 1, 2, ...
        first_time: the first time as written, if there are times.
    """

    delimiter: str
    num_cells: int
    cells: tuple[str, ...] | None
    has_times: bool
    has_row_numbers: bool
    first_time: str | None

    @property
    def num_leading(self) -> int:
        """Columns before the readings."""
        return int(self.has_times or self.has_row_numbers)

    @property
    def num_header_lines(self) -> int:
        """Lines before the readings."""
        return 0 if self.cells is None else 1


def open_text(path: Path) -> BinaryIO:
    """Open a text file as bytes, decompressed if its name ends in `.gz`."""
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def first_lines(path: Path, count: int) -> list[str]:
    """The first lines of a file, as text; fewer if it has fewer.

    Raises:
        DataError: if it does not exist, is empty or holds no text.
    """
    name = path.name
    with reraise_read_errors(name, "text"), open_text(path) as binary:
        lines: list[str] = []
        with io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as text:
            while len(lines) < count and (line := text.readline(_MAX_LINE_BYTES)):
                lines.append(line.rstrip("\r\n"))
    if not any(lines):
        raise DataError(f"{name} is empty: there are no rows")
    if any("\0" in line for line in lines):
        raise DataError(f"{name} is not text (it holds NUL bytes): give the file its right suffix")
    return lines


def is_number(cell: str) -> bool:
    """Whether a cell is a number (missing and infinite included)."""
    if cell.strip() in MISSING_CELLS:
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True


def find_layout(path: Path, options: IngestOptions) -> TextLayout:
    """The layout of a file of readings, as forced by the options or as its first lines show.

    Raises:
        DataError: if the file is empty, or it cannot be told whether the first line is a header.
    """
    lines = first_lines(path, _SAMPLE_LINES)
    delimiter = options.delimiter or _delimiter(lines[0])
    name = path.name
    with reraise_read_errors(name, "a table of text"):
        rows = [tuple(row) for row in csv.reader(lines, delimiter=delimiter) if row]
    times_column = [row[0] for row in rows[1:]] or [rows[0][0]]
    dated = options.time_format is not None or all(_DATE.fullmatch(cell) for cell in times_column)
    dated = dated and options.timestamps is not False
    has_header = _has_header(rows, dated, options, name)
    body = rows[1:] if has_header else rows
    if not body:
        raise DataError(f"{name} has a header and no rows: a series needs at least one")
    title = rows[0][0] if has_header else None
    kind: FirstColumn = "times"
    if not dated:
        kind = first_column(name, title, _numbers(row[0] for row in body), options.timestamps)
    layout = TextLayout(
        delimiter=delimiter,
        num_cells=len(rows[0]),
        cells=rows[0] if has_header else None,
        has_times=kind == "times",
        has_row_numbers=kind == "rows",
        first_time=body[0][0].strip() if kind == "times" else None,
    )
    if layout.num_cells == layout.num_leading:
        raise DataError(f"{name} has no column of readings (delimiter {delimiter!r}): give one")
    return layout


def _numbers(cells: Iterable[str]) -> list[float]:
    """Cells as numbers; empty if one of them is none."""
    texts = [cell.strip() for cell in cells]
    if any(text in MISSING_CELLS or not is_number(text) for text in texts):
        return []
    return [float(text) for text in texts]


def _delimiter(line: str) -> str:
    outside_quotes = "".join(line.split('"')[::2])
    return max((",", "\t", ";"), key=outside_quotes.count)


def _has_header(
    rows: list[tuple[str, ...]], dated: bool, options: IngestOptions, name: str
) -> bool:
    if options.header is not None:
        return options.header
    leading = int(dated or bool(options.timestamps))
    if leading and _is_time(rows[0][0].strip(), options):
        return False
    cells, body = rows[0][leading:], [row[leading:] for row in rows[1:]]
    if not all(is_number(cell) for cell in cells):
        if not any(_is_decimal(cell) for cell in cells):
            return True
    elif leading:
        return True  # no time stands where the rows below have one
    elif not _could_be_ids(cells):
        return False
    elif _look_like_ids(cells, body):
        return True
    raise DataError(
        f"it cannot be told whether the first line of {name} ({', '.join(cells[:3])}, ...) holds "
        "sensor ids or readings: say so with --header or --no-header"
    )


def _is_time(cell: str, options: IngestOptions) -> bool:
    """Whether the first line begins with a time, so that it is no header."""
    if options.time_format is not None:
        try:
            datetime.strptime(cell, options.time_format)
        except ValueError:
            return False
        return True
    if _DATE.fullmatch(cell):
        return True
    return (
        cell not in MISSING_CELLS and is_number(cell) and find_epoch_unit(float(cell)) is not None
    )


def _is_decimal(cell: str) -> bool:
    return is_number(cell) and not cell.strip().isdecimal() and cell.strip() not in MISSING_CELLS


def _could_be_ids(cells: tuple[str, ...]) -> bool:
    texts = [cell.strip() for cell in cells]
    # pandas writes an empty cell above row numbers.
    texts = texts[1:] if texts[0] == "" else texts
    return bool(texts) and all(text.isdecimal() for text in texts) and len(set(texts)) == len(texts)


def _look_like_ids(cells: tuple[str, ...], body: list[tuple[str, ...]]) -> bool:
    """Whether whole numbers are sensor ids: counted, unlike the readings, or far above them."""
    if cells[0].strip() == "":
        return bool(body) and [row[0].strip() for row in body] == [
            str(row) for row in range(len(body))
        ]
    ids = [int(cell) for cell in cells]
    if len(ids) >= _MIN_COUNTED_IDS and ids == list(range(len(ids))):
        return True
    texts = [cell for row in body for cell in row if cell.strip() not in MISSING_CELLS]
    values = [abs(float(cell)) for cell in texts if is_number(cell)]
    if not values:
        return False
    if any(_is_decimal(cell) for cell in texts):
        return True
    return min(ids) >= _MIN_ID and min(ids) >= _ID_FACTOR * max(values)


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


_READ_BYTES = 1 << 20
_PARSER_COPIES = 3  # pandas holds a chunk's text, its columns and their join at the same time


def open_csv(path: Path, options: IngestOptions) -> Readings:
    """Readings in a text file, one line a row and one column a sensor.

    Raises:
        DataError: if the file is empty, or its layout cannot be told.
    """
    layout = find_layout(path, options)
    source = _TextSource(path, layout, options)
    leading = layout.num_leading
    return Readings(
        name=path.name,
        num_nodes=layout.num_cells - leading,
        num_channels=1,
        node_ids=None if layout.cells is None else ids_to_text(_stripped(layout.cells[leading:])),
        is_aware=source.times is not None and source.times.is_aware,
        time_zone=None if source.times is None else source.times.time_zone,
        row_label=source.row_label,
        chunks=source.chunks,
    )


def _stripped(cells: tuple[str, ...]) -> list[str]:
    return [cell.strip() for cell in cells]


class _TextSource:
    def __init__(self, path: Path, layout: TextLayout, options: IngestOptions) -> None:
        self._path = path
        self._layout = layout
        self.times: TextTimes | EpochTimes | None = None
        first, name = layout.first_time, path.name
        if first is None:
            return
        if options.time_format is None and is_number(first) and first not in MISSING_CELLS:
            self.times = EpochTimes(float(first), name, self.row_label)
            return
        self.times = TextTimes(
            first,
            time_format=options.time_format,
            name=name,
            label=self.row_label,
            time_zone=options.time_zone,
        )

    def row_label(self, row: int) -> str:
        return f"line {row + 1 + self._layout.num_header_lines}"

    def chunks(self, budget_bytes: int) -> Iterator[Chunk]:
        layout, name = self._layout, self._path.name
        rows = rows_per_chunk(budget_bytes // _PARSER_COPIES, layout.num_cells)
        first_row = 0
        with reraise_read_errors(name, "a table of text"), open_text(self._path) as file:
            checked = CheckedLines(file, layout.delimiter, layout.num_cells, name)
            frames = self._frames(io.BufferedReader(checked, _READ_BYTES), rows)
            while True:
                try:
                    frame = next(frames, None)
                except (DataError, pd.errors.ParserError):
                    raise
                except ValueError as error:
                    raise self._bad_cell(first_row, error) from error
                if frame is None:
                    return
                yield self._chunk(frame, first_row)
                first_row += len(frame)

    def _frames(self, file: io.BufferedReader, rows: int) -> Iterator[pd.DataFrame]:
        layout = self._layout
        leading = layout.num_leading
        # One dtype for all columns is read faster than one for each.
        dtypes: Any = np.float64
        if leading:
            dtypes = {0: str, **dict.fromkeys(range(leading, layout.num_cells), np.float64)}
        yield from pd.read_csv(
            file,
            sep=layout.delimiter,
            header=None,
            names=list(range(layout.num_cells)),
            index_col=False,
            skiprows=layout.num_header_lines,
            dtype=dtypes,
            na_values=list(MISSING_CELLS),
            keep_default_na=False,
            chunksize=rows,
            encoding="utf-8-sig",
            skipinitialspace=True,
        )

    def _chunk(self, frame: pd.DataFrame, first_row: int) -> Chunk:
        leading = self._layout.num_leading
        values = frame.iloc[:, leading:].to_numpy(dtype=np.float64, copy=True)
        seconds = None
        if self.times is not None:
            seconds = self.times.seconds(frame.iloc[:, 0], first_row)
        return Chunk(values=np.ascontiguousarray(values)[..., np.newaxis], seconds=seconds)

    def _bad_cell(self, first_row: int, error: ValueError) -> DataError:
        """Find the cell that pandas could not read, which it does not say: it is in this chunk."""
        layout, name = self._layout, self._path.name
        with open_text(self._path) as binary:
            text = io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
            lines = csv.reader(text, delimiter=layout.delimiter)
            for line, cells in enumerate(lines):
                if line < first_row + layout.num_header_lines:
                    continue
                for column, cell in enumerate(cells[layout.num_leading :]):
                    if not is_number(cell):
                        row = line - layout.num_header_lines
                        place = column + layout.num_leading
                        title = f"column {place + 1}"
                        if layout.cells is not None:
                            title += f" ({layout.cells[place].strip()})"
                        return DataError(
                            f"{self.row_label(row)}, {title} of {name} holds {cell!r}: it must "
                            "be a number, or empty or NaN where the reading is missing"
                        )
        return DataError(f"{name} cannot be read as a table of numbers: {error}")
