"""Ranks that share the sensors of a graph as threads of one process: exact, and quick to start."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from pgti.distributed import Work

Result = TypeVar("Result")


class _Mailbox:
    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=20)
        self.tensors: list[tuple[Tensor, list[int]]] = [(torch.empty(0), [])] * size


class ThreadGroup:
    """A space group whose ranks are threads; it counts what it sends."""

    def __init__(self, rank: int, size: int, mailbox: _Mailbox) -> None:
        self.rank, self.size = rank, size
        self.sent_bytes = 0
        self._mailbox = mailbox

    def exchange_rows(
        self,
        sent: Tensor,
        sent_sizes: Sequence[int],
        received: Tensor,
        received_sizes: Sequence[int],
    ) -> Work:
        """Copy the rows; every rank is done reading them when it returns."""
        self.sent_bytes += sent.nbytes
        parts = self._share(sent, list(sent_sizes))
        mine = [part.split(sizes)[self.rank] for part, sizes in parts]
        assert [len(part) for part in mine] == list(received_sizes)
        received.copy_(torch.cat(mine))
        self._mailbox.barrier.wait()
        return Work()

    def all_reduce_(self, tensor: Tensor) -> None:
        """Add up in the order of the ranks."""
        self.sent_bytes += tensor.nbytes
        total = torch.stack([part for part, _ in self._share(tensor.clone(), [])]).sum(dim=0)
        tensor.copy_(total)
        self._mailbox.barrier.wait()

    def _share(self, tensor: Tensor, sizes: list[int]) -> list[tuple[Tensor, list[int]]]:
        self._mailbox.tensors[self.rank] = (tensor, sizes)
        self._mailbox.barrier.wait()
        return list(self._mailbox.tensors)


def run_sharded(size: int, job: Callable[[ThreadGroup], Result]) -> list[Result]:
    """The results of a job on each rank; a rank that fails ends the others."""
    mailbox = _Mailbox(size)

    def run(rank: int) -> Result:
        try:
            return job(ThreadGroup(rank, size, mailbox))
        except BaseException:
            mailbox.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as threads:
        futures = [threads.submit(run, rank) for rank in range(size)]
        failures: list[Any] = [future.exception() for future in futures]
    broken = threading.BrokenBarrierError
    for failure in sorted(failures, key=lambda each: isinstance(each, broken)):
        if failure is not None:
            raise failure
    return [future.result() for future in futures]
