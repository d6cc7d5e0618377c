"""The rows of a small series as a model takes them, kept: a batch is then nothing but copies."""

from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.base import WindowSource
from pgti.batching.buffers import Buffers, take_rows
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

    def inputs(self, rows: NDArray[np.int64], buffers: Buffers) -> tuple[Tensor, Tensor]:
        """Inputs of the rows [B, L] and their mask, [B, L, N, C_in] and [B, L, N, C].

        They are valid until the buffers are used again.
        """
        self._decode(rows)
        return (
            self._taken("x", self._x, rows, buffers),
            self._mask_of("x mask", self._x_mask, rows, buffers),
        )

    def targets(self, rows: NDArray[np.int64], buffers: Buffers) -> tuple[Tensor, Tensor]:
        """Targets of the rows [B, H] and their mask, [B, H, N, C_out] each.

        They are valid until the buffers are used again.
        """
        self._decode(rows)
        return (
            self._taken("y", self._y, rows, buffers),
            self._mask_of("y mask", self._y_mask, rows, buffers),
        )

    def _mask_of(
        self, name: str, mask: NDArray[np.bool_], rows: NDArray[np.int64], buffers: Buffers
    ) -> Tensor:
        if self._decoder.has_missing:
            return self._taken(name, mask, rows, buffers)
        return self._true.expand(*rows.shape, *mask.shape[1:])

    def _taken(
        self,
        name: str,
        kept: NDArray[np.float32] | NDArray[np.bool_],
        rows: NDArray[np.int64],
        buffers: Buffers,
    ) -> Tensor:
        windows = buffers.array(name, (rows.size, *kept.shape[1:]), kept.dtype)
        take_rows(kept, rows, windows)
        return torch.from_numpy(windows).view(*rows.shape, *kept.shape[1:])

    def _decode(self, rows: NDArray[np.int64]) -> None:
        """Decode the pages of these rows that are not decoded yet."""
        if self._is_complete:
            return
        pages = rows // PAGE_ROWS
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
