"""The layout of a text file, as its first lines show it: delimiter, header, columns of times."""

import csv
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pgti.errors import DataError, option
from pgti.ingestion.cells import is_missing, is_number
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import ids_to_text, reraise_read_errors
from pgti.ingestion.table_times import is_date
from pgti.ingestion.tables import ColumnKind
from pgti.ingestion.text_lines import first_lines
from pgti.ingestion.time_columns import find_epoch_unit

__all__ = ["TextLayout", "find_layout"]

_FORMAT = "a table of text"
_SAMPLE_LINES = 20
_MIN_COUNTED_IDS = 8  # fewer readings may well rise 0, 1, 2, ...
_MIN_ID, _ID_FACTOR = 1000, 10  # ids that are far above every reading


@dataclass(frozen=True, kw_only=True, slots=True)
class TextLayout:
    """Where things are in a text file.

    Attributes:
        delimiter: between cells.
        titles: of the columns; None where the first line is data.
        kinds: what the columns hold.
        sample: cells of the first lines of data.
        sample_bytes: characters of those lines.
        first_line: number of the line of row 0.
    """

    delimiter: str
    titles: tuple[str, ...] | None
    kinds: tuple[ColumnKind, ...]
    sample: tuple[tuple[str, ...], ...]
    sample_bytes: int
    first_line: int


def find_layout(path: Path, options: IngestOptions) -> TextLayout:
    """The layout of a table in a text file, from the options and its first lines.

    Raises:
        DataError: if the file is empty, or its first line could be a header or data.
    """
    lines = first_lines(path, _SAMPLE_LINES, options.encoding)
    delimiter = options.delimiter or _find_delimiter(lines[0])
    name = path.name
    with reraise_read_errors(name, _FORMAT):
        rows = [tuple(row) for row in csv.reader(lines, delimiter=delimiter) if row]
    times_column = [row[0] for row in rows[1:]] or [rows[0][0]]
    dated = options.time_format is not None or all(is_date(cell) for cell in times_column)
    dated = dated and options.timestamps is not False and not options.transpose
    has_header = _has_header(rows, dated, options, name)
    width = len(rows[0])
    body = tuple(row for row in rows[has_header:] if len(row) == width)
    if len(rows) == has_header:
        raise DataError(f"{name} has a header and no rows: a table needs at least one")
    return TextLayout(
        delimiter=delimiter,
        titles=ids_to_text([cell.strip() for cell in rows[0]]) if has_header else None,
        kinds=tuple(_kind([row[place] for row in body]) for place in range(width)),
        sample=body,
        sample_bytes=sum(map(len, lines[has_header:])),
        first_line=1 + has_header,
    )


def _kind(cells: list[str]) -> ColumnKind:
    return "number" if all(map(is_number, cells)) else "text"


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
    if is_date(cell):
        return True
    return not is_missing(cell) and is_number(cell) and find_epoch_unit(float(cell)) is not None


def _is_decimal(cell: str) -> bool:
    return is_number(cell) and not cell.strip().isdecimal() and not is_missing(cell)


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
    texts = [cell for row in body for cell in row if not is_missing(cell)]
    values = [abs(float(cell)) for cell in texts if is_number(cell)]
    if not values:
        return False
    if any(_is_decimal(cell) for cell in texts):
        return True
    return min(ids) >= _MIN_ID and min(ids) >= _ID_FACTOR * max(values)
