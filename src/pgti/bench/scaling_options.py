"""What the scaling study measures and models."""

from dataclasses import dataclass

from pgti.errors import ConfigError, require_whole_number
from pgti.windows import WindowSpec

__all__ = ["DASK", "EXCHANGE", "SYSTEMS", "ScalingOptions", "systems_named", "world_sizes"]

DASK, EXCHANGE = "dask", "partitioned-global"

SYSTEMS = {
    DASK: "DDP, windows fetched through Dask, float64",
    "windows": "DDP, windows in a shared file, float32, prefetched",
    "replicated": "every rank reads the whole series",
    "device": "the series on every rank's device",
    "partitioned": "each rank holds its part of the series",
    EXCHANGE: "each rank holds its part, global shuffle",
}
"""What is compared, by name. The first is the paper's baseline, the second a strong one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScalingOptions:
    """What to measure, and how far to model.

    The batch of a rank is fixed, as in the paper: the batch of a step is `batch_size` times the
    number of ranks.

    Args:
        systems: names out of `SYSTEMS`.
        ranks: numbers of local ranks to measure, rising; 1 is among them, for the model is made
            of what one rank does.
        rounds: measurements of each system; each begins an epoch of its own.
        batch_size: windows of a rank in a step.
        steps: optimiser steps of a round that count; one before them does not.
        num_steps: rows of the simulated series, where no store is given.
        num_nodes: sensors of it.
        window_steps: rows of a window's input, and as many to forecast.
        hidden: units of the DCRNN (one layer) that is trained.
        predicted_ranks: numbers of ranks to model.
        epoch_windows: training windows of the epoch whose time is told; the paper's PeMS has
            73,568.
        draws: resampled steps that the time of the slowest rank is taken from.
        seed: of the order, the parameters and the resampling.

    Raises:
        ConfigError: naming the option, its value and the rule.
    """

    systems: tuple[str, ...] = tuple(SYSTEMS)
    ranks: tuple[int, ...] = (1, 2, 4)
    rounds: int = 3
    batch_size: int = 64
    steps: int = 5
    num_steps: int = 4032
    num_nodes: int = 207
    window_steps: int = 12
    hidden: int = 16
    predicted_ranks: tuple[int, ...] = (8, 16, 32, 64, 128)
    epoch_windows: int = 73_568
    draws: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "rounds",
            "batch_size",
            "steps",
            "num_steps",
            "num_nodes",
            "window_steps",
            "hidden",
            "epoch_windows",
            "draws",
        ):
            require_whole_number(name.replace("_", "-"), getattr(self, name), 1)
        for number in (*self.ranks, *self.predicted_ranks):
            require_whole_number("ranks", number, 1)
        systems_named(",".join(self.systems))
        if 1 not in self.ranks:
            raise ConfigError(
                f"ranks is {','.join(map(str, self.ranks))}: 1 must be among them, the model is "
                "made of what one rank does"
            )

    @property
    def spec(self) -> WindowSpec:
        """The window's shape."""
        return WindowSpec(input_steps=self.window_steps, horizon=self.window_steps)

    def epoch_steps(self, world_size: int) -> int:
        """Optimiser steps of an epoch of `epoch_windows` windows."""
        return -(-self.epoch_windows // (self.batch_size * world_size))


def systems_named(names: str) -> tuple[str, ...]:
    """The systems of a list of names with commas, each once, in the order of `SYSTEMS`.

    Raises:
        ConfigError: there is none of that name, or no name at all.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in SYSTEMS:
            raise ConfigError(f"there is no system {name!r}: it is one of {', '.join(SYSTEMS)}")
    if not wanted:
        raise ConfigError(f"no system is named: give some of {', '.join(SYSTEMS)}")
    return tuple(name for name in SYSTEMS if name in wanted)


def world_sizes(text: str) -> tuple[int, ...]:
    """Numbers of ranks out of a list with commas, rising, each once.

    Raises:
        ConfigError: an entry is no whole number of at least 1, or there is none.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if not (word.isascii() and word.isdigit() and int(word) > 0):
            raise ConfigError(f"ranks is {text!r}: {word!r} is no whole number of at least 1")
    if not words:
        raise ConfigError("ranks names no number: give some such as 1,2,4")
    return tuple(sorted({int(word) for word in words}))
