"""Index-batching: windows gathered from the memory-mapped series when a batch is made.

The series is time-major, so a window is one contiguous run of bytes: a batch is one copy of rows
in the stored dtype, of every window's rows or, where windows share most of them, of each row once.
An `Assembler` makes a batch of them on the compute device. A series so small that all its rows
fit, decoded, in a fixed budget has each of them decoded once.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.assemble import Assembler, StoredRows, TorchAssembler
from pgti.batching.base import Batcher, Fetched, RowSource, WindowSource
from pgti.batching.batch import Batch
from pgti.batching.buffers import Buffers
from pgti.batching.decoded import DecodedRows, decoded_bytes
from pgti.batching.host import NumpyAssembler
from pgti.batching.mapped import MappedRows
from pgti.batching.rows import RowFeatures, rows_of
from pgti.memory.available import available_bytes

__all__ = ["IndexBatcher"]

_KEPT_BYTES = 1 << 28
_KEPT_SHARE = 1 / 16  # of the memory that is available


class IndexBatcher(Batcher):
    """Gathers each batch from the store; holds no more than a few batches and `budget_bytes`.

    Args:
        source: what the windows hold.
        device: where batches are made.
        prefetch_depth: batches that a loader has under way; 1 where decoded rows are kept.
        budget_bytes: on a CPU, the decoded rows of a series are kept if all of them fit in it; 0
            keeps none. 256 MiB, or a sixteenth of the available memory if that is less, if not
            given.
        rows: where rows are copied from; the memory-mapped series if not given.
    """

    def __init__(
        self,
        source: WindowSource,
        device: torch.device,
        prefetch_depth: int = 1,
        budget_bytes: int | None = None,
        rows: RowSource | None = None,
    ) -> None:
        super().__init__(source, device, prefetch_depth)
        if budget_bytes is None:
            budget_bytes = min(_KEPT_BYTES, int(_KEPT_SHARE * available_bytes()))
        self._features = RowFeatures(source)
        self._decoded: DecodedRows | None = None
        if rows is None and device.type == "cpu" and decoded_bytes(source) <= budget_bytes:
            self._decoded = DecodedRows(source, self._features)
            self.prefetch_depth = 1  # nothing is left to wait for: a thread would be in the way
        self._rows: RowSource = MappedRows(source.store) if rows is None else rows
        self._assembler: Assembler = (
            NumpyAssembler(source) if device.type == "cpu" else TorchAssembler(source, device)
        )

    def fetch(
        self,
        starts: NDArray[np.int64],
        *,
        with_targets: bool = True,
        buffers: Buffers | None = None,
        rows: RowSource | None = None,
    ) -> Fetched:
        """Copy the rows of the windows, in the stored dtype or as they were decoded."""
        self.source.check_starts(starts, with_targets=with_targets)
        if self._decoded is None:
            buffers = self._own_buffers if buffers is None else buffers
            tensors = self._stored(starts, buffers, rows or self._rows, with_targets=with_targets)
        else:
            spec = self.source.spec
            tensors = (
                torch.from_numpy(self._features.calendar(starts[:, None] + np.arange(spec.span))),
                *self._decoded.inputs(starts),
            )
            if with_targets:
                tensors += self._decoded.targets(starts + spec.input_steps)
        return Fetched(tensors=tensors, starts=starts, with_targets=with_targets)

    def assemble(self, fetched: Fetched) -> Batch:
        """Decode, standardise and mask on the compute device."""
        if self._decoded is not None:
            calendar, x, x_mask, *targets = fetched.tensors
            y, y_mask = targets if fetched.with_targets else (None, None)
            return Batch(
                x=x, x_mask=x_mask, y=y, y_mask=y_mask, calendar=calendar, starts=fetched.starts
            )
        raw, calendar, week_bins, window_calendar, window_index = (
            tensor.to(self.device, non_blocking=True) for tensor in fetched.tensors
        )
        rows = StoredRows(
            raw=raw,
            calendar=calendar,
            week_bins=week_bins,
            window_index=window_index if window_index.numel() else None,
            window_calendar=window_calendar,
        )
        return self._assembler(rows, fetched)

    def _stored(
        self,
        starts: NDArray[np.int64],
        buffers: Buffers,
        rows: RowSource,
        *,
        with_targets: bool,
    ) -> tuple[Tensor, ...]:
        """What `StoredRows` takes, on the host."""
        spec, meta = self.source.spec, self.source.store.meta
        read = rows_of(starts, spec.span if with_targets else spec.input_steps)
        raw = self._row_buffer(read.rows.size, buffers)
        rows.take(read.runs, raw.numpy())
        calendar = self._features.calendar(read.rows)
        if read.window_index is None and with_targets:
            window_calendar = calendar
        else:
            window_calendar = self._features.calendar(starts[:, None] + np.arange(spec.span))
        window_index = (
            np.empty(0, dtype=np.int64) if read.window_index is None else read.window_index
        )
        arrays = (calendar, self._features.week_bins(read.rows), window_calendar, window_index)
        return self._pinned(
            raw.view(*read.rows.shape, meta.num_nodes, meta.num_channels),
            *(torch.from_numpy(array) for array in arrays),
        )

    def _row_buffer(self, num_rows: int, buffers: Buffers) -> Tensor:
        """Memory for rows in the stored dtype, where a GPU's copies start from it at once."""
        shape = (num_rows, self._rows.num_readings)
        if self.device.type != "cuda":
            return torch.from_numpy(buffers.array("raw", shape, self._rows.dtype))
        dtype = torch.int16 if self._rows.dtype == np.int16 else torch.float32
        return torch.empty(shape, dtype=dtype, pin_memory=True)
