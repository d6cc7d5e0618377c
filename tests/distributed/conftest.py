"""One pool of ranks for all tests of a session."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import pytest
import torch

_LAUNCHERS = re.compile("RANK|WORLD_SIZE|LOCAL_|MASTER_|SLURM_|OMPI_|PMI_|TORCHELASTIC_|PET_")


class RankJob:
    """The processes of a job, numbered as they were given."""

    def __init__(self, processes: Sequence[dict[str, Any]], replies: IO[str]) -> None:
        self._processes = processes
        self._replies = replies
        self.pids: list[int] = json.loads(replies.readline())
        self._codes: dict[int, int] = {}

    def end(self, number: int) -> int:
        """Wait for the end of a process; gives its exit code."""
        while number not in self._codes:
            ended, code = json.loads(self._replies.readline())
            self._codes[ended] = code
        return self._codes[number]

    def end_all(self) -> list[int]:
        """Wait for the end of all of them; gives their exit codes."""
        return [self.end(number) for number in range(len(self.pids))]

    def log(self, number: int = 0) -> str:
        """What a process has written to its log."""
        return Path(self._processes[number]["stderr"]).read_text()

    def children(self, number: int = 0) -> list[int]:
        """Process ids of the ranks of a torchrun."""
        pid = self.pids[number]
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            return [int(child) for child in children.split()]
        return []

    def kill(self) -> None:
        """End what still runs."""
        for number, pid in enumerate(self.pids):
            if number not in self._codes:
                is_torchrun = self._processes[number]["program"] == "torchrun"  # it ends its ranks
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM if is_torchrun else signal.SIGKILL)
        self.end_all()


class RankPool:
    """Starts jobs, one after the other, in processes that need not import anything."""

    def __init__(self) -> None:
        kept = {name: text for name, text in os.environ.items() if not _LAUNCHERS.match(name)}
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("rank_pool.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=kept | {"OMP_NUM_THREADS": "1"},
        )

    @contextlib.contextmanager
    def job(self, processes: Sequence[dict[str, Any]]) -> Iterator[RankJob]:
        """Processes that do not outlive the block.

        Each has a `program` ("function", "pgti" or "torchrun"), its `arguments` and `environment`,
        and files for `stdout` and `stderr`: see `pgti_process` and `torchrun_process`.
        """
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(list(processes)), file=self._server.stdin, flush=True)
        started = RankJob(processes, self._server.stdout)
        try:
            yield started
        finally:
            started.kill()

    def close(self) -> None:
        """End the server."""
        self._server.kill()
        self._server.communicate()


@pytest.fixture(scope="session")
def rank_pool() -> Iterator[RankPool]:
    pool = RankPool()
    yield pool
    pool.close()


class RunRanks(Protocol):
    """Call a function of `rank_jobs.py` on some ranks; gives each one's result."""

    def __call__(
        self, function: str, world_size: int, *, timeout: float = 60, **arguments: Any
    ) -> list[dict[str, Any]]:
        """See above."""
        ...


@pytest.fixture
def run_ranks(rank_pool: RankPool, tmp_path_factory: pytest.TempPathFactory) -> RunRanks:
    def run(
        function: str, world_size: int, *, timeout: float = 60, **arguments: Any
    ) -> list[dict[str, Any]]:
        directory = tmp_path_factory.mktemp("results")
        paths = [directory / f"{rank}.pt" for rank in range(world_size)]
        processes = [
            {
                "program": "function",
                "arguments": {
                    "function": function,
                    "arguments": arguments,
                    "timeout": timeout,
                    "result_path": str(path),
                },
                "environment": environment,
            }
            for path, environment in zip(paths, rank_environments(world_size), strict=True)
        ]
        with rank_pool.job(processes) as job:
            codes = job.end_all()
        return [
            torch.load(path, weights_only=True) if code == 0 else {"exit_code": code}
            for path, code in zip(paths, codes, strict=True)
        ]

    return run


def pgti_process(
    *arguments: object, log: Path, environment: dict[str, str], stdout: Path | None = None
) -> dict[str, Any]:
    """The command line as a process of a job; both outputs go to the log if not said otherwise."""
    return {
        "program": "pgti",
        "arguments": [str(argument) for argument in arguments],
        "environment": environment,
        "stdout": str(stdout or log),
        "stderr": str(log),
    }


def torchrun_process(*options: object, command: Sequence[object], log: Path) -> dict[str, Any]:
    """A torchrun agent as a process of a job; it starts the ranks of the command by itself."""
    options = ("--monitor-interval", "0.1", *options, "-m", "pgti")
    process = pgti_process(*options, *command, log=log, environment={})
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
