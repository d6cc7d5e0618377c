"""Which part of a series was observed, over time and sensors."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["CoverageSum", "coverage"]


class CoverageSum:
    """Counts observed readings in blocks of rows and sensors, in one pass over the rows.

    Args:
        num_steps: rows, T, at least one.
        num_nodes: sensors, N.
        max_times: number of blocks of rows at most.
        max_sensors: number of blocks of sensors at most.

    Attributes:
        rows: first row of each block, int64 [K].
        sensors: first sensor of each block, int64 [M].
    """

    def __init__(
        self, num_steps: int, num_nodes: int, *, max_times: int = 200, max_sensors: int = 300
    ) -> None:
        self.rows = np.arange(0, num_steps, -(-num_steps // max_times), dtype=np.int64)
        self.sensors = np.arange(0, num_nodes, -(-num_nodes // max_sensors), dtype=np.int64)
        self._sizes = np.outer(
            np.diff(self.rows, append=num_steps), np.diff(self.sensors, append=num_nodes)
        )
        self._observed = np.zeros(self._sizes.shape)
        self._num_rows = 0

    def add(self, observed: NDArray[np.bool_]) -> None:
        """Add the next rows, [rows, N, C]."""
        by_sensor = np.add.reduceat(observed.sum(axis=2), self.sensors, axis=1)
        numbers = np.arange(self._num_rows, self._num_rows + len(observed))
        blocks = np.searchsorted(self.rows, numbers, side="right") - 1
        firsts = np.flatnonzero(np.diff(blocks, prepend=-1))
        self._observed[blocks[firsts]] += np.add.reduceat(by_sensor, firsts, axis=0)
        self._num_rows += len(observed)

    def shares(self, num_channels: int) -> NDArray[np.float64]:
        """The observed share of each block, [K, M]."""
        found: NDArray[np.float64] = self._observed / self._sizes / num_channels
        return found


def coverage(
    read: Callable[[int, int], NDArray[np.float32]],
    shape: tuple[int, int, int],
    *,
    max_times: int = 200,
    max_sensors: int = 300,
    budget_bytes: int = 32 << 20,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Share of observed readings in blocks of rows and sensors; one pass over the series.

    Args:
        read: reads rows first..stop-1, [rows, N, C], NaN where missing.
        shape: (T, N, C).
        max_times: number of blocks of rows at most.
        max_sensors: number of blocks of sensors at most.
        budget_bytes: memory for the readings of one chunk of rows.

    Returns:
        First row of each block, int64 [K]; first sensor of each block, int64 [M]; the shares,
        float64 [K, M], over all channels.
    """
    num_steps, num_nodes, num_channels = shape
    found = CoverageSum(num_steps, num_nodes, max_times=max_times, max_sensors=max_sensors)
    chunk = max(1, budget_bytes // (4 * num_nodes * num_channels))
    for first in range(0, num_steps, chunk):
        found.add(np.isfinite(read(first, min(first + chunk, num_steps))))
    return found.rows, found.sensors, found.shares(num_channels)
