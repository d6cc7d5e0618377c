"""The rows of a small series as a model takes them, kept: a batch is then nothing but copies."""

from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.base import WindowSource
from pgti.batching.host import NumpyDecoder
from pgti.batching.rows import PAGE_ROWS, RowFeatures
from pgti.store.codec import Raw

__all__ = ["DecodedRows", "decoded_bytes"]


def decoded_bytes(source: WindowSource) -> int:
    """Bytes that all rows take once they are decoded: inputs, targets and their masks."""
    meta = source.store.meta
    inputs, targets = source.num_input_channels, len(source.target_indices)
    masks = meta.num_channels + targets if meta.missing_count > 0 else 0
    return meta.num_steps * meta.num_nodes * (4 * (inputs + targets) + masks)


class DecodedRows:
    """Inputs and targets of every row, a page of rows decoded when it is first asked for.

    Args:
        source: what the windows hold.
        features: the calendar of its rows.
    """

    def __init__(self, source: WindowSource, features: RowFeatures) -> None:
        meta = source.store.meta
        self._source, self._features = source, features
        self._decoder = NumpyDecoder(source)
        # Memory is taken page by page, as rows are written.
        rows, nodes, targets = meta.num_steps, meta.num_nodes, len(source.target_indices)
        self._x = np.empty((rows, nodes, source.num_input_channels), dtype=np.float32)
        self._y = np.empty((rows, nodes, targets), dtype=np.float32)
        masked = rows if self._decoder.has_missing else 0
        self._x_mask = np.empty((masked, nodes, meta.num_channels), dtype=np.bool_)
        self._y_mask = np.empty((masked, nodes, targets), dtype=np.bool_)
        spec = source.spec
        self._x_windows = _Windows(self._x, spec.input_steps)
        self._y_windows = _Windows(self._y, spec.horizon)
        self._x_mask_windows = _Windows(self._x_mask, spec.input_steps)
        self._y_mask_windows = _Windows(self._y_mask, spec.horizon)
        self._is_decoded = np.zeros(-(-meta.num_steps // PAGE_ROWS), dtype=np.bool_)
        self._is_complete = False
        self._decoding = Lock()
        self._true = torch.ones((), dtype=torch.bool)

    def inputs(self, starts: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Inputs and their mask of the L rows from each start on: [B, L, N, C_in], [B, L, N, C]."""
        return self._copies(self._x_windows, self._x_mask_windows, starts)

    def targets(self, starts: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Targets and their mask of the H rows from each start on: [B, H, N, C_out] each."""
        return self._copies(self._y_windows, self._y_mask_windows, starts)

    def _copies(
        self, values: "_Windows", mask: "_Windows", starts: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        self._decode(starts, values.num_rows)
        if self._decoder.has_missing:
            return values.copies(starts), mask.copies(starts)
        return values.copies(starts), self._true.expand(len(starts), *mask.shape)

    def _decode(self, starts: NDArray[np.int64], num_rows: int) -> None:
        """Decode the pages of these rows that are not decoded yet."""
        if self._is_complete:
            return
        pages = (starts[:, None] + np.arange(num_rows)) // PAGE_ROWS
        if self._is_decoded[pages].all():
            return
        with self._decoding:
            for page in np.unique(pages[~self._is_decoded[pages]]).tolist():
                self._decode_page(page)
                self._is_decoded[page] = True  # last: another thread may be reading
            self._is_complete = bool(self._is_decoded.all())

    def _decode_page(self, page: int) -> None:
        first = page * PAGE_ROWS
        piece = slice(first, min(first + PAGE_ROWS, len(self._x)))
        rows = np.arange(piece.start, piece.stop)[None]  # one run of rows
        raw: Raw = self._source.store.raw[piece].reshape(1, rows.size, -1)
        x_mask, y_mask = (
            kept[piece].reshape(1, rows.size, -1) if self._decoder.has_missing else None
            for kept in (self._x_mask, self._y_mask)
        )
        calendar, week_bins = self._features.calendar(rows), self._features.week_bins(rows)
        self._decoder.inputs(raw, calendar, week_bins, self._x[None, piece], x_mask)
        self._decoder.targets(raw, self._y[piece].reshape(1, rows.size, -1), y_mask)


class _Windows:
    """All windows of an array of rows, as a view with one item per window.

    A window is contiguous: as an item it is copied at once, and without torch's threads, which
    wait in turn where cores are shared.

    Args:
        rows: the rows, contiguous; they may be written later.
        num_rows: rows of a window.
    """

    def __init__(self, rows: NDArray[np.float32] | NDArray[np.bool_], num_rows: int) -> None:
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
