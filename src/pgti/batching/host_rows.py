"""Rows that are read on the host, in their stored dtype, and move to the compute device."""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.assembler import StoredRows
from pgti.batching.batcher import BatchRequest, RowSource
from pgti.batching.copies import CopyStream, PinnedArrays
from pgti.batching.history import StoredHistory
from pgti.batching.rows import RowFeatures, RowReader, ScratchArrays
from pgti.batching.source import WindowSource
from pgti.windows import plan_rows, union_rows

__all__ = ["HostRows", "SeriesReader"]

_Placed: TypeAlias = Callable[[str, NDArray[Any]], Tensor]
"""Puts an array by name where the compute device reads it."""


class SeriesReader(RowReader, Protocol):
    """Reads rows of a series: from the mapped file, or from memory of the process's own."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The stored dtype."""
        ...

    @property
    def num_readings(self) -> int:
        """Readings of a row, N * C."""
        ...


class HostRows(RowSource[StoredRows]):
    """Rows that a reader copies on the host: those of every window, or their union.

    Where windows share most of their rows, each row is copied once. For a GPU they are copied to
    pinned memory, and from there on a stream of their own (`pgti.batching.copies`).

    Args:
        source: what the windows hold.
        device: where batches are made.
        reader: copies rows.
        features: calendar features and typical times of the rows; computed here if not given.
    """

    def __init__(
        self,
        source: WindowSource,
        device: torch.device,
        reader: SeriesReader,
        features: RowFeatures | None = None,
    ) -> None:
        self._source = source
        self._device = device
        self._reader = reader
        self._features = RowFeatures(source) if features is None else features
        self._copies = CopyStream(device) if device.type == "cuda" else None

    def fetch(self, request: BatchRequest) -> StoredRows:
        """Copy the rows of the windows in the stored dtype, and compute their features."""
        meta, scratch = self._source.store.meta, request.scratch
        offsets = self._source.spec.row_offsets(with_targets=request.with_targets)
        plan = plan_rows(request.starts, offsets)
        shape = (plan.rows.size, self._reader.num_readings)
        raw = scratch.array("raw", shape, self._reader.dtype)
        (request.reader or self._reader).copy_rows(plan.ranges, raw)
        calendar = self._features.calendar(plan.rows)
        window_calendar = calendar
        if plan.window_index is not None or not request.with_targets:
            extent = self._source.spec.extent
            rows = request.starts[:, None] + np.arange(extent.start, extent.stop)
            window_calendar = self._features.calendar(rows)

        def placed(name: str, array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(scratch.place(name, array))

        index = plan.window_index
        history = self._fetch_history(request, placed) if self._source.spec.history else None
        return StoredRows(
            raw=torch.from_numpy(raw).view(
                *plan.rows.shape, self._source.num_nodes, meta.num_channels
            ),
            calendar=placed("calendar", calendar),
            bins=placed("bins", self._features.bins(plan.rows)),
            window_index=None if index is None else placed("window index", index),
            window_calendar=placed("window calendar", window_calendar),
            starts=request.starts,
            with_targets=request.with_targets,
            history=history,
        )

    def _fetch_history(self, request: BatchRequest, placed: _Placed) -> StoredHistory:
        """Copy each row of the windows' histories once; those before the series are not read."""
        source, spec, starts = self._source, self._source.spec, request.starts
        begins = source.history_begins(starts)
        plan = union_rows(starts, spec.history, begins)
        assert plan.window_index is not None  # of a union
        # A device cannot index what has no row, and every window may lie at the beginning.
        shape = (max(1, plan.rows.size), self._reader.num_readings)
        raw = request.scratch.array("history", shape, self._reader.dtype)
        (request.reader or self._reader).copy_rows(plan.ranges, raw[: plan.rows.size])
        rows = starts[:, None] + spec.history_offsets
        bins = self._features.history_bins(rows, begins)
        return StoredHistory(
            raw=torch.from_numpy(raw).view(
                len(raw), source.num_nodes, source.store.meta.num_channels
            ),
            places=placed("history places", plan.window_index),
            is_there=placed("history is there", rows >= begins[:, None]),
            bins=None if bins is None else placed("history bins", bins),
            num_missing=source.num_missing_history(starts).tolist(),
        )

    def upload(self, fetched: StoredRows, scratch: ScratchArrays) -> StoredRows:
        """Start to copy the rows to a GPU."""
        return fetched if self._copies is None else self._copies.upload(fetched, scratch)

    def collect(self, fetched: StoredRows) -> StoredRows:
        """The rows on the compute device, when a computation can read them."""
        if self._copies is None:
            return fetched
        if fetched.copied is None:  # nobody has uploaded them
            fetched = self._copies.upload(fetched, ScratchArrays())
        return self._copies.join(fetched)

    def new_scratch(self) -> ScratchArrays:
        """Memory for the rows of one batch; pinned for a GPU."""
        return ScratchArrays() if self._copies is None else PinnedArrays()
