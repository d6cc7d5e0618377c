"""Sensors in patches, against a tree written from its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgti.graph import SensorGraph, patch_sensors


def tree_leaves(sensors: list[int], coordinates: np.ndarray, capacity: int) -> list[list[int]]:
    """The leaves of the k-d tree of PatchSTG: all at one depth, none larger than `capacity`."""

    def cut(part: list[int], axis: int, depth: int) -> list[list[int]]:
        if depth == 0:
            return [sorted(part)]
        ranked = sorted(part, key=lambda sensor: (coordinates[sensor, axis], part.index(sensor)))
        half = len(ranked) // 2
        return cut(ranked[:half], 1 - axis, depth - 1) + cut(ranked[half:], 1 - axis, depth - 1)

    depth = 0
    while len(sensors) > capacity * 2**depth:
        depth += 1
    return cut(sensors, 0, depth)


def random_graph(num_nodes: int, seed: int) -> SensorGraph:
    """With coordinates, some of them equal."""
    generator = np.random.default_rng(seed)
    coordinates = generator.integers(0, 5, (num_nodes, 2)) / 8 + [37, -120]
    return SensorGraph.from_edges(num_nodes, [], [], coordinates=coordinates)


@given(st.integers(1, 40), st.integers(1, 4), st.sampled_from([1, 2, 8]), st.integers(0, 99))
def test_patches_are_merged_leaves_of_the_tree(
    num_nodes: int, capacity: int, merged: int, seed: int
) -> None:
    """Every sensor has one place of its own, in its leaf; what pads a leaf is of its sibling."""
    graph = random_graph(num_nodes, seed)
    assert graph.coordinates is not None
    found = patch_sensors(graph, capacity, merged)
    leaves = tree_leaves(list(range(num_nodes)), graph.coordinates, capacity)
    size = max(map(len, leaves))
    assert len(found.sensors) == max(1, len(leaves) // merged)
    own = found.sensors.reshape(len(leaves), size)
    for index, leaf in enumerate(leaves):
        assert own[index, : len(leaf)].tolist() == leaf
        assert set(own[index, len(leaf) :]) <= set(leaves[index ^ 1] if len(leaves) > 1 else ())
        assert found.places[leaf].tolist() == [index * size + place for place in range(len(leaf))]


@pytest.mark.parametrize(
    ("num_nodes", "capacity", "merged", "patches", "size"),
    [(716, 2, 32, 16, 64), (2352, 2, 128, 16, 256), (3834, 2, 32, 64, 64), (8600, 3, 8, 512, 24)],
)
def test_largest_has_the_released_patches(
    num_nodes: int, capacity: int, merged: int, patches: int, size: int
) -> None:
    """SD, GBA, GLA and CA: the released depths 9, 11, 11 and 12 of the tree."""
    found = patch_sensors(random_graph(num_nodes, 0), capacity, merged)
    assert found.sensors.shape == (patches, size)


def test_a_graph_without_coordinates_is_cut_along_its_edges() -> None:
    """Two cliques whose sensors alternate in the store, and four sensors without edges."""
    cliques = [(i, j) for i in range(64) for j in range(64) if i != j and i % 2 == j % 2]
    source, target = np.array(cliques).T
    found = patch_sensors(SensorGraph.from_edges(64, source, target), 8, 4)
    assert [set(patch % 2) for patch in found.sensors] in ([{0}, {1}], [{1}, {0}])
    apart = patch_sensors(SensorGraph.empty(4), 2, 1)
    assert apart.sensors.tolist() == [[0, 1], [2, 3]]
