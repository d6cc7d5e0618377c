"""Options of a simulation."""

from dataclasses import dataclass

import numpy as np

from pgti.errors import ConfigError

__all__ = ["STRETCH_STEPS", "SimulationOptions"]

# Steps that are simulated at once. Randomness is keyed by stretch, so this number is part of what
# a seed means: changing it changes every series.
STRETCH_STEPS = 12

_DEFAULT_START = np.datetime64("2025-01-06T00:00:00", "s")  # a Monday
_SECONDS_PER_DAY = 86_400
# Float32 numbers per sensor: the arrays of one stretch, the state and the traits.
_STRETCH_ARRAYS = 8
_STATE_NUMBERS = 48
_ITEM_BYTES = 4
_CHUNKS_IN_FLIGHT = 2  # one being written while the next is filled


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationOptions:
    """Size, seed and clock of a simulation. The defaults make the project's example data.

    Attributes:
        sensors: Number of sensors, at least 1.
        steps: Number of time steps, at least 1. The default is four weeks of five minutes.
        seed: Random seed, 0 to 2**63 - 1. The same seed with fewer steps gives a prefix of the
            series.
        start: Wall-clock time of the first step.
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
        for name in ("sensors", "steps", "seed", "interval_seconds", "budget_bytes"):
            _check_whole(name, getattr(self, name))
        for name in ("sensors", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}: it must lie between 0 and 2**63 - 1")
        _check_time("start", self.start)
        in_range = 60 <= self.interval_seconds <= 3600
        if not in_range or _SECONDS_PER_DAY % self.interval_seconds:
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
                f"budget_bytes is {self.budget_bytes}: {self.sensors} sensors need at least "
                f"{self._working_bytes + STRETCH_STEPS * self._bytes_per_chunk_step}"
            )

    @property
    def chunk_steps(self) -> int:
        """Steps written at a time: as many whole stretches as the budget holds."""
        steps = (self.budget_bytes - self._working_bytes) // self._bytes_per_chunk_step
        return steps // STRETCH_STEPS * STRETCH_STEPS

    @property
    def _working_bytes(self) -> int:
        numbers = _STRETCH_ARRAYS * STRETCH_STEPS + _STATE_NUMBERS
        return self.sensors * numbers * _ITEM_BYTES

    @property
    def _bytes_per_chunk_step(self) -> int:
        return self.sensors * _ITEM_BYTES * _CHUNKS_IN_FLIGHT


def _check_whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name} is {value!r}: it must be a whole number")


def _check_time(name: str, value: object) -> None:
    if not isinstance(value, np.datetime64) or np.isnat(value):
        raise ConfigError(
            f"{name} is {value!r}: it must be a time, such as numpy.datetime64('2025-01-06T00:00')"
        )
