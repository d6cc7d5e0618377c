"""Graphs in tables: dense matrices, edge lists, tables of distances, coordinates."""

import re
from pathlib import Path

import numpy as np

from pgti.display import count_of
from pgti.errors import ConfigError, DataError, option
from pgti.ingestion.axes import LATITUDE_NAMES, LONGITUDE_NAMES
from pgti.ingestion.formats import PARQUET_SUFFIXES
from pgti.ingestion.graphs.edge_values import is_distance_name
from pgti.ingestion.graphs.rows import GraphTable, parquet_rows, text_rows
from pgti.ingestion.options import GraphKind, IngestOptions
from pgti.ingestion.raw_graphs import RawCoordinates, RawEdges, RawGraph, RawMatrix
from pgti.ingestion.readings import ID_NAMES, Readings, ids_to_text

__all__ = ["read_table_graph", "table_graph"]

_ENDS = (
    ("from", "source", "src", "from_id", "origin", "u", "i", "origin_id", "source_id", "src_id"),
    ("to", "target", "dst", "to_id", "destination", "v", "j", "destination_id", "target_id",
     "dst_id"),
)  # fmt: skip
_WEIGHTS = ("weight", "w", "value", "weights", "edge_weight", "link_weight")
_PAIRS = "coordinates"  # LibCity's column of "[longitude, latitude]"
_PAIR = re.compile(r"\[\s*([^,\[\]]+),\s*([^,\[\]]+)\]")
_LATLON = (LATITUDE_NAMES, LONGITUDE_NAMES)


def read_table_graph(
    path: Path, options: IngestOptions, readings: Readings | None, ids_elsewhere: bool
) -> RawGraph:
    """A graph in a text or a Parquet file; its header, or else its shape, shows what it holds.

    The arguments are those of `read_raw_graph`.

    Raises:
        ConfigError: if options name columns that cannot be used.
        DataError: if the file is damaged, or could hold several kinds of graph.
    """
    if path.suffix.lower() in PARQUET_SUFFIXES:
        table = parquet_rows(path)
    else:
        known = () if readings is None else readings.node_ids or ()
        table = text_rows(path, options, frozenset(known))
    return table_graph(table, options, readings, ids_elsewhere)


def table_graph(
    table: GraphTable, options: IngestOptions, readings: Readings | None, ids_elsewhere: bool
) -> RawGraph:
    """The graph that a table holds; the arguments and errors are those of `read_table_graph`."""
    if len(options.edges) == 1:
        raise ConfigError(
            f"{option('edges')} names one column ({options.edges[0]}) of {table.name}: the rule is "
            "source,target or source,target,weight"
        )
    kind = options.graph_kind or _recognize_kind(table, options, readings)
    if options.coordinates and kind != "coordinates":
        raise ConfigError(
            f"{option('coordinates')} is {','.join(options.coordinates)} and {table.name} holds "
            f"{'edges' if kind == 'edges' else 'a matrix'}: leave it out; the places of sensors "
            f"are read from the table of {option('static')}"
        )
    raw: RawGraph
    if kind == "matrix":
        raw = _matrix(table)
    else:
        raw = (_edges if kind == "edges" else _coordinates)(table, options)
    if options.ids is not None and not ids_elsewhere:
        if not isinstance(raw, RawCoordinates):
            raise ConfigError(
                f"{option('ids')} is {options.ids!r} and {table.name} holds no coordinates: leave "
                f"it out"
            )
        table.named(options.ids)
    return raw


def _recognize_kind(
    table: GraphTable, options: IngestOptions, readings: Readings | None
) -> GraphKind:
    if table.pair(options.edges, _ENDS) is not None:
        return "edges"
    if table.pair(options.coordinates, _LATLON) is not None or table.column((_PAIRS,)) is not None:
        return "coordinates"
    if options.neighbours is not None and table.header is not None:
        return "coordinates"  # whose titles say something else
    num_rows = len(table.rows)
    if table.header is None and table.width in (2, 3):
        if num_rows != table.width:
            return "edges"
        return _recognize_square(table, readings)
    num_extra = 0 if table.header is None else table.width - num_rows
    if table.width > 3 and num_extra in (0, 1) and table.width - num_extra == num_rows:
        return "matrix"
    titles = f"{count_of(table.width, 'column')} without a header"
    if table.header is not None:
        titles = f"the columns {', '.join(table.header[:6])}"
    raise DataError(
        f"{table.name} has {count_of(num_rows, 'row')} and {titles}: neither a square matrix, nor "
        f"from,to[,weight], nor latitude,longitude; use {option('graph_kind')}, or name the "
        f"columns (by number from 1 without a header) with {option('edges')} or "
        f"{option('coordinates')}"
    )


def _recognize_square(table: GraphTable, readings: Readings | None) -> GraphKind:
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


def _edges(table: GraphTable, options: IngestOptions) -> RawEdges:
    source, target = table.pair(options.edges, _ENDS) or (0, 1)
    if table.width < 2:
        raise DataError(f"{table.name} has {table.width} column: an edge list has from,to[,weight]")
    header = table.header
    weight: int | None
    if len(options.edges) == 3:
        weight = table.named(options.edges[2])
    elif header is None:
        weight = 2 if table.width > 2 and not options.edges else None
    else:
        weight = table.column(_WEIGHTS)
        if weight is None:
            weight = next((c for c, title in enumerate(header) if is_distance_name(title)), None)
        if weight is None and table.width > 2 and not options.edges:
            raise DataError(
                f"{table.name} has the columns {', '.join(header)}: name three of them with "
                f"{option('edges')}"
            )
    sources, num_continued = _continue_above(table.ids(source))
    notes: tuple[str, ...] = ()
    if num_continued:
        notes = (
            f"{count_of(num_continued, 'line')} of {table.name} without a source "
            f"{'belongs' if num_continued == 1 else 'belong'} to the one above",
        )
    return RawEdges(
        name=table.name,
        source=sources,
        target=table.ids(target),
        value=None if weight is None else table.numbers(weight),
        value_name=None if header is None or weight is None else header[weight],
        edge_label=lambda edge: f"{table.line(edge)} of {table.name}",
        notes=notes,
    )


def _continue_above(labels: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
    """Labels, with that above in place of empty ones, and how many those were.

    A list of a node's neighbours, such as the counties of the US Census, names it once.
    """
    filled: list[str] = []
    for label in labels:
        filled.append(label if label or not filled else filled[-1])
    return tuple(filled), sum(not label for label in labels[1:])


def _coordinates(table: GraphTable, options: IngestOptions) -> RawCoordinates:
    columns = table.pair(options.coordinates, _LATLON)
    if columns is None and (pairs := table.column((_PAIRS,))) is not None:
        return _pairs(table, pairs, options)
    if columns is None:
        if table.header is not None or table.width not in (2, 3):
            raise DataError(
                f"{table.name} has no columns latitude and longitude: name them with "
                f"{option('coordinates')}"
            )
        columns = (table.width - 2, table.width - 1)
    ids = _id_column(table, options)
    if ids is None and table.header is None and table.width == 3:
        ids = 0
    return RawCoordinates(
        name=table.name,
        latlon=np.stack([table.numbers(column) for column in columns], axis=1),
        node_ids=None if ids is None else table.ids(ids),
    )


def _id_column(table: GraphTable, options: IngestOptions) -> int | None:
    if options.ids:
        return table.column((options.ids,))
    return table.column((*ID_NAMES, "sensor", "node", "name", "geo_id"))


def _pairs(table: GraphTable, column: int, options: IngestOptions) -> RawCoordinates:
    """LibCity's `.geo`: geo_id, type, coordinates; a point is "[longitude, latitude]"."""
    latlon = np.empty((len(table.rows), 2))
    for row, cells in enumerate(table.rows):
        found = _PAIR.fullmatch(cells[column].strip())
        try:
            latlon[row] = float(found[2]), float(found[1])  # type: ignore[index] # below
        except (TypeError, ValueError):
            raise DataError(
                f"{table.line(row)} of {table.name} has the coordinates "
                f"{cells[column][:40]!r}: a sensor is a point, [longitude, latitude]; a network of "
                "roads needs a list of its edges (.rel)"
            ) from None
    ids = _id_column(table, options)
    return RawCoordinates(
        name=table.name, latlon=latlon, node_ids=None if ids is None else table.ids(ids)
    )


def _matrix(table: GraphTable) -> RawMatrix:
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
