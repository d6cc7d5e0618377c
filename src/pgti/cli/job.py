"""A command as one rank of a job: processor cores, local copies, the job's name."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pgti.cli.output import log
from pgti.distributed import Communicator, Launch, find_launch, init_communicator
from pgti.errors import PgtiError
from pgti.run import Job, resolve_device
from pgti.store import SeriesStore
from pgti.store.local_copy import local_copy

__all__ = ["open_job", "open_local_copy", "this_job"]

_STARTED_FIELD = 19  # of a process in /proc, behind its name


@contextmanager
def open_job(device: str, peer_timeout: float) -> Iterator[Communicator]:
    """Connect to the ranks that were launched together with this process, if any.

    Args:
        device: name of the compute device.
        peer_timeout: seconds after which a rank that does not answer ends the job.

    Raises:
        ConfigError: if there is no such device, or the environment contradicts itself.
        PeerError: if the other ranks cannot be reached.
    """
    launch = find_launch(os.environ)
    own_device = resolve_device(device, launch.local_rank, launch.local_world_size)
    _share_cores(launch)
    with init_communicator(own_device, launch=launch, timeout_seconds=peer_timeout) as communicator:
        yield communicator


def this_job() -> Job:
    """The job of this process: torchrun, its parent process, stays the same across restarts."""
    agent = os.getppid()
    try:
        # Ticks since boot: psutil's create_time() moves when the system's clock is set.
        stat = Path(f"/proc/{agent}/stat").read_text(encoding="utf-8", errors="replace")
        began = stat.rpartition(")")[2].split()[_STARTED_FIELD]
    except (OSError, IndexError):
        began = "unknown"
    return Job(
        name=f"{socket.gethostname()} {agent} {began}",
        is_restart=find_launch(os.environ).restarts > 0,
    )


def _share_cores(launch: Launch) -> None:
    """Divide the machine's cores among its ranks, unless the launcher has done so.

    torchrun gives each of several ranks one thread unless OMP_NUM_THREADS is set; other launchers
    bind each rank to cores.
    """
    if launch.local_world_size == 1 or "OMP_NUM_THREADS" in os.environ:
        return
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) < cores:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    else:
        torch.set_num_threads(max(1, cores // launch.local_world_size))


def open_local_copy(store: Path, directory: Path, communicator: Communicator) -> SeriesStore:
    """Open a copy of the store on a local disk, which one rank of each machine creates first.

    Raises:
        StoreError: if it cannot be created.
    """
    found: SeriesStore | PgtiError
    log_once = log if communicator.is_main else _discard
    try:
        found = SeriesStore.open(local_copy(store, directory, log=log_once))
    except PgtiError as error:
        found = error
    communicator.wait_for_all()  # a large copy may take longer than the ranks' timeout
    with communicator.raise_together():
        if isinstance(found, PgtiError):
            raise found
    return found


def _discard(message: str) -> None:
    """Log nothing."""
