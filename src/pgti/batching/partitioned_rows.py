"""Partitions of the rows, of which each rank holds its own.

PGT-I's generalized-distributed-index-batching: a rank copies the rows of its partitions from the
store when training begins, with the few rows that its last windows reach into, so no step fetches
anything. Between epochs the partitions move on, and the rows that a rank lacks come from the ranks
that hold them, while the model is validated.

The rows are in host memory (`PartitionedRows`), or on the rank's compute device
(`PartitionedDeviceRows`), from where they are sent to the devices of the others.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from pgti.batching.batcher import BatchRequest, RowResidency
from pgti.batching.device_rows import ResidentRows, feature_bytes
from pgti.batching.host_rows import HostRows
from pgti.batching.resident_series import DeviceSeries, HeldRows, ResidentSeries
from pgti.batching.source import WindowSource
from pgti.distributed import Communicator, Message
from pgti.windows import PartitionSharding, Starts, Transfer, plan_transfers, resident_rows

__all__ = ["FIRST_ROTATION_TAG", "PartitionedDeviceRows", "PartitionedRows"]

FIRST_ROTATION_TAG = 1 << 20
"""First tag of the messages between epochs, behind those of batches; there are as many."""

_EPOCHS_AHEAD = 32  # whose rows there is room for on a device from the beginning


class _Partitions(RowResidency):
    """Which rows of the partitions this rank holds when, wherever it holds them.

    Args:
        held: the rows.
        source: what the windows hold.
        starts: window starts of the training split.
        sharding: which windows are whose.
        communicator: the ranks.
    """

    def __init__(
        self,
        held: HeldRows,
        source: WindowSource,
        starts: Starts,
        sharding: PartitionSharding,
        communicator: Communicator,
    ) -> None:
        self._held, self._extent = held, source.spec.reach
        self._starts, self._sharding, self._communicator = starts, sharding, communicator
        self._epoch: int | None = None
        self._arriving: _ArrivingRows | None = None

    @property
    def owned_bytes(self) -> int:
        """Memory of the rank's partitions, with the rows that leave and arrive between epochs."""
        rank, shuffle = self._communicator.rank, self._sharding.order
        moving = shuffle.rotation / len(self._sharding.partitions_of(rank))
        num_rows = sum(map(len, self._rows_of(rank, 0)))
        return int(num_rows * (1 + 2 * moving) * self._held.row_bytes)

    def prefetch_epoch(self, epoch: int) -> None:
        """Send the rows that move on to the ranks that will own them, and receive this rank's."""
        if self._epoch is None or epoch == self._epoch or self._arriving is not None:
            return
        transfers = plan_transfers(self._rows_of_ranks(self._epoch), self._rows_of_ranks(epoch))
        self._arriving = _ArrivingRows(epoch, transfers, self._held, self._communicator)

    def begin_epoch(self, epoch: int) -> None:
        """Hold the epoch's rows: those that are arriving, else those in the store."""
        rank = self._communicator.rank
        if self._arriving is not None:
            self._epoch = self._arriving.epoch
            self._arriving.move_to(self._held, self._rows_of(rank, self._epoch))
            self._arriving = None
        wanted = self._rows_of(rank, epoch)
        if epoch != self._epoch:
            self._held.retain(())
            self._held.reserve(self._most_rows(epoch))
            self._held.load(wanted)
            self._epoch = epoch
        self._held.retain(wanted)

    def _most_rows(self, epoch: int) -> int:
        """The most rows that this rank holds in an epoch and those after it."""
        rank = self._communicator.rank
        epochs = range(epoch, epoch + _EPOCHS_AHEAD)
        return max(sum(map(len, self._rows_of(rank, each))) for each in epochs)

    def _rows_of(self, rank: int, epoch: int) -> tuple[range, ...]:
        return resident_rows(self._sharding, rank, self._starts, self._extent, epoch)

    def _rows_of_ranks(self, epoch: int) -> list[tuple[range, ...]]:
        return [self._rows_of(rank, epoch) for rank in range(self._communicator.world_size)]


class PartitionedRows(_Partitions, HostRows):
    """The rows of the partitions that this rank owns, in host memory.

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
        resident = ResidentSeries(source.store)
        HostRows.__init__(self, source, device, resident)
        _Partitions.__init__(self, resident, source, starts, sharding, communicator)


class PartitionedDeviceRows(_Partitions, ResidentRows):
    """The rows of the partitions that this rank owns, on its compute device.

    Args:
        source: what the windows hold.
        device: where the rows are and batches are made.
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
        communicator.prepare_exchange(device)
        self._series = DeviceSeries(source, device)
        ResidentRows.__init__(self, source, device)
        _Partitions.__init__(self, self._series, source, starts, sharding, communicator)

    @property
    def owned_bytes(self) -> int:
        """Likewise, with the features of every row."""
        return super().owned_bytes + feature_bytes(self._source)

    def _gather(self, rows_BR: Tensor, request: BatchRequest) -> Tensor:
        return self._take(self._series.rows, self._series.places_of(rows_BR).flatten())

    def _history_places(self, rows_BR: Tensor, request: BatchRequest) -> tuple[Tensor, Tensor]:
        return self._series.rows, self._series.places_of(rows_BR)


class _ArrivingRows:
    """Rows that this rank receives for an epoch; creating it sends what others need.

    Args:
        epoch: which epoch.
        transfers: those of all ranks, in the same order on each.
        held: this rank's rows.
        communicator: the ranks.
    """

    def __init__(
        self,
        epoch: int,
        transfers: Iterable[Transfer],
        held: HeldRows,
        communicator: Communicator,
    ) -> None:
        self.epoch = epoch
        self._received: list[tuple[range, Tensor]] = []
        sends, receives = [], []
        for number, transfer in enumerate(transfers):
            tag = FIRST_ROTATION_TAG + number % FIRST_ROTATION_TAG
            if transfer.source == communicator.rank:
                values = held.read(transfer.rows)
                sends.append(Message(peer=transfer.target, tag=tag, tensor=values))
            elif transfer.target == communicator.rank:
                values = held.empty(len(transfer.rows))
                receives.append(Message(peer=transfer.source, tag=tag, tensor=values))
                self._received.append((transfer.rows, values))
        self._pending = communicator.exchange(sends, receives)

    def move_to(self, held: HeldRows, wanted: tuple[range, ...]) -> None:
        """Wait for the rows and put them in the place of those that have moved on."""
        self._pending.wait()
        held.retain(wanted)
        for rows, values in self._received:
            held.write(rows, values)
