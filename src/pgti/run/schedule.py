"""Which windows every rank of a job takes in an epoch, and which rows it holds and sends.

Whole numbers only: nothing is read, and no rank runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgti.batching import build_sharding
from pgti.run.results import Spread
from pgti.windows import (
    Order,
    PartitionSharding,
    PartitionShuffle,
    Sharding,
    Starts,
    even_part,
    plan_transfers,
    resident_rows,
)

__all__ = ["Job", "RankRows", "Schedule", "ScheduleSummary", "count_rows", "rows_sent"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """An epoch of a job.

    Attributes:
        order: of the training windows.
        starts: window starts of the training split.
        offsets: rows that a window reads, relative to its start (`WindowSpec.read_offsets`).
        batch_size: windows of a batch, those of all ranks together.
        accumulate: batches per optimizer step.
        world_size: number of ranks.
        placement: replicated, every rank reads the whole series; partitioned, each holds a part.
        epoch: which epoch, from 0.
        shard_sensors: ranks that share the sensors of each window, and so the windows: the
            schedule is then that of groups of ranks.
        batching: index, ranks read rows on the host; device, they hold them on their devices.
    """

    order: Order
    starts: Starts
    offsets: tuple[range, ...]
    batch_size: int
    accumulate: int
    world_size: int
    placement: str
    epoch: int
    shard_sensors: int = 1
    batching: str = "index"

    @property
    def num_groups(self) -> int:
        """Parts of a batch: each rank has one, or each group of ranks that share sensors."""
        return self.world_size // self.shard_sensors

    @property
    def num_batches(self) -> int:
        """Batches of an epoch, the last one possibly smaller."""
        return -(-len(self.starts) // self.batch_size)

    @property
    def num_steps(self) -> int:
        """Optimizer steps of an epoch."""
        return -(-self.num_batches // self.accumulate)

    @property
    def is_partitioned(self) -> bool:
        """Whether each rank holds a partition of the series."""
        return self.placement == "partitioned"

    @property
    def exchanges_rows(self) -> bool:
        """Whether rows are sent for every batch: all windows are shuffled over partitions."""
        return self.is_partitioned and not isinstance(self.order, PartitionShuffle)

    @property
    def reach(self) -> range:
        """All rows that a window reads lie in it, relative to its start."""
        return range(self.offsets[0].start, self.offsets[-1].stop)

    @property
    def borders(self) -> NDArray[np.int64]:
        """First row of each rank's partition if rows are exchanged, and the end of the last."""
        first = max(0, int(self.starts[0]) + self.reach.start)
        num_rows = int(self.starts[-1]) + self.reach.stop - first
        firsts = [even_part(num_rows, self.num_groups, rank).start for rank in self.ranks]
        return first + np.array([*firsts, num_rows], dtype=np.int64)

    @property
    def ranks(self) -> range:
        """All ranks, or all groups of ranks that share sensors."""
        return range(self.num_groups)

    def sharding(self, rank: int) -> Sharding:
        """Which windows the rank takes, as in training.

        Raises:
            ConfigError: if there is no such rank, or there are fewer partitions than ranks.
        """
        return build_sharding(self.order, self.placement, rank, self.num_groups)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleSummary:
    """How the epoch is distributed over the ranks.

    Attributes:
        windows: windows of the split.
        taken_once: those that one rank takes, as it should be.
        never_taken: those that no rank takes.
        taken_repeatedly: those that are taken more than once.
        batches: of each rank, some of which may contain none of its windows.
        steps: optimizer steps of each rank.
        windows_per_batch: windows of a rank in a batch, over all ranks and batches.
        windows_per_rank: windows of a rank in the epoch, over the ranks.
        idle_per_batch: ranks without a window of a batch, over the batches.
        idle_ranks: ranks without a window in the whole epoch.
    """

    windows: int
    taken_once: int
    never_taken: int
    taken_repeatedly: int
    batches: int
    steps: int
    windows_per_batch: Spread
    windows_per_rank: Spread
    idle_per_batch: Spread
    idle_ranks: int


class Schedule:
    """Which rank takes which window when.

    Args:
        job: the epoch.

    Attributes:
        job: the epoch.
        starts: window starts in the order of the epoch, int64 [S].
        owners: the ranks that take them, int64 [S]; -1 for none.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._positions = job.order.epoch(len(job.starts), job.epoch)
        self.starts = np.asarray(job.starts, dtype=np.int64)[self._positions]
        self.owners = np.full(len(self.starts), -1, dtype=np.int64)
        self._uses = np.zeros(len(self.starts), dtype=np.int64)
        for rank in job.ranks:
            places = self._places_of(job.sharding(rank))
            self.owners[places] = rank
            np.add.at(self._uses, self._positions[places], 1)

    def batch(self, batch: int) -> slice:
        """Where a batch is in the order of the epoch."""
        return slice(batch * self.job.batch_size, (batch + 1) * self.job.batch_size)

    def starts_of(self, rank: int, batch: int) -> NDArray[np.int64]:
        """The windows that a rank takes of a batch, int64 [b]."""
        here = self.batch(batch)
        starts: NDArray[np.int64] = self.starts[here][self.owners[here] == rank]
        return starts

    def summarize(self) -> ScheduleSummary:
        """How the epoch is distributed over the ranks."""
        job, uses = self.job, self._uses
        # How many pairs of a rank and a batch have 0, 1, 2 ... windows.
        pairs = np.zeros(min(job.batch_size, len(self.starts)) + 1, dtype=np.int64)
        idle = []
        for batch in range(job.num_batches):
            counts = np.bincount(self._windows_per_rank(self.owners[self.batch(batch)]))
            pairs[: len(counts)] += counts
            idle.append(int(counts[0]))
        per_rank = self._windows_per_rank(self.owners)
        return ScheduleSummary(
            windows=len(uses),
            taken_once=int((uses == 1).sum()),
            never_taken=int((uses == 0).sum()),
            taken_repeatedly=int((uses > 1).sum()),
            batches=job.num_batches,
            steps=job.num_steps,
            windows_per_batch=_spread_of_counts(pairs),
            windows_per_rank=Spread.of(per_rank.tolist()),
            idle_per_batch=Spread.of(idle),
            idle_ranks=int((per_rank == 0).sum()),
        )

    def _windows_per_rank(self, owners: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(owners[owners >= 0], minlength=self.job.num_groups)

    def _places_of(self, sharding: Sharding) -> NDArray[np.int64]:
        """Places in the epoch's order of the windows of one rank."""
        total, epoch = len(self._positions), self.job.epoch
        if isinstance(sharding, PartitionSharding):
            # A window's rank depends on its position alone: ask for all batches at once.
            place_of = np.zeros(total, dtype=np.int64)
            place_of[self._positions] = np.arange(total)
            places: NDArray[np.int64] = place_of[
                sharding.local_shard(self._positions, total, epoch)
            ]
            return places
        # A window's rank depends on its place in the batch alone: full batches are alike.
        size = min(self.job.batch_size, total)
        whole, rest = divmod(total, size)
        in_full, in_last = (sharding.local_shard(np.arange(n), total, epoch) for n in (size, rest))
        firsts = np.arange(whole, dtype=np.int64)[:, None] * size
        return np.concatenate([(firsts + in_full).reshape(-1), whole * size + in_last])


def _spread_of_counts(pairs: NDArray[np.int64]) -> Spread:
    """The spread of the numbers 0, 1, 2 ..., each occurring as often as `pairs` says."""
    total = int(pairs.sum())
    low, high = np.searchsorted(np.cumsum(pairs), ((total - 1) // 2, total // 2), "right")
    present = np.flatnonzero(pairs)
    median = (int(low) + int(high)) / 2
    return Spread(median=median, minimum=int(present[0]), maximum=int(present[-1]), runs=total)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RankRows:
    """Rows that ranks hold and send.

    Attributes:
        held: rows in each rank's own memory, int64 [W].
        exchanged: rows that each rank sends for each batch, int32 [batches, W].
        moved: rows that each rank sends before the next epoch, int64 [W].
    """

    held: NDArray[np.int64]
    exchanged: NDArray[np.int32]
    moved: NDArray[np.int64]


def count_rows(schedule: Schedule) -> RankRows:
    """Rows that the ranks hold and send."""
    job = schedule.job
    held, moved = (np.zeros(job.num_groups, dtype=np.int64) for _ in range(2))
    exchanged = np.zeros((job.num_batches, job.num_groups), dtype=np.int32)
    if job.exchanges_rows:
        held = np.diff(job.borders)
        for batch in range(job.num_batches):
            here = schedule.batch(batch)
            starts, owners = schedule.starts[here], schedule.owners[here]
            exchanged[batch] = rows_sent(starts, owners, job.borders, job.offsets)
    elif job.is_partitioned:
        held, moved = _count_held_and_moved(job)
    return RankRows(held=held, exchanged=exchanged, moved=moved)


def _count_held_and_moved(job: Job) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that each rank holds in the epoch, and sends before the next one, int64 [W] each."""
    sharding = job.sharding(0)
    assert isinstance(sharding, PartitionSharding)
    now, later = (
        [resident_rows(sharding, rank, job.starts, job.reach, epoch) for rank in job.ranks]
        for epoch in (job.epoch, job.epoch + 1)
    )
    moved = np.zeros(job.num_groups, dtype=np.int64)
    for transfer in plan_transfers(now, later):
        moved[transfer.source] += len(transfer.rows)
    return np.array([sum(map(len, rows)) for rows in now], dtype=np.int64), moved


def rows_sent(
    starts: NDArray[np.int64],
    owners: NDArray[np.int64],
    borders: NDArray[np.int64],
    offsets: Sequence[range],
) -> NDArray[np.int64]:
    """Rows that each rank sends for a batch: those of its partition that others' windows contain.

    Args:
        starts: window starts, int64 [B].
        owners: the ranks that take them, int64 [B]; -1 for none.
        borders: first row of each rank's partition, and the end of the last one, int64 [W + 1].
        offsets: rows that a window reads, relative to its start; none lies before row 0.

    Returns:
        int64 [W]; a row that several ranks need is sent to each of them.
    """
    starts, owners = starts[owners >= 0], owners[owners >= 0]
    firsts, stops = (
        np.concatenate([np.maximum(0, starts + getattr(each, end)) for each in offsets])
        for end in ("start", "stop")
    )
    owners = np.tile(owners, len(offsets))
    rising = np.lexsort((firsts, owners))
    owners, firsts, stops = owners[rising], firsts[rising], stops[rising]
    # A rank needs each row once: a range adds the rows after those of the ranges before it.
    apart = owners * (int(stops.max(initial=0)) + 1)
    stops = np.maximum.accumulate(stops + apart) - apart
    is_same = owners[1:] == owners[:-1]
    firsts[1:] = np.maximum(firsts[1:], np.where(is_same, stops[:-1], 0))
    # Rows of the ranges below each border, from the sums of border - first and border - stop.
    needed = np.diff(_sum_below(borders, firsts) - _sum_below(borders, stops))
    inside = np.minimum(stops, borders[owners + 1]) - np.maximum(firsts, borders[owners])
    np.subtract.at(needed, owners, np.maximum(inside, 0))
    return needed


def _sum_below(borders: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of border - value over the values below each border."""
    values = np.sort(values)
    below = np.searchsorted(values, borders)
    excess: NDArray[np.int64] = below * borders - np.append(0, np.cumsum(values))[below]
    return excess
