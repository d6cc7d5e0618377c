"""Randomness keyed by (seed, purpose, index), and random processes of incidents and outages.

An incident begins at a random step at a random node and lasts for a random time. The number of
incidents at a node is in equilibrium from the first step on, because the remaining time of one
does not depend on its age.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["IncidentProcess", "Purpose", "generator"]


class Purpose(IntEnum):
    """What random numbers are drawn for. The values are part of what a seed means."""

    STRETCH = 0
    DAY = 1
    TRAITS = 2
    ROAD = 3


def generator(seed: int, purpose: Purpose, index: int = 0) -> np.random.Generator:
    """A counter-based generator for one thing, such as day 3; the purpose sets the counter."""
    key = np.array([seed, index], dtype=np.uint64)
    counter = np.array([0, 0, 0, purpose], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


class IncidentProcess:
    """Incidents at independent nodes: Poisson starts and geometric durations.

    Args:
        num_nodes: number of nodes.
        starts_per_step: expected starts at one node in one step.
        mean_steps: expected duration, at least 1.
        rng: draws the incidents that are under way at the first step.
    """

    def __init__(
        self,
        num_nodes: int,
        *,
        starts_per_step: float,
        mean_steps: float,
        rng: np.random.Generator,
    ) -> None:
        self._num_nodes = num_nodes
        self._starts_per_step = starts_per_step
        self._end_chance = 1.0 / mean_steps
        count = int(rng.poisson(num_nodes * starts_per_step / self._end_chance))
        self._under_way = self._begin(np.zeros(count, dtype=np.int64), rng)

    def advance(self, num_rows: int, rng: np.random.Generator) -> list[tuple[slice, int, float]]:
        """The incidents of the next `num_rows` steps; unfinished ones continue in the next call.

        Returns:
            The steps that one covers, its node, and a number in [0, 1) that does not change while
            it lasts.
        """
        count = rng.poisson(self._num_nodes * self._starts_per_step * num_rows)
        begun = self._begin(rng.integers(num_rows, size=count), rng)
        now = np.concatenate([self._under_way, begun], axis=1)
        _, stops, nodes, sizes = now
        rest = np.stack([np.zeros_like(stops), stops - num_rows, nodes, sizes])
        self._under_way = rest[:, stops > num_rows]
        return [
            (slice(int(first), min(int(stop), num_rows)), int(node), size)
            for first, stop, node, size in now.T.tolist()
        ]

    def _begin(self, first: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
        """Incidents that begin at the given rows: first row, row after the last, node, size."""
        count = len(first)
        stop = first + rng.geometric(self._end_chance, size=count)
        node = rng.integers(self._num_nodes, size=count)
        # [4, incidents]; whole numbers are exact in float64
        return np.stack([first, stop, node, rng.random(count)])
