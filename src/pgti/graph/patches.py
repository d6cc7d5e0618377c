"""Sensors divided into patches of equal size: the leaves of a tree of halves, merged and padded."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import reverse_cuthill_mckee

from pgti.graph.partition import symmetric_pattern
from pgti.graph.sensor_graph import SensorGraph

__all__ = ["SensorPatches", "patch_sensors"]

_SMALLEST_REORDERED = 32
"""Sensors below which a part of a graph stays in the order of the part that it was cut from."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class SensorPatches:
    """P patches of S places; every sensor has a place of its own, and a few fill another place too.

    Attributes:
        sensors: sensor at each place, int64 [P, S].
        places: the place that is a sensor's own, patch * S + place in it, int64 [N].
    """

    sensors: NDArray[np.int64]
    places: NDArray[np.int64]


def patch_sensors(graph: SensorGraph, leaf_capacity: int, leaves_per_patch: int) -> SensorPatches:
    """Divide the sensors into patches of neighbours.

    The sensors are halved until no part is larger than `leaf_capacity`: the leaves of a k-d tree
    over the coordinates (Fang et al., PatchSTG, KDD 2025, section 4.2), which cuts at the median
    latitude, then at the median longitude, and so on. Without coordinates the halves are those of
    the reverse Cuthill-McKee order (see `partition_sensors`) of each part of the graph; without
    edges, too, that is the order of the sensors. The sizes of leaves differ by 1 at most; one that
    has a sensor less is padded with the first of the leaf that was cut from the same part.
    Neighbouring leaves of the tree are merged. Deterministic.

    Args:
        graph: N sensors.
        leaf_capacity: the most sensors of a leaf, at least 1.
        leaves_per_patch: leaves that are merged, a power of 2; all leaves if there are fewer.
    """
    num_nodes = graph.num_nodes
    num_halvings = max(0, -(-num_nodes // leaf_capacity) - 1).bit_length()
    order = _halved(graph, num_halvings)
    bounds = np.array([0, num_nodes])
    for _ in range(num_halvings):
        middles = bounds[:-1] + np.diff(bounds) // 2
        bounds = np.insert(bounds, np.arange(1, len(bounds)), middles)
    leaves = [np.sort(order[first:last]) for first, last in pairwise(bounds.tolist())]
    size = max(map(len, leaves))
    padded = np.array(
        [
            np.concatenate([leaf, leaves[index ^ 1][:1]]) if len(leaf) < size else leaf
            for index, leaf in enumerate(leaves)
        ]
    )
    owned = np.arange(size) < np.array([*map(len, leaves)])[:, None]
    places = np.empty(num_nodes, dtype=np.int64)
    places[padded[owned]] = np.flatnonzero(owned)
    merged = min(leaves_per_patch, len(leaves))
    return SensorPatches(sensors=padded.reshape(len(leaves) // merged, -1), places=places)


def _halved(graph: SensorGraph, num_halvings: int) -> NDArray[np.int64]:
    """The sensors in the order of the leaves [N]."""
    pattern = None if graph.coordinates is not None else symmetric_pattern(graph.adjacency)
    parts = [np.arange(graph.num_nodes)]
    for level in range(num_halvings):
        halves = []
        for part in parts:
            if graph.coordinates is not None:
                ordered = part[np.argsort(graph.coordinates[part, level % 2], kind="stable")]
            elif pattern is not None and len(part) >= _SMALLEST_REORDERED:
                among = pattern[part][:, part].tocsr()
                ordered = part[reverse_cuthill_mckee(among, symmetric_mode=True)]
            else:
                ordered = part
            halves += np.split(ordered, [len(part) // 2])
        parts = halves
    return np.concatenate(parts)
