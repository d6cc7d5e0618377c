"""A graph as a file gives it, before its nodes are matched with the sensors of the readings."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pgti.ingest.options import EdgeValues

__all__ = ["RawCoordinates", "RawEdges", "RawGraph", "RawMatrix", "is_distance_name"]

_DISTANCE_NAMES = ("cost", "distance", "dist", "length", "miles", "km", "meters", "metres")


def is_distance_name(name: str) -> bool:
    """Whether an array or column is called a distance: its last word says so, as in edge_miles."""
    words = re.findall("[a-z]+", name.lower())
    return bool(words) and words[-1] in _DISTANCE_NAMES


def _numbered_edge(edge: int) -> str:
    return f"edge {edge}"


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RawMatrix:
    """An adjacency (or distance) matrix [N, N]: entry (i, j) belongs to the edge i -> j.

    Args:
        name: what messages call the source.
        matrix: sparse, or dense where distances of zero must stay apart from "no edge".
        node_ids: ids of the rows, where the source has them.
        values: whether the entries are weights or distances.
        coordinates: [N, 2] latitude and longitude, where the source has them.
    """

    name: str
    matrix: "sp.csr_array[Any] | NDArray[Any]"
    node_ids: tuple[str, ...] | None = None
    values: EdgeValues = "weight"
    coordinates: NDArray[np.float64] | None = None


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RawEdges:
    """A list of edges whose ends are sensor ids or positions.

    Args:
        name: what messages call the source.
        source: label of each edge's source, text [E].
        target: label of each edge's target, text [E].
        value: weight or distance of each edge [E], or None for weight 1.
        values: whether `value` holds weights or distances.
        coordinates: [N, 2] latitude and longitude of the readings' sensors, where known.
        is_topology: whether every edge listed is to be kept, so that the kernel only weighs edges;
            in a table of distances it also decides which pairs are edges.
        edge_label: how messages call edge `i`.
    """

    name: str
    source: tuple[str, ...]
    target: tuple[str, ...]
    value: NDArray[np.float64] | None = None
    values: EdgeValues = "weight"
    coordinates: NDArray[np.float64] | None = None
    is_topology: bool = False
    edge_label: Callable[[int], str] = _numbered_edge


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RawCoordinates:
    """Positions of sensors, to be joined with their nearest neighbours.

    Args:
        name: what messages call the source.
        latlon: latitude and longitude in degrees, [N, 2].
        node_ids: ids of the rows, where the source has them.
    """

    name: str
    latlon: NDArray[np.float64]
    node_ids: tuple[str, ...] | None = None


RawGraph = RawMatrix | RawEdges | RawCoordinates
