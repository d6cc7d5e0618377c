"""Garbage on the sockets and in the store of a job, and where its ranks listen."""

import re
import socket
from contextlib import closing
from pathlib import Path

import pytest

import pgti
from pgti.distributed import Communicator, Launch, SingleProcess
from pgti.distributed.init import _listen
from pgti.errors import PeerError

from .conftest import RunRanks, free_port


def test_garbage_on_sockets_and_heartbeats(run_ranks: RunRanks) -> None:
    """The ranks listen on this machine alone, go on, and blame nobody."""
    for rank, result in enumerate(run_ranks("attack", 2, seconds=2.5)):
        assert result["hosts"], rank
        assert set(result["hosts"]) <= {"127.0.0.1", "::1"}
        assert result["texts"] == ["\0000", "\0001"]
        assert result["beats"] is True


@pytest.mark.parametrize("length", [-1, 1 << 60])
def test_a_length_is_not_believed(run_ranks: RunRanks, length: int) -> None:
    assert run_ranks("lie", 2, length=length) == [{}, {}]


@pytest.mark.parametrize(
    ("address", "local_world_size", "found"),
    [
        ("127.0.0.1", 2, "127.0.0.1"),
        ("localhost", 2, "127.0.0.1"),
        ("localhost", 1, None),  # other machines know this one by another name
        ("203.0.113.7", 1, None),  # an address that is translated on its way here
        ("no-such-host.invalid", 1, None),
    ],
)
def test_the_store_listens_on_the_address_of_the_job(
    address: str, local_world_size: int, found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"localhost": "127.0.0.1", "127.0.0.1": "127.0.0.1", "203.0.113.7": "203.0.113.7"}

    def resolve(host: str, port: int, **_: object) -> list[object]:
        if host not in places:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (places[host], port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    launch = Launch(
        launcher="torchrun", world_size=2, local_world_size=local_world_size, address=address,
        port=free_port(),
    )  # fmt: skip
    descriptor = _listen(launch)
    if found is None:
        assert descriptor is None
        return
    assert descriptor is not None
    with closing(socket.socket(fileno=descriptor)) as listening:
        assert listening.getsockname() == (found, launch.port)


class Garbling(SingleProcess):
    """A process to which something else arrives than what was sent."""

    def __init__(self, received: bytes) -> None:
        super().__init__()
        self.received = received

    def broadcast_bytes(self, content: bytes) -> bytes:
        """What it is."""
        return self.received


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"null", b"3", b"{", b"[" * 100_000])
def test_values_by_name_are_nothing_else(content: bytes) -> None:
    communicator: Communicator = Garbling(content)
    with pytest.raises(PeerError, match="bytes from rank 0 are no values by name"):
        communicator.broadcast_json({"a": 1})
    assert SingleProcess().broadcast_json({"a": 1}) == {"a": 1}


def test_nothing_that_travels_is_unpickled() -> None:
    """No collective of objects is called: torch pickles for them."""
    objects = re.compile(r"(broadcast|gather|scatter|send|recv)_object|pickle\.loads?\(")
    paths = list(Path(pgti.__file__).parent.rglob("*.py"))
    assert len(paths) > 100
    assert [path for path in paths if objects.search(path.read_text(encoding="utf-8"))] == []
