"""What ranks do together, as one abstract class, and the one process that is alone."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from pgti.distributed.traffic import Kind, TrafficCounter
from pgti.errors import ConfigError, PeerError, PgtiError

__all__ = ["Communicator", "Message", "Pending", "SingleProcess"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Message:
    """Rows on their way between this rank and another.

    Args:
        peer: the other rank.
        tag: tells messages between the same two ranks apart.
        tensor: what is sent, or where what arrives is written; contiguous, on the host.
    """

    peer: int
    tag: int
    tensor: Tensor


class Pending(ABC):
    """Something under way."""

    @abstractmethod
    def wait(self) -> None:
        """Return when it is done.

        Raises:
            PeerError: if another rank failed or does not answer.
        """


class Done(Pending):
    """Nothing to wait for."""

    def wait(self) -> None:
        """Return at once."""


class Communicator(ABC):
    """The ranks of a job, seen from one of them.

    Every method is called by all ranks, in the same order, but for `exchange`, which is called by
    those who have something to send or to receive.

    Args:
        rank: which one this is, from 0.
        world_size: how many there are.
        local_rank: which one of its machine.
        local_world_size: how many its machine has.

    Attributes:
        traffic: what this rank has sent.
    """

    def __init__(
        self, rank: int, world_size: int, local_rank: int = 0, local_world_size: int = 1
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self.local_rank = local_rank
        self.local_world_size = local_world_size
        self.traffic = TrafficCounter()

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0: the one that speaks and writes."""
        return self.rank == 0

    @abstractmethod
    def all_reduce_(self, tensor: Tensor, kind: Kind) -> None:
        """Replace a tensor by its sum over all ranks: the same bits on each of them."""

    @abstractmethod
    def all_reduce_coalesced_(self, tensors: Sequence[Tensor], kind: Kind) -> None:
        """Replace several tensors of one dtype by their sums, sent as one."""

    @abstractmethod
    def all_reduce_async(self, tensor: Tensor, kind: Kind) -> Pending:
        """Like `all_reduce_`, without waiting; do not touch the tensor before `wait` returns."""

    @abstractmethod
    def broadcast_(self, tensor: Tensor) -> None:
        """Replace a tensor by rank 0's."""

    @abstractmethod
    def all_reduce_max(self, numbers: Sequence[int]) -> list[int]:
        """The largest of each number over all ranks; on the host, whatever the device."""

    @abstractmethod
    def broadcast_bytes(self, content: bytes) -> bytes:
        """Rank 0's content, on every rank."""

    @abstractmethod
    def all_gather_text(self, text: str) -> list[str]:
        """The text of every rank, in their order."""

    @abstractmethod
    def exchange(self, sends: Sequence[Message], receives: Sequence[Message]) -> Pending:
        """Send rows to other ranks and receive rows from them; counted as data."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait until all ranks are here."""

    @contextmanager
    def raise_together(self) -> Iterator[None]:
        """A part of the work that any rank may refuse with a `PgtiError`: where one does, all do.

        Whatever else a rank raises ends it, and the others find it gone.

        The error is that of the first rank that has one, so that rank 0 can say it.

        Raises:
            PgtiError: this rank's own error.
            PeerError: on the ranks that have none; on rank 0 with the other rank's words.
        """
        mine: PgtiError | None = None
        try:
            yield
        except PgtiError as error:
            mine = error
        texts = self.all_gather_text("" if mine is None else f"{mine}")
        failed = next((rank for rank, text in enumerate(texts) if text), None)
        if failed is None:
            return
        refusal = PeerError(f"rank {failed}: {texts[failed]}", failed) if mine is None else mine
        refusal.is_reported = not self.is_main
        raise refusal

    def assert_same_on_all_ranks(self, name: str, text: str) -> None:
        """Refuse on all ranks what is not the same on all of them.

        Raises:
            ConfigError: naming the first rank that differs from rank 0.
        """
        digest = hashlib.sha256(text.encode()).hexdigest()
        digests = self.all_gather_text(digest)
        odd = next((rank for rank, other in enumerate(digests) if other != digests[0]), None)
        if odd is not None:
            refusal = ConfigError(
                f"{name} of rank {odd} differs from that of rank 0: every rank needs the same"
            )
            refusal.is_reported = not self.is_main
            raise refusal

    @abstractmethod
    def wait_for_all(self) -> None:
        """Wait until all ranks are here, however long their work takes, while they live.

        Raises:
            PeerError: if one is gone.
        """

    def any(self, value: bool) -> bool:
        """Whether it is so on any rank."""
        return bool(self.all_reduce_max([int(value)])[0])

    @abstractmethod
    def close(self, error: BaseException | None = None) -> None:
        """Leave the job; a rank that is done leaves when all others are, or one has failed.

        Args:
            error: why, if this rank failed: the others are told.
        """


class SingleProcess(Communicator):
    """One process on its own: all sums are its own numbers, and nothing is sent."""

    def __init__(self) -> None:
        super().__init__(rank=0, world_size=1)

    def all_reduce_(self, tensor: Tensor, kind: Kind) -> None:
        """The tensor is the sum."""

    def all_reduce_coalesced_(self, tensors: Sequence[Tensor], kind: Kind) -> None:
        """The tensors are the sums."""

    def all_reduce_async(self, tensor: Tensor, kind: Kind) -> Pending:
        """The tensor is the sum."""
        return Done()

    def broadcast_(self, tensor: Tensor) -> None:
        """The tensor is rank 0's."""

    def all_reduce_max(self, numbers: Sequence[int]) -> list[int]:
        """The numbers themselves."""
        return list(numbers)

    def broadcast_bytes(self, content: bytes) -> bytes:
        """The content itself."""
        return content

    def all_gather_text(self, text: str) -> list[str]:
        """The one text."""
        return [text]

    def exchange(self, sends: Sequence[Message], receives: Sequence[Message]) -> Pending:
        """There is nobody to exchange with."""
        if sends or receives:
            raise ValueError("one process has no rank to exchange rows with")
        return Done()

    def barrier(self) -> None:
        """All are here."""

    def wait_for_all(self) -> None:
        """All are here."""

    @contextmanager
    def raise_together(self) -> Iterator[None]:
        """Errors are raised as they are."""
        yield

    def close(self, error: BaseException | None = None) -> None:
        """There is nothing to leave."""
