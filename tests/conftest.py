"""What all tests of a session share: one pool of processes, and one browser."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from .browser import Browser, open_browser

_LAUNCHERS = re.compile("RANK|WORLD_SIZE|LOCAL_|MASTER_|SLURM_|OMPI_|PMI_|TORCHELASTIC_|PET_")


class ProcessJob:
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


class ProcessPool:
    """Starts jobs, one after the other, in processes that need not import anything."""

    def __init__(self) -> None:
        kept = {name: text for name, text in os.environ.items() if not _LAUNCHERS.match(name)}
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("process_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=kept | {"OMP_NUM_THREADS": "1"},
        )

    @contextlib.contextmanager
    def job(self, processes: Sequence[dict[str, Any]]) -> Iterator[ProcessJob]:
        """Processes that do not outlive the block.

        Each has a `program` ("function", "pgti" or "torchrun"), its `arguments` and `environment`,
        and files for `stdout` and `stderr`: see `pgti_process`.
        """
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(list(processes)), file=self._server.stdin, flush=True)
        started = ProcessJob(processes, self._server.stdout)
        try:
            yield started
        finally:
            started.kill()

    def close(self) -> None:
        """End the server."""
        self._server.kill()
        self._server.communicate()


@pytest.fixture(scope="session")
def process_pool() -> Iterator[ProcessPool]:
    pool = ProcessPool()
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium; the test is skipped where there is none."""
    with open_browser() as opened:
        yield opened


def pgti_process(
    *arguments: object,
    log: Path,
    environment: dict[str, str] | None = None,
    stdout: Path | None = None,
) -> dict[str, Any]:
    """The command line as a process of a job; both outputs go to the log if not said otherwise."""
    return {
        "program": "pgti",
        "arguments": [str(argument) for argument in arguments],
        "environment": environment or {},
        "stdout": str(stdout or log),
        "stderr": str(log),
    }


def pytest_configure() -> None:
    """Let signals through that a shell ignores for its background jobs: children inherit that.

    Tests that multiply on a GPU by torch alone precede some that ask for deterministic results:
    see `pgti.nn.numerics`.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    for name in ("SIGINT", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(
                number, signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
            )
