"""Graphs built from distances, coordinates or a matrix."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.spatial import KDTree

from pgti.errors import DataError, option
from pgti.graph.sensor_graph import SensorGraph, merge_duplicate_edges

__all__ = [
    "WeighedEdges",
    "from_coordinates",
    "from_dense",
    "from_distances",
    "link_nearest",
    "weigh_distances",
]

_EARTH_RADIUS_KM = 6371.0088  # mean radius, IUGG
_SMALLEST_RELATIVE_SPREAD = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class WeighedEdges:
    """Edges and their weights by the thresholded Gaussian kernel.

    Attributes:
        source: positions of their sources, [E].
        target: positions of their targets, [E].
        weights: [E], 0 below the threshold.
        sigma: width of the kernel.
    """

    source: npt.NDArray[np.int64]
    target: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    sigma: float

    @property
    def num_below(self) -> int:
        """Number of edges below the threshold."""
        return int((self.weights == 0).sum())

    def graph(self, num_nodes: int) -> SensorGraph:
        """The graph of the other edges."""
        return SensorGraph.from_edges(num_nodes, self.source, self.target, self.weights)


def from_distances(
    num_nodes: int,
    source: npt.ArrayLike,
    target: npt.ArrayLike,
    distance: npt.ArrayLike,
    *,
    threshold: float = 0.1,
    sigma: float | None = None,
) -> SensorGraph:
    """The graph of the thresholded Gaussian kernel of distances.

    The weight of an edge is exp(-(distance / sigma)^2); edges with weights below `threshold` are
    dropped (Li et al., Diffusion Convolutional Recurrent Neural Network, ICLR 2018, section 4 and
    the released `gen_adj_mx.py`). It adds neither reverse edges nor self-loops.

    Args:
        num_nodes: number of sensors N.
        source: [E] integers in 0 .. N-1.
        target: [E] integers in 0 .. N-1.
        distance: [E] in any unit, not negative; an infinite one drops the edge.
        threshold: in 0 .. 1.
        sigma: width of the kernel in the unit of `distance`; None takes the (population) standard
            deviation of the finite distances.

    Raises:
        DataError: a distance is negative or NaN, an edge has two distances or an unknown node, all
            weights are below the threshold, or distances are equal and `sigma` is None.
    """
    edges = weigh_distances(num_nodes, source, target, distance, threshold=threshold, sigma=sigma)
    return edges.graph(num_nodes)


def weigh_distances(
    num_nodes: int,
    source: npt.ArrayLike,
    target: npt.ArrayLike,
    distance: npt.ArrayLike,
    *,
    threshold: float,
    sigma: float | None,
) -> WeighedEdges:
    """The edges of `from_distances`, which has the arguments and errors, and those that it drops.

    Edges of infinite distance are left out.
    """
    rows, columns, distances = merge_duplicate_edges(
        num_nodes, source, target, distance, "distance"
    )
    bad = ~(distances >= 0)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"edge {rows[first]} -> {columns[first]} has distance {distances[first]}: distances "
            "must be numbers of at least 0; correct or remove the edge"
        )
    finite = np.isfinite(distances)
    rows, columns, distances = rows[finite], columns[finite], distances[finite]
    if sigma is None and distances.size:
        sigma = float(distances.std())
        if sigma <= _SMALLEST_RELATIVE_SPREAD * float(distances.mean()):
            raise DataError(
                f"the {distances.size} finite distances have a standard deviation of {sigma:.3g}, "
                "which cannot be the width of the kernel: set "
                f"{option('sigma', _short(distances.mean()))}, their mean, or another in their unit"
            )
    sigma = 1.0 if sigma is None else sigma
    weights = _gaussian_kernel(distances, threshold, sigma)
    return WeighedEdges(source=rows, target=columns, weights=weights, sigma=sigma)


def from_coordinates(
    latlon: npt.ArrayLike,
    *,
    neighbours: int = 8,
    threshold: float = 0.1,
    sigma: float | None = None,
) -> SensorGraph:
    """The graph that links every sensor with its nearest ones, both ways.

    Two sensors are linked if either is among the `neighbours` nearest of the other by great-circle
    distance (on a sphere of 6371.0088 km); the weight is that of `from_distances`, or `threshold`
    where it is less, so that remote sensors have their neighbours too.

    Args:
        latlon: [N, 2] latitude and longitude in degrees.
        neighbours: at least 1; all other sensors if there are fewer.
        threshold: smallest weight; in 0 .. 1.
        sigma: width of the kernel in km; None takes the root mean square of the distances between
            linked sensors, which is positive also for evenly spaced sensors, unlike their standard
            deviation.

    Raises:
        DataError: coordinates are out of range, `neighbours` is below 1, or all sensors are in one
            place and `sigma` is None.
    """
    return link_nearest(latlon, neighbours=neighbours, threshold=threshold, sigma=sigma)[0]


def link_nearest(
    latlon: npt.ArrayLike, *, neighbours: int, threshold: float, sigma: float | None
) -> tuple[SensorGraph, WeighedEdges, npt.NDArray[np.float64]]:
    """The graph of `from_coordinates`, its edges with the kernel's weights, and their km [E]."""
    coordinates = np.asarray(latlon, dtype=np.float64)
    if coordinates.ndim != 2:
        raise DataError(
            f"coordinates have shape {coordinates.shape}: they must be [N, 2], a latitude and a "
            "longitude per sensor"
        )
    num_nodes = coordinates.shape[0]
    unlinked = SensorGraph.from_edges(num_nodes, [], [], coordinates=coordinates)
    if neighbours < 1:
        raise DataError(f"neighbours is {neighbours}: it must be at least 1")
    if num_nodes == 1:
        none = np.empty(0, dtype=np.int64)
        alone = WeighedEdges(source=none, target=none, weights=np.empty(0), sigma=1.0)
        return unlinked, alone, np.empty(0)
    rows, columns = _nearest(coordinates, min(neighbours, num_nodes - 1))
    # Both ways; a pair found from either end is merged.
    pairs = np.unique(
        np.stack([np.concatenate([rows, columns]), np.concatenate([columns, rows])]), axis=1
    )
    distances = _great_circle_km(coordinates[pairs[0]], coordinates[pairs[1]])
    if sigma is None:
        sigma = math.sqrt(float(np.mean(distances**2)))
        if sigma == 0.0:
            raise DataError(
                f"all {num_nodes} sensors have the same coordinates "
                f"{tuple(coordinates[0].tolist())}: set sigma, in km"
            )
    _check_kernel(threshold, sigma)
    weights = np.exp(-np.square(distances / sigma))
    edges = WeighedEdges(source=pairs[0], target=pairs[1], weights=weights, sigma=sigma)
    floored = np.maximum(weights, threshold)
    graph = SensorGraph.from_edges(
        num_nodes, edges.source, edges.target, floored, coordinates=coordinates
    )
    return graph, edges, distances


def from_dense(matrix: npt.ArrayLike) -> SensorGraph:
    """The graph of a dense [N, N] matrix: every entry that is not 0 is an edge.

    Raises:
        DataError: the matrix is not square, or an entry is negative, NaN or infinite.
    """
    dense = np.asarray(matrix)
    if dense.ndim != 2 or dense.dtype.kind not in "fiub":
        raise DataError(
            f"the matrix has shape {dense.shape} and type {dense.dtype}: it must be [N, N] numbers"
        )
    return SensorGraph(adjacency=sparse.csr_array(dense.astype(np.float64)))


def _check_kernel(threshold: float, sigma: float) -> None:
    if not 0 <= threshold <= 1:
        raise DataError(f"threshold is {threshold}: it must be in 0 .. 1, as weights are")
    if not (sigma > 0 and math.isfinite(sigma)):
        raise DataError(f"sigma is {sigma}: it must be positive and finite")


def _gaussian_kernel(
    distances: npt.NDArray[np.float64], threshold: float, sigma: float
) -> npt.NDArray[np.float64]:
    """Weights of edges, 0 where below the threshold."""
    _check_kernel(threshold, sigma)
    weights = np.exp(-np.square(distances / sigma))
    weights = np.where(weights >= threshold, weights, 0.0)
    if distances.size and not weights.any():
        raise DataError(
            f"none of {distances.size} edges has a weight of at least {threshold} (the nearest "
            f"has distance {distances.min():.4g}, sigma is {sigma:.4g}): set a larger "
            f"{option('sigma')} (the mean distance is {_short(distances.mean())}) or a lower "
            f"{option('threshold')}"
        )
    return weights


def _short(number: float) -> float:
    return float(f"{number:.4g}")


def _nearest(
    coordinates: npt.NDArray[np.float64], neighbours: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Every node with each of its nearest others."""
    latitude, longitude = np.radians(coordinates).T
    x, y = np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude)
    # Chords of the unit sphere are ordered as great-circle distances.
    points = np.stack([x, y, np.sin(latitude)], axis=1)
    others = np.asarray(KDTree(points).query(points, k=neighbours + 1)[1], dtype=np.int64)
    nodes = np.broadcast_to(np.arange(len(points))[:, None], others.shape)
    # Drop the node itself, or the farthest: of sensors in one place, a node may not be among its
    # own nearest.
    is_self = others == nodes
    is_self[:, -1] |= ~is_self.any(axis=1)
    return nodes[~is_self], others[~is_self]


def _great_circle_km(
    start: npt.NDArray[np.float64], end: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Great-circle distances in km by the haversine formula, exact for short ones."""
    (lat_a, lon_a), (lat_b, lon_b) = np.radians(start).T, np.radians(end).T
    haversine = (
        np.sin((lat_b - lat_a) / 2) ** 2
        + np.cos(lat_a) * np.cos(lat_b) * np.sin((lon_b - lon_a) / 2) ** 2
    )
    return np.asarray(2 * _EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.minimum(haversine, 1.0))))
