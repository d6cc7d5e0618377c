"""One rank's epoch with its real loader and training step, without the other ranks."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from pgti.batching import (
    PREFETCH_DEPTH,
    Batch,
    WindowSource,
    build_batcher,
    build_loader,
    device_bytes,
)
from pgti.display import count_of
from pgti.distributed import KINDS, SingleProcess, open_fake
from pgti.forecasting import NetworkForecaster
from pgti.memory import available_bytes
from pgti.run.schedule import Job, RankRows, Schedule
from pgti.training import TrainingConfig, TrainStep
from pgti.training.gradients import message_bytes

__all__ = ["RankMemory", "SimulatedRank", "collective_bytes", "held_bytes", "simulate_rank"]

_MAX_ANNOUNCEMENTS = 1 << 16  # a rank that exchanges rows looks at the windows of every other one
_MAX_ROW_BYTES = 1 << 30  # copied from the series for one rank
_FREE_FRACTION = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class RankMemory:
    """Memory of one rank in bytes, without activations.

    Attributes:
        held: rows of the series in its own memory; 0 if it maps the store. With device batching
            they are on its device, with the features of every row.
        mapped: the series in the page cache, shared with the ranks of its machine; 0 if the rank
            holds a partition.
        fetched: rows of the batches in flight, in the stored dtype, at most; if rows are exchanged,
            both those received and those sent. With device batching, they are on its device.
        batch: its largest batch.
        parameters: of the network.
        gradients: of the trainable parameters, and equally much while they are reduced.
        optimizer: Adam's two moments.
        own: of this rank alone: everything but `mapped`.
    """

    held: int
    mapped: int
    fetched: int
    batch: int
    parameters: int
    gradients: int
    optimizer: int
    own: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatedRank:
    """What one simulated rank did.

    Attributes:
        rank: its number.
        batches: that it took, the last ones of the epoch.
        windows: that it took.
        has_its_windows: whether each batch contained the windows of the schedule.
        sent: bytes by kind, as the traffic counter has them; rows for the next epoch included.
        expected: the same, computed from the schedule.
        agrees: whether its windows and its bytes are those of the schedule.
        memory: that it needs.
        seconds: of the simulation.
    """

    rank: int
    batches: int
    windows: int
    has_its_windows: bool
    sent: Mapping[str, int]
    expected: Mapping[str, int]
    agrees: bool
    memory: RankMemory
    seconds: float


def collective_bytes(parameters: Sequence[Tensor], job: Job, num_batches: int) -> dict[str, int]:
    """Bytes that each rank sends in collectives, by kind, whatever its windows are.

    Gradients are a number per trainable parameter and step; counts are the message behind them,
    as on CPUs: on GPUs it leaves out which parameters have a gradient, usually after the first
    step. One rank sends nothing.

    Args:
        parameters: the trainable ones.
        job: the epoch.
        num_batches: number of batches; the last step may have fewer of them.
    """
    steps = -(-num_batches // job.accumulate) if job.world_size > 1 else 0
    return {
        "gradients": steps * sum(each.nbytes for each in parameters),
        "counts": steps * message_bytes(len(parameters)),
    }


def simulate_rank(
    schedule: Schedule,
    rows: RankRows,
    source: WindowSource,
    forecaster: NetworkForecaster,
    training: TrainingConfig,
    rank: int,
    max_batches: int | None = None,
) -> SimulatedRank | str:
    """Take the last batches of the epoch with the rank's real loader and real training step.

    Only the network is replaced, by one with the same parameters and no computation. Collectives
    return at once: what other ranks would send is arbitrary, and nothing looks at it.

    Args:
        schedule: which rank takes which window.
        rows: what the rank holds and sends, by batch for this rank.
        source: what the windows contain.
        forecaster: with the network to train.
        training: how to train.
        rank: which one to simulate.
        max_batches: number of batches, at most; as many as take seconds if not given.

    Returns:
        What the rank did; or in one line why it was not simulated.
    """
    job = schedule.job
    most = job.sharding(rank).max_size(min(job.batch_size, len(job.starts)))
    network = forecaster.network
    held = held_bytes(job, rows, source, rank)
    batch_bytes = most * (source.window_bytes + source.history_bytes)
    needed = _memory(job, rows, source, network, rank, held, batch_bytes).own
    free = available_bytes()
    if needed > _FREE_FRACTION * free:
        return (
            f"rank {rank}: it takes {count_of(most, 'window')} of a batch and needs "
            f"{needed / 2**30:.1f} GiB here; {free / 2**30:.1f} GiB are free, half of which may be "
            "used"
        )
    num_windows = int((schedule.owners == rank).sum())
    rows_of_window = source.spec.span + source.spec.history_steps
    enough = _enough_batches(job, num_windows * rows_of_window * source.stored_row_bytes)
    num_batches = min(job.num_batches, enough if max_batches is None else max_batches)
    first = job.num_batches - num_batches
    first -= first % job.accumulate
    record = _Record(schedule, rank, first)
    began = time.perf_counter()
    alone = job.world_size == 1
    opened = nullcontext(SingleProcess()) if alone else open_fake(rank, job.world_size)
    # What "arrives" may overflow when it is decoded.
    with opened as communicator, np.errstate(all="ignore"):
        loader = build_loader(
            source,
            job.starts,
            job.batch_size,
            job.order,
            batching=job.batching,
            placement=job.placement,
            communicator=communicator,
            # A small series could be cached decoded, which no rank needs.
            batcher=build_batcher("index", source, torch.device("cpu"), budget_bytes=0),
        )
        step = TrainStep.from_config(
            _without_computation(forecaster, source.spec.horizon),
            training,
            communicator,
        )
        with closing(loader.epoch(job.epoch, first)) as epoch:
            batches = record.watch(epoch)
            for _ in range(first, job.num_batches, job.accumulate):
                step(islice(batches, job.accumulate))
            record.is_right &= next(epoch, None) is None
        loader.prefetch_epoch(job.epoch + 1)
        sent = communicator.traffic.sent_bytes
        if job.is_partitioned:
            held = loader.batcher.rows.owned_bytes
    num_rows = int(rows.exchanged[first:, rank].sum() + rows.moved[rank])
    expected: dict[str, int] = {
        **dict.fromkeys(KINDS, 0),
        **collective_bytes(step.parameters, job, job.num_batches - first),
        "data": num_rows * source.stored_row_bytes,
    }
    has_its_windows = record.is_right and record.batch == job.num_batches
    return SimulatedRank(
        rank=rank,
        batches=record.batch - first,
        windows=record.windows,
        has_its_windows=has_its_windows,
        sent=sent,
        expected=expected,
        agrees=has_its_windows and sent == expected,
        memory=_memory(job, rows, source, network, rank, held, record.max_bytes),
        seconds=time.perf_counter() - began,
    )


class _Record:
    """What a rank has taken so far, beside what the schedule gives it."""

    def __init__(self, schedule: Schedule, rank: int, first_batch: int) -> None:
        self._schedule, self._rank = schedule, rank
        self.batch, self.windows, self.max_bytes = first_batch, 0, 0
        self.is_right = True

    def watch(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            expected = self._schedule.starts_of(self._rank, self.batch)
            self.is_right &= np.array_equal(batch.starts, expected)
            self.batch += 1
            self.windows += batch.num_windows
            self.max_bytes = max(self.max_bytes, _bytes_of(batch))
            yield batch


class _Constant(nn.Module):
    """A network with the trainable parameters of another one, and zero gradients for all."""

    def __init__(self, network: nn.Module, horizon: int, channels: int) -> None:
        super().__init__()
        copies = (torch.zeros_like(each) for each in network.parameters() if each.requires_grad)
        self.copies = nn.ParameterList(copies)
        self._horizon, self._channels = horizon, channels

    def forward(self, x: Tensor, supports: object) -> Tensor:
        nothing: Tensor = torch.zeros(()) + sum(0 * each.sum() for each in self.copies)
        return nothing.expand(len(x), self._horizon, x.shape[2], self._channels)


def _without_computation(forecaster: NetworkForecaster, horizon: int) -> NetworkForecaster:
    targets, quantiles = forecaster.target_indices, forecaster.quantile_levels
    channels = len(targets) * max(1, len(quantiles))
    network = _Constant(forecaster.network, horizon, channels)
    copy = NetworkForecaster(
        network,
        forecaster.supports,
        forecaster.scaler,
        targets,
        channels=forecaster.channels,
        quantile_levels=quantiles,
    )
    copy.offsets = forecaster.offsets
    return copy


def _enough_batches(job: Job, epoch_bytes: int) -> int:
    """Batches that take seconds, if the rows of a whole epoch have `epoch_bytes` bytes."""
    few = max(1, job.num_batches * _MAX_ROW_BYTES // max(1, epoch_bytes))
    return min(few, max(1, _MAX_ANNOUNCEMENTS // job.world_size)) if job.exchanges_rows else few


def held_bytes(job: Job, rows: RankRows, source: WindowSource, rank: int) -> int:
    """Bytes of the rows that a rank holds: its part, or on its device the whole series."""
    if job.batching == "device" and not job.is_partitioned:
        return device_bytes(source) // job.shard_sensors
    return int(rows.held[rank]) * source.stored_row_bytes


def _memory(
    job: Job,
    rows: RankRows,
    source: WindowSource,
    network: nn.Module,
    rank: int,
    held: int,
    batch: int,
) -> RankMemory:
    trainable = sum(each.nbytes for each in network.parameters() if each.requires_grad)
    most = job.sharding(rank).max_size(min(job.batch_size, len(job.starts)))
    in_flight = most * (source.spec.span + source.spec.history_steps)
    # Rows on the device are gathered for the batch in use; those that travel run ahead.
    is_ahead = job.batching == "index" or job.exchanges_rows
    if job.exchanges_rows:
        in_flight += in_flight + int(rows.exchanged[:, rank].max())
    own = {
        "held": held,
        "fetched": (PREFETCH_DEPTH if is_ahead else 1) * in_flight * source.stored_row_bytes,
        "batch": batch,
        "parameters": sum(each.nbytes for each in network.parameters()),
        "gradients": 2 * trainable if job.world_size > 1 else trainable,
        "optimizer": 2 * trainable,
    }
    mapped = 0 if job.is_partitioned else source.store.num_bytes
    return RankMemory(mapped=mapped, own=sum(own.values()), **own)


def _bytes_of(batch: Batch) -> int:
    """Memory of a batch's tensors; an expanded one takes the memory of its elements."""
    return sum(min(each.nbytes, each.untyped_storage().nbytes()) for each in batch.tensors)
