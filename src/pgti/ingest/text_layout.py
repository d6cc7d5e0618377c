"""Finding out how a text file of readings is laid out, from its first lines."""

import csv
import gzip
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, cast

from pgti.errors import DataError
from pgti.ingest.options import IngestOptions
from pgti.ingest.readings import reading
from pgti.ingest.time_column import FirstColumn, epoch_unit, first_column

__all__ = ["MISSING_CELLS", "TextLayout", "find_layout", "first_lines", "is_number", "open_text"]

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
    with reading(name, "text"), open_text(path) as binary:
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
    with reading(name, "a table of text"):
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
    return cell not in MISSING_CELLS and is_number(cell) and epoch_unit(float(cell)) is not None


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
