"""Which windows every rank of a job takes in an epoch: whole numbers, without the ranks."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pgti.bench.results import Spread
from pgti.windows import (
    EvenSharding,
    Order,
    PartitionSharding,
    PartitionShuffle,
    Sharding,
    even_part,
)

__all__ = ["Coverage", "Job", "Schedule", "ScheduleFigures"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """An epoch of a job.

    Args:
        order: of the training windows.
        starts: window starts of the training split.
        span: rows of a window.
        batch_size: windows of a batch, those of all ranks together.
        accumulate: batches of an optimiser step.
        world_size: ranks.
        is_partitioned: whether each rank holds a part of the series.
        epoch: which epoch, from 0.
    """

    order: Order
    starts: range
    span: int
    batch_size: int
    accumulate: int
    world_size: int
    is_partitioned: bool
    epoch: int

    @property
    def num_batches(self) -> int:
        """Batches of an epoch, the last one perhaps smaller."""
        return -(-len(self.starts) // self.batch_size)

    @property
    def num_steps(self) -> int:
        """Optimiser steps of an epoch."""
        return -(-self.num_batches // self.accumulate)

    @property
    def exchanges(self) -> bool:
        """Whether rows travel at every step: a shuffle of all windows, over parts of the series."""
        return self.is_partitioned and not isinstance(self.order, PartitionShuffle)

    @property
    def parts(self) -> NDArray[np.int64]:
        """First row of each rank's part where rows travel, and the end of the last [W + 1]."""
        num_rows = self.starts[-1] + self.span - self.starts[0]
        firsts = [even_part(num_rows, self.world_size, rank).start for rank in self.ranks]
        return self.starts[0] + np.array([*firsts, num_rows], dtype=np.int64)

    @property
    def ranks(self) -> range:
        """All of them."""
        return range(self.world_size)

    def sharding(self, rank: int) -> Sharding:
        """Which windows are the rank's, as in training.

        Raises:
            ConfigError: if there is no such rank, or there are fewer partitions than ranks.
        """
        if self.is_partitioned and isinstance(self.order, PartitionShuffle):
            return PartitionSharding(self.order, rank, self.world_size)
        return EvenSharding(rank, self.world_size)


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """How often the ranks together take each training window in the epoch.

    Args:
        windows: windows of the split.
        once: taken once, as they should be.
        never: taken by no rank.
        repeatedly: taken more than once.
    """

    windows: int
    once: int
    never: int
    repeatedly: int

    @property
    def is_exact(self) -> bool:
        """Whether each window is taken once."""
        return self.once == self.windows


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleFigures:
    """How the epoch is shared out.

    Args:
        coverage: whether each window is taken once.
        batches: of each rank, some of which may hold none of its windows.
        steps: optimiser steps of each rank.
        windows_per_batch: windows that a rank takes of a batch, over all ranks and batches.
        windows_per_rank: windows that a rank takes in the epoch, over the ranks.
        idle_per_batch: ranks that have no window of a batch, over the batches.
        idle_ranks: ranks that have no window in the whole epoch.
    """

    coverage: Coverage
    batches: int
    steps: int
    windows_per_batch: Spread
    windows_per_rank: Spread
    idle_per_batch: Spread
    idle_ranks: int


class Schedule:
    """Who takes which window when.

    Args:
        job: the epoch.

    Attributes:
        starts: window starts in the order of the epoch, int64 [S].
        owners: who takes them, int64 [S]; -1 where nobody does.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._positions = job.order.epoch(len(job.starts), job.epoch)
        self.starts = np.asarray(job.starts, dtype=np.int64)[self._positions]
        self.owners = np.full(len(self.starts), -1, dtype=np.int64)
        self._taken = np.zeros(len(self.starts), dtype=np.int64)
        for rank in job.ranks:
            places = self._places_of(job.sharding(rank))
            self.owners[places] = rank
            np.add.at(self._taken, places, 1)

    def starts_of(self, rank: int, batch: int) -> NDArray[np.int64]:
        """The windows that a rank takes of a batch, int64 [b]."""
        here = self.batch(batch)
        starts: NDArray[np.int64] = self.starts[here][self.owners[here] == rank]
        return starts

    @cached_property
    def figures(self) -> ScheduleFigures:
        """How the epoch is shared out."""
        job = self.job
        # Windows of a rank and batch: how many pairs have 0, 1, 2 ... of them.
        pairs = np.zeros(min(job.batch_size, len(self.starts)) + 1, dtype=np.int64)
        idle = np.zeros(job.num_batches, dtype=np.int64)
        for batch in range(job.num_batches):
            counts = self._counts(self.owners[self.batch(batch)])
            of_batch = np.bincount(counts)
            pairs[: len(of_batch)] += of_batch
            idle[batch] = of_batch[0]
        per_rank = self._counts(self.owners)
        return ScheduleFigures(
            coverage=self._coverage(),
            batches=job.num_batches,
            steps=job.num_steps,
            windows_per_batch=_spread_of_counts(pairs),
            windows_per_rank=Spread.of(per_rank.tolist()),
            idle_per_batch=Spread.of(idle.tolist()),
            idle_ranks=int((per_rank == 0).sum()),
        )

    def batch(self, batch: int) -> slice:
        """Where a batch is in the order of the epoch."""
        return slice(batch * self.job.batch_size, (batch + 1) * self.job.batch_size)

    def _counts(self, owners: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(owners[owners >= 0], minlength=self.job.world_size)

    def _places_of(self, sharding: Sharding) -> NDArray[np.int64]:
        """Places in the epoch's order of the windows that are the share's rank's."""
        total = len(self._positions)
        size = min(self.job.batch_size, total)
        if isinstance(sharding, PartitionSharding):
            # Whose a window is depends on its position alone: all batches are asked at once.
            place_of = np.zeros(total, dtype=np.int64)
            place_of[self._positions] = np.arange(total)
            places: NDArray[np.int64] = place_of[
                sharding.local_shard(self._positions, total, self.job.epoch)
            ]
            return places
        # Whose a window is depends on its place in the batch alone: batches of one size are alike.
        whole, rest = divmod(total, size)
        firsts = np.arange(whole, dtype=np.int64)[:, None] * size
        in_whole = sharding.local_shard(np.arange(size), total, self.job.epoch)
        in_last = sharding.local_shard(np.arange(rest), total, self.job.epoch)
        parts = [(firsts + in_whole).reshape(-1), whole * size + in_last]
        return np.concatenate(parts)

    def _coverage(self) -> Coverage:
        times = np.zeros(len(self._positions), dtype=np.int64)
        np.add.at(times, self._positions, self._taken)
        return Coverage(
            windows=len(times),
            once=int((times == 1).sum()),
            never=int((times == 0).sum()),
            repeatedly=int((times > 1).sum()),
        )


def _spread_of_counts(pairs: NDArray[np.int64]) -> Spread:
    """The spread of numbers 0, 1, 2 ... of which there are so many each."""
    total = int(pairs.sum())
    until = np.cumsum(pairs)
    low, high = (int(np.searchsorted(until, place, "right")) for place in _middle(total))
    there = np.flatnonzero(pairs)
    return Spread(
        median=(low + high) / 2, minimum=int(there[0]), maximum=int(there[-1]), runs=total
    )


def _middle(total: int) -> tuple[int, int]:
    """Places of the one or two numbers in the middle."""
    return (total - 1) // 2, total // 2
