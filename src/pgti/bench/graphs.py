"""A graph to measure on where none is given."""

import numpy as np
from scipy.spatial import cKDTree

from pgti.errors import require_whole_number
from pgti.graph import SensorGraph

__all__ = ["nearest_graph"]


def nearest_graph(num_nodes: int, degree: int = 8, seed: int = 0) -> SensorGraph:
    """Random points in a square, each with an edge to its nearest ones.

    As in the graphs of the traffic data sets, an edge to the point itself is among them, and
    weights are a Gaussian kernel of the distance. METR-LA has 8.3 edges a sensor so counted.

    Args:
        num_nodes: N, at least 1.
        degree: edges that leave each point, at least 1; all N where there are fewer points.
        seed: the same seed gives the same graph.

    Raises:
        ConfigError: if a number is less than its minimum.
    """
    require_whole_number("nodes", num_nodes, 1)
    require_whole_number("degree", degree, 1)
    degree = min(degree, num_nodes)
    points = np.random.default_rng(seed).random((num_nodes, 2))
    found, nearest = cKDTree(points).query(points, k=np.arange(1, degree + 1))
    distances = np.asarray(found)
    scale = distances[:, -1].mean() or 1.0
    return SensorGraph.from_edges(
        num_nodes,
        np.repeat(np.arange(num_nodes), degree),
        np.asarray(nearest).reshape(-1),
        np.exp(-((distances / scale) ** 2)).reshape(-1),
    )
