"""Readings in CSV and TSV files, compressed or not: a line for each row, a column for each sensor.

The first lines show the layout: delimiter, header, and whether the first column holds times.
"""

import codecs
import csv
import gzip
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pandas as pd

from pgti.display import count_of
from pgti.errors import DataError, option
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import (
    Chunk,
    Readings,
    ids_to_text,
    reraise_read_errors,
    rows_per_chunk,
)
from pgti.ingestion.time_columns import (
    ColumnTimes,
    EpochTimes,
    FirstColumn,
    NoTimes,
    TextTimes,
    classify_first_column,
    find_epoch_unit,
)
from pgti.ingestion.times import RowLabels

__all__ = ["first_lines", "is_number", "open_csv", "open_text"]

_MISSING_CELLS = (
    *("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "-nan", "-NaN"),
    *("null", "NULL", "Null", "None", "none"),
)
_FORMAT = "a table of text"
_PARSER_COPIES = 3  # pandas holds a chunk's text, its columns and their join at the same time
_SAMPLE_LINES = 20
_MAX_LINE_BYTES = 64 << 20
_MIN_COUNTED_IDS = 8  # fewer readings may well rise 0, 1, 2, ...
_MIN_ID, _ID_FACTOR = 1000, 10  # ids that are far above every reading
_DATE = re.compile(r"\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(\D.*)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """Where things are in a text file; `header` is None where the first line is readings."""

    delimiter: str
    num_cells: int
    header: tuple[str, ...] | None
    first_column: FirstColumn
    first_time: str  # of meaning where the first column holds times

    @property
    def num_leading(self) -> int:
        """Columns before the readings."""
        return int(self.first_column != "readings")

    @property
    def first_line(self) -> int:
        """Number of the line of row 0."""
        return 1 if self.header is None else 2


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
            while len(lines) < count and (line := text.readline(_MAX_LINE_BYTES)):
                lines.append(line.rstrip("\r\n"))
    if not any(lines):
        raise DataError(f"{name} is empty: there are no rows")
    if any("\0" in line for line in lines):
        raise DataError(f"{name} is not text (it holds NUL bytes): give the file its right suffix")
    return lines


def is_number(cell: str) -> bool:
    """Whether a cell is a number (missing and infinite included)."""
    if _is_missing(cell):
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_missing(cell: str) -> bool:
    return cell.strip() in _MISSING_CELLS


def open_csv(path: Path, options: IngestOptions) -> Readings:
    """Readings in a text file, one line a row and one column a sensor.

    Raises:
        DataError: if the file is empty, or its layout is ambiguous.
    """
    layout = _find_layout(path, options)
    labels = RowLabels(path.name, layout.first_line)
    leading = layout.num_leading
    times = _open_times(layout, options, labels)

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        rows = rows_per_chunk(budget_bytes // _PARSER_COPIES, layout.num_cells)
        first_row = 0
        with reraise_read_errors(path.name, _FORMAT), open_text(path) as file:
            lines = _checked_lines(file, layout, path.name)
            while block := list(islice(lines, rows)):
                frame = _parse(block, first_row, layout, labels)
                values = frame.iloc[:, leading:].to_numpy(dtype=np.float64, copy=True)
                seconds = times.seconds(frame.iloc[:, 0], first_row)
                yield Chunk(values=np.ascontiguousarray(values)[..., np.newaxis], seconds=seconds)
                first_row += len(block)

    ids = None
    if layout.header is not None:
        ids = ids_to_text([cell.strip() for cell in layout.header[leading:]])
    return Readings(
        name=path.name,
        num_nodes=layout.num_cells - leading,
        node_ids=ids,
        is_aware=times.is_aware,
        time_zone=times.time_zone,
        first_line=layout.first_line,
        chunks=chunks,
    )


def _open_times(layout: _Layout, options: IngestOptions, labels: RowLabels) -> ColumnTimes:
    first = layout.first_time
    if layout.first_column != "times":
        return NoTimes()
    if options.time_format is None and is_number(first) and not _is_missing(first):
        return EpochTimes(float(first), labels)
    return TextTimes(first, options, labels)


def _checked_lines(file: BinaryIO, layout: _Layout, name: str) -> Iterator[bytes]:
    """The lines below the header; ragged lines, and empty ones between others, are refused.

    pandas fills short lines with NaN silently, so that a line which lost its end would become
    missing readings.
    """
    delimiter, first_line = layout.delimiter.encode(), layout.first_line
    empty: int | None = None
    for number, line in enumerate(_logical_lines(file), start=1):
        if line in (b"\n", b"\r\n"):
            empty = empty or number  # empty lines may end a file
            continue
        if empty is not None:
            raise DataError(
                f"line {empty} of {name} is empty: write NaN for missing readings, or remove it"
            )
        unquoted = b"".join(line.split(b'"')[::2]) if b'"' in line else line
        num_cells = 1 + unquoted.count(delimiter)
        if num_cells != layout.num_cells:
            raise DataError(
                f"line {number} of {name} has {count_of(num_cells, 'cell')} and the first has "
                f"{layout.num_cells}: every line must have as many"
            )
        if number >= first_line:
            yield line if number > 1 else line.removeprefix(codecs.BOM_UTF8)


def _logical_lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines as CSV has them: a line break inside quotes does not end one."""
    while line := file.readline(_MAX_LINE_BYTES):
        while line.count(b'"') % 2 and len(line) < _MAX_LINE_BYTES and (rest := file.readline()):
            line += rest
        yield line


def _parse(
    lines: list[bytes], first_row: int, layout: _Layout, labels: RowLabels
) -> "pd.DataFrame":
    leading = layout.num_leading
    # One dtype for all columns is read faster than one for each.
    dtypes: Any = np.float64
    if leading:
        dtypes = {0: str, **dict.fromkeys(range(leading, layout.num_cells), np.float64)}
    try:
        return pd.read_csv(
            io.BytesIO(b"".join(lines)),
            sep=layout.delimiter,
            header=None,
            names=list(range(layout.num_cells)),
            index_col=False,
            dtype=dtypes,
            na_values=list(_MISSING_CELLS),
            keep_default_na=False,
            skip_blank_lines=False,
            skipinitialspace=True,
        )
    except pd.errors.ParserError:
        raise
    except ValueError as error:
        raise _bad_cell(lines, first_row, layout, labels, error) from error


def _bad_cell(
    lines: list[bytes], first_row: int, layout: _Layout, labels: RowLabels, error: ValueError
) -> DataError:
    """The cell that pandas could not read, which it does not name."""
    texts = [line.decode() for line in lines]
    for row, cells in enumerate(csv.reader(texts, delimiter=layout.delimiter), first_row):
        for column in range(layout.num_leading, len(cells)):
            if not is_number(cells[column]):
                title = "" if layout.header is None else f" ({layout.header[column].strip()})"
                return DataError(
                    f"{labels.short(row)}, column {column + 1}{title} of {labels.source} holds "
                    f"{cells[column]!r}: it must be a number, or empty or NaN where the reading is "
                    "missing"
                )
    return DataError(f"{labels.source} cannot be read as a table of numbers: {error}")


def _find_layout(path: Path, options: IngestOptions) -> _Layout:
    """The layout of a file of readings, from the options and its first lines.

    Raises:
        DataError: if the file is empty, or its first line could be a header or readings.
    """
    lines = first_lines(path, _SAMPLE_LINES)
    delimiter = options.delimiter or _find_delimiter(lines[0])
    name = path.name
    with reraise_read_errors(name, _FORMAT):
        rows = [tuple(row) for row in csv.reader(lines, delimiter=delimiter) if row]
    times_column = [row[0] for row in rows[1:]] or [rows[0][0]]
    dated = options.time_format is not None or all(_DATE.fullmatch(cell) for cell in times_column)
    dated = dated and options.timestamps is not False
    has_header = _has_header(rows, dated, options, name)
    body = rows[1:] if has_header else rows
    if not body:
        raise DataError(f"{name} has a header and no rows: a series needs at least one")
    kind: FirstColumn = "times"
    if not dated:
        title = rows[0][0] if has_header else None
        cells = [row[0] for row in body]
        are_numbers = all(is_number(cell) and not _is_missing(cell) for cell in cells)
        numbers = list(map(float, cells)) if are_numbers else []
        kind = classify_first_column(name, title, numbers, options.timestamps)
    layout = _Layout(
        delimiter=delimiter,
        num_cells=len(rows[0]),
        header=rows[0] if has_header else None,
        first_column=kind,
        first_time=body[0][0].strip(),
    )
    if layout.num_cells == layout.num_leading:
        raise DataError(f"{name} has no column of readings (delimiter {delimiter!r}): give one")
    return layout


def _find_delimiter(line: str) -> str:
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
        return True  # the first cell is not a time, unlike those below it
    elif not _could_be_ids(cells):
        return False
    elif _look_like_ids(cells, body):
        return True
    raise DataError(
        f"the first line of {name} ({', '.join(cells[:3])}, ...) could hold sensor ids or "
        f"readings: pass {option('header', value=True)} or {option('header', value=False)}"
    )


def _is_time(cell: str, options: IngestOptions) -> bool:
    """Whether the first line begins with a time, so that it is not a header."""
    if options.time_format is not None:
        try:
            datetime.strptime(cell, options.time_format)
        except ValueError:
            return False
        return True
    if _DATE.fullmatch(cell):
        return True
    return not _is_missing(cell) and is_number(cell) and find_epoch_unit(float(cell)) is not None


def _is_decimal(cell: str) -> bool:
    return is_number(cell) and not cell.strip().isdecimal() and not _is_missing(cell)


def _could_be_ids(cells: tuple[str, ...]) -> bool:
    texts = [cell.strip() for cell in cells]
    # pandas writes an empty cell above row numbers.
    texts = texts[1:] if texts[0] == "" else texts
    return bool(texts) and all(text.isdecimal() for text in texts) and len(set(texts)) == len(texts)


def _look_like_ids(cells: tuple[str, ...], body: list[tuple[str, ...]]) -> bool:
    """Whether whole numbers are sensor ids: counted, unlike the readings, or far above them."""
    if cells[0].strip() == "":
        return bool(body) and [row[0].strip() for row in body] == list(map(str, range(len(body))))
    ids = [int(cell) for cell in cells]
    if len(ids) >= _MIN_COUNTED_IDS and ids == list(range(len(ids))):
        return True
    texts = [cell for row in body for cell in row if not _is_missing(cell)]
    values = [abs(float(cell)) for cell in texts if is_number(cell)]
    if not values:
        return False
    if any(_is_decimal(cell) for cell in texts):
        return True
    return min(ids) >= _MIN_ID and min(ids) >= _ID_FACTOR * max(values)
