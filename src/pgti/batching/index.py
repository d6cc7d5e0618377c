"""Index-batching: windows gathered from the memory-mapped series when a batch is made.

The series is time-major, so a window is one contiguous run of bytes and a batch is B copies of
such runs, in the stored dtype. What follows (decode, standardise, mask) happens on the compute
device, one exactly rounded operation at a time, so that every strategy gives the same bits.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.base import Batcher, Fetched, WindowSource
from pgti.batching.batch import Batch
from pgti.series.codec import MISSING_CODE

__all__ = ["IndexBatcher"]


class IndexBatcher(Batcher):
    """Gathers each batch from the store; holds no more than a few batches."""

    def __init__(self, source: WindowSource, device: torch.device, num_slots: int = 1) -> None:
        super().__init__(source, device, num_slots)
        self._raw: list[Tensor | None] = [None] * num_slots
        self._copied: list[torch.cuda.Event | None] = [None] * num_slots
        self._assembler = _Assembler(source, device)

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
            tensors=(raw[:, :rows],),
            calendar=self.source.calendar_of(starts),
            starts=starts,
            with_targets=with_targets,
            slot=slot,
        )

    def assemble(self, fetched: Fetched) -> Batch:
        """Decode, standardise and mask on the compute device."""
        (raw,) = fetched.tensors
        on_device = raw.to(self.device, non_blocking=True)
        if self.device.type == "cuda":
            self._copied[fetched.slot] = torch.cuda.current_stream(self.device).record_event()
        return self._assembler(on_device, fetched)

    def _buffer(self, slot: int, num_windows: int) -> Tensor:
        buffer = self._raw[slot]
        if buffer is None or len(buffer) < num_windows:
            meta = self.source.store.meta
            shape = (num_windows, self.source.spec.span, meta.num_nodes, meta.num_channels)
            dtype = torch.int16 if meta.dtype == "int16" else torch.float32
            buffer = torch.empty(shape, dtype=dtype, pin_memory=self.device.type == "cuda")
            self._raw[slot] = buffer
        return buffer[:num_windows]


class _Assembler:
    """Turns stored rows into a batch, in reused buffers on the compute device."""

    def __init__(self, source: WindowSource, device: torch.device) -> None:
        self._source = source
        self._device = device
        targets = source.target_indices
        self._targets = torch.tensor(targets, device=device)
        self._all_targets = targets == tuple(range(source.store.meta.num_channels))
        divisors = source.store.codec.divisors
        self._divisors = None if divisors is None else self._per_channel(divisors)
        self._mean = self._per_channel(source.scaler.mean)
        self._std = self._per_channel(source.scaler.std)
        self._has_missing = source.store.meta.missing_count > 0
        self._true = torch.ones((), dtype=torch.bool, device=device)
        self._x: Tensor | None = None

    def __call__(self, raw: Tensor, fetched: Fetched) -> Batch:
        steps = self._source.spec.input_steps
        calendar = fetched.calendar.to(self._device, non_blocking=True)
        past = raw[:, :steps]
        x_mask = self._observed(past)
        y: Tensor | None = None
        y_mask: Tensor | None = None
        if fetched.with_targets:
            future = raw[:, steps:]
            if not self._all_targets:
                future = future.index_select(-1, self._targets)
            y_mask = self._observed(future)
            divisors = None if self._divisors is None else self._divisors[self._targets]
            y = self._filled(_decoded(future, divisors), y_mask)
        return Batch(
            x=self._inputs(past, x_mask, calendar[:, :steps]),
            x_mask=x_mask,
            y=y,
            y_mask=y_mask,
            calendar=calendar,
            starts=fetched.starts,
        )

    def _inputs(self, past: Tensor, mask: Tensor, calendar_BLF: Tensor) -> Tensor:
        x = self._x_buffer(past)
        channels = past.shape[-1]
        values = x[..., :channels]
        values.copy_(past)
        if self._divisors is not None:
            values.div_(self._divisors)
        values.sub_(self._mean).div_(self._std)
        self._filled(values, mask)
        if calendar_BLF.shape[-1]:
            x[..., channels:].copy_(calendar_BLF.unsqueeze(2).expand(-1, -1, past.shape[2], -1))
        return x

    def _x_buffer(self, past: Tensor) -> Tensor:
        if self._x is None or len(self._x) < len(past):
            shape = (*past.shape[:3], self._source.num_input_channels)
            self._x = torch.empty(shape, dtype=torch.float32, device=self._device)
        return self._x[: len(past)]

    def _observed(self, raw: Tensor) -> Tensor:
        if not self._has_missing:
            return self._true.expand(raw.shape)
        return raw.isnan().logical_not_() if raw.is_floating_point() else raw.ne(MISSING_CODE)

    def _filled(self, values: Tensor, mask: Tensor) -> Tensor:
        return values.masked_fill_(~mask, 0.0) if self._has_missing else values

    def _per_channel(self, values: tuple[float, ...] | tuple[int, ...]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)


def _decoded(raw: Tensor, divisors: Tensor | None) -> Tensor:
    """Readings in original units, a fresh float32 tensor."""
    values = raw.to(torch.float32, copy=True)
    return values if divisors is None else values.div_(divisors)
