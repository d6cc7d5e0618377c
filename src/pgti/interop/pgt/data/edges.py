"""The edges of PGT's data sets, as tensors: sources and targets [2, E], weights [E]."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pgti.errors import DataError
from pgti.graph import SensorGraph
from pgti.ingest.npy import read_header
from pgti.ingest.readings import ids_to_text, reraise_read_errors
from pgti.ingest.safe_pickle import load_pickle

__all__ = [
    "Edges",
    "aligned",
    "dense_edges",
    "graph_edges",
    "listed_edges",
    "load_matrix",
    "load_pickled_matrix",
]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Edges:
    """Directed edges, self-loops among them if the file has some.

    Args:
        index: sources and targets, int64 [2, E].
        weight: float32 or float64 [E], not negative.
    """

    index: Tensor
    weight: Tensor

    def in_order(self) -> "Edges":
        """The same edges by source, then target, their weights in float32."""
        order = np.lexsort((self.index[1].numpy(), self.index[0].numpy()))
        places = torch.from_numpy(order)
        return Edges(index=self.index[:, places], weight=self.weight[places].to(torch.float32))


def dense_edges(matrix: NDArray[Any], num_nodes: int, name: str) -> Edges:
    """The entries of a matrix [N, N] that are not 0, by source, then target.

    Raises:
        DataError: if the matrix has another shape, or an entry cannot be a weight.
    """
    if matrix.shape != (num_nodes, num_nodes) or matrix.dtype.kind not in "biuf":
        raise DataError(
            f"{name} holds {matrix.dtype} {matrix.shape} and the readings are of {num_nodes} "
            f"sensors: it must be numbers [{num_nodes}, {num_nodes}]"
        )
    index = np.stack(np.nonzero(matrix))
    weights = matrix[index[0], index[1]]
    return _checked(index, weights, name)


def listed_edges(edges: ArrayLike, weights: ArrayLike | None, num_nodes: int, name: str) -> Edges:
    """Edges as pairs [E, 2], in the order of the file; without weights each has the weight 1.

    Raises:
        DataError: if they are no pairs of sensors, or a weight cannot be one.
    """
    pairs = np.asarray(edges)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise DataError(f"edges of {name} has shape {pairs.shape}: the rule is pairs of positions")
    outside = ((pairs < 0) | (pairs >= num_nodes)).any(axis=1)
    if outside.any():
        edge = int(np.argmax(outside))
        raise DataError(
            f"edge {edge} of {name} is {pairs[edge].tolist()}: the {num_nodes} sensors are "
            f"numbered 0 to {num_nodes - 1}"
        )
    values = np.ones(len(pairs), np.float32) if weights is None else np.asarray(weights)
    if values.shape != (len(pairs),):
        raise DataError(f"{name} has {len(pairs)} edges and weights of shape {values.shape}")
    return _checked(pairs.T, values.astype(np.float32), name)


def graph_edges(graph: SensorGraph) -> Edges:
    """The edges of a store's graph, by source, then target."""
    return Edges(
        index=torch.from_numpy(graph.edge_index), weight=torch.from_numpy(graph.edge_weight.copy())
    )


def _checked(index: NDArray[Any], weights: NDArray[Any], name: str) -> Edges:
    bad = ~np.isfinite(weights) | (weights < 0)
    if bad.any():
        edge = int(np.argmax(bad))
        source, target = index[:, edge]
        raise DataError(
            f"the edge {source} -> {target} of {name} has the weight {weights[edge]}: weights are "
            "finite and not negative"
        )
    return Edges(
        index=torch.from_numpy(np.ascontiguousarray(index, dtype=np.int64)),
        weight=torch.from_numpy(np.ascontiguousarray(weights)),
    )


def load_matrix(path: Path) -> NDArray[Any]:
    """The array in an `.npy` file.

    Raises:
        DataError: if it is damaged or holds Python objects.
    """
    with reraise_read_errors(path.name, "a NumPy array"):
        with path.open("rb") as file:
            read_header(file).check_size(path.name, path.stat().st_size)
        matrix: NDArray[Any] = np.load(path, allow_pickle=False)
    return matrix


def load_pickled_matrix(path: Path) -> tuple[tuple[str, ...] | None, NDArray[Any]]:
    """Sensor ids, if it has them, and matrix of DCRNN's `adj_mx.pkl`; nothing in it is run.

    Raises:
        DataError: if it is not (sensor ids, position of each id, matrix).
    """
    content = load_pickle(path)
    if not isinstance(content, list | tuple) or len(content) != 3:
        raise DataError(
            f"{path.name} holds a {type(content).__name__}: the rule is (sensor ids, position of "
            "each id, matrix)"
        )
    ids, _, matrix = content
    if not isinstance(matrix, np.ndarray):
        raise DataError(f"{path.name} holds a {type(matrix).__name__} where the matrix should be")
    has_ids = isinstance(ids, list | tuple | np.ndarray) and len(ids) == len(matrix)
    return ids_to_text(list(ids)) if has_ids else None, matrix


def aligned(
    matrix: NDArray[Any], ids: tuple[str, ...] | None, wanted: tuple[str, ...]
) -> NDArray[Any]:
    """The matrix with rows and columns in the order of the wanted ids.

    PGT takes for granted that both files have one order. Where the ids say otherwise they are
    believed; where they are not the same ids, in whatever order, they say nothing.
    """
    if ids is None or ids == wanted or sorted(ids) != sorted(wanted):
        return matrix
    place = {label: position for position, label in enumerate(ids)}
    order = np.array([place[label] for label in wanted])
    reordered: NDArray[Any] = matrix[np.ix_(order, order)]
    return reordered
