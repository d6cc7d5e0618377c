"""Partitioned batching: each rank holds its part of the series (PGT-I's generalised mode).

A rank copies the rows of its partitions from the store when training begins, in the stored dtype,
with the few rows that its last windows reach into: so no step fetches anything. Between epochs the
partitions move on, and the rows that a rank lacks come from the ranks that hold them, while the
model is evaluated.

With a global shuffle a batch needs rows that other ranks hold. All ranks know the order, so nobody
asks: each sends what the others will need, some batches ahead.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pgti.batching.base import Batcher, Fetched, RowSource, StartsOf, WindowSource
from pgti.batching.batch import Batch
from pgti.batching.buffers import Buffers, RowRanges
from pgti.batching.index import IndexBatcher
from pgti.distributed import Communicator, Message, Pending
from pgti.store import SeriesStore
from pgti.windows import (
    Move,
    PartitionSharding,
    even_part,
    plan_rows,
    plan_transfers,
    resident_rows,
    within,
)

__all__ = ["ExchangeBatcher", "HeldRows", "PartitionedBatcher"]

_CHUNK_BYTES = 1 << 20
_NUM_TAGS = 1 << 20
_FIRST_ROTATION_TAG = _NUM_TAGS  # behind those of batches


class HeldRows:
    """Some rows of a series in this process's own memory, in chunks that come and go.

    Args:
        store: the series.
    """

    def __init__(self, store: SeriesStore) -> None:
        self._store = store
        self.dtype: np.dtype[Any] = store.raw.dtype
        self.num_readings = store.meta.num_nodes * store.meta.num_channels
        self._chunk_rows = max(1, _CHUNK_BYTES // self.row_bytes)
        self._chunks: dict[int, NDArray[Any]] = {}

    @property
    def row_bytes(self) -> int:
        """Memory of one row."""
        return self.num_readings * self.dtype.itemsize

    def read(self, ranges: Iterable[range]) -> None:
        """Copy rows from the store."""
        raw = np.asarray(self._store.raw).reshape(self._store.meta.num_steps, -1)
        for rows in ranges:
            for first in range(rows.start, rows.stop, self._chunk_rows):
                piece = range(first, min(first + self._chunk_rows, rows.stop))
                self.put(piece, raw[piece.start : piece.stop])
            self._store.release()

    def put(self, rows: range, values: NDArray[Any]) -> None:
        """Keep these rows, [rows, N * C]."""
        for number, inside, piece in self._pieces(rows):
            if number not in self._chunks:
                shape = (self._chunk_rows, self.num_readings)
                self._chunks[number] = np.empty(shape, dtype=self.dtype)
            self._chunks[number][inside] = values[piece]

    def keep(self, ranges: Iterable[range]) -> None:
        """Let go of every chunk that holds no row of the ranges."""
        kept = {number for rows in ranges for number, _, _ in self._pieces(rows)}
        self._chunks = {number: chunk for number, chunk in self._chunks.items() if number in kept}

    def take(self, runs: RowRanges, out: NDArray[Any]) -> None:
        """Copy runs of rows that are held, one after the other."""
        position = 0
        for first, stop in runs:
            for number, inside, piece in self._pieces(range(first, stop)):
                into = slice(position + piece.start, position + piece.stop)
                np.copyto(out[into], self._chunks[number][inside])
            position += stop - first

    def copy_of(self, rows: range) -> NDArray[Any]:
        """A copy of rows that are held, [rows, N * C]."""
        copy = np.empty((len(rows), self.num_readings), dtype=self.dtype)
        self.take([(rows.start, rows.stop)], copy)
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


class PartitionedBatcher(Batcher):
    """Gathers batches from the partitions that this rank holds.

    Args:
        source: what the windows hold.
        device: where batches are made.
        starts: window starts of the training split.
        sharding: which windows are whose.
        communicator: the ranks.
        prefetch_depth: batches that a loader has under way.
    """

    def __init__(
        self,
        source: WindowSource,
        device: torch.device,
        starts: range,
        sharding: PartitionSharding,
        communicator: Communicator,
        prefetch_depth: int = 1,
    ) -> None:
        super().__init__(source, device, prefetch_depth)
        self._starts, self._share, self._communicator = starts, sharding, communicator
        self._held = HeldRows(source.store)
        self._index = IndexBatcher(source, device, prefetch_depth, rows=self._held)
        self._epoch: int | None = None
        self._arriving: _Arriving | None = None

    @property
    def held_bytes(self) -> int:
        """Memory of the rank's partitions, with the rows that leave and arrive between epochs."""
        rows, shuffle = self._rows_of_ranks(0)[self._communicator.rank], self._share.order
        moving = shuffle.rotation / len(self._share.partitions_of(self._communicator.rank))
        return int(sum(map(len, rows)) * (1 + 2 * moving) * self._held.row_bytes)

    def prepare(self, epoch: int) -> None:
        """Send the rows that move on to the ranks that will own them, and receive this rank's."""
        if self._epoch is None or epoch == self._epoch or self._arriving is not None:
            return
        held, wanted = self._rows_of_ranks(self._epoch), self._rows_of_ranks(epoch)
        moves = plan_transfers(held, wanted)
        self._arriving = _Arriving.begun(epoch, moves, self._held, self._communicator)

    def enter(self, epoch: int) -> None:
        """Hold the epoch's rows: those that are on their way, or else those in the store."""
        if self._arriving is not None:
            self._arriving.put_into(self._held)
            self._epoch, self._arriving = self._arriving.epoch, None
        wanted = self._rows_of_ranks(epoch)[self._communicator.rank]
        if epoch != self._epoch:
            self._held.keep(())
            self._held.read(wanted)
            self._epoch = epoch
        self._held.keep(wanted)

    def fetch(
        self,
        starts: NDArray[np.int64],
        *,
        with_targets: bool = True,
        buffers: Buffers | None = None,
        rows: RowSource | None = None,
    ) -> Fetched:
        """Copy the rows of the windows, all of which this rank holds."""
        return self._index.fetch(starts, with_targets=with_targets, buffers=buffers, rows=rows)

    def assemble(self, fetched: Fetched) -> Batch:
        """Decode, standardise and mask on the compute device."""
        return self._index.assemble(fetched)

    def _rows_of_ranks(self, epoch: int) -> list[tuple[range, ...]]:
        span = self.source.spec.span
        return [
            resident_rows(self._share, rank, self._starts, span, epoch)
            for rank in range(self._communicator.world_size)
        ]


class ExchangeBatcher(Batcher):
    """Gathers batches of a global shuffle from rows that the ranks hold and send each other.

    The training rows are cut in time, one part for each rank, and stay where they are.

    Args:
        source: what the windows hold.
        device: where batches are made.
        starts: window starts of the training split.
        communicator: the ranks.
        prefetch_depth: batches that a loader has under way: rows travel as many batches ahead, less
            the one in use; at least 2.
    """

    def __init__(
        self,
        source: WindowSource,
        device: torch.device,
        starts: range,
        communicator: Communicator,
        prefetch_depth: int = 2,
    ) -> None:
        super().__init__(source, device, max(2, prefetch_depth))
        self._communicator = communicator
        first, rows = starts[0], starts[-1] + source.spec.span - starts[0]
        parts = (
            even_part(rows, communicator.world_size, r) for r in range(communicator.world_size)
        )
        self._owned = [range(first + part.start, first + part.stop) for part in parts]
        self._held = HeldRows(source.store)
        self._index = IndexBatcher(source, device, self.prefetch_depth, rows=self._held)
        self._is_filled = False
        self._announced = 0
        self._under_way: deque[Pending] = deque()

    @property
    def held_bytes(self) -> int:
        """Memory of this rank's part of the rows."""
        return len(self._owned[self._communicator.rank]) * self._held.row_bytes

    def enter(self, epoch: int) -> None:
        """Hold this rank's rows: the same ones in every epoch."""
        if not self._is_filled:
            self._held.read([self._owned[self._communicator.rank]])
            self._is_filled = True

    def announce(self, starts_of: StartsOf) -> RowSource:
        """Send the rows that others need of this rank, and begin to receive those it needs."""
        rank, span = self._communicator.rank, self.source.spec.span
        tag = self._announced % _NUM_TAGS
        self._announced += 1
        sends, receives = [], []
        mine = _ranges(starts_of(rank), span)
        batch = _TravellingRows(self._held, self._owned[rank])
        for peer in range(self._communicator.world_size):
            if peer == rank:
                continue
            outgoing = within(_ranges(starts_of(peer), span), self._owned[rank])
            if outgoing:
                rows = np.concatenate([self._held.copy_of(each) for each in outgoing])
                sends.append(_message(peer, tag, rows))
            incoming = within(mine, self._owned[peer])
            if incoming:
                receives.append(_message(peer, tag, batch.room_for(incoming)))
        batch.pending = self._communicator.exchange(sends, receives)
        self._under_way.append(batch.pending)
        if len(self._under_way) > self.prefetch_depth:
            # Every rank has done with the batch of then, or this one would not be so far.
            self._under_way.popleft().wait()
        return batch

    def fetch(
        self,
        starts: NDArray[np.int64],
        *,
        with_targets: bool = True,
        buffers: Buffers | None = None,
        rows: RowSource | None = None,
    ) -> Fetched:
        """Wait for the rows of the windows and copy them."""
        return self._index.fetch(starts, with_targets=with_targets, buffers=buffers, rows=rows)

    def assemble(self, fetched: Fetched) -> Batch:
        """Decode, standardise and mask on the compute device."""
        return self._index.assemble(fetched)


class _TravellingRows:
    """The rows of one batch: this rank's own, and those that others send.

    Args:
        held: this rank's own rows.
        owned: which rows these are.
    """

    def __init__(self, held: HeldRows, owned: range) -> None:
        self.dtype, self.num_readings = held.dtype, held.num_readings
        self.pending: Pending | None = None
        self._held, self._owned = held, owned
        self._pieces: list[tuple[range, NDArray[Any]]] = []

    def room_for(self, ranges: Sequence[range]) -> NDArray[Any]:
        """Memory for ranges of rows that one other rank will send, one after the other."""
        shape = (sum(map(len, ranges)), self.num_readings)
        room, position = np.empty(shape, dtype=self.dtype), 0
        for rows in ranges:
            self._pieces.append((rows, room[position : position + len(rows)]))
            position += len(rows)
        return room

    def take(self, runs: RowRanges, out: NDArray[Any]) -> None:
        """Copy runs of rows, when those that travel are here."""
        if self.pending is not None:
            self.pending.wait()
        position = 0
        for first, stop in runs:
            run = range(first, stop)
            for rows, values in self._pieces:
                for common in within([run], rows):
                    into = slice(position + common.start - first, position + common.stop - first)
                    out[into] = values[common.start - rows.start : common.stop - rows.start]
            for common in within([run], self._owned):
                into = slice(position + common.start - first, position + common.stop - first)
                self._held.take([(common.start, common.stop)], out[into])
            position += len(run)


class _Arriving:
    """Rows that are on their way to this rank for an epoch.

    Args:
        epoch: which epoch.
        pieces: rows, and the memory that they arrive in.
        pending: what is under way, this rank's own messages included.
    """

    def __init__(
        self, epoch: int, pieces: Sequence[tuple[range, NDArray[Any]]], pending: Pending
    ) -> None:
        self.epoch = epoch
        self._pieces = pieces
        self._pending = pending

    @classmethod
    def begun(
        cls, epoch: int, moves: Iterable[Move], held: HeldRows, communicator: Communicator
    ) -> "_Arriving":
        """Send this rank's part of the moves and prepare to receive what is for it."""
        sends, receives, pieces = [], [], []
        for number, move in enumerate(moves):
            tag = _FIRST_ROTATION_TAG + number % _NUM_TAGS
            if move.source == communicator.rank:
                sends.append(_message(move.target, tag, held.copy_of(move.rows)))
            elif move.target == communicator.rank:
                room = np.empty((len(move.rows), held.num_readings), dtype=held.dtype)
                receives.append(_message(move.source, tag, room))
                pieces.append((move.rows, room))
        return cls(epoch, pieces, communicator.exchange(sends, receives))

    def put_into(self, held: HeldRows) -> None:
        """Wait for the rows and keep them."""
        self._pending.wait()
        for rows, values in self._pieces:
            held.put(rows, values)


def _message(peer: int, tag: int, rows: NDArray[Any]) -> Message:
    return Message(peer=peer, tag=tag, tensor=torch.from_numpy(rows.reshape(-1)))


def _ranges(starts: NDArray[np.int64], span: int) -> list[range]:
    """The rows of windows, each once, as rising ranges."""
    plan = plan_rows(starts, span)
    return list(map(range, plan.firsts.tolist(), plan.stops.tolist()))
