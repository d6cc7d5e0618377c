"""Sparse operators of a sensor graph, for graph convolutions."""

import numpy as np
from scipy import sparse
from scipy.sparse import linalg as sparse_linalg

from pgti.graph.sensor_graph import CsrMatrix, SensorGraph

__all__ = ["dual_random_walk", "random_walk", "renormalized_adjacency", "scaled_laplacian"]

_DENSE_EIGENVALUES_UP_TO = 64  # nodes; the iterative solver needs more than a few


def random_walk(adjacency: CsrMatrix) -> CsrMatrix:
    """D^-1 A: every row divided by its sum, or zero in a row without edges.

    Args:
        adjacency: [N, N], not negative.

    Returns:
        [N, N] CSR, float32 (computed in float64).
    """
    weights: CsrMatrix = adjacency.tocsr().astype(np.float64)
    degrees = np.asarray(weights.sum(axis=1))
    inverse = np.divide(1.0, degrees, out=np.zeros_like(degrees), where=degrees > 0)
    walk: CsrMatrix = (sparse.diags_array(inverse) @ weights).tocsr().astype(np.float32)
    walk.sort_indices()
    return walk


def dual_random_walk(graph: SensorGraph) -> tuple[CsrMatrix, CsrMatrix]:
    """The two operators of diffusion convolution: along the edges, and against them.

    S_forward = (D_out^-1 A)^T and S_backward = (D_in^-1 A^T)^T, as in the released code of DCRNN
    (Li et al., ICLR 2018). `(S_forward @ x)[j]` gathers from the sources of j's edges, so columns
    (not rows) sum to 1, or to 0 for a sensor without such edges.

    Returns:
        Two [N, N] CSR operators, float32.
    """
    forward = random_walk(graph.adjacency).T.tocsr()
    backward = random_walk(graph.adjacency.T.tocsr()).T.tocsr()
    forward.sort_indices()
    backward.sort_indices()
    return forward, backward


def renormalized_adjacency(graph: SensorGraph) -> CsrMatrix:
    """D^-1/2 (A + I)^T D^-1/2, D the row sums of A + I (Kipf & Welling, ICLR 2017, section 2.2).

    On a directed graph the transpose is what the released code of T-GCN computes: `(S @ x)[j]`
    gathers from the sources of j's edges. A self-loop in A counts beside the added one.

    Returns:
        [N, N] CSR, float32 (computed in float64).
    """
    weights: CsrMatrix = graph.adjacency.tocsr().astype(np.float64)
    weights = (weights + sparse.eye_array(graph.num_nodes)).T.tocsr()
    scale = sparse.diags_array(1 / np.sqrt(np.asarray(weights.sum(axis=0))))
    normalized: CsrMatrix = (scale @ weights @ scale).tocsr().astype(np.float32)
    normalized.sort_indices()
    return normalized


def scaled_laplacian(graph: SensorGraph, *, self_loops: bool = False) -> CsrMatrix:
    """2 L / lambda_max - I of the normalized Laplacian L = I - D^-1/2 W D^-1/2.

    The operator of Chebyshev filters (Defferrard et al., NeurIPS 2016, section 2.1), whose
    eigenvalues lie in [-1, 1]. It is defined for undirected graphs: W is the larger of A and A^T.
    A sensor without edges has L = 1.

    Args:
        graph: N sensors.
        self_loops: keep the graph's self loops in W, as common ports of STGCN do; a Laplacian is
            defined without them.

    Returns:
        [N, N] CSR, float32 (computed in float64).
    """
    adjacency: CsrMatrix = graph.adjacency.tocsr().astype(np.float64)
    weights = adjacency.maximum(adjacency.T).tocsr()
    if not self_loops:
        weights.setdiag(0)
        weights.eliminate_zeros()
    identity = sparse.eye_array(graph.num_nodes, format="csr")
    degrees = np.asarray(weights.sum(axis=1))
    roots = np.divide(1.0, np.sqrt(degrees), out=np.zeros_like(degrees), where=degrees > 0)
    scale = sparse.diags_array(roots)
    laplacian = (identity - scale @ weights @ scale).tocsr()
    scaled: CsrMatrix = (2 / _largest_eigenvalue(laplacian) * laplacian - identity).tocsr()
    scaled = scaled.astype(np.float32)
    scaled.sort_indices()
    return scaled


def _largest_eigenvalue(laplacian: CsrMatrix) -> float:
    """Of a symmetric matrix; deterministic."""
    num_nodes = laplacian.shape[0]
    if num_nodes <= _DENSE_EIGENVALUES_UP_TO:
        return float(np.linalg.eigvalsh(laplacian.toarray())[-1])
    start = np.random.default_rng(0).random(num_nodes)
    try:
        # If the eigenvalue is slightly too small, the scaled ones exceed 1 by the same factor.
        values = sparse_linalg.eigsh(laplacian, k=1, which="LA", v0=start, tol=1e-4, ncv=40)[0]
    except sparse_linalg.ArpackNoConvergence:
        return 2.0  # the largest possible eigenvalue of a normalized Laplacian
    return float(values[0])
