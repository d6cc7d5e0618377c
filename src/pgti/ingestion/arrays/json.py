"""PyTorch Geometric Temporal's data sets in JSON.

Chickenpox, windmill, PedalMe and Montevideo; those with an object for each period (WikiMaths and
Twitter tennis); MTM-1, with an object for each joint; and England's covid. JSON cannot be read in
pieces: these files are read whole, and are small.
"""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from pgti.display import count_of
from pgti.errors import DataError, option
from pgti.ingestion.arrays.memory import open_array
from pgti.ingestion.raw_graphs import RawEdges
from pgti.ingestion.readings import Readings, ids_to_text, reraise_read_errors, with_seconds
from pgti.ingestion.tables.text_files import open_text, parse_json

__all__ = ["open_json"]

_SERIES_KEYS = ("FX", "block", "X")
_SCHEMAS = (
    "edges with FX, block or X; time_periods with y in each of them; edges with an object of "
    "(x,y,z) for each node; nodes and links with y; edge_mapping with y"
)
_DATE = ("year", "month", "day")
_POINT = re.compile(r"\(([^,()]+),([^,()]+),([^,()]+)\)")


def open_json(path: Path, has_graph: bool) -> Readings:
    """Readings and graph in a JSON file of PyTorch Geometric Temporal, or its gzipped form.

    Raises:
        DataError: if the file follows none of the schemas, or its graph changes with time and
            none is given instead.
    """
    name = path.name
    with reraise_read_errors(name, "JSON"):
        with open_text(path) as file:
            content = parse_json(file, name)
        if not isinstance(content, dict):
            raise DataError(f"{name} holds a {type(content).__name__}: the rule is {_SCHEMAS}")
        if "nodes" in content and "links" in content:
            return _node_link(content, name)
        if "edge_mapping" in content:
            num_lists = len(content["edge_mapping"]["edge_index"])
            return _changing(_series(content["y"], "y", name), num_lists, has_graph)
        if "time_periods" in content and "0" in content:
            return _periods(content, name, has_graph)
        if "LABEL" in content and "0" in content and "edges" in content:
            return _static(content, _joints(content, name), name)
        series = next((key for key in _SERIES_KEYS if key in content), None)
        if series is None or "edges" not in content:
            keys = ", ".join(list(content)[:8]) or "nothing"
            raise DataError(f"{name} has the keys {keys}: the rule is {_SCHEMAS}")
        return _static(content, _series(content[series], series, name), name)


def _changing(readings: Readings, num_lists: int, has_graph: bool) -> Readings:
    """Readings whose graph changes with time, which go with a graph of the user's.

    Raises:
        DataError: if the user gives none.
    """
    if not has_graph:
        raise DataError(
            f"the graph of {readings.name} changes with time ({num_lists} edge lists), and a store "
            f"has one graph: give one with {option('graph')}"
        )
    note = f"the {num_lists} edge lists of {readings.name} were left out: a store has one graph"
    return replace(readings, notes=(note,))


def _periods(content: dict[str, Any], name: str, has_graph: bool) -> Readings:
    """One object for each period: `y` of every node, a date, and the edges if they change."""
    count = content["time_periods"]
    if not isinstance(count, int) or not 0 < count <= len(content):
        raise DataError(
            f"time_periods of {name} is {str(count)[:20]}: the rule is the number of periods"
        )
    periods = _records([content.get(str(row)) for row in range(count)], "periods", ("y",), name)
    if "edges" in content:
        readings = _static(content, _series([each["y"] for each in periods], "y", name), name)
        return _add_dates(readings, periods)
    readings = _series([each["y"] for each in periods], "y", name)
    if content.get("node_ids") is not None:
        ids = _ordered_ids(content["node_ids"], readings.num_nodes, name)
        readings = replace(readings, node_ids=ids)
    if any("X" in period for period in periods):
        note = f"X of {name}, features of nodes, was left out: its readings are y"
        readings = replace(readings, notes=(note,))
    changing = _changing(readings, count, has_graph)
    return _add_dates(replace(changing, notes=(*readings.notes, *changing.notes)), periods)


def _add_dates(readings: Readings, periods: list[dict[str, Any]]) -> Readings:
    """The readings with the year, month and day of each period, where they rise."""
    if not all(isinstance(period.get(key), int) for period in periods for key in _DATE):
        return readings
    dates = [
        datetime(period["year"], period["month"], period["day"], tzinfo=UTC) for period in periods
    ]
    wrong = [row for row in range(1, len(dates)) if dates[row] <= dates[row - 1]]
    if wrong:
        before, after = (f"{dates[row]:%Y-%m-%d}" for row in (wrong[0] - 1, wrong[0]))
        note = (
            f"the dates of {readings.name} do not rise ({after} in period {wrong[0]} follows "
            f"{before}) and were left out: give {option('start')} and {option('interval')}"
        )
        return replace(readings, notes=(*readings.notes, note))
    seconds = np.array([int(date.timestamp()) for date in dates], dtype=np.int64)
    return with_seconds(readings, seconds)


def _joints(content: dict[str, Any], name: str) -> Readings:
    """MTM-1: for each joint an object of frames, each the text "(x,y,z)"."""
    joints = [content[str(node)] for node in range(len(content)) if str(node) in content]
    points = []
    for node, frames in enumerate(joints):
        if not isinstance(frames, dict) or len(frames) != len(joints[0]):
            raise DataError(f"node {node} of {name} must have {len(joints[0])} frames, as node 0")
        matches = [_POINT.fullmatch(str(text).strip()) for text in frames.values()]
        if None in matches:
            raise DataError(
                f"node {node} of {name} has {list(frames.values())[matches.index(None)]!r}: the "
                "rule is (x,y,z)"
            )
        points.append([[float(text) for text in each.groups()] for each in matches if each])
    values = np.asarray(points).transpose(1, 0, 2)
    note = f"LABEL of {name}, a class for each row, was left out: a store has readings of sensors"
    return replace(open_array(values, name), channels=("x", "y", "z"), notes=(note,))


def _static(content: dict[str, Any], readings: Readings, name: str) -> Readings:
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
        value_name="weights",
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
        value_name="weight",
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
