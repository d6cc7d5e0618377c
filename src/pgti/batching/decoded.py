"""A small series whose rows are decoded once and cached: a batch is then nothing but copies."""

from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.batch import Batch
from pgti.batching.batcher import Batcher, BatchRequest
from pgti.batching.covariates import Covariates
from pgti.batching.filling import Filling
from pgti.batching.history import observed_rows, typical_rows
from pgti.batching.numpy_assembler import PIECE_READINGS, NumpyDecoder
from pgti.batching.rows import PAGE_ROWS, RowFeatures
from pgti.batching.source import WindowSource
from pgti.store.codec import Raw, Values

__all__ = ["DecodedBatcher", "decoded_bytes"]


def decoded_bytes(source: WindowSource) -> int:
    """Bytes that all rows take once they are decoded: inputs, targets, masks, and history."""
    meta = source.store.meta
    row_bytes = source.input_row_bytes + source.target_row_bytes
    if not meta.missing_count:  # without masks
        row_bytes -= source.num_nodes * (meta.num_channels + len(source.target_indices))
    if _has_own_readings(source):
        row_bytes += 4 * source.num_nodes * meta.num_channels
    return meta.num_steps * row_bytes


def _has_own_readings(source: WindowSource) -> bool:
    """Whether the readings of history are another array than the inputs of the same rows."""
    is_filled = source.fills_history and source.store.meta.missing_count > 0
    has_more = source.num_input_channels > source.store.meta.num_channels
    return bool(source.spec.history) and (is_filled or has_more)


class DecodedBatcher(Batcher[Batch]):
    """Copies windows from decoded inputs and targets, on the CPU.

    A page of rows is decoded when one of them is first asked for. There is nothing to wait for, so
    a loader prefetches nothing: its threads would be in the way.

    Args:
        source: what the windows hold.
        page_rows: rows of a page.
        piece_readings: readings that are decoded at a time.
    """

    def __init__(
        self,
        source: WindowSource,
        page_rows: int = PAGE_ROWS,
        piece_readings: int = PIECE_READINGS,
    ) -> None:
        super().__init__(source, torch.device("cpu"))
        meta = source.store.meta
        self._page_rows = page_rows
        self._features = RowFeatures(source, page_rows)
        self._decoder = NumpyDecoder(source, piece_readings)
        self._fill = Filling(source, self.device)
        self._covariates = Covariates(source, self.device)
        # The system takes memory page by page, as rows are written.
        rows, nodes, targets = meta.num_steps, source.num_nodes, len(source.target_indices)
        self._x = np.empty((rows, nodes, source.num_input_channels), dtype=np.float32)
        self._y = np.empty((rows, nodes, targets), dtype=self._decoder.reading_dtype)
        masked = rows if self._decoder.has_missing else 0
        self._x_mask = np.empty((masked, nodes, meta.num_channels), dtype=np.bool_)
        self._y_mask = np.empty((masked, nodes, targets), dtype=np.bool_)
        self._typical = typical_rows(source)
        self._readings = self._x
        if _has_own_readings(source):
            self._readings = np.empty((rows, nodes, meta.num_channels), dtype=np.float32)
        spec = source.spec
        self._x_windows = _Windows(self._x, spec.input_steps)
        self._y_windows = _Windows(self._y, spec.horizon)
        self._x_mask_windows = _Windows(self._x_mask, spec.input_steps)
        self._y_mask_windows = _Windows(self._y_mask, spec.horizon)
        self._is_decoded = np.zeros(-(-meta.num_steps // page_rows), dtype=np.bool_)
        self._is_complete = False
        self._decoding = Lock()
        self._true = torch.ones((), dtype=torch.bool)

    def fetch(self, request: BatchRequest) -> Batch:
        """Copy the windows."""
        starts, spec = request.starts, self.source.spec
        self.source.check_starts(starts, with_targets=request.with_targets)
        calendar = self._features.calendar(
            starts[:, None] + np.arange(spec.extent.start, spec.extent.stop)
        )
        x, x_mask = self._copies(self._x_windows, self._x_mask_windows, starts)
        has_horizon = request.with_targets and self._covariates.has_known
        rows = starts[:, None] + np.arange(spec.span if has_horizon else spec.input_steps)
        bins = torch.from_numpy(self._features.bins(rows))
        self._fill(x, x_mask, bins[:, : spec.input_steps])
        y: Tensor | None = None
        y_mask: Tensor | None = None
        if request.with_targets:
            firsts = starts + spec.input_steps
            y, y_mask = self._copies(self._y_windows, self._y_mask_windows, firsts)
        batch = Batch(
            x=x,
            x_mask=x_mask,
            y=y,
            y_mask=y_mask,
            calendar=torch.from_numpy(calendar),
            starts=starts,
        )
        horizon = None
        if has_horizon:
            horizon = self._horizon(rows[:, spec.input_steps :])
        self._covariates.add_to(batch, horizon, bins[..., 0] if bins.shape[-1] else None)
        if spec.history:
            batch.history, batch.history_mask = self._history(request)
        return batch

    def _history(self, request: BatchRequest) -> tuple[Tensor, Tensor]:
        """Readings of earlier rows and which were observed, copied range by range."""
        starts, spec, scratch = request.starts, self.source.spec, request.scratch
        begins = self.source.history_begins(starts)
        rows = starts[:, None] + spec.history_offsets
        is_there = rows >= begins[:, None]
        self._decode_rows(np.where(is_there, rows, starts[:, None]))
        shape = (*rows.shape, *self._readings.shape[1:])
        values = scratch.array("history", shape, np.float32)
        mask: NDArray[np.bool_] | None = None
        if self._decoder.has_missing:
            mask = scratch.array("history mask", shape, np.bool_)
        for window, (start, begin) in enumerate(zip(starts.tolist(), begins.tolist(), strict=True)):
            position = 0
            for each in spec.history:
                first = max(start + each.start, begin)
                stop = max(start + each.stop, first)
                position += len(each)
                into = slice(position - (stop - first), position)
                np.copyto(values[window, into], self._readings[first:stop])
                if mask is not None:
                    np.copyto(mask[window, into], self._x_mask[first:stop])
        if not is_there.all():
            bins = self._features.history_bins(rows, begins)
            values[~is_there] = self._stand_in(None if bins is None else bins[~is_there])
            if mask is not None:
                mask[~is_there] = False
        if mask is None:
            return torch.from_numpy(values), observed_rows(torch.from_numpy(is_there), shape)
        return torch.from_numpy(values), torch.from_numpy(mask)

    def _stand_in(self, bins: NDArray[np.int64] | None) -> NDArray[np.float32] | float:
        """What stands for missing rows of history, [rows, N, C]."""
        if self._typical is None or bins is None:
            return 0.0
        return self._typical[bins].reshape(-1, *self._readings.shape[1:])

    def _horizon(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Values known in advance of decoded rows [B, H], and where they are known."""
        known = list(self.source.known_indices)
        values = torch.from_numpy(self._x[rows][..., known])
        if not self._decoder.has_missing:
            return values, self._true.expand(values.shape)
        return values, torch.from_numpy(self._x_mask[rows][..., known])

    def assemble(self, fetched: Batch) -> Batch:
        """The batch itself."""
        return fetched

    def _copies(
        self, values: "_Windows", mask: "_Windows", starts: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        self._decode_rows(starts[:, None] + np.arange(values.num_rows))
        if self._decoder.has_missing:
            return values.copies(starts), mask.copies(starts)
        return values.copies(starts), self._true.expand(len(starts), *mask.shape)

    def _decode_rows(self, rows: NDArray[np.int64]) -> None:
        """Decode the pages of these rows that are not decoded yet."""
        if self._is_complete:
            return
        pages = rows // self._page_rows
        if self._is_decoded[pages].all():
            return
        with self._decoding:
            for page in np.unique(pages[~self._is_decoded[pages]]).tolist():
                self._decode_page(page)
                self._is_decoded[page] = True  # last: another thread may be reading
            self._is_complete = bool(self._is_decoded.all())

    def _decode_page(self, page: int) -> None:
        first = page * self._page_rows
        piece = slice(first, min(first + self._page_rows, len(self._x)))
        rows = np.arange(piece.start, piece.stop)[None]  # one group of rows
        raw: Raw = self.source.raw_rows(piece).reshape(1, rows.size, -1)
        x_mask, y_mask = (
            mask[piece].reshape(1, rows.size, -1) if self._decoder.has_missing else None
            for mask in (self._x_mask, self._y_mask)
        )
        calendar, bins = self._features.calendar(rows), self._features.bins(rows)
        self._decoder.inputs(raw, calendar, bins, self._x[None, piece], x_mask)
        self._decoder.targets(raw, self._y[piece].reshape(1, rows.size, -1), y_mask)
        if self._readings is not self._x:
            self._decode_history(piece)

    def _decode_history(self, piece: slice) -> None:
        """Write the readings of history of a page: those of its inputs, filled."""
        rows = np.arange(piece.start, piece.stop)
        readings = self._readings[piece]
        readings[...] = self._x[piece, :, : readings.shape[-1]]
        bins = self._features.history_bins(rows[None], np.zeros(1, dtype=np.int64))
        if self._decoder.has_missing and self._typical is not None and bins is not None:
            for row, each in enumerate(bins[0].tolist()):
                usual = self._typical[each].reshape(readings.shape[1:])
                np.copyto(readings[row], usual, where=~self._x_mask[piece.start + row])


class _Windows:
    """All windows of an array of rows, as a view with one item per window.

    A window is contiguous: as an item it is copied at once, and without torch's threads, which
    wait in turn where cores are shared.

    Args:
        rows: the rows, contiguous; they may be written later.
        num_rows: rows of a window.
    """

    def __init__(self, rows: Values | NDArray[np.bool_], num_rows: int) -> None:
        self.num_rows = num_rows
        self.shape = (num_rows, *rows.shape[1:])
        self._dtype = rows.dtype
        self._every = np.ndarray(
            (max(0, len(rows) - num_rows + 1),),
            dtype=np.dtype((np.void, num_rows * rows.strides[0])),
            buffer=rows,
            strides=rows.strides[:1],
        )

    def copies(self, starts: NDArray[np.int64]) -> Tensor:
        """The windows with these first rows, [B, *shape]."""
        windows = self._every[starts].view(self._dtype)
        return torch.from_numpy(windows.reshape(len(starts), *self.shape))
