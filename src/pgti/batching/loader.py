"""The batches of an epoch, fetched ahead by threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain, cycle, islice, repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.batch import Batch
from pgti.batching.batcher import Batcher, BatchRequest
from pgti.batching.rows import ScratchArrays
from pgti.batching.source import WindowSource
from pgti.errors import require_whole_number
from pgti.windows import EvenSharding, Order, Sharding

__all__ = ["BatchLoader", "empty_batch"]


class BatchLoader:
    """Iterates over a split's windows in batches.

    Threads fetch ahead while the caller computes, where the batcher's `prefetch_depth` is above 1;
    batches are assembled on the caller's thread. Which batch comes when depends only on the order's
    (seed, epoch) and the batch size. Several epochs may be in progress at the same time, also of
    several loaders with one batcher: each has its own threads and scratch memory, and a batch is
    valid until the next one is taken from any of them.

    Args:
        batcher: makes the batches; its `prefetch_depth` says how many are in progress at a time.
        starts: window starts of the split: a range or int64 [S].
        batch_size: windows in a batch, B; the last one of an epoch may have fewer.
        order: in which order the windows are used.
        with_targets: False for windows whose horizon lies past the end of the series.
        sharding: which windows of a batch are this rank's; all of them if not given. The batches
            are those of one process, in the same number; a rank's may have no window.

    Attributes:
        starts: window starts of the split in time order, int64 [S].

    Raises:
        ConfigError: if the batch size is not a positive whole number.
    """

    def __init__(
        self,
        batcher: Batcher[Any],
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
        self.starts = np.asarray(starts, dtype=np.int64)
        self.sharding = EvenSharding(0, 1) if sharding is None else sharding
        self._with_targets = with_targets

    @property
    def num_windows(self) -> int:
        """Windows of the split, S, those of all ranks together."""
        return len(self.starts)

    @property
    def num_batches(self) -> int:
        """Batches of an epoch, the last one perhaps smaller."""
        return -(-self.num_windows // self.batch_size)

    def epoch(self, epoch: int, first_batch: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch, from `first_batch` on; closing it frees threads and buffers.

        Args:
            epoch: which epoch, from 0.
            first_batch: batches to skip, when a run resumes mid-epoch.
        """
        self.batcher.rows.begin_epoch(epoch)
        requests = self._requests(epoch, first_batch)
        return (
            self._prefetched(requests) if self.batcher.prefetch_depth > 1 else self._plain(requests)
        )

    def prefetch_epoch(self, epoch: int) -> None:
        """Start whatever the epoch will need, and return at once."""
        self.batcher.rows.prefetch_epoch(epoch)

    def windows_in(self, batch: int) -> int:
        """Windows of a batch, those of all ranks together."""
        return min(self.batch_size, self.num_windows - batch * self.batch_size)

    def _requests(self, epoch: int, first_batch: int) -> Iterator[Callable[[ScratchArrays], Any]]:
        """Fetches this rank's windows of each batch; all ranks' are announced as they come."""
        positions, total = self.order.epoch(self.num_windows, epoch), self.num_windows
        size, rank, rows = self.batch_size, self.sharding.rank, self.batcher.rows
        firsts = range(first_batch * size, total, size)

        def starts_in(first: int, rank: int) -> NDArray[np.int64]:
            batch = positions[first : first + size]
            return self.starts[self.sharding.shard(rank, batch, total, epoch)]

        sent = rows.send_starts(
            lambda: [starts_in(first, rank) for first in firsts], with_targets=self._with_targets
        )
        for first, on_device in zip(firsts, sent, strict=False):
            reader = rows.announce_batch(partial(starts_in, first))
            yield partial(self._fetch, starts_in(first, rank), reader, on_device)

    def _fetch(
        self,
        starts: NDArray[np.int64],
        reader: Any,
        sent: Tensor | None,
        scratch: ScratchArrays,
    ) -> Any:
        """What the batcher fetches; None where no window of the batch is this rank's."""
        if not len(starts):
            return None
        return self.batcher.fetch(
            BatchRequest(
                starts=starts,
                with_targets=self._with_targets,
                scratch=scratch,
                reader=reader,
                sent=sent,
            )
        )

    def _upload(self, fetched: Any, scratch: ScratchArrays) -> Any:
        return None if fetched is None else self.batcher.upload(fetched, scratch)

    def _assemble(self, fetched: Any) -> Batch:
        if fetched is None:
            return empty_batch(self.batcher.source, self.batcher.device)
        return self.batcher.assemble(fetched)

    def _plain(
        self, requests: Iterator[Callable[[ScratchArrays], Any]]
    ) -> Generator[Batch, None, None]:
        """Each batch when it is asked for, on the caller's thread; it was announced before."""
        scratch = self.batcher.new_scratch()
        announced = deque(islice(requests, self.batcher.rows.announced_ahead - 1))
        for announcement in chain(requests, repeat(None)):
            if announcement is not None:
                announced.append(announcement)
            if not announced:
                return
            scratch.wait()
            yield self._assemble(self._upload(announced.popleft()(scratch), scratch))

    def _prefetched(
        self, requests: Iterator[Callable[[ScratchArrays], Any]]
    ) -> Generator[Batch, None, None]:
        memory = [self.batcher.new_scratch() for _ in range(self.batcher.prefetch_depth)]
        waiting: deque[_Fetching] = deque()
        # A thread for each batch that is fetched ahead: one core cannot ask as much of memory, or
        # of a disk, as two can.
        with ThreadPoolExecutor(len(memory) - 1, thread_name_prefix="pgti-fetch") as threads:
            for fetch, scratch in zip(requests, cycle(memory), strict=False):
                # Scratch memory is written again only after the batch made of it has been used.
                scratch.wait()
                waiting.append(_Fetching(threads.submit(fetch, scratch), scratch, self._upload))
                if len(waiting) == len(memory):
                    yield self._assemble_next(waiting)
            while waiting:
                yield self._assemble_next(waiting)

    def _assemble_next(self, waiting: "deque[_Fetching]") -> Batch:
        """The first of the batches in progress; the copy of the next one starts before it."""
        uploaded = waiting.popleft().upload()
        if waiting and waiting[0].is_fetched:
            waiting[0].upload()
        return self._assemble(uploaded)


class _Fetching:
    """A batch in progress: threads fetch it, then it is uploaded once.

    Args:
        future: what is fetched.
        scratch: the memory that it is in.
        upload: starts to copy it to the compute device.
    """

    def __init__(
        self,
        future: Future[Any],
        scratch: ScratchArrays,
        upload: Callable[[Any, ScratchArrays], Any],
    ) -> None:
        self._future = future
        self._scratch = scratch
        self._upload = upload
        self._uploaded: tuple[Any] | None = None

    @property
    def is_fetched(self) -> bool:
        """Whether it is there; an error is raised when its turn comes."""
        return self._future.done() and self._future.exception() is None

    def upload(self) -> Any:
        """What the batch is assembled of; waits until it is fetched."""
        if self._uploaded is None:
            self._uploaded = (self._upload(self._future.result(), self._scratch),)
        return self._uploaded[0]


def empty_batch(source: WindowSource, device: torch.device) -> Batch:
    """The batch of a rank that has no window of it: every tensor with B = 0."""
    meta, spec = source.store.meta, source.spec
    past, future = (0, spec.input_steps, source.num_nodes), (0, spec.horizon, source.num_nodes)
    num_targets = len(source.target_indices)

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    static, num_known = source.static_inputs(device), len(source.known_indices)
    earlier = (0, spec.history_steps, source.num_nodes, meta.num_channels)
    return Batch(
        x=empty(*past, source.num_input_channels),
        x_mask=empty(*past, meta.num_channels, dtype=torch.bool),
        y=empty(*future, num_targets, dtype=torch.float64 if source.is_exact else torch.float32),
        y_mask=empty(*future, num_targets, dtype=torch.bool),
        calendar=empty(0, spec.span, len(source.calendar)),
        starts=np.empty(0, dtype=np.int64),
        future=empty(*future, num_known) if num_known else None,
        future_mask=empty(*future, num_known, dtype=torch.bool) if num_known else None,
        static=None if static is None else static.values,
        static_codes=None if static is None else static.codes,
        history=empty(*earlier) if spec.history else None,
        history_mask=empty(*earlier, dtype=torch.bool) if spec.history else None,
    )
