"""A command as one of several processes: cores, local copies, who speaks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pgti.cli.output import say
from pgti.distributed import Launch, Processes, find_launch, open_processes
from pgti.errors import ConfigError
from pgti.run import resolve_device
from pgti.series import SeriesStore
from pgti.series.local_copy import local_copy

__all__ = ["copied_store", "open_job", "refuse_ranks", "was_restarted"]


@contextmanager
def open_job(device: str, peer_timeout: float) -> Iterator[Processes]:
    """The processes that were launched together with this one, if any.

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
    with open_processes(own_device, launch=launch, timeout_seconds=peer_timeout) as processes:
        yield processes


def refuse_ranks(command: str) -> None:
    """Refuse to run a command for one process in several.

    Raises:
        ConfigError: if it was launched as several.
    """
    world_size = find_launch(os.environ).world_size
    if world_size > 1:
        raise ConfigError(
            f"{command} was launched as {world_size} processes: it runs as one; leave torchrun out"
        )


def was_restarted() -> bool:
    """Whether torchrun has started the processes anew, after one of them failed."""
    return find_launch(os.environ).restarts > 0


def _share_cores(launch: Launch) -> None:
    """Share the machine's cores out over its ranks, where nothing else has done so."""
    if launch.local_world_size > 1 and "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        torch.set_num_threads(max(1, cores // launch.local_world_size))


def copied_store(store: Path, directory: Path, processes: Processes) -> SeriesStore:
    """The copy of the store on this machine's own disk, made by the first of its ranks.

    Raises:
        StoreError: if it cannot be made.
    """
    speak = say if processes.is_main else _nothing
    with processes.together():
        if processes.local_rank == 0:
            local_copy(store, directory, say=speak)
    with processes.together():
        return SeriesStore.open(local_copy(store, directory))


def _nothing(message: str) -> None:
    del message
