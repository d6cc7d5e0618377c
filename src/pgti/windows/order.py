"""In which order the windows of an epoch are used: a pure function of (seed, epoch, number)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgti.errors import ConfigError, require_whole_number

__all__ = [
    "BlockShuffle",
    "GlobalShuffle",
    "Order",
    "PartitionShuffle",
    "Sequential",
    "check_seed",
]

# The highest word of Philox's counter. Other draws have keys (seed, number) too, and count from 0:
# this keeps their numbers and the order's apart. It is part of what a seed means.
_DOMAIN = int.from_bytes(b"order", "big")


class Order(ABC):
    """An order of windows, without state: the same arguments always give the same order."""

    @abstractmethod
    def epoch(self, num_windows: int, epoch: int) -> NDArray[np.int64]:
        """Positions 0..num_windows-1, each exactly once, in the order of this epoch.

        Args:
            num_windows: how many windows the split has.
            epoch: which epoch, from 0.

        Returns:
            int64 [num_windows].
        """


@dataclass(frozen=True, slots=True)
class Sequential(Order):
    """Time order, in every epoch: for evaluation."""

    def epoch(self, num_windows: int, epoch: int) -> NDArray[np.int64]:
        """Positions in time order."""
        return np.arange(num_windows, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class GlobalShuffle(Order):
    """A fresh permutation of all windows in each epoch.

    Drawn from a counter-based generator (Philox) keyed by (seed, epoch), so that the order of
    epoch 7 does not depend on epochs 0 to 6, and a resumed run gets the same batches.

    Attributes:
        seed: 0 <= seed < 2**64.

    Raises:
        ConfigError: if the seed is outside that range.
    """

    seed: int

    def __post_init__(self) -> None:
        check_seed(self.seed)

    def epoch(self, num_windows: int, epoch: int) -> NDArray[np.int64]:
        """A permutation of the positions, keyed by (seed, epoch)."""
        return _permutation(self.seed, epoch, num_windows)


@dataclass(frozen=True, slots=True)
class BlockShuffle(Order):
    """Blocks of consecutive windows in a fresh order each epoch, time order inside a block.

    The windows are cut into blocks of `block_size`, the last one perhaps shorter; the blocks are
    permuted as `GlobalShuffle` permutes windows, so blocks of one window give the same order.

    Consecutive windows share all rows but `stride`: a block of 8 windows of 24 rows reads 31 rows
    in place of 192, so batches are read and decoded in a fraction of the time. The price is
    statistical: the windows of a block are nearly copies of each other and always come together,
    so a batch of 64 covers about 64 / 8 different times of the series. Its gradient stays unbiased,
    with more noise.

    Attributes:
        seed: 0 <= seed < 2**64.
        block_size: windows in a block, >= 1.

    Raises:
        ConfigError: if the seed or the block size is outside its range.
    """

    seed: int
    block_size: int

    def __post_init__(self) -> None:
        check_seed(self.seed)
        require_whole_number("block size", self.block_size, 1)

    def epoch(self, num_windows: int, epoch: int) -> NDArray[np.int64]:
        """The positions block by block, the blocks permuted by (seed, epoch)."""
        return _shuffle_blocks(self.seed, epoch, num_windows, self.block_size)


@dataclass(frozen=True, slots=True)
class PartitionShuffle(Order):
    """Blocks of windows, shuffled within each partition, and the partitions interleaved.

    The generalized mode of PGT-I (arXiv 2507.11683, section 4.3) splits the series over ranks, and
    a batch there is one block of consecutive windows of each rank. Here the split belongs to the
    order, and a rank owns whole partitions: batches are the same at every number of ranks, and a
    step needs no row that its rank does not hold.

    The windows of an epoch are cut into partitions of equal size, or one window more. Each is cut
    into blocks of consecutive windows, which are permuted by (seed, epoch, partition). The epoch
    interleaves the partitions evenly: a batch of B windows has B / partitions of each, or one more
    or fewer.

    From epoch to epoch the borders of the partitions rotate by a fraction of a partition, so that
    over the epochs each partition has every window.

    Attributes:
        seed: 0 <= seed < 2**64.
        partitions: P, parts of the series, >= 1.
        block_size: windows in a block, >= 1.
        rotation: fraction of a partition that moves to its neighbour from epoch to epoch, 0..1.

    Raises:
        ConfigError: if one of them is outside its range.
    """

    seed: int
    partitions: int
    block_size: int
    rotation: float = 0.0

    def __post_init__(self) -> None:
        check_seed(self.seed)
        require_whole_number("partitions", self.partitions, 1)
        require_whole_number("block size", self.block_size, 1)
        if not 0 <= self.rotation <= 1:
            raise ConfigError(f"rotation is {self.rotation}: it must be a fraction between 0 and 1")

    def epoch(self, num_windows: int, epoch: int) -> NDArray[np.int64]:
        """The positions, partition after partition in turn."""
        borders = self._borders(num_windows)
        first, sizes = self.first_position(num_windows, epoch), np.diff(borders)
        parts = [
            border + _shuffle_blocks(self.seed, epoch, int(size), self.block_size, partition)
            for partition, (border, size) in enumerate(zip(borders[:-1], sizes, strict=True))
        ]
        # Window i of a partition of n has its place at (i + 1/2) / n of the epoch; a stable sort
        # puts equal places in the order of the partitions.
        places = np.concatenate([(np.arange(len(part)) + 0.5) / len(part) for part in parts])
        positions = np.concatenate(parts)[np.argsort(places, kind="stable")]
        return (first + positions) % max(1, num_windows)

    def first_position(self, num_windows: int, epoch: int) -> int:
        """Where the first partition begins in this epoch; the others follow, modulo the windows."""
        offset = int(epoch * self.rotation * num_windows / self.partitions)
        return offset % max(1, num_windows)

    def partition_of(
        self, positions: NDArray[np.int64], num_windows: int, epoch: int
    ) -> NDArray[np.int64]:
        """Which partition each position lies in, in this epoch: int64, of the same shape."""
        offsets = (positions - self.first_position(num_windows, epoch)) % max(1, num_windows)
        return np.searchsorted(self._borders(num_windows), offsets, side="right") - 1

    def positions_of(self, partitions: range, num_windows: int, epoch: int) -> tuple[range, ...]:
        """The positions in consecutive partitions in this epoch, as at most two ranges."""
        borders = self._borders(num_windows)
        first = self.first_position(num_windows, epoch)
        begin = first + int(borders[partitions.start])
        end = first + int(borders[partitions.stop])
        ranges = (
            range(begin, min(end, num_windows)),
            range(max(begin, num_windows) - num_windows, end - num_windows),
        )
        return tuple(each for each in ranges if each)

    def _borders(self, num_windows: int) -> NDArray[np.int64]:
        """Where each partition begins, and the end of the last: int64 [P + 1]."""
        size, larger = divmod(num_windows, self.partitions)
        numbers = np.arange(self.partitions + 1, dtype=np.int64)
        return numbers * size + np.minimum(numbers, larger)


def check_seed(seed: object) -> None:
    """Raise ConfigError unless the seed is a whole number from 0 to 2**64 - 1."""
    if isinstance(seed, int) and 2**63 <= seed < 2**64:
        return  # more than options of other kinds may be
    require_whole_number("seed", seed, 0)


def _shuffle_blocks(
    seed: int, epoch: int, count: int, block_size: int, stream: int = 0
) -> NDArray[np.int64]:
    """0..count-1 block by block, the blocks permuted by (seed, epoch, stream)."""
    # A block longer than the epoch is the epoch: an absurd block size takes no memory.
    size = min(block_size, max(1, count))
    num_blocks = -(-count // size)
    firsts = _permutation(seed, epoch, num_blocks, stream) * size
    positions = (firsts[:, None] + np.arange(size)).reshape(-1)
    if num_blocks * size == count:
        return positions
    return positions[positions < count]


def _permutation(seed: int, epoch: int, count: int, stream: int = 0) -> NDArray[np.int64]:
    """A permutation of 0..count-1, keyed by (seed, epoch, stream)."""
    key = np.array([seed, epoch], dtype=np.uint64)
    counter = np.array([0, 0, stream, _DOMAIN], dtype=np.uint64)
    generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
    return generator.permutation(count).astype(np.int64, copy=False)
