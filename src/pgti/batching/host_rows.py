"""Rows that are read on the host, in their stored dtype, and move to the compute device."""

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.assembler import StoredRows
from pgti.batching.batcher import BatchRequest, RowSource
from pgti.batching.rows import RowFeatures, RowReader, ScratchArrays
from pgti.batching.source import WindowSource
from pgti.windows import RowPlan

__all__ = ["HostRows", "SeriesReader"]


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
    """Rows that a reader copies on the host.

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

    def fetch(self, plan: RowPlan, request: BatchRequest) -> StoredRows:
        """Copy the rows of the windows in the stored dtype, and compute their features."""
        meta, is_gpu = self._source.store.meta, self._device.type == "cuda"
        raw = self._raw_rows(plan.rows.size, request.scratch)
        (request.reader or self._reader).copy_rows(plan.ranges, raw.numpy())
        calendar = self._features.calendar(plan.rows)
        window_calendar = calendar
        if plan.window_index is not None or not request.with_targets:
            extent = self._source.spec.extent
            rows = request.starts[:, None] + np.arange(extent.start, extent.stop)
            window_calendar = self._features.calendar(rows)
        stored = StoredRows(
            raw=raw.view(*plan.rows.shape, meta.num_nodes, meta.num_channels),
            calendar=torch.from_numpy(calendar),
            bins=torch.from_numpy(self._features.bins(plan.rows)),
            window_index=_as_tensor(plan.window_index),
            window_calendar=torch.from_numpy(window_calendar),
            starts=request.starts,
            with_targets=request.with_targets,
        )
        return stored.pin() if is_gpu else stored

    def collect(self, fetched: StoredRows) -> StoredRows:
        """Move the rows to the compute device."""
        return fetched if self._device.type == "cpu" else fetched.to(self._device)

    def _raw_rows(self, num_rows: int, scratch: ScratchArrays) -> Tensor:
        """Memory for rows in the stored dtype; pinned for a GPU, whose copies start at once."""
        shape, dtype = (num_rows, self._reader.num_readings), self._reader.dtype
        if self._device.type != "cuda":
            return torch.from_numpy(scratch.array("raw", shape, dtype))
        kind = torch.int16 if dtype == np.int16 else torch.float32
        return torch.empty(shape, dtype=kind, pin_memory=True)


def _as_tensor(array: NDArray[np.int64] | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(array)
