"""Graphs in text files: dense matrices, edge lists, tables of distances, coordinates."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import ConfigError, DataError, option
from pgti.ingestion.cells import is_number
from pgti.ingestion.edge_values import is_distance_name
from pgti.ingestion.options import GraphKind, IngestOptions
from pgti.ingestion.raw_graphs import RawCoordinates, RawEdges, RawGraph, RawMatrix
from pgti.ingestion.readings import ID_NAMES, Readings, ids_to_text, reraise_read_errors
from pgti.ingestion.text_files import open_text
from pgti.ingestion.text_lines import first_lines

__all__ = ["read_table_graph"]

_ENDS = (
    ("from", "source", "src", "from_id", "origin", "u", "i"),
    ("to", "target", "dst", "to_id", "destination", "v", "j"),
)
_WEIGHTS = ("weight", "w", "value", "weights")
_LATLON = (("latitude", "lat"), ("longitude", "lon", "lng", "long"))


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    header: tuple[str, ...] | None
    rows: list[list[str]]

    @property
    def width(self) -> int:
        return len(self.rows[0])

    def line(self, row: int) -> str:
        return f"line {row + 1 + (self.header is not None)}"

    def column(self, names: tuple[str, ...]) -> int | None:
        """Position of the first of the names in the header."""
        known = [title.strip().lower() for title in self.header or ()]
        return next((known.index(name.lower()) for name in names if name.lower() in known), None)

    def named(self, title: str) -> int:
        """Position of a column that the user names."""
        column = self.column((title,))
        if column is None:
            known = "no header" if self.header is None else ", ".join(self.header)
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
        values = np.empty(len(self.rows))
        for row, cells in enumerate(self.rows):
            try:
                values[row] = float(cells[column])
            except ValueError:
                raise DataError(
                    f"{self.line(row)}, column {column + 1} of {self.name} holds "
                    f"{cells[column]!r}: it must be a number"
                ) from None
        return values

    def ids(self, column: int) -> tuple[str, ...]:
        """A column as ids, without the ".0" that spreadsheets put behind whole numbers."""
        texts = [cells[column].strip() for cells in self.rows]
        return tuple(
            text.removesuffix(".0") if text.removesuffix(".0").isdecimal() else text
            for text in texts
        )


def read_table_graph(
    path: Path, options: IngestOptions, readings: Readings | None, ids_elsewhere: bool
) -> RawGraph:
    """A graph in a CSV or TSV file; its header, or else its shape, shows what it holds.

    The arguments are those of `read_raw_graph`.

    Raises:
        ConfigError: if options name columns that cannot be used.
        DataError: if the file is damaged, or could hold several kinds of graph.
    """
    table = _read(path, options)
    if len(options.edges) == 1:
        raise ConfigError(
            f"{option('edges')} names one column ({options.edges[0]}) of {table.name}: the rule is "
            "source,target or source,target,weight"
        )
    kind = options.graph_kind or _recognize_kind(table, options, readings)
    raw: RawGraph
    if kind == "matrix":
        raw = _matrix(table)
    else:
        raw = (_edges if kind == "edges" else _coordinates)(table, options)
    if options.ids is not None and not ids_elsewhere:
        if not isinstance(raw, RawCoordinates):
            raise ConfigError(
                f"{option('ids')} is {options.ids!r} and {path.name} holds no coordinates: leave "
                f"it out"
            )
        table.named(options.ids)
    return raw


def _read(path: Path, options: IngestOptions) -> _Table:
    name = path.name
    first = first_lines(path, 1)[0]
    delimiter = options.graph_delimiter or max((",", "\t", ";", " "), key=first.count)
    with reraise_read_errors(name, "a table of text"), open_text(path) as binary:
        text = io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
        lines = [row for row in csv.reader(text, delimiter=delimiter) if row]
    header = tuple(lines.pop(0)) if _has_header(lines) else None
    if not lines:
        raise DataError(f"{name} has a header and no rows: a graph file needs at least one")
    width = len(header if header is not None else lines[0])
    table = _Table(name, header, lines)
    for row, cells in enumerate(lines):
        if len(cells) != width:
            raise DataError(
                f"{table.line(row)} of {name} has {count_of(len(cells), 'cell')} and the first has "
                f"{width}: every line must have as many"
            )
    return table


def _has_header(lines: list[list[str]]) -> bool:
    """Whether words, ids after a blank, or ids in a line too many for a square come first."""
    first = [cell.strip() for cell in lines[0]]
    if first[0] == "" or not all(is_number(cell) for cell in first):
        return True
    could_be_ids = all(cell.isdecimal() for cell in first) and len(set(first)) == len(first)
    return could_be_ids and len(first) > 3 and len(lines) == len(first) + 1


def _recognize_kind(table: _Table, options: IngestOptions, readings: Readings | None) -> GraphKind:
    if table.pair(options.edges, _ENDS) is not None:
        return "edges"
    if table.pair(options.coordinates, _LATLON) is not None:
        return "coordinates"
    num_rows = len(table.rows)
    if table.header is None and table.width in (2, 3):
        if num_rows != table.width:
            return "edges"
        return _recognize_square(table, readings)
    if num_rows in (table.width, table.width - 1) and table.width > 3:
        return "matrix"
    titles = "no header" if table.header is None else f"the columns {', '.join(table.header[:6])}"
    raise DataError(
        f"{table.name} has {count_of(num_rows, 'row')} and {titles}: neither a square matrix, nor "
        f"from,to[,weight], nor latitude,longitude; use {option('graph_kind')}, {option('edges')} "
        f"or {option('coordinates')}"
    )


def _recognize_square(table: _Table, readings: Readings | None) -> GraphKind:
    """A headerless table of two or three rows and as many columns: edges or a matrix."""
    ends = {*table.ids(0), *table.ids(1)}
    if readings is None:
        could_be_matrix, could_be_edges = True, all(label.isdecimal() for label in ends)
    else:
        could_be_matrix = readings.num_nodes == table.width
        known = {*map(str, range(readings.num_nodes)), *(readings.node_ids or ())}
        could_be_edges = ends <= known
    if could_be_edges and could_be_matrix:
        raise DataError(
            f"{table.name} has {count_of(table.width, 'row')} and "
            f"{count_of(table.width, 'column')} without a header: pass "
            f"{option('graph_kind', 'edges')} or {option('graph_kind', 'matrix')}, whichever it is"
        )
    return "edges" if could_be_edges else "matrix"


def _edges(table: _Table, options: IngestOptions) -> RawEdges:
    source, target = table.pair(options.edges, _ENDS) or (0, 1)
    if table.width < 2:
        raise DataError(f"{table.name} has {table.width} column: an edge list has from,to[,weight]")
    header = table.header
    weight: int | None
    if len(options.edges) == 3:
        weight = table.named(options.edges[2])
    elif header is None:
        weight = 2 if table.width > 2 else None
    else:
        weight = table.column(_WEIGHTS)
        if weight is None:
            weight = next((c for c, title in enumerate(header) if is_distance_name(title)), None)
        if weight is None and table.width > 2 and not options.edges:
            raise DataError(
                f"{table.name} has the columns {', '.join(header)}: name three of them with "
                f"{option('edges')}"
            )
    return RawEdges(
        name=table.name,
        source=table.ids(source),
        target=table.ids(target),
        value=None if weight is None else table.numbers(weight),
        value_name=None if header is None or weight is None else header[weight],
        edge_label=lambda edge: f"{table.line(edge)} of {table.name}",
    )


def _coordinates(table: _Table, options: IngestOptions) -> RawCoordinates:
    columns = table.pair(options.coordinates, _LATLON)
    if columns is None:
        if table.header is not None or table.width not in (2, 3):
            raise DataError(
                f"{table.name} has no columns latitude and longitude: name them with "
                f"{option('coordinates')}"
            )
        columns = (table.width - 2, table.width - 1)
    ids = table.column((options.ids,) if options.ids else (*ID_NAMES, "sensor", "node", "name"))
    if ids is None and table.header is None and table.width == 3:
        ids = 0
    return RawCoordinates(
        name=table.name,
        latlon=np.stack([table.numbers(column) for column in columns], axis=1),
        node_ids=None if ids is None else table.ids(ids),
    )


def _matrix(table: _Table) -> RawMatrix:
    """A square matrix; a header, and a first column if there is one more, hold the ids."""
    num_nodes, width = len(table.rows), table.width
    leading = width - num_nodes
    if leading not in (0, 1) or (leading == 1 and table.header is None):
        raise DataError(
            f"the matrix of {table.name} has shape ({num_nodes}, {width}): it must be square"
        )
    matrix = np.stack([table.numbers(column) for column in range(leading, width)], axis=1)
    ids = None if table.header is None else ids_to_text(list(table.header[leading:]))
    if leading and table.ids(0) != ids:
        raise DataError(
            f"the rows of the matrix of {table.name} are not in the order of its columns"
        )
    return RawMatrix(name=table.name, matrix=matrix, node_ids=ids)
