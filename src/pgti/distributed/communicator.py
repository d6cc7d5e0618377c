"""Collective operations between ranks: the interface and its single-process implementation."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from pgti.errors import ConfigError, Interrupted, PeerError, PgtiError, option

__all__ = [
    "KINDS",
    "Communicator",
    "Kind",
    "Message",
    "SingleProcess",
    "SpaceGroup",
    "TrafficCounter",
    "Work",
    "check_shards",
]

Kind = Literal["data", "halo", "gradients", "counts", "metrics", "control"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class TrafficCounter:
    """Bytes that this rank has sent, counted where they are handed over.

    `data` are rows of the series; `halo` is what ranks with the same windows and other sensors send
    one another, rows of neighbours and sums over sensors; `gradients`, `counts` (observed targets)
    and `metrics` (sums of losses and errors) are what exact training reduces; `control` is the
    rest: whether to stop, initial parameters, texts. A message to one rank counts its bytes; a
    collective counts this rank's contribution once, whatever the algorithm below sends (a ring of
    W ranks sends it 2 (W - 1) / W times).
    """

    def __init__(self) -> None:
        self._bytes: dict[Kind, int] = dict.fromkeys(KINDS, 0)

    def add(self, kind: Kind, num_bytes: int) -> None:
        """Count sent bytes."""
        self._bytes[kind] += num_bytes

    @property
    def sent_bytes(self) -> dict[str, int]:
        """Bytes so far, by kind."""
        return {kind: self._bytes[kind] for kind in KINDS}

    def since(self, before: dict[str, int]) -> dict[str, int]:
        """Bytes since an earlier `sent_bytes`, by kind."""
        return {kind: self._bytes[kind] - before[kind] for kind in KINDS}


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Message:
    """Rows to send to another rank, or a buffer to receive them in.

    Attributes:
        peer: the other rank.
        tag: distinguishes messages between the same two ranks.
        tensor: the rows or the buffer; contiguous, on the host or on this rank's device.
    """

    peer: int
    tag: int
    tensor: Tensor


class Work:
    """An asynchronous operation; by itself, one that has completed."""

    def wait(self) -> None:
        """Block until the operation has completed.

        Raises:
            PeerError: if another rank failed or does not answer.
        """


def check_shards(shards: int, world_size: int) -> None:
    """Raise ConfigError unless the number of ranks is a multiple of `shards`."""
    if world_size % shards:
        raise ConfigError(
            f"shard_sensors is {shards} and the number of ranks {world_size}: the ranks must be a "
            f"multiple of the shards; launch as many, or change {option('shard_sensors')}"
        )


class SpaceGroup:
    """The ranks that have the same windows, each with some of the sensors: here, one rank.

    Attributes:
        rank: of this process among them, from 0.
        size: number of ranks.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    def exchange_rows(
        self,
        sent: Tensor,
        sent_sizes: Sequence[int],
        received: Tensor,
        received_sizes: Sequence[int],
    ) -> Work:
        """Start an all-to-all exchange of rows, which counts as halo; all ranks of the group call.

        Args:
            sent: [rows, F], contiguous, those for rank 0 first.
            sent_sizes: rows for each rank.
            received: [rows, F], contiguous, written by the time that `wait` returns.
            received_sizes: rows from each rank.
        """
        received.copy_(sent)
        return Work()

    def all_reduce_(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over the group, which counts as halo."""


class Communicator(ABC):
    """The ranks of a job, as one of them sees them.

    All ranks call every method, in the same order; only `exchange` is called by those ranks alone
    that send or receive.

    Args:
        rank: of this process, from 0.
        world_size: number of ranks.
        local_rank: rank within this machine.
        local_world_size: number of ranks on this machine.

    Attributes:
        traffic: the bytes that this rank has sent.
        space: the ranks that have this rank's windows, each with some of the sensors; this rank
            alone, which has all of them, unless `split_space` says otherwise.
    """

    def __init__(
        self, rank: int, world_size: int, local_rank: int = 0, local_world_size: int = 1
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self.local_rank = local_rank
        self.local_world_size = local_world_size
        self.traffic = TrafficCounter()
        self.space = SpaceGroup()

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which alone logs and writes files."""
        return self.rank == 0

    @property
    def data_rank(self) -> int:
        """Which of the parts of every batch is this rank's; ranks of a space group share it."""
        return self.rank // self.space.size

    @property
    def data_size(self) -> int:
        """Parts of a batch: the ranks divided by those of a space group."""
        return self.world_size // self.space.size

    def split_space(self, shards: int) -> None:
        """Arrange the ranks as a mesh, data x space: `shards` consecutive ranks share windows.

        Raises:
            ConfigError: the number of ranks is not a multiple of `shards`.
        """
        check_shards(shards, self.world_size)
        if shards != self.space.size:
            self.space = SpaceGroup() if shards == 1 else self._join_space(shards)

    @abstractmethod
    def _join_space(self, size: int) -> SpaceGroup:
        """The group of this rank, of `size` consecutive ranks; a collective operation."""

    @abstractmethod
    def all_reduce_(self, tensor: Tensor, kind: Kind) -> None:
        """Replace a tensor by its sum over all ranks: the same bits on each of them."""

    @abstractmethod
    def all_reduce_coalesced_(self, tensors: Sequence[Tensor], kind: Kind) -> None:
        """Replace several tensors of one dtype by their sums, in one all-reduce."""

    @abstractmethod
    def all_reduce_async(self, tensor: Tensor, kind: Kind) -> Work:
        """Start an `all_reduce_`; do not touch the tensor before `wait` returns."""

    @abstractmethod
    def broadcast_(self, tensor: Tensor) -> None:
        """Replace a tensor by that of rank 0."""

    @abstractmethod
    def all_reduce_max(self, numbers: Sequence[int]) -> list[int]:
        """The maximum of each number over all ranks; on the host, whatever the device."""

    @abstractmethod
    def broadcast_bytes(self, content: bytes) -> bytes:
        """The content of rank 0, on every rank."""

    def broadcast_json(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """The plain values of rank 0 by name, on every rank.

        Raises:
            PeerError: if something else arrives.
        """
        received = self.broadcast_bytes(json.dumps(content).encode())
        try:
            values = json.loads(received)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise PeerError(f"{len(received):,} bytes from rank 0 are no values by name", 0)
        return values

    @abstractmethod
    def all_gather_text(self, text: str) -> list[str]:
        """The text of every rank, by rank."""

    @abstractmethod
    def prepare_exchange(self, device: torch.device) -> None:
        """Have what it takes to exchange rows that are on each rank's device; on the host, nothing.

        A collective operation: every rank calls it, before the first `exchange` of such rows.
        """

    @abstractmethod
    def exchange(self, sends: Sequence[Message], receives: Sequence[Message]) -> Work:
        """Start sending rows to other ranks and receiving rows from them; counts as data.

        Rows on GPUs travel between them, and `wait` has the current stream wait, not the host.
        """

    def barrier(self) -> None:
        """Block until all ranks are here; on the host, whatever the device."""
        self.all_reduce_max([0])

    @contextmanager
    def raise_together(self) -> Iterator[None]:
        """If any rank raises a `PgtiError` or `Interrupted` in this block, every rank raises.

        Any other exception ends the rank that raises it, and the others find it gone.

        Raises:
            PgtiError, Interrupted: this rank's own.
            PeerError: on ranks without an error, with the message of the first rank that has one.
        """
        mine: PgtiError | Interrupted | None = None
        try:
            yield
        except (PgtiError, Interrupted) as error:
            mine = error
        texts = self.all_gather_text("" if mine is None else f"{mine}")
        if mine is not None:
            raise mine
        failed = next((rank for rank, text in enumerate(texts) if text), None)
        if failed is not None:
            raise PeerError(f"rank {failed}: {texts[failed]}", failed)

    def assert_same_on_all_ranks(self, name: str, text: str) -> None:
        """Refuse, on all ranks, a text that differs between them.

        Raises:
            ConfigError: naming the first rank that differs from rank 0.
        """
        digests = self.all_gather_text(hashlib.sha256(text.encode()).hexdigest())
        odd = next((rank for rank, other in enumerate(digests) if other != digests[0]), None)
        if odd is not None:
            raise ConfigError(
                f"{name} of rank {odd} differs from that of rank 0: every rank needs the same"
            )

    @abstractmethod
    def wait_for_all(self) -> None:
        """Block until all ranks are here, however long they work, as long as they are alive.

        Raises:
            PeerError: if one is gone.
        """

    def any(self, value: bool) -> bool:
        """Whether the value is true on any rank."""
        return bool(self.all_reduce_max([int(value)])[0])

    @abstractmethod
    def close(self, error: BaseException | None = None) -> None:
        """Leave the job: at once after an error, otherwise once all ranks leave or one has failed.

        Args:
            error: why this rank failed, if it did; the other ranks can read it.
        """


class SingleProcess(Communicator):
    """One process on its own: it sends nothing, and every sum is its own number."""

    def __init__(self) -> None:
        super().__init__(rank=0, world_size=1)

    def _join_space(self, size: int) -> SpaceGroup:
        """One rank is a group of itself."""
        return SpaceGroup(size=size)

    def all_reduce_(self, tensor: Tensor, kind: Kind) -> None:
        """The tensor is the sum."""

    def all_reduce_coalesced_(self, tensors: Sequence[Tensor], kind: Kind) -> None:
        """The tensors are the sums."""

    def all_reduce_async(self, tensor: Tensor, kind: Kind) -> Work:
        """The tensor is the sum."""
        return Work()

    def broadcast_(self, tensor: Tensor) -> None:
        """The tensor is that of rank 0."""

    def all_reduce_max(self, numbers: Sequence[int]) -> list[int]:
        """The numbers themselves."""
        return list(numbers)

    def broadcast_bytes(self, content: bytes) -> bytes:
        """The content itself."""
        return content

    def all_gather_text(self, text: str) -> list[str]:
        """The one text."""
        return [text]

    def prepare_exchange(self, device: torch.device) -> None:
        """There is nobody to exchange rows with."""

    def exchange(self, sends: Sequence[Message], receives: Sequence[Message]) -> Work:
        """Refuse messages: there is no other rank."""
        if sends or receives:
            raise ValueError("one process has no rank to exchange rows with")
        return Work()

    def wait_for_all(self) -> None:
        """Return at once."""

    def close(self, error: BaseException | None = None) -> None:
        """Do nothing."""
