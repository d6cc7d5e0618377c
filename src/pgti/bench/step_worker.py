"""The process that takes our training steps, or runs their products alone."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from pgti.bench.devices import most_memory
from pgti.bench.own_step import OwnStep, StepSpec
from pgti.bench.products import StepProducts
from pgti.bench.results import to_json
from pgti.bench.serving import serve
from pgti.graph import SensorGraph
from pgti.memory.malloc import malloc_policy

__all__ = ["StepHandlers", "main"]


class StepHandlers:
    """What the measuring process may ask for, one method a request."""

    def __init__(self, allocator: ExitStack) -> None:
        self._allocator = allocator
        self._step: OwnStep | None = None
        self._products: StepProducts | None = None
        self._device = torch.device("cpu")

    def prepare(
        self, *, graph: str, spec: dict[str, Any], device: str, keep_freed: bool
    ) -> dict[str, Any]:
        """Build the network and the batch; keep freed memory, as training does with room for it."""
        self._device = torch.device(device)
        self._allocator.enter_context(malloc_policy("retain" if keep_freed else "default"))
        self._step = OwnStep(SensorGraph.load(Path(graph)), StepSpec(**spec), self._device)
        return {"parameters": self._step.num_parameters, "threads": torch.get_num_threads()}

    def step(self) -> dict[str, Any]:
        """Take one optimiser step."""
        assert self._step is not None
        return {"seconds": self._step.seconds()}

    def record(self) -> dict[str, Any]:
        """Take one step, keep its products and forget everything else."""
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
        """The most memory so far."""
        return {"bytes": most_memory(self._device)}


def main() -> None:
    """Answer requests until standard input ends."""
    with ExitStack() as allocator:
        handlers = StepHandlers(allocator)
        serve(
            {
                "prepare": handlers.prepare,
                "step": handlers.step,
                "record": handlers.record,
                "products": handlers.products,
                "peak": handlers.peak,
            }
        )


if __name__ == "__main__":
    main()
