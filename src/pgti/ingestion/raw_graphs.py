"""Graphs as sources give them, before their nodes are matched with the sensors of the readings."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = ["Ids", "RawCoordinates", "RawEdges", "RawGraph", "RawMatrix"]

Ids: TypeAlias = tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RawMatrix:
    """An adjacency (or distance) matrix [N, N]: entry (i, j) belongs to the edge i -> j.

    Attributes:
        name: what messages call the source.
        matrix: sparse, or dense where distances of zero must stay apart from "no edge".
        node_ids: ids of the rows, where the source has them.
        coordinates: [N, 2] latitude and longitude, where the source has them.
        are_weights: whether the entries are weights, whatever the options say.
        notes: what a user should know of how the source was read, one line each.
    """

    name: str
    matrix: "sp.csr_array[Any] | NDArray[Any]"
    node_ids: Ids = None
    coordinates: NDArray[np.float64] | None = None
    are_weights: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        dtype = self.matrix.dtype
        if not dtype.isnative or dtype == np.float16:  # which SciPy does not take
            matrix = self.matrix.astype(np.result_type(dtype, np.float32))
            object.__setattr__(self, "matrix", matrix)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RawEdges:
    """A list of edges whose ends are sensor ids or positions.

    Attributes:
        name: what messages call the source.
        source: label of each edge's source, text [E].
        target: label of each edge's target, text [E].
        value: weight or distance of each edge [E], or None for weight 1.
        value_name: what the source calls the values, where it names them.
        coordinates: [N, 2] latitude and longitude, where known: of the nodes in `node_ids`, or of
            the readings' sensors where that is None.
        is_topology: whether every listed edge is an edge of the graph, so that the kernel only
            weighs them; in a table of distances it also decides which pairs are edges.
        edge_label: what messages call edge `i`, its source included; None numbers the edges.
        node_ids: ids of all nodes, where the source lists them.
        by_position: whether the labels are positions among the readings' sensors, never their ids.
        notes: what a user should know of how the source was read, one line each.
    """

    name: str
    source: tuple[str, ...]
    target: tuple[str, ...]
    value: NDArray[np.float64] | None = None
    value_name: str | None = None
    coordinates: NDArray[np.float64] | None = None
    is_topology: bool = False
    edge_label: Callable[[int], str] | None = None
    node_ids: Ids = None
    by_position: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RawCoordinates:
    """Positions of sensors, to be joined with their nearest neighbours.

    Attributes:
        name: what messages call the source.
        latlon: latitude and longitude in degrees, [N, 2].
        node_ids: ids of the rows, where the source has them.
        notes: what a user should know of how the source was read, one line each.
    """

    name: str
    latlon: NDArray[np.float64]
    node_ids: Ids = None
    notes: tuple[str, ...] = ()


RawGraph: TypeAlias = RawMatrix | RawEdges | RawCoordinates
