"""Dropout, alone or of a branch that is added to another: y = x + dropout(branch)."""

from typing import Any

import torch
from torch import Tensor

from pgti.nn.execution import compiler_disabled

__all__ = ["dropout", "dropout_add"]

_LEVELS = 1 << 16
"""Probabilities are multiples of 1 / 65,536, 16 random bits a unit. A 64-bit draw makes four units;
torch's own Bernoulli draws cost six times as much on a CPU, a fifth of a step of Graph WaveNet."""


@compiler_disabled
def dropout(x: Tensor, probability: float) -> Tensor:
    """Units of x zeroed at random and the others scaled up; see `dropout_add`.

    Args:
        x: any shape.
        probability: that a unit is zeroed, from 0 up to but not 1; rounded to 1 / 65,536. With 0
            nothing is drawn, and x itself is returned.
    """
    if probability == 0:
        return x
    output: Tensor = _Dropout.apply(x, probability)  # type: ignore[no-untyped-call]
    return output


@compiler_disabled
def dropout_add(x: Tensor, branch: Tensor, probability: float) -> Tensor:
    """Sum of x and the branch, of which units are zeroed at random and the others scaled up.

    Keeps one byte a unit. Draws from torch's generator of the device. What is kept is scaled by
    the inverse of the probability that is used, so that the expected value is x + branch.

    Args:
        x: any shape.
        branch: the same shape.
        probability: that a unit is zeroed, from 0 up to but not 1; rounded to 1 / 65,536. With 0
            nothing is drawn.
    """
    if probability == 0:
        return x + branch
    output: Tensor = _DropoutAdd.apply(x, branch, probability)  # type: ignore[no-untyped-call]
    return output


class _Dropout(torch.autograd.Function):
    """`dropout`; keeps the mask."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, probability: float) -> Tensor:
        kept, ctx.scale = _draw(x, probability)
        ctx.save_for_backward(kept)
        return (x * kept).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return (grad * kept).mul_(ctx.scale), None


class _DropoutAdd(torch.autograd.Function):
    """`dropout_add`; keeps the mask."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        branch: Tensor,
        probability: float,
    ) -> Tensor:
        kept, ctx.scale = _draw(branch, probability)
        ctx.save_for_backward(kept)
        masked = branch * kept
        return torch.add(x, masked, alpha=ctx.scale, out=masked)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (kept,) = ctx.saved_tensors
        return grad, (grad * kept).mul_(ctx.scale), None


def _draw(x: Tensor, probability: float) -> tuple[Tensor, float]:
    """Which units of x are kept, and what they are scaled by."""
    num_kept = min(max(1, round((1 - probability) * _LEVELS)), _LEVELS - 1)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
    levels = bits.random_(-(2**63), None).view(torch.int16)[: x.numel()]
    return (levels < num_kept - _LEVELS // 2).view(x.shape), _LEVELS / num_kept
