"""Random walks on a sensor graph, as sparse operators."""

import numpy as np
from scipy import sparse

from pgti.graph.sensor_graph import CsrMatrix, SensorGraph

__all__ = ["dual_random_walk", "random_walk"]


def random_walk(adjacency: CsrMatrix) -> CsrMatrix:
    """D^-1 A: every row divided by its sum; a row without edges stays zero.

    Args:
        adjacency: [N, N], not negative.

    Returns:
        [N, N] CSR, float32 (computed in float64).
    """
    weights: CsrMatrix = adjacency.tocsr().astype(np.float64)
    degrees = np.asarray(weights.sum(axis=1))
    # A sensor that leads nowhere has degree 0: its walk ends, instead of dividing by zero.
    inverse = np.divide(1.0, degrees, out=np.zeros_like(degrees), where=degrees > 0)
    walk: CsrMatrix = (sparse.diags_array(inverse) @ weights).tocsr().astype(np.float32)
    walk.sort_indices()
    return walk


def dual_random_walk(graph: SensorGraph) -> tuple[CsrMatrix, CsrMatrix]:
    """The two operators of diffusion convolution: along the edges, and against them.

    S_forward = (D_out^-1 A)^T and S_backward = (D_in^-1 A^T)^T, as in the released code of DCRNN
    (Li et al., ICLR 2018). `(S_forward @ x)[j]` gathers what walkers bring to j from the sources
    of its edges, so columns (not rows) sum to 1, or to 0 where a sensor has no edge that way.

    Returns:
        Two [N, N] CSR operators, float32.
    """
    forward = random_walk(graph.adjacency).T.tocsr()
    backward = random_walk(graph.adjacency.T.tocsr()).T.tocsr()
    forward.sort_indices()
    backward.sort_indices()
    return forward, backward
