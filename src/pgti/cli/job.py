"""A command as one of several processes: cores, local copies, who speaks."""

import os
from pathlib import Path

import torch

from pgti.cli.output import say
from pgti.distributed import Launch, Processes
from pgti.series import SeriesStore
from pgti.series.local_copy import local_copy

__all__ = ["copied_store", "use_cores"]


def use_cores(launch: Launch) -> None:
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
