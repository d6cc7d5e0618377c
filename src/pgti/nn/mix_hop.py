"""Mix-hop propagation over a learned graph, in both directions of its edges.

Wu et al., Connecting the Dots, KDD 2020, eq. 9 and 10, for a row-normalized operator P:

    H_0 = x      H_k = beta x + (1 - beta) P H_{k-1}      y = sum_k H_k W_k

Here it is expanded into powers of P and those are nested,

    y = x V_0 + P (x V_1 + P (x V_2 + ..)),   V_j = (1 - beta)^j (W_j + beta sum_{k > j} W_k),

so that the K states H_k are never stored: the backward pass recomputes everything between x and y,
for some batch entries and steps at a time.
"""

from typing import Any

import torch
from torch import Tensor

from pgti.nn import plain
from pgti.nn.execution import (
    refuse_second_derivative,
    split_rows,
    without_autocast,
)
from pgti.nn.learned_graph import Neighbours
from pgti.nn.operators import Operation, Operator

__all__ = ["mix_hop_convolution"]


def mix_hop_convolution(
    x_NBLC: Tensor,
    weight_DKCO: Tensor,
    bias_O: Tensor,
    neighbours: Neighbours,
    values_DNK: tuple[Tensor, Tensor],
    beta: float,
) -> Tensor:
    """The sum of two mix-hop propagations, along the edges and against them.

    Products with the graph and the weights have the precision of the values. Differentiable once.

    Args:
        x_NBLC: [N, B, L, C].
        weight_DKCO: [2, K + 1, C, O], W_0 .. W_K of both directions.
        bias_O: [O].
        neighbours: the sparsity pattern of the values; its limits apply.
        values_DNK: two [N, k]: P is S(values[0]) in the first propagation, and the transpose of
            S(values[1]) in the second.
        beta: fraction of x in every hop.

    Returns:
        [N, B, L, O], contiguous.
    """
    dtype = values_DNK[0].dtype
    with without_autocast(x_NBLC.device):
        nested_DKCO = torch.einsum("jk,dkco->djco", _mixing(weight_DKCO, beta), weight_DKCO)
        center_CO, powers_DKCO = nested_DKCO[:, 0].sum(dim=0), nested_DKCO[:, 1:]
        y_NRO: Tensor = _evaluate(
            x_NBLC.flatten(1, 2).to(dtype), center_CO, powers_DKCO, bias_O, *values_DNK, neighbours
        )
    return y_NRO.view(*x_NBLC.shape[:3], -1)


def _mixing(like: Tensor, beta: float) -> Tensor:
    """[K + 1, K + 1]: V_j = sum_k mixing_jk W_k."""
    num_terms = like.shape[1]
    ones = like.new_ones(num_terms, num_terms)
    decay = (1 - beta) ** torch.arange(num_terms, device=like.device, dtype=like.dtype)
    return decay[:, None] * (ones.diag().diag() + beta * ones.triu(1))


class _Polynomial(Operation):
    """y = x V_0 + bias + sum over both directions of P (x V_1 + P (x V_2 + ..)); stores x.

    R is batch times steps, whose entries are independent.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_NRC: Tensor,
        center_CO: Tensor,
        powers_DKCO: Tensor,
        bias_O: Tensor,
        along_NK: Tensor,
        against_NK: Tensor,
        neighbours: Neighbours,
    ) -> Tensor:
        ctx.save_for_backward(x_NRC, center_CO, powers_DKCO, along_NK, against_NK)
        operators = (
            neighbours.matrix(along_NK),
            neighbours.matrix(against_NK, transposed=True),
        )
        ctx.options = (neighbours,)
        y_NRO = x_NRC.new_empty(*x_NRC.shape[:2], len(bias_O))
        for entries in _chunks(x_NRC, neighbours):
            x_MC = x_NRC[:, entries].flatten(0, 1)
            y_NF = torch.addmm(bias_O, x_MC, center_CO).view(len(x_NRC), -1)
            for operator, powers_KCO in zip(operators, powers_DKCO, strict=True):
                state_NF = _nest(x_MC, powers_KCO, operator, neighbours)[0]
                neighbours.multiply_into(operator, state_NF, y_NF, accumulate=True)
            y_NRO[:, entries] = y_NF.view(len(x_NRC), -1, len(bias_O))
        return y_NRO

    @staticmethod
    def backward(ctx: Any, grad_NRO: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        x_NRC, center_CO, powers_DKCO, along_NK, against_NK = ctx.saved_tensors
        (neighbours,) = ctx.options
        directions = (
            (neighbours.matrix(along_NK), neighbours.matrix(along_NK, transposed=True)),
            (neighbours.matrix(against_NK, transposed=True), neighbours.matrix(against_NK)),
        )
        grad_x_NRC, grad_center_CO, grad_powers_DKCO = (
            torch.zeros_like(tensor) for tensor in (x_NRC, center_CO, powers_DKCO)
        )
        grad_values = [torch.zeros_like(along_NK), torch.zeros_like(against_NK)]
        for entries in _chunks(x_NRC, neighbours):
            x_MC = x_NRC[:, entries].flatten(0, 1)
            grad_MO = grad_NRO[:, entries].flatten(0, 1)
            grad_x_MC = grad_MO @ center_CO.t()
            grad_center_CO.addmm_(x_MC.t(), grad_MO)
            for direction, (operator, transpose) in enumerate(directions):
                powers_KCO = powers_DKCO[direction]
                grad_NF = grad_MO.view(len(x_NRC), -1)
                states_NF = _nest(x_MC, powers_KCO, operator, neighbours)
                for power, state_NF in enumerate(states_NF):
                    sides = (state_NF, grad_NF) if direction else (grad_NF, state_NF)
                    grad_values[direction] = neighbours.add_sample(*sides, grad_values[direction])
                    out_NF = torch.empty_like(grad_NF)
                    grad_NF = neighbours.multiply_into(transpose, grad_NF, out_NF)
                    through_MO = grad_NF.view_as(grad_MO)
                    grad_powers_DKCO[direction, power].addmm_(x_MC.t(), through_MO)
                    grad_x_MC.addmm_(through_MO, powers_KCO[power].t())
            grad_x_NRC[:, entries] = grad_x_MC.view(len(x_NRC), -1, x_NRC.shape[2])
        grad_bias_O = grad_NRO.sum(dim=(0, 1))
        return grad_x_NRC, grad_center_CO, grad_powers_DKCO, grad_bias_O, *grad_values, None

    @staticmethod
    def like(
        x_NRC: Tensor, _center_CO: Tensor, _powers_DKCO: Tensor, bias_O: Tensor, *_: Any
    ) -> tuple[Tensor]:
        return (x_NRC.new_empty(*x_NRC.shape[:2], len(bias_O)),)

    @staticmethod
    def gradients_like(ctx: Any) -> tuple[Tensor, ...]:
        x_NRC, center_CO, powers_DKCO, *values = ctx.saved_tensors
        bias_O = center_CO.new_empty(center_CO.shape[1])
        return tuple(
            torch.empty_like(each) for each in (x_NRC, center_CO, powers_DKCO, bias_O, *values)
        )


_evaluate = Operator(
    _Polynomial,
    "mix_hop_polynomial",
    returns=["y"],
    saves=["x_NRC", "center_CO", "powers_DKCO", "along_NK", "against_NK"],
    plain=plain.mix_hop_polynomial,
)


def _chunks(x_NRC: Tensor, neighbours: Neighbours) -> list[slice]:
    """Some of the R entries at a time."""
    num_nodes, num_entries, channels = x_NRC.shape
    limits = neighbours.limits
    features = min(limits.mix_hop_features, limits.mix_hop_numbers // num_nodes)
    return split_rows(num_entries, features // channels)


def _nest(
    x_MC: Tensor, powers_KCO: Tensor, operator: Tensor, neighbours: Neighbours
) -> list[Tensor]:
    """[N, F] each: s_1 .. s_K with s_j = x V_j + P s_{j+1}."""
    num_nodes = len(operator)
    states_NF = [(x_MC @ powers_KCO[-1]).view(num_nodes, -1)]
    for power_CO in reversed(powers_KCO[:-1]):
        into_NF = (x_MC @ power_CO).view(num_nodes, -1)
        neighbours.multiply_into(operator, states_NF[-1], into_NF, accumulate=True)
        states_NF.append(into_NF)
    return states_NF[::-1]
