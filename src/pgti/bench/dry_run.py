"""A job of many ranks without its processes: schedule, coverage, bytes and memory of a rank."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import nn

from pgti.batching import WindowSource
from pgti.bench.dry_run_rows import RankRows, rows_of
from pgti.bench.dry_run_schedule import Job, Schedule, ScheduleFigures
from pgti.bench.dry_run_walk import StepBytes, WalkedRank, row_bytes, walk_rank
from pgti.bench.results import Machine, Spread
from pgti.errors import ConfigError, require_whole_number
from pgti.models import num_trainable_parameters
from pgti.training import TrainingConfig

__all__ = ["MOST_RANKS", "DryRunOptions", "DryRunResult", "SentBytes", "dry_run"]

MOST_RANKS = 4096
"""Ranks that a dry run is made for."""

_PAPER_BYTES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class DryRunOptions:
    """Which job, and how much of it to walk.

    Args:
        world_size: ranks, 1..4096.
        placement: replicated or partitioned.
        training: batches and their order, `auto` being resolved.
        ranks: which of them to walk; the first, the middle and the last if not given. Rising.
        epoch: which epoch, from 0.
        batches: of a walk, at most: the last ones of the epoch. As many as take seconds if not
            given.

    Raises:
        ConfigError: naming the option, its value and the rule.
    """

    world_size: int
    placement: str = "replicated"
    training: TrainingConfig = field(default_factory=TrainingConfig)
    ranks: tuple[int, ...] | None = None
    epoch: int = 0
    batches: int | None = None

    def __post_init__(self) -> None:
        size = self.world_size
        require_whole_number("world size", size, 1)
        if size > MOST_RANKS:
            raise ConfigError(f"world size is {size}: it must be at most {MOST_RANKS}")
        require_whole_number("epoch", self.epoch, 0)
        if self.batches is not None:
            require_whole_number("batches", self.batches, 1)
        ranks = (0, size // 2, size - 1) if self.ranks is None else self.ranks
        for rank in ranks:
            require_whole_number("rank", rank, 0)
            if rank >= size:
                raise ConfigError(f"rank is {rank}: it must be less than the world size {size}")
        object.__setattr__(self, "ranks", tuple(sorted(set(ranks))))


@dataclass(frozen=True, kw_only=True, slots=True)
class SentBytes:
    """Bytes that ranks send in an epoch of training, by arithmetic, as the ledger counts them.

    A collective counts what each rank gives to it. Validation, logging and the parameters at the
    beginning of a run are left out.

    Args:
        step: by each rank in an optimiser step, whatever its windows are.
        data_per_batch: rows of the series, all ranks together, over the batches.
        data_per_batch_most: the most that one rank sends for one batch.
        data_moved: rows that move on before the next epoch, all ranks together.
        data_moved_most: the most that one rank sends of them.
        epoch: by all ranks, by kind; what moves on included.
        epoch_most: by the rank that sends the most, of all kinds.
        paper_per_batch: what the paper's baseline fetches for one full batch: its windows in
            float64, a channel for the time of day among them.
        paper_epoch: the same for all windows of the epoch.
    """

    step: StepBytes
    data_per_batch: Spread
    data_per_batch_most: int
    data_moved: int
    data_moved_most: int
    epoch: Mapping[str, int]
    epoch_most: int
    paper_per_batch: int
    paper_epoch: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DryRunResult:
    """An epoch of a job, without its processes.

    Args:
        machine: where.
        store: the store.
        world_size: ranks.
        placement: where the training rows are.
        order: of the training windows, with its options.
        epoch: which one, from 0.
        batch_size: windows of a batch, those of all ranks together.
        accumulate: batches of a step.
        parameters: numbers of the network that are learnt.
        schedule: how the epoch is shared out.
        sent: what it sends.
        held_bytes: rows of the series in each rank's own memory, over all ranks; 0 where they map
            the store.
        ranks: those that were walked.
        is_sound: whether each window is taken once, and the ranks that were walked did and sent
            what the arithmetic says.
        left_out: ranks that were not walked and why, a line each.
        seconds: that all of it took.
    """

    machine: Machine
    store: Path
    world_size: int
    placement: str
    order: str
    epoch: int
    batch_size: int
    accumulate: int
    parameters: int
    schedule: ScheduleFigures
    sent: SentBytes
    held_bytes: Spread
    ranks: tuple[WalkedRank, ...]
    is_sound: bool
    left_out: tuple[str, ...]
    seconds: float


def dry_run(
    source: WindowSource,
    starts: range,
    network: nn.Module,
    options: DryRunOptions,
    log: Callable[[str], None] = lambda _: None,
) -> DryRunResult:
    """Compute what all ranks of a job do in an epoch, and walk some of them.

    Args:
        source: what the windows hold.
        starts: window starts of the training split.
        network: what is trained.
        options: which job, and how much of it to walk.
        log: told what is being done, a line each.

    Raises:
        ConfigError: there are fewer partitions than ranks.
    """
    began = time.perf_counter()
    training, world_size = options.training, options.world_size
    job = Job(
        order=training.build_order(),
        starts=starts,
        span=source.spec.span,
        batch_size=training.batch_size,
        accumulate=training.accumulate,
        world_size=world_size,
        is_partitioned=options.placement == "partitioned",
        epoch=options.epoch,
    )
    log(f"the schedule of {world_size:,} ranks: {job.num_batches:,} batches")
    ranks = options.ranks or ()
    schedule = Schedule(job)
    figures, rows = schedule.figures, rows_of(schedule, ranks)
    walked: list[WalkedRank] = []
    left_out: list[str] = []
    for rank in ranks:
        found = walk_rank(schedule, rows, source, network, rank, options.batches)
        if isinstance(found, str):
            left_out.append(found)
            continue
        log(f"rank {rank}: {found.batches:,} of {job.num_batches:,} batches, the last ones")
        walked.append(found)
    return DryRunResult(
        machine=Machine.here(),
        store=source.store.path,
        world_size=world_size,
        placement=options.placement,
        order=repr(job.order),
        epoch=options.epoch,
        batch_size=training.batch_size,
        accumulate=training.accumulate,
        parameters=num_trainable_parameters(network),
        schedule=figures,
        sent=_sent(job, rows, source, StepBytes.of(job, network)),
        held_bytes=Spread.of((rows.held * row_bytes(source)).tolist()),
        ranks=tuple(walked),
        is_sound=figures.coverage.is_exact and all(each.agrees for each in walked),
        left_out=tuple(left_out),
        seconds=time.perf_counter() - began,
    )


def _sent(job: Job, rows: RankRows, source: WindowSource, step: StepBytes) -> SentBytes:
    size, meta = row_bytes(source), source.store.meta
    epoch = step.of_batches(job, job.num_batches)
    each = sum(epoch.values())
    data = (rows.exchanged + rows.moved) * size
    window = job.span * meta.num_nodes * (meta.num_channels + 1) * _PAPER_BYTES
    return SentBytes(
        step=step,
        data_per_batch=Spread.of((rows.exchanged_per_batch * size).tolist()),
        data_per_batch_most=rows.exchanged_most * size,
        data_moved=int(rows.moved.sum()) * size,
        data_moved_most=int(rows.moved.max()) * size,
        epoch={
            **{kind: num_bytes * job.world_size for kind, num_bytes in epoch.items()},
            "data": int(np.sum(data)),
        },
        epoch_most=each + int(data.max()),
        paper_per_batch=min(job.batch_size, len(job.starts)) * window,
        paper_epoch=len(job.starts) * window,
    )
