"""PEMS03, PEMS04, PEMS07 and PEMS08: an array of flows and a list of neighbouring stations."""

from dataclasses import replace
from pathlib import Path

from pgti.datasets.recipes.prepared import Prepared, Request
from pgti.datasets.steps import without_zeros
from pgti.errors import DataError
from pgti.graph import SensorGraph
from pgti.ingest import IngestOptions, open_readings
from pgti.ingest.node_matching import RawEdges, match_nodes
from pgti.ingest.readings import reraise_read_errors
from pgti.ingest.sources import read_raw_graph

__all__ = ["flow_array"]


def flow_array(request: Request) -> Prepared:
    """`data` [T, N, 1 or 3] in an npz, a CSV `from,to,distance`, and ids where edges name them."""
    values, edges, *ids = request.paths.values()
    options = request.options(interval=request.interval, start=request.dataset.start)
    readings = open_readings(values, replace(options, values=("data",)), has_graph=True)
    node_ids = None
    if ids:
        node_ids = _lines(ids[0])
        if len(node_ids) != readings.num_nodes:
            raise DataError(
                f"{ids[0].name} has {len(node_ids)} ids and {readings.name} has "
                f"{readings.num_nodes} sensors: they must be as many"
            )
    readings = replace(readings, node_ids=node_ids)
    graph = _both_ways(edges, readings.num_nodes, node_ids)
    if request.zeros_missing:
        readings = without_zeros(readings)
    return Prepared(readings=readings, options=options, graph=graph)


def _lines(path: Path) -> tuple[str, ...]:
    with reraise_read_errors(path.name, "a list of ids"):
        return tuple(path.read_text(encoding="utf-8").split())


def _both_ways(path: Path, num_nodes: int, node_ids: tuple[str, ...] | None) -> SensorGraph:
    """The graph with weight 1 between all pairs listed; the distances are not used.

    So STSGCN and BasicTS read these files, and the distances have no common unit.
    """
    options = IngestOptions(edge_values="weight")
    raw = read_raw_graph(path, options, num_nodes=num_nodes, node_ids=node_ids)
    if not isinstance(raw, RawEdges):
        raise DataError(f"{path.name} is no list of edges: the rule is from,to,distance")
    listed = replace(raw, value=None)
    there = match_nodes(listed, num_nodes, node_ids, options).graph.adjacency
    return SensorGraph(adjacency=there.maximum(there.T))
