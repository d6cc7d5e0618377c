"""PEMS03, PEMS04, PEMS07 and PEMS08: an array of flows and a list of neighbouring stations."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from pgti.datasets.dataset import Dataset, Download, FileSet, Prepared, Request
from pgti.datasets.protocol import Protocol
from pgti.datasets.steps import mask_zeros
from pgti.display import count_of
from pgti.errors import DataError
from pgti.graph import SensorGraph
from pgti.ingestion import IngestOptions, open_readings
from pgti.ingestion.graphs.node_matching import match_nodes
from pgti.ingestion.graphs.sources import read_raw_graph
from pgti.ingestion.raw_graphs import RawEdges
from pgti.ingestion.readings import Readings, reraise_read_errors

__all__ = ["FLOW_DATASETS", "ZERO_FLOW_NOTE"]

_ZENODO = "https://zenodo.org/records/7816008"

ZERO_FLOW_NOTE = (
    "a flow of 0 counts as missing, as published results are scored (BasicTS, Torch-MTS, LargeST), "
    "though many are true counts of a quiet road; the option zeros = observed takes them as such"
)
"""Why zeros of flows are missing."""

_PROTOCOL = partial(
    Protocol,
    source="BasicTS and Torch-MTS (STAEformer), whose scripts cut the windows first",
    fractions=(0.6, 0.2, 0.2),
    inputs=("flow",),
    targets=("flow",),
    calendar=("time-of-day", "day-of-week"),
    zeros="a flow of 0 counts in neither loss nor errors",
    notes=("STSGCN and AGCRN cut the rows first, so their splits have 8 to 19 windows less",),
)
_NUM_WINDOWS = {
    "PEMS03": (15_711, 5_237, 5_237),
    "PEMS04": (10_181, 3_394, 3_394),
    "PEMS07": (16_921, 5_640, 5_640),
    "PEMS08": (10_700, 3_567, 3_566),
}

_PEMS07_NOTES = (
    "its paper says May to August 2017, and 28,224 rows from 2017-05-01 end on 2017-08-06",
)


def read_flow_array(request: Request) -> Prepared:
    """`data` [T, N, 1 or 3] in an npz, a CSV `from,to,distance`, and ids where edges name them."""
    values, edges, *ids = request.paths.values()
    options = request.options(interval=request.interval, start=request.dataset.start)
    readings = open_readings(values, replace(options, values=("data",)), has_graph=True)
    node_ids = None
    if ids:
        with reraise_read_errors(ids[0].name, "a list of ids"):
            node_ids = tuple(ids[0].read_text(encoding="utf-8").split())
        if len(node_ids) != readings.num_nodes:
            raise DataError(
                f"{ids[0].name} has {count_of(len(node_ids), 'id')} and {readings.name} has "
                f"{count_of(readings.num_nodes, 'sensor')}: each needs one"
            )
    readings = replace(readings, node_ids=node_ids)
    graph = _read_undirected(edges, readings)
    if request.zeros_missing:
        readings = mask_zeros(readings)
    return Prepared(readings=readings, options=options, graph=graph)


def _read_undirected(path: Path, readings: Readings) -> SensorGraph:
    """The graph with weight 1 in both directions for all pairs listed; distances are not used.

    STSGCN and BasicTS read these files so, and the distances have no common unit.
    """
    options = IngestOptions(edge_values="weight")
    raw = read_raw_graph(path, options, readings)
    if not isinstance(raw, RawEdges):
        raise DataError(f"{path.name} is not a list of edges: the rule is from,to,distance")
    known = set(readings.node_ids or map(str, range(readings.num_nodes)))
    for end in (*raw.source, *raw.target):
        if end not in known:
            raise DataError(
                f"{path.name} names station {end}, which is not among the "
                f"{count_of(len(known), 'sensor')} of {readings.name}: the files must be of one "
                "publication"
            )
    listed = replace(raw, value=None)
    there = match_nodes(listed, readings.num_nodes, readings.node_ids, options).graph.adjacency
    return SensorGraph(adjacency=there.maximum(there.T))


def _flow_datasets() -> tuple[Dataset, ...]:
    sets = (
        ("PEMS03", 26_208, 358, "2018-09-01", "September to November 2018", 1, 15_800_415,
         "651add9bb9eaf7f5eda2f2ee8778a182", "e6cf2ef1e1a9957aeec678a30b7ce7a7"),
        ("PEMS04", 16_992, 307, "2018-01-01", "January and February 2018", 3, None,
         "5238832691101da85fcac772a32051da", "3990731ec980019a875a6d5723523855"),
        ("PEMS07", 28_224, 883, "2017-05-01", "from May 2017", 1, 43_705_518,
         "978d3d9b85fe640a446983a34271a48d", "cea609fed853ade176cb1c5eae0aeda0"),
        ("PEMS08", 17_856, 170, "2016-07-01", "July and August 2016", 3, None,
         "2a528d169c0d90294c9e24288a430132", "5e507b2b18d9235e95b63a20221cd4c5"),
    )  # fmt: skip
    found = []
    for name, num_steps, num_nodes, start, months, num_channels, num_bytes, md5, edges_md5 in sets:
        downloads = [
            _zenodo(f"{name}.npz", md5, num_bytes),
            _zenodo(f"{name}.csv", edges_md5),
        ]
        if name == "PEMS03":  # its edges name stations, which this list puts in order
            downloads.append(_zenodo("PEMS03.txt", "a52b864fbbe9d852ebdd08f6191a987f"))
        district = int(name[-2:])
        found.append(
            Dataset(
                name=name,
                summary=f"flows at {num_nodes} PeMS stations of district {district}, {months}",
                num_steps=num_steps,
                num_nodes=num_nodes,
                channels=("flow", "occupancy", "speed")[:num_channels],
                units=("vehicles per 5 min", "share of time", "mph")[:num_channels],
                interval="5min",
                start=f"{start}T00:00",
                zeros="missing",
                licence="see its record (Caltrans PeMS)",
                source_page=_ZENODO,
                file_sets=(
                    FileSet(
                        recipe=read_flow_array,
                        files=tuple(download.name for download in downloads),
                    ),
                ),
                downloads=tuple(downloads),
                zeros_note=ZERO_FLOW_NOTE,
                notes=(
                    *_PEMS07_NOTES[: name == "PEMS07"],
                    "every pair of stations listed is an edge of weight 1 in both directions, as "
                    "STSGCN and BasicTS read the list",
                ),
                protocol=_PROTOCOL(num_windows=_NUM_WINDOWS[name], num_steps=num_steps),
            )
        )
    return tuple(found)


def _zenodo(name: str, md5: str, num_bytes: int | None = None) -> Download:
    url = f"{_ZENODO}/files/{name}?download=1"
    return Download(name=name, url=url, md5=md5, num_bytes=num_bytes)


FLOW_DATASETS = _flow_datasets()
"""PEMS03, PEMS04, PEMS07 and PEMS08."""
