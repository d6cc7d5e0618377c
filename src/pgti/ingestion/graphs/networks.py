"""Graphs of NetworkX, and the files that it reads: GraphML and GML."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import DataError, option
from pgti.ingestion.graphs.edge_values import is_distance_name
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.raw_graphs import RawCoordinates, RawEdges
from pgti.ingestion.readings import ids_to_text, reraise_read_errors

__all__ = ["network_graph", "read_network_file"]

_LATLON = (("lat", "lon"), ("latitude", "longitude"), ("Latitude", "Longitude"))


def read_network_file(path: Path, options: IngestOptions) -> RawEdges | RawCoordinates:
    """The graph in a GraphML or GML file.

    Raises:
        DataError: if the file is damaged, or the graph is refused by `network_graph`.
    """
    import networkx as nx  # noqa: PLC0415 - it takes a while

    name = path.name
    is_gml = ".gml" in path.suffixes[-2:]
    with reraise_read_errors(name, "GML" if is_gml else "GraphML"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kinds of values that the file does not name
        try:
            graph = _read_gml(path) if is_gml else nx.read_graphml(path)
        except nx.NetworkXError as error:
            raise DataError(f"{name} cannot be read as a graph: {error}") from None
    return network_graph(graph, name, options)


def _read_gml(path: Path) -> Any:
    """The graph in a GML file, whose nodes are called by their labels, or by their ids."""
    import networkx as nx  # noqa: PLC0415 - it takes a while

    try:
        return nx.read_gml(path)
    except nx.NetworkXError as error:
        if "label" not in str(error):
            raise
        return nx.read_gml(path, label="id")


def network_graph(graph: Any, name: str, options: IngestOptions) -> RawEdges | RawCoordinates:
    """The edges of a NetworkX graph, in both directions where it has none; or its nodes' places.

    Edges have the values of the attribute `weight`, or else of one that is called a distance;
    `options.edges` (source, target, attribute) names another. Nodes numbered 0 to N - 1 are
    positions.

    Raises:
        DataError: if the graph is empty, an edge lacks the attribute, or several could be meant.
    """
    nodes = list(graph.nodes)
    labels = ids_to_text(nodes)
    if not nodes or len(set(labels)) != len(labels):
        has = "no nodes" if not nodes else "two nodes whose labels read the same"
        raise DataError(f"{name} has {has}: label each sensor once")
    latlon = _coordinates(graph, options, name)
    if latlon is not None and (options.neighbours is not None or not graph.number_of_edges()):
        return RawCoordinates(name=name, latlon=latlon, node_ids=labels)
    ids: tuple[str, ...] | None = labels
    if all(label.isdecimal() and int(label) < len(labels) for label in labels):
        order = np.argsort([int(label) for label in labels])
        latlon, ids = None if latlon is None else latlon[order], None
    text = dict(zip(nodes, labels, strict=True))
    edges = list(graph.edges(data=True))
    attribute = _attribute(edges, options, name)
    values = [] if attribute is None else [_value(edge, attribute, name) for edge in edges]
    source, target = ([text[edge[end]] for edge in edges] for end in (0, 1))
    if not graph.is_directed():
        source, target = source + target, target + source
        values = values + values
    return RawEdges(
        name=name,
        source=tuple(source),
        target=tuple(target),
        value=None if attribute is None else np.array(values, dtype=np.float64),
        value_name=attribute,
        coordinates=latlon,
        node_ids=ids,
        is_topology=True,
    )


def _attribute(
    edges: list[tuple[Any, Any, dict[str, Any]]], options: IngestOptions, name: str
) -> str | None:
    """The attribute that holds the values of edges; None if no edge has one that could."""
    found = dict.fromkeys(key for *_, data in edges for key in data)
    if len(options.edges) == 3:
        if options.edges[2] not in found:
            raise DataError(
                f"no edge of {name} has {options.edges[2]!r}; they have "
                f"{', '.join(map(str, found)) or 'no attribute'}"
            )
        return options.edges[2]
    if "weight" in found:
        return "weight"
    distances = [str(key) for key in found if is_distance_name(str(key))]
    if len(distances) > 1:
        raise DataError(
            f"the edges of {name} have {', '.join(distances)}: name one with "
            f"{option('edges', ('source', 'target', distances[0]))}"
        )
    return distances[0] if distances else None


def _value(edge: tuple[Any, Any, dict[str, Any]], attribute: str, name: str) -> float:
    source, target, data = edge
    try:
        return float(data[attribute])
    except (KeyError, OverflowError, TypeError, ValueError):
        has = repr(data[attribute]) if attribute in data else "none"
        raise DataError(
            f"edge {source} -> {target} of {name} has the {attribute} {has}: every edge needs a "
            "number"
        ) from None


def _coordinates(graph: Any, options: IngestOptions, name: str) -> NDArray[np.float64] | None:
    """Latitude and longitude [N, 2] of the nodes, where all have both."""
    pairs = (options.coordinates,) if options.coordinates else _LATLON
    for latitude, longitude in pairs:
        rows = [(data.get(latitude), data.get(longitude)) for _, data in graph.nodes(data=True)]
        if all(cell is not None for row in rows for cell in row):
            with reraise_read_errors(name, "coordinates"):
                return np.array(rows, dtype=np.float64)
    if options.coordinates:
        raise DataError(f"the nodes of {name} lack {' and '.join(options.coordinates)}")
    return None
