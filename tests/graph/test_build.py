"""Graphs built from distances, coordinates and matrices, against values worked out by hand."""

import math

import numpy as np
import pytest

from pgti.errors import DataError
from pgti.graph import from_coordinates, from_dense, from_distances

KM_PER_DEGREE = 6371.0088 * math.pi / 180


def test_distances_pass_through_the_gaussian_kernel() -> None:
    """Distances 1, 2, 3, 10: sigma is their standard deviation, sqrt(12.5); exp(-8) is no edge."""
    graph = from_distances(3, [0, 1, 2, 0], [1, 2, 0, 2], [1.0, 2.0, 3.0, 10.0])
    expected = np.zeros((3, 3))
    expected[0, 1], expected[1, 2], expected[2, 0] = np.exp(-np.array([1.0, 4.0, 9.0]) / 12.5)
    np.testing.assert_allclose(graph.adjacency.toarray(), expected, rtol=1e-6)


def test_infinite_distances_are_no_edges_and_do_not_count() -> None:
    """An infinite distance changes neither sigma nor the graph."""
    with_infinite = from_distances(3, [0, 1, 2], [1, 2, 0], [1.0, 3.0, np.inf])
    without = from_distances(3, [0, 1], [1, 2], [1.0, 3.0])
    assert (with_infinite.adjacency != without.adjacency).nnz == 0
    np.testing.assert_allclose(without.edge_weight, [math.exp(-1)], rtol=1e-6)


def test_sigma_and_threshold_can_be_given() -> None:
    """With sigma 2, distances 2 and 4 weigh exp(-1) and exp(-4), kept from threshold 0.01."""
    source, target, distance = [0, 1], [1, 0], [2.0, 4.0]
    kept = from_distances(2, source, target, distance, sigma=2.0, threshold=0.01)
    np.testing.assert_allclose(kept.edge_weight, np.exp([-1.0, -4.0]), rtol=1e-6)
    assert from_distances(2, source, target, distance, sigma=2.0, threshold=0.3).num_edges == 1


def test_no_distances_make_an_empty_graph() -> None:
    """Nothing given is no mistake."""
    assert from_distances(4, [], [], []).num_edges == 0


@pytest.mark.parametrize(
    ("distance", "options", "words"),
    [
        ([1.0, -2.0], {}, r"edge 1 -> 2 has distance -2\.0"),
        ([1.0, np.nan], {}, "edge 1 -> 2 has distance nan"),
        ([3.0, 3.0], {}, "2 finite distances have a standard deviation of 0.*set sigma"),
        ([1.0, 2.0], {"sigma": 0.0}, r"sigma is 0\.0"),
        ([1.0, 2.0], {"sigma": math.inf}, "sigma is inf"),
        ([1.0, 2.0], {"threshold": 1.5}, r"threshold is 1\.5"),
        ([5.0, 6.0], {"sigma": 1.0}, "none of 2 edges has a weight of at least 0.1"),
    ],
)
def test_bad_distances_are_refused(
    distance: list[float], options: dict[str, float], words: str
) -> None:
    """Each error names the value and what to do."""
    with pytest.raises(DataError, match=words):
        from_distances(3, [0, 1], [1, 2], distance, **options)


def test_conflicting_distances_are_refused() -> None:
    """The same edge with two distances is a mistake, even where both would be cut off."""
    with pytest.raises(DataError, match="edge 0 -> 1 appears twice, with distance"):
        from_distances(2, [0, 0, 1], [1, 1, 0], [90.0, 80.0, 1.0], sigma=1.0)


def test_coordinates_link_nearest_neighbours_both_ways() -> None:
    """On a meridian at 0, 1, 3 and 7 degrees with one neighbour each, the chain 0-1-2-3 appears."""
    graph = from_coordinates(
        [[0.0, 10.0], [1.0, 10.0], [3.0, 10.0], [7.0, 10.0]],
        neighbours=1,
        threshold=0.0,
        sigma=2 * KM_PER_DEGREE,
    )
    expected = np.zeros((4, 4))
    for (a, b), degrees in {(0, 1): 1.0, (1, 2): 2.0, (2, 3): 4.0}.items():
        expected[a, b] = expected[b, a] = math.exp(-((degrees / 2) ** 2))
    np.testing.assert_allclose(graph.adjacency.toarray(), expected, rtol=1e-6)
    assert graph.coordinates is not None


def test_distances_are_those_of_the_sphere() -> None:
    """Across the date line at 60 degrees north, 2 degrees of longitude are about 1 of latitude."""
    graph = from_coordinates(
        [[60.0, 179.0], [60.0, -179.0]], neighbours=1, sigma=100.0, threshold=0.0
    )
    half_angle = math.asin(math.cos(math.radians(60)) * math.sin(math.radians(1)))
    distance = 2 * 6371.0088 * half_angle
    np.testing.assert_allclose(graph.edge_weight, math.exp(-((distance / 100) ** 2)), rtol=1e-5)


def test_evenly_spaced_sensors_keep_their_edges() -> None:
    """The default width is the root mean square, so equal distances weigh exp(-1)."""
    graph = from_coordinates([[0.0, float(i)] for i in range(4)], neighbours=1)
    np.testing.assert_allclose(graph.edge_weight, math.exp(-1), rtol=1e-5)


def test_sensors_in_one_place_are_neighbours() -> None:
    """Twins link to one another with weight 1 and never to themselves."""
    graph = from_coordinates([[1.0, 1.0]] * 3 + [[1.0, 1.2]], neighbours=2, sigma=10.0)
    assert graph.adjacency.diagonal().sum() == 0
    np.testing.assert_array_equal(graph.adjacency.toarray()[:3, :3], 1 - np.eye(3))


def test_few_sensors_have_few_neighbours() -> None:
    """More neighbours than sensors means all of them; one sensor has none."""
    assert from_coordinates([[0.0, 0.0], [0.0, 1.0]], neighbours=8).num_edges == 2
    assert from_coordinates([[0.0, 0.0]]).num_edges == 0


def test_bad_coordinates_are_refused() -> None:
    """Wrong shape, wrong range, no neighbours, and all sensors in one place."""
    with pytest.raises(DataError, match=r"shape \(4,\)"):
        from_coordinates([1.0, 2.0, 3.0, 4.0])
    with pytest.raises(DataError, match="node 0 has coordinates"):
        from_coordinates([[95.0, 0.0], [0.0, 0.0]])
    with pytest.raises(DataError, match="neighbours is 0"):
        from_coordinates([[0.0, 0.0], [0.0, 1.0]], neighbours=0)
    with pytest.raises(DataError, match="all 2 sensors have the same coordinates"):
        from_coordinates([[5.0, 6.0], [5.0, 6.0]])


def test_dense_matrices_become_graphs() -> None:
    """Every non-zero entry is an edge; what is not a square of numbers is refused."""
    matrix = np.array([[0.0, 2.0], [0.5, 1.0]])
    np.testing.assert_array_equal(from_dense(matrix).adjacency.toarray(), matrix)
    with pytest.raises(DataError, match=r"shape \(2, 3\)"):
        from_dense(np.ones((2, 3)))
    with pytest.raises(DataError, match="edge 1 -> 0 has weight nan"):
        from_dense([[0.0, 1.0], [np.nan, 0.0]])
    with pytest.raises(DataError, match=r"\[N, N\] numbers"):
        from_dense([["a"]])
