"""The process that makes batches with history: from the series, or from materialised windows."""

import itertools
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pgti.batching import BatchLoader, WindowConfig, WindowSource, build_batcher, build_loader
from pgti.memory import pss_bytes
from pgti.memory.malloc import malloc_policy
from pgti.store import SeriesStore
from pgti.windows import GlobalShuffle, union_rows
from pgti_bench.worker_loop import serve

__all__ = ["HistoryHandlers", "main"]

_CPU = torch.device("cpu")


class HistoryHandlers:
    """What the measuring process may ask for, one method per request."""

    def __init__(self) -> None:
        self._loader: BatchLoader | None = None
        self._windows: NDArray[np.float32] | None = None
        self._epoch = 0

    def prepare(
        self, *, store: str, history: list[str], batch_size: int, windows: str, decoded: bool
    ) -> dict[str, Any]:
        """Open the store, and the materialised windows if there is a file of them.

        Args:
            store: path.
            history: of a window.
            batch_size: windows per batch.
            windows: file of all windows, float32 [S, R + L + H, N], which is read into memory as
                the field's loaders do; empty for batches from the series.
            decoded: decode all rows once and cache them, as for a series that is small.
        """
        opened = SeriesStore.open(store)
        config = WindowConfig(history=tuple(history), calendar=(), fractions=(1.0, 0.0, 0.0))
        source = WindowSource.from_config(opened, config)
        batcher = build_batcher("index", source, _CPU, budget_bytes=1 << 40 if decoded else 0)
        starts, order = config.splits(opened).train, GlobalShuffle(0)
        self._loader = build_loader(source, starts, batch_size, order, batcher=batcher)
        if windows:
            self._windows = np.load(windows)
        return {"windows": len(starts), "pss": pss_bytes()}

    def materialize(self, *, windows: str) -> dict[str, Any]:
        """Write history, inputs and targets of every window to a file, in the order of time."""
        assert self._loader is not None
        source, starts = self._loader.batcher.source, self._loader.starts
        spec = source.spec
        rows = spec.history_steps + spec.input_steps
        file = np.lib.format.open_memmap(
            windows,
            "w+",
            np.dtype(np.float32),
            (len(starts), rows + spec.horizon, source.num_nodes),
        )
        for place, start in enumerate(starts.tolist()):
            file[place] = _whole(self._loader.batcher.gather(np.array([start])))[0]
        file.flush()
        return {"bytes": Path(windows).stat().st_size}

    def batches(self, *, count: int) -> dict[str, Any]:
        """Take `count` batches of a new epoch."""
        assert self._loader is not None
        self._epoch += 1
        began = time.perf_counter()
        if self._windows is None:
            with closing(self._loader.epoch(self._epoch)) as made:
                for batch in itertools.islice(made, count):
                    assert batch.history is not None
        else:
            for chosen in self._positions(count):
                torch.from_numpy(self._windows[chosen])
        seconds = time.perf_counter() - began
        return {"seconds": seconds / count, "bytes": self._bytes_read(count), "pss": pss_bytes()}

    def compare(self, *, count: int) -> dict[str, Any]:
        """How many of `count` batches of an epoch differ from the materialised windows."""
        assert self._loader is not None
        assert self._windows is not None
        differing = sum(
            not np.array_equal(_whole(batch), self._windows[chosen])
            for batch, chosen in zip(self._loader.epoch(1), self._positions(count, 1), strict=False)
        )
        return {"differing": differing}

    def _positions(self, count: int, epoch: int | None = None) -> list[NDArray[np.int64]]:
        assert self._loader is not None
        size = self._loader.batch_size
        number = self._epoch if epoch is None else epoch
        positions = self._loader.order.epoch(self._loader.num_windows, number)
        return [positions[first : first + size] for first in range(0, count * size, size)]

    def _bytes_read(self, count: int) -> float:
        """Bytes of the series or of windows behind a batch of this epoch, on average."""
        assert self._loader is not None
        if self._windows is not None:
            return float(self._loader.batch_size * self._windows[0].nbytes)
        source, total = self._loader.batcher.source, 0
        for chosen in self._positions(count):
            starts = self._loader.starts[chosen]
            begins = source.history_begins(starts)
            total += union_rows(starts, source.spec.history, begins).rows.size
            total += union_rows(starts, source.spec.row_offsets()).rows.size
        return total * source.stored_row_bytes / count


def _whole(batch: Any) -> NDArray[np.float32]:
    """History, inputs and targets of a batch as one array [B, R + L + H, N]."""
    parts = (batch.history[..., 0], batch.x[..., 0], batch.y[..., 0])
    whole: NDArray[np.float32] = torch.cat(parts, dim=1).numpy()
    return whole


def main() -> None:
    """Answer requests until standard input ends."""
    handlers = HistoryHandlers()
    with malloc_policy("retain"):  # as training does if memory allows
        names = ("prepare", "materialize", "batches", "compare")
        serve({name: getattr(handlers, name) for name in names})


if __name__ == "__main__":
    main()
