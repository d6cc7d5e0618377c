"""A model of a step at any number of ranks, built from measurements of its parts.

    own   = compute + assemble            compute: the slowest of W ranks, resampled
    alone = max(host, own)  if batches are prefetched, else host + own
    step  = max(alone, (W + k) (busy + own) / cores) + all-reduces

`host` prepares a batch before it is assembled: copying rows, waiting for Dask, receiving rows of
other ranks. `busy` is its CPU time, which equals it except for Dask, where several processes work
on a batch. The second term of the last line applies only on one machine, whose cores the W ranks
share with each other and with k other processes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgti.windows import EvenSharding, Order, even_part, union_rows
from pgti_bench.scaling.network import Network
from pgti_bench.scaling.options import DASK, DDP, EXCHANGE

__all__ = [
    "DaskCosts",
    "ModelledStep",
    "Parts",
    "StepModel",
    "SystemParts",
    "exchanged_bytes",
    "slowest_of",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class DaskCosts:
    """Dask's cost of a batch, fitted to batches of several sizes fetched by one rank.

    Attributes:
        calls: task graphs of a batch, computed one after the other.
        call_seconds: of each, independent of its bytes.
        bytes_per_second: of both together, serialization on loopback included.
        scheduler_seconds: CPU time of the scheduler's process per call; with several ranks, of
            those that call at once. There is one scheduler, and it does one thing at a time.
        busy_seconds: CPU time of a batch, of all processes involved.
        batch_bytes: of a rank's batch.
    """

    calls: int
    call_seconds: float
    bytes_per_second: float
    scheduler_seconds: float
    busy_seconds: float
    batch_bytes: int

    def seconds(self, world_size: int, network: Network | None) -> float:
        """Seconds for a batch of each of W ranks, over a network or on the measured machine.

        The larger of a rank's own two calls and the scheduler's work for all ranks.
        """
        alone = self.calls * self.call_seconds + self.batch_bytes / self.bytes_per_second
        if network is not None:
            elsewhere = self.batch_bytes * (1 - 1 / world_size)
            alone += network.messages_seconds(2 * self.calls, elsewhere)
        return max(alone, world_size * self.calls * self.scheduler_seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemParts:
    """The time of one rank alone to make a batch.

    Attributes:
        prefetched: whether threads fetch ahead.
        host_seconds: in those threads, or in the main thread if there are none.
        assemble_seconds: in the thread that computes.
    """

    prefetched: bool
    host_seconds: float
    assemble_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """Measurements of the parts of a step.

    Attributes:
        compute_seconds: CPU time of steps without fetch and collectives, by the number of ranks,
            with at most as many ranks running as there are cores.
        competitors: other processes that ran at the same time, by the number of ranks: 0 on an
            otherwise idle machine.
        systems: by name.
        gradient_bytes: of the all-reduce of gradients.
        message_bytes: of the all-reduce behind it, of the count and requests to stop; DDP has none.
        dask: Dask's costs; None if it was left out.
        loopback: fitted to all-reduces on this machine; None if only one rank was measured.
        cores: of this machine, which the ranks share; None where each has a GPU of its own.
    """

    compute_seconds: Mapping[int, tuple[float, ...]]
    competitors: Mapping[int, float]
    systems: Mapping[str, SystemParts]
    gradient_bytes: int
    message_bytes: int
    dask: DaskCosts | None
    loopback: Network | None
    cores: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelledStep:
    """Seconds of a modelled step.

    Attributes:
        host: preparing a batch.
        compute: of the slowest rank, assembling included.
        communication: all-reduces.
        step: in total, overlapping parts counted once.
    """

    host: float
    compute: float
    communication: float
    step: float


class StepModel:
    """Steps at any number of ranks.

    Args:
        parts: measurements.
        draws: resampled steps from which the slowest rank is estimated.
        seed: of the resampling.
    """

    def __init__(self, parts: Parts, *, draws: int, seed: int) -> None:
        self._parts = parts
        self._draws, self._seed = draws, seed

    def here(self, system: str, world_size: int, exchange_bytes: float = 0.0) -> ModelledStep:
        """A step of W ranks on this machine, for a W that was measured."""
        parts = self._parts
        network = parts.loopback if world_size > 1 else None
        host = self._host(system, world_size, network, exchange_bytes, is_here=True)
        return self._step(
            system,
            world_size,
            network,
            host,
            parts.compute_seconds[world_size],
            for_each_core=0.0
            if parts.cores is None
            else (world_size + parts.competitors[world_size]) / parts.cores,
        )

    def over(
        self,
        system: str,
        world_size: int,
        network: Network,
        exchange_bytes: float = 0.0,
        *,
        compute_scale: float = 1.0,
    ) -> ModelledStep:
        """A step of W ranks over a network, each with a core to compute and one to fetch.

        Args:
            system: its name.
            world_size: number of ranks.
            network: between them.
            exchange_bytes: of the rows that the busiest rank sends or receives.
            compute_scale: factor of compute and assembling.
        """
        compute = self._parts.compute_seconds
        cores = self._parts.cores
        samples = compute[max(ranks for ranks in compute if cores is None or ranks <= cores)]
        host = self._host(system, world_size, network, exchange_bytes, is_here=False)
        return self._step(system, world_size, network, host, samples, compute_scale=compute_scale)

    def _host(
        self,
        system: str,
        world_size: int,
        network: Network | None,
        exchange_bytes: float,
        *,
        is_here: bool,
    ) -> float:
        dask = self._parts.dask
        if system == DASK and dask is not None:
            return dask.seconds(world_size, None if is_here else network)
        host = self._parts.systems[system].host_seconds
        if system == EXCHANGE and network is not None:
            host += network.messages_seconds(world_size - 1, exchange_bytes)
        return host

    def _step(
        self,
        system: str,
        world_size: int,
        network: Network | None,
        host: float,
        samples: Sequence[float],
        *,
        for_each_core: float = 0.0,
        compute_scale: float = 1.0,
    ) -> ModelledStep:
        parts, system_parts = self._parts, self._parts.systems[system]
        slowest = slowest_of(samples, world_size, draws=self._draws, seed=self._seed)
        own = compute_scale * (slowest + system_parts.assemble_seconds)
        alone = max(host, own) if system_parts.prefetched else host + own
        work = host if system != DASK or parts.dask is None else parts.dask.busy_seconds
        alone = max(alone, for_each_core * (work + own))
        communication = 0.0
        if network is not None:
            # Both leave after the backward pass, one after the other.
            message = () if system == DDP else (parts.message_bytes,)
            communication = sum(
                network.all_reduce_seconds(world_size, num_bytes)
                for num_bytes in (parts.gradient_bytes, *message)
            )
        return ModelledStep(
            host=host, compute=own, communication=communication, step=alone + communication
        )


def slowest_of(samples: Sequence[float], world_size: int, *, draws: int, seed: int) -> float:
    """Median of the largest of W samples, drawn with replacement.

    It never exceeds the largest sample: stragglers slower than any observed one are not modelled.
    """
    generator = np.random.default_rng(np.random.SeedSequence([seed, world_size]))
    drawn = generator.choice(np.asarray(samples), size=(draws, world_size))
    return float(np.median(drawn.max(axis=1)))


def exchanged_bytes(
    order: Order,
    starts: range,
    span: int,
    world_size: int,
    batch_size: int,
    row_bytes: int,
    *,
    step: int = 0,
) -> NDArray[np.int64]:
    """Bytes that each rank sends to each other one for one step of the first epoch, [W, W].

    The traffic of `ExchangedRows`: the training rows are divided in time into W partitions, a
    rank takes its shard of the batch, and each row that it lacks is sent once. Row r, column s is
    what r sends to s.

    Args:
        order: of the windows.
        starts: the training starts.
        span: rows of a window.
        world_size: number of ranks.
        batch_size: windows per rank.
        row_bytes: of a stored row.
        step: which step of the epoch.
    """
    num_rows = starts[-1] + span - starts[0]
    borders = [even_part(num_rows, world_size, rank).stop for rank in range(world_size)]
    size = batch_size * world_size
    positions = order.epoch(len(starts), 0)[step * size : (step + 1) * size]
    sent = np.zeros((world_size, world_size), dtype=np.int64)
    first = np.asarray(starts, dtype=np.int64)
    for rank in range(world_size):
        mine = first[EvenSharding(rank, world_size).shard(rank, positions, len(starts), 0)]
        rows = union_rows(mine, [range(span)]).rows[0] - starts[0]
        owners = np.searchsorted(borders, rows, side="right")
        sent[:, rank] = np.bincount(owners, minlength=world_size)
        sent[rank, rank] = 0
    return sent * row_bytes
