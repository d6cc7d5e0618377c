"""The ranks of the scaling study as processes on loopback, and the process of Dask's cluster."""

import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from typing import Any

from pgti_bench.errors import BenchError
from pgti_bench.worker import Worker, thread_settings

__all__ = ["RankWorkers", "open_cluster"]

_RANK = (sys.executable, "-m", "pgti_bench.scaling.worker")
_CLUSTER = (sys.executable, "-m", "pgti_bench.scaling.dask")
_LOOPBACK = "127.0.0.1"


class RankWorkers:
    """Ranks of one thread each, which run for the duration of the `with` block.

    Args:
        world_size: number of ranks.
        device: where they compute: cpu, or cuda, each on its own GPU.
    """

    def __init__(self, world_size: int, device: str = "cpu") -> None:
        self.world_size = world_size
        self._device = device
        self._stack = ExitStack()
        self._workers: list[Worker] = []

    def __enter__(self) -> "RankWorkers":
        # Entered first and left last: threads that wait for a rank return when the ranks end.
        self._threads = self._stack.enter_context(ThreadPoolExecutor(self.world_size))
        port = _free_port()
        for rank in range(self.world_size):
            name = f"rank {rank} of {self.world_size}"
            command = (*_RANK, self._device, *([] if self._device == "cpu" else [f"{rank}"]))
            worker = Worker(command, _environment(rank, self.world_size, port), name)
            self._workers.append(self._stack.enter_context(worker))
        return self

    def __exit__(self, *error: object) -> None:
        if error == (None, None, None):  # together: a rank waits for the others before it ends
            list(self._threads.map(lambda worker: worker.__exit__(None, None, None), self._workers))
        self._stack.__exit__(*error)  # type: ignore[arg-type] # what Python passes, passed on

    def ask(self, *, first: int | None = None, **request: object) -> list[dict[str, Any]]:
        """Send a request to all ranks at once; returns their replies in rank order.

        Args:
            first: number of ranks to ask, from rank 0 on; all if not given.
            **request: sent to each of them.

        Raises:
            BenchError: with the reason of the first rank that failed. Others may wait for it
                forever, so leave the `with` block.
        """
        asked = [self._threads.submit(worker.ask, **request) for worker in self._workers[:first]]
        for done in as_completed(asked):
            done.result()
        return [done.result() for done in asked]


@contextmanager
def open_cluster() -> Iterator[Worker]:
    """The process of Dask's cluster; it and its workers end with the block."""
    with Worker(_CLUSTER, thread_settings(1), "Dask's cluster") as worker:
        try:
            yield worker
        finally:
            _stop(worker)


def _stop(worker: Worker) -> None:
    try:
        worker.ask(do="stop")
    except BenchError:
        return  # it has ended already; the request before this one raised the reason


def _environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    """The variables that a launcher sets for a rank on one machine, in place of inherited ones."""
    return {
        **thread_settings(1),
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": _LOOPBACK,
        "MASTER_PORT": str(port),
    }


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind((_LOOPBACK, 0))
        port: int = listening.getsockname()[1]
    return port
