"""The two operators that PyTorch Geometric Temporal's DCRNN multiplies with; not random walks."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from pgti.graph.sensor_graph import CsrMatrix, SensorGraph

__all__ = ["pgt_legacy_operators"]


def pgt_legacy_operators(graph: SensorGraph) -> tuple[CsrMatrix, CsrMatrix]:
    """What `DConv` and `BatchedDConv` of PGT 0.56.2 compute in place of the two random walks.

    For networks that were trained with them; `dual_random_walk` is diffusion convolution. With the
    edges (r_i, c_i), i = 0 .. E-1, in the order of PGT's loaders (by source, then target), weights
    w_i, and D the weighted degrees:

        forward    y[c_i] += x[r_i] / D_out[r_i]
        backward   y[r'_i] += x[c'_i] / D_in[r_i]     (r'_i, c'_i) the edges by target, then source

    So no weight is in a numerator, and the backward operator divides an edge by the degree of
    another edge's source. Neither conserves what it spreads: columns do not sum to 1.

    Where a degree is 0, PGT divides by it and its output is infinite or NaN; here the term is 0.

    Returns:
        Two [N, N] CSR operators, float32 (computed in float64).
    """
    edges = graph.adjacency.tocoo()
    sources, targets = edges.coords
    weights: CsrMatrix = graph.adjacency.astype(np.float64)
    out_degree, in_degree = (np.asarray(weights.sum(axis=axis)) for axis in (1, 0))
    by_target = np.lexsort((sources, targets))
    size = (graph.num_nodes, graph.num_nodes)
    forward: CsrMatrix = sparse.csr_array((_inverse(out_degree)[sources], (targets, sources)), size)
    backward: CsrMatrix = sparse.csr_array(
        (_inverse(in_degree)[sources], (sources[by_target], targets[by_target])), size
    )
    for operator in (forward, backward):
        operator.eliminate_zeros()
        operator.sort_indices()
    return forward.astype(np.float32), backward.astype(np.float32)


def _inverse(degree: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """1 / degree, and 0 where that is 0."""
    inverse = np.zeros(len(degree))
    np.divide(1.0, degree, out=inverse, where=degree > 0)
    return inverse
