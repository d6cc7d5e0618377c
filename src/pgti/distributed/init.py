"""Connecting the launched processes to a communicator."""

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import torch

from pgti.distributed.communicator import Communicator, SingleProcess
from pgti.distributed.launch import TIMEOUT_SECONDS, Launch, find_launch
from pgti.errors import ConfigError, PeerError, option

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

__all__ = ["init_communicator", "make_current", "open_fake"]

_LONGEST_TIMEOUT = 30 * 86_400.0
_BACKLOG = 1024
_GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"
_openings = count()
"""Of jobs by this process; all ranks count alike, and read nothing that they wrote before."""
_served: dict[int, "Store"] = {}
"""Stores that this process serves until it ends, by port: a rank may be back before rank 0 left."""


@contextmanager
def init_communicator(
    device: torch.device | None = None,
    *,
    launch: Launch | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Iterator[Communicator]:
    """The communicator of this job; a `SingleProcess` if nothing launched several processes.

    A process group that other code has initialised (Ray, Lightning, a script) is used as it is,
    and not destroyed.

    Args:
        device: where this rank computes; on a GPU, which becomes the current one, NCCL is used
            beside gloo.
        launch: which process this is; by default from the environment.
        timeout_seconds: how long to wait for another rank.

    Raises:
        ConfigError: if the environment contradicts itself, the timeout is not positive, or the GPU
            cannot be used.
        PeerError: if the other ranks cannot be reached.
    """
    if not 0 < timeout_seconds <= _LONGEST_TIMEOUT:
        raise ConfigError(
            f"the timeout is {timeout_seconds} s: it must be more than 0 and at most "
            f"{_LONGEST_TIMEOUT:.0f}"
        )
    found = find_launch(os.environ) if launch is None else launch
    device = torch.device("cpu") if device is None else device
    make_current(device)
    with _on_loopback_alone(found):
        communicator = _connect(found, device, timeout_seconds)
        try:
            yield communicator
        except BaseException as error:
            communicator.close(error)
            raise
        communicator.close()


def make_current(device: torch.device) -> None:
    """Make a GPU the current one of this process: pinned memory and streams belong to it.

    Args:
        device: with its index; a CPU changes nothing.

    Raises:
        ConfigError: if the GPU cannot be used.
    """
    if device.type != "cuda":
        return
    try:
        torch.cuda.set_device(device)
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{device} cannot be used: {reason}; see nvidia-smi for whether it is there and free, "
            f"or use {option('device', 'cpu')}"
        ) from error


@contextmanager
def open_fake(rank: int, world_size: int) -> Iterator[Communicator]:
    """One rank of a job whose other ranks do not exist, over torch's `fake` backend.

    Every collective returns at once, and `traffic` counts what the rank sends. What the rank
    "receives" is whatever was in memory: such numbers mean nothing.

    Args:
        rank: the rank that this process simulates.
        world_size: number of simulated ranks.

    Raises:
        ConfigError: if the rank is out of range, or this process is in a process group already.
    """
    import torch.distributed as dist  # noqa: PLC0415 - see _connect

    # Importing it registers the backend.
    from torch.testing._internal.distributed.fake_pg import FakeStore  # noqa: PLC0415

    from pgti.distributed.torch_communicator import TorchCommunicator  # noqa: PLC0415

    launch = Launch(launcher="fake", rank=rank, world_size=world_size)
    if dist.is_initialized():
        raise ConfigError(
            "this process is in a process group already: a fake job needs a process that is in none"
        )
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)
    try:
        yield TorchCommunicator(launch, None, timedelta(seconds=TIMEOUT_SECONDS))
    finally:
        dist.destroy_process_group()


def _connect(launch: Launch, device: torch.device, timeout_seconds: float) -> Communicator:
    # One process needs none of this, and the import takes a while.
    if launch.world_size == 1 and "torch.distributed" not in sys.modules:
        return SingleProcess()
    import torch.distributed as dist  # noqa: PLC0415
    from torch._C._distributed_c10d import PrefixStore, TCPStore  # noqa: PLC0415

    from pgti.distributed.heartbeat import Heartbeat  # noqa: PLC0415
    from pgti.distributed.torch_communicator import TorchCommunicator  # noqa: PLC0415

    timeout = timedelta(seconds=timeout_seconds)
    if dist.is_available() and dist.is_initialized():
        rank, world_size = dist.get_rank(), dist.get_world_size()
        if (rank, world_size) != (launch.rank, launch.world_size):
            launch = Launch(launcher="host", rank=rank, world_size=world_size)
        return TorchCommunicator(launch, None, timeout, owns_group=False)
    if launch.world_size == 1:
        return SingleProcess()
    # torchrun's agent serves the store of its workers, so that it outlives all of them.
    opening = next(_openings)
    is_served_by_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"

    def connect_store(*, is_master: bool) -> PrefixStore:
        store = _served.get(launch.port) if is_master else None
        if store is None:
            store = TCPStore(
                launch.address,
                launch.port,
                launch.world_size,
                is_master=is_master,
                timeout=timeout,
                wait_for_workers=False,
                master_listen_fd=_listen(launch) if is_master else None,
            )
        if is_master:
            _served[launch.port] = store
        return PrefixStore(f"pgti/{launch.restarts}/{opening}", store)

    try:
        store = connect_store(is_master=launch.rank == 0 and not is_served_by_agent)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=launch.rank,
            world_size=launch.world_size,
            timeout=timeout,
            device_id=device if device.type == "cuda" else None,
        )
        heartbeat = Heartbeat(connect_store(is_master=False), launch.rank, launch.world_size)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise PeerError(
            f"rank {launch.rank} of {launch.world_size} cannot reach the others at "
            f"{launch.address}:{launch.port}: {reason}"
        ) from error
    return TorchCommunicator(launch, heartbeat, timeout)


def _addresses(launch: Launch) -> list[tuple[socket.AddressFamily, Any]]:
    """The addresses of the host of rank 0, as its name is known here."""
    with suppress(OSError):
        found = socket.getaddrinfo(launch.address, launch.port, type=socket.SOCK_STREAM)
        return [(family, place) for family, _, _, _, place in found]
    return []


def _is_loopback(place: tuple[Any, ...]) -> bool:
    return ipaddress.ip_address(f"{place[0]}".partition("%")[0]).is_loopback


def _is_on_one_machine(launch: Launch) -> bool:
    return launch.local_world_size == launch.world_size


def _listen(launch: Launch) -> int | None:
    """A socket on the address of the job for its store, which torch has listen on every one.

    None where the address is no other machine's way to this one: a name that is of this machine
    alone, or an address that others translate.
    """
    for family, place in _addresses(launch):
        if _is_loopback(place) and not _is_on_one_machine(launch):
            continue
        with suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(place)
            listening.listen(_BACKLOG)
            return listening.detach()
    return None


@contextmanager
def _on_loopback_alone(launch: Launch) -> Iterator[None]:
    """Have gloo listen on the loopback interface alone where the whole job is on this machine.

    It listens on the address of the machine's name otherwise, or where the user tells it to.
    """
    places = [place for _, place in _addresses(launch)] if launch.world_size > 1 else []
    is_local = _is_on_one_machine(launch) and places and all(map(_is_loopback, places))
    known = {name for _, name in socket.if_nameindex()} & {"lo", "lo0"} if is_local else set()
    if not known or _GLOO_INTERFACE in os.environ:
        yield
        return
    os.environ[_GLOO_INTERFACE] = known.pop()
    try:
        yield
    finally:
        os.environ.pop(_GLOO_INTERFACE, None)
