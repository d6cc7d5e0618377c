"""What to measure when batches are made."""

from dataclasses import dataclass, replace
from typing import Annotated

from cyclopts import Parameter

from pgti.errors import ConfigError, require_whole_number
from pgti.windows import WindowSpec
from pgti_bench.devices import Device, check_device
from pgti_bench.paper_datasets import DATASETS, DatasetShape

__all__ = ["LoaderOptions"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderOptions:
    """What to measure.

    Attributes:
        shape: Data set whose shape the simulated series has: metr-la, pems-bay, pems-all-la, pems,
            windmill or chickenpox.
        num_steps: Time steps of that series, in place of the data set's.
        window_steps: Input steps of a window, and equally many forecast steps.
        batch_size: Windows per batch.
        block_size: Consecutive windows per block of the block-shuffled order.
        batches: Batches per round, at most an epoch; as many as have 2 GiB if not given.
        device: Where pgti makes batches: cpu or cuda.
        threads: Threads of each process; torch's choice if not given.
        rounds: Measurements of each contender.
        round_bytes: batches of a round have at most about so many bytes.
        copied_bytes: memory that the plain copy reads from: more than any cache.

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
    round_bytes: Annotated[int, Parameter(parse=False)] = 2 << 30
    copied_bytes: Annotated[int, Parameter(parse=False)] = 1 << 30

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
        """The shape of the simulated series."""
        shape = DATASETS[self.shape]
        if self.num_steps is None:
            return shape
        name = f"{shape.name}-{self.num_steps}"
        return replace(shape, name=name, num_steps=self.num_steps, is_sparse=False)
