"""How layers compute: in chunks, under autocast, compiled, with activation checkpointing."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar, TypeVarTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = [
    "add_product",
    "autocast_dtype",
    "bfloat16_speed",
    "checkpointed",
    "draw_as_linear",
    "exporting",
    "hop_dtype",
    "is_exporting",
    "normalized",
    "refuse_second_derivative",
    "split_parts",
    "split_rows",
    "without_autocast",
]

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


_is_exporting = False  # not torch's flag, which the compiler cannot trace; that is global, too


@contextmanager
def exporting() -> Iterator[None]:
    """A context in which layers compute by torch's own operators, for batches of any size.

    For `torch.export`: the graph has no operator of pgti, and no size of a batch.
    """
    global _is_exporting  # noqa: PLW0603 - torch traces for all threads, too
    before, _is_exporting = _is_exporting, True
    try:
        yield
    finally:
        _is_exporting = before


def is_exporting() -> bool:
    """Whether the block of `exporting` runs."""
    return _is_exporting


def split_rows(num_rows: int, rows_per_chunk: int) -> list[slice]:
    """Rows in chunks of at most `rows_per_chunk` rows, but at least one."""
    size = max(1, rows_per_chunk)
    return [slice(first, min(first + size, num_rows)) for first in range(0, num_rows, size)]


def split_parts(x: Tensor, size: int, dim: int = 0) -> tuple[Tensor, ...]:
    """`torch.split`; the whole while `torch.export` traces, which would count the parts."""
    return (x,) if is_exporting() else torch.split(x, size, dim)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which products on `device` use the precision of their operands.

    For the last product of a model, where bfloat16 would round off 3 digits. `torch.autocast`
    itself raises for devices without autocast, such as `meta`.
    """
    if torch.amp.is_autocast_available(device.type) and not is_exporting():
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Precision of matrix products under autocast on `device`; None without autocast."""
    available = torch.amp.is_autocast_available(device.type)
    if not available or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def hop_dtype(device: torch.device, matmul_dtype: torch.dtype | None) -> torch.dtype | None:
    """Precision of hops (states times a graph's operator); None: that of the operators.

    On a GPU it is the `matmul_dtype` of autocast: the state is rounded once, each product adds up
    in float32 and rounds its result, and what sums over hops, time steps or gradients stays in
    float32. That halves the memory traffic, which decides there. A CPU has no sparse products in
    bfloat16.
    """
    return matmul_dtype if device.type == "cuda" else None


def add_product(into: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right in place, of matrices or batches of them, to a sum of any precision."""
    if into.dtype != left.dtype:
        into.add_(left @ right)
    elif into.ndim == 3:
        into.baddbmm_(left, right)
    else:
        into.addmm_(left, right)


def refuse_second_derivative() -> None:
    """Raise where autograd records a hand-written backward pass (`create_graph=True`).

    torch's `once_differentiable` misses this where the incoming gradient is a constant, and the
    second derivative is then silently wrong.

    Raises:
        RuntimeError: gradients are enabled.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            "this layer cannot be differentiated twice: call backward or grad without create_graph"
        )


def checkpointed(
    part: Callable[[*Arguments], Result], *args: *Arguments, draws: bool = False
) -> Result:
    """`part(*args)`, storing only its arguments and results for the backward pass.

    The backward pass runs `part` again (Chen et al., Training Deep Nets with Sublinear Memory
    Cost, arXiv 1604.06174), so a second call must do the same as the first. Gradients are those of
    `part`, summed in another order.

    Args:
        part: the function; it must not change anything, running statistics included.
        args: its arguments.
        draws: whether `part` draws from torch's generator (dropout): its state is then stored.
    """
    result = checkpoint(part, *args, use_reentrant=False, preserve_rng_state=draws)
    return cast(Result, result)


def draw_as_linear(fan_in: int, *parameters: nn.Parameter) -> None:
    """Draw parameters uniformly within 1 / sqrt(fan_in), as torch's `Linear` and `Conv2d` do."""
    bound = 1 / math.sqrt(fan_in)
    for parameter in parameters:
        nn.init.uniform_(parameter, -bound, bound)


def normalized(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """`norm(x)`; for the compiler from its parts.

    The compiler takes the gradient of torch's operator to be in the layout of what comes in, and
    torch makes it contiguous, so that a compiled backward pass fails where the two differ.
    """
    if not torch.compiler.is_compiling():
        result: Tensor = norm(x)
        return result
    x = x.to(norm.weight.dtype)
    dims = tuple(range(-len(norm.normalized_shape), 0))
    centered = x - x.mean(dims, keepdim=True)
    variance = centered.square().mean(dims, keepdim=True)
    return centered * torch.rsqrt(variance + norm.eps) * norm.weight + norm.bias


def bfloat16_speed(*, size: int = 512, num_trials: int = 3) -> float:
    """How many times faster the CPU multiplies matrices in bfloat16 than in float32; measured.

    Processors with AVX-512 BF16 or AMX reach 2 and more; others emulate it, at a tenth or less.
    The fastest of `num_trials` products of two `size` x `size` matrices counts.
    """

    def fastest(dtype: torch.dtype) -> float:
        matrix = torch.full((size, size), 0.5, dtype=dtype)
        seconds = []
        for _ in range(1 + num_trials):
            began = time.perf_counter()
            torch.mm(matrix, matrix)
            seconds.append(time.perf_counter() - began)
        return min(seconds[1:])

    return fastest(torch.float32) / fastest(torch.bfloat16)
