"""What the scaling study measures and models."""

from dataclasses import dataclass
from typing import Annotated

import torch
from cyclopts import Parameter

from pgti.errors import ConfigError, require_whole_number
from pgti.windows import WindowSpec
from pgti_bench.devices import Device, check_device

__all__ = ["DASK", "DDP", "EXCHANGE", "SYSTEMS", "ScalingOptions"]

DASK, DDP, EXCHANGE = "dask", "ddp", "partitioned-global"

SYSTEMS = {
    DASK: "DDP, windows fetched through Dask, float64",
    DDP: "DistributedDataParallel, every rank materializes all windows in float32",
    "windows": "windows in a shared file, float32, prefetched",
    "replicated": "every rank reads the whole series",
    "device": "the series on every rank's device",
    "partitioned": "each rank holds its partition of the series",
    EXCHANGE: "each rank holds its partition, global shuffle",
}
"""The compared systems, by name: the paper's baseline, two strong ones, and those of pgti."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScalingOptions:
    """What to measure, and how far to model.

    The batch of a rank is fixed, as in the paper: the batch of a step is `batch_size` times the
    number of ranks.

    Attributes:
        systems: Systems to compare, comma-separated: dask, ddp, windows, replicated, device,
            partitioned, partitioned-global.
        device: Where ranks compute: cpu with gloo, or cuda with NCCL and a GPU for each rank.
        ranks: Numbers of local ranks to measure, comma-separated; 1 must be among them, because the
            model is built from measurements of one rank.
        rounds: Measurements of each system at each number of ranks; each begins a new epoch.
        batch_size: Windows per rank in a step.
        steps: Measured optimizer steps of a round, after one warm-up step.
        num_steps: Time steps of the simulated series, if no store is given.
        num_nodes: Sensors of the simulated series.
        window_steps: Input steps of a window, and equally many forecast steps.
        hidden: Hidden units of the trained DCRNN of one layer.
        predicted_ranks: Numbers of ranks to model, comma-separated.
        epoch_windows: Training windows of the reported epoch; the paper's PeMS has 73,568.
        epochs: Epochs of the reported run, which begins with the start-up; the paper's has 30.
        draws: resampled steps from which the slowest rank's time is estimated.
        seed: Seed of the order, the parameters and the resampling.

    Raises:
        ConfigError: naming the option, its value and the rule.
    """

    systems: tuple[str, ...] = tuple(SYSTEMS)
    device: Device = "cpu"
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
    epochs: int = 30
    draws: Annotated[int, Parameter(parse=False)] = 2000
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
            "epochs",
            "draws",
        ):
            require_whole_number(name.replace("_", "-"), getattr(self, name), 1)
        for number in (*self.ranks, *self.predicted_ranks):
            require_whole_number("ranks", number, 1)
        check_device(self.device)
        count = torch.cuda.device_count() if self.device == "cuda" else max(self.ranks, default=0)
        if max(self.ranks, default=0) > count:
            raise ConfigError(
                f"ranks is {','.join(map(str, self.ranks))} and this machine has {count} GPUs: "
                "each rank needs one"
            )
        for name in self.systems:
            if name not in SYSTEMS:
                raise ConfigError(f"there is no system {name!r}: it is one of {', '.join(SYSTEMS)}")
        if not self.systems:
            raise ConfigError(f"systems is empty: name some of {', '.join(SYSTEMS)}")
        if 1 not in self.ranks:
            raise ConfigError(
                f"ranks is {','.join(map(str, self.ranks))}: 1 must be among them, because the "
                "model is built from measurements of one rank"
            )
        in_order = tuple(name for name in SYSTEMS if name in self.systems)
        object.__setattr__(self, "systems", in_order)
        for name in ("ranks", "predicted_ranks"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))

    @property
    def spec(self) -> WindowSpec:
        """The window's shape."""
        return WindowSpec(input_steps=self.window_steps, horizon=self.window_steps)

    def epoch_steps(self, world_size: int) -> int:
        """Optimizer steps of an epoch of `epoch_windows` windows."""
        return -(-self.epoch_windows // (self.batch_size * world_size))

    def run_seconds(self, startup_seconds: float, epoch_seconds: float) -> float:
        """Seconds of a run of `epochs` epochs, without validation."""
        return startup_seconds + self.epochs * epoch_seconds
