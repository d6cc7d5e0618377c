"""Which rows every rank of a job holds and sends in an epoch: whole numbers, without the ranks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgti.bench.dry_run_schedule import Job, Schedule
from pgti.windows import PartitionSharding, plan_transfers, resident_rows

__all__ = ["RankRows", "rows_of", "rows_sent"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RankRows:
    """Rows that ranks hold and send.

    Args:
        held: rows that each rank holds of its own, int64 [W].
        exchanged: rows that each rank sends for the batches of the epoch, int64 [W].
        exchanged_per_batch: rows that all ranks send for each batch, int64 [batches].
        exchanged_most: most rows that one rank sends for one batch.
        exchanged_of: the same for some ranks, by batch: int64 [batches] for each.
        moved: rows that each rank sends before the next epoch, int64 [W].
    """

    held: NDArray[np.int64]
    exchanged: NDArray[np.int64]
    exchanged_per_batch: NDArray[np.int64]
    exchanged_most: int
    exchanged_of: dict[int, NDArray[np.int64]]
    moved: NDArray[np.int64]


def rows_of(schedule: Schedule, ranks: Sequence[int]) -> RankRows:
    """What the ranks hold and send.

    Args:
        schedule: who takes which window.
        ranks: those whose rows are told by batch.
    """
    job = schedule.job
    held, exchanged, moved = (np.zeros(job.world_size, dtype=np.int64) for _ in range(3))
    per_batch, most = np.zeros(job.num_batches, dtype=np.int64), 0
    of = {rank: np.zeros(job.num_batches, dtype=np.int64) for rank in ranks}
    if job.exchanges:
        parts = job.parts
        held = np.diff(parts)
        for batch in range(job.num_batches):
            here = schedule.batch(batch)
            sent = rows_sent(schedule.starts[here], schedule.owners[here], parts, job.span)
            exchanged += sent
            per_batch[batch], most = sent.sum(), max(most, int(sent.max()))
            for rank in ranks:
                of[rank][batch] = sent[rank]
    elif job.is_partitioned:
        held, moved = _held_and_moved(job)
    return RankRows(
        held=held,
        exchanged=exchanged,
        exchanged_per_batch=per_batch,
        exchanged_most=most,
        exchanged_of=of,
        moved=moved,
    )


def _held_and_moved(job: Job) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that each rank holds in the epoch, and sends before the next one, int64 [W] each."""
    sharding = job.sharding(0)
    assert isinstance(sharding, PartitionSharding)
    now, later = (
        [resident_rows(sharding, rank, job.starts, range(job.span), epoch) for rank in job.ranks]
        for epoch in (job.epoch, job.epoch + 1)
    )
    moved = np.zeros(job.world_size, dtype=np.int64)
    for move in plan_transfers(now, later):
        moved[move.source] += len(move.rows)
    return np.array([sum(map(len, rows)) for rows in now], dtype=np.int64), moved


def rows_sent(
    starts: NDArray[np.int64], owners: NDArray[np.int64], parts: NDArray[np.int64], span: int
) -> NDArray[np.int64]:
    """Rows that each rank sends for a batch: those in its part that others' windows lie in.

    Args:
        starts: window starts, int64 [B].
        owners: who takes them, int64 [B].
        parts: first row of each rank's part, and the end of the last, int64 [W + 1].
        span: rows of a window.

    Returns:
        int64 [W]; a row that several ranks need is sent to each of them.
    """
    rising = np.lexsort((starts, owners))
    rising = rising[owners[rising] >= 0]
    owners, firsts = owners[rising], starts[rising]
    stops = firsts + span
    # A rank needs each row once: a window brings the rows behind those of the one before it.
    is_same = owners[1:] == owners[:-1]
    firsts[1:] = np.maximum(firsts[1:], np.where(is_same, stops[:-1], 0))
    needed = np.diff(_length_below(parts, firsts, stops))
    inside = np.minimum(stops, parts[owners + 1]) - np.maximum(firsts, parts[owners])
    own = np.zeros_like(needed)
    np.add.at(own, owners, np.maximum(inside, 0))
    sent: NDArray[np.int64] = needed - own
    return sent


def _length_below(
    limits: NDArray[np.int64], firsts: NDArray[np.int64], stops: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How many numbers below each limit the ranges first..stop-1 have together, int64 [limits]."""
    return _excess(limits, firsts) - _excess(limits, stops)


def _excess(limits: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of limit - value over the values below each limit."""
    values = np.sort(values)
    below = np.searchsorted(values, limits)
    excess: NDArray[np.int64] = below * limits - np.append(0, np.cumsum(values))[below]
    return excess
