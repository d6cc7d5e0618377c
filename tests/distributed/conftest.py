"""Functions of `rank_jobs.py`, or another file, on ranks of the session's pool of processes."""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch

from ..conftest import ProcessPool, pgti_process


class RunRanks(Protocol):
    """Call a function of `rank_jobs.py` on some ranks; gives each one's result."""

    def __call__(
        self,
        function: str,
        world_size: int,
        *,
        timeout: float = 60,
        module: str = "rank_jobs.py",
        **arguments: Any,
    ) -> list[dict[str, Any]]:
        """See above."""
        ...


@pytest.fixture
def run_ranks(process_pool: ProcessPool, tmp_path_factory: pytest.TempPathFactory) -> RunRanks:
    def run(
        function: str,
        world_size: int,
        *,
        timeout: float = 60,
        module: str = "rank_jobs.py",
        **arguments: Any,
    ) -> list[dict[str, Any]]:
        directory = tmp_path_factory.mktemp("results")
        paths = [directory / f"{rank}.pt" for rank in range(world_size)]
        processes = [
            {
                "program": "function",
                "arguments": {
                    "module": str(Path(__file__).with_name(module)),
                    "function": function,
                    "arguments": arguments,
                    "timeout": timeout,
                    "result_path": str(path),
                },
                "environment": environment,
            }
            for path, environment in zip(paths, rank_environments(world_size), strict=True)
        ]
        with process_pool.job(processes) as job:
            codes = job.end_all()
        return [
            torch.load(path, weights_only=True) if code == 0 else {"exit_code": code}
            for path, code in zip(paths, codes, strict=True)
        ]

    return run


def torchrun_process(*options: object, command: Sequence[object], log: Path) -> dict[str, Any]:
    """A torchrun agent as a process of a job; it starts the ranks of the command by itself."""
    options = ("--monitor-interval", "0.1", *options, "-m", "pgti")
    process = pgti_process(*options, *command, log=log)
    return process | {"program": "torchrun"}


def rank_environments(world_size: int) -> list[dict[str, str]]:
    """What a launcher sets for the ranks of one machine."""
    port = free_port()
    return [
        {
            "RANK": f"{rank}",
            "WORLD_SIZE": f"{world_size}",
            "LOCAL_RANK": f"{rank}",
            "LOCAL_WORLD_SIZE": f"{world_size}",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": f"{port}",
        }
        for rank in range(world_size)
    ]


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
