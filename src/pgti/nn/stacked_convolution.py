"""Convolutions over time and over a small graph in few kernels, for GPUs.

States are [N, L, B, C], nodes first, and all powers of all operators one matrix [N, H * N], whose
block k has power k (`Supports.stacked_powers`). A convolution over the graph is then

    W_k x  for all k, [H, (n l b), O],  read as  [(h n), (l b o)];   powers @ that  is [N, L, B, O]

two products and no copy. A convolution over time is a product for each tap, of N matrices with the
same right factor.
"""

from typing import Any

import torch
from torch import Tensor

from pgti.nn.execution import (
    add_product,
    autocast_dtype,
    refuse_second_derivative,
    without_autocast,
)
from pgti.nn.operators import Operation, Operator
from pgti.nn.stacked_steps import write

__all__ = ["stacked_gated_convolution", "stacked_graph_convolution"]

_sigmoid_backward = torch.ops.aten.sigmoid_backward
_tanh_backward = torch.ops.aten.tanh_backward


def stacked_gated_convolution(
    x_NLBC: Tensor, weight_KCG: Tensor, bias_G: Tensor, dilation: int
) -> tuple[Tensor, Tensor]:
    """`pgti.nn.gated_convolution` of states with the nodes first; differentiable once.

    Args:
        x_NLBC: [N, L, B, C].
        weight_KCG: [K, C, 2 D], a matrix per tap, the oldest first; the filter's D columns, then
            the gate's.
        bias_G: [2 D].
        dilation: d, steps between taps.

    Returns:
        All steps, [N, L - (K - 1) d, B, D], and again the last one, [N, B, D].
    """
    dtype = autocast_dtype(x_NLBC.device) or weight_KCG.dtype
    z_NLBD, last_NBD = _gate(x_NLBC.contiguous(), weight_KCG, bias_G, dilation, dtype)
    return z_NLBD, last_NBD


def stacked_graph_convolution(
    x_NLBC: Tensor,
    weight_HCO: Tensor,
    bias_O: Tensor,
    powers_NQ: Tensor,
    learned_NP: Tensor,
) -> Tensor:
    """sum_k P_k x W_k + b over fixed and learned powers; differentiable once.

    Args:
        x_NLBC: [N, L, B, C].
        weight_HCO: [H, C, O], a matrix per power: the fixed ones, then the learned.
        bias_O: [O].
        powers_NQ: [N, H * N], all powers side by side, in the precision of products; it gets no
            gradient.
        learned_NP: the last of them again, which get it.

    Returns:
        [N, L, B, O], contiguous, in the precision of the bias.
    """
    output: Tensor = _mix(x_NLBC.contiguous(), weight_HCO, bias_O, powers_NQ, learned_NP)
    return output


class _GatedConvolution(Operation):
    """`stacked_gated_convolution`; stores its input and both activations."""

    @staticmethod
    def forward(
        ctx: Any,
        x_NLBC: Tensor,
        weight_KCG: Tensor,
        bias_G: Tensor,
        dilation: int,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        num_nodes, length, batch, _ = x_NLBC.shape
        num_taps, _, width = weight_KCG.shape
        steps = length - (num_taps - 1) * dilation
        with without_autocast(x_NLBC.device):
            gates_NLBG = x_NLBC.new_empty(num_nodes, steps, batch, width, dtype=dtype)
            gates_NLBG.copy_(bias_G)
            taps_NMC = _taps(x_NLBC.to(dtype), num_taps, dilation)
            for tap_NMC, weight_CG in zip(taps_NMC, weight_KCG.to(dtype), strict=True):
                weight_NCG = weight_CG.expand(num_nodes, -1, -1)
                add_product(gates_NLBG.flatten(1, 2), tap_NMC, weight_NCG)
            a_NLBD, b_NLBD = gates_NLBG.tensor_split(2, dim=3)
            z_NLBD = (a_NLBD.tanh_() * b_NLBD.sigmoid_()).to(weight_KCG.dtype)
        ctx.save_for_backward(x_NLBC, weight_KCG, gates_NLBG)
        ctx.options = dilation, dtype
        return z_NLBD, z_NLBD[:, -1].clone()

    @staticmethod
    def backward(ctx: Any, grad_NLBD: Tensor, grad_last_NBD: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        x_NLBC, weight_KCG, gates_NLBG = ctx.saved_tensors
        dilation, dtype = ctx.options
        num_nodes, num_taps = len(x_NLBC), len(weight_KCG)
        with without_autocast(x_NLBC.device):
            # A copy, because autograd may use the incoming gradient elsewhere.
            grad_NLBD = grad_NLBD.to(dtype, copy=True, memory_format=torch.contiguous_format)
            grad_NLBD[:, -1] += grad_last_NBD
            a_NLBD, b_NLBD = gates_NLBG.tensor_split(2, dim=3)
            into_NLBG = torch.empty_like(gates_NLBG)
            into_a, into_b = into_NLBG.tensor_split(2, dim=3)
            write(into_a, torch.mul, grad_NLBD, b_NLBD)
            write(into_a, _tanh_backward, into_a, a_NLBD, name="grad_input")
            write(into_b, torch.mul, grad_NLBD, a_NLBD)
            write(into_b, _sigmoid_backward, into_b, b_NLBD, name="grad_input")
            into_NMG = into_NLBG.flatten(1, 2)
            grad_x_NLBC = torch.zeros_like(x_NLBC, dtype=dtype)
            grad_weight_KCG = torch.empty_like(weight_KCG)
            taps_NMC = _taps(x_NLBC.to(dtype), num_taps, dilation)
            into_taps_NMC = _taps(grad_x_NLBC, num_taps, dilation)
            for tap, weight_CG in enumerate(weight_KCG.to(dtype)):
                add_product(into_taps_NMC[tap], into_NMG, weight_CG.t().expand(num_nodes, -1, -1))
                of_nodes_NCG = torch.bmm(taps_NMC[tap].mT, into_NMG)
                torch.sum(of_nodes_NCG, 0, dtype=weight_KCG.dtype, out=grad_weight_KCG[tap])
            grad_bias_G = into_NMG.sum(dim=(0, 1), dtype=weight_KCG.dtype)
        return grad_x_NLBC.to(x_NLBC.dtype), grad_weight_KCG, grad_bias_G, None, None

    @staticmethod
    def like(
        x_NLBC: Tensor, weight_KCG: Tensor, _: Tensor, dilation: int, dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        num_nodes, length, batch = x_NLBC.shape[:3]
        num_taps, width = len(weight_KCG), weight_KCG.shape[2]
        shape = (num_nodes, length - (num_taps - 1) * dilation, batch)
        return (
            weight_KCG.new_empty(*shape, width // 2),
            weight_KCG.new_empty(num_nodes, batch, width // 2),
            x_NLBC.new_empty(*shape, width, dtype=dtype),
        )

    @staticmethod
    def gradients_like(ctx: Any) -> tuple[Tensor, ...]:
        x_NLBC, weight_KCG, _ = ctx.saved_tensors
        bias_G = weight_KCG.new_empty(weight_KCG.shape[2])
        return torch.empty_like(x_NLBC), torch.empty_like(weight_KCG), bias_G


_gate = Operator(
    _GatedConvolution,
    "stacked_gated_convolution",
    returns=["z_NLBD", "last_NBD"],
    saves=["x_NLBC", "weight_KCG", "gates_NLBG"],
)


def _taps(x_NLBC: Tensor, num_taps: int, dilation: int) -> list[Tensor]:
    """Views [N, M, C] of what each tap sees, the oldest first: M = (L - (K - 1) d) * B."""
    length = x_NLBC.shape[1] - (num_taps - 1) * dilation
    starts = range(0, num_taps * dilation, dilation)
    return [x_NLBC[:, start : start + length].flatten(1, 2) for start in starts]


class _GraphConvolution(Operation):
    """`stacked_graph_convolution`; stores its input alone."""

    @staticmethod
    def forward(
        ctx: Any,
        x_NLBC: Tensor,
        weight_HCO: Tensor,
        bias_O: Tensor,
        powers_NQ: Tensor,
        learned_NP: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(x_NLBC, weight_HCO, powers_NQ, learned_NP)
        ctx.options = ()
        with without_autocast(x_NLBC.device):
            weighted_QF = _weigh(x_NLBC, weight_HCO, powers_NQ.dtype)
            y_NLBO = torch.mm(powers_NQ, weighted_QF).view(*x_NLBC.shape[:3], -1)
            return y_NLBO.to(bias_O.dtype).add_(bias_O)

    @staticmethod
    def backward(ctx: Any, grad_NLBO: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        x_NLBC, weight_HCO, powers_NQ, learned_NP = ctx.saved_tensors
        dtype, num_nodes = powers_NQ.dtype, len(x_NLBC)
        terms, num_learned = len(weight_HCO), learned_NP.shape[1] // num_nodes
        with without_autocast(x_NLBC.device):
            grad_bias_O = grad_NLBO.sum(dim=(0, 1, 2), dtype=weight_HCO.dtype)
            grad_NF = grad_NLBO.to(dtype).reshape(num_nodes, -1)
            grad_HMO = torch.mm(powers_NQ.t(), grad_NF).view(terms, -1, grad_NLBO.shape[3])
            x_MC = x_NLBC.to(dtype).flatten(0, 2)
            grad_weight_HCO = torch.bmm(x_MC.t().expand(terms, -1, -1), grad_HMO)
            grad_HMC = torch.bmm(grad_HMO, weight_HCO.to(dtype).mT)
            grad_x_NLBC = grad_HMC.sum(dim=0, dtype=x_NLBC.dtype).view(x_NLBC.shape)
            weighted_PF = _weigh(x_NLBC, weight_HCO[terms - num_learned :], dtype)
            grad_learned_NP = torch.mm(grad_NF, weighted_PF.t())
        return (
            grad_x_NLBC,
            grad_weight_HCO.to(weight_HCO.dtype),
            grad_bias_O,
            None,
            grad_learned_NP.to(learned_NP.dtype),
        )

    @staticmethod
    def like(x_NLBC: Tensor, weight_HCO: Tensor, *_: Any) -> tuple[Tensor]:
        return (weight_HCO.new_empty(*x_NLBC.shape[:3], weight_HCO.shape[2]),)

    @staticmethod
    def gradients_like(ctx: Any) -> tuple[Tensor, ...]:
        x_NLBC, weight_HCO, powers_NQ, learned_NP = ctx.saved_tensors
        return (
            torch.empty_like(x_NLBC),
            torch.empty_like(weight_HCO),
            weight_HCO.new_empty(weight_HCO.shape[2]),
            torch.empty_like(powers_NQ),
            torch.empty_like(learned_NP),
        )


_mix = Operator(
    _GraphConvolution,
    "stacked_graph_convolution",
    returns=["output"],
    saves=["x_NLBC", "weight_HCO", "powers_NQ", "learned_NP"],
)


def _weigh(x_NLBC: Tensor, weight_HCO: Tensor, dtype: torch.dtype) -> Tensor:
    """[H * N, L * B * O]: x W_k of all k, one below the other."""
    terms = len(weight_HCO)
    x_HMC = x_NLBC.to(dtype).flatten(0, 2).expand(terms, -1, -1)
    return torch.bmm(x_HMC, weight_HCO.to(dtype)).view(terms * len(x_NLBC), -1)
