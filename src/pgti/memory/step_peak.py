"""Peak memory of a training step, measured by trying one."""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["LiveBytes", "is_allocation_failure", "step_peak_bytes"]

_ALLOCATION_FAILURES = (
    "can't allocate memory",
    "not enough memory",
    "Storage size calculation overflowed",
)
"""Messages of the plain RuntimeError that torch raises when the CPU runs out of memory."""


def is_allocation_failure(error: RuntimeError) -> bool:
    """Whether torch raised it because a CPU or a GPU ran out of memory."""
    is_memory = isinstance(error, torch.OutOfMemoryError)
    return is_memory or any(text in str(error) for text in _ALLOCATION_FAILURES)


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch does not annotate it
    """Counts the bytes of the tensors created in a `with` block, while they are alive.

    It does not see what an operator allocates inside, nor what its library caches.

    Args:
        limit_bytes: raise a MemoryError once more is alive; None sets no limit.

    Attributes:
        alive_bytes: of the storages that are alive.
        peak_bytes: the most that were.
    """

    supports_higher_order_operators = True

    def __init__(self, limit_bytes: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # nor this
        self.alive_bytes: int = 0
        self.peak_bytes: int = 0
        self._limit_bytes = limit_bytes
        self._alive: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the operator and count what it created."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        # An operator may return a tensor that it was given and wrote to.
        old = {storage.data_ptr() for storage in _storages((*args, *kwargs.values()))}
        for storage in _storages((result,)):
            if storage.data_ptr() not in old:
                self._count(storage)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        address = storage.data_ptr()
        if address in self._alive or not storage.nbytes():
            return
        self._alive.add(address)
        self.alive_bytes += storage.nbytes()
        self.peak_bytes = max(self.peak_bytes, self.alive_bytes)
        weakref.finalize(storage, self._forget, address, storage.nbytes())
        if self._limit_bytes is not None and self.alive_bytes > self._limit_bytes:
            raise MemoryError(f"more than {self._limit_bytes} bytes are alive")

    def _forget(self, address: int, num_bytes: int) -> None:
        self._alive.discard(address)
        self.alive_bytes -= num_bytes


def _storages(values: Iterable[object]) -> Iterator[torch.UntypedStorage]:
    """Storages of the dense tensors among the values and in their lists."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from _storages(value)
        elif isinstance(value, Tensor) and value.layout == torch.strided:
            yield value.untyped_storage()


def step_peak_bytes(
    differentiate: Callable[[], object],
    network: nn.Module,
    device: torch.device,
    limit_bytes: int,
) -> int | None:
    """Peak memory of one forward and backward pass, gradients of the parameters included.

    Parameters, buffers and torch's generators are unchanged afterwards; gradients are dropped.

    Args:
        differentiate: runs the network on a batch, forward and backward.
        network: the network that it runs, in training mode.
        device: where it runs.
        limit_bytes: stop once it takes more than this.

    Returns:
        The bytes, or None if they exceed the limit.
    """
    with _restored(network, device):
        try:
            if device.type == "cuda":
                before = torch.cuda.memory_allocated(device)
                torch.cuda.reset_peak_memory_stats(device)
                differentiate()
                peak: int = torch.cuda.max_memory_allocated(device) - before
                return peak if peak <= limit_bytes else None
            with LiveBytes(limit_bytes) as memory:
                differentiate()
        except MemoryError:
            return None
        except RuntimeError as error:
            if not is_allocation_failure(error):
                raise
            return None
    return int(memory.peak_bytes)


@contextmanager
def _restored(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Drop gradients afterwards, and restore buffers (running means) and generators.

    A buffer may be written to, or be replaced by another tensor.
    """
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in network.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            network.zero_grad(set_to_none=True)
            with torch.no_grad():
                for module, name, buffer, before in buffers:
                    setattr(module, name, buffer.copy_(before))
