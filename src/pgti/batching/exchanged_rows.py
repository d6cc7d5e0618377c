"""Rows that ranks hold and send each other, for the batches of a global shuffle.

A batch needs rows that other ranks hold. All ranks know the order, so nobody asks: each sends what
the others will need, some batches ahead. The training rows are cut in time, one part for each rank,
and stay where they are: in host memory (`ExchangedRows`), or on the rank's compute device
(`ExchangedDeviceRows`), from where they are sent to the devices of the others.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.batcher import BatchRequest, RowResidency, StartsOf
from pgti.batching.copies import to_device
from pgti.batching.device_rows import (
    ResidentRows,
    copy_rows_to,
    empty_rows,
    feature_bytes,
    take_rows,
)
from pgti.batching.host_rows import HostRows
from pgti.batching.partitioned_rows import FIRST_ROTATION_TAG
from pgti.batching.resident_series import ResidentSeries, every_row
from pgti.batching.source import WindowSource
from pgti.distributed import Communicator, Message, Work
from pgti.windows import RowPlan, RowRanges, Starts, even_part, union_rows, within

__all__ = ["ExchangedDeviceRows", "ExchangedRows"]


class _Parts(RowResidency):
    """Which training rows each rank holds, and the messages in progress.

    Args:
        source: what the windows hold.
        starts: window starts of the training split.
        communicator: the ranks.
        prefetch_depth: batches that the loader has in progress, at least 2: rows travel as many
            batches ahead, less the one in use.
    """

    def __init__(
        self, source: WindowSource, starts: Starts, communicator: Communicator, prefetch_depth: int
    ) -> None:
        self.announced_ahead = prefetch_depth
        self._communicator = communicator
        self._offsets = source.spec.read_offsets
        self._row_bytes = source.stored_row_bytes
        reach = source.spec.reach
        first, stop = max(0, int(starts[0]) + reach.start), int(starts[-1]) + reach.stop
        parts = (
            even_part(stop - first, communicator.world_size, rank)
            for rank in range(communicator.world_size)
        )
        self._parts = [range(first + part.start, first + part.stop) for part in parts]
        self._is_loaded = False
        self._num_announced = 0
        self._in_progress: deque[Work] = deque()

    @property
    def owned_bytes(self) -> int:
        """Memory of this rank's part of the rows."""
        return len(self._own_part) * self._row_bytes

    @property
    def _own_part(self) -> range:
        return self._parts[self._communicator.rank]

    def _next_tag(self) -> int:
        tag = self._num_announced % FIRST_ROTATION_TAG
        self._num_announced += 1
        return tag

    def _union(self, starts: NDArray[np.int64]) -> list[range]:
        """The rows of windows, each once, as rising ranges."""
        return [range(first, stop) for first, stop in self._plan(starts).ranges]

    def _plan(self, starts: NDArray[np.int64]) -> RowPlan:
        """Each row that windows need once; none lies before the series."""
        return union_rows(starts, self._offsets, np.zeros_like(starts))

    def _exchange(self, sends: Sequence[Message], receives: Sequence[Message]) -> Work:
        """Start to send and receive the rows of a batch; end what earlier batches have started."""
        work = self._communicator.exchange(sends, receives)
        self._in_progress.append(work)
        if len(self._in_progress) > self.announced_ahead:
            # Every rank is done with that batch, or this one would not be so far.
            self._in_progress.popleft().wait()
        return work


class ExchangedRows(_Parts, HostRows):
    """This rank's part of the training rows in host memory.

    Args:
        source: what the windows hold.
        device: where batches are made.
        starts: window starts of the training split.
        communicator: the ranks.
        prefetch_depth: batches that the loader has in progress, at least 2.
    """

    def __init__(
        self,
        source: WindowSource,
        device: torch.device,
        starts: Starts,
        communicator: Communicator,
        prefetch_depth: int,
    ) -> None:
        self._resident = ResidentSeries(source.store)
        HostRows.__init__(self, source, device, self._resident)
        _Parts.__init__(self, source, starts, communicator, prefetch_depth)

    def begin_epoch(self, epoch: int) -> None:
        """Hold this rank's rows: the same ones in every epoch."""
        if not self._is_loaded:
            self._resident.load([self._own_part])
            self._is_loaded = True

    def announce_batch(self, starts_of: StartsOf) -> "_BatchReader":
        """Send the rows that others need of this rank, and start to receive those it needs."""
        rank, tag = self._communicator.rank, self._next_tag()
        sends, receives = [], []
        needed = self._union(starts_of(rank))
        reader = _BatchReader(self._resident, self._own_part)
        for peer in range(self._communicator.world_size):
            if peer == rank:
                continue
            outgoing = within(self._union(starts_of(peer)), self._own_part)
            if outgoing:
                rows = torch.cat([self._resident.read(each) for each in outgoing])
                sends.append(Message(peer=peer, tag=tag, tensor=rows))
            incoming = within(needed, self._parts[peer])
            if incoming:
                receives.append(Message(peer=peer, tag=tag, tensor=reader.allocate(incoming)))
        reader.pending = self._exchange(sends, receives)
        return reader


class _BatchReader:
    """Reads the rows of one batch: this rank's own, and those that others send.

    Args:
        resident: this rank's own rows.
        owned: which rows these are.
    """

    def __init__(self, resident: ResidentSeries, owned: range) -> None:
        self.pending: Work | None = None
        self._resident, self._owned = resident, owned
        self._received: list[tuple[range, NDArray[Any]]] = []

    def allocate(self, ranges: Sequence[range]) -> Tensor:
        """Memory for ranges of rows that one other rank sends, one after the other."""
        values, position = self._resident.empty(sum(map(len, ranges))), 0
        for rows in ranges:
            self._received.append((rows, values[position : position + len(rows)].numpy()))
            position += len(rows)
        return values

    def copy_rows(self, ranges: RowRanges, out: NDArray[Any]) -> None:
        """Copy ranges of rows, once those from other ranks have arrived."""
        if self.pending is not None:
            self.pending.wait()
        position = 0
        for first, stop in ranges:
            wanted = range(first, stop)
            for rows, values in self._received:
                for common in within([wanted], rows):
                    into = slice(position + common.start - first, position + common.stop - first)
                    out[into] = values[common.start - rows.start : common.stop - rows.start]
            for common in within([wanted], self._owned):
                into = slice(position + common.start - first, position + common.stop - first)
                self._resident.copy_rows([(common.start, common.stop)], out[into])
            position += len(wanted)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class _ArrivingBatch:
    """The rows of a batch on the device, this rank's own among them.

    Attributes:
        rows: each row that the windows need, once, in rising order [U, N, C].
        begins: where each window begins among them, int64 [B].
        history: where the rows of each history are, int64 [B, R].
        pending: ends when the rows of other ranks are there.
    """

    rows: Tensor
    begins: Tensor
    history: Tensor
    pending: Work


class ExchangedDeviceRows(_Parts, ResidentRows):
    """This rank's part of the training rows on its compute device.

    Args:
        source: what the windows hold.
        device: where the rows are and batches are made.
        starts: window starts of the training split.
        communicator: the ranks.
        prefetch_depth: batches that the loader has in progress, at least 2.
    """

    def __init__(
        self,
        source: WindowSource,
        device: torch.device,
        starts: Starts,
        communicator: Communicator,
        prefetch_depth: int,
    ) -> None:
        communicator.prepare_exchange(device)
        ResidentRows.__init__(self, source, device)
        _Parts.__init__(self, source, starts, communicator, prefetch_depth)
        self._held = self._empty(0)

    @property
    def owned_bytes(self) -> int:
        """Likewise, with the features of every row."""
        return super().owned_bytes + feature_bytes(self._source)

    def begin_epoch(self, epoch: int) -> None:
        """Hold this rank's rows: the same ones in every epoch."""
        if not self._is_loaded:
            self._held = self._empty(len(self._own_part))
            copy_rows_to(self._held, self._source, [self._own_part])
            self._is_loaded = True

    def announce_batch(self, starts_of: StartsOf) -> _ArrivingBatch:
        """Send the rows that others need of this rank, and start to receive those it needs.

        The host computes where rows are, which moves to the device at once; ranks hold parts that
        follow one another, so what one of them sends is a slice of the batch's rows.
        """
        rank, tag, first = self._communicator.rank, self._next_tag(), self._own_part.start
        plan, spec = self._plan(starts_of(rank)), self._source.spec
        needed = plan.rows[0]
        index = plan.window_index
        assert index is not None  # of a union
        borders = np.searchsorted(needed, [each.start for each in self._parts]).tolist()
        arriving = self._empty(len(needed))
        slices = [slice(*pair) for pair in zip(borders, [*borders[1:], len(needed)], strict=True)]
        outgoing = [
            np.empty(0, dtype=np.int64)
            if peer == rank
            else every_row(within(self._union(starts_of(peer)), self._own_part)) - first
            for peer in range(self._communicator.world_size)
        ]
        own = needed[slices[rank]] - first
        begins, history = index[:, -spec.span], index[:, : spec.history_steps].reshape(-1)
        parts = [np.concatenate(outgoing), own, begins, history]
        numbers = to_device(np.concatenate(parts), self._device)
        sent, own_places, *places = torch.split(numbers, [len(each) for each in parts])
        take_rows(self._held, own_places, arriving[slices[rank]])
        leaving = self._empty(len(sent))
        take_rows(self._held, sent, leaving)
        leaving_to = torch.split(leaving, [len(each) for each in outgoing])
        return _ArrivingBatch(
            rows=arriving,
            begins=places[0],
            history=places[1].view(len(index), spec.history_steps),
            pending=self._exchange(
                _messages(leaving_to, tag),
                _messages([arriving[each] for each in slices], tag, rank),
            ),
        )

    def _empty(self, num_rows: int) -> Tensor:
        return empty_rows(self._source, num_rows, self._device)

    def _gather(self, rows_BR: Tensor, request: BatchRequest) -> Tensor:
        batch: _ArrivingBatch = request.reader
        batch.pending.wait()
        places = batch.begins.unsqueeze(1) + self._span[: rows_BR.shape[1]]
        return self._take(batch.rows, places.flatten())

    def _history_places(self, rows_BR: Tensor, request: BatchRequest) -> tuple[Tensor, Tensor]:
        batch: _ArrivingBatch = request.reader
        return batch.rows, batch.history


def _messages(parts: Sequence[Tensor], tag: int, rank: int | None = None) -> list[Message]:
    """A message for each part that is not empty, but that of `rank` itself."""
    return [
        Message(peer=peer, tag=tag, tensor=part)
        for peer, part in enumerate(parts)
        if len(part) and peer != rank
    ]
