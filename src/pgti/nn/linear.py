"""Affine maps; in float32 on CPUs by oneDNN, which multiplies tall matrices faster than MKL."""

import platform
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.nn.execution import autocast_dtype, refuse_second_derivative, split_rows

__all__ = ["Linear", "linear", "multiply_by_transposed", "uses_onednn"]

_SMALLEST = 1 << 20
"""Products, rows times inputs times outputs, below which calls cost more than they gain."""
_GRADIENT_NUMBERS = 1 << 19
"""Numbers in the rows that a weight's gradient sums at a time: oneDNN copies them, in cache."""


class Linear(nn.Linear):
    """`torch.nn.Linear`, with the same parameters, by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """[.., K] to [.., O]."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The affine map of `torch.nn.functional.linear`, x @ weight^T + bias; differentiable once.

    torch multiplies by MKL, which uses half the width of the vector units of AMD's processors;
    torch's own compiler calls oneDNN for such products. On one AVX-512 core (AMD EPYC), 6,624 rows
    and 128 columns: 97 GFLOP/s by MKL and 230 by oneDNN.

    Args:
        x: [.., K].
        weight: [O, K].
        bias: [O], or None.
    """
    if not uses_onednn(x) or x.numel() * len(weight) < _SMALLEST or weight.dtype != x.dtype:
        return functional.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    given = (x, weight) if bias is None else (x, weight, bias)
    if torch.is_grad_enabled() and any(each.requires_grad for each in given):
        result: Tensor = _Linear.apply(rows, weight, bias)  # type: ignore[no-untyped-call] # torch does not annotate it
    else:
        result = multiply_by_transposed(rows, weight, bias)
    return result if x.ndim == 2 else result.view(*x.shape[:-1], len(weight))


def uses_onednn(x: Tensor) -> bool:
    """Whether products of x are by oneDNN: float32 on an x86 CPU, without autocast or compiler."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.compiler.is_compiling()
        and autocast_dtype(x.device) is None
        and _has_onednn()
    )


def multiply_by_transposed(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Like `linear`, by oneDNN and without gradients: [T, K], [O, K] and [O] to [T, O].

    oneDNN has no fast product for a second factor with gaps between its rows or columns, a slice of
    a larger tensor, and falls back to loops that take a thousand times as long: such a factor is
    copied.
    """
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


def _has_onednn() -> bool:
    return (
        torch._C._has_mkldnn
        and bool(torch._C._get_mkldnn_enabled())
        and platform.machine() in ("x86_64", "AMD64")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


class _Linear(torch.autograd.Function):
    """x @ weight^T + bias of [T, K]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return multiply_by_transposed(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        into_x, into_weight, into_bias = ctx.needs_input_grad
        return (
            multiply_by_transposed(gradient, weight.t()) if into_x else None,
            _gradient_of_weight(gradient, x, weight) if into_weight else None,
            gradient.sum(dim=0) if into_bias else None,
        )


def _gradient_of_weight(gradient_TO: Tensor, x_TK: Tensor, weight_OK: Tensor) -> Tensor:
    """[O, K], in the layout of the weight, which may be the transpose of a tensor."""
    if not weight_OK.is_contiguous() and weight_OK.t().is_contiguous():
        return _sum_of_products(x_TK, gradient_TO).t()
    return _sum_of_products(gradient_TO, x_TK)


def _sum_of_products(left_TO: Tensor, right_TK: Tensor) -> Tensor:
    """left^T @ right, [O, K]."""
    total: Tensor | None = None
    size = _GRADIENT_NUMBERS // (left_TO.shape[1] + right_TK.shape[1])
    size = max(size, min(left_TO.shape[1], right_TK.shape[1]))  # else the sum takes the time
    for part in split_rows(len(left_TO), size):
        product = multiply_by_transposed(left_TO[part].t(), right_TK[part].t())
        total = product if total is None else total.add_(product)
    assert total is not None
    return total
