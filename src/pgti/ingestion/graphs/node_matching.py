"""How the nodes of a graph are matched with the sensors of the readings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import DataError, option
from pgti.graph import SensorGraph
from pgti.graph.build import link_nearest, weigh_distances
from pgti.ingestion.graphs.edge_values import are_edge_distances, are_matrix_distances
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.raw_graphs import Ids, RawCoordinates, RawEdges, RawGraph, RawMatrix

__all__ = [
    "MatchedGraph",
    "match_nodes",
    "wrap_longitudes",
]


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
    ids = node_ids or raw.node_ids or tuple(map(str, range(num_nodes)))
    notes = (*raw.notes, *notes, *_unlinked(raw.name, graph, ids))
    return MatchedGraph(graph=graph, node_ids=ids, notes=notes)


def _unlinked(name: str, graph: SensorGraph, ids: tuple[str, ...]) -> tuple[str, ...]:
    """A note about sensors without an edge to another, where there are edges."""
    if not graph.num_edges or graph.num_nodes < 2:
        return ()
    source, target = graph.edge_index
    is_linked = np.zeros(graph.num_nodes, dtype=bool)
    to_others = source != target
    is_linked[source[to_others]] = is_linked[target[to_others]] = True
    alone = [ids[node] for node in np.flatnonzero(~is_linked)]
    if not alone:
        return ()
    have = "has" if len(alone) == 1 else "have"
    return (
        f"{len(alone):,} of {graph.num_nodes:,} sensors {have} no edge to another in {name}: "
        f"{_examples(alone)}",
    )


def _match_matrix(
    raw: RawMatrix, num_nodes: int, node_ids: Ids, options: IngestOptions
) -> tuple[SensorGraph, tuple[str, ...]]:
    size = raw.matrix.shape[0]
    order, notes = _order(raw.name, raw.node_ids, size, num_nodes, node_ids)
    matrix, coordinates = raw.matrix, raw.coordinates
    if coordinates is not None:
        coordinates, wrapped = wrap_longitudes(raw.name, coordinates)
        notes += wrapped
    if order is not None:
        matrix = matrix[order][:, order]
        coordinates = None if coordinates is None else coordinates[order]
    are_distances, said = are_matrix_distances(raw, options)
    notes += said
    if are_distances:
        source, target, distance = _entries(matrix)
        matrix, dropped = _weigh(raw.name, num_nodes, (source, target, distance), options)
        notes += dropped
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
            f"takes all, and a larger {option('sigma')} takes longer ones (their mean distance is "
            f"{np.mean(edges[2], where=np.isfinite(edges[2])):.4g})",
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
    name: str, graph_ids: Ids, size: int, num_nodes: int, node_ids: Ids
) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """Where in the graph each sensor is, None if both have the same order; nodes left out."""
    if graph_ids is None or node_ids is None:
        if size != num_nodes:
            raise DataError(
                f"{name} has {count_of(size, 'node')} for the {count_of(num_nodes, 'sensor')} of "
                "the readings: give as many"
            )
        return None, ()
    if graph_ids == node_ids:
        return None, ()
    places = {label: place for place, label in enumerate(graph_ids)}
    missing = [label for label in node_ids if label not in places]
    known = set(node_ids)
    extra = [label for label in graph_ids if label not in known]
    if missing or len(places) != len(graph_ids):
        raise DataError(
            f"the sensors of the readings ({len(node_ids)}) and of {name} ({len(graph_ids)}) do "
            f"not match: only in the readings {_examples(missing)}; only in the graph "
            f"{_examples(extra)}"
        )
    notes: tuple[str, ...] = ()
    if extra:
        notes = (
            f"{count_of(len(extra), 'node')} of {name} that the readings lack "
            f"{'was' if len(extra) == 1 else 'were'} left out: {_examples(extra)}",
        )
    return np.array([places[label] for label in node_ids], dtype=np.int64), notes


def _examples(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
    return ", ".join(repr(label) for label in labels[:3]) + more or "none"


def _match_edges(
    raw: RawEdges, num_nodes: int, node_ids: Ids, options: IngestOptions
) -> tuple[SensorGraph, tuple[str, ...]]:
    places = _places(raw, num_nodes, node_ids)
    source = np.array([places.get(label, -1) for label in raw.source], dtype=np.int64)
    target = np.array([places.get(label, -1) for label in raw.target], dtype=np.int64)
    value = raw.value
    are_distances, notes = are_edge_distances(raw, options)
    foreign = (source < 0) | (target < 0)
    if foreign.any():
        # Tables of distances and lists of a whole network cover more sensors than a data set uses.
        by_id = node_ids is not None and not raw.by_position and places.keys() == set(node_ids)
        if not by_id or foreign.all():
            raise _edge_to_no_node(raw, int(np.flatnonzero(foreign)[0]), places, num_nodes)
        ends = (end for edge in zip(raw.source, raw.target, strict=True) for end in edge)
        others = [end for end in ends if end not in places]
        others = list(dict.fromkeys(others))
        names = "a sensor" if len(others) == 1 else f"{len(others):,} sensors"
        notes += (
            f"{int(foreign.sum()):,} of {count_of(len(foreign), 'edge')} of {raw.name} were left "
            f"out: they name {names} that the readings lack: {_examples(others)}",
        )
        source, target = source[~foreign], target[~foreign]
        value = None if value is None else value[~foreign]
    coordinates = raw.coordinates
    if coordinates is not None and node_ids and raw.node_ids and raw.node_ids != node_ids:
        rows = {label: row for row, label in enumerate(raw.node_ids)}
        known = all(label in rows for label in node_ids)
        coordinates = coordinates[[rows[each] for each in node_ids]] if known else None
    if coordinates is not None:
        coordinates, wrapped = wrap_longitudes(raw.name, coordinates)
        notes += wrapped
    if are_distances:
        if value is None:
            raise DataError(f"{raw.name} has edges without values: distances need a third column")
        weighing = replace(options, threshold=0.0) if raw.is_topology else options
        adjacency, dropped = _weigh(raw.name, num_nodes, (source, target, value), weighing)
        notes += dropped
        if raw.is_topology:
            near = np.isfinite(value)
            floor = np.full(int(near.sum()), options.threshold)
            listed = SensorGraph.from_edges(num_nodes, source[near], target[near], floor)
            adjacency = sp.csr_array(adjacency.maximum(listed.adjacency))
        return SensorGraph(adjacency=adjacency, coordinates=coordinates), notes
    num_zero = 0 if value is None else int((value == 0).sum())
    if num_zero:
        notes += (
            f"edges of weight 0 were left out of {raw.name}, {num_zero} of {len(source)}; if the "
            f"values are distances, pass {option('edge_values', 'distance')}",
        )
    return SensorGraph.from_edges(num_nodes, source, target, value, coordinates), notes


def _places(raw: RawEdges, num_nodes: int, node_ids: Ids) -> dict[str, int]:
    """Position of each label: labels are ids if more of them are known ids than positions."""
    positions = {str(place): place for place in range(num_nodes)}
    if node_ids is None and raw.node_ids is not None and len(raw.node_ids) == num_nodes:
        node_ids = raw.node_ids  # the sensors take them over
    if node_ids is None or raw.by_position:
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
    ends = {*raw.source, *raw.target}
    from_one = "0" in places and "0" not in ends and ends <= {*places, str(num_nodes)}
    hint = "; positions count from 0, and those of the list from 1" if from_one else ""
    return DataError(
        f"{label}, {source} -> {target}, leads to no node: {lost!r} "
        f"is not among the {count_of(num_nodes, 'sensor')} ({', '.join(known)}, ...){hint}"
    )


def _match_coordinates(
    raw: RawCoordinates, num_nodes: int, node_ids: Ids, options: IngestOptions
) -> tuple[SensorGraph, tuple[str, ...]]:
    latlon, notes = wrap_longitudes(raw.name, raw.latlon)
    order, left_out = _order(raw.name, raw.node_ids, len(latlon), num_nodes, node_ids)
    notes += left_out
    if order is not None:
        latlon = latlon[order]
    if options.neighbours is None:
        graph = SensorGraph.from_edges(num_nodes, [], [], coordinates=latlon)
        note = (
            f"the graph has no edges: use {option('neighbours')} to join each sensor with its "
            f"nearest ones"
        )
        return graph, (*notes, note)
    graph, edges, distances_km = link_nearest(
        latlon, neighbours=options.neighbours, threshold=options.threshold, sigma=options.sigma
    )
    is_far = edges.weights < options.threshold
    if is_far.any():
        ids = node_ids or raw.node_ids or tuple(map(str, range(num_nodes)))
        longest = int(np.argmax(distances_km))
        ends = f"{ids[edges.source[longest]]!r} to {ids[edges.target[longest]]!r}"
        notes += (
            f"{int(is_far.sum()):,} of {count_of(len(is_far), 'edge')} to nearest neighbours are "
            f"so long that they have the smallest weight, {options.threshold:g}, at sigma "
            f"{edges.sigma:.4g} km: the longest, {ends}, has {distances_km[longest]:,.4g} km "
            f"(median {np.median(distances_km):,.4g} km); {option('sigma')} sets the width of the "
            "kernel, which such distances widen",
        )
    return graph, notes


def wrap_longitudes(
    name: str, latlon: NDArray[np.float64]
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Coordinates with longitudes of 0 to 360 as -180 to 180; others stay as they are."""
    if latlon.ndim != 2 or latlon.shape[1:] != (2,):
        return latlon, ()
    latitude, longitude = latlon.T
    is_west = longitude > 180
    fits = (np.abs(latitude) <= 90).all() and (longitude >= 0).all() and (longitude <= 360).all()
    if not is_west.any() or not fits:
        return latlon, ()
    wrapped = np.stack([latitude, np.where(is_west, longitude - 360, longitude)], axis=1)
    return wrapped, (
        f"longitudes of {name} run from 0 to 360: those above 180 are stored as west of Greenwich, "
        "from -180 to 0",
    )
