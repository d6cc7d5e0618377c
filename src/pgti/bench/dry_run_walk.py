"""One rank's epoch with its real loader, under a backend that carries nothing to anybody."""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from pgti.batching import (
    PREFETCH_DEPTH,
    Batch,
    BatchLoader,
    WindowSource,
    build_batcher,
    build_loader,
)
from pgti.bench.dry_run_rows import RankRows
from pgti.bench.dry_run_schedule import Job, Schedule
from pgti.bench.old_step import count_observed
from pgti.distributed import KINDS, Communicator, SingleProcess, open_fake
from pgti.memory.available import available_bytes

__all__ = ["PREFETCH_DEPTH", "RankMemory", "StepBytes", "WalkedRank", "row_bytes", "walk_rank"]

"""Batches that a loader has under way, as in training."""

_COUNT_BYTES = 8
_MOST_ANNOUNCEMENTS = 1 << 16  # a rank that sends rows looks at the windows of every other one
_MOST_ROW_BYTES = 1 << 30  # copied from the series for one rank
_FREE_SHARE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class StepBytes:
    """Bytes that each rank sends in an optimiser step, whatever its windows are.

    Args:
        gradients: one number for each that is learnt, in its dtype.
        counts: 8 for each batch of the step: how many targets are observed.
        control: 8 for whether to stop, and 8 for each parameter: whether it has a gradient.
    """

    gradients: int
    counts: int
    control: int

    @classmethod
    def of(cls, job: Job, network: nn.Module) -> "StepBytes":
        """What a full step sends; nothing where there is one rank."""
        learning = _learning(network)
        several = int(job.world_size > 1)
        return cls(
            gradients=several * sum(each.nbytes for each in learning),
            counts=several * _COUNT_BYTES * job.accumulate,
            control=several * _COUNT_BYTES * (1 + len(learning)),
        )

    def of_batches(self, job: Job, num_batches: int) -> dict[str, int]:
        """What so many batches send by kind, the last step perhaps of fewer batches."""
        steps = -(-num_batches // job.accumulate)
        return {
            **dict.fromkeys(KINDS, 0),
            "gradients": steps * self.gradients,
            "counts": num_batches * self.counts // job.accumulate,
            "control": steps * self.control,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class RankMemory:
    """Bytes of one rank; activations are not among them.

    Args:
        held: rows of the series in its own memory; 0 where it maps the store.
        mapped: the series that it shares with the ranks of its machine, in the page cache; 0 where
            it holds a part of its own.
        fetched: rows of the batches under way, in the stored dtype, at most; where rows travel,
            those that arrive and those that are sent too.
        batch: its largest batch.
        parameters: of the network.
        gradients: of those that are learnt, and as much again while they are added up.
        optimiser: Adam's two moments.
    """

    held: int
    mapped: int
    fetched: int
    batch: int
    parameters: int
    gradients: int
    optimiser: int

    @property
    def own(self) -> int:
        """What the rank has for itself."""
        others = self.parameters + self.gradients + self.optimiser
        return self.held + self.fetched + self.batch + others


@dataclass(frozen=True, kw_only=True, slots=True)
class WalkedRank:
    """What one rank did.

    Args:
        rank: which one.
        batches: that it took, the last ones of the epoch.
        windows: that it took.
        has_its_windows: whether each batch was the schedule's.
        sent: bytes by kind, as the ledger counted them; the rows for the next epoch included.
        expected: the same by arithmetic.
        memory: what it needs.
        seconds: that the walk took.
    """

    rank: int
    batches: int
    windows: int
    has_its_windows: bool
    sent: Mapping[str, int]
    expected: Mapping[str, int]
    memory: RankMemory
    seconds: float

    @property
    def agrees(self) -> bool:
        """Whether its windows and its bytes are those of the schedule."""
        return self.has_its_windows and dict(self.sent) == dict(self.expected)


def row_bytes(source: WindowSource) -> int:
    """Bytes of a row of the series as it is stored."""
    meta = source.store.meta
    return meta.num_nodes * meta.num_channels * source.store.raw.dtype.itemsize


def walk_rank(
    schedule: Schedule,
    rows: RankRows,
    source: WindowSource,
    network: nn.Module,
    rank: int,
    batches: int | None,
) -> WalkedRank | str:
    """Take the last batches of the epoch with the rank's real loader, and send what training sends.

    Rows and sums that would come from other ranks are never looked at: the backend has none.

    Args:
        schedule: who takes which window.
        rows: what the rank holds and sends by arithmetic, told by batch for this rank.
        source: what the windows hold.
        network: what is trained.
        rank: which one to be.
        batches: how many, at most; as many as take seconds if not given.

    Returns:
        What the rank did; or why it was not walked, in one line.
    """
    job = schedule.job
    most = job.sharding(rank).max_size(min(job.batch_size, len(job.starts)))
    memory = _memory(job, rows, source, network, rank, most)
    free = available_bytes()
    needed = memory.own + most * source.window_bytes
    if needed > _FREE_SHARE * free:
        return (
            f"rank {rank}: it takes {most:,} windows of a batch and needs {needed / 2**30:.1f} GiB "
            f"here; {free / 2**30:.1f} are free, half of which may be used"
        )
    num_windows = int((schedule.owners == rank).sum())
    wished = _enough(job, num_windows * source.spec.span * row_bytes(source))
    num_batches = min(job.num_batches, wished if batches is None else batches)
    first = job.num_batches - num_batches
    first -= first % job.accumulate
    began = time.perf_counter()
    # What "arrives" is arbitrary: it may overflow where it is decoded.
    with _opened(job, rank) as communicator, np.errstate(all="ignore"):
        taken = _Taken()
        loader = _loader(job, source, communicator)
        with closing(loader.epoch(job.epoch, first)) as epoch:
            for batch in range(first, job.num_batches, job.accumulate):
                for number, each in enumerate(islice(epoch, job.accumulate)):
                    taken.add(each, schedule.starts_of(rank, batch + number))
                    communicator.all_reduce_async(count_observed(each), "counts").wait()
                _sum_gradients(network, communicator)
            taken.is_right &= next(epoch, None) is None
        loader.prefetch_epoch(job.epoch + 1)
        sent, held = communicator.traffic.sent_bytes, loader.batcher.rows.owned_bytes
    expected = StepBytes.of(job, network).of_batches(job, job.num_batches - first)
    num_rows = int(rows.exchanged_of[rank][first:].sum() + rows.moved[rank])
    expected["data"] = num_rows * row_bytes(source)
    return WalkedRank(
        rank=rank,
        batches=taken.batches,
        windows=taken.windows,
        has_its_windows=taken.is_right and taken.batches == job.num_batches - first,
        sent=sent,
        expected=expected,
        memory=_memory(job, rows, source, network, rank, most, held=held, batch=taken.most_bytes),
        seconds=time.perf_counter() - began,
    )


class _Taken:
    """What a rank has taken so far."""

    def __init__(self) -> None:
        self.batches = self.windows = self.most_bytes = 0
        self.is_right = True

    def add(self, batch: Batch, starts: np.ndarray) -> None:
        self.batches += 1
        self.windows += batch.num_windows
        self.most_bytes = max(self.most_bytes, _bytes_of(batch))
        self.is_right &= np.array_equal(batch.starts, starts)


def _opened(job: Job, rank: int) -> AbstractContextManager[Communicator]:
    return nullcontext(SingleProcess()) if job.world_size == 1 else open_fake(rank, job.world_size)


def _loader(job: Job, source: WindowSource, communicator: Communicator) -> BatchLoader:
    """The training loader of a rank, on the CPU."""
    # A small series could be cached decoded: that is a choice, and no need of the rank's.
    return build_loader(
        source,
        job.starts,
        job.batch_size,
        job.order,
        placement="partitioned" if job.is_partitioned else "replicated",
        communicator=communicator,
        batcher=build_batcher("index", source, torch.device("cpu"), budget_bytes=0),
    )


def _sum_gradients(network: nn.Module, communicator: Communicator) -> None:
    """Send what a training step sends when every parameter has a gradient."""
    learning = _learning(network)
    communicator.all_reduce_max([0, *(1 for _ in learning)])
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for parameter in learning:
        by_dtype.setdefault(parameter.dtype, []).append(torch.zeros_like(parameter))
    for gradients in by_dtype.values():
        communicator.all_reduce_coalesced_(gradients, "gradients")


def _enough(job: Job, epoch_bytes: int) -> int:
    """Batches that take seconds, where the rows of all of the epoch's have so many bytes."""
    few = max(1, job.num_batches * _MOST_ROW_BYTES // max(1, epoch_bytes))
    return min(few, max(1, _MOST_ANNOUNCEMENTS // job.world_size)) if job.exchanges else few


def _learning(network: nn.Module) -> list[nn.Parameter]:
    return [each for each in network.parameters() if each.requires_grad]


def _memory(
    job: Job,
    rows: RankRows,
    source: WindowSource,
    network: nn.Module,
    rank: int,
    most: int,
    *,
    held: int | None = None,
    batch: int = 0,
) -> RankMemory:
    learning = sum(each.nbytes for each in _learning(network))
    size = row_bytes(source)
    under_way = most * source.spec.span
    if job.exchanges:
        under_way += under_way + int(rows.exchanged_of[rank].max())
    return RankMemory(
        held=int(rows.held[rank]) * size if held is None else held,
        mapped=0 if job.is_partitioned else source.store.num_bytes,
        fetched=PREFETCH_DEPTH * under_way * size,
        batch=batch,
        parameters=sum(each.nbytes for each in network.parameters()),
        gradients=2 * learning if job.world_size > 1 else learning,
        optimiser=2 * learning,
    )


def _bytes_of(batch: Batch) -> int:
    """Memory of a batch's tensors; one that repeats an element takes the room of that element."""
    tensors = [batch.x, batch.x_mask, batch.y, batch.y_mask, batch.calendar]
    return sum(
        min(each.nbytes, each.untyped_storage().nbytes()) for each in tensors if each is not None
    )
