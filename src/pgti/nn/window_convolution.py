"""A gated convolution over time, of which each output step is one matrix product.

In the layout [N, B, L, C] the K steps under a kernel lie side by side, K * C numbers in a row: they
are not gathered, and no partial sums travel through memory. A product with a graph takes
[N, B * L * C] as it is, and a map of all steps of a node is one product too. With 7 taps and 32
channels it takes four fifths of the time of a product per tap (`pgti.nn.gated`, where time comes
first), forward and backward on a CPU; with 2 or 3 taps as long.

The gate is that of Dauphin et al., Language Modeling with Gated Convolutional Networks, ICML 2017:

    z = a . sigmoid(b)   or   z = tanh(a) . sigmoid(b),   (a, b) = sum_k x_{l + k} W_k + bias
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pgti.nn.execution import (
    add_product,
    autocast_dtype,
    compiler_disabled,
    refuse_second_derivative,
    without_autocast,
)

__all__ = ["gated_window_convolution"]

_NUMBERS_AT_ONCE = 1 << 20
"""Inputs and gates of the rows that are convolved and gated together on a CPU: 4 MiB stay in its
caches. From 2^18 to 2^21 the time differs by a tenth; all rows at once take a fifth more."""

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input


@compiler_disabled
def gated_window_convolution(
    x_NBLC: Tensor, weight_KCG: Tensor, bias_G: Tensor, *, tanh: bool = False, dilation: int = 1
) -> Tensor:
    """The gated convolution of every node, no padding; differentiable once.

    Args:
        x_NBLC: [N, B, L, C].
        weight_KCG: [K, C, 2 D], a matrix per tap, the oldest first: D columns of a, then D of b.
        bias_G: [2 D].
        tanh: squash a.
        dilation: d, steps between taps. Every d-th step is copied where it is not 1.

    Returns:
        [N, B, L - (K - 1) d, D], contiguous, in the precision of the weights.
    """
    if dilation > 1:
        phases = [
            gated_window_convolution(x_NBLC[:, :, first::dilation], weight_KCG, bias_G, tanh=tanh)
            for first in range(min(dilation, x_NBLC.shape[2] - (len(weight_KCG) - 1) * dilation))
        ]
        return _interleaved(phases)
    x_MLC = x_NBLC.flatten(0, 1).contiguous()
    z_MLD: Tensor = _Convolution.apply(  # type: ignore[no-untyped-call]
        x_MLC,
        weight_KCG,
        bias_G,
        tanh,
        autocast_dtype(x_NBLC.device) or weight_KCG.dtype,
        torch.is_grad_enabled(),
    )
    return z_MLD.view(*x_NBLC.shape[:2], *z_MLD.shape[1:])


def _interleaved(phases: list[Tensor]) -> Tensor:
    """[N, B, L, D] of which phases[p] is every len(phases)-th step from p on."""
    num_nodes, batch, _, width = phases[0].shape
    length = sum(phase.shape[2] for phase in phases)
    whole_NBLD = phases[0].new_empty(num_nodes, batch, length, width)
    for first, phase in enumerate(phases):
        whole_NBLD[:, :, first :: len(phases)] = phase
    return whole_NBLD


class _Convolution(torch.autograd.Function):
    """`gated_window_convolution` of M rows of L steps; keeps its input and the gates, if asked.

    tanh(a) = 1 - 2 sigmoid(-2 a): with the weights of a scaled by -2, one sigmoid over all columns
    makes both factors, and z = s_b - 2 s_a s_b.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_MLC: Tensor,
        weight_KCG: Tensor,
        bias_G: Tensor,
        tanh: bool,
        dtype: torch.dtype,
        keeps: bool,  # in here gradients are never enabled, and needs_input_grad does not tell
    ) -> Tensor:
        (num_rows, length, channels), (taps, _, width) = x_MLC.shape, weight_KCG.shape
        steps = length - taps + 1
        keeps = keeps and any(ctx.needs_input_grad)
        scale_G = _columns(weight_KCG, -2.0 if tanh else 1.0)
        with without_autocast(x_MLC.device):
            weight_WG = (weight_KCG * scale_G).flatten(0, 1).to(dtype)
            bias_G = (bias_G * scale_G).to(dtype)
            blocks = list(_blocks(x_MLC, steps * width))
            kept = num_rows if keeps else blocks[0].stop
            gates_MLG = x_MLC.new_empty(kept, steps, width, dtype=dtype)
            z_MLD = x_MLC.new_empty(num_rows, steps, width // 2, dtype=weight_KCG.dtype)
            for rows in blocks:
                x_RF = x_MLC[rows].flatten(1).to(dtype)
                gates_RLG = gates_MLG[rows] if keeps else gates_MLG[: len(x_RF)]
                for step in range(steps):
                    window_RW = x_RF[:, step * channels : (step + taps) * channels]
                    torch.addmm(bias_G, window_RW, weight_WG, out=gates_RLG[:, step])
                a_RLD, b_RLD = gates_RLG.tensor_split(2, dim=2)
                if tanh:
                    gates_RLG.sigmoid_()
                    torch.addcmul(b_RLD, a_RLD, b_RLD, value=-2, out=z_MLD[rows])
                else:
                    torch.mul(a_RLD, b_RLD.sigmoid_(), out=z_MLD[rows])
        ctx.save_for_backward(x_MLC, weight_KCG, gates_MLG)
        ctx.tanh = tanh
        return z_MLD

    @staticmethod
    def backward(ctx: Any, grad_MLD: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        x_MLC, weight_KCG, gates_MLG = ctx.saved_tensors
        (_, steps, width), (taps, channels, _) = gates_MLG.shape, weight_KCG.shape
        grad_x_MLC = torch.zeros_like(x_MLC) if ctx.needs_input_grad[0] else None
        scale_G = _columns(weight_KCG, 4.0 if ctx.tanh else 1.0)
        with without_autocast(x_MLC.device):
            weight_GW = (weight_KCG * scale_G).flatten(0, 1).to(gates_MLG.dtype).t()
            grad_weight_WG = torch.zeros_like(weight_KCG).flatten(0, 1)
            grad_bias_G = torch.zeros_like(scale_G)
            for rows in _blocks(x_MLC, steps * width):
                grad_RLG = _gradient_of_gates(gates_MLG[rows], grad_MLD[rows], tanh=ctx.tanh)
                grad_bias_G += grad_RLG.sum(dim=(0, 1), dtype=scale_G.dtype)
                x_RF = x_MLC[rows].flatten(1).to(gates_MLG.dtype)
                into_RF = None if grad_x_MLC is None else grad_x_MLC[rows].flatten(1)
                for step in range(steps):
                    window = slice(step * channels, (step + taps) * channels)
                    add_product(grad_weight_WG, x_RF[:, window].t(), grad_RLG[:, step])
                    if into_RF is not None:
                        add_product(into_RF[:, window], grad_RLG[:, step], weight_GW)
        grad_weight_KCG = grad_weight_WG.view_as(weight_KCG) * scale_G
        return grad_x_MLC, grad_weight_KCG, grad_bias_G * scale_G, None, None, None


def _blocks(x_MLC: Tensor, numbers_a_row: int) -> Iterator[slice]:
    """The M rows in blocks that fit in the caches of a CPU; all of them on a GPU."""
    num_rows = len(x_MLC)
    at_once = num_rows
    if x_MLC.device.type == "cpu":
        at_once = max(1, _NUMBERS_AT_ONCE // (numbers_a_row + x_MLC[0].numel()))
    for first in range(0, num_rows, at_once):
        yield slice(first, min(first + at_once, num_rows))


def _columns(weight_KCG: Tensor, of_a: float) -> Tensor:
    """[2 D]: `of_a` for the columns of a, 1 for those of b."""
    scale_G = weight_KCG.new_ones(weight_KCG.shape[2])
    scale_G[: len(scale_G) // 2] = of_a
    return scale_G


def _gradient_of_gates(gates_RLG: Tensor, grad_RLD: Tensor, *, tanh: bool) -> Tensor:
    """The gradient [R, L, 2 D] of what goes into the gates; with `tanh`, that of a over 4.

    Args:
        gates_RLG: a and sigmoid(b) side by side; with `tanh`, sigmoid(-2 a) and sigmoid(b).
        grad_RLD: of z.
        tanh: whether a is squashed.
    """
    grad_RLD = grad_RLD.to(gates_RLG.dtype)
    grad_RLG = torch.empty_like(gates_RLG)
    a_RLD, b_RLD = gates_RLG.tensor_split(2, dim=2)
    into_a_RLD, into_b_RLD = grad_RLG.tensor_split(2, dim=2)
    torch.mul(grad_RLD, b_RLD, out=into_a_RLD)
    if tanh:
        torch.addcmul(grad_RLD, a_RLD, grad_RLD, value=-2, out=into_b_RLD)
        _sigmoid_backward(grad_RLG, gates_RLG, grad_input=grad_RLG)
    else:
        torch.mul(grad_RLD, a_RLD, out=into_b_RLD)
        _sigmoid_backward(into_b_RLD, b_RLD, grad_input=into_b_RLD)
    return grad_RLG
