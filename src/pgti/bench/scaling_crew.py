"""The ranks of the scaling study as processes on loopback, and the process of Dask's cluster."""

import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from typing import Any

from pgti.bench.worker import Worker, thread_settings
from pgti.errors import BenchError

__all__ = ["RankCrew", "open_cluster"]

_RANK = (sys.executable, "-m", "pgti.bench.scaling_worker")
_CLUSTER = (sys.executable, "-m", "pgti.bench.scaling_dask")
_LOOPBACK = "127.0.0.1"


class RankCrew:
    """So many ranks of one thread each; they run while the `with` block does.

    Args:
        world_size: how many.
    """

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self._stack = ExitStack()
        self._workers: list[Worker] = []

    def __enter__(self) -> "RankCrew":
        # Entered first and left last: threads that wait for a rank go on when the ranks have ended.
        self._threads = self._stack.enter_context(ThreadPoolExecutor(self.world_size))
        port = _free_port()
        for rank in range(self.world_size):
            name = f"rank {rank} of {self.world_size}"
            worker = Worker(_RANK, _environment(rank, self.world_size, port), name)
            self._workers.append(self._stack.enter_context(worker))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type] # what Python passes, passed on

    def ask(self, *, first: int | None = None, **request: object) -> list[dict[str, Any]]:
        """Send a request to every rank at once; their replies, in their order.

        Args:
            first: how many ranks are asked, from rank 0 on; all if not given.
            **request: what every one of them is sent.

        Raises:
            BenchError: the first that failed says why; the others may wait for it in vain, so
                leave the `with` block.
        """
        asked = [self._threads.submit(worker.ask, **request) for worker in self._workers[:first]]
        for done in as_completed(asked):
            done.result()
        return [done.result() for done in asked]


@contextmanager
def open_cluster() -> Iterator[Worker]:
    """The process that keeps Dask's scheduler; its workers end with the block."""
    with Worker(_CLUSTER, thread_settings(1), "Dask's cluster") as worker:
        try:
            yield worker
        finally:
            _stopped(worker)


def _stopped(worker: Worker) -> None:
    try:
        worker.ask(do="stop")
    except BenchError:
        return  # it has ended already, and said why to whoever asked it


def _environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    """What a launcher tells a rank of one machine; whatever launched this process is forgotten."""
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
