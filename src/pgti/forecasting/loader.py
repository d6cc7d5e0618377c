"""What training and evaluation need of whatever yields their batches."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Protocol

from pgti.batching import Batch

__all__ = ["Loader", "open_epoch"]


class Loader(Protocol):
    """A split's windows, batch by batch: `pgti.batching.BatchLoader`, or anything like it."""

    @property
    def num_batches(self) -> int:
        """Batches of an epoch."""
        ...

    @property
    def num_windows(self) -> int:
        """Windows of an epoch, each used once by one of the ranks."""
        ...

    def windows_in(self, batch: int) -> int:
        """Windows of a batch, those of all ranks together."""
        ...

    def prepare(self, epoch: int) -> None:
        """Begin whatever an epoch will need, while the caller does something else."""
        ...

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `first_batch` on: a pure function of its arguments.

        As many on every rank, with the windows that are this rank's, perhaps none. A batch is valid
        until the next one is asked for.
        """
        ...


@contextmanager
def open_epoch(loader: Loader, epoch: int, first_batch: int = 0) -> Iterator[Iterator[Batch]]:
    """The batches of an epoch; on leaving early, the loader's threads and buffers are freed."""
    batches = loader.epoch(epoch, first_batch)
    try:
        yield batches
    finally:
        if isinstance(batches, Generator):
            batches.close()
