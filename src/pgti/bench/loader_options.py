"""What to measure of the making of batches."""

from dataclasses import dataclass, replace

from pgti.bench.datasets import DATASETS, DatasetShape
from pgti.bench.devices import Device, check_device
from pgti.errors import ConfigError, require_whole_number
from pgti.windows import WindowSpec

__all__ = ["TRAINED_FRACTIONS", "LoaderOptions"]

TRAINED_FRACTIONS = (0.7, 0.1, 0.2)
"""Batches are made of the first of these shares of the windows, as PGT's are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderOptions:
    """What to measure.

    Args:
        shape: name of a data set whose shape the series has, where no store is given.
        num_steps: rows of that series, in place of the data set's.
        window_steps: rows of a window's input, and as many to forecast.
        batch_size: windows in a batch.
        block_size: windows in a block of the block-shuffled order.
        batches: made in a round, at most an epoch's; as many as have 2 GiB if not given.
        device: where our batches are made.
        threads: that each process computes with; torch's choice if not given.
        rounds: measurements of each.

    Raises:
        ConfigError: naming the option, its value and the rule.
    """

    shape: str = "metr-la"
    num_steps: int | None = None
    window_steps: int = 12
    batch_size: int = 64
    block_size: int = 8
    batches: int | None = None
    device: Device = "cpu"
    threads: int | None = None
    rounds: int = 5

    def __post_init__(self) -> None:
        if self.shape not in DATASETS:
            raise ConfigError(f"shape is {self.shape!r}: it is one of {', '.join(DATASETS)}")
        for name in ("window_steps", "batch_size", "rounds"):
            require_whole_number(name, getattr(self, name), 1)
        require_whole_number("block_size", self.block_size, 2)
        for name in ("num_steps", "batches", "threads"):
            if getattr(self, name) is not None:
                require_whole_number(name, getattr(self, name), 1)
        check_device(self.device)

    @property
    def spec(self) -> WindowSpec:
        """The window's shape."""
        return WindowSpec(input_steps=self.window_steps, horizon=self.window_steps)

    @property
    def series_shape(self) -> DatasetShape:
        """The shape of the series to make."""
        shape = DATASETS[self.shape]
        if self.num_steps is None:
            return shape
        name = f"{shape.name}-{self.num_steps}"
        return replace(shape, name=name, num_steps=self.num_steps, is_sparse=False)
