"""One crew of ranks for all tests of a session."""

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch

CREW = Path(__file__).with_name("crew.py")


class RunRanks(Protocol):
    """Do a job of `jobs.py` on some ranks; gives each one's result."""

    def __call__(
        self, function: str, world_size: int, *, timeout: float = 60, **arguments: Any
    ) -> list[dict[str, Any]]:
        """See above."""
        ...


@pytest.fixture(scope="session")
def run_ranks() -> Iterator[RunRanks]:
    crew = subprocess.Popen(
        [sys.executable, str(CREW)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert crew.stdin is not None
    assert crew.stdout is not None
    source, sink = crew.stdout, crew.stdin

    def run(
        function: str, world_size: int, *, timeout: float = 60, **arguments: Any
    ) -> list[dict[str, Any]]:
        with tempfile.TemporaryDirectory() as results:
            job = {
                "function": function,
                "world_size": world_size,
                "port": free_port(),
                "timeout": timeout,
                "arguments": arguments,
                "results": results,
            }
            sink.write(json.dumps(job) + "\n")
            sink.flush()
            codes = json.loads(source.readline())
            return [
                torch.load(Path(results) / f"{rank}.pt", weights_only=True)
                if code == 0
                else {"exit_code": code}
                for rank, code in enumerate(codes)
            ]

    yield run
    crew.communicate()


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
