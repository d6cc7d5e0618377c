"""The process that takes pgti's training steps, or runs their products alone."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from pgti.graph import SensorGraph
from pgti.memory.malloc import malloc_policy
from pgti.run.results import to_json
from pgti_bench.devices import peak_memory_bytes
from pgti_bench.step.network import RandomBatchStep, StepSpec
from pgti_bench.step.products import StepProducts
from pgti_bench.worker_loop import serve

__all__ = ["StepHandlers", "main"]


class StepHandlers:
    """What the measuring process may ask for, one method per request.

    Args:
        allocator: restores malloc's policy at the end.
    """

    def __init__(self, allocator: ExitStack) -> None:
        self._allocator = allocator
        self._step: RandomBatchStep | None = None
        self._products: StepProducts | None = None
        self._device = torch.device("cpu")

    def prepare(
        self, *, graph: str, spec: dict[str, Any], device: str, retain_freed: bool
    ) -> dict[str, Any]:
        """Build the network and the batch; let malloc retain freed memory, as training does."""
        self._device = torch.device(device)
        self._allocator.enter_context(malloc_policy("retain" if retain_freed else "default"))
        self._step = RandomBatchStep(SensorGraph.load(Path(graph)), StepSpec(**spec), self._device)
        return {"parameters": self._step.num_parameters, "threads": torch.get_num_threads()}

    def step(self) -> dict[str, Any]:
        """Take one optimizer step."""
        assert self._step is not None
        return {"seconds": self._step.seconds()}

    def record(self) -> dict[str, Any]:
        """Take one step, keep its products and drop everything else."""
        assert self._step is not None
        self._products = StepProducts.record(self._step.take)
        self._step = None
        return {"count": to_json(self._products.count)}

    def products(self, *, kind: str) -> dict[str, Any]:
        """Run the products of one kind alone: dense or sparse."""
        assert self._products is not None
        products = self._products
        seconds = products.sparse_seconds() if kind == "sparse" else products.dense_seconds()
        return {"seconds": seconds}

    def peak(self) -> dict[str, Any]:
        """Peak memory so far."""
        return {"bytes": peak_memory_bytes(self._device)}


def main() -> None:
    """Answer requests until standard input ends."""
    with ExitStack() as allocator:
        handlers = StepHandlers(allocator)
        names = ("prepare", "step", "record", "products", "peak")
        serve({name: getattr(handlers, name) for name in names})


if __name__ == "__main__":
    main()
