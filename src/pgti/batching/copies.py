"""Copies from the host to a GPU for which neither waits: pinned memory, a stream and events.

Rows are fetched into pinned memory, a ring of which the loader reuses. They are copied on a stream
of their own, a batch ahead, while the GPU computes. Three waits keep that right: the stream of the
computation waits for the copy before it reads the rows; memory on the GPU is given to another
tensor only after the computation has read it; pinned memory is written again only after the copy.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from pgti.batching.rows import ScratchArrays

if TYPE_CHECKING:
    from pgti.batching.assembler import StoredRows

__all__ = ["CopyStream", "PinnedArrays", "to_device"]


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array on a device; the host does not wait for a GPU.

    Torch caches the pinned memory, and reuses it once the copy from it is done.
    """
    tensor = torch.from_numpy(array)
    return _copy(tensor.pin_memory() if device.type == "cuda" and array.size else tensor, device)


class PinnedArrays(ScratchArrays):
    """Scratch arrays in pinned memory, from which a GPU copies while the host continues.

    Attributes:
        copied: recorded after the last copy from them; None where there is none to wait for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.copied: torch.cuda.Event | None = None

    def place(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        """A copy of the array in pinned memory."""
        placed = self.array(name, array.shape, array.dtype)
        np.copyto(placed, array)
        return placed

    def wait(self) -> None:
        """Block until the last copy from the arrays is done, if it is not."""
        copied = self.copied
        if copied is not None and not copied.query():  # type: ignore[no-untyped-call] # nor here
            copied.synchronize()
        self.copied = None

    def _allocate(self, size: int, dtype: DTypeLike) -> NDArray[Any]:
        return _pinned_bytes(size * np.dtype(dtype).itemsize).numpy().view(dtype)


class CopyStream:
    """Copies rows to a GPU on a stream of its own.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # torch has no types

    def upload(self, rows: "StoredRows", scratch: ScratchArrays) -> "StoredRows":
        """Start to copy rows.

        Args:
            rows: on the host, in `scratch`.
            scratch: is not written again before the copy is done.

        Returns:
            The rows on the GPU, which the computation may read once it has called `join`.
        """
        with torch.cuda.stream(self._stream):
            moved = rows.map(lambda tensor: _copy(tensor, self._device))
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call] # nor here
            copied.record(self._stream)
        if isinstance(scratch, PinnedArrays):
            scratch.copied = copied
        return moved.after(copied)

    def join(self, rows: "StoredRows") -> "StoredRows":
        """Have the current stream wait for the copy; the host waits for nothing."""
        stream = torch.cuda.current_stream(self._device)
        if rows.copied is not None:
            stream.wait_event(rows.copied)
        # They were allocated for the stream of the copy, and would be reused as it sees fit.
        return rows.map(lambda tensor: _used_by(tensor, stream))


def _pinned_bytes(num_bytes: int) -> Tensor:
    return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)


def _copy(tensor: Tensor, device: torch.device) -> Tensor:
    if not tensor.numel():  # memory of no size is not pinned
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    return tensor.to(device, non_blocking=True)


def _used_by(tensor: Tensor, stream: torch.cuda.Stream) -> Tensor:
    tensor.record_stream(stream)
    return tensor
