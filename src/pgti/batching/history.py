"""The history of a batch: readings of earlier rows, decoded like inputs, a piece at a time.

Where rows lie before the series begins, or behind a hole in its times, nothing is read. What stands
for them is what is typical of their sensor at their time, as for any other missing reading.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.copies import to_device
from pgti.batching.rows import ScratchArrays, bins_before
from pgti.batching.source import WindowSource
from pgti.store.codec import Raw

if TYPE_CHECKING:
    from pgti.batching.numpy_assembler import NumpyDecoder

__all__ = [
    "NumpyHistory",
    "ResidentHistory",
    "StoredHistory",
    "TorchHistory",
    "observed_rows",
    "typical_rows",
]

_DEVICE_READINGS = 1 << 22
"""Readings that a device decodes at a time: what is temporary stays small beside a history."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class StoredHistory:
    """The history of B windows as the store has it, on the host or on the compute device.

    Attributes:
        raw: stored readings of rows [U, N, C], at least one; windows share them.
        places: where each row of each history is in `raw`, int64 [B, R]; 0 for one that is not.
        is_there: which rows are, bool [B, R]: not the first ones, if they lie before the series
            begins or behind a hole in its times.
        bins: entries of the table of typical readings, int64 [B, R]; None if nothing is filled.
        num_missing: rows of each history that are not there, on the host.
    """

    raw: Tensor
    places: Tensor
    is_there: Tensor
    bins: Tensor | None
    num_missing: list[int]

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same history in the tensors that a function returns for those here."""
        return replace(
            self,
            raw=function(self.raw),
            places=function(self.places),
            is_there=function(self.is_there),
            bins=None if self.bins is None else function(self.bins),
        )


class ResidentHistory:
    """Finds the history of windows among rows on the compute device, without the host.

    Args:
        source: what the windows hold.
        device: where the rows are.
    """

    def __init__(self, source: WindowSource, device: torch.device) -> None:
        self._offsets = to_device(source.spec.history_offsets, device)
        self._begins = to_device(_begins(source), device)
        self._before: Tensor | None = None
        if source.fills_history:
            before = [bins_before(source, begin) for begin in _begins(source).tolist()]
            self._before = to_device(np.stack(before), device)

    @staticmethod
    def num_bytes(source: WindowSource) -> int:
        """Bytes of the times before the rows that lack them."""
        return 8 * len(_begins(source)) * -source.spec.reach.start * source.fills_history

    def find(self, starts_B: Tensor, bins_T: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Rows of history, which of them are there, and their entries of the typical readings.

        Args:
            starts_B: first row of each window, int64 [B].
            bins_T: entries of the table of typical readings for every row of the series.

        Returns:
            int64, bool and int64 [B, R]; a row that is not there is the window's first. None where
            nothing is filled.
        """
        numbers = torch.searchsorted(self._begins, starts_B, right=True) - 1
        begins = self._begins[numbers].unsqueeze(1)
        wanted = starts_B.unsqueeze(1) + self._offsets
        is_there = wanted >= begins
        rows = torch.where(is_there, wanted, starts_B.unsqueeze(1))
        if self._before is None:
            return rows, is_there, None
        reach = self._before.shape[1]
        earlier = (wanted - begins + reach).clamp_(max=reach - 1)
        before = self._before[numbers.unsqueeze(1), earlier]
        return rows, is_there, torch.where(is_there, bins_T[rows], before)


def _begins(source: WindowSource) -> NDArray[np.int64]:
    """Rows before which a history cannot reach: the first of the series, and those after holes."""
    holes = np.empty(0, dtype=np.int64) if source.across_holes else source.store.time_axis.holes
    return np.append(0, holes + 1)


class NumpyHistory:
    """Decodes histories on the CPU, in pieces that fit a core's cache, into a reused buffer.

    Args:
        source: what the windows hold.
        decoder: of its readings.
        piece_readings: readings that are decoded at a time.
    """

    def __init__(self, source: WindowSource, decoder: "NumpyDecoder", piece_readings: int) -> None:
        self._decoder, self._scratch = decoder, ScratchArrays()
        self._nodes, self._channels = source.num_nodes, source.store.meta.num_channels
        self._piece_rows = max(1, piece_readings // (self._nodes * self._channels))
        self._typical = typical_rows(source)

    def __call__(self, history: StoredHistory) -> tuple[Tensor, Tensor]:
        """Readings, standardised and filled, and which were observed, [B, R, N, C] each."""
        windows, steps = history.places.shape
        shape = (windows, steps, self._nodes * self._channels)
        raw: Raw = history.raw.numpy().reshape(len(history.raw), -1)
        places = history.places.numpy()
        bins = None if history.bins is None else history.bins.numpy()
        values = self._scratch.array("values", shape, np.float32)
        mask: NDArray[np.bool_] | None = None
        if self._decoder.has_missing:
            mask = self._scratch.array("mask", shape, np.bool_)
        earlier, begin = 0, steps  # nothing is decoded yet
        # In the order of time: what the window before has is copied, and only the others decoded.
        for window in np.argsort(places[:, -1], kind="stable").tolist():
            missing, own = history.num_missing[window], places[window]
            own_bins = None if bins is None else bins[window]
            for rows in self._pieces(0, missing):
                self._stand_in(values[window, rows], own_bins, rows)
                if mask is not None:
                    mask[window, rows] = False
            for first, stop, place in _shared(places[earlier, begin:], own[missing:]):
                whole = slice(missing + first, missing + stop)
                if place is not None:
                    of = slice(begin + place, begin + place + stop - first)
                    values[window, whole] = values[earlier, of]
                    if mask is not None:
                        mask[window, whole] = mask[earlier, of]
                    continue
                for rows in self._pieces(whole.start, whole.stop):
                    observed = None if mask is None else mask[window, rows]
                    self._decoder.readings(
                        self._codes(raw, own[rows]), values[window, rows], observed
                    )
                    self._fill(values[window, rows], observed, own_bins, rows)
            earlier, begin = window, missing
        sizes = (windows, steps, self._nodes, self._channels)
        readings = torch.from_numpy(values).view(sizes)
        if mask is None:
            return readings, observed_rows(history.is_there, sizes)
        return readings, torch.from_numpy(mask).view(sizes)

    def _pieces(self, first: int, stop: int) -> Iterator[slice]:
        for begin in range(first, stop, self._piece_rows):
            yield slice(begin, min(begin + self._piece_rows, stop))

    def _codes(self, raw: Raw, places: NDArray[np.int64]) -> Raw:
        """Rows of a piece; as they lie there, if they lie one after the other."""
        if places[-1] - places[0] == len(places) - 1 and (np.diff(places) == 1).all():
            return raw[places[0] : places[-1] + 1]
        codes: Raw = self._scratch.array("codes", (len(places), raw.shape[1]), raw.dtype)
        np.take(raw, places, axis=0, out=codes, mode="clip")
        return codes

    def _fill(
        self,
        values: NDArray[np.float32],
        observed: NDArray[np.bool_] | None,
        bins: NDArray[np.int64] | None,
        rows: slice,
    ) -> None:
        """Write what is typical in place of missing readings, which are +0.0."""
        if observed is None or self._typical is None or observed.all():
            return
        usual = self._scratch.array("usual", observed.shape, np.float32)
        self._stand_in(usual, bins, rows)
        missing = self._scratch.array("missing", observed.shape, np.bool_)
        np.logical_not(observed, out=missing)
        # As integers: a copy where something is missing branches at each reading.
        bits = usual.view(np.int32)
        bits *= missing
        into = values.view(np.int32)
        into |= bits

    def _stand_in(
        self, values: NDArray[np.float32], bins: NDArray[np.int64] | None, rows: slice
    ) -> None:
        """Write what stands for rows that are not there."""
        if self._typical is None or bins is None:
            values[...] = 0
        else:
            np.take(self._typical, bins[rows], axis=0, out=values, mode="clip")


def _shared(
    earlier: NDArray[np.int64], own: NDArray[np.int64]
) -> list[tuple[int, int, int | None]]:
    """Segments of a window's places, and where each begins among those of another; None if not.

    >>> _shared(np.array([3, 4, 5, 9]), np.array([4, 5, 6, 9]))
    [(0, 2, 1), (2, 3, None), (3, 4, 3)]
    """
    if not len(own):
        return []
    if not len(earlier):
        return [(0, len(own), None)]
    at = np.minimum(np.searchsorted(earlier, own), len(earlier) - 1)
    same = earlier[at] == own
    ends = (same[1:] != same[:-1]) | (same[1:] & (np.diff(at) != 1))
    bounds = [0, *(np.flatnonzero(ends) + 1).tolist(), len(own)]
    return [
        (first, stop, int(at[first]) if same[first] else None) for first, stop in pairwise(bounds)
    ]


class TorchHistory:
    """Decodes histories with tensor operations, on any device, into a reused buffer.

    Args:
        source: what the windows hold.
        device: where they are.
    """

    def __init__(self, source: WindowSource, device: torch.device) -> None:
        self._has_missing = source.store.meta.missing_count > 0
        readings = source.num_nodes * source.store.meta.num_channels
        self._piece_rows = max(1, _DEVICE_READINGS // readings)
        typical = typical_rows(source)
        self._typical: Tensor | None = None
        if typical is not None:
            shape = (len(typical), source.num_nodes, source.store.meta.num_channels)
            self._typical = torch.from_numpy(typical).view(shape).to(device)
        self._values: Tensor | None = None

    def __call__(
        self,
        history: StoredHistory,
        standardise: Callable[[Tensor, Tensor], None],
        observed: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Readings, standardised and filled, and which were observed, [B, R, N, C] each.

        Args:
            history: on the device.
            standardise: writes into its first argument the standardised readings of its second,
                stored ones.
            observed: which of stored readings were observed.
        """
        shape = (*history.places.shape, *history.raw.shape[1:])
        values = self._buffer(history, shape)
        mask = history.raw.new_empty(shape, dtype=torch.bool) if self._has_missing else None
        some_are_not_there = any(history.num_missing)
        flat = values.flatten(0, 1)
        places, is_there = history.places.flatten(), history.is_there.flatten()
        bins = None if history.bins is None else history.bins.flatten()
        for first in range(0, len(flat), self._piece_rows):
            rows = slice(first, first + self._piece_rows)
            codes = history.raw.index_select(0, places[rows])
            standardise(flat[rows], codes)
            if mask is None and not some_are_not_there:
                continue
            seen = is_there[rows, None, None]
            if mask is not None:
                seen = torch.logical_and(observed(codes), seen, out=mask.flatten(0, 1)[rows])
            stand_in = None if bins is None or self._typical is None else self._typical[bins[rows]]
            flat[rows] = torch.where(seen, flat[rows], 0.0 if stand_in is None else stand_in)
        return values, observed_rows(history.is_there, shape) if mask is None else mask

    def _buffer(self, history: StoredHistory, shape: tuple[int, ...]) -> Tensor:
        if self._values is None or len(self._values) < shape[0]:
            self._values = history.raw.new_empty(shape, dtype=torch.float32)
        return self._values[: shape[0]]


def typical_rows(source: WindowSource) -> NDArray[np.float32] | None:
    """Standardised typical readings that stand for missing ones, [bins, N * C]; None for 0."""
    table = source.scaled_typical() if source.fills_history else None
    return None if table is None else table.reshape(len(table), -1)


def observed_rows(is_there: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The mask of a complete series: that of its rows [B, R], for every reading [B, R, N, C]."""
    return is_there[:, :, None, None].expand(shape)
