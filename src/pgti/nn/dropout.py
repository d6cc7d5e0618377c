"""Dropout, also of a branch that is added to its input: y = x + dropout(branch)."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["dropout", "dropout_add", "relu_dropout"]

_LEVELS = 1 << 16
"""Probabilities are multiples of 1 / 65,536: a unit takes 16 bits, a quarter of a 64-bit draw.
torch's Bernoulli draws cost six times as much on a CPU, a fifth of a step of Graph WaveNet."""


def dropout(x: Tensor, probability: float) -> Tensor:
    """Zero units of x at random and scale up the others; see `dropout_add`.

    Args:
        x: any shape.
        probability: that a unit is zeroed, at least 0 and below 1; rounded to 1 / 65,536. With 0
            it draws nothing and returns x itself.
    """
    if probability == 0:
        return x
    mask, scale = _draw(x, probability)
    return (x * mask).mul_(scale)


def dropout_add(x: Tensor, branch: Tensor, probability: float) -> Tensor:
    """Sum of x and the branch, with units of the branch zeroed at random and the others scaled up.

    Draws from torch's generator of the device, and stores one byte a unit. The scale is the
    inverse of the probability after rounding, so the expected value is x + branch.

    Args:
        x: any shape.
        branch: the same shape.
        probability: that a unit is zeroed, at least 0 and below 1; rounded to 1 / 65,536. With 0
            it draws nothing.
    """
    if probability == 0:
        return x + branch
    mask, scale = _draw(branch, probability)
    return torch.add(x, branch * mask, alpha=scale)


def relu_dropout(x: Tensor, probability: float) -> tuple[Tensor, float]:
    """The relu of x with units zeroed at random, and the scale that the others still lack.

    A layer that follows multiplies its weights by the scale: they are fewer numbers. The backward
    pass needs the result alone, which is 0 where a unit was zeroed.

    Args:
        x: any shape; it may be overwritten.
        probability: that a unit is zeroed, at least 0 and below 1; rounded to 1 / 65,536. With 0
            it draws nothing.
    """
    if probability == 0:
        return x.relu(), 1.0
    mask, scale = _draw(x, probability)
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return (x * mask).relu(), scale
    result: Tensor = _MaskedRelu.apply(x, mask)  # type: ignore[no-untyped-call] # torch does not annotate it
    return result, scale


class _MaskedRelu(torch.autograd.Function):
    """relu(x mask), in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        x.mul_(mask).relu_()
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (units,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradients[0], units, 0), None


def _draw(x: Tensor, probability: float) -> tuple[Tensor, float]:
    """A mask that is False where x is zeroed, and the scale of the other units."""
    levels_left = min(max(1, round((1 - probability) * _LEVELS)), _LEVELS - 1)
    draw = torch.ops.pgti.dropout_mask if torch.compiler.is_compiling() else _mask
    return draw(x, levels_left), _LEVELS / levels_left


def _mask(x: Tensor, levels_left: int) -> Tensor:
    """True for `levels_left` of 65,536 units like x, drawn from the generator of the device."""
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
    levels = bits.random_(-(2**63), None).view(torch.int16)[: x.numel()]
    return (levels < levels_left - _LEVELS // 2).view(x.shape)


# For the compiler, which then draws the same numbers, and once. It has tags only if defined so.
torch.library.define(
    "pgti::dropout_mask",
    "(Tensor x, int levels_left) -> Tensor",
    tags=torch.Tag.nondeterministic_seeded,
)
torch.library.impl("pgti::dropout_mask", "default", _mask)


@torch.library.register_fake("pgti::dropout_mask")  # type: ignore[untyped-decorator]
def _(x: Tensor, levels_left: int) -> Tensor:  # noqa: ARG001
    return x.new_empty(x.shape, dtype=torch.bool)
