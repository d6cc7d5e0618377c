"""The road-like graph."""

import numpy as np
import pytest
from scipy.sparse import csgraph

from pgti.datasets.simulated import road_graph


def _miles(coordinates: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    latitude, longitude = np.radians(coordinates[target] - coordinates[source]).T
    shrink = np.cos(np.radians(coordinates[source, 0]))
    return 3959 * np.hypot(latitude, longitude * shrink)


@pytest.mark.parametrize("num_sensors", [1, 2, 3, 7, 64, 325, 2000])
def test_is_a_directed_road_network(num_sensors: int) -> None:
    """Every size gives a graph of that size, with few edges a node, none to itself."""
    graph = road_graph(num_sensors, seed=1)
    assert graph.num_nodes == num_sensors
    assert graph.coordinates is not None
    assert graph.coordinates.shape == (num_sensors, 2)
    source, target = graph.edge_index
    assert (source != target).all()
    assert 1.4 * (num_sensors - 2) <= graph.num_edges <= 3 * num_sensors
    assert ((graph.edge_weight >= 0.1) & (graph.edge_weight <= 1)).all()


def test_freeways_are_joined() -> None:
    """Ramps make one network of the freeways of the example, and two directions stay apart."""
    graph = road_graph(64, seed=1)
    assert csgraph.connected_components(graph.adjacency, connection="weak")[0] == 1
    both_ways = graph.adjacency.multiply(graph.adjacency.T)
    assert both_ways.nnz == 0


def test_weights_follow_the_distance() -> None:
    """Sensors that are joined lie near each other, and the nearer the heavier the edge."""
    graph = road_graph(325, seed=2)
    assert graph.coordinates is not None
    miles = _miles(graph.coordinates, *graph.edge_index)
    assert miles.max() < 1.7
    assert np.corrcoef(miles, graph.edge_weight)[0, 1] < -0.9


def test_same_seed_same_graph() -> None:
    """The graph is a function of size and seed."""
    first, again, other = (road_graph(100, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.edge_weight, again.edge_weight)
    assert first.coordinates is not None
    assert again.coordinates is not None
    np.testing.assert_array_equal(first.coordinates, again.coordinates)
    assert (
        first.adjacency.nnz != other.adjacency.nnz
        or (first.adjacency.data != other.adjacency.data).any()
    )
