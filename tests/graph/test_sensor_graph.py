"""What a sensor graph accepts, keeps and refuses."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from pgti.errors import DataError
from pgti.graph import SensorGraph


def small_graph() -> SensorGraph:
    """Four sensors, three edges, the last sensor isolated."""
    return SensorGraph.from_edges(4, [1, 0, 1], [2, 1, 0], [2.0, 1.0, 0.5])


def test_edges_land_where_they_point() -> None:
    """adjacency[i, j] is the weight of i -> j, and edges are ordered by source, then target."""
    graph = small_graph()
    expected = [[0, 1, 0, 0], [0.5, 0, 2, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(graph.adjacency.toarray(), np.float32(expected))
    np.testing.assert_array_equal(graph.edge_index, [[0, 1, 1], [1, 0, 2]])
    np.testing.assert_array_equal(graph.edge_weight, np.float32([1, 0.5, 2]))
    assert graph.edge_index.dtype == np.int64
    assert (graph.num_nodes, graph.num_edges) == (4, 3)


def test_weights_default_to_one() -> None:
    """Edges without weights weigh 1."""
    np.testing.assert_array_equal(SensorGraph.from_edges(3, [0, 2], [1, 1]).edge_weight, [1, 1])


def test_empty_graph_has_nodes_and_no_edges() -> None:
    """`empty` is a graph like any other."""
    graph = SensorGraph.empty(3)
    assert (graph.num_nodes, graph.num_edges) == (3, 0)
    assert graph.edge_index.shape == (2, 0)


def test_any_sparse_matrix_becomes_canonical() -> None:
    """Unsorted, duplicated, float64, int64-indexed COO with stored zeros is cleaned and copied."""
    rows, columns = np.array([2, 0, 0, 2, 1]), np.array([1, 2, 2, 0, 1])
    values = np.array([1.0, 2.0, 3.0, 4.0, 0.0])
    graph = SensorGraph(adjacency=sparse.coo_array((values, (rows, columns)), shape=(3, 3)))
    adjacency = graph.adjacency
    assert isinstance(adjacency, sparse.csr_array)
    np.testing.assert_array_equal(adjacency.data, np.float32([5, 4, 1]))
    np.testing.assert_array_equal(adjacency.indices, [2, 0, 1])
    assert (adjacency.dtype, adjacency.indices.dtype) == (np.float32, np.int32)
    assert not any(
        array.flags.writeable for array in (adjacency.data, adjacency.indices, adjacency.indptr)
    )
    values[0] = 99.0
    assert adjacency.toarray()[2, 1] == 1.0


@settings(deadline=None)
@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.dictionaries(
                st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)),
                st.floats(0.125, 100.0, width=32),
                max_size=30,
            ),
            st.integers(0, 5),
        )
    )
)
def test_edge_lists_round_trip(case: tuple[int, dict[tuple[int, int], float], int]) -> None:
    """Edges, some given twice, come back sorted and once; building from them changes nothing."""
    num_nodes, weight_of_edge, num_repeated = case
    edges = list(weight_of_edge)
    edges += edges[:num_repeated]
    graph = SensorGraph.from_edges(
        num_nodes,
        [source for source, _ in edges],
        [target for _, target in edges],
        [weight_of_edge[edge] for edge in edges],
    )
    found = list(map(tuple, graph.edge_index.T.tolist()))
    assert found == sorted(weight_of_edge)
    np.testing.assert_array_equal(graph.edge_weight, [weight_of_edge[edge] for edge in found])
    again = SensorGraph.from_edges(num_nodes, *graph.edge_index, graph.edge_weight)
    assert (again.adjacency != graph.adjacency).nnz == 0


def test_graphs_survive_the_disk(tmp_path: Path) -> None:
    """A loaded graph equals the saved one, with and without coordinates, under any name."""
    plain = small_graph()
    located = SensorGraph(
        adjacency=plain.adjacency,
        coordinates=np.array([[34.0, -118.0], [34.1, -118.1], [-34.0, 18.0], [0.0, 180.0]]),
    )
    for graph in (plain, located, SensorGraph.empty(2)):
        path = tmp_path / "a graph"
        graph.save(path)
        loaded = SensorGraph.load(path)
        assert (loaded.adjacency != graph.adjacency).nnz == 0
        assert loaded.num_nodes == graph.num_nodes
        if graph.coordinates is None:
            assert loaded.coordinates is None
        else:
            np.testing.assert_array_equal(loaded.coordinates, graph.coordinates)


def test_loading_names_the_file_and_the_fault(tmp_path: Path) -> None:
    """Missing, truncated, foreign, pickled and inconsistent files are one kind of error."""
    path = tmp_path / "graph.npz"
    with pytest.raises(DataError, match=r"graph\.npz cannot be read"):
        SensorGraph.load(path)
    small_graph().save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"graph\.npz cannot be read"):
        SensorGraph.load(path)
    path.write_bytes(pickle.dumps({"indptr": 1}))
    with pytest.raises(DataError, match=r"graph\.npz cannot be read"):
        SensorGraph.load(path)
    np.savez(path, indptr=np.array([0, 1]), data=np.ones(1), shape=np.array([1, 1]))
    with pytest.raises(DataError, match="lacks the array 'indices'"):
        SensorGraph.load(path)
    np.savez(
        path,
        indptr=np.array([0, 1, 1]),
        indices=np.array([7]),
        data=np.ones(1),
        shape=np.array([2, 2]),
    )
    with pytest.raises(DataError, match=r"graph\.npz cannot be read"):
        SensorGraph.load(path)
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(DataError, match=r"graph\.npz"):
        SensorGraph.load(path)


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (-0.5, r"edge 0 -> 2 has weight -0\.5"),
        (np.nan, "edge 0 -> 2 has weight nan"),
        (np.inf, "edge 0 -> 2 has weight inf"),
        (1e300, r"edge 0 -> 2 has weight 1e\+300"),
    ],
)
def test_bad_weights_are_refused_by_name(weight: float, words: str) -> None:
    """An error names the edge and its weight, in an edge list and in a matrix."""
    with pytest.raises(DataError, match=words):
        SensorGraph.from_edges(3, [1, 0], [0, 2], [1.0, weight])
    with pytest.raises(DataError, match=words):
        SensorGraph(adjacency=sparse.csr_array(([weight], ([0], [2])), shape=(3, 3)))


@pytest.mark.parametrize(
    ("source", "target", "weight", "words"),
    [
        ([0, 5], [1, 2], None, r"edge 5 -> 2 \(number 1\) has an unknown node: .* 0 to 2"),
        ([0], [-1], None, r"edge 0 -> -1 .* has an unknown node"),
        ([0, 0], [1, 1], [1.0, 2.0], r"edge 0 -> 1 appears twice, with weight 1\.0 and 2\.0"),
        ([0, 1], [1], None, r"shapes \(2,\), \(1,\) and \(2,\)"),
        ([0.5], [1], None, r"source has float64 values .* whole numbers"),
        (["a"], [1], None, "source has .* whole numbers"),
    ],
)
def test_bad_edges_are_refused_by_name(
    source: list[int], target: list[int], weight: list[float] | None, words: str
) -> None:
    """An error names the edge at fault, its value and the rule."""
    with pytest.raises(DataError, match=words):
        SensorGraph.from_edges(3, source, target, weight)


def test_shapes_are_checked() -> None:
    """Rectangles, vectors, dense arrays, no nodes and ill-fitting coordinates are refused."""
    with pytest.raises(DataError, match=r"shape \(2, 3\)"):
        SensorGraph(adjacency=sparse.csr_array(np.ones((2, 3))))
    with pytest.raises(DataError, match="ndarray"):
        SensorGraph(adjacency=np.eye(2))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="num_nodes is 0"):
        SensorGraph.empty(0)
    eye = sparse.csr_array(np.eye(2))
    with pytest.raises(DataError, match=r"shape \(3, 2\): they must be \[2, 2\]"):
        SensorGraph(adjacency=eye, coordinates=np.zeros((3, 2)))
    with pytest.raises(DataError, match=r"node 1 has coordinates \(-118\.0, 34\.0\).*swapped"):
        SensorGraph(adjacency=eye, coordinates=np.array([[34.0, -118.0], [-118.0, 34.0]]))
    with pytest.raises(DataError, match="node 0 has coordinates"):
        SensorGraph(adjacency=eye, coordinates=np.full((2, 2), np.nan))
