"""The batches of an epoch, fetched ahead by threads."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from pgti.batching.base import Batcher, Fetched, RowSource
from pgti.batching.batch import Batch
from pgti.batching.buffers import Buffers
from pgti.errors import require_whole_number
from pgti.windows import EvenSharding, Order, Sharding

__all__ = ["BatchLoader"]


class BatchLoader:
    """Iterates over a split's windows in batches.

    Threads fetch ahead while the caller computes, where the batcher has more than one slot; batches
    are assembled on the caller's thread. Which batch comes when depends only on the order's (seed,
    epoch) and the batch size. Epochs may be under way at the same time, of several loaders with one
    batcher too: each has its own threads and buffers, and a batch is valid until the next one is
    taken from any of them.

    Args:
        batcher: makes the batches; its `prefetch_depth` says how many are under way at a time.
        starts: window starts of the split: a range or int64 [S].
        batch_size: windows in a batch, B; the last one of an epoch may have fewer.
        order: in which order the windows are used.
        with_targets: False for windows whose horizon lies past the end of the series.
        sharding: which windows of a batch are this rank's; all of them if not given. The batches
            are those of one process, in the same number; a rank's may have no window.

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
        sharding: Sharding | None = None,
    ) -> None:
        require_whole_number("batch size", batch_size, 1)
        self.batcher = batcher
        self.batch_size = batch_size
        self.order = order
        self._starts = np.asarray(starts, dtype=np.int64)
        self._with_targets = with_targets
        self._share = EvenSharding(0, 1) if sharding is None else sharding

    @property
    def sharding(self) -> Sharding:
        """Which windows of a batch are this rank's."""
        return self._share

    @property
    def num_windows(self) -> int:
        """Windows of the split, S, those of all ranks together."""
        return len(self._starts)

    @property
    def num_batches(self) -> int:
        """Batches of an epoch, the last one perhaps smaller."""
        return -(-self.num_windows // self.batch_size)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Window starts of the split in time order, int64 [S]."""
        return self._starts

    def epoch(self, epoch: int, first_batch: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch, from `first_batch` on; closing it frees threads and buffers.

        Args:
            epoch: which epoch, from 0.
            first_batch: batches to leave out at the beginning, when a run goes on mid-epoch.
        """
        self.batcher.enter(epoch)
        pieces = self._pieces(epoch, first_batch)
        return (
            self._fetched_ahead(pieces) if self.batcher.prefetch_depth > 1 else self._made(pieces)
        )

    def prepare(self, epoch: int) -> None:
        """Begin whatever the epoch will need, while the caller does something else."""
        self.batcher.prepare(epoch)

    def windows_in(self, batch: int) -> int:
        """Windows of a batch, those of all ranks together."""
        return min(self.batch_size, self.num_windows - batch * self.batch_size)

    def _pieces(self, epoch: int, first_batch: int) -> Iterator["_Piece"]:
        """This rank's windows of each batch; the batcher is told of all ranks' as they come."""
        positions, total = self.order.epoch(self.num_windows, epoch), self.num_windows
        for first in range(first_batch * self.batch_size, total, self.batch_size):
            batch = positions[first : first + self.batch_size]

            def starts_of(rank: int, batch: NDArray[np.int64] = batch) -> NDArray[np.int64]:
                return self._starts[self._share.of(rank, batch, total, epoch)]

            rows = self.batcher.announce(starts_of)
            yield _Piece(starts=starts_of(self._share.rank), rows=rows)

    def _fetch(self, piece: "_Piece", buffers: Buffers) -> Fetched | None:
        """The rows of a batch; None where none of it is this rank's."""
        if not len(piece.starts):
            return None
        return self.batcher.fetch(
            piece.starts, with_targets=self._with_targets, buffers=buffers, rows=piece.rows
        )

    def _assemble(self, fetched: Fetched | None) -> Batch:
        return self.batcher.empty() if fetched is None else self.batcher.assemble(fetched)

    def _made(self, pieces: Iterator["_Piece"]) -> Generator[Batch, None, None]:
        """Each batch when it is asked for, on the caller's thread."""
        buffers = Buffers()
        for piece in pieces:
            yield self._assemble(self._fetch(piece, buffers))

    def _fetched_ahead(self, pieces: Iterator["_Piece"]) -> Generator[Batch, None, None]:
        week_bins = [Buffers() for _ in range(self.batcher.prefetch_depth)]
        waiting: deque[Future[Fetched | None]] = deque()
        # A thread for each batch that is fetched ahead: one core cannot ask as much of memory, or
        # of a disk, as two can.
        with ThreadPoolExecutor(len(week_bins) - 1, thread_name_prefix="pgti-fetch") as threads:
            for piece, buffers in zip(pieces, cycle(week_bins), strict=False):
                waiting.append(threads.submit(self._fetch, piece, buffers))
                # Buffers are written again only after the batch made of them has been used.
                if len(waiting) == len(week_bins):
                    yield self._assemble(waiting.popleft().result())
            while waiting:
                yield self._assemble(waiting.popleft().result())


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class _Piece:
    """A batch that is going to be fetched.

    Args:
        starts: its windows, those of this rank.
        rows: where their rows are, if that is a place of its own.
    """

    starts: NDArray[np.int64]
    rows: RowSource | None
