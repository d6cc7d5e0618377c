"""The rows of a table that holds a graph: a text file, a Parquet file or a frame in memory."""

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import DataError, option
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import decoded, reraise_read_errors
from pgti.ingestion.tables.cells import is_number
from pgti.ingestion.tables.text_files import check_utf8
from pgti.ingestion.tables.text_lines import open_utf8

__all__ = ["GraphTable", "arrow_rows", "frame_rows", "parquet_rows", "text_rows"]

_NARROW = 4  # columns of a list of edges: two ends, or two names and two ids, and a value
_PIECE_BYTES = 1 << 20
_WITH_COMMA = re.compile(r"[+-]?\d*,\d+")
_THOUSANDS = re.compile(r"[+-]?\d{1,3},\d{3}")


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphTable:
    """A table, small enough for memory, as text.

    Attributes:
        name: what messages call it.
        header: titles of the columns, where it has them.
        rows: the cells, all rows with as many.
        first_line: number of the line that holds row 0, where the table is a text file.
        decimal: decimal sign of its numbers; None accepts commas where they can be nothing else.
    """

    name: str
    header: tuple[str, ...] | None
    rows: list[list[str]]
    first_line: int | None = None
    decimal: str | None = "."

    @property
    def width(self) -> int:
        """Columns."""
        return len(self.rows[0])

    def line(self, row: int) -> str:
        """What messages call a row."""
        return f"row {row}" if self.first_line is None else f"line {row + self.first_line}"

    def column(self, names: tuple[str, ...]) -> int | None:
        """Position of the first of the names in the header."""
        known = [title.strip().lower() for title in self.header or ()]
        return next((known.index(name.lower()) for name in names if name.lower() in known), None)

    def named(self, title: str) -> int:
        """Position of a column that the user names; by its number from 1 without a header."""
        if self.header is None and title.isdecimal() and 1 <= int(title) <= self.width:
            return int(title) - 1
        column = self.column((title,))
        if column is None:
            known = f"no header, and columns 1 to {self.width}"
            known = known if self.header is None else ", ".join(self.header)
            raise DataError(f"{self.name} has no column {title!r}; it has {known}")
        return column

    def pair(
        self, named: tuple[str, ...], usual: tuple[tuple[str, ...], ...]
    ) -> tuple[int, int] | None:
        """Positions of the two columns that the user names, or of the usual names."""
        if named:
            return self.named(named[0]), self.named(named[1])
        first, second = (self.column(names) for names in usual)
        return None if first is None or second is None else (first, second)

    def numbers(self, column: int) -> NDArray[np.float64]:
        """A column as floats [rows]; refuses the first cell that is not a number."""
        cells = [row[column].strip() for row in self.rows]
        has_commas = self.decimal == "," or (self.decimal is None and _are_decimals(cells))
        values = np.empty(len(cells))
        for row, cell in enumerate(cells):
            try:
                values[row] = float(cell.replace(",", ".") if has_commas else cell)
            except ValueError:
                hint = ""
                if _WITH_COMMA.fullmatch(cell):
                    hint = f"; {option('decimal', ',')} reads decimal commas"
                raise DataError(
                    f"{self.line(row)}, column {column + 1} of {self.name} holds "
                    f"{self.rows[row][column]!r}: it must be a number{hint}"
                ) from None
        return values

    def ids(self, column: int) -> tuple[str, ...]:
        """A column as ids, without the ".0" that spreadsheets put behind whole numbers."""
        texts = [cells[column].strip() for cells in self.rows]
        return tuple(
            text.removesuffix(".0") if text.removesuffix(".0").isdecimal() else text
            for text in texts
        )


def _are_decimals(cells: list[str]) -> bool:
    """Whether commas are decimal signs: some cells have one, which cannot part thousands."""
    with_comma = [cell for cell in cells if "," in cell]
    return (
        bool(with_comma)
        and all(_WITH_COMMA.fullmatch(cell) for cell in with_comma)
        and not all(_THOUSANDS.fullmatch(cell) for cell in with_comma)
        and not any("." in cell for cell in cells)
    )


def text_rows(path: Path, options: IngestOptions, known_ids: frozenset[str]) -> GraphTable:
    """The rows of a text file.

    Args:
        path: the file.
        options: delimiter, encoding and decimal sign.
        known_ids: ids of the sensors of the readings, which are no titles.

    Raises:
        DataError: if it is damaged, empty, or its lines have different numbers of cells.
    """
    name = path.name
    pieces = []
    with reraise_read_errors(name, "a table of text"), open_utf8(path, options.encoding) as text:
        while piece := text.read(_PIECE_BYTES):
            pieces.append(piece)
        content = b"".join(pieces)
        check_utf8(content, name)
        decoded = content.decode()
        if not decoded.strip():
            raise DataError(f"{name} is empty: there are no rows")
        beginning = decoded.lstrip("\r\n")
        delimiter = options.graph_delimiter or _find_delimiter(beginning.splitlines()[0])
        reader = csv.reader(io.StringIO(decoded, newline=""), delimiter=delimiter)
        lines = [row for row in reader if row]
    header = tuple(lines.pop(0)) if _has_header(lines, known_ids) else None
    decimal = options.decimal or ("." if delimiter == "," else None)
    first_line = 1 + (header is not None)
    return _checked(
        GraphTable(name=name, header=header, rows=lines, first_line=first_line, decimal=decimal)
    )


def parquet_rows(path: Path) -> GraphTable:
    """The rows of a Parquet file.

    Raises:
        DataError: if it is damaged or empty.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415 - it takes a while

    with reraise_read_errors(path.name, "Parquet"):
        return arrow_rows(pq.read_table(path), path.name)


def arrow_rows(table: Any, name: str) -> GraphTable:
    """The rows of an Arrow table, or of a frame that gives its columns as Arrow does.

    Raises:
        DataError: if it is empty.
    """
    import pyarrow as pa  # noqa: PLC0415 - it takes a while

    table = pa.table(table)
    columns = [column.to_pylist() for column in table.columns]
    return _from_columns(name, table.column_names, columns)


def frame_rows(frame: Any, name: str) -> GraphTable:
    """The rows of a pandas DataFrame, with its index as the first column unless it counts them.

    Raises:
        DataError: if it is empty, or has several levels of columns or of rows.
    """
    if frame.columns.nlevels > 1 or frame.index.nlevels > 1:
        raise DataError(f"{name} has several levels of rows or columns: give it one of each")
    titles = [str(title) for title in frame.columns]
    columns = [frame.iloc[:, place].tolist() for place in range(len(titles))]
    if type(frame.index).__name__ != "RangeIndex":
        titles.insert(0, str(frame.index.name or ""))
        columns.insert(0, frame.index.tolist())
    return _from_columns(name, titles, columns)


def _from_columns(name: str, titles: Sequence[str], columns: list[list[Any]]) -> GraphTable:
    rows = [list(map(_cell_text, row)) for row in zip(*columns, strict=True)]
    return _checked(GraphTable(name=name, header=tuple(titles), rows=rows))


def _cell_text(cell: Any) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "nan"
    return decoded(cell) if isinstance(cell, bytes) else str(cell)


def _checked(table: GraphTable) -> GraphTable:
    if not table.rows:
        has = "a header and no rows" if table.header else "no rows"
        raise DataError(f"{table.name} has {has}: a graph file needs at least one")
    width = len(table.header if table.header is not None else table.rows[0])
    for row, cells in enumerate(table.rows):
        if len(cells) != width:
            raise DataError(
                f"{table.line(row)} of {table.name} has {count_of(len(cells), 'cell')} and the "
                f"first has {width}: every line must have as many"
            )
    return table


def _find_delimiter(line: str) -> str:
    """What stands between the cells; blanks only where nothing else does, for names have some."""
    outside_quotes = "".join(line.split('"')[::2])
    best = max((",", "\t", ";"), key=outside_quotes.count)
    return best if best in outside_quotes else " "


def _has_header(lines: list[list[str]], known_ids: frozenset[str]) -> bool:
    """Whether words, ids after a blank, or ids in a line too many for a square come first."""
    first = [cell.strip() for cell in lines[0]]
    body = [[cell.strip() for cell in line] for line in lines[1:]]
    if first[0] == "":
        return True
    if not all(is_number(cell) for cell in first):
        is_matrix = [line[0] for line in body] == first[1:] and all(
            is_number(cell) for line in body for cell in line[1:]
        )
        if len(first) > _NARROW or is_matrix:
            return True
        # A list whose ends are names: a title is neither a number nor the id of a sensor.
        if any(is_number(cell) for cell in first):
            return False
        labels = [place for place, cell in enumerate(first) if cell in known_ids]
        second = body[0] if body else first
        return len(labels) < 2 or not all(second[place] in known_ids for place in labels)
    could_be_ids = all(cell.isdecimal() for cell in first) and len(set(first)) == len(first)
    return could_be_ids and len(first) > 3 and len(lines) == len(first) + 1
