"""An order whose batches take from every part of the series alike, so that parts need not meet.

The generalised mode of PGT-I (arXiv 2507.11683, section 4.3) splits the series over ranks, and a
batch there is one run of consecutive windows of each rank. Here the split belongs to the order: the
training windows are cut in time into partitions, every batch takes its share of each of them, and
a rank owns whole partitions, whatever their number. So the batches are the same at every number
of ranks, and a step needs no row that its rank does not hold.
"""

import numpy as np
from numpy.typing import NDArray

from pgti.errors import ConfigError, require_whole_number
from pgti.windows.order import Order, checked_seed, shuffled_blocks

__all__ = ["PartitionShuffle"]


class PartitionShuffle(Order):
    """Blocks of windows, shuffled within each partition, and the partitions interleaved.

    The windows of an epoch are cut into partitions of equal size, or one window more. Each is cut
    into blocks of consecutive windows, which are permuted by (seed, epoch, partition). The epoch
    takes from all partitions in turn, each window at its even place: a batch of B windows has
    B / partitions of each partition, or one more or fewer.

    From epoch to epoch the borders of the partitions move on by a fraction of a partition, round
    and round, so that over the epochs each partition has every window.

    Args:
        seed: 0 <= seed < 2**64.
        partitions: P, parts of the series, >= 1.
        block_size: windows in a block, >= 1.
        rotation: how much of a partition goes over to its neighbour from epoch to epoch, 0..1.

    Raises:
        ConfigError: if one of them is outside its range.
    """

    def __init__(self, seed: int, partitions: int, block_size: int, rotation: float = 0.0) -> None:
        self.seed = checked_seed(seed)
        require_whole_number("partitions", partitions, 1)
        require_whole_number("block size", block_size, 1)
        if not 0 <= rotation <= 1:
            raise ConfigError(f"rotation is {rotation}: it must be a fraction between 0 and 1")
        self.partitions = partitions
        self.block_size = block_size
        self.rotation = rotation

    def __repr__(self) -> str:
        return (
            f"PartitionShuffle(seed={self.seed}, partitions={self.partitions}, "
            f"block_size={self.block_size}, rotation={self.rotation})"
        )

    def epoch(self, num_windows: int, epoch: int) -> NDArray[np.int64]:
        """The positions, partition after partition in turn."""
        borders = self._borders(num_windows)
        first, sizes = self.first_position(num_windows, epoch), np.diff(borders)
        parts = [
            border + shuffled_blocks(self.seed, epoch, int(size), self.block_size, partition)
            for partition, (border, size) in enumerate(zip(borders[:-1], sizes, strict=True))
        ]
        # Window i of a partition of n has its place at (i + 1/2) / n of the epoch; a stable sort
        # puts equal places in the order of the partitions.
        places = np.concatenate([(np.arange(len(part)) + 0.5) / len(part) for part in parts])
        positions = np.concatenate(parts)[np.argsort(places, kind="stable")]
        return (first + positions) % max(1, num_windows)

    def first_position(self, num_windows: int, epoch: int) -> int:
        """Where the first partition begins in this epoch; the others follow, round the end."""
        moved_on = int(epoch * self.rotation * num_windows / self.partitions)
        return moved_on % max(1, num_windows)

    def partition_of(
        self, positions: NDArray[np.int64], num_windows: int, epoch: int
    ) -> NDArray[np.int64]:
        """Which partition each position lies in, in this epoch: int64, of the same shape."""
        unturned = (positions - self.first_position(num_windows, epoch)) % max(1, num_windows)
        return np.searchsorted(self._borders(num_windows), unturned, side="right") - 1

    def positions_of(self, partitions: range, num_windows: int, epoch: int) -> tuple[range, ...]:
        """The positions in consecutive partitions in this epoch, as at most two rising runs."""
        borders = self._borders(num_windows)
        first = self.first_position(num_windows, epoch)
        begin = first + int(borders[partitions.start])
        end = first + int(borders[partitions.stop])
        runs = (
            range(begin, min(end, num_windows)),
            range(max(begin, num_windows) - num_windows, end - num_windows),
        )
        return tuple(run for run in runs if run)

    def _borders(self, num_windows: int) -> NDArray[np.int64]:
        """Where each partition begins, and the end of the last: int64 [P + 1]."""
        size, larger = divmod(num_windows, self.partitions)
        numbers = np.arange(self.partitions + 1, dtype=np.int64)
        return numbers * size + np.minimum(numbers, larger)
