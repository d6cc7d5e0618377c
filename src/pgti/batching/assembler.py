"""From stored rows to a batch: decode, standardise, mask, append the calendar, fill.

Each step is one exactly rounded operation, in the order in which the standard strategy applies them
to the whole series, so that every strategy gives the same bits, on every device.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.batch import Batch
from pgti.batching.covariates import Covariates
from pgti.batching.filling import Filling
from pgti.batching.history import StoredHistory, TorchHistory
from pgti.batching.source import WindowSource

__all__ = ["Assembler", "StoredRows", "TorchAssembler"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class StoredRows:
    """The rows of a batch as the store has them, on the host or on the compute device.

    They are K groups of R rows: B windows, or one group, the union of the windows' rows.

    Attributes:
        raw: stored readings [K, R, N, C].
        calendar: calendar features of each row [K, R, F].
        bins: entries of the table of typical readings for each row and, with a climatology, for H
            rows later [K, R, 2]; only the first where readings are filled, none where they are not.
        window_index: for a union, where each row of each window is in it [B, rows]; else None.
        window_calendar: calendar features of inputs and horizon [B, L + H, F].
        starts: first row of each window, int64 [B], on the host.
        with_targets: whether windows have L + H rows, or the first L.
        history: of earlier rows; None where none were asked for.
        copied: what the computation has to wait for before it reads them; None where nothing is
            being copied.
    """

    raw: Tensor
    calendar: Tensor
    bins: Tensor
    window_index: Tensor | None
    window_calendar: Tensor
    starts: NDArray[np.int64]
    with_targets: bool
    history: StoredHistory | None = None
    copied: torch.cuda.Event | None = None

    def to(self, device: torch.device) -> Self:
        """The same rows on a device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def after(self, copied: torch.cuda.Event) -> Self:
        """The same rows, which are there once that event is complete."""
        return replace(self, copied=copied)

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same rows in the tensors that a function returns for those here."""
        index, history = self.window_index, self.history
        return replace(
            self,
            raw=function(self.raw),
            calendar=function(self.calendar),
            bins=function(self.bins),
            window_index=None if index is None else function(index),
            window_calendar=function(self.window_calendar),
            history=None if history is None else history.map(function),
        )


class Assembler(ABC):
    """Turns stored rows into batches.

    Args:
        source: what the windows hold.
        device: where the rows are and the batch is made.
    """

    def __init__(self, source: WindowSource, device: torch.device) -> None:
        self._fill = Filling(source, device)
        self._covariates = Covariates(source, device)

    def __call__(self, rows: StoredRows) -> Batch:
        """Make a batch."""
        batch = self._assemble(rows)
        num_steps, index = batch.x.shape[1], rows.window_index
        bins = rows.bins if index is None else rows.bins[0][index]
        self._fill(batch.x, batch.x_mask, bins[:, :num_steps])
        horizon = None
        if rows.with_targets and self._covariates.has_known:
            if index is None:
                horizon = self._covariates.decode(rows.raw[:, num_steps:])
            else:
                values, mask = self._covariates.decode(rows.raw)
                horizon = values[0][index[:, num_steps:]], mask[0][index[:, num_steps:]]
        self._covariates.add_to(batch, horizon, bins[..., 0] if bins.shape[-1] else None)
        if rows.history is not None:
            batch.history, batch.history_mask = self._assemble_history(rows.history)
        return batch

    @abstractmethod
    def _assemble(self, rows: StoredRows) -> Batch:
        """Make a batch, with 0 for what is missing."""

    @abstractmethod
    def _assemble_history(self, history: StoredHistory) -> tuple[Tensor, Tensor]:
        """Standardised readings of history, filled, and which were observed, [B, R, N, C] each."""


class TorchAssembler(Assembler):
    """Makes batches with tensor operations, on any device; the inputs lie in a reused buffer.

    Args:
        source: what the windows hold.
        device: where the rows are and the batch is made.
    """

    def __init__(self, source: WindowSource, device: torch.device) -> None:
        super().__init__(source, device)
        self._source = source
        self._device = device
        targets = source.target_indices
        self._targets = torch.tensor(targets, device=device)
        self._all_targets = targets == tuple(range(source.store.meta.num_channels))
        self._missing_code = source.store.codec.missing_code
        self._dtype = torch.float64 if source.is_exact else torch.float32  # of readings
        divisors, offsets = source.store.codec.divisors, source.offsets
        self._divisors = None
        if divisors is not None:
            self._divisors = torch.tensor(divisors, dtype=self._dtype, device=device)
        self._offsets = None if offsets is None else torch.from_numpy(offsets).to(device)
        self._mean = self._per_channel(source.scaler.mean)
        self._std = self._per_channel(source.scaler.std)
        self._has_missing = source.store.meta.missing_count > 0
        self._true = torch.ones((), dtype=torch.bool, device=device)
        self._climatology: Tensor | None = None
        typical = source.scaled_typical()
        if source.climatology and typical is not None:
            self._climatology = torch.from_numpy(typical[..., list(targets)]).to(device)
        self._x: Tensor | None = None
        self._history = TorchHistory(source, device)

    def _assemble(self, rows: StoredRows) -> Batch:
        steps = self._source.spec.input_steps
        y: Tensor | None = None
        y_mask: Tensor | None = None
        if rows.window_index is None:
            past = rows.raw[:, :steps]
            x = self._x_buffer(past.shape)
            x_mask = self._observed(past)
            self._fill_inputs(x, past, x_mask, rows.calendar[:, :steps], rows.bins[:, :steps])
            if rows.with_targets:
                y, y_mask = self._targets_of(rows.raw[:, steps:])
        else:
            mask = self._observed(rows.raw)
            union = torch.empty(self._input_shape(rows.raw.shape), device=self._device)
            self._fill_inputs(union, rows.raw, mask, rows.calendar, rows.bins)
            past_BL, future_BH = rows.window_index[:, :steps], rows.window_index[:, steps:]
            x = self._x_buffer((*past_BL.shape, *rows.raw.shape[2:]))
            torch.index_select(union[0], 0, past_BL.flatten(), out=x.flatten(0, 1))
            x_mask = self._gather_windows(mask, past_BL)
            if rows.with_targets:
                values, mask = self._targets_of(rows.raw)
                y, y_mask = (
                    self._gather_windows(values, future_BH),
                    self._gather_windows(mask, future_BH),
                )
        return Batch(
            x=x,
            x_mask=x_mask,
            y=y,
            y_mask=y_mask,
            calendar=rows.window_calendar,
            starts=rows.starts,
        )

    def _fill_inputs(
        self, x: Tensor, raw: Tensor, mask: Tensor, calendar: Tensor, bins: Tensor
    ) -> None:
        nodes, channels = raw.shape[2:]
        values = x[..., :channels]
        self._standardise(values, raw)
        self._filled(values, mask)
        if self._source.observed_mask:
            x[..., channels : 2 * channels].copy_(mask)
            channels *= 2
        if self._climatology is not None:
            width = self._climatology.shape[-1]
            for position in range(2):
                entries = self._climatology[bins[..., position]]
                x[..., channels : channels + width].copy_(entries)
                channels += width
        if calendar.shape[-1]:
            x[..., channels:].copy_(calendar.unsqueeze(2).expand(-1, -1, nodes, -1))

    def _standardise(self, values: Tensor, raw: Tensor) -> None:
        """Write stored readings as standardised float32, whatever for those that are missing."""
        if self._dtype == torch.float32:
            values.copy_(raw)
            if self._divisors is not None:
                values.div_(self._divisors)
        else:
            readings = self._decode(raw, self._divisors)
            values.copy_(readings if self._offsets is None else readings.sub_(self._offsets))
        values.sub_(self._mean).div_(self._std)

    def _assemble_history(self, history: StoredHistory) -> tuple[Tensor, Tensor]:
        return self._history(history, self._standardise, self._observed)

    def _targets_of(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Target readings in original units and which of them were observed: [K, R, N, C_out]."""
        if not self._all_targets:
            raw = raw.index_select(-1, self._targets)
        mask = self._observed(raw)
        divisors = None if self._divisors is None else self._divisors[self._targets]
        return self._filled(self._decode(raw, divisors), mask), mask

    def _decode(self, raw: Tensor, divisors: Tensor | None) -> Tensor:
        """Readings in original units, a new tensor."""
        values = raw.to(self._dtype, copy=True)
        return values if divisors is None else values.div_(divisors)

    def _gather_windows(self, rows: Tensor, window_index: Tensor) -> Tensor:
        """The windows [B, rows, N, C] of a union [1, U, N, C]."""
        if rows.dtype == torch.bool and not self._has_missing:
            return self._true.expand(*window_index.shape, *rows.shape[2:])
        windows = rows[0].index_select(0, window_index.flatten())
        return windows.view(*window_index.shape, *rows.shape[2:])

    def _input_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:3], self._source.num_input_channels)

    def _x_buffer(self, shape: tuple[int, ...]) -> Tensor:
        if self._x is None or len(self._x) < shape[0]:
            shape = self._input_shape(shape)
            self._x = torch.empty(shape, dtype=torch.float32, device=self._device)
        return self._x[: shape[0]]

    def _observed(self, raw: Tensor) -> Tensor:
        if not self._has_missing:
            return self._true.expand(raw.shape)
        code = self._missing_code
        return raw.isnan().logical_not_() if code is None else raw.ne(code)

    def _filled(self, values: Tensor, mask: Tensor) -> Tensor:
        return values.masked_fill_(~mask, 0.0) if self._has_missing else values

    def _per_channel(self, values: tuple[float, ...] | tuple[int, ...]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)
