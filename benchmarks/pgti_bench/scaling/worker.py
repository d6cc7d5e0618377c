"""One rank of the scaling study: joins the others, then answers requests."""

import contextlib
import sys
import time
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
import torch

from pgti.batching import Batch, Batcher, BatchLoader, BatchRequest
from pgti.distributed import Communicator, SingleProcess, init_communicator
from pgti.memory.malloc import malloc_policy
from pgti.store import SeriesStore
from pgti.training.gradients import STOP_BITS
from pgti.windows import WindowSpec
from pgti_bench.devices import synchronize
from pgti_bench.scaling.options import DDP
from pgti_bench.scaling.step import DDPStep, RankStep
from pgti_bench.scaling.systems import build_system_loader
from pgti_bench.scaling.windows import window_source
from pgti_bench.worker_loop import serve

__all__ = ["RankHandlers", "main"]

_TIMEOUT_SECONDS = 120.0


class _TimedBatcher(Batcher[Any]):
    """Times the two halves of a batcher's work, and fetches nothing ahead.

    Attributes:
        fetch_seconds: of each batch.
        assemble_seconds: of each batch.
    """

    def __init__(self, batcher: Batcher[Any]) -> None:
        super().__init__(batcher.source, batcher.device)
        self.rows = batcher.rows
        self.fetch_seconds: list[float] = []
        self.assemble_seconds: list[float] = []
        self._batcher = batcher

    def fetch(self, request: BatchRequest) -> Any:
        """Fetch, timed."""
        began = time.perf_counter()
        fetched = self._batcher.fetch(request)
        self.fetch_seconds.append(time.perf_counter() - began)
        return fetched

    def assemble(self, fetched: Any) -> Batch:
        """Assemble, timed."""
        began = time.perf_counter()
        batch = self._batcher.assemble(fetched)
        self.assemble_seconds.append(time.perf_counter() - began)
        return batch


class RankHandlers:
    """What a rank may be asked for, one method per request.

    Args:
        communicator: the ranks.
        device: where this rank computes.
    """

    def __init__(self, communicator: Communicator, device: torch.device | None = None) -> None:
        self._communicator = communicator
        self._device = torch.device("cpu") if device is None else device
        self._steps: dict[str, RankStep] = {}
        self._loaders: dict[str, BatchLoader] = {}
        self._batch: Batch | None = None
        self._step: RankStep | None = None

    def prepare(
        self, *, store: str, window_steps: int, batch_size: int, hidden: int, seed: int
    ) -> dict[str, Any]:
        """Open the store and build the model."""
        spec = WindowSpec(input_steps=window_steps, horizon=window_steps)
        self._source, self._starts = window_source(SeriesStore.open(store), spec)
        self._batch_size, self._seed = batch_size, seed
        self._network: dict[str, Any] = {"hidden": hidden, "seed": seed, "device": self._device}
        self._step = RankStep(self._source, self._communicator, **self._network)
        self._alone = RankStep(self._source, SingleProcess(), **self._network)
        parameters = self._step.parameters
        is_on_cpu = self._device.type == "cpu"
        return {
            "parameters": sum(parameter.numel() for parameter in parameters),
            "gradient_bytes": sum(parameter.nbytes for parameter in parameters),
            # The count, why to stop, and on CPUs which parameters have a gradient.
            "message_bytes": 8 * (1 + STOP_BITS + is_on_cpu * len(parameters)),
            "threads": torch.get_num_threads(),
        }

    def build(self, *, system: str, place: str = "") -> dict[str, Any]:
        """Build a system's loader."""
        loader = build_system_loader(
            system,
            self._source,
            self._starts,
            self._communicator,
            batch_size=self._batch_size,
            seed=self._seed,
            place=place,
            device=self._device,
        )
        if system == DDP:
            self._steps[system] = DDPStep(self._source, self._communicator, **self._network)
            loader.batcher.gather(loader.starts[:1])  # materializes the windows
        self._loaders[system] = loader
        return {"prefetched": loader.batcher.prefetch_depth > 1}

    def steps(self, *, system: str, epoch: int, count: int) -> dict[str, Any]:
        """Begin an epoch with all ranks: one warm-up step, then the measured ones."""
        assert self._step is not None
        step = self._steps.get(system, self._step)
        loader, traffic = self._loaders[system], self._communicator.traffic
        self._communicator.barrier()
        with contextlib.closing(loader.epoch(epoch)) as batches:
            step.take(batches)
            before = traffic.sent_bytes
            times = [asdict(step.take(batches)) for _ in range(count)]
            sent = traffic.since(before)
        return {
            **{name: [each[name] for each in times] for name in times[0]},
            "sent_bytes": sent,
            "parameters_sum": step.parameters_sum(),
        }

    def compute(self, *, count: int) -> dict[str, Any]:
        """Steps on one batch, while the other ranks that were asked do the same."""
        if self._batch is None:
            plain = build_system_loader(
                "replicated",
                self._source,
                self._starts,
                self._communicator,
                batch_size=self._batch_size,
                seed=self._seed,
                device=self._device,
            )
            with contextlib.closing(plain.epoch(0)) as batches:
                self._batch = next(batches).clone()
            self._alone.take(iter([self._batch]))
        seconds, cpu_seconds = [], []
        for _ in range(count):
            began = time.process_time()
            seconds.append(self._alone.take(iter([self._batch])).compute)
            spent = time.process_time() - began
            cpu_seconds.append(spent if self._device.type == "cpu" else seconds[-1])
        return {"seconds": seconds, "cpu_seconds": cpu_seconds}

    def fetch(self, *, system: str, count: int, batch_size: int) -> dict[str, Any]:
        """Make batches one after the other without using them, on one rank alone."""
        loader = self._loaders[system]
        timed = _TimedBatcher(loader.batcher)
        alone = BatchLoader(
            timed, loader.starts, batch_size, loader.order, sharding=loader.sharding
        )
        spent = time.process_time()
        for _ in islice(alone.epoch(0), count + 1):
            pass
        spent = time.process_time() - spent
        # The first batch is a warm-up.
        return {
            "host": timed.fetch_seconds[1:] or timed.fetch_seconds,
            "assemble": timed.assemble_seconds[1:] or timed.assemble_seconds,
            "batches": len(timed.fetch_seconds),
            "seconds": sum(timed.fetch_seconds) + sum(timed.assemble_seconds),
            "cpu_seconds": spent,
        }

    def collectives(self, *, sizes: list[int], repeats: int) -> dict[str, Any]:
        """All-reduces of the given sizes in bytes, one after the other; the median time of each."""
        medians = []
        for size in sizes:
            tensor = torch.zeros(max(1, size // 4), device=self._device)
            seconds = []
            for _ in range(repeats + 2):
                self._communicator.barrier()
                began = time.perf_counter()
                self._communicator.all_reduce_(tensor, "control")
                synchronize(self._device)
                seconds.append(time.perf_counter() - began)
            medians.append(float(np.median(seconds[2:])))
        return {"seconds": medians}

    def drop(self, *, system: str) -> dict[str, Any]:
        """Drop a system's loader."""
        self._loaders.pop(system)
        return {}


def main() -> None:
    """Join the ranks given by the environment and answer requests until standard input ends."""
    torch.set_num_threads(1)
    device = torch.device(sys.argv[1], *map(int, sys.argv[2:]))  # "cpu", or "cuda" and its index
    with (
        malloc_policy("retain"),  # as training does if memory allows
        init_communicator(device, timeout_seconds=_TIMEOUT_SECONDS) as communicator,
    ):
        handlers = RankHandlers(communicator, device)
        names = ("prepare", "build", "steps", "compute", "fetch", "collectives", "drop")
        serve({name: getattr(handlers, name) for name in names})


if __name__ == "__main__":
    main()
