"""The cost of a message: an alpha-beta model, networks by name, and a fitted one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

__all__ = ["NETWORKS", "Network", "Timing", "fit_line", "fit_network"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """A network in which a message of m bytes takes alpha + m / beta.

    Attributes:
        name: of the network.
        alpha_seconds: latency of a message between two ranks, software included.
        node_bytes_per_second: bandwidth of a node, one way.
        ranks_per_node: ranks that share it.
        ring_only: collectives are rings of any size; otherwise the faster of ring and tree.
        source: of the constants.
    """

    name: str
    alpha_seconds: float
    node_bytes_per_second: float
    ranks_per_node: int
    ring_only: bool
    source: str

    @property
    def bytes_per_second(self) -> float:
        """Bandwidth of a rank: its part of the node's."""
        return self.node_bytes_per_second / self.ranks_per_node

    def ring_seconds(self, world_size: int, num_bytes: int) -> float:
        """A ring all-reduce: 2 (W - 1) messages of 1 / W of the bytes, one after another."""
        message = num_bytes / world_size / self.bytes_per_second
        return 2 * (world_size - 1) * (self.alpha_seconds + message)

    def tree_seconds(self, world_size: int, num_bytes: int) -> float:
        """An all-reduce up and down a binary tree: 2 log2 W messages of all bytes."""
        levels = math.ceil(math.log2(world_size))
        return 2 * levels * (self.alpha_seconds + num_bytes / self.bytes_per_second)

    def all_reduce_seconds(self, world_size: int, num_bytes: int) -> float:
        """An all-reduce by the faster of the two."""
        ring = self.ring_seconds(world_size, num_bytes)
        return ring if self.ring_only else min(ring, self.tree_seconds(world_size, num_bytes))

    def messages_seconds(self, num_messages: int, num_bytes: float) -> float:
        """Messages to or from one rank, one after another, with `num_bytes` in total."""
        return num_messages * self.alpha_seconds + num_bytes / self.bytes_per_second


_ASSUMED = "line rate; the latency is an assumption: a round number for messages over "

NETWORKS = (
    Network(
        name="10 GbE",
        alpha_seconds=50e-6,
        node_bytes_per_second=1.25e9,
        ranks_per_node=4,
        ring_only=True,  # gloo has no tree
        source=_ASSUMED + "TCP and gloo",
    ),
    Network(
        name="100 Gb",
        alpha_seconds=10e-6,
        node_bytes_per_second=12.5e9,
        ranks_per_node=4,
        ring_only=False,
        source=_ASSUMED + "RDMA and a collective library",
    ),
    Network(
        name="Slingshot 2x200 Gb",
        alpha_seconds=5e-6,
        node_bytes_per_second=50e9,
        ranks_per_node=4,
        ring_only=False,
        source="Polaris: a node has 4 GPUs and 2 Slingshot 11 adapters "
        "(docs.alcf.anl.gov/polaris/hardware-overview/machine-overview); "
        + _ASSUMED
        + "RDMA and a collective library",
    ),
)
"""The modelled networks. None of them was measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """A measured all-reduce.

    Attributes:
        ranks: number of participants, at least 2.
        num_bytes: contribution of each.
        seconds: median of several.
    """

    ranks: int
    num_bytes: int
    seconds: float


def fit_network(name: str, timings: Sequence[Timing], source: str) -> Network:
    """The network whose rings fit the timings best, by least squares of the relative error.

    Args:
        name: of the network.
        timings: at least one.
        source: how they were measured.
    """
    terms = np.array(
        [
            (2 * (each.ranks - 1), 2 * (each.ranks - 1) / each.ranks * each.num_bytes)
            for each in timings
        ]
    )
    seconds = np.array([each.seconds for each in timings])
    alpha, per_byte = _fit(terms, seconds)
    fastest = max(each.num_bytes / each.seconds for each in timings)
    return Network(
        name=name,
        alpha_seconds=alpha,
        node_bytes_per_second=1 / per_byte if per_byte > 0 else fastest,
        ranks_per_node=1,
        ring_only=True,
        source=source,
    )


def fit_line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Overhead and seconds per byte of (bytes, seconds), by least squares of the relative error.

    Neither is negative.
    """
    terms = np.array([(1.0, num_bytes) for num_bytes, _ in points])
    return _fit(terms, np.array([seconds for _, seconds in points]))


def _fit(terms: NDArray[np.float64], seconds: NDArray[np.float64]) -> tuple[float, float]:
    # The bytes are scaled so that both unknowns have similar magnitudes.
    (fixed, mega), _ = nnls(terms * (1, 1e-6) / seconds[:, None], np.ones(len(seconds)))
    return float(fixed), float(mega) * 1e-6
