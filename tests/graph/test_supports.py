"""Operators of a graph: what they sum to, and which way they carry information."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pgti.graph import (
    SensorGraph,
    dual_random_walk,
    from_dense,
    random_walk,
    renormalized_adjacency,
    scaled_laplacian,
)


def random_graph(num_nodes: int, seed: int) -> SensorGraph:
    """An asymmetric weighted graph whose last node is isolated."""
    generator = np.random.default_rng(seed)
    matrix = generator.random((num_nodes, num_nodes)) * (
        generator.random((num_nodes, num_nodes)) < 0.4
    )
    matrix[-1] = 0
    matrix[:, -1] = 0
    return from_dense(matrix)


@settings(deadline=None)
@given(num_nodes=st.integers(1, 20), seed=st.integers(0, 1000))
def test_walks_conserve_what_they_carry(num_nodes: int, seed: int) -> None:
    """Rows of a walk, so columns of a support, sum to 1, or to 0 where there is no edge."""
    graph = random_graph(num_nodes, seed)
    dense = graph.adjacency.toarray()
    walk = random_walk(graph.adjacency)
    has_out, has_in = dense.sum(axis=1) > 0, dense.sum(axis=0) > 0
    np.testing.assert_allclose(walk.toarray().sum(axis=1), has_out, atol=1e-6)
    forward, backward = dual_random_walk(graph)
    np.testing.assert_allclose(forward.toarray().sum(axis=0), has_out, atol=1e-6)
    np.testing.assert_allclose(backward.toarray().sum(axis=0), has_in, atol=1e-6)
    for support in (walk, forward, backward):
        assert support.dtype == np.float32
        assert np.isfinite(support.data).all()
        assert support.toarray()[-1].sum() == support.toarray()[:, -1].sum() == 0


def test_supports_equal_the_formula() -> None:
    """S_forward = (D_out^-1 A)^T and S_backward = (D_in^-1 A^T)^T on a graph worked by hand."""
    graph = SensorGraph.from_edges(4, [0, 0, 1], [1, 2, 2], [1.0, 3.0, 2.0])
    forward, backward = dual_random_walk(graph)
    expected_forward = np.zeros((4, 4))
    expected_forward[1, 0], expected_forward[2, 0], expected_forward[2, 1] = 0.25, 0.75, 1.0
    expected_backward = np.zeros((4, 4))
    expected_backward[0, 1], expected_backward[0, 2], expected_backward[1, 2] = 1.0, 0.6, 0.4
    np.testing.assert_allclose(forward.toarray(), expected_forward, rtol=1e-6)
    np.testing.assert_allclose(backward.toarray(), expected_backward, rtol=1e-6)


def test_the_forward_support_carries_along_the_edges() -> None:
    """A pulse at the source of an edge arrives at its target, and back under the other support."""
    forward, backward = dual_random_walk(SensorGraph.from_edges(3, [0], [1], [7.0]))
    np.testing.assert_array_equal(forward @ np.array([1.0, 0.0, 0.0]), [0.0, 1.0, 0.0])
    np.testing.assert_array_equal(backward @ np.array([0.0, 1.0, 0.0]), [1.0, 0.0, 0.0])


def test_the_renormalized_adjacency_equals_the_formula() -> None:
    """D^-1/2 (A + I)^T D^-1/2 by hand: it gathers along edges; an isolated node keeps itself."""
    graph = SensorGraph.from_edges(4, [0, 0, 1], [1, 2, 2], [1.0, 3.0, 2.0])
    degrees = np.array([5.0, 3.0, 1.0, 1.0])
    expected = np.eye(4)
    expected[1, 0], expected[2, 0], expected[2, 1] = 1.0, 3.0, 2.0
    expected = expected / np.sqrt(np.outer(degrees, degrees))
    np.testing.assert_allclose(renormalized_adjacency(graph).toarray(), expected, rtol=1e-6)


@settings(deadline=None)
@given(num_nodes=st.sampled_from([1, 2, 7, 20, 100]), seed=st.integers(0, 1000))
def test_the_scaled_laplacian_equals_the_formula(num_nodes: int, seed: int) -> None:
    """2 L / lambda_max - I of the larger of both directions; its spectrum ends at 1."""
    graph = random_graph(num_nodes, seed)
    weights = np.maximum(graph.adjacency.toarray(), graph.adjacency.toarray().T).astype(float)
    np.fill_diagonal(weights, 0)
    degrees = weights.sum(axis=1)
    roots = np.where(degrees > 0, 1 / np.sqrt(np.where(degrees > 0, degrees, 1)), 0)
    laplacian = np.eye(num_nodes) - roots[:, None] * weights * roots[None, :]
    largest = np.linalg.eigvalsh(laplacian)[-1]
    found = scaled_laplacian(graph)
    expected = 2 * laplacian / largest - np.eye(num_nodes)
    np.testing.assert_allclose(found.toarray(), expected, atol=2e-6)
    spectrum = np.linalg.eigvalsh(found.toarray().astype(float))
    assert -1 - 1e-5 <= spectrum[0] <= spectrum[-1] <= 1 + 1e-5
    assert (found != scaled_laplacian(graph)).nnz == 0
