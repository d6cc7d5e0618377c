"""Sensors divided among ranks: contiguous parts of an order in which neighbours are near."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import reverse_cuthill_mckee

from pgti.errors import ConfigError, option, require_whole_number
from pgti.graph.sensor_graph import CsrMatrix, SensorGraph

__all__ = [
    "OperatorPart",
    "SensorPartition",
    "count_sent_rows",
    "cut_operator",
    "partition_sensors",
]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class SensorPartition:
    """Which sensors are whose.

    Attributes:
        parts: positions of each part's sensors, rising int64 [n]; the sizes differ by 1 at most.
        owner: part of each sensor, int32 [N].
        cut_edges: edges between sensors of two parts.
        halos: for each part, how many sensors of other parts are neighbours of its own.
    """

    parts: tuple[NDArray[np.int64], ...]
    owner: NDArray[np.int32]
    cut_edges: int
    halos: tuple[int, ...]

    @property
    def largest_part(self) -> int:
        """Sensors of the largest part."""
        return max(map(len, self.parts))


def partition_sensors(graph: SensorGraph, num_parts: int) -> SensorPartition:
    """Divide the sensors of a graph into parts of equal size that share few edges.

    The parts are consecutive ranges of the reverse Cuthill-McKee order (Cuthill & McKee, Reducing
    the bandwidth of sparse symmetric matrices, ACM 1969), which numbers a graph from one side to
    the other, so that what two parts share is about one layer of it. Deterministic.

    Args:
        graph: N sensors; the direction of edges does not matter.
        num_parts: 1 to N.

    Raises:
        ConfigError: there are more parts than sensors.
    """
    require_whole_number("shard_sensors", num_parts, 1)
    num_nodes = graph.num_nodes
    if num_parts > num_nodes:
        raise ConfigError(
            f"shard_sensors is {num_parts} and the store has {num_nodes} sensors: each rank needs "
            f"one at least; use {option('shard_sensors', num_nodes)} or less"
        )
    pattern = symmetric_pattern(graph.adjacency)
    order = reverse_cuthill_mckee(pattern, symmetric_mode=True)
    bounds = [num_nodes * part // num_parts for part in range(num_parts + 1)]
    owner = np.empty(num_nodes, dtype=np.int32)
    for part in range(num_parts):
        owner[order[bounds[part] : bounds[part + 1]]] = part
    sources, targets = _entries(pattern)
    crosses = owner[sources] != owner[targets]
    halo = np.unique(owner[sources[crosses]].astype(np.int64) * num_nodes + targets[crosses])
    sources, targets = _entries(graph.adjacency)
    return SensorPartition(
        parts=tuple(np.flatnonzero(owner == part) for part in range(num_parts)),
        owner=owner,
        cut_edges=int((owner[sources] != owner[targets]).sum()),
        halos=tuple(np.bincount(halo // num_nodes, minlength=num_parts).tolist()),
    )


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class OperatorPart:
    """The rows of an operator that belong to one of P parts, and what its products need of others.

    Attributes:
        inner: [n, n], the columns of its own sensors.
        outer: [n, m], the columns of m sensors of other parts, by part and then by position.
        sent: which of its own sensors other parts need, by part: positions among the n.
        sent_sizes: how many of them go to each part [P].
        received_sizes: how many of the m come from each part [P].
        any_sent: whether any part needs a sensor of another.
    """

    inner: CsrMatrix
    outer: CsrMatrix
    sent: NDArray[np.int64]
    sent_sizes: tuple[int, ...]
    received_sizes: tuple[int, ...]
    any_sent: bool


def cut_operator(operator: CsrMatrix, partition: SensorPartition, part: int) -> OperatorPart:
    """One part's rows of an [N, N] operator; every part finds the same exchanges by itself."""
    owner, sensors, num_parts = partition.owner, partition.parts[part], len(partition.parts)
    num_nodes, size = len(owner), len(sensors)
    position = np.empty(num_nodes, dtype=np.int32)
    position[sensors] = np.arange(size, dtype=np.int32)
    rows, columns = _entries(operator)
    crosses = owner[rows] != owner[columns]
    to_others = crosses & (owner[columns] == part)
    sent = _by_owner(owner[rows[to_others]], columns[to_others], num_nodes)
    mine = operator[sensors]
    row_of, columns = _entries(mine)
    is_inner = owner[columns] == part
    outside = columns[~is_inner]
    received = _by_owner(owner[outside], outside, num_nodes)
    keys = owner[outside].astype(np.int64) * num_nodes + outside
    return OperatorPart(
        inner=_csr(mine.data[is_inner], row_of[is_inner], position[columns[is_inner]], size, size),
        outer=_csr(
            mine.data[~is_inner],
            row_of[~is_inner],
            np.searchsorted(received, keys),
            size,
            len(received),
        ),
        sent=position[sent % num_nodes].astype(np.int64),
        sent_sizes=tuple(np.bincount(sent // num_nodes, minlength=num_parts).tolist()),
        received_sizes=tuple(np.bincount(received // num_nodes, minlength=num_parts).tolist()),
        any_sent=bool(crosses.any()),
    )


def count_sent_rows(
    operator: CsrMatrix, partition: SensorPartition, *, transposed: bool = False
) -> NDArray[np.int64]:
    """How many rows each part sends in a product with an operator, or with its transpose [P]."""
    rows, columns = _entries(operator)
    into, of = (columns, rows) if transposed else (rows, columns)
    owner, num_nodes = partition.owner, len(partition.owner)
    crosses = owner[into] != owner[of]
    pairs = _by_owner(owner[into[crosses]], of[crosses], num_nodes)
    counts: NDArray[np.int64] = np.bincount(
        owner[pairs % num_nodes], minlength=len(partition.parts)
    )
    return counts


def _by_owner(
    owners: NDArray[np.int32], sensors: NDArray[np.int32], num_nodes: int
) -> NDArray[np.int64]:
    """Each pair of part and sensor once, as part * N + sensor, rising."""
    pairs: NDArray[np.int64] = np.unique(owners.astype(np.int64) * num_nodes + sensors)
    return pairs


def _entries(matrix: CsrMatrix) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Row and column of every entry."""
    rows = np.repeat(np.arange(matrix.shape[0], dtype=np.int32), np.diff(matrix.indptr))
    return rows, matrix.indices


def symmetric_pattern(adjacency: CsrMatrix) -> CsrMatrix:
    ones: CsrMatrix = sparse.csr_array(
        (np.ones(adjacency.nnz, dtype=np.int8), adjacency.indices, adjacency.indptr),
        shape=adjacency.shape,
    )
    pattern: CsrMatrix = (ones + ones.T).tocsr()
    return pattern


def _csr(
    values: NDArray[Any], rows: NDArray[Any], columns: NDArray[Any], num_rows: int, width: int
) -> CsrMatrix:
    matrix: CsrMatrix = sparse.csr_array((values, (rows, columns)), shape=(num_rows, width))
    matrix.sort_indices()
    return matrix
