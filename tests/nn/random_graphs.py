"""Random graphs for layers."""

import numpy as np

from pgti.graph import SensorGraph, from_dense


def asymmetric_graph(num_nodes: int, density: float = 0.4, seed: int = 0) -> SensorGraph:
    """An asymmetric weighted graph whose last node is isolated."""
    generator = np.random.default_rng(seed)
    size = (num_nodes, num_nodes)
    matrix = generator.random(size) * (generator.random(size) < density)
    matrix[-1] = 0
    matrix[:, -1] = 0
    return from_dense(matrix)
