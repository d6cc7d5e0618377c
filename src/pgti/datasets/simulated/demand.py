"""Demand: how many vehicles want to pass each sensor, as a fraction of its road's capacity.

Demand knows the clock and the seed, never congestion. It is a weekly rhythm, different at each
sensor, times a level that varies from day to day and from hour to hour.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pgti.datasets.simulated.options import STRETCH_STEPS, SimulationOptions
from pgti.datasets.simulated.random_processes import Purpose, generator

__all__ = ["Demand", "Traits", "smooth_field"]

_NIGHT = 0.08
_SECONDS_PER_DAY = 86_400
_SECONDS_PER_HOUR = 3600
_DAYS_PER_WEEK = 7
_THURSDAY = 3  # 1970-01-01 was a Thursday; Monday is 0

# The rhythm is a sum of bumps: hour of the middle, half-width in hours, on working days or not.
_BUMPS = (
    (6.6, 0.9, True),
    (7.6, 0.9, True),
    (8.6, 0.9, True),
    (12.5, 2.8, True),
    (15.6, 1.2, True),
    (16.8, 1.2, True),
    (18.0, 1.2, True),
    (21.0, 1.8, True),
    (13.5, 3.0, False),
    (18.5, 2.2, False),
)
# Height of a bump by day of the week, Monday first: traffic grows towards Friday.
_WORKING_DAYS = np.array([0.96, 0.99, 1.0, 1.01, 1.04, 0.0, 0.0])
_DAYS_OFF = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.9])

_LEAST_HEIGHT = 1e-4

_BOTTLENECK_CHANCE = 0.12
_REGION_DAY_STD = 0.02
_LOCAL_DAY_STD = 0.08
_HOURLY_STD = 0.04
_HOURLY_MEMORY_SECONDS = 2 * _SECONDS_PER_HOUR


def smooth_field(
    walk: sparse.csr_array, rng: np.random.Generator, *, rounds: int = 4
) -> NDArray[np.float32]:
    """Normal numbers [N], alike at sensors near each other, with mean 0 and standard deviation 1.

    Args:
        walk: row-normalised adjacency [N, N].
        rng: draws the numbers before smoothing.
        rounds: how often each number is averaged with those downstream.
    """
    field = rng.standard_normal(walk.shape[0], dtype=np.float32)
    for _ in range(rounds):
        field = (field + walk @ field) / 2
    spread = field.std()
    if spread == 0.0:  # a single sensor
        return np.zeros_like(field)
    return np.asarray((field - field.mean()) / spread, dtype=np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Traits:
    """Properties of each sensor.

    Attributes:
        free_speed: speed on an empty road in mph, [N].
        bumps: height of each bump of the rhythm at each sensor, [bumps, N].
    """

    free_speed: NDArray[np.float32]
    bumps: NDArray[np.float32]

    @classmethod
    def draw(cls, walk: sparse.csr_array, seed: int) -> "Traits":
        """Traits of sensors on a graph: neighbours are alike, some sensors are bottlenecks."""
        rng = generator(seed, Purpose.TRAITS)
        num_nodes = walk.shape[0]
        busy, commute, early = (smooth_field(walk, rng) for _ in range(3))
        peak = 0.76 + 0.08 * busy + 0.04 * rng.standard_normal(num_nodes)
        bottleneck = rng.random(num_nodes) < _BOTTLENECK_CHANCE
        peak += bottleneck * rng.uniform(0.12, 0.32, num_nodes)
        # Commuters drive one way in the morning and the other way in the evening.
        lean = 0.18 * np.tanh(commute)
        morning = _three_ways(peak * (1 + lean), early)
        evening = _three_ways(peak * (1 - lean), early)
        rest = peak * rng.uniform(0.9, 1.1, (4, num_nodes))
        midday, late, weekend, weekend_evening = rest * [[0.62], [0.25], [0.72], [0.25]]
        bumps = [*morning, midday, *evening, late, weekend, weekend_evening]
        return cls(
            free_speed=(67.0 + 2.5 * rng.standard_normal(num_nodes)).astype(np.float32),
            bumps=np.stack(bumps).astype(np.float32),
        )


def _three_ways(
    peak: NDArray[np.float64], early: NDArray[np.float32]
) -> tuple[NDArray[np.float64], ...]:
    """Split a peak [N] over an early, a middle and a late bump, which moves its time."""
    first = 0.45 / (1 + np.exp(-1.5 * early))
    last = 0.45 - first
    return peak * first, peak * 0.55, peak * last


class Demand:
    """Demand of consecutive stretches of time.

    Args:
        traits: properties of each sensor.
        walk: row-normalised adjacency [N, N].
        options: seed and clock.
    """

    def __init__(self, traits: Traits, walk: sparse.csr_array, options: SimulationOptions) -> None:
        self._bumps = traits.bumps
        self._walk = walk
        self._seed = options.seed
        self._start_seconds = int(options.start.astype("datetime64[s]").astype(np.int64))
        self._interval_seconds = options.interval_seconds
        self._day_levels: dict[int, NDArray[np.float32]] = {}
        memory = math.exp(-options.interval_seconds * STRETCH_STEPS / _HOURLY_MEMORY_SECONDS)
        self._hourly_memory = np.float32(memory)
        self._hourly_innovation = np.float32(_HOURLY_STD * math.sqrt(1 - memory**2))
        # Hourly variation is drawn at the ends of a stretch and is a straight line between them.
        rng = generator(options.seed, Purpose.DAY)
        first = rng.standard_normal(walk.shape[0], dtype=np.float32)
        self._hourly = first * np.float32(_HOURLY_STD)
        self._ramp = (np.arange(STRETCH_STEPS, dtype=np.float32) / STRETCH_STEPS)[:, None]

    def stretch(self, index: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Demand [STRETCH_STEPS, N] of stretch `index`; stretches are asked for in order."""
        steps = index * STRETCH_STEPS + np.arange(STRETCH_STEPS)
        seconds = self._start_seconds + steps * self._interval_seconds
        demand = np.full((STRETCH_STEPS, self._bumps.shape[1]), _NIGHT, dtype=np.float32)
        # Few bumps matter at any time. A sum in a fixed order, unlike a matrix product, does not
        # depend on the number of threads in its last bit.
        for height, bump in zip(_rhythm(seconds), self._bumps, strict=True):
            if height.any():
                demand += height[:, None] * bump
        level = self._level(rng)
        for rows, day_level in self._days(seconds):
            level[rows] += day_level
        demand *= level
        return demand

    def _level(self, rng: np.random.Generator) -> NDArray[np.float32]:
        before = self._hourly
        shock = rng.standard_normal(len(before), dtype=np.float32)
        self._hourly = self._hourly_memory * before + self._hourly_innovation * shock
        return np.asarray(before + self._ramp * (self._hourly - before))

    def _days(self, seconds: NDArray[np.int64]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Rows of each day in a stretch, with the demand level [N] of that day."""
        days = seconds // _SECONDS_PER_DAY - self._start_seconds // _SECONDS_PER_DAY
        levels = {}
        for day in range(int(days[0]), int(days[-1]) + 1):
            levels[day] = self._day_levels[day] if day in self._day_levels else self._day_level(day)
            first, stop = np.searchsorted(days, [day, day + 1])
            yield slice(int(first), int(stop)), levels[day]
        self._day_levels = levels

    def _day_level(self, day: int) -> NDArray[np.float32]:
        rng = generator(self._seed, Purpose.DAY, day + 1)  # index 0 is the hourly level's start
        region = np.float32(1.0 + _REGION_DAY_STD * rng.standard_normal())
        return region + np.float32(_LOCAL_DAY_STD) * smooth_field(self._walk, rng)


def _rhythm(seconds: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    """Height of each bump at each time, [times] for each; 0 where it is negligible."""
    hour = seconds % _SECONDS_PER_DAY / _SECONDS_PER_HOUR
    weekday = (seconds // _SECONDS_PER_DAY + _THURSDAY) % _DAYS_PER_WEEK
    heights = []
    for middle, width, working in _BUMPS:
        by_day = _WORKING_DAYS if working else _DAYS_OFF
        height = by_day[weekday] * np.exp(-0.5 * ((hour - middle) / width) ** 2)
        heights.append(np.where(height < _LEAST_HEIGHT, 0.0, height).astype(np.float32))
    return heights
