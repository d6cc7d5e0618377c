"""Options of a simulation."""

from dataclasses import dataclass

import numpy as np

from pgti.display import count_of
from pgti.errors import ConfigError, require_whole_number
from pgti.store import parse_time

__all__ = ["STRETCH_STEPS", "SimulationOptions"]

# Steps that are simulated at once. Randomness is keyed by stretch, so this number is part of what
# a seed means: changing it changes every series.
STRETCH_STEPS = 12

_DEFAULT_START = np.datetime64("2025-01-06T00:00:00", "s")  # a Monday
_SECONDS_PER_DAY = 86_400
# Bytes per sensor: 8 float32 arrays of one stretch, then 48 float32 numbers of state and traits.
_WORKING_BYTES = 4 * (8 * STRETCH_STEPS + 48)
_STEP_BYTES = 4 * 2  # float32 in two chunks: one being written while the next is filled


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationOptions:
    """Size, seed and clock of a simulation. The defaults make the project's example data.

    Attributes:
        sensors: Number of sensors, at least 1.
        steps: Number of time steps, at least 1. The default is four weeks of five minutes.
        seed: Random seed, 0 to 2**63 - 1. The same seed with fewer steps gives a prefix of the
            series.
        start: Wall-clock time of the first step: ISO 8601 text, or an object whose text is that.
        interval_seconds: Seconds between steps, 60 to 3600, a divisor of a day.
        outage_fraction: Expected fraction of missing readings, 0 to 0.9.
        budget_bytes: Memory for the arrays of the simulation, without the graph. It sets how many
            steps are written at a time and never changes the series.

    Raises:
        ConfigError: if a value is outside its range.
    """

    sensors: int = 64
    steps: int = 8064
    seed: int = 1
    start: np.datetime64 = _DEFAULT_START
    interval_seconds: int = 300
    outage_fraction: float = 0.02
    budget_bytes: int = 32 << 20

    def __post_init__(self) -> None:
        minima = {"sensors": 1, "steps": 1, "seed": 0, "interval_seconds": 60, "budget_bytes": 0}
        for name, minimum in minima.items():
            require_whole_number(name, getattr(self, name), minimum)
        object.__setattr__(self, "start", parse_time("start", str(self.start)))
        if self.interval_seconds > 3600 or _SECONDS_PER_DAY % self.interval_seconds:
            raise ConfigError(
                f"interval_seconds is {self.interval_seconds}: it must lie between 60 and 3600 "
                "and divide a day, as 300 does"
            )
        if not 0.0 <= self.outage_fraction <= 0.9:
            raise ConfigError(
                f"outage_fraction is {self.outage_fraction}: it must lie between 0 and 0.9"
            )
        if self.chunk_steps < STRETCH_STEPS:
            raise ConfigError(
                f"budget_bytes is {self.budget_bytes}: for {count_of(self.sensors, 'sensor')} it "
                f"must be at least {self.sensors * (_WORKING_BYTES + STRETCH_STEPS * _STEP_BYTES)}"
            )

    @property
    def chunk_steps(self) -> int:
        """Steps written at a time: as many whole stretches as the budget holds."""
        steps = (self.budget_bytes - self.sensors * _WORKING_BYTES) // (self.sensors * _STEP_BYTES)
        return steps // STRETCH_STEPS * STRETCH_STEPS
