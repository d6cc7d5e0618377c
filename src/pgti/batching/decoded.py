"""The rows of a small series as a model takes them, kept: a batch is then nothing but copies."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.base import WindowSource
from pgti.batching.host import Buffers, HostDecoder, take_rows
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
        readings = meta.num_nodes * meta.num_channels
        targets = meta.num_nodes * len(source.target_indices)
        inputs = meta.num_nodes * source.num_input_channels
        self._x = np.empty((meta.num_steps, inputs), dtype=np.float32)
        self._y = np.empty((meta.num_steps, targets), dtype=np.float32)
        masked_rows = meta.num_steps if self._decoder.has_missing else 0
        self._x_mask = np.empty((masked_rows, readings), dtype=np.bool_)
        self._y_mask = np.empty((masked_rows, targets), dtype=np.bool_)
        self._is_decoded = np.zeros(-(-meta.num_steps // PAGE_ROWS), dtype=np.bool_)
        self._true = torch.ones((), dtype=torch.bool)

    def inputs(self, rows: NDArray[np.int64], buffers: Buffers) -> tuple[Tensor, Tensor]:
        """Inputs of the rows and their mask, [B, L, N, C_in] and [B, L, N, C]."""
        self._decode(rows)
        return self._taken("x", self._x, rows, buffers), self._mask_of(
            "x mask", self._x_mask, rows, buffers
        )

    def targets(self, rows: NDArray[np.int64], buffers: Buffers) -> tuple[Tensor, Tensor]:
        """Targets of the rows and their mask, [B, H, N, C_out] each."""
        self._decode(rows)
        return self._taken("y", self._y, rows, buffers), self._mask_of(
            "y mask", self._y_mask, rows, buffers
        )

    def _mask_of(
        self, name: str, mask: NDArray[np.bool_], rows: NDArray[np.int64], buffers: Buffers
    ) -> Tensor:
        if self._decoder.has_missing:
            return self._taken(name, mask, rows, buffers)
        return self._true.expand(*rows.shape, self._decoder.num_nodes, self._channels(mask))

    def _taken(
        self,
        name: str,
        kept: NDArray[np.float32] | NDArray[np.bool_],
        rows: NDArray[np.int64],
        buffers: Buffers,
    ) -> Tensor:
        windows = buffers.array(name, (rows.size, kept.shape[1]), kept.dtype)
        take_rows(kept, rows, windows)
        shape = (*rows.shape, self._decoder.num_nodes, self._channels(kept))
        return torch.from_numpy(windows).view(shape)

    def _channels(self, kept: NDArray[np.float32] | NDArray[np.bool_]) -> int:
        return int(kept.shape[1]) // self._decoder.num_nodes

    def _decode(self, rows: NDArray[np.int64]) -> None:
        pages = rows // PAGE_ROWS
        if self._is_decoded[pages].all():
            return
        decoder = self._decoder
        for page in np.unique(pages[~self._is_decoded[pages]]).tolist():
            first = page * PAGE_ROWS
            piece = slice(first, min(first + PAGE_ROWS, len(self._x)))
            numbers = np.arange(piece.start, piece.stop)[None]
            raw: Raw = self._source.store.raw[piece].reshape(1, len(numbers[0]), -1)
            x = self._x[piece].reshape(1, -1, decoder.num_nodes, decoder.num_inputs)
            x_mask, y_mask = (
                kept[None, piece] if decoder.has_missing else None
                for kept in (self._x_mask, self._y_mask)
            )
            calendar, slots = self._features.calendar(numbers), self._features.slots(numbers)
            decoder.inputs(raw, calendar, slots, x, x_mask)
            decoder.targets(raw, self._y[None, piece], y_mask)
            self._is_decoded[page] = True
