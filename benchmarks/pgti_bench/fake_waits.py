"""What would wait or fail on a GPU, of what a fake one is asked for: see `pgti_bench.fake_gpu`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "FakeGpuError",
    "HostTensorError",
    "HostWaitError",
    "UnknownShapeError",
    "refuse_waiting",
]

_WAITS = {"_local_scalar_dense", "equal", "is_nonzero"}
_UNKNOWN_SHAPES = {
    "nonzero",
    "nonzero_numpy",
    "argwhere",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
    "repeat_interleave",
}
_INDEXED = {"index", "index_put_", "_unsafe_index", "_index_put_impl_"}


class FakeGpuError(AssertionError):
    """What would wait or fail on a GPU, with the line of the code that asks for it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: {_line()}")


class HostWaitError(FakeGpuError):
    """The host would wait for the GPU."""


class HostTensorError(FakeGpuError):
    """A kernel would get a tensor of the host."""


class UnknownShapeError(FakeGpuError):
    """A shape depends on data, which the host would wait for."""


def refuse_waiting(
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    tensors: list[Tensor],
    is_pinned: Callable[[Tensor], bool],
) -> None:
    """Raise where a kernel would make the host wait, or gets tensors of the host.

    Args:
        name: of the operator.
        args: its arguments; tensors on `meta` are those of the GPU.
        kwargs: its arguments by name.
        tensors: all tensors among them.
        is_pinned: whether a tensor of the host is in pinned memory.

    Raises:
        HostWaitError, HostTensorError, UnknownShapeError: naming the line.
    """
    if name in _WAITS:
        raise HostWaitError(f"{name} waits for the GPU")
    if name in _UNKNOWN_SHAPES:
        raise UnknownShapeError(f"the shape of {name} depends on data")
    if name in ("_to_copy", "copy_"):
        _refuse_waiting_copy(name, args, kwargs, is_pinned)
    elif any(not each.is_meta and each.ndim > 0 for each in tensors):
        if name in _INDEXED:
            raise HostWaitError("an index of the host is copied, which waits")
        raise HostTensorError(f"{name} gets tensors of the GPU and of the host")
    elif name in _INDEXED:
        masks = (torch.bool, torch.uint8)
        is_filled = name != "index" and args[2].numel() == 1
        if not is_filled and any(each.dtype in masks for each in args[1] if each is not None):
            raise UnknownShapeError("the shape of a boolean index depends on data")


def _refuse_waiting_copy(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], is_pinned: Callable[[Tensor], bool]
) -> None:
    source = args[0] if name == "_to_copy" else args[1]
    if source.is_meta:
        if _goes_to_host(name, args, kwargs):
            raise HostWaitError("a copy to the host waits for the GPU")
    elif not is_pinned(source):
        raise HostWaitError("a copy from memory that is not pinned waits")
    elif not (kwargs.get("non_blocking") or args[2:3] == (True,)):
        raise HostWaitError("a copy without non_blocking waits for the GPU")


def _goes_to_host(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if name == "copy_":
        return not args[0].is_meta
    device = kwargs.get("device")
    return device is not None and torch.device(device).type == "cpu"


_LIBRARIES = (
    str(Path(torch.__file__).parent),
    __file__,
    str(Path(__file__).with_name("fake_gpu.py")),
)


def _line() -> str:
    """File, line and function of the innermost code that is neither torch's nor the fake GPU's."""
    frame = sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_code.co_filename.startswith(_LIBRARIES) or "contextlib" in frame.f_code.co_filename
    ):
        frame = frame.f_back
    code = frame.f_code
    return f"{code.co_filename}:{frame.f_lineno}, {code.co_name}"
