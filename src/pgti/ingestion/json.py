"""PyTorch Geometric Temporal's data sets in JSON: chickenpox, windmill, pedalme, montevideo, covid.

JSON cannot be read in pieces: these files are read whole, and are small.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pgti.display import count_of
from pgti.errors import DataError, option
from pgti.ingestion.csv import open_text
from pgti.ingestion.frames import open_array
from pgti.ingestion.node_matching import RawEdges
from pgti.ingestion.readings import Readings, ids_to_text, reraise_read_errors

__all__ = ["open_json"]

_SERIES_KEYS = ("FX", "block", "X")
_SCHEMAS = "edges with FX, block or X; nodes and links with y; edge_mapping with y"


def open_json(path: Path, has_graph: bool) -> Readings:
    """Readings and graph in a JSON file of PyTorch Geometric Temporal, or its gzipped form.

    Raises:
        DataError: if the file follows none of the schemas, or its graph changes with time and
            none is given instead.
    """
    name = path.name
    with reraise_read_errors(name, "JSON"):
        with open_text(path) as file:
            content = json.load(file)
        if not isinstance(content, dict):
            raise DataError(f"{name} holds a {type(content).__name__}: the rule is {_SCHEMAS}")
        if "nodes" in content and "links" in content:
            return _node_link(content, name)
        if "edge_mapping" in content:
            if not has_graph:
                raise DataError(
                    f"the graph of {name} changes with time "
                    f"({len(content['edge_mapping']['edge_index'])} edge lists), and a store has "
                    f"one graph: give one with {option('graph')}"
                )
            return _series(content["y"], "y", name)
        series = next((key for key in _SERIES_KEYS if key in content), None)
        if series is None or "edges" not in content:
            keys = ", ".join(list(content)[:8]) or "nothing"
            raise DataError(f"{name} has the keys {keys}: the rule is {_SCHEMAS}")
        return _static(content, series, name)


def _static(content: dict[str, Any], key: str, name: str) -> Readings:
    readings = _series(content[key], key, name)
    edges = np.asarray(content["edges"])
    if edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype.kind not in "iu":
        raise DataError(f"edges of {name} has shape {edges.shape}: the rule is pairs of positions")
    weights = content.get("weights")
    if weights is not None and len(weights) != len(edges):
        raise DataError(f"{name} has {count_of(len(edges), 'edge')} and {len(weights)} weights")
    ends = [ids_to_text(edges[:, end]) for end in (0, 1)]
    node_ids = None
    if content.get("node_ids") is not None:
        node_ids = _ordered_ids(content["node_ids"], readings.num_nodes, name)
        outside = np.flatnonzero(((edges < 0) | (edges >= len(node_ids))).any(axis=1))
        if len(outside):
            edge = int(outside[0])
            raise DataError(
                f"edge {edge} of {name} is {edges[edge].tolist()} and leads to no node: the nodes "
                f"are 0..{len(node_ids) - 1}"
            )
        ends = [tuple(node_ids[node] for node in edges[:, end]) for end in (0, 1)]
    graph = RawEdges(
        name=name,
        source=ends[0],
        target=ends[1],
        value=None if weights is None else np.asarray(weights, dtype=np.float64),
    )
    return replace(readings, node_ids=node_ids, graph=graph)


def _node_link(content: dict[str, Any], name: str) -> Readings:
    nodes = _records(content["nodes"], "nodes", ("y",), name)
    links = _records(content["links"], "links", ("source", "target"), name)
    if not nodes:
        raise DataError(f"{name} has no nodes: there are no sensors")
    id_key = next((key for key in ("id", "bus_stop") if key in nodes[0]), None)
    if id_key is None:
        raise DataError(f"the nodes of {name} have no id (keys: {', '.join(nodes[0])})")
    lengths = {len(node["y"]) for node in nodes}
    if len(lengths) != 1:
        raise DataError(f"the series y of {name} have {sorted(lengths)} rows: they must be as long")
    readings = _series(np.asarray([node["y"] for node in nodes]).T, "y", name)
    weights = [link.get("weight") for link in links]
    graph = RawEdges(
        name=name,
        source=ids_to_text([link["source"] for link in links]),
        target=ids_to_text([link["target"] for link in links]),
        value=None if None in weights else np.asarray(weights, dtype=np.float64),
    )
    return replace(readings, node_ids=ids_to_text([node[id_key] for node in nodes]), graph=graph)


def _records(content: Any, key: str, fields: tuple[str, ...], name: str) -> list[dict[str, Any]]:
    """A list of objects that have the fields."""
    if not isinstance(content, list):
        raise DataError(f"{key} of {name} is a {type(content).__name__}: the rule is a list")
    for place, record in enumerate(content):
        if not isinstance(record, dict) or not all(field in record for field in fields):
            raise DataError(
                f"entry {place} of {key} of {name} is {str(record)[:40]}: the rule is an object "
                f"with {', '.join(fields)}"
            )
    return content


def _series(content: Any, key: str, name: str) -> Readings:
    array = np.asarray(content)
    if array.dtype.kind not in "iuf" or array.ndim != 2:
        raise DataError(
            f"{key} of {name} has shape {array.shape} of {array.dtype}: the rule is rows of numbers"
        )
    return open_array(array, f"{key} of {name}")


def _ordered_ids(ids: Any, num_nodes: int, name: str) -> tuple[str, ...]:
    places = sorted(ids.values()) if isinstance(ids, dict) else None
    if places != list(range(num_nodes)):
        raise DataError(
            f"node_ids of {name} must name each of the columns 0 to {num_nodes - 1} once"
        )
    return ids_to_text(sorted(ids, key=ids.__getitem__))
