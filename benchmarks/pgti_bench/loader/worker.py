"""The process that makes pgti's batches, or copies memory for comparison."""

import contextlib
import itertools
import time
from collections.abc import Generator
from typing import Any

import torch

from pgti.batching import Batch, BatchLoader, WindowSource, build_loader
from pgti.memory.malloc import malloc_policy
from pgti.store import Scaler, SeriesStore, default_calendar
from pgti.windows import BlockShuffle, GlobalShuffle, WindowSpec, split_by_fractions
from pgti_bench.devices import peak_memory_bytes, synchronize
from pgti_bench.paper_datasets import SPLIT_FRACTIONS
from pgti_bench.worker_loop import serve

__all__ = ["LoaderHandlers", "batch_bytes", "main"]


class LoaderHandlers:
    """What the measuring process may ask for, one method per request."""

    def __init__(self) -> None:
        self._device = torch.device("cpu")
        self._loader: BatchLoader | None = None
        self._prefetch = True
        self._epoch = 0
        self._source = self._copy = torch.empty(0)

    def prepare(
        self,
        *,
        store: str,
        batching: str,
        block_size: int,
        prefetch: bool,
        steps: int,
        batch_size: int,
        device: str,
    ) -> dict[str, Any]:
        """Open the store and prepare to make batches of its training windows.

        Args:
            store: path.
            batching: index, device or standard.
            block_size: windows per block of the block-shuffled order; 1 shuffles all windows.
            prefetch: fetch ahead in a thread, as training does.
            steps: input steps, and equally many forecast steps.
            batch_size: windows per batch.
            device: where batches are made.
        """
        self._device, self._prefetch = torch.device(device), prefetch
        opened = SeriesStore.open(store)
        spec = WindowSpec(input_steps=steps, horizon=steps)
        splits = split_by_fractions(opened.meta.num_steps, spec, SPLIT_FRACTIONS)
        source = WindowSource(
            store=opened,
            spec=spec,
            scaler=Scaler.fit(opened, splits.train_rows(spec)),
            target_indices=tuple(range(opened.meta.num_channels)),
            calendar=default_calendar(opened.time_axis),
        )
        self._loader = build_loader(
            source,
            splits.train,
            batch_size,
            GlobalShuffle(0) if block_size == 1 else BlockShuffle(0, block_size),
            device=self._device,
            batching=batching,
        )
        first = batch_bytes(next(self._loader.epoch(0)))
        return {
            "batches": self._loader.num_batches,
            "batch_bytes": first,
            "threads": torch.get_num_threads(),
        }

    def batches(self, *, count: int) -> dict[str, Any]:
        """Take `count` batches of a new epoch."""
        assert self._loader is not None
        self._epoch += 1
        num_windows = num_bytes = 0
        synchronize(self._device)
        began = time.perf_counter()
        with contextlib.closing(self._batches(self._loader)) as made:
            for batch in itertools.islice(made, count):
                num_windows += batch.num_windows
                num_bytes += batch_bytes(batch)
            synchronize(self._device)
            seconds = time.perf_counter() - began  # closing waits for the prefetching threads
        return {"seconds": seconds, "windows": num_windows, "bytes": num_bytes}

    def _batches(self, loader: BatchLoader) -> Generator[Batch]:
        """Batches of a new epoch."""
        if self._prefetch:
            yield from loader.epoch(self._epoch)
            return
        positions = loader.order.epoch(loader.num_windows, self._epoch)
        for first in range(0, loader.num_windows, loader.batch_size):
            chosen = positions[first : first + loader.batch_size]
            yield loader.batcher.gather(loader.starts[chosen])

    def prepare_copies(self, *, source_bytes: int, batch_bytes: int) -> dict[str, Any]:
        """Allocate a source and a destination of these sizes."""
        size = max(1, batch_bytes // 4)
        self._source = torch.ones(max(1, source_bytes // (4 * size)), size)
        self._copy = torch.ones(size)
        return {"threads": torch.get_num_threads()}

    def copies(self, *, count: int) -> dict[str, Any]:
        """Copy `count` batches' worth of bytes, each from another place to the same place."""
        began = time.perf_counter()
        for number in range(count):
            self._copy.copy_(self._source[number % len(self._source)])
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "windows": 0, "bytes": count * self._copy.nbytes}

    def peak(self) -> dict[str, Any]:
        """Peak memory so far."""
        return {"bytes": peak_memory_bytes(self._device)}


def batch_bytes(batch: Batch) -> int:
    """Bytes of a batch's inputs and targets; its masks, which other loaders lack, are left out."""
    return batch.x.nbytes + (0 if batch.y is None else batch.y.nbytes)


def main() -> None:
    """Answer requests until standard input ends."""
    handlers = LoaderHandlers()
    with malloc_policy("retain"):  # as training does if memory allows
        serve(
            {
                name: getattr(handlers, name)
                for name in ("prepare", "batches", "prepare_copies", "copies", "peak")
            }
        )


if __name__ == "__main__":
    main()
