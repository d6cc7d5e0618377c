"""A communicator over `torch.distributed`: gloo for tensors on the host, NCCL for those on GPUs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from pgti.distributed.communicator import Communicator, Kind, Message, SpaceGroup, Work
from pgti.distributed.heartbeat import Heartbeat
from pgti.distributed.launch import Launch
from pgti.errors import PeerError
from pgti.memory import available_bytes

__all__ = ["TorchCommunicator"]

_LONGEST_TEXT = 1 << 20


class _TorchWork(Work):
    """Collectives or messages of torch in progress."""

    def __init__(self, works: Sequence[dist.Work], communicator: "TorchCommunicator") -> None:
        self._works = works
        self._communicator = communicator

    def wait(self) -> None:
        """Wait for all of them."""
        with self._communicator.translate_errors():
            for work in self._works:
                work.wait()
        self._works = ()


class TorchCommunicator(Communicator):
    """A rank of an initialised process group of torch.

    Rows travel in a separate gloo group, so that they can be on their way during other collectives.

    Args:
        launch: which rank this is.
        heartbeat: finds the rank that failed; None without one.
        timeout: how long to wait for another rank.
        owns_group: whether `close` destroys the process group.
    """

    def __init__(
        self,
        launch: Launch,
        heartbeat: Heartbeat | None,
        timeout: timedelta,
        *,
        owns_group: bool = True,
    ) -> None:
        super().__init__(launch.rank, launch.world_size, launch.local_rank, launch.local_world_size)
        self._heartbeat = heartbeat
        self._owns_group = owns_group
        self._timeout = timeout
        self._failure: PeerError | None = None
        self._groups = [dist.group.WORLD]
        fake = dist.get_backend() == "fake"
        if heartbeat is not None and "nccl" in dist.get_backend_config():
            heartbeat.call_on_failure(self._abort)  # NCCL waits for a rank that is gone
        with self.translate_errors():
            self._rows = None if fake else dist.new_group(backend="gloo", timeout=timeout)
        self._gpu_rows: dist.ProcessGroup | None = None

    def all_reduce_(self, tensor: Tensor, kind: Kind) -> None:
        """All-reduce; every rank receives the sum that one place computed."""
        self.traffic.add(kind, tensor.nbytes)
        with self._collective():
            dist.all_reduce(tensor)

    def all_reduce_coalesced_(self, tensors: Sequence[Tensor], kind: Kind) -> None:
        """One all-reduce over their concatenation."""
        if not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        self.all_reduce_(flat, kind)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def all_reduce_async(self, tensor: Tensor, kind: Kind) -> Work:
        """All-reduce without waiting."""
        self.traffic.add(kind, tensor.nbytes)
        with self._collective():
            work = dist.all_reduce(tensor, async_op=True)
        return _TorchWork([work] if work is not None else [], self)

    def broadcast_(self, tensor: Tensor) -> None:
        """Broadcast from rank 0, the only sender; a sparse tensor has as many values on each."""
        for part in _strided_parts(tensor):
            self.traffic.add("control", part.nbytes if self.is_main else 0)
            sent = part.contiguous()
            with self._collective():  # as bytes: gloo does not know every dtype
                dist.broadcast(sent.reshape(-1).view(torch.uint8), src=0)
            if sent is not part:
                part.copy_(sent)

    def all_reduce_max(self, numbers: Sequence[int]) -> list[int]:
        """All-reduce on the host."""
        tensor = torch.tensor(numbers, dtype=torch.int64)
        self.traffic.add("control", tensor.nbytes)
        with self._collective():
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        largest: list[int] = tensor.tolist()
        return largest

    def broadcast_bytes(self, content: bytes) -> bytes:
        """Broadcast the length, then the bytes: this unpickles nothing."""
        size = torch.tensor(len(content), dtype=torch.int64)
        self.broadcast_(size)
        _check_length("a message of rank 0", int(size), available_bytes() // 2)
        received = torch.zeros(int(size), dtype=torch.uint8)
        if self.is_main:
            received.copy_(_as_tensor(content))
        self.broadcast_(received)
        return received.numpy().tobytes()

    def all_gather_text(self, text: str) -> list[str]:
        """All-gather of texts padded to the longest."""
        content = text.encode(errors="replace")[:_LONGEST_TEXT]
        longest = self.all_reduce_max([len(content)])[0]
        _check_length("the text of a rank", longest, _LONGEST_TEXT)
        if not longest:
            return [""] * self.world_size
        mine = torch.zeros(longest, dtype=torch.uint8)
        mine[: len(content)] = _as_tensor(content)
        everyone = [torch.zeros_like(mine) for _ in range(self.world_size)]
        self.traffic.add("control", mine.nbytes)
        with self._collective():
            dist.all_gather(everyone, mine)
        texts = (each.numpy().tobytes().rstrip(b"\0") for each in everyone)
        return [each.decode(errors="replace") for each in texts]

    def exchange(self, sends: Sequence[Message], receives: Sequence[Message]) -> Work:
        """Send and receive bytes in the group for rows."""
        for message in sends:
            self.traffic.add("data", message.tensor.nbytes)
        messages: list[tuple[Callable[..., dist.Work | None], Message]]
        messages = [(dist.irecv, each) for each in receives]
        messages += [(dist.isend, each) for each in sends]
        if not messages:
            return Work()
        on_gpu = messages[0][1].tensor.is_cuda
        with self.translate_errors():
            # NCCL has no tags: messages between two ranks match in their order, in one batch.
            works = dist.batch_isend_irecv(
                [
                    dist.P2POp(
                        send_or_receive,
                        each.tensor.view(torch.uint8),
                        each.peer,
                        self._gpu_rows if on_gpu else self._rows,
                        each.tag,
                    )
                    for send_or_receive, each in messages
                ]
            )
        return _TorchWork(works, self)

    def prepare_exchange(self, device: torch.device) -> None:
        """A group of NCCL for rows alone, so that they travel beside the gradients."""
        if device.type != "cuda" or self._gpu_rows is not None:
            return
        with self.translate_errors():
            self._gpu_rows = dist.new_group(backend="nccl", timeout=self._timeout)
            self._groups.append(self._gpu_rows)
            # Its first operation must be one of all ranks: later ones are of some of them.
            dist.all_reduce(torch.zeros((), device=device), group=self._gpu_rows)

    def _join_space(self, size: int) -> SpaceGroup:
        """A group of torch for each `size` consecutive ranks."""
        mine = self.rank - self.rank % size
        joined = SpaceGroup()
        with self.translate_errors():
            for first in range(0, self.world_size, size):
                ranks = list(range(first, first + size))
                group = dist.new_group(ranks, timeout=self._timeout)
                if first == mine:
                    self._groups.append(group)
                    joined = _TorchSpaceGroup(self.rank - first, size, group, self)
        return joined

    def wait_for_all(self) -> None:
        """Watch the heartbeats of the others; without them, a barrier."""
        if self._heartbeat is None:
            self.barrier()
        else:
            self._heartbeat.wait_for_all()

    def close(self, error: BaseException | None = None) -> None:
        """Write why for the others, and leave the group; without an error, when all leave.

        Sets `error.is_reported`: whether rank 0 reports this error to the user.
        """
        if error is None and self._owns_group and self._heartbeat is not None:
            # Rows or counts that nobody waits for may be on their way, and would fail on the other
            # ranks if this one disconnected. A rank that fails now reports it itself.
            with suppress(PeerError, RuntimeError):
                self._heartbeat.wait_for_all()
        if self._heartbeat is not None:
            self._heartbeat.close(error)
            if error is not None:
                reported = not self.is_main and self._heartbeat.is_reported_by_main(error)
                error.is_reported = reported  # type: ignore[attr-defined]
        # Destroying a group whose ranks failed may block: the system closes its connections.
        if self._owns_group and error is None and dist.is_initialized():
            dist.destroy_process_group()

    def _abort(self, failure: PeerError) -> None:
        """End the collectives on GPUs, so that who waits for them returns and finds the failure."""
        self._failure = failure
        for group in self._groups:
            with suppress(RuntimeError):
                assert group is not None
                group._get_backend(torch.device("cuda")).abort()

    def _collective(self) -> AbstractContextManager[None]:
        """A collective of all ranks: counted, to find one that hangs, and its errors translated."""
        if self._heartbeat is not None:
            self._heartbeat.enter_collective()
        return self.translate_errors()

    def exchange_of_space(self) -> AbstractContextManager[None]:
        """An operation of the ranks that share windows: counted apart, for not all enter it."""
        if self._heartbeat is not None:
            self._heartbeat.enter_exchange()
        return self.translate_errors()

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Translate torch's error about a lost connection into one that names the rank.

        Raises:
            PeerError: naming the rank that failed, is gone or does not answer.
        """
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            failure = None if self._heartbeat is None else self._heartbeat.find_failed_rank()
            if failure is not None:
                raise failure from error
            reason = " ".join(str(error).split())[:200]
            raise PeerError(f"another rank failed or does not answer: {reason}") from error


def _check_length(what: str, length: int, most: int) -> None:
    """Refuse a length that another rank has sent before memory is taken for it.

    Raises:
        PeerError: if it is none, or more than what comes can have.
    """
    if not 0 <= length <= most:
        raise PeerError(f"{what} has {length:,} bytes and may have 0 to {most:,}: it is damaged")


def _as_tensor(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy())


def _strided_parts(tensor: Tensor) -> list[Tensor]:
    """The tensor, or those that a sparse one consists of."""
    if tensor.layout == torch.strided:
        return [tensor]
    if tensor.layout == torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]


class _TorchSpaceGroup(SpaceGroup):
    """A group of torch: gloo for tensors on the host, NCCL for those on GPUs."""

    def __init__(
        self, rank: int, size: int, group: dist.ProcessGroup, communicator: TorchCommunicator
    ) -> None:
        super().__init__(rank, size)
        self._group = group
        self._communicator = communicator

    def exchange_rows(
        self,
        sent: Tensor,
        sent_sizes: Sequence[int],
        received: Tensor,
        received_sizes: Sequence[int],
    ) -> Work:
        """One all-to-all, without waiting."""
        self._communicator.traffic.add("halo", sent.nbytes)
        with self._communicator.exchange_of_space():
            work = dist.all_to_all_single(
                received,
                sent,
                list(received_sizes),
                list(sent_sizes),
                group=self._group,
                async_op=True,
            )
        return _TorchWork([work] if work is not None else [], self._communicator)

    def all_reduce_(self, tensor: Tensor) -> None:
        """All-reduce in the group."""
        self._communicator.traffic.add("halo", tensor.nbytes)
        with self._communicator.exchange_of_space():
            dist.all_reduce(tensor, group=self._group)
