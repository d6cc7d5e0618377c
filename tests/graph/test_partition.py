"""Sensors divided among ranks: sizes, what is cut, and products by parts."""

import numpy as np
import pytest
from scipy import sparse

from pgti.errors import ConfigError
from pgti.graph import (
    SensorGraph,
    count_sent_rows,
    cut_operator,
    dual_random_walk,
    partition_sensors,
)


def road(num_nodes: int, seed: int = 0) -> SensorGraph:
    """A road with shuffled sensors, both directions."""
    order = np.random.default_rng(seed).permutation(num_nodes)
    source, target = order[:-1], order[1:]
    return SensorGraph.from_edges(
        num_nodes, np.concatenate([source, target]), np.concatenate([target, source])
    )


def random_graph(num_nodes: int = 40, num_edges: int = 120) -> SensorGraph:
    random = np.random.default_rng(2)
    pairs = np.unique(random.integers(0, num_nodes - 2, (num_edges, 2)), axis=0)  # two are alone
    return SensorGraph.from_edges(num_nodes, pairs[:, 0], pairs[:, 1], random.random(len(pairs)))


@pytest.mark.parametrize("num_parts", [1, 2, 3, 7])
def test_a_road_is_cut_where_parts_meet(num_parts: int) -> None:
    """Its parts are stretches: one edge in each direction between two of them, whatever the ids."""
    partition = partition_sensors(road(29), num_parts)
    assert sorted(np.concatenate(partition.parts).tolist()) == list(range(29))
    sizes = [len(part) for part in partition.parts]
    assert max(sizes) - min(sizes) <= 1
    assert partition.largest_part == max(sizes)
    for number, part in enumerate(partition.parts):
        assert (np.diff(part) > 0).all()
        assert (partition.owner[part] == number).all()
    assert partition.cut_edges == 2 * (num_parts - 1)
    assert sum(partition.halos) == 2 * (num_parts - 1)


def test_the_same_graph_has_the_same_parts() -> None:
    first, second = (partition_sensors(random_graph(), 3) for _ in range(2))
    assert (first.owner == second.owner).all()


def test_halos_are_the_neighbours_of_other_parts() -> None:
    graph = random_graph()
    partition = partition_sensors(graph, 3)
    dense = graph.adjacency.toarray() > 0
    near = dense | dense.T
    for number, part in enumerate(partition.parts):
        others = partition.owner != number
        assert partition.halos[number] == int((near[part].any(axis=0) & others).sum())
    crossing = partition.owner[:, None] != partition.owner
    assert partition.cut_edges == int((dense & crossing).sum())


@pytest.mark.parametrize("transposed", [False, True])
def test_products_by_parts(transposed: bool) -> None:
    """The rows that parts say they send are those that the others say they receive, in order."""
    graph = random_graph()
    partition = partition_sensors(graph, 3)
    x = np.random.default_rng(0).random((graph.num_nodes, 2))
    for walk in dual_random_walk(graph):
        operator = walk.T.tocsr() if transposed else walk
        parts = [cut_operator(operator, partition, number) for number in range(3)]
        counts = count_sent_rows(walk, partition, transposed=transposed)
        assert counts.tolist() == [len(part.sent) for part in parts]
        for number, part in enumerate(parts):
            received = []
            for sender, other in enumerate(parts):
                begin = sum(other.sent_sizes[:number])
                rows = other.sent[begin : begin + other.sent_sizes[number]]
                assert part.received_sizes[sender] == len(rows)
                received.append(x[partition.parts[sender]][rows])
            local = part.inner @ x[partition.parts[number]] + part.outer @ np.concatenate(received)
            np.testing.assert_allclose(local, (operator @ x)[partition.parts[number]], rtol=1e-6)


def test_a_graph_without_edges_sends_nothing() -> None:
    graph = SensorGraph.empty(6)
    partition = partition_sensors(graph, 2)
    part = cut_operator(sparse.csr_array((6, 6), dtype=np.float32), partition, 0)
    assert not part.any_sent
    assert part.outer.shape == (3, 0)
    assert (partition.cut_edges, partition.halos) == (0, (0, 0))


def test_more_parts_than_sensors_are_refused() -> None:
    with pytest.raises(ConfigError, match="shard_sensors is 4 and the store has 3 sensors"):
        partition_sensors(SensorGraph.empty(3), 4)
