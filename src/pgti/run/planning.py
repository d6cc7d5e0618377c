"""A job of many ranks without its processes: schedule, traffic and memory of each rank."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pgti.batching import WindowSource
from pgti.display import count_of
from pgti.distributed import check_shards
from pgti.errors import ConfigError, require_whole_number
from pgti.graph import partition_sensors
from pgti.run.build import build_forecaster, network_shape, window_source
from pgti.run.config import RunConfig
from pgti.run.halo import HaloTraffic, predict_halo
from pgti.run.results import Machine, Spread
from pgti.run.schedule import Job, RankRows, Schedule, ScheduleSummary, count_rows
from pgti.run.simulated_rank import SimulatedRank, collective_bytes, held_bytes, simulate_rank
from pgti.store import SeriesStore

__all__ = ["MAX_RANKS", "PlanResult", "SentBytes", "plan"]

MAX_RANKS = 4096
"""Largest number of ranks of a plan."""

_PAPER_BYTES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class SentBytes:
    """Bytes that ranks send in an epoch of training, computed as the traffic counter counts them.

    A collective counts what each rank contributes. Validation, logging and the parameters at the
    start of a run are left out.

    Attributes:
        step: by each rank in an optimizer step, by kind, whatever its windows are.
        data_per_batch: rows of the series, all ranks together, over the batches.
        data_per_batch_max: the most that one rank sends for one batch.
        data_moved: rows that move before the next epoch, all ranks together.
        data_moved_max: the most that one rank sends of them.
        epoch: by all ranks, by kind, including rows that move.
        epoch_max: by the rank that sends the most, of all kinds.
        paper_per_batch: what the paper's baseline fetches for one full batch: its windows in
            float64, including a channel for the time of day.
        paper_epoch: the same for all windows of the epoch.
    """

    step: Mapping[str, int]
    data_per_batch: Spread
    data_per_batch_max: int
    data_moved: int
    data_moved_max: int
    epoch: Mapping[str, int]
    epoch_max: int
    paper_per_batch: int
    paper_epoch: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanResult:
    """The result of `plan`: an epoch of a job, without its processes.

    Attributes:
        machine: where it was computed.
        store: the store.
        world_size: number of ranks.
        placement: where the training rows are.
        order: of the training windows, with its options.
        epoch: which one, from 0.
        batch_size: windows of a batch, those of all ranks together.
        accumulate: batches per step.
        parameters: number of trainable parameters.
        schedule: how the epoch is distributed over the ranks.
        sent: what ranks send.
        batching: index, ranks read rows on the host; device, they hold them on their devices.
        held_bytes: rows of the series in each rank's own memory, or on its device, over all ranks;
            0 if they map the store.
        halo: what ranks that share sensors send one another in a step; None if none do.
        ranks: the simulated ranks.
        is_sound: whether each window is taken once, and the simulated ranks took and sent what the
            schedule says.
        left_out: ranks that were not simulated and why, one line each.
        seconds: of everything.
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
    batching: str
    schedule: ScheduleSummary
    sent: SentBytes
    held_bytes: Spread
    halo: HaloTraffic | None
    ranks: tuple[SimulatedRank, ...]
    is_sound: bool
    left_out: tuple[str, ...]
    seconds: float


def plan(
    config: RunConfig,
    world_size: int,
    *,
    ranks: Sequence[int] | None = None,
    epoch: int = 0,
    max_batches: int | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> PlanResult:
    """Compute what all ranks of a job do in an epoch, and simulate some of them.

    Args:
        config: of the run.
        world_size: number of ranks, 1..4096.
        ranks: those to simulate; the first, the middle and the last if not given.
        epoch: which epoch, from 0.
        max_batches: batches of a simulation, at most, from the end of the epoch; as many as take
            seconds if not given.
        log: receives one line for each thing that is done.

    Raises:
        ConfigError: an argument is out of range, or there are fewer partitions than ranks.
        StoreError: the store cannot be opened.
    """
    began = time.perf_counter()
    ranks = _check(world_size, ranks, epoch, max_batches)
    check_shards(config.shard_sensors, world_size)
    config = config.resolved(world_size)
    training = config.training
    store = SeriesStore.open(config.store)
    splits = config.windows.splits(store)
    source = window_source(config, store)
    forecaster = build_forecaster(config, source, None, torch.device("cpu"))
    parameters = [each for each in forecaster.network.parameters() if each.requires_grad]
    job = Job(
        order=training.build_order(),
        starts=splits.train,
        offsets=source.spec.read_offsets,
        batch_size=training.batch_size,
        accumulate=training.accumulate,
        world_size=world_size,
        placement=config.placement,
        epoch=epoch,
        shard_sensors=config.shard_sensors,
        batching="device" if config.batching == "device" else "index",
    )
    halo = _predict_halo(config, source, job)
    log(
        f"the schedule of {count_of(world_size, 'rank')}: "
        f"{count_of(job.num_batches, 'batch', 'batches')}"
    )
    schedule = Schedule(job)
    summary, rows = schedule.summarize(), count_rows(schedule)
    simulated: list[SimulatedRank] = []
    left_out: list[str] = []
    if halo is not None:
        left_out.append(
            "ranks that share sensors are not simulated: the schedule is that of their "
            f"{count_of(job.num_groups, 'group')}"
        )
        ranks = ()
    for rank in ranks:
        found = simulate_rank(schedule, rows, source, forecaster, training, rank, max_batches)
        if isinstance(found, str):
            left_out.append(found)
            continue
        log(
            f"rank {rank}: the last {found.batches:,} of "
            f"{count_of(job.num_batches, 'batch', 'batches')}"
        )
        simulated.append(found)
    return PlanResult(
        machine=Machine.here(),
        store=store.path,
        world_size=world_size,
        placement=config.placement,
        order=repr(job.order),
        epoch=epoch,
        batch_size=training.batch_size,
        accumulate=training.accumulate,
        parameters=sum(each.numel() for each in parameters),
        schedule=summary,
        sent=_sent(job, rows, source, parameters),
        batching=job.batching,
        held_bytes=Spread.of(
            [held_bytes(job, rows, source, rank) for rank in range(len(rows.held))]
        ),
        halo=halo,
        ranks=tuple(simulated),
        is_sound=summary.taken_once == summary.windows and all(each.agrees for each in simulated),
        left_out=tuple(left_out),
        seconds=time.perf_counter() - began,
    )


def _check(
    world_size: int, ranks: Sequence[int] | None, epoch: int, max_batches: int | None
) -> tuple[int, ...]:
    """Check the arguments; the ranks to simulate, in rising order."""
    require_whole_number("world size", world_size, 1)
    if world_size > MAX_RANKS:
        raise ConfigError(f"world size is {world_size}: it must be at most {MAX_RANKS}")
    require_whole_number("epoch", epoch, 0)
    if max_batches is not None:
        require_whole_number("batches", max_batches, 1)
    chosen = (0, world_size // 2, world_size - 1) if ranks is None else ranks
    for rank in chosen:
        require_whole_number("rank", rank, 0)
        if rank >= world_size:
            raise ConfigError(f"rank is {rank}: it must be less than the world size {world_size}")
    return tuple(sorted(set(chosen)))


def _predict_halo(config: RunConfig, source: WindowSource, job: Job) -> HaloTraffic | None:
    """Of a step, in which a group of ranks takes the most windows that it ever does."""
    if job.shard_sensors == 1:
        return None
    windows = job.sharding(0).max_size(min(job.batch_size, len(job.starts)))
    graph = source.store.graph
    traffic = predict_halo(
        config.model.name,
        config.model.options,
        network_shape(config, source),
        graph,
        partition_sensors(graph, job.shard_sensors),
        windows=windows,
        activation_checkpointing=config.training.activation_checkpointing == "on",
    )
    step_bytes = tuple(job.accumulate * each for each in traffic.step_bytes)
    return replace(traffic, step_bytes=step_bytes, windows=windows * job.accumulate)


def _sent(
    job: Job, rows: RankRows, source: WindowSource, parameters: Sequence[torch.Tensor]
) -> SentBytes:
    size, meta = source.stored_row_bytes, source.store.meta
    epoch = collective_bytes(parameters, job, job.num_batches)
    data = (rows.exchanged.sum(axis=0) + rows.moved) * size
    rows_of_window = source.spec.span + source.spec.history_steps
    window = rows_of_window * meta.num_nodes * (meta.num_channels + 1) * _PAPER_BYTES
    return SentBytes(
        step=collective_bytes(parameters, job, job.accumulate),
        data_per_batch=Spread.of((rows.exchanged.sum(axis=1) * size).tolist()),
        data_per_batch_max=int(rows.exchanged.max()) * size,
        data_moved=int(rows.moved.sum()) * size,
        data_moved_max=int(rows.moved.max()) * size,
        epoch={
            **{kind: num_bytes * job.world_size for kind, num_bytes in epoch.items()},
            "data": int(data.sum()),
        },
        epoch_max=sum(epoch.values()) + int(data.max()),
        paper_per_batch=min(job.batch_size, len(job.starts)) * window,
        paper_epoch=len(job.starts) * window,
    )
