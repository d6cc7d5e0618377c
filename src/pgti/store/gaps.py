"""The longest stretches of rows in which sensors were not observed."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Gap", "GapFinder"]


class Gap(NamedTuple):
    """Missing readings in consecutive rows, of sensors that miss the same ones.

    Attributes:
        first: the first row without a reading.
        stop: the row after the last.
        sensor: position of the first of the sensors.
        num_sensors: how many there are.
    """

    first: int
    stop: int
    sensor: int
    num_sensors: int


@dataclass(slots=True)
class _Found:
    sensor: int
    num_sensors: int


class GapFinder:
    """Finds the longest gaps in one pass over the rows.

    Args:
        num_nodes: sensors, N.
        limit: how many gaps to keep.
    """

    def __init__(self, num_nodes: int, limit: int = 10) -> None:
        self._since = np.full(num_nodes, -1, dtype=np.int64)  # the first row of an open gap
        self._limit = limit
        self._found: dict[tuple[int, int], _Found] = {}
        self._num_rows = 0

    def add(self, observed: NDArray[np.bool_]) -> None:
        """Add the next rows, [rows, N]."""
        missing = ~observed
        is_open = self._since >= 0
        change = missing.copy()
        change[0] ^= is_open
        change[1:] ^= missing[:-1]
        rows, sensors = np.nonzero(change)
        already = np.flatnonzero(is_open)
        rows = np.concatenate([self._since[already], rows + self._num_rows])
        sensors = np.concatenate([already, sensors])
        order = np.lexsort((rows, sensors))
        rows, sensors = rows[order], sensors[order]
        # Beginnings and ends of a sensor's gaps alternate; the last may be without its end.
        _, firsts, counts = np.unique(sensors, return_index=True, return_counts=True)
        turns = np.arange(len(rows)) - np.repeat(firsts, counts)
        begins = np.flatnonzero(turns % 2 == 0)
        has_end = turns[begins] + 1 < np.repeat(counts, counts)[begins]
        ended = begins[has_end]
        self._keep(rows[ended], rows[ended + 1], sensors[ended])
        self._since[:] = -1
        left = begins[~has_end]
        self._since[sensors[left]] = rows[left]
        self._num_rows += len(observed)

    def longest(self) -> list[Gap]:
        """The longest gaps, the longest first; those that last until the end are among them."""
        left = np.flatnonzero(self._since >= 0)
        stops = np.full(len(left), self._num_rows)
        self._keep(self._since[left], stops, left)
        self._since[:] = -1
        return [Gap(*rows, each.sensor, each.num_sensors) for rows, each in self._found.items()]

    def _keep(
        self, firsts: NDArray[np.int64], stops: NDArray[np.int64], sensors: NDArray[np.int64]
    ) -> None:
        """Count gaps that have ended, and forget all but the longest."""
        if len(self._found) == self._limit and len(firsts):
            shortest = min(stop - first for first, stop in self._found)
            long = stops - firsts > shortest
            firsts, stops, sensors = firsts[long], stops[long], sensors[long]
        pairs, places, counts = np.unique(
            np.stack([firsts, stops]), axis=1, return_index=True, return_counts=True
        )
        longest = np.argsort(pairs[0] - pairs[1], kind="stable")[: self._limit]
        for place in longest.tolist():
            first, stop = pairs[:, place].tolist()
            sensor = int(sensors[places[place]])
            self._found[first, stop] = _Found(sensor, int(counts[place]))
        chosen = sorted(self._found.items(), key=lambda each: (each[0][0] - each[0][1], each[0]))
        self._found = dict(chosen[: self._limit])
