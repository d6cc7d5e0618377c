"""Graphs as files give them, and how their nodes are matched with the sensors of the readings."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import DataError, option
from pgti.graph import SensorGraph
from pgti.graph.build import from_coordinates, weigh_distances
from pgti.ingestion.options import IngestOptions

__all__ = [
    "MatchedGraph",
    "RawCoordinates",
    "RawEdges",
    "RawGraph",
    "RawMatrix",
    "is_distance_name",
    "match_nodes",
]

_DISTANCE_NAMES = ("cost", "distance", "dist", "length", "miles", "km", "meters", "metres")

Ids: TypeAlias = tuple[str, ...] | None


def is_distance_name(name: str | None) -> bool:
    """Whether the last word of a name means a distance, as in edge_miles."""
    words = re.findall("[a-z]+", (name or "").lower())
    return bool(words) and words[-1] in _DISTANCE_NAMES


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RawMatrix:
    """An adjacency (or distance) matrix [N, N]: entry (i, j) belongs to the edge i -> j.

    Attributes:
        name: what messages call the source.
        matrix: sparse, or dense where distances of zero must stay apart from "no edge".
        node_ids: ids of the rows, where the source has them.
        coordinates: [N, 2] latitude and longitude, where the source has them.
        are_weights: whether the entries are weights, whatever the options say.
    """

    name: str
    matrix: "sp.csr_array[Any] | NDArray[Any]"
    node_ids: Ids = None
    coordinates: NDArray[np.float64] | None = None
    are_weights: bool = False


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RawEdges:
    """A list of edges whose ends are sensor ids or positions.

    Attributes:
        name: what messages call the source.
        source: label of each edge's source, text [E].
        target: label of each edge's target, text [E].
        value: weight or distance of each edge [E], or None for weight 1.
        value_name: what the source calls the values, where it names them.
        coordinates: [N, 2] latitude and longitude of the readings' sensors, where known.
        is_topology: whether every listed edge is an edge of the graph, so that the kernel only
            weighs them; in a table of distances it also decides which pairs are edges.
        edge_label: what messages call edge `i`, its source included; None numbers the edges.
    """

    name: str
    source: tuple[str, ...]
    target: tuple[str, ...]
    value: NDArray[np.float64] | None = None
    value_name: str | None = None
    coordinates: NDArray[np.float64] | None = None
    is_topology: bool = False
    edge_label: Callable[[int], str] | None = None


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RawCoordinates:
    """Positions of sensors, to be joined with their nearest neighbours.

    Attributes:
        name: what messages call the source.
        latlon: latitude and longitude in degrees, [N, 2].
        node_ids: ids of the rows, where the source has them.
    """

    name: str
    latlon: NDArray[np.float64]
    node_ids: Ids = None


RawGraph: TypeAlias = RawMatrix | RawEdges | RawCoordinates


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class MatchedGraph:
    """A graph whose nodes are the sensors of the readings, in their order.

    Attributes:
        graph: the graph.
        node_ids: ids of the sensors: those of the readings, else those of the graph, else
            "0", "1", ...
        notes: what a user should know, such as edges that were left out.
    """

    graph: SensorGraph
    node_ids: tuple[str, ...]
    notes: tuple[str, ...] = ()


def match_nodes(
    raw: RawGraph, num_nodes: int, node_ids: Ids, options: IngestOptions
) -> MatchedGraph:
    """The graph of the sensors of the readings.

    Nodes are matched by id where both sides have ids, and by position otherwise.

    Raises:
        DataError: if the nodes do not match, naming examples, or the graph breaks a rule.
    """
    if isinstance(raw, RawMatrix):
        graph, notes = _match_matrix(raw, num_nodes, node_ids, options)
    elif isinstance(raw, RawEdges):
        graph, notes = _match_edges(raw, num_nodes, node_ids, options)
    else:
        graph, notes = _match_coordinates(raw, num_nodes, node_ids, options)
    graph_ids = None if isinstance(raw, RawEdges) else raw.node_ids
    ids = node_ids or graph_ids or tuple(map(str, range(num_nodes)))
    return MatchedGraph(graph=graph, node_ids=ids, notes=notes)


def _match_matrix(
    raw: RawMatrix, num_nodes: int, node_ids: Ids, options: IngestOptions
) -> tuple[SensorGraph, tuple[str, ...]]:
    size = raw.matrix.shape[0]
    order = _order(raw.name, raw.node_ids, size, num_nodes, node_ids)
    matrix, coordinates = raw.matrix, raw.coordinates
    notes: tuple[str, ...] = ()
    if order is not None:
        matrix = matrix[order][:, order]
        coordinates = None if coordinates is None else coordinates[order]
    if options.edge_values == "distance" and not raw.are_weights:
        source, target, distance = _entries(matrix)
        matrix, notes = _weigh(raw.name, size, (source, target, distance), options)
    return SensorGraph(adjacency=sp.csr_array(matrix), coordinates=coordinates), notes


def _weigh(
    name: str,
    num_nodes: int,
    edges: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    options: IngestOptions,
) -> tuple["sp.csr_array[Any]", tuple[str, ...]]:
    """The weights of distances, and a note about edges that fell below the threshold."""
    kernel = weigh_distances(num_nodes, *edges, threshold=options.threshold, sigma=options.sigma)
    notes: tuple[str, ...] = ()
    if kernel.num_below and options.threshold > 0:
        notes = (
            f"{kernel.num_below:,} of {count_of(len(kernel.weights), 'edge')} of {name} fell below "
            f"the threshold and were left out: their weight exp(-(distance / sigma)^2) is less "
            f"than {options.threshold:g} at sigma {kernel.sigma:.4g}; {option('threshold', 0)} "
            f"takes all, and a larger {option('sigma')} takes longer ones",
        )
    return kernel.graph(num_nodes).adjacency, notes


def _entries(
    matrix: "sp.csr_array[Any] | NDArray[Any]",
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Sources, targets, distances: every entry of a dense matrix, the stored ones of a sparse."""
    if isinstance(matrix, np.ndarray):
        source, target = np.indices(matrix.shape).reshape(2, -1)
        return source, target, matrix.reshape(-1).astype(np.float64)
    entries = sp.coo_array(matrix)
    return entries.coords[0], entries.coords[1], entries.data


def _order(
    name: str,
    graph_ids: Ids,
    size: int,
    num_nodes: int,
    node_ids: Ids,
    *,
    allow_others: bool = False,
) -> NDArray[np.int64] | None:
    """Where in the graph each sensor is; None if both have the same order."""
    if graph_ids is None or node_ids is None:
        if size != num_nodes:
            raise DataError(
                f"{name} has {count_of(size, 'node')} for the {count_of(num_nodes, 'sensor')} of "
                "the readings: give as many"
            )
        return None
    places = {label: place for place, label in enumerate(graph_ids)}
    missing = [label for label in node_ids if label not in places]
    known = set(node_ids)
    extra = [label for label in graph_ids if label not in known]
    if missing or not (allow_others or (not extra and len(graph_ids) == len(node_ids))):
        raise DataError(
            f"the sensors of the readings ({len(node_ids)}) and of {name} ({len(graph_ids)}) do "
            f"not match: only in the readings {_examples(missing)}; only in the graph "
            f"{_examples(extra)}"
        )
    if graph_ids == node_ids:
        return None
    return np.array([places[label] for label in node_ids], dtype=np.int64)


def _examples(labels: list[str]) -> str:
    more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
    return ", ".join(repr(label) for label in labels[:3]) + more or "none"


def _match_edges(
    raw: RawEdges, num_nodes: int, node_ids: Ids, options: IngestOptions
) -> tuple[SensorGraph, tuple[str, ...]]:
    places = _places(raw, num_nodes, node_ids)
    source = np.array([places.get(label, -1) for label in raw.source], dtype=np.int64)
    target = np.array([places.get(label, -1) for label in raw.target], dtype=np.int64)
    value = raw.value
    are_distances = options.edge_values == "distance" or (
        options.edge_values is None and is_distance_name(raw.value_name)
    )
    notes: tuple[str, ...] = ()
    foreign = (source < 0) | (target < 0)
    if foreign.any():
        # Tables of distances cover more sensors than a data set uses; lists of edges do not.
        if not are_distances or foreign.all():
            raise _edge_to_no_node(raw, int(np.flatnonzero(foreign)[0]), places, num_nodes)
        notes = (
            f"{int(foreign.sum())} of {len(foreign)} distances of {raw.name} are between other "
            "sensors and were left out",
        )
        source, target = source[~foreign], target[~foreign]
        value = None if value is None else value[~foreign]
    if are_distances:
        if value is None:
            raise DataError(f"{raw.name} has edges without values: distances need a third column")
        if options.edge_values is None:
            notes += (
                f"the edge values of {raw.name} are distances by their name, and the Gaussian "
                f"kernel turns them into weights; {option('edge_values', 'weight')} takes them as "
                f"they are",
            )
        weighing = replace(options, threshold=0.0) if raw.is_topology else options
        adjacency, dropped = _weigh(raw.name, num_nodes, (source, target, value), weighing)
        notes += dropped
        if raw.is_topology:
            near = np.isfinite(value)
            floor = np.full(int(near.sum()), options.threshold)
            listed = SensorGraph.from_edges(num_nodes, source[near], target[near], floor)
            adjacency = sp.csr_array(adjacency.maximum(listed.adjacency))
        return SensorGraph(adjacency=adjacency, coordinates=raw.coordinates), notes
    num_zero = 0 if value is None else int((value == 0).sum())
    if num_zero:
        notes = (
            f"edges of weight 0 were left out of {raw.name}, {num_zero} of {len(source)}; if the "
            f"values are distances, pass {option('edge_values', 'distance')}",
        )
    return SensorGraph.from_edges(num_nodes, source, target, value, raw.coordinates), notes


def _places(raw: RawEdges, num_nodes: int, node_ids: Ids) -> dict[str, int]:
    """Position of each label: labels are ids if more of them are known ids than positions."""
    positions = {str(place): place for place in range(num_nodes)}
    if node_ids is None:
        return positions
    ids = {label: place for place, label in enumerate(node_ids)}
    ends = [*raw.source, *raw.target]
    by_id = sum(label in ids for label in ends)
    by_position = sum(label in positions for label in ends)
    return ids if by_id >= by_position else positions


def _edge_to_no_node(raw: RawEdges, edge: int, places: dict[str, int], num_nodes: int) -> DataError:
    source, target = raw.source[edge], raw.target[edge]
    lost = source if source not in places else target
    label = f"edge {edge} of {raw.name}" if raw.edge_label is None else raw.edge_label(edge)
    known = list(places)[:2]
    return DataError(
        f"{label}, {source} -> {target}, leads to no node: {lost!r} "
        f"is not among the {count_of(num_nodes, 'sensor')} ({', '.join(known)}, ...)"
    )


def _match_coordinates(
    raw: RawCoordinates, num_nodes: int, node_ids: Ids, options: IngestOptions
) -> tuple[SensorGraph, tuple[str, ...]]:
    latlon = raw.latlon
    # Tables of locations cover more sensors than a data set uses.
    order = _order(raw.name, raw.node_ids, len(latlon), num_nodes, node_ids, allow_others=True)
    if order is not None:
        latlon = latlon[order]
    if options.neighbours is None:
        graph = SensorGraph.from_edges(num_nodes, [], [], coordinates=latlon)
        note = (
            f"the graph has no edges: use {option('neighbours')} to join each sensor with its "
            f"nearest ones"
        )
        return graph, (note,)
    graph = from_coordinates(
        latlon, neighbours=options.neighbours, threshold=options.threshold, sigma=options.sigma
    )
    return graph, ()
