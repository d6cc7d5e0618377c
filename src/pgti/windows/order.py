"""In which order the windows of an epoch are used: a pure function of (seed, epoch, number)."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from pgti.errors import ConfigError, require_whole_number

__all__ = ["GlobalShuffle", "Order", "Sequential"]

# The highest word of Philox's counter. Other things are drawn with keys (seed, number) too, and
# count from 0: this keeps their numbers and the order's apart. It is part of what a seed means.
_DOMAIN = int.from_bytes(b"order", "big")


class Order(ABC):
    """An order of windows. It has no state: the same arguments give the same order, always."""

    @abstractmethod
    def epoch(self, num_windows: int, epoch: int) -> NDArray[np.int64]:
        """Positions 0..num_windows-1, each exactly once, in the order of this epoch.

        Args:
            num_windows: how many windows the split has.
            epoch: which epoch, from 0.

        Returns:
            int64 [num_windows].
        """


class Sequential(Order):
    """Time order, in every epoch: for evaluation."""

    def epoch(self, num_windows: int, epoch: int) -> NDArray[np.int64]:
        """Positions in time order."""
        del epoch
        return np.arange(num_windows, dtype=np.int64)


class GlobalShuffle(Order):
    """A fresh permutation of all windows in each epoch.

    Drawn from a counter-based generator (Philox) keyed by (seed, epoch), so that the order of
    epoch 7 needs nothing of epochs 0 to 6, and a resumed run meets the same batches.

    Args:
        seed: 0 <= seed < 2**64.

    Raises:
        ConfigError: if the seed is outside that range.
    """

    def __init__(self, seed: int) -> None:
        require_whole_number("seed", seed, 0)
        if seed >= 2**64:
            raise ConfigError(f"seed is {seed}: it must be less than 2**64")
        self.seed = seed

    def __repr__(self) -> str:
        return f"GlobalShuffle(seed={self.seed})"

    def epoch(self, num_windows: int, epoch: int) -> NDArray[np.int64]:
        """A permutation of the positions, keyed by (seed, epoch)."""
        key = np.array([self.seed, epoch], dtype=np.uint64)
        counter = np.array([0, 0, 0, _DOMAIN], dtype=np.uint64)
        generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
        return generator.permutation(num_windows).astype(np.int64, copy=False)
