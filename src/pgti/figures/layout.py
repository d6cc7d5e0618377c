"""Where the sensors of a graph are drawn: by their coordinates, or by their edges."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["graph_layout"]

_MAX_SPRING = 400  # a step of the spring layout takes time and memory of the square
_TOLERANCE = 1e-3


def graph_layout(adjacency: Any, coordinates: ArrayLike | None = None) -> NDArray[np.float64]:
    """Positions of the nodes of a graph on a plane, the same each time.

    With coordinates they are those of a map: longitudes are scaled by the cosine of the mean
    latitude, so that east and north have one scale. A node without finite coordinates has the
    position NaN. Without coordinates each connected part is laid out by its edges, by springs or,
    where it is large, by eigenvectors of its Laplacian, and the parts stand side by side; nodes
    without edges form a grid.

    Args:
        adjacency: sparse matrix [N, N] of weights that are not negative.
        coordinates: [N, 2], latitude and longitude in degrees, or None.

    Returns:
        [N, 2], horizontal and vertical, float64.
    """
    if coordinates is not None:
        latitude, longitude = np.asarray(coordinates, dtype=np.float64).T
        finite = np.isfinite(latitude)
        scale = np.cos(np.radians(latitude[finite].mean())) if finite.any() else 1.0
        return np.stack([longitude * scale, latitude], axis=1)
    from scipy import sparse  # noqa: PLC0415 - only graphs without coordinates need it
    from scipy.sparse import csgraph  # noqa: PLC0415

    matrix = sparse.csr_array(adjacency, dtype=np.float64)
    matrix = (matrix + matrix.T).tocsr()
    matrix.setdiag(0)
    matrix.eliminate_zeros()
    _, labels = csgraph.connected_components(matrix, directed=False)
    order = np.argsort(labels, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    parts.sort(key=lambda part: (-len(part), part[0]))
    positions = np.empty((matrix.shape[0], 2))
    for part, corner, side in zip(parts, *_shelves([len(part) for part in parts]), strict=True):
        inside = _layout_of_part(matrix[part][:, part]) if len(part) > 1 else np.full((1, 2), 0.5)
        positions[part] = corner + side * (0.1 + 0.8 * inside)
    return positions


def _shelves(sizes: list[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower left corner and side of a square for each part, in rows, the largest first."""
    sides = np.sqrt(np.array(sizes, dtype=np.float64))
    width = max(sides[0], np.ceil(np.sqrt((sides**2).sum())))
    corners = np.empty((len(sides), 2))
    x = top = height = 0.0
    for index, side in enumerate(sides.tolist()):
        if x + side > width + 1e-9:
            x, top, height = 0.0, top - height, 0.0
        height = max(height, side)
        corners[index] = x, top - side
        x += side
    return corners, sides


def _layout_of_part(matrix: Any) -> NDArray[np.float64]:
    """Positions of the nodes of a connected graph in the unit square."""
    count = matrix.shape[0]
    start = _spectral(matrix) if count > 3 else _circle(count)
    if count <= _MAX_SPRING:
        import networkx  # noqa: PLC0415 - comes with torch, and takes a while to import

        graph = networkx.from_scipy_sparse_array(matrix > 0)
        places = networkx.spring_layout(
            graph, pos=dict(enumerate(start * 2 - 1)), iterations=60, seed=0, weight=None
        )
        start = np.array([places[node] for node in range(count)])
    start = start - start.min(axis=0)
    return np.asarray(start / (start.max() or 1.0), dtype=np.float64)


def _circle(count: int) -> NDArray[np.float64]:
    angles = 2 * np.pi * np.arange(count) / count
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) / 2 + 0.5


def _spectral(matrix: Any) -> NDArray[np.float64]:
    """The second and third eigenvector of the Laplacian of random walks, by rank.

    Ranks spread what eigenvectors crowd together, and keep who is beside whom.
    """
    from scipy import sparse  # noqa: PLC0415
    from scipy.sparse import linalg  # noqa: PLC0415

    count = matrix.shape[0]
    binary = (matrix > 0).astype(np.float64)
    roots = 1 / np.sqrt(np.asarray(binary.sum(axis=1)).ravel())
    scaled = sparse.diags_array(roots) @ binary @ sparse.diags_array(roots)
    start = np.random.default_rng(0).standard_normal(count)
    wanted = min(3, count - 1)
    try:
        values, vectors = linalg.eigsh(
            scaled, k=wanted, which="LA", v0=start, tol=_TOLERANCE, ncv=min(count, 64), maxiter=60
        )
    except linalg.ArpackNoConvergence as error:
        values, vectors = error.eigenvalues, error.eigenvectors
    if vectors.shape[1] < 3:
        return _circle(count)
    chosen = vectors[:, np.argsort(-values)[1:3]] * roots[:, None]
    signs = np.sign(chosen[np.abs(chosen).argmax(axis=0), [0, 1]])
    ranks = (chosen * signs).argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
    return np.asarray(ranks / (count - 1), dtype=np.float64)
