"""Index-batching: windows gathered from the memory-mapped series when a batch is made.

The series is time-major, so a window is one contiguous run of bytes and a batch is B copies of
such runs, in the stored dtype; `Assembler` makes a batch of them on the compute device.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.assemble import Assembler
from pgti.batching.base import Batcher, Fetched, WindowSource
from pgti.batching.batch import Batch

__all__ = ["IndexBatcher"]


class IndexBatcher(Batcher):
    """Gathers each batch from the store; holds no more than a few batches."""

    def __init__(self, source: WindowSource, device: torch.device, num_slots: int = 1) -> None:
        super().__init__(source, device, num_slots)
        self._raw: list[Tensor | None] = [None] * num_slots
        self._copied: list[torch.cuda.Event | None] = [None] * num_slots
        self._assembler = Assembler(source, device)

    def fetch(
        self, starts: NDArray[np.int64], *, with_targets: bool = True, slot: int = 0
    ) -> Fetched:
        """Copy the windows' rows, in the stored dtype: [B, L + H, N, C]."""
        self.source.check_starts(starts, with_targets=with_targets)
        copied = self._copied[slot]
        if copied is not None:  # the device may still be reading this pinned buffer
            copied.synchronize()
        raw = self._buffer(slot, len(starts))
        destination = raw.numpy()
        series = self.source.store.raw
        rows = self.source.spec.span if with_targets else self.source.spec.input_steps
        for position, start in enumerate(starts.tolist()):
            destination[position, :rows] = series[start : start + rows]
        return Fetched(
            tensors=(
                raw[:, :rows],
                self.source.calendar_of(starts),
                self.source.profile_slots_of(starts),
            ),
            starts=starts,
            with_targets=with_targets,
            slot=slot,
        )

    def assemble(self, fetched: Fetched) -> Batch:
        """Decode, standardise and mask on the compute device."""
        raw, calendar, slots = (
            tensor.to(self.device, non_blocking=True) for tensor in fetched.tensors
        )
        if self.device.type == "cuda":
            self._copied[fetched.slot] = torch.cuda.current_stream(self.device).record_event()
        return self._assembler(raw, calendar, slots, fetched)

    def _buffer(self, slot: int, num_windows: int) -> Tensor:
        buffer = self._raw[slot]
        if buffer is None or len(buffer) < num_windows:
            meta = self.source.store.meta
            shape = (num_windows, self.source.spec.span, meta.num_nodes, meta.num_channels)
            dtype = torch.int16 if meta.dtype == "int16" else torch.float32
            buffer = torch.empty(shape, dtype=dtype, pin_memory=self.device.type == "cuda")
            self._raw[slot] = buffer
        return buffer[:num_windows]
