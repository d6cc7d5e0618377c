"""Traffic: how demand becomes congestion, congestion travels, and both become speed readings.

Congestion of a sensor is a number from 0 (free) up. In every step it relaxes towards

    reach * congestion downstream  +  gain * (demand - capacity, where positive),

so a queue begins where demand exceeds capacity (a bottleneck at rush hour, an incident at any
busy hour), travels upstream, against the edges, in about `_HOP_SECONDS` per edge, and dissolves.
It travels only where demand is heavy enough to feed it. Speed falls exponentially with it.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pgti.datasets.simulated.demand import Demand, Traits
from pgti.datasets.simulated.options import SimulationOptions
from pgti.datasets.simulated.random_processes import IncidentProcess, Purpose, generator
from pgti.graph import SensorGraph, random_walk

__all__ = ["Traffic"]

_HOP_SECONDS = 360.0
_REACH = 0.93
_GAIN = 4.0
_MAX_CONGESTION = 2.3
# Less than this counts as zero: a queue that decays for hours without reaching it ends in denormal
# numbers, on which the sparse product is five times slower.
_LEAST_CONGESTION: Final = np.float32(1e-5)
_FEEDING_DEMAND = (0.25, 0.65)  # congestion spreads not at all below, fully above
_BUSY_SLOWDOWN = 0.06  # of the free speed, at demand 1 without congestion

_INCIDENTS_PER_DAY = 0.06  # at one sensor
_INCIDENT_SECONDS = 2400.0
_INCIDENT_CAPACITY_LOSS = (0.3, 0.7)
_SHORT_OUTAGE_SECONDS = 2700.0
_LONG_OUTAGE_SECONDS = 64_800.0

_DRIFT_MPH = 1.0  # standard deviation of the slow part of the noise
_DRIFT_SECONDS = 1800.0
_JITTER_MPH = 0.5
_CONGESTED_NOISE = 0.8  # how much congestion adds to the noise
_MIN_MPH, _MAX_MPH = 3.0, 85.0
_PER_MPH: Final = np.float32(10.0)  # readings lie on a grid of 0.1 mph

_SECONDS_PER_DAY = 86_400.0


class Traffic:
    """The state of a simulation; each call of `advance` returns the next stretch of speeds.

    Randomness is keyed by (seed, stretch) and a stretch has a fixed number of steps, so the
    series depends on nothing but the options and the graph.

    Args:
        options: seed, clock and outages; its number of steps is not used.
        graph: edges point in the driving direction.
    """

    def __init__(self, options: SimulationOptions, graph: SensorGraph) -> None:
        others = graph.adjacency.copy()  # a node is not downstream of itself
        others.setdiag(0)
        others.eliminate_zeros()
        walk = random_walk(others)
        traits = Traits.draw(walk, options.seed)
        self._seed = options.seed
        self._walk = walk
        self._free_speed = traits.free_speed
        self._demand = Demand(traits, walk, options)
        rng = generator(options.seed, Purpose.TRAITS, 1)
        self._incidents = IncidentProcess(
            graph.num_nodes,
            starts_per_step=_INCIDENTS_PER_DAY * options.interval_seconds / _SECONDS_PER_DAY,
            mean_steps=max(1.0, _INCIDENT_SECONDS / options.interval_seconds),
            rng=rng,
        )
        self._outages = _outages(graph.num_nodes, options, rng)
        self._congestion = np.zeros(graph.num_nodes, dtype=np.float32)
        self._drift = _DRIFT_MPH * rng.standard_normal(graph.num_nodes, dtype=np.float32)
        self._stay = np.float32(math.exp(-options.interval_seconds / _HOP_SECONDS))
        self._drift_memory = math.exp(-options.interval_seconds / _DRIFT_SECONDS)
        self._next_stretch = 0

    def advance(self) -> NDArray[np.float32]:
        """Speeds [STRETCH_STEPS, N] in mph on a grid of 0.1, NaN where a sensor is out."""
        rng = generator(self._seed, Purpose.STRETCH, self._next_stretch)
        demand = self._demand.stretch(self._next_stretch, rng)
        self._next_stretch += 1
        congestion = self._congest(demand, rng)
        speed = self._speed(demand, congestion, rng)
        np.clip(speed, _MIN_MPH, _MAX_MPH, out=speed)
        speed *= _PER_MPH
        np.rint(speed, out=speed)
        # Dividing the whole number, not multiplying by 0.1, gives the float32 nearest the grid.
        speed /= _PER_MPH
        for process in self._outages:
            for rows, node, _ in process.advance(len(speed), rng):
                speed[rows, node] = np.nan
        return speed

    def _congest(
        self, demand: NDArray[np.float32], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Congestion [STRETCH_STEPS, N] that follows from demand and incidents."""
        excess = demand - np.float32(1.0)
        low, high = _INCIDENT_CAPACITY_LOSS
        for rows, node, size in self._incidents.advance(len(demand), rng):
            excess[rows, node] += low + (high - low) * size
        np.maximum(excess, 0.0, out=excess)
        excess *= _GAIN * (1 - self._stay)
        idle, heavy = _FEEDING_DEMAND
        spread = (demand - np.float32(idle)) * np.float32(1 / (heavy - idle))
        np.clip(spread, 0.0, 1.0, out=spread)
        spread *= _REACH * (1 - self._stay)
        now = self._congestion
        for row, source in enumerate(excess):
            downstream = self._walk @ now
            downstream *= spread[row]
            now = now * self._stay
            now += downstream
            now += source
            now -= _LEAST_CONGESTION
            np.clip(now, 0.0, _MAX_CONGESTION, out=source)
            now = source
        self._congestion = now.copy()
        return excess

    def _speed(
        self,
        demand: NDArray[np.float32],
        congestion: NDArray[np.float32],
        rng: np.random.Generator,
    ) -> NDArray[np.float32]:
        """Speed [STRETCH_STEPS, N] before rounding; overwrites its arguments."""
        noise = self._noise(len(demand), rng)
        noise *= np.float32(1.0) + np.float32(_CONGESTED_NOISE) * congestion
        speed = np.exp(np.negative(congestion, out=congestion), out=congestion)
        demand *= np.float32(-_BUSY_SLOWDOWN)
        demand += np.float32(1.0)
        speed *= demand
        speed *= self._free_speed
        speed += noise
        return speed

    def _noise(self, num_rows: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Autocorrelated drift plus independent jitter, [num_rows, N] in mph."""
        # One random number serves both, which halves the cost: the innovation of the drift is
        # also the jitter, so their sum is an ARMA(1, 1) series.
        noise = rng.standard_normal((num_rows, len(self._drift)), dtype=np.float32)
        innovation = np.float32(_DRIFT_MPH * math.sqrt(1 - self._drift_memory**2))
        memory = np.float32(self._drift_memory)
        drift = self._drift
        for row, shock in enumerate(noise):
            drift = drift * memory
            drift += innovation * shock
            noise[row] = drift + np.float32(_JITTER_MPH) * shock
        self._drift = drift
        return noise


def _outages(
    num_nodes: int, options: SimulationOptions, rng: np.random.Generator
) -> list[IncidentProcess]:
    """Short and long outages; either alone covers half of the outage fraction."""
    # Two independent processes that each leave a fraction p observed leave p**2. Outages that start
    # at rate r and last m steps leave exp(-r * m).
    observed = math.sqrt(1.0 - options.outage_fraction)
    durations = (_SHORT_OUTAGE_SECONDS, _LONG_OUTAGE_SECONDS)
    lengths = [max(1.0, seconds / options.interval_seconds) for seconds in durations]
    return [
        IncidentProcess(
            num_nodes, starts_per_step=-math.log(observed) / steps, mean_steps=steps, rng=rng
        )
        for steps in lengths
    ]
