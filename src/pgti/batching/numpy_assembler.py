"""Batches assembled on the CPU, a cache-sized piece at a time, in reused buffers.

The operations are those of `TorchAssembler`, in the same order and with the same rounding. They
are numpy's, which are faster on one core than torch's for the mixed types and strides in use here;
a piece of a batch goes through all of them before the next piece is read.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from pgti.batching.assembler import Assembler, StoredRows
from pgti.batching.batch import Batch
from pgti.batching.history import NumpyHistory, StoredHistory
from pgti.batching.rows import ScratchArrays, copy_row_ranges
from pgti.batching.source import WindowSource
from pgti.store.codec import Raw, Values

__all__ = ["PIECE_READINGS", "NumpyAssembler", "NumpyDecoder"]

PIECE_READINGS = 1 << 16
"""A piece's codes, values and masks stay in a core's cache; numpy's calls cost little beside it."""

_Piece = tuple[slice, slice]


class NumpyDecoder:
    """Turns groups of stored rows into model inputs and targets.

    Args:
        source: what the windows hold.
        piece_readings: readings that are decoded at a time.
    """

    def __init__(self, source: WindowSource, piece_readings: int = PIECE_READINGS) -> None:
        meta = source.store.meta
        self._piece_readings = piece_readings
        self.num_nodes, self.num_channels = source.num_nodes, meta.num_channels
        self.num_inputs, self.num_targets = source.num_input_channels, len(source.target_indices)
        self.has_missing = meta.missing_count > 0
        self._targets = source.target_indices
        self._all_targets = self._targets == tuple(range(meta.num_channels))
        codec, offsets = source.store.codec, source.offsets
        divisors, self._missing_code = codec.divisors, codec.missing_code
        self.reading_dtype = np.dtype(np.float64 if source.is_exact else np.float32)
        self._divisors: Values | None = None
        self._target_divisors: Values | None = None
        if divisors is not None:
            of_targets = [divisors[index] for index in self._targets]
            self._divisors = self._per_reading(divisors, self.reading_dtype)
            self._target_divisors = self._per_reading(of_targets, self.reading_dtype)
        self._offsets = None if offsets is None else offsets.ravel()
        self._mean = self._per_reading(source.scaler.mean)
        self._std = self._per_reading(source.scaler.std)
        typical = source.scaled_typical()
        self._climatology = (
            typical[..., list(self._targets)]
            if source.climatology and typical is not None
            else None
        )
        self._observed_mask = source.observed_mask
        self._scratch = ScratchArrays()

    def inputs(
        self,
        raw: Raw,
        calendar: NDArray[np.float32],
        bins: NDArray[np.int64],
        x: NDArray[np.float32],
        mask: NDArray[np.bool_] | None,
    ) -> None:
        """Write the inputs of rows and which of their readings were observed.

        Args:
            raw: stored readings of K groups of R rows [K, R, N * C].
            calendar: calendar features of the rows [K, R, F].
            bins: entries of the table of typical readings, as in `StoredRows`.
            x: written, [K, R, N, C_in], contiguous.
            mask: written, [K, R, N * C], contiguous; None where no reading of the series misses.
        """
        for piece in _pieces(raw.shape, self._piece_readings):
            codes, part = raw[piece], x[piece]
            if self.num_inputs == self.num_channels:
                values = part.reshape(codes.shape)
            else:
                values = self._scratch.array("values", codes.shape, np.float32)
            observed = None if mask is None else mask[piece]
            self.readings(codes, values, observed)
            if self.num_inputs != self.num_channels:
                readings = values.reshape(*part.shape[:3], self.num_channels)
                for channel in range(self.num_channels):
                    part[..., channel] = readings[..., channel]
                self._append(part, calendar[piece], bins[piece], observed)

    def readings(
        self, codes: Raw, values: NDArray[np.float32], observed: NDArray[np.bool_] | None
    ) -> None:
        """Write standardised readings, 0 where missing, and which of them were observed.

        Args:
            codes: stored readings of a piece [..., N * C].
            values: written, of the same shape.
            observed: likewise; None where none is missing.
        """
        if self.reading_dtype == np.float32:
            self._decode(codes, self._divisors, values, observed)
        else:
            readings = self._scratch.array("readings", codes.shape, np.float64)
            self._decode(codes, self._divisors, readings, observed)
            if self._offsets is not None:
                readings -= self._offsets
            np.copyto(values, readings, casting="same_kind")
        values -= self._mean
        values /= self._std
        _zero_missing(values, observed)

    def targets(self, raw: Raw, y: Values, mask: NDArray[np.bool_] | None) -> None:
        """Write the targets of rows in original units and which of them were observed.

        Args:
            raw: stored readings of K groups of R rows [K, R, N * C].
            y: written, of `reading_dtype` [K, R, N * C_out], contiguous.
            mask: written, of the shape of `y`; None where no reading of the series misses.
        """
        for piece in _pieces(raw.shape, self._piece_readings):
            codes, values = raw[piece], y[piece]
            if not self._all_targets:
                codes = self._target_codes(codes)
            observed = None if mask is None else mask[piece]
            self._decode(codes, self._target_divisors, values, observed)
            _zero_missing(values, observed)

    def _append(
        self,
        x: NDArray[np.float32],
        calendar: NDArray[np.float32],
        bins: NDArray[np.int64],
        observed: NDArray[np.bool_] | None,
    ) -> None:
        """Write mask, climatology and calendar into the channels after the readings."""
        channel = self.num_channels
        if self._observed_mask:
            mask = None if observed is None else observed.reshape(*x.shape[:3], channel)
            for position in range(channel):
                x[..., channel + position] = 1 if mask is None else mask[..., position]
            channel *= 2
        if self._climatology is not None:
            for position in range(2):
                typical = self._climatology[bins[..., position]]
                x[..., channel : channel + typical.shape[-1]] = typical
                channel += typical.shape[-1]
        for feature in range(calendar.shape[-1]):
            x[..., channel + feature] = calendar[..., None, feature]

    def _target_codes(self, raw: Raw) -> Raw:
        every = raw.reshape(*raw.shape[:2], self.num_nodes, self.num_channels)
        shape = (*every.shape[:3], self.num_targets)
        chosen: Raw = self._scratch.array("target codes", shape, raw.dtype)
        for position, channel in enumerate(self._targets):
            chosen[..., position] = every[..., channel]
        return chosen.reshape(*raw.shape[:2], -1)

    def _decode(
        self,
        codes: Raw,
        divisors: Values | None,
        values: Values,
        observed: NDArray[np.bool_] | None,
    ) -> None:
        """Write readings in original units and, where asked for, which of them were observed."""
        np.copyto(values, codes)
        if divisors is not None:
            values /= divisors
        if observed is None:
            return
        if self._missing_code is None:
            np.equal(codes, codes, out=observed)  # NaN is the number that differs from itself
        else:
            np.not_equal(codes, codes.dtype.type(self._missing_code), out=observed)

    def _per_reading(
        self, values: Sequence[float], dtype: DTypeLike = np.float32
    ) -> NDArray[np.floating[Any]]:
        """One value per channel as one per reading of a row [N * C]; only one where C is 1."""
        per_channel = np.asarray(values, dtype=dtype)
        return per_channel if len(per_channel) == 1 else np.tile(per_channel, self.num_nodes)


class NumpyAssembler(Assembler):
    """Turns stored rows into batches on the CPU; all tensors of a batch lie in reused buffers.

    Args:
        source: what the windows hold.
        piece_readings: readings that are decoded at a time.
    """

    def __init__(self, source: WindowSource, piece_readings: int = PIECE_READINGS) -> None:
        super().__init__(source, torch.device("cpu"))
        self._steps = source.spec.input_steps
        self._decoder = NumpyDecoder(source, piece_readings)
        self._scratch = ScratchArrays()
        self._true = torch.ones((), dtype=torch.bool)
        self._history = NumpyHistory(source, self._decoder, piece_readings)

    def _assemble(self, rows: StoredRows) -> Batch:
        raw: Raw = rows.raw.numpy().reshape(*rows.raw.shape[:2], -1)
        calendar, bins = rows.calendar.numpy(), rows.bins.numpy()
        past, future = slice(self._steps), slice(self._steps, None)
        y: Tensor | None = None
        y_mask: Tensor | None = None
        if rows.window_index is None:
            x, x_mask = self._inputs("x", raw[:, past], calendar[:, past], bins[:, past])
            if rows.with_targets:
                y, y_mask = self._targets("y", raw[:, future])
        else:
            window_index = rows.window_index.numpy()
            union, mask = self._inputs("union x", raw, calendar, bins)
            x, x_mask = self._gather_windows("x", union, mask, window_index[:, past])
            if rows.with_targets:
                union, mask = self._targets("union y", raw)
                y, y_mask = self._gather_windows("y", union, mask, window_index[:, future])
        return Batch(
            x=x,
            x_mask=x_mask,
            y=y,
            y_mask=y_mask,
            calendar=rows.window_calendar,
            starts=rows.starts,
        )

    def _assemble_history(self, history: StoredHistory) -> tuple[Tensor, Tensor]:
        return self._history(history)

    def _inputs(
        self, name: str, raw: Raw, calendar: NDArray[np.float32], bins: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """Inputs [K, R, N, C_in] and which readings were observed [K, R, N, C]."""
        decoder = self._decoder
        rows = (*raw.shape[:2], decoder.num_nodes)
        x = self._scratch.array(name, (*rows, decoder.num_inputs), np.float32)
        mask = self._mask_array(name, raw.shape)
        decoder.inputs(raw, calendar, bins, x, mask)
        return torch.from_numpy(x), self._mask(mask, (*rows, decoder.num_channels))

    def _targets(self, name: str, raw: Raw) -> tuple[Tensor, Tensor]:
        """Targets and which were observed, [K, R, N, C_out] each."""
        decoder = self._decoder
        shape = (*raw.shape[:2], decoder.num_nodes, decoder.num_targets)
        y = self._scratch.array(name, (*shape[:2], shape[2] * shape[3]), decoder.reading_dtype)
        mask = self._mask_array(name, y.shape)
        decoder.targets(raw, y, mask)
        return torch.from_numpy(y).view(shape), self._mask(mask, shape)

    def _gather_windows(
        self, name: str, values: Tensor, mask: Tensor, window_index: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """The windows [B, rows, N, C] of a union [1, U, N, C], and those of its mask."""
        windows = self._windows(name, values[0].numpy(), window_index)
        if not self._decoder.has_missing:
            return windows, self._true.expand(*window_index.shape, *mask.shape[2:])
        return windows, self._windows(f"{name} mask", mask[0].numpy(), window_index)

    def _windows(self, name: str, rows: NDArray[Any], window_index: NDArray[np.int64]) -> Tensor:
        windows = self._scratch.array(name, (window_index.size, *rows.shape[1:]), rows.dtype)
        firsts, num_rows = window_index[:, 0].tolist(), window_index.shape[1]
        copy_row_ranges(rows, [(first, first + num_rows) for first in firsts], windows)
        return torch.from_numpy(windows).view(*window_index.shape, *rows.shape[1:])

    def _mask_array(self, name: str, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
        if not self._decoder.has_missing:
            return None
        return self._scratch.array(f"{name} mask", shape, np.bool_)

    def _mask(self, mask: NDArray[np.bool_] | None, shape: tuple[int, ...]) -> Tensor:
        return self._true.expand(shape) if mask is None else torch.from_numpy(mask).view(shape)


def _pieces(shape: tuple[int, ...], piece_readings: int) -> Iterator[_Piece]:
    """Slices of groups and rows that cut [K, R, readings] into pieces that fit a core's cache."""
    groups, rows, readings = shape
    num_rows = max(1, piece_readings // max(1, readings))
    if num_rows < rows:
        for group in range(groups):
            for first in range(0, rows, num_rows):
                yield slice(group, group + 1), slice(first, first + num_rows)
    else:
        num_groups = max(1, num_rows // max(1, rows))
        for first in range(0, groups, num_groups):
            yield slice(first, first + num_groups), slice(0, rows)


def _zero_missing(values: Values, observed: NDArray[np.bool_] | None) -> None:
    """Turn values that were not observed into +0.0."""
    if observed is not None and not observed.all():
        # As integers: NaN * 0 would stay NaN, and a negative number * 0 would be -0.0.
        bits: NDArray[Any] = values.view(np.int32 if values.itemsize == 4 else np.int64)
        bits *= observed
