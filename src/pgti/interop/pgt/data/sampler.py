"""Which windows an epoch takes, in which order, and which of them a rank takes."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from pgti.errors import ConfigError, require_whole_number
from pgti.windows import GlobalShuffle, Order, Sequential, even_part

__all__ = ["WindowSampler"]


class WindowSampler(Sampler[int]):
    """Positions of windows, for the `sampler` of a `DataLoader`.

    Training takes them `evenly`: of the epoch's order, ranks take one window in turn, so that with
    W ranks and batches of b windows the global batch at a step is the same b * W windows whatever
    W is. The fewer than W windows that are left at the end of the order are left out of this
    epoch: every rank takes as many steps as any other, with batches of the same size, so that the
    mean over ranks of gradients is the gradient of the global batch. Shuffled, other windows are
    left out each epoch.

    Evaluation does not: every window is some rank's exactly once. Ranks take consecutive parts,
    which differ by one window at most, and may be empty.

    A single process that shuffles draws a new order in each epoch by itself. Several ranks must
    agree: there, as with torch's `DistributedSampler`, the epoch is what `set_epoch` was told last.

    Args:
        num_windows: windows of the split.
        shuffle: whether the order is drawn from (seed, epoch); time order otherwise.
        seed: 0 <= seed < 2**64.
        rank: which rank takes them.
        world_size: number of ranks.
        evenly: see above.

    Raises:
        ConfigError: if a number breaks its rule, or ranks should share fewer windows than there
            are ranks evenly.
    """

    def __init__(
        self,
        num_windows: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        evenly: bool = False,
    ) -> None:
        require_whole_number("world_size", world_size, 1)
        require_whole_number("rank", rank, 0)
        if rank >= world_size:
            raise ConfigError(f"rank is {rank}: it must be less than world_size {world_size}")
        if evenly and num_windows < world_size:
            raise ConfigError(
                f"{num_windows} training windows are too few for {world_size} ranks: launch fewer, "
                "or give train a larger share"
            )
        self.num_windows = num_windows
        self.rank = rank
        self.world_size = world_size
        self.evenly = evenly
        self._order: Order = GlobalShuffle(seed) if shuffle else Sequential()
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Name the epoch that is next iterated over.

        Raises:
            ConfigError: if it is no whole number of at least 0.
        """
        require_whole_number("epoch", epoch, 0)
        self._epoch = epoch

    def __len__(self) -> int:
        if self.evenly:
            return self.num_windows // self.world_size
        return len(even_part(self.num_windows, self.world_size, self.rank))

    def __iter__(self) -> Iterator[int]:
        epoch = self._epoch
        if self.world_size == 1:
            self._epoch += 1
        return iter(self._mine(self._order.epoch(self.num_windows, epoch)).tolist())

    def _mine(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.evenly:
            whole = self.num_windows - self.num_windows % self.world_size
            return positions[self.rank : whole : self.world_size]
        part = even_part(self.num_windows, self.world_size, self.rank)
        return positions[part.start : part.stop]
