"""The parts of the check, each a process with a limit of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from pgti_bench.gpu_check.setting import Setting

__all__ = ["PARTS", "Part"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A part.

    Attributes:
        module: of `pgti_bench.gpu_check`, whose function `check` runs it.
        limit_seconds: after which it is ended; what it has found until then counts.
        what: it checks, in a few words.
    """

    module: str
    limit_seconds: int
    what: str

    def load(self) -> Callable[[Setting], None]:
        """The function that runs it."""
        check: Callable[[Setting], None] = import_module(
            f"pgti_bench.gpu_check.{self.module}"
        ).check
        return check


PARTS = {
    "device": Part(module="device", limit_seconds=40, what="what the device can do at most"),
    "tests": Part(module="gpu_tests", limit_seconds=90, what="the tests with the marker gpu"),
    "models": Part(module="models", limit_seconds=70, what="a step of each model as on the CPU"),
    "batches": Part(module="batches", limit_seconds=30, what="batches, bit for bit"),
    "products": Part(module="products", limit_seconds=40, what="sparse products"),
    "training": Part(module="training", limit_seconds=90, what="resuming, waits, NCCL, an epoch"),
    "reduction": Part(module="reduction", limit_seconds=40, what="gradients as of several ranks"),
    "steps": Part(module="steps", limit_seconds=110, what="time and memory of steps"),
    "loaders": Part(module="loaders", limit_seconds=50, what="batches a second"),
    "peer": Part(module="peer", limit_seconds=30, what="PyTorch Geometric Temporal's layer"),
    "compiled": Part(module="compiled", limit_seconds=90, what="compiled models"),
    "commands": Part(module="commands", limit_seconds=60, what="the command line"),
}
"""By name, in the order in which they run: what must be right first, then what is slow."""
