"""Which windows of a global batch each rank takes: pure integers, the same on every rank.

The order decides the batch first, so what a step trains on does not depend on the number of ranks.
"""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from pgti.errors import ConfigError, option, require_whole_number
from pgti.windows.order import PartitionShuffle

__all__ = ["EvenSharding", "PartitionSharding", "Sharding", "even_part"]


def even_part(total: int, num_parts: int, part: int) -> range:
    """One of `num_parts` consecutive parts of 0..total-1; the first parts have one more.

    Args:
        total: length to divide, not negative.
        num_parts: at least 1; there may be more parts than numbers.
        part: which part, from 0.

    >>> [even_part(8, 3, part) for part in range(3)]
    [range(0, 3), range(3, 6), range(6, 8)]
    """
    size, larger = divmod(total, num_parts)
    first = part * size + min(part, larger)
    return range(first, first + size + (part < larger))


class Sharding(ABC):
    """Divides the windows of a batch among ranks.

    Args:
        rank: the local rank, whose windows `local_shard` gives.
        world_size: number of ranks.

    Raises:
        ConfigError: if the rank is not below the world size.
    """

    def __init__(self, rank: int, world_size: int) -> None:
        require_whole_number("world size", world_size, 1)
        require_whole_number("rank", rank, 0)
        if rank >= world_size:
            raise ConfigError(f"rank is {rank}: it must be less than the world size {world_size}")
        self.rank = rank
        self.world_size = world_size

    @abstractmethod
    def shard(
        self, rank: int, positions: NDArray[np.int64], num_windows: int, epoch: int
    ) -> NDArray[np.int64]:
        """The positions of a global batch that a rank takes; each position has one rank.

        Args:
            rank: which rank.
            positions: of the batch, as `Order.epoch` gives them, int64 [B].
            num_windows: windows of the split.
            epoch: which epoch.

        Returns:
            int64 [b], in the order of `positions`; perhaps empty.
        """

    @abstractmethod
    def max_size(self, batch_size: int) -> int:
        """The most windows that the local rank takes of a batch of that size."""

    def local_shard(
        self, positions: NDArray[np.int64], num_windows: int, epoch: int
    ) -> NDArray[np.int64]:
        """What the local rank takes: see `shard`."""
        return self.shard(self.rank, positions, num_windows, epoch)


class EvenSharding(Sharding):
    """Consecutive windows of the batch, as many for each rank as for any other, or one more."""

    def shard(
        self, rank: int, positions: NDArray[np.int64], num_windows: int, epoch: int
    ) -> NDArray[np.int64]:
        """The rank's consecutive part of the batch."""
        part = even_part(len(positions), self.world_size, rank)
        return positions[part.start : part.stop]

    def max_size(self, batch_size: int) -> int:
        """An even part, rounded up."""
        return -(-batch_size // self.world_size)


class PartitionSharding(Sharding):
    """The windows of the partitions that the rank owns: whole, consecutive partitions.

    Args:
        order: the order whose partitions they are.
        rank: the local rank.
        world_size: number of ranks.

    Raises:
        ConfigError: if there are fewer partitions than ranks.
    """

    def __init__(self, order: PartitionShuffle, rank: int, world_size: int) -> None:
        super().__init__(rank, world_size)
        if order.partitions < world_size:
            raise ConfigError(
                f"partitions is {order.partitions} and there are {world_size} ranks: each rank "
                f"owns whole partitions, so give at least as many as ranks "
                f"({option('order.partitions', world_size)})"
            )
        self.order = order

    def partitions_of(self, rank: int) -> range:
        """The partitions that a rank owns."""
        return even_part(self.order.partitions, self.world_size, rank)

    def shard(
        self, rank: int, positions: NDArray[np.int64], num_windows: int, epoch: int
    ) -> NDArray[np.int64]:
        """The positions that lie in the rank's partitions in this epoch."""
        owned = self.partitions_of(rank)
        partitions = self.order.partition_of(positions, num_windows, epoch)
        return positions[(owned.start <= partitions) & (partitions < owned.stop)]

    def max_size(self, batch_size: int) -> int:
        """An even part for each partition owned, and one window more of each."""
        owned = len(self.partitions_of(self.rank))
        return min(batch_size, owned * (-(-batch_size // self.order.partitions) + 1))
