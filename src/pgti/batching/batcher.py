"""From window starts to batches: the interface of every strategy, and windows cut from rows."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.assembler import Assembler, StoredRows
from pgti.batching.batch import Batch
from pgti.batching.rows import ScratchArrays
from pgti.batching.source import WindowSource
from pgti.errors import require_whole_number

__all__ = ["BatchRequest", "Batcher", "RowResidency", "RowSource", "StartsOf", "WindowBatcher"]

FetchedT = TypeVar("FetchedT")
"""What a strategy fetches on the host and makes a batch of."""

StartsOf: TypeAlias = Callable[[int], NDArray[np.int64]]
"""Window starts of a batch by rank."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class BatchRequest:
    """The windows of a batch that one rank asks for.

    Attributes:
        starts: first row of each window, int64 [B], at least one.
        with_targets: False for windows whose horizon lies past the end of the series.
        scratch: memory for rows; what is fetched is valid until it is used again.
        reader: what `announce_batch` returned for the batch.
        sent: the same starts on the compute device, of an epoch's that `send_starts` checked and
            moved there; None where it did not.
    """

    starts: NDArray[np.int64]
    with_targets: bool = True
    scratch: ScratchArrays = field(default_factory=ScratchArrays)
    reader: Any = None
    sent: Tensor | None = None


class RowResidency:
    """Which rows this rank holds, and what has to happen before they can be read: here, nothing.

    Attributes:
        announced_ahead: batches that a loader announces before it fetches the first of them.
    """

    announced_ahead = 1

    @property
    def owned_bytes(self) -> int:
        """Memory that this rank's part of the rows takes; 0 where rows are not partitioned."""
        return 0

    def prefetch_epoch(self, epoch: int) -> None:
        """Start whatever an epoch's batches will need, and return at once."""

    def begin_epoch(self, epoch: int) -> None:
        """Have everything that an epoch's batches need."""

    def send_starts(
        self, batches: Callable[[], Sequence[NDArray[np.int64]]], *, with_targets: bool
    ) -> Iterator[Tensor | None]:
        """Move the starts of an epoch's windows to the compute device, where rows are cut there.

        Args:
            batches: gives this rank's starts of every batch, int64 [b].
            with_targets: as in `BatchRequest`.

        Returns:
            For each batch its starts on the device; None without end where rows are read on the
            host.

        Raises:
            ConfigError: if a window reaches outside the series.
        """
        return repeat(None)

    def announce_batch(self, starts_of: StartsOf) -> Any:
        """Learn of a batch before it is fetched; all ranks announce in the same order.

        Args:
            starts_of: gives the windows that a rank takes of the batch.

        Returns:
            What reads the batch's rows, where they come from a place of their own; else None.
        """
        return None


class RowSource(RowResidency, ABC, Generic[FetchedT]):
    """Where the rows of the series are, and how a batch's rows reach the compute device."""

    @abstractmethod
    def fetch(self, request: BatchRequest) -> FetchedT:
        """Read the rows of windows, on the host; several threads may call it at the same time."""

    @abstractmethod
    def collect(self, fetched: FetchedT) -> StoredRows:
        """The fetched rows on the compute device."""

    def upload(self, fetched: FetchedT, scratch: ScratchArrays) -> FetchedT:
        """See `Batcher.upload`."""
        return fetched

    def new_scratch(self) -> ScratchArrays:
        """Memory for the rows of one batch."""
        return ScratchArrays()


class Batcher(ABC, Generic[FetchedT]):
    """Turns window starts into batches.

    The work has parts, so that threads and copies can run ahead: `fetch` reads on the host,
    `upload` starts to copy to the compute device, `assemble` makes a `Batch` there. Several threads
    may fetch at the same time, each into its own scratch memory; one at a time may upload and
    assemble.

    Args:
        source: what the windows hold.
        device: where batches are made.
        prefetch_depth: batches that a loader has in progress, the one in use included: 1 fetches
            when a batch is asked for, more run ahead.

    Attributes:
        rows: what has to happen to the rows before an epoch and before a batch.

    Raises:
        ConfigError: if `prefetch_depth` is not a positive whole number.
    """

    rows: RowResidency = RowResidency()

    def __init__(self, source: WindowSource, device: torch.device, prefetch_depth: int = 1) -> None:
        require_whole_number("prefetch_depth", prefetch_depth, 1)
        self.source = source
        self.device = device
        self.prefetch_depth = prefetch_depth
        self._scratch: ScratchArrays | None = None

    @abstractmethod
    def fetch(self, request: BatchRequest) -> FetchedT:
        """Read what the windows need, on the host.

        Raises:
            ConfigError: if a window reaches outside the series.
        """

    @abstractmethod
    def assemble(self, fetched: FetchedT) -> Batch:
        """Make a batch of fetched windows, on the compute device."""

    def upload(self, fetched: FetchedT, scratch: ScratchArrays) -> FetchedT:
        """Start to copy what was fetched to the compute device, where that takes time.

        Args:
            fetched: what `fetch` returned.
            scratch: the memory that it is in.

        Returns:
            What `assemble` takes in its place.
        """
        return fetched

    def new_scratch(self) -> ScratchArrays:
        """Scratch memory for one batch in progress."""
        return ScratchArrays()

    def gather(self, starts: NDArray[np.int64], *, with_targets: bool = True) -> Batch:
        """Fetch, upload and assemble in one call."""
        if self._scratch is None:
            self._scratch = self.new_scratch()
        self._scratch.wait()
        request = BatchRequest(starts=starts, with_targets=with_targets, scratch=self._scratch)
        return self.assemble(self.upload(self.fetch(request), self._scratch))


class WindowBatcher(Batcher[FetchedT]):
    """Cuts windows from rows: index-batching, wherever the rows are.

    The series is time-major, so a window is a few ranges of rows.

    Args:
        source: what the windows hold.
        device: where batches are made.
        rows: where the rows are.
        assembler: makes batches of rows.
        prefetch_depth: batches that a loader has in progress.
    """

    rows: RowSource[FetchedT]

    def __init__(
        self,
        source: WindowSource,
        device: torch.device,
        rows: RowSource[FetchedT],
        assembler: Assembler,
        prefetch_depth: int = 1,
    ) -> None:
        super().__init__(source, device, prefetch_depth)
        self.rows = rows
        self._assembler = assembler

    def fetch(self, request: BatchRequest) -> FetchedT:
        """Read the rows that the windows need."""
        if request.sent is None:
            self.source.check_starts(request.starts, with_targets=request.with_targets)
        return self.rows.fetch(request)

    def upload(self, fetched: FetchedT, scratch: ScratchArrays) -> FetchedT:
        """Copy rows to the compute device, as their source does."""
        return self.rows.upload(fetched, scratch)

    def new_scratch(self) -> ScratchArrays:
        """Memory that the rows' source copies from."""
        return self.rows.new_scratch()

    def assemble(self, fetched: FetchedT) -> Batch:
        """Decode, standardise and mask on the compute device."""
        return self._assembler(self.rows.collect(fetched))
