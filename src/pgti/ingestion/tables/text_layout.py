"""The layout of a text file, as its first lines show it: delimiter, header, columns of times."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from pgti.display import count_of
from pgti.errors import DataError
from pgti.ingestion.cleaning import numeric_codes
from pgti.ingestion.contents import NoRowsError
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import ids_to_text, reraise_read_errors
from pgti.ingestion.tables.cells import MISSING_WORDS, Numerals
from pgti.ingestion.tables.table import ColumnKind
from pgti.ingestion.tables.text_header import find_header, find_level_lines
from pgti.ingestion.tables.text_lines import first_lines
from pgti.ingestion.times.texts import is_date

__all__ = ["TextLayout", "find_layout"]

_FORMAT = "a table of text"
_SAMPLE_LINES = 20
_EXCEL_HINT = re.compile(r'"?sep=."?', re.IGNORECASE)
_BLANKS = re.compile(r"[ \t]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextLayout:
    """Where things are in a text file, and how its cells are written.

    Attributes:
        delimiter: between cells; a blank stands for any number of them.
        numerals: how numbers are written.
        titles: of the columns; None where the first line is data.
        kinds: what the columns hold.
        sample: cells of the first lines of data.
        sample_bytes: characters of those lines.
        first_line: number of the line of row 0.
        levels: labels of each column in two header lines, if it has them.
        notes: lines that were left out.
    """

    delimiter: str
    numerals: Numerals
    titles: tuple[str, ...] | None
    kinds: tuple[ColumnKind, ...]
    sample: tuple[tuple[str, ...], ...]
    sample_bytes: int
    first_line: int
    levels: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def column(self, place: int) -> str:
        """What messages call a column: "column 3 (flow)"."""
        return f"column {place + 1}" + ("" if self.titles is None else f" ({self.titles[place]})")


def find_layout(path: Path, options: IngestOptions) -> TextLayout:
    """The layout of a table in a text file, from the options and its first lines.

    Raises:
        DataError: if the file is empty, or its first lines could be read in several ways.
    """
    name = path.name
    lines, num_comments = _uncommented_lines(path, options)
    delimiter = options.delimiter or _find_delimiter(lines)
    with reraise_read_errors(name, _FORMAT):
        rows = [row for row in _split_cells(lines, delimiter) if row]
    missing = (*MISSING_WORDS, *(code for code in options.missing if isinstance(code, str)))
    numerals = Numerals(missing=missing, codes=numeric_codes(options.missing))
    decimal = options.decimal or _find_decimal(rows, delimiter, numerals, name)
    numerals = replace(numerals, decimal=decimal or ".", is_certain=decimal is not None)
    notes = []
    num_levels = find_level_lines(rows, options, numerals)
    has_header = num_levels > 0 or find_header(rows, options, numerals, name)
    first = num_levels or int(has_header)
    titles = ids_to_text([cell.strip() for cell in rows[0]]) if has_header else None
    if num_levels:
        index = rows[2][0].strip() if num_levels > 2 else ""
        pairs = zip(rows[0][1:], rows[1][1:], strict=True)
        titles = (index, *(" / ".join(pair) for pair in pairs))
    elif has_header and _is_units_row(rows, numerals):
        first = 2
        units = ", ".join(cell for cell in rows[1] if cell.strip())
        notes.append(
            f"line {num_comments + 2} of {name} ({units[:60]}) says what the columns hold and was "
            "left out"
        )
    width = len(rows[0])
    body = tuple(row for row in rows[first:] if len(row) == width)
    if len(rows) == first:
        raise NoRowsError(f"{name} has a header and no rows: a table needs at least one")
    if not body:
        hint = "; remove lines above the header, or let them begin with #"
        raise DataError(
            f"line {num_comments + first + 1} of {name} has {count_of(len(rows[first]), 'cell')} "
            f"and the first has {width}: every line must have as many"
            f"{hint if width < len(rows[first]) else ''}"
        )
    columns = zip(*body, strict=True)
    return TextLayout(
        delimiter=delimiter,
        numerals=numerals,
        titles=titles,
        levels=tuple((a.strip(), b.strip()) for a, b in zip(*rows[:2], strict=True))
        if num_levels
        else (),
        kinds=tuple("number" if numerals.are_numbers(cells) else "text" for cells in columns),
        sample=body,
        sample_bytes=sum(map(len, lines[first:])),
        first_line=1 + first + num_comments,
        notes=tuple(notes),
    )


def _uncommented_lines(path: Path, options: IngestOptions) -> tuple[list[str], int]:
    """The first lines below the comments at the beginning, and the number of those.

    A comment may be the header: it has as many cells as the line below it then.
    """
    count = _SAMPLE_LINES
    while True:
        lines = first_lines(path, count, options.encoding)
        comments = list(takewhile(_is_comment, lines))
        if len(lines) < count or len(lines) - len(comments) >= _SAMPLE_LINES:
            break
        count = len(comments) + _SAMPLE_LINES
    body = lines[len(comments) :]
    if not body:
        raise DataError(
            f"{path.name} has {count_of(len(comments), 'line')} of comments and no rows"
        )
    if comments:
        header = comments[-1].lstrip().removeprefix("#").strip()
        delimiter = options.delimiter or _find_delimiter(body)
        (titles,), (cells,) = (list(_split_cells([line], delimiter)) for line in (header, body[0]))
        is_hint = _EXCEL_HINT.fullmatch(comments[-1]) is not None
        if len(titles) == len(cells) > 1 and "#" not in header and not is_hint:
            return [header, *body], len(comments) - 1
    return body, len(comments)


def _is_comment(line: str) -> bool:
    """Whether a line is a comment, or tells Excel the delimiter."""
    return line.lstrip().startswith("#") or _EXCEL_HINT.fullmatch(line) is not None


def _split_cells(lines: list[str], delimiter: str) -> Iterator[tuple[str, ...]]:
    if delimiter == " ":
        lines = [_BLANKS.sub(" ", line).strip(" ") for line in lines]
    yield from map(tuple, csv.reader(lines, delimiter=delimiter))


def _find_delimiter(lines: list[str]) -> str:
    """The delimiter that occurs as often in every line, outside quotes; else in the first."""
    unquoted = ["".join(line.split('"')[::2]) for line in lines if line]
    # Commas may be decimal signs; other delimiters are rare in a file that is not theirs.
    for delimiter in ("\t", ";", "|", ","):
        counts = {line.count(delimiter) for line in unquoted}
        if len(counts) == 1 and counts != {0}:
            return delimiter
    if all(line.count(delimiter) == 0 for line in unquoted for delimiter in "\t;|,"):
        counts = {len(line.split()) for line in unquoted}
        if len(counts) == 1 and counts != {1}:
            return " "
    return max((",", "\t", ";"), key=unquoted[0].count)


def _find_decimal(
    rows: list[tuple[str, ...]], delimiter: str, numerals: Numerals, name: str
) -> str | None:
    cells = [cell for row in (rows[1:] or rows) for cell in row]
    may_group_by_dots = delimiter in ";\t"
    if delimiter == "," and not any("," in cell for cell in cells):
        return None
    return numerals.find_decimal(cells, name, may_group_by_dots=may_group_by_dots)


def _is_units_row(rows: list[tuple[str, ...]], numerals: Numerals) -> bool:
    """Whether the line below the header says what the columns hold, such as their units."""
    below = [row for row in rows[2:] if len(row) == len(rows[0])]
    if not below or len(rows[1]) != len(rows[0]):
        return False
    if any(numerals.value(cell) is not None for cell in rows[1]):
        return False
    numbers = [
        place
        for place in range(len(rows[0]))
        if all(numerals.is_number(row[place]) for row in below)
    ]
    cells = [rows[1][place].strip() for place in numbers]
    words = [cell for cell in cells if not numerals.is_missing(cell)]
    others = [rows[1][place] for place in range(len(rows[0])) if place not in set(numbers)]
    # A code for missing readings recurs below; a unit does not stand in a column of dates.
    return (
        len(words) > 0
        and len(words) == len(cells)
        and not any(map(is_date, others))
        and all(any(letter.isalpha() or letter in "%°" for letter in word) for word in words)
    )
