"""The windows of an epoch, in order, and those of them that a rank takes."""

from collections.abc import Iterator

from torch.utils.data import Sampler

from pgti.display import count_of
from pgti.errors import ConfigError, require_whole_number
from pgti.windows import GlobalShuffle, Order, Sequential, even_part

__all__ = ["WindowSampler"]


class WindowSampler(Sampler[int]):
    """Positions of windows, for the `sampler` of a `DataLoader`.

    For training (`evenly`) ranks take one window of the epoch's order in turn, so that with W ranks
    and batches of b windows the global batch of a step is the same b * W windows for every W. The
    last windows of the order, fewer than W, are left out of the epoch: all ranks take as many
    steps, with batches of the same size, so that the mean over ranks of gradients is the gradient
    of the global batch. With shuffling, each epoch leaves out other windows.

    For evaluation every window is exactly one rank's. Ranks take consecutive parts, whose sizes
    differ by at most one window and which may be empty.

    A single process that shuffles draws a new order in each epoch by itself. Several ranks must
    agree: there, as with torch's `DistributedSampler`, `set_epoch` sets the epoch.

    Args:
        num_windows: windows of the split.
        shuffle: whether the order is drawn from (seed, epoch); otherwise it is time order.
        seed: 0 <= seed < 2**64.
        rank: of this process.
        world_size: number of ranks.
        evenly: see above.

    Raises:
        ConfigError: if a number breaks its rule, or training has fewer windows than ranks.
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
                f"{count_of(num_windows, 'training window')} for {count_of(world_size, 'rank')}: "
                "launch fewer ranks, or give train a larger share"
            )
        self.num_windows = num_windows
        self.world_size = world_size
        self._part = even_part(num_windows, world_size, rank)
        if evenly:
            self._part = range(rank, num_windows - num_windows % world_size, world_size)
        self._order: Order = GlobalShuffle(seed) if shuffle else Sequential()
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration.

        Raises:
            ConfigError: unless it is a whole number of at least 0.
        """
        require_whole_number("epoch", epoch, 0)
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._part)

    def __iter__(self) -> Iterator[int]:
        epoch = self._epoch
        if self.world_size == 1:
            self._epoch += 1
        part = self._part
        positions = self._order.epoch(self.num_windows, epoch)
        return iter(positions[part.start : part.stop : part.step].tolist())
