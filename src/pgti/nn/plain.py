"""What `Operator`s compute, in torch's own operators, for `torch.export`.

A program that is exported runs where pgti is not installed, in torch, ONNX Runtime or elsewhere, on
batches of any size. So here nothing is written to memory that is there, no product is cut into
pieces, loops over time are unrolled, and a product with a graph is `Supports.multiply` or sums of
gathered rows. Each function takes the arguments of its operator and gives the same results, up to
rounding; those that say how to store or cut are left unused.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pgti.nn.learned_graph import Neighbours
    from pgti.nn.sparse import Supports

__all__ = [
    "adaptive_convolution",
    "diffusion_convolution",
    "diffusion_recurrence",
    "gated_convolution",
    "gated_window_convolution",
    "graph_recurrence",
    "learned_product",
    "learned_sample",
    "mix_hop_polynomial",
]


def diffusion_convolution(
    x_LNBC: Tensor, weight_HCO: Tensor, bias_O: Tensor, supports: "Supports", *_: Any
) -> Tensor:
    """See `pgti.nn.diffusion`: all states in one product a hop."""
    steps, num_nodes, batch, channels = x_LNBC.shape
    x_NMC = x_LNBC.transpose(0, 1).reshape(num_nodes, steps * batch, channels)
    y_NMO = _diffused(x_NMC, weight_HCO, supports) + bias_O
    return y_NMO.view(num_nodes, steps, batch, -1).transpose(0, 1)


def _diffused(x_NMC: Tensor, weight_HCO: Tensor, supports: "Supports") -> Tensor:
    """sum_k S^k x W_k, [N, M, O]: all hops side by side, in one product with the weights."""
    num_terms, channels, _ = weight_HCO.shape
    num_nodes, rows, _ = x_NMC.shape
    hops_NF = [x_NMC.flatten(1)]
    for index in range(len(supports)):
        state_NF = hops_NF[0]
        for _ in range((num_terms - 1) // len(supports)):
            state_NF = supports.multiply(index, state_NF)
            hops_NF.append(state_NF)
    hops_NHMC = torch.stack(hops_NF, dim=1).view(num_nodes, num_terms, rows, channels)
    return hops_NHMC.transpose(1, 2).flatten(2) @ weight_HCO.flatten(0, 1)


def _mixed(x_NMC: Tensor, supports: "Supports", index: int = 0) -> Tensor:
    """S_index @ x."""
    return supports.multiply(index, x_NMC.flatten(1)).view(x_NMC.shape)


def diffusion_recurrence(
    inputs_LNBG: Tensor,
    h_NBD: Tensor | None,
    weight_gates: Tensor,
    weight_candidate: Tensor,
    supports: "Supports",
    *_: Any,
) -> tuple[Tensor, Tensor]:
    """See `pgti.nn.recurrent.gated_recurrence`."""
    split, states = 2 * weight_candidate.shape[1], []
    for inputs_NBG in inputs_LNBG.unbind():
        into_gates, into_c = inputs_NBG.tensor_split([split], dim=-1)
        if h_NBD is None:
            h_NBD = _first_state(into_gates, into_c)
        else:
            gates = torch.sigmoid(into_gates + _diffused(h_NBD, weight_gates, supports))
            r_NBD, u_NBD = gates.tensor_split(2, dim=-1)
            reset = _diffused(r_NBD * h_NBD, weight_candidate, supports)
            h_NBD = _next_state(h_NBD, u_NBD, torch.tanh(into_c + reset))
        states.append(h_NBD)
    return torch.stack(states), states[-1]


def graph_recurrence(
    x_LNBC: Tensor,
    h_NBD: Tensor | None,
    weight_input: Tensor,
    weight_state: Tensor,
    supports: "Supports",
    *_: Any,
) -> Tensor:
    """See `pgti.nn.graph_gru`."""
    split, states = 2 * len(weight_state), []
    of_h, of_h_to_c = weight_state.tensor_split([split], dim=1)
    for x_NBC in x_LNBC.unbind():
        into_gates, into_c = (x_NBC @ weight_input).tensor_split([split], dim=-1)
        if h_NBD is None:
            h_NBD = _first_state(into_gates, into_c)
        else:
            gates = torch.sigmoid(into_gates + _mixed(h_NBD, supports) @ of_h)
            r_NBD, u_NBD = gates.tensor_split(2, dim=-1)
            reset = _mixed(r_NBD * h_NBD, supports) @ of_h_to_c
            h_NBD = _next_state(h_NBD, u_NBD, torch.tanh(into_c + reset))
        states.append(h_NBD)
    return torch.stack(states)


def _first_state(into_gates: Tensor, into_c: Tensor) -> Tensor:
    """(1 - u) . c, after a state of zeros."""
    u = torch.sigmoid(into_gates.tensor_split(2, dim=-1)[1])
    return (1 - u) * torch.tanh(into_c)


def _next_state(h: Tensor, u: Tensor, c: Tensor) -> Tensor:
    """The state u . h + (1 - u) . c."""
    return c + u * (h - c)


def gated_convolution(
    x_LNBC: Tensor, weight_KCG: Tensor, bias_G: Tensor, dilation: int, *_: Any
) -> tuple[Tensor, Tensor]:
    """See `pgti.nn.gated.gated_convolution`."""
    length = len(x_LNBC) - (len(weight_KCG) - 1) * dilation
    gates = bias_G
    for tap, weight_CG in enumerate(weight_KCG):
        gates = gates + x_LNBC[tap * dilation : tap * dilation + length] @ weight_CG
    a, b = gates.tensor_split(2, dim=-1)
    z_LNBD = torch.tanh(a) * torch.sigmoid(b)
    return z_LNBD, z_LNBD[-1]


def gated_window_convolution(
    x_MLC: Tensor, weight_KCG: Tensor, bias_G: Tensor, tanh: bool, *_: Any
) -> Tensor:
    """See `pgti.nn.gated.gated_window_convolution`, of M rows."""
    steps = x_MLC.shape[1] - len(weight_KCG) + 1
    gates = bias_G
    for tap, weight_CG in enumerate(weight_KCG):
        gates = gates + x_MLC[:, tap : tap + steps] @ weight_CG
    a, b = gates.tensor_split(2, dim=-1)
    return (torch.tanh(a) if tanh else a) * torch.sigmoid(b)


def adaptive_convolution(
    x_LNBC: Tensor,
    weight_KCO: Tensor,
    powers_NP: Tensor,
    pool_RN: Tensor | None,
    *_: Any,
) -> Tensor:
    """See `pgti.nn.adaptive.adaptive_convolution`."""
    steps, num_nodes, batch, channels = x_LNBC.shape
    x_NF = x_LNBC.transpose(0, 1).reshape(num_nodes, -1)
    pooled_RF = x_NF if pool_RN is None else pool_RN @ x_NF
    num_pooled, x_MC = len(pooled_RF), pooled_RF.reshape(-1, channels)
    weighted_PF = torch.cat([(x_MC @ each).view(num_pooled, -1) for each in weight_KCO])
    y_NF = powers_NP @ weighted_PF
    return y_NF.view(num_nodes, steps, batch, -1).transpose(0, 1)


def learned_product(
    values_NK: Tensor, x_NF: Tensor, neighbours: "Neighbours", transposed: bool
) -> Tensor:
    """See `pgti.nn.learned_graph.Neighbours.multiply`."""
    total = torch.zeros_like(x_NF)
    for index_N, value_N in zip(
        neighbours.index_NK.unbind(dim=1), values_NK.unbind(dim=1), strict=True
    ):
        if transposed:
            # ONNX Runtime adds elements in one thread, but whole rows, `index_add`, in several.
            index_NF = index_N[:, None].expand_as(x_NF)
            total = total.scatter_add(0, index_NF, value_N[:, None] * x_NF)
        else:
            total = total + value_N[:, None] * x_NF.index_select(0, index_N)
    return total


def learned_sample(p_NF: Tensor, q_NF: Tensor, neighbours: "Neighbours") -> Tensor:
    """See `pgti.nn.learned_graph.Neighbours.sample`."""
    columns = neighbours.index_NK.unbind(dim=1)
    return torch.stack([(p_NF * q_NF.index_select(0, each)).sum(dim=1) for each in columns], dim=1)


def mix_hop_polynomial(
    x_NRC: Tensor,
    center_CO: Tensor,
    powers_DKCO: Tensor,
    bias_O: Tensor,
    along_NK: Tensor,
    against_NK: Tensor,
    neighbours: "Neighbours",
) -> Tensor:
    """See `pgti.nn.mix_hop`."""
    y_NRO = x_NRC @ center_CO + bias_O
    directions: Sequence[tuple[Tensor, bool]] = ((along_NK, False), (against_NK, True))
    for (values_NK, transposed), powers_KCO in zip(directions, powers_DKCO, strict=True):
        state_NRO = x_NRC @ powers_KCO[-1]
        for power_CO in reversed(powers_KCO[:-1]):
            state_NF = state_NRO.flatten(1)
            product = learned_product(values_NK, state_NF, neighbours, transposed)
            state_NRO = x_NRC @ power_CO + product.view(state_NRO.shape)
        product = learned_product(values_NK, state_NRO.flatten(1), neighbours, transposed)
        y_NRO = y_NRO + product.view(state_NRO.shape)
    return y_NRO
