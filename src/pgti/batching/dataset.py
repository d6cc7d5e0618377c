"""Windows as a map-style dataset, for anybody's `torch.utils.data.DataLoader`."""

import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pgti.batching.batcher import Batcher
from pgti.batching.build import build_batcher
from pgti.batching.source import WindowSource
from pgti.errors import ConfigError

__all__ = ["Sample", "WindowDataset"]

Sample = tuple[Tensor, Tensor, Tensor]


class WindowDataset(Dataset[Sample]):
    """Windows of a store, gathered on demand.

    A sample is (x, y, y_mask): inputs float32 [L, N, C + F], targets float32 [H, N, C_out] in
    original units and their mask, as in `Batch`. `__getitems__` gathers a whole batch at once, and
    a worker process is sent the store's path, never its data.

    Args:
        source: what the windows hold.
        starts: window starts: a range or int64 [S].
    """

    def __init__(self, source: WindowSource, starts: range | NDArray[np.int64]) -> None:
        self.source = source
        self.starts = np.asarray(starts, dtype=np.int64)
        source.check_starts(self.starts, with_targets=True)
        self._own = _Own()

    def __getstate__(self) -> dict[str, object]:
        """Everything but the buffers: another process makes its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_own"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, _own=_Own())

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Sample:
        """The sample at position `index` of the starts."""
        (sample,) = self.__getitems__([index])
        return sample

    def __getitems__(self, indices: list[int]) -> list[Sample]:
        """The samples at several positions, with one gather for all of them."""
        batcher = self._own.batcher
        if batcher is None:
            # Worker processes keep no decoded rows: there may be many of them.
            batcher = self._own.batcher = build_batcher(
                "index", self.source, torch.device("cpu"), budget_bytes=0
            )
        batch = batcher.gather(self.starts[np.asarray(indices, dtype=np.int64)])
        if batch.y is None or batch.y_mask is None:
            raise ConfigError("a dataset's windows have targets")
        # What a batch holds lies in the batcher's buffers.
        mine = (tensor.clone() for tensor in (batch.x, batch.y, batch.y_mask))
        return list(zip(*mine, strict=True))


class _Own(threading.local):
    """The batcher of one thread of one process: its buffers are written at each call."""

    batcher: Batcher[Any] | None = None
