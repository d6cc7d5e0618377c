"""`Edges`: a graph as PGT has it, sources and targets [2, E] and weights [E]."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pgti.display import count_of
from pgti.errors import DataError
from pgti.graph import SensorGraph

__all__ = ["Edges"]


@dataclass(frozen=True, eq=False, slots=True)
class Edges:
    """Directed edges, self loops included.

    Attributes:
        index: sources and targets, int64 [2, E].
        weight: float32 or float64 [E], not negative.
    """

    index: Tensor
    weight: Tensor

    @classmethod
    def from_graph(cls, graph: SensorGraph) -> "Edges":
        """The edges of a store's graph, by source, then target."""
        return cls(torch.from_numpy(graph.edge_index), torch.from_numpy(graph.edge_weight.copy()))

    @classmethod
    def from_matrix(cls, matrix: NDArray[Any], num_nodes: int, name: str) -> "Edges":
        """The entries of a matrix of weights [N, N] that are not 0, by source, then target.

        Raises:
            DataError: if the matrix has another shape, or an entry cannot be a weight.
        """
        if matrix.shape != (num_nodes, num_nodes) or matrix.dtype.kind not in "biuf":
            raise DataError(
                f"{name} holds {matrix.dtype} {matrix.shape} and the readings are of {num_nodes} "
                f"sensors: it must be numbers [{num_nodes}, {num_nodes}]"
            )
        index = np.stack(np.nonzero(matrix))
        return _check_weights(index, matrix[index[0], index[1]], name)

    @classmethod
    def from_pairs(
        cls, pairs: ArrayLike, weights: ArrayLike | None, num_nodes: int, name: str
    ) -> "Edges":
        """Edges in the order of a list: source and target [E, 2], weights [E] or None for 1.

        Raises:
            DataError: if they are no pairs of sensors, or a weight cannot be one.
        """
        places = np.asarray(pairs)
        if places.ndim != 2 or places.shape[1] != 2 or places.dtype.kind not in "iu":
            raise DataError(
                f"edges of {name} has shape {places.shape}: the rule is pairs of positions"
            )
        outside = ((places < 0) | (places >= num_nodes)).any(axis=1)
        if outside.any():
            edge = int(np.argmax(outside))
            raise DataError(
                f"edge {edge} of {name} is {places[edge].tolist()}: the {num_nodes} sensors are "
                f"numbered 0 to {num_nodes - 1}"
            )
        values = np.ones(len(places), np.float32) if weights is None else np.asarray(weights)
        if values.shape != (len(places),):
            raise DataError(
                f"{name} has {count_of(len(places), 'edge')} and weights of shape {values.shape}"
            )
        return _check_weights(places.T, values.astype(np.float32), name)

    def in_order(self) -> "Edges":
        """The same edges by source, then target, their weights in float32."""
        order = torch.from_numpy(np.lexsort((self.index[1].numpy(), self.index[0].numpy())))
        return Edges(self.index[:, order], self.weight[order].to(torch.float32))

    def repeat(self, count: int, num_nodes: int) -> "Edges":
        """The edges of `count` copies of a graph of N nodes, copy i on the nodes from i N on."""
        first_nodes = torch.arange(count, device=self.index.device) * num_nodes
        index = self.index.unsqueeze(1) + first_nodes.view(1, -1, 1)
        return Edges(index.flatten(1), self.weight.repeat(count))

    def to_matrix(self, num_nodes: int) -> Tensor:
        """[N, N], with the weight of the edge i -> j in row i."""
        matrix = self.weight.new_zeros(num_nodes, num_nodes)
        return matrix.index_put((self.index[0], self.index[1]), self.weight)


def _check_weights(index: NDArray[Any], weights: NDArray[Any], name: str) -> Edges:
    bad = ~np.isfinite(weights) | (weights < 0)
    if bad.any():
        edge = int(np.argmax(bad))
        source, target = index[:, edge]
        raise DataError(
            f"the edge {source} -> {target} of {name} has the weight {weights[edge]}: weights are "
            "finite and not negative"
        )
    return Edges(
        torch.from_numpy(np.ascontiguousarray(index, dtype=np.int64)),
        torch.from_numpy(np.ascontiguousarray(weights)),
    )
