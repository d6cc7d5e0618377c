"""One rank of the scaling study: joins the others, then answers requests."""

import contextlib
import time
from collections.abc import Generator
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pgti.batching import Batch, BatchLoader, BatchRequest
from pgti.batching.rows import ScratchArrays
from pgti.bench.scaling_step import RankStep, clone_of
from pgti.bench.scaling_systems import build_loader, study_source
from pgti.bench.serving import serve
from pgti.distributed import Communicator, init_communicator
from pgti.memory.malloc import malloc_policy
from pgti.store import SeriesStore
from pgti.windows import WindowSpec

__all__ = ["RankHandlers", "main"]

_TIMEOUT_SECONDS = 120.0


class RankHandlers:
    """What a rank may be asked for, one method a request.

    Args:
        communicator: the ranks.
    """

    def __init__(self, communicator: Communicator) -> None:
        self._communicator = communicator
        self._loaders: dict[str, BatchLoader] = {}
        self._batch: Batch | None = None
        self._step: RankStep | None = None

    def prepare(
        self, *, store: str, window_steps: int, batch_size: int, hidden: int, seed: int
    ) -> dict[str, Any]:
        """Open the store and build the model."""
        spec = WindowSpec(input_steps=window_steps, horizon=window_steps)
        self._source, self._starts = study_source(SeriesStore.open(store), spec)
        self._batch_size, self._seed = batch_size, seed
        self._step = RankStep(self._source, self._communicator, hidden=hidden, seed=seed)
        self._alone = RankStep(self._source, self._communicator, hidden=hidden, seed=seed)
        return {
            "parameters": self._step.num_parameters,
            "gradient_bytes": self._step.gradient_bytes,
            "control_bytes": self._step.control_bytes,
            "threads": torch.get_num_threads(),
        }

    def build(self, *, system: str, place: str = "") -> dict[str, Any]:
        """Build a system's loader."""
        loader = build_loader(
            system,
            self._source,
            self._starts,
            self._communicator,
            batch_size=self._batch_size,
            seed=self._seed,
            place=place,
        )
        self._loaders[system] = loader
        return {"prefetched": loader.batcher.prefetch_depth > 1}

    def steps(self, *, system: str, epoch: int, count: int) -> dict[str, Any]:
        """Begin an epoch with all ranks; one step that does not count, then those that do."""
        assert self._step is not None
        loader, traffic = self._loaders[system], self._communicator.traffic
        batches = loader.epoch(epoch)
        self._communicator.barrier()
        with contextlib.closing(_generator(batches)):
            self._step.take(batches)
            before = traffic.sent_bytes
            times = [asdict(self._step.take(batches)) for _ in range(count)]
            sent = traffic.since(before)
        return {
            **{name: [each[name] for each in times] for name in times[0]},
            "sent_bytes": sent,
            "parameters_sum": self._step.parameters_sum(),
        }

    def compute(self, *, count: int) -> dict[str, Any]:
        """Steps on one batch, while those ranks that are asked as well do the same."""
        if self._batch is None:
            plain = build_loader(
                "replicated",
                self._source,
                self._starts,
                self._communicator,
                batch_size=self._batch_size,
                seed=self._seed,
            )
            batches = _generator(plain.epoch(0))
            with contextlib.closing(batches):
                self._batch = clone_of(next(batches))
            self._alone.compute(self._batch)
        steps = [self._alone.compute(self._batch) for _ in range(count)]
        return {"seconds": [step[0] for step in steps], "cpu_seconds": [step[1] for step in steps]}

    def fetch(self, *, system: str, count: int, batch_size: int) -> dict[str, Any]:
        """Batches made one after the other and not used: of one rank alone."""
        loader = self._loaders[system]
        batcher, sharding, epoch = loader.batcher, loader.sharding, 0
        batcher.rows.begin_epoch(epoch)
        positions = loader.order.epoch(loader.num_windows, epoch)
        host, assemble, scratch = [], [], ScratchArrays()
        spent = time.process_time()
        for first in islice(range(0, loader.num_windows, batch_size), count + 1):
            batch = positions[first : first + batch_size]

            def starts_of(rank: int, batch: NDArray[np.int64] = batch) -> NDArray[np.int64]:
                return loader.starts[sharding.shard(rank, batch, loader.num_windows, epoch)]

            began = time.perf_counter()
            reader = batcher.rows.announce_batch(starts_of)
            fetched = batcher.fetch(
                BatchRequest(starts=starts_of(sharding.rank), scratch=scratch, reader=reader)
            )
            middle = time.perf_counter()
            batcher.assemble(fetched)
            host.append(middle - began)
            assemble.append(time.perf_counter() - middle)
        spent = time.process_time() - spent
        # The first one warms up.
        return {
            "host": host[1:] or host,
            "assemble": assemble[1:] or assemble,
            "batches": len(host),
            "seconds": sum(host) + sum(assemble),
            "cpu_seconds": spent,
        }

    def collectives(self, *, sizes: list[int], repeats: int) -> dict[str, Any]:
        """All-reduces of so many bytes, one after the other: the median of each size."""
        medians = []
        for size in sizes:
            tensor = torch.zeros(max(1, size // 4))
            seconds = []
            for _ in range(repeats + 2):
                self._communicator.barrier()
                began = time.perf_counter()
                self._communicator.all_reduce_(tensor, "control")
                seconds.append(time.perf_counter() - began)
            medians.append(float(np.median(seconds[2:])))
        return {"seconds": medians}

    def drop(self, *, system: str) -> dict[str, Any]:
        """Forget a system's loader."""
        self._loaders.pop(system)
        return {}


def _generator(batches: object) -> Generator[Batch]:
    """What a loader's epoch is, so that leaving early ends its threads."""
    assert isinstance(batches, Generator)
    return batches


def main() -> None:
    """Join the ranks that the environment names, and answer requests until standard input ends."""
    torch.set_num_threads(1)
    with (
        malloc_policy("retain"),  # as training does where there is room
        init_communicator(timeout_seconds=_TIMEOUT_SECONDS) as communicator,
    ):
        handlers = RankHandlers(communicator)
        names = ("prepare", "build", "steps", "compute", "fetch", "collectives", "drop")
        serve({name: getattr(handlers, name) for name in names})


if __name__ == "__main__":
    main()
