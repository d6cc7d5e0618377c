"""The rows of a small series as a model takes them, kept: a batch is then nothing but copies."""

from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.base import WindowSource
from pgti.batching.host import HostDecoder
from pgti.batching.rows import PAGE_ROWS, RowFeatures
from pgti.series.codec import Raw

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
        self._decoder = HostDecoder(source)
        # Memory is taken page by page, as rows are written.
        rows, nodes, targets = meta.num_steps, meta.num_nodes, len(source.target_indices)
        self._x = np.empty((rows, nodes, source.num_input_channels), dtype=np.float32)
        self._y = np.empty((rows, nodes, targets), dtype=np.float32)
        masked = rows if self._decoder.has_missing else 0
        self._x_mask = np.empty((masked, nodes, meta.num_channels), dtype=np.bool_)
        self._y_mask = np.empty((masked, nodes, targets), dtype=np.bool_)
        self._is_decoded = np.zeros(-(-meta.num_steps // PAGE_ROWS), dtype=np.bool_)
        self._is_complete = False
        self._decoding = Lock()
        self._true = torch.ones((), dtype=torch.bool)

    def inputs(self, starts: NDArray[np.int64], num_rows: int) -> tuple[Tensor, Tensor]:
        """Inputs of R rows from each start on and their mask, [B, R, N, C_in] and [B, R, N, C]."""
        return self._taken(self._x, self._x_mask, starts, num_rows)

    def targets(self, starts: NDArray[np.int64], num_rows: int) -> tuple[Tensor, Tensor]:
        """Targets of R rows from each start on and their mask, [B, R, N, C_out] each."""
        return self._taken(self._y, self._y_mask, starts, num_rows)

    def _taken(
        self,
        values: NDArray[np.float32],
        mask: NDArray[np.bool_],
        starts: NDArray[np.int64],
        num_rows: int,
    ) -> tuple[Tensor, Tensor]:
        self._decode(starts, num_rows)
        windows = _windows(values, starts, num_rows)
        if self._decoder.has_missing:
            return windows, _windows(mask, starts, num_rows)
        return windows, self._true.expand(len(starts), num_rows, *mask.shape[1:])

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
        calendar, slots = self._features.calendar(rows), self._features.slots(rows)
        self._decoder.inputs(raw, calendar, slots, self._x[None, piece], x_mask)
        self._decoder.targets(raw, self._y[piece].reshape(1, rows.size, -1), y_mask)


def _windows(
    rows: NDArray[np.float32] | NDArray[np.bool_], starts: NDArray[np.int64], num_rows: int
) -> Tensor:
    """Copies of `num_rows` rows from each start on."""
    # A window is contiguous: as one item of a view with an item per window, it is copied at once,
    # and without torch's threads, which wait in turn where cores are shared.
    every = np.ndarray(
        (len(rows) - num_rows + 1,),
        dtype=np.dtype((np.void, num_rows * rows.strides[0])),
        buffer=rows,
        strides=rows.strides[:1],
    )
    windows = every[starts].view(rows.dtype)
    return torch.from_numpy(windows.reshape(len(starts), num_rows, *rows.shape[1:]))
