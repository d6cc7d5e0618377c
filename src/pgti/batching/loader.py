"""The batches of an epoch, fetched ahead by threads."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from pgti.batching.base import Batcher, Fetched
from pgti.batching.batch import Batch
from pgti.batching.buffers import Buffers
from pgti.errors import require_whole_number
from pgti.windows import Order

__all__ = ["BatchLoader"]


class BatchLoader:
    """Iterates over a split's windows in batches.

    Threads fetch ahead while the caller computes, where the batcher has more than one slot; batches
    are assembled on the caller's thread. Which batch comes when depends only on the order's (seed,
    epoch) and the batch size. Epochs may be under way at the same time, of several loaders with one
    batcher too: each has its own threads and buffers, and a batch is valid until the next one is
    taken from any of them.

    Args:
        batcher: makes the batches; all of its `num_slots` but the one in use are fetched ahead.
        starts: window starts of the split: a range or int64 [S].
        batch_size: windows in a batch, B; the last one of an epoch may have fewer.
        order: in which order the windows are used.
        with_targets: False for windows whose horizon lies past the end of the series.

    Raises:
        ConfigError: if the batch size is not a positive whole number.
    """

    def __init__(
        self,
        batcher: Batcher,
        starts: range | NDArray[np.int64],
        batch_size: int,
        order: Order,
        *,
        with_targets: bool = True,
    ) -> None:
        require_whole_number("batch size", batch_size, 1)
        self.batcher = batcher
        self.batch_size = batch_size
        self.order = order
        self._starts = np.asarray(starts, dtype=np.int64)
        self._with_targets = with_targets

    @property
    def num_windows(self) -> int:
        """Windows of the split, S."""
        return len(self._starts)

    @property
    def num_batches(self) -> int:
        """Batches of an epoch, the last one perhaps smaller."""
        return -(-self.num_windows // self.batch_size)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Window starts of the split in time order, int64 [S]."""
        return self._starts

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from `first_batch` on.

        Args:
            epoch: which epoch, from 0.
            first_batch: batches to leave out at the beginning, when a run goes on mid-epoch.
        """
        positions = self.order.epoch(self.num_windows, epoch)
        pieces = (
            self._starts[positions[first : first + self.batch_size]]
            for first in range(first_batch * self.batch_size, self.num_windows, self.batch_size)
        )
        return self._fetched_ahead(pieces) if self.batcher.num_slots > 1 else self._made(pieces)

    def _made(self, pieces: Iterator[NDArray[np.int64]]) -> Iterator[Batch]:
        """Each batch when it is asked for, on the caller's thread."""
        buffers = Buffers()
        for starts in pieces:
            fetched = self.batcher.fetch(starts, with_targets=self._with_targets, buffers=buffers)
            yield self.batcher.assemble(fetched)

    def _fetched_ahead(self, pieces: Iterator[NDArray[np.int64]]) -> Iterator[Batch]:
        slots = [Buffers() for _ in range(self.batcher.num_slots)]
        waiting: deque[Future[Fetched]] = deque()
        # A thread for each batch that is fetched ahead: one core cannot ask as much of memory, or
        # of a disk, as two can.
        with ThreadPoolExecutor(len(slots) - 1, thread_name_prefix="pgti-fetch") as threads:
            for starts, buffers in zip(pieces, cycle(slots), strict=False):
                waiting.append(
                    threads.submit(
                        self.batcher.fetch,
                        starts,
                        with_targets=self._with_targets,
                        buffers=buffers,
                    )
                )
                # Buffers are written again only after the batch made of them has been used.
                if len(waiting) == len(slots):
                    yield self.batcher.assemble(waiting.popleft().result())
            while waiting:
                yield self.batcher.assemble(waiting.popleft().result())
