"""The orders of pgti for anybody's `torch.utils.data.DataLoader`."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Dataset, DistributedSampler

from pgti.errors import ConfigError, require_whole_number
from pgti.windows import Order

__all__ = ["WindowSampler"]


class WindowSampler(DistributedSampler[Any]):
    """The windows of a dataset in an order of pgti, for `DataLoader(dataset, sampler=...)`.

    With one rank, a loader of `batch_size` windows gives the batches of `build_loader` with the
    same order. Rank r of W takes every W-th window, so that the batches of all ranks at a step
    have the windows of one batch of `W * batch_size`.

    The order is a function of (seed, epoch): call `set_epoch` before each epoch, as for torch's
    `DistributedSampler`. Lightning and accelerate do so themselves, and Lightning leaves this
    sampler as it is, because it is one.

    Args:
        dataset: the windows.
        order: such as `GlobalShuffle(seed)`.
        rank: which rank this is.
        world_size: how many ranks there are.
        even: give every rank equally many windows, as ranks that train together need; the first
            windows of the epoch come a second time where their number is not a multiple of
            `world_size`. False gives each window to one rank.

    Raises:
        ConfigError: if there is no such rank.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        order: Order,
        *,
        rank: int = 0,
        world_size: int = 1,
        even: bool = True,
    ) -> None:
        require_whole_number("world_size", world_size, 1)
        require_whole_number("rank", rank, 0)
        if rank >= world_size:
            raise ConfigError(f"rank is {rank} and world_size {world_size}: ranks count from 0")
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=False)
        self.order = order
        self.even = even

    def __iter__(self) -> Iterator[int]:
        positions = self.order.epoch(self._num_windows, self.epoch)
        if self.even:
            positions = np.resize(positions, self.total_size)
        return iter(positions[self.rank :: self.num_replicas].tolist())

    def __len__(self) -> int:
        end = self.total_size if self.even else self._num_windows
        return len(range(self.rank, end, self.num_replicas))

    @property
    def _num_windows(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]
