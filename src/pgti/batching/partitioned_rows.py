"""Rows of which each rank holds a part (PGT-I's generalized-distributed-index-batching).

`PartitionedRows`: a rank copies the rows of its partitions from the store when training begins,
with the few rows that its last windows reach into, so no step fetches anything. Between epochs the
partitions move on, and the rows that a rank lacks come from the ranks that hold them, while the
model is validated.

`ExchangedRows`: with a global shuffle a batch needs rows that other ranks hold. All ranks know the
order, so nobody asks: each sends what the others will need, some batches ahead.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pgti.batching.batcher import StartsOf
from pgti.batching.host_rows import HostRows
from pgti.batching.source import WindowSource
from pgti.distributed import Communicator, Message, Work
from pgti.store import SeriesStore
from pgti.windows import (
    PartitionSharding,
    RowRanges,
    Starts,
    Transfer,
    even_part,
    plan_transfers,
    resident_rows,
    union_rows,
    within,
)

__all__ = ["ExchangedRows", "PartitionedRows", "ResidentSeries"]

_CHUNK_BYTES = 1 << 20
_NUM_TAGS = 1 << 20
_FIRST_ROTATION_TAG = _NUM_TAGS  # behind those of batches


class ResidentSeries:
    """Some rows of a series in this process's own memory, in chunks that come and go.

    Args:
        store: the series.

    Attributes:
        dtype: the stored dtype.
        num_readings: readings of a row, N * C.
        row_bytes: memory of one row.
    """

    def __init__(self, store: SeriesStore) -> None:
        self._store = store
        self.dtype: np.dtype[Any] = store.raw.dtype
        self.num_readings = store.meta.num_nodes * store.meta.num_channels
        self.row_bytes = self.num_readings * self.dtype.itemsize
        self._chunk_rows = max(1, _CHUNK_BYTES // self.row_bytes)
        self._chunks: dict[int, NDArray[Any]] = {}

    def load(self, ranges: Iterable[range]) -> None:
        """Copy rows from the store."""
        raw = np.asarray(self._store.raw).reshape(self._store.meta.num_steps, -1)
        for rows in ranges:
            for first in range(rows.start, rows.stop, self._chunk_rows):
                piece = range(first, min(first + self._chunk_rows, rows.stop))
                self.write(piece, raw[piece.start : piece.stop])
            self._store.release()

    def write(self, rows: range, values: NDArray[Any]) -> None:
        """Copy the values [rows, N * C] of these rows."""
        for number, inside, piece in self._pieces(rows):
            if number not in self._chunks:
                shape = (self._chunk_rows, self.num_readings)
                self._chunks[number] = np.empty(shape, dtype=self.dtype)
            self._chunks[number][inside] = values[piece]

    def retain(self, ranges: Iterable[range]) -> None:
        """Free every chunk that has no row of the ranges."""
        numbers = {number for rows in ranges for number, _, _ in self._pieces(rows)}
        self._chunks = {n: chunk for n, chunk in self._chunks.items() if n in numbers}

    def copy_rows(self, ranges: RowRanges, out: NDArray[Any]) -> None:
        """Copy ranges of resident rows, one after the other."""
        position = 0
        for first, stop in ranges:
            for number, inside, piece in self._pieces(range(first, stop)):
                into = slice(position + piece.start, position + piece.stop)
                np.copyto(out[into], self._chunks[number][inside])
            position += stop - first

    def read(self, rows: range) -> NDArray[Any]:
        """A copy of resident rows, [rows, N * C]."""
        copy = np.empty((len(rows), self.num_readings), dtype=self.dtype)
        self.copy_rows([(rows.start, rows.stop)], copy)
        return copy

    def _pieces(self, rows: range) -> Iterable[tuple[int, slice, slice]]:
        """Chunk, rows inside it, and which of `rows` these are, for each chunk they lie in."""
        first = rows.start
        while first < rows.stop:
            number, inside = divmod(first, self._chunk_rows)
            count = min(self._chunk_rows - inside, rows.stop - first)
            done = first - rows.start
            yield number, slice(inside, inside + count), slice(done, done + count)
            first += count


class PartitionedRows(HostRows):
    """The rows of the partitions that this rank owns.

    Args:
        source: what the windows hold.
        device: where batches are made.
        starts: window starts of the training split.
        sharding: which windows are whose.
        communicator: the ranks.
    """

    def __init__(
        self,
        source: WindowSource,
        device: torch.device,
        starts: Starts,
        sharding: PartitionSharding,
        communicator: Communicator,
    ) -> None:
        self._resident = ResidentSeries(source.store)
        super().__init__(source, device, self._resident)
        self._starts, self._sharding, self._communicator = starts, sharding, communicator
        self._epoch: int | None = None
        self._arriving: _ArrivingRows | None = None

    @property
    def owned_bytes(self) -> int:
        """Memory of the rank's partitions, with the rows that leave and arrive between epochs."""
        rank, shuffle = self._communicator.rank, self._sharding.order
        moving = shuffle.rotation / len(self._sharding.partitions_of(rank))
        num_rows = sum(map(len, self._rows_of_ranks(0)[rank]))
        return int(num_rows * (1 + 2 * moving) * self._resident.row_bytes)

    def prefetch_epoch(self, epoch: int) -> None:
        """Send the rows that move on to the ranks that will own them, and receive this rank's."""
        if self._epoch is None or epoch == self._epoch or self._arriving is not None:
            return
        transfers = plan_transfers(self._rows_of_ranks(self._epoch), self._rows_of_ranks(epoch))
        self._arriving = _ArrivingRows(epoch, transfers, self._resident, self._communicator)

    def begin_epoch(self, epoch: int) -> None:
        """Hold the epoch's rows: those that are arriving, else those in the store."""
        if self._arriving is not None:
            self._arriving.write_to(self._resident)
            self._epoch, self._arriving = self._arriving.epoch, None
        wanted = self._rows_of_ranks(epoch)[self._communicator.rank]
        if epoch != self._epoch:
            self._resident.retain(())
            self._resident.load(wanted)
            self._epoch = epoch
        self._resident.retain(wanted)

    def _rows_of_ranks(self, epoch: int) -> list[tuple[range, ...]]:
        extent = self._source.spec.extent
        return [
            resident_rows(self._sharding, rank, self._starts, extent, epoch)
            for rank in range(self._communicator.world_size)
        ]


class ExchangedRows(HostRows):
    """Rows that ranks hold and send each other, for the batches of a global shuffle.

    The training rows are cut in time, one part for each rank, and stay where they are.

    Args:
        source: what the windows hold.
        device: where batches are made.
        starts: window starts of the training split.
        communicator: the ranks.
        prefetch_depth: batches that the loader has in progress, at least 2: rows travel as many
            batches ahead, less the one in use.
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
        super().__init__(source, device, self._resident)
        self._communicator = communicator
        self._prefetch_depth = prefetch_depth
        extent = source.spec.extent
        first, stop = int(starts[0]) + extent.start, int(starts[-1]) + extent.stop
        parts = (
            even_part(stop - first, communicator.world_size, rank)
            for rank in range(communicator.world_size)
        )
        self._owned = [range(first + part.start, first + part.stop) for part in parts]
        self._is_loaded = False
        self._num_announced = 0
        self._in_progress: deque[Work] = deque()

    @property
    def owned_bytes(self) -> int:
        """Memory of this rank's part of the rows."""
        return len(self._owned[self._communicator.rank]) * self._resident.row_bytes

    def begin_epoch(self, epoch: int) -> None:
        """Hold this rank's rows: the same ones in every epoch."""
        if not self._is_loaded:
            self._resident.load([self._owned[self._communicator.rank]])
            self._is_loaded = True

    def announce_batch(self, starts_of: StartsOf) -> "_BatchReader":
        """Send the rows that others need of this rank, and start to receive those it needs."""
        rank, offsets = self._communicator.rank, self._source.spec.row_offsets()
        tag = self._num_announced % _NUM_TAGS
        self._num_announced += 1
        sends, receives = [], []
        needed = _union(starts_of(rank), offsets)
        reader = _BatchReader(self._resident, self._owned[rank])
        for peer in range(self._communicator.world_size):
            if peer == rank:
                continue
            outgoing = within(_union(starts_of(peer), offsets), self._owned[rank])
            if outgoing:
                rows = np.concatenate([self._resident.read(each) for each in outgoing])
                sends.append(_message(peer, tag, rows))
            incoming = within(needed, self._owned[peer])
            if incoming:
                receives.append(_message(peer, tag, reader.allocate(incoming)))
        reader.pending = self._communicator.exchange(sends, receives)
        self._in_progress.append(reader.pending)
        if len(self._in_progress) > self._prefetch_depth:
            # Every rank is done with that batch, or this one would not be so far.
            self._in_progress.popleft().wait()
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

    def allocate(self, ranges: Sequence[range]) -> NDArray[Any]:
        """Memory for ranges of rows that one other rank sends, one after the other."""
        shape = (sum(map(len, ranges)), self._resident.num_readings)
        values, position = np.empty(shape, dtype=self._resident.dtype), 0
        for rows in ranges:
            self._received.append((rows, values[position : position + len(rows)]))
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


class _ArrivingRows:
    """Rows that this rank receives for an epoch; creating it sends what others need.

    Args:
        epoch: which epoch.
        transfers: those of all ranks, in the same order on each.
        resident: this rank's rows.
        communicator: the ranks.
    """

    def __init__(
        self,
        epoch: int,
        transfers: Iterable[Transfer],
        resident: ResidentSeries,
        communicator: Communicator,
    ) -> None:
        self.epoch = epoch
        self._received: list[tuple[range, NDArray[Any]]] = []
        sends, receives = [], []
        for number, transfer in enumerate(transfers):
            tag = _FIRST_ROTATION_TAG + number % _NUM_TAGS
            if transfer.source == communicator.rank:
                sends.append(_message(transfer.target, tag, resident.read(transfer.rows)))
            elif transfer.target == communicator.rank:
                shape = (len(transfer.rows), resident.num_readings)
                values = np.empty(shape, dtype=resident.dtype)
                receives.append(_message(transfer.source, tag, values))
                self._received.append((transfer.rows, values))
        self._pending = communicator.exchange(sends, receives)

    def write_to(self, resident: ResidentSeries) -> None:
        """Wait for the rows and copy them."""
        self._pending.wait()
        for rows, values in self._received:
            resident.write(rows, values)


def _message(peer: int, tag: int, rows: NDArray[Any]) -> Message:
    return Message(peer=peer, tag=tag, tensor=torch.from_numpy(rows.reshape(-1)))


def _union(starts: NDArray[np.int64], offsets: Sequence[range]) -> list[range]:
    """The rows of windows, each once, as rising ranges."""
    return [range(first, stop) for first, stop in union_rows(starts, offsets).ranges]
