"""Recurrent layers over a small graph in few kernels, for GPUs.

A step of `pgti.nn.recurrent` is dozens of small kernels, which a GPU finishes sooner than a host
can launch them. Here all powers of all operators are one dense matrix P [N * H, N], row n * H + k
for power k of node n (`Supports.stacked_powers`), and states are [N, D, B], the batch last:

    P @ state [N, (d b)]   is [(n h), (d b)] in memory, which is [N, (h d), B]
    W^T [G, (h d)] @ that  is [N, G, B], one product of N matrices with the same left factor

so that a diffusion convolution is two products and no copy. Inputs stand beside the states, with
their own rows of the weights. Local derivatives of all steps are computed at once before the
backward pass through time, and gradients of weights at once after it: 8 kernels a step forward,
and 7 backward.

`read_stacked` moves several layers at once, as a wavefront: layer l reads step t at tick t + l,
when the layer below has just read it. All layers are then one layer as wide as all of them, whose
weights have blocks of zeros. A layer that has nothing to read has an update gate of 1, which leaves
its state as it is, exactly. `write_stacked` feeds forecasts back; see there.

Under autocast operands of products are rounded, and states, gates and sums over time are not.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pgti.nn.execution import refuse_second_derivative, without_autocast
from pgti.nn.operators import Operation, Operator
from pgti.nn.stacked_steps import (
    GatedWeights,
    Sums,
    activate,
    add_hop_gradient,
    add_weighed,
    by_gate,
    by_layer,
    hops_of,
    layers_of,
    local_derivatives,
    parts_of_steps,
    step_back,
    weigh,
)

__all__ = ["read_one_stacked", "read_stacked"]


def read_stacked(
    x_TNCB: Tensor, first_NWB: Tensor | None, layers: Sequence[GatedWeights], powers_QN: Tensor
) -> tuple[Tensor, Tensor]:
    """The states of one or several gated layers after T inputs; differentiable once.

    Args:
        x_TNCB: [T, N, C, B].
        first_NWB: [N, layers * D, B], states before the first input; None for zeros.
        layers: of equal width D; a layer reads the states of the one before.
        powers_QN: [N * H, N], in the precision of products.

    Returns:
        The states of the last layer after every input, [T, N, D, B], and of all layers after the
        last, [N, layers * D, B].
    """
    flat = [tensor for layer in layers for tensor in layer]
    states_TNDB, last_NWB = _move(x_TNCB, first_NWB, powers_QN, *flat)
    return states_TNDB, last_NWB


def read_one_stacked(
    x_LNBC: Tensor, h_NBD: Tensor | None, layer: GatedWeights, powers_QN: Tensor
) -> tuple[Tensor, Tensor]:
    """`read_stacked` of one layer, with states as `pgti.nn.recurrent` has them.

    Args:
        x_LNBC: [L, N, B, C].
        h_NBD: [N, B, D], the state before the first input; None for zeros.
        layer: its parameters.
        powers_QN: [N * H, N], in the precision of products.

    Returns:
        [L, N, B, D] and [N, B, D].
    """
    first_NDB = None if h_NBD is None else h_NBD.transpose(1, 2)
    states_LNDB, last_NDB = read_stacked(x_LNBC.transpose(2, 3), first_NDB, [layer], powers_QN)
    return states_LNDB.transpose(2, 3), last_NDB.transpose(1, 2)


class _Wavefront(Operation):
    """`read_stacked`; stores the gates and states of all ticks.

    There are W = layers * D columns of states. A row of S is [h of all layers, x]: W + C columns.
    """

    @staticmethod
    def forward(
        ctx: Any, x_TNCB: Tensor, first_NWB: Tensor | None, powers_QN: Tensor, *flat: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        layers = layers_of(flat)
        num_steps, num_nodes, channels, batch = x_TNCB.shape
        depth, hidden = len(layers), layers[0].candidate_HDD.shape[1]
        ticks, width = num_steps + depth - 1, depth * hidden
        dtype = layers[0].bias_G.dtype
        with without_autocast(x_TNCB.device):
            states_SNKB = torch.zeros(
                ticks + 1, num_nodes, width + channels, batch, dtype=dtype, device=x_TNCB.device
            )
            states_SNKB[:num_steps, :, width:] = x_TNCB
            if first_NWB is not None:
                states_SNKB[0, :, :width] = first_NWB
            biases = torch.stack([layer.bias_G for layer in layers]).view(depth, 3, hidden)
            gates_SNGWB = states_SNKB.new_empty(ticks, num_nodes, 3, width, batch)
            gates_SNGLDB = gates_SNGWB.view(ticks, num_nodes, 3, depth, hidden, batch)
            gates_SNGLDB.copy_(biases.transpose(0, 1).unsqueeze(3))
            for layer in range(1, depth):  # a layer waits, and those below have read all
                gates_SNGLDB[:layer, :, 1, layer] = torch.inf
                gates_SNGLDB[num_steps + layer - 1 :, :, 1, layer - 1] = torch.inf
            to_gates_GK, to_candidate_WK = _packed(layers, channels, powers_QN.dtype)
            for tick in range(ticks):
                gates_NGWB, before_NKB = gates_SNGWB[tick], states_SNKB[tick]
                hops_NKB = hops_of(powers_QN, before_NKB)
                add_weighed(gates_NGWB.view(num_nodes, -1, batch), to_gates_GK, hops_NKB)
                activate(
                    gates_NGWB,
                    before_NKB[:, :width],
                    to_candidate_WK,
                    powers_QN,
                    states_SNKB[tick + 1, :, :width],
                    from_zero=tick == 0 and first_NWB is None,
                )
        ctx.save_for_backward(
            first_NWB, states_SNKB, gates_SNGWB, to_gates_GK, to_candidate_WK, powers_QN, *flat
        )
        return states_SNKB[depth:, :, width - hidden : width], states_SNKB[-1, :, :width].clone()

    @staticmethod
    def backward(
        ctx: Any, grad_states_TNDB: Tensor | None, grad_last_NWB: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        first_NWB, states_SNKB, gates_SNGWB, *packed = ctx.saved_tensors
        to_gates_GK, to_candidate_WK, powers_QN, *flat = packed
        ticks, num_nodes, _, width, batch = gates_SNGWB.shape
        layers = layers_of(flat)
        depth, hidden = len(layers), width // len(layers)
        num_steps = ticks - depth + 1
        grad_NWB = gates_SNGWB.new_zeros(num_nodes, width, batch)
        if grad_last_NWB is not None:
            grad_NWB.copy_(grad_last_NWB)
        with without_autocast(grad_NWB.device):
            local_SNGWB = local_derivatives(gates_SNGWB, states_SNKB[:-1, :, :width], dim=2)
            columns = to_gates_GK.shape[1] // (len(powers_QN) // num_nodes)
            of_states_KG = to_gates_GK.view(3 * width, -1, columns)[..., :width].flatten(1).t()
            for tick in reversed(range(ticks)):
                if grad_states_TNDB is not None and tick >= depth - 1:
                    grad_NWB[:, width - hidden :] += grad_states_TNDB[tick - depth + 1]
                local_NGWB = local_SNGWB[tick]
                if tick == 0 and first_NWB is None:
                    local_NGWB[:, 1:].mul_(grad_NWB.unsqueeze(1))
                    break
                r_NWB = gates_SNGWB[tick, :, 0]
                step_back(local_NGWB, grad_NWB, r_NWB, to_candidate_WK.t(), powers_QN)
                into_NGB = local_NGWB[:, :3].view(num_nodes, 3 * width, batch)
                add_hop_gradient(powers_QN, weigh(of_states_KG, into_NGB), grad_NWB)
            into_SNGLDB = local_SNGWB[:, :, :3].view(ticks, num_nodes, 3, depth, hidden, batch)
            grad_x = None
            if ctx.needs_input_grad[0]:
                into_TNGB = into_SNGLDB[:num_steps, :, :, 0].flatten(2, 3)
                grad_x = _input_gradient(into_TNGB, layers[0].input_HCG, powers_QN)
            reset_SNWB = gates_SNGWB[:, :, 0] * states_SNKB[:-1, :, :width]
            grads = _weight_gradients(into_SNGLDB, states_SNKB, reset_SNWB, layers, powers_QN)
        return grad_x, None if first_NWB is None else grad_NWB, None, *grads

    @staticmethod
    def like(
        x_TNCB: Tensor, _first_NWB: Tensor | None, powers_QN: Tensor, *flat: Tensor
    ) -> tuple[Tensor, ...]:
        layers = layers_of(flat)
        num_steps, num_nodes, channels, batch = x_TNCB.shape
        terms, hidden, _ = layers[0].candidate_HDD.shape
        ticks, width = num_steps + len(layers) - 1, len(layers) * hidden
        bias_G, columns = layers[0].bias_G, width + channels
        return (
            bias_G.new_empty(num_steps, num_nodes, hidden, batch),
            bias_G.new_empty(num_nodes, width, batch),
            bias_G.new_empty(ticks + 1, num_nodes, columns, batch),
            bias_G.new_empty(ticks, num_nodes, 3, width, batch),
            powers_QN.new_empty(3 * width, terms * columns),
            powers_QN.new_empty(width, terms * width),
        )

    @staticmethod
    def gradients_like(ctx: Any) -> tuple[Tensor, ...]:
        _, states_SNKB, gates_SNGWB, *_, powers_QN = ctx.saved_tensors[:6]
        flat = ctx.saved_tensors[6:]
        ticks, num_nodes, _, width, batch = gates_SNGWB.shape
        num_steps = ticks - len(layers_of(flat)) + 1
        channels = states_SNKB.shape[2] - width
        return (
            states_SNKB.new_empty(num_steps, num_nodes, channels, batch),
            states_SNKB.new_empty(num_nodes, width, batch),
            torch.empty_like(powers_QN),
            *(torch.empty_like(each) for each in flat),
        )


_move = Operator(
    _Wavefront,
    "stacked_wavefront",
    returns=["states", "last"],
    saves=[
        "first_NWB",
        "all_states",
        "gates",
        "to_gates",
        "to_candidate",
        "powers_QN",
        "flat",
    ],
    takes_none=True,
)


def _packed(
    layers: Sequence[GatedWeights], channels: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The weights of all layers as those of one: [3 W, H * (W + C)] and [W, H * W]."""
    terms, hidden, _ = layers[0].candidate_HDD.shape
    depth = len(layers)
    width = depth * hidden
    gates = layers[0].bias_G.new_zeros(3, depth, hidden, terms, width + channels, dtype=dtype)
    candidate = gates.new_zeros(depth, hidden, terms, depth, hidden)
    for position, layer in enumerate(layers):
        own = slice(position * hidden, (position + 1) * hidden)
        below = slice(own.start - hidden, own.start) if position else slice(width, None)
        gates[:2, position, :, :, own] = by_gate(layer.gates_HDG, hidden)
        gates[:, position, :, :, below] = by_gate(layer.input_HCG, hidden)
        candidate[position, :, :, position] = layer.candidate_HDD.permute(2, 0, 1)
    return gates.view(3 * width, -1), candidate.view(width, -1)


def _input_gradient(into_TNGB: Tensor, weight_HCG: Tensor, powers_QN: Tensor) -> Tensor:
    """[T, N, C, B]: the gradient of inputs from that of their gates."""
    num_steps, num_nodes, _, batch = into_TNGB.shape
    weight_KG = weight_HCG.flatten(0, 1).to(powers_QN.dtype)
    grad_MKB = weigh(weight_KG, into_TNGB.flatten(0, 1))
    grad_TQF = grad_MKB.view(num_steps, len(powers_QN), -1)
    grad_TNF = torch.bmm(powers_QN.t().expand(num_steps, -1, -1), grad_TQF)
    return grad_TNF.view(num_steps, num_nodes, -1, batch).to(into_TNGB.dtype)


def _weight_gradients(
    into_SNGLDB: Tensor,
    states_SNKB: Tensor,
    reset_SNWB: Tensor,
    layers: Sequence[GatedWeights],
    powers_QN: Tensor,
) -> list[Tensor | None]:
    """Gradients of all parameters, in their order."""
    ticks, num_nodes, _, depth, hidden, batch = into_SNGLDB.shape
    width, terms = depth * hidden, len(powers_QN) // num_nodes
    sums = Sums(into_SNGLDB.dtype)
    bias_LG = into_SNGLDB.sum(dim=(0, 1, 5)).transpose(0, 1).flatten(1)
    for part in parts_of_steps(ticks, len(powers_QN) * states_SNKB[0, 0].numel()):
        into_LGM = into_SNGLDB[part].permute(3, 2, 4, 0, 1, 5).flatten(3).flatten(1, 2)
        into_LGM = into_LGM.to(powers_QN.dtype)
        hops_SNHKB = hops_of(powers_QN, states_SNKB[part]).view(
            -1, num_nodes, terms, *states_SNKB.shape[2:]
        )
        x_KM = by_layer(hops_SNHKB[..., width:, :], 1)[0]
        own_LKM = by_layer(hops_SNHKB[..., :width, :], depth)
        del hops_SNHKB  # hops are the most that a step takes
        for layer, into_GM in enumerate(into_LGM):
            sums.add(f"input {layer}", own_LKM[layer - 1] if layer else x_KM, into_GM)
            sums.add(f"gates {layer}", own_LKM[layer], into_GM[: 2 * hidden])
        del own_LKM
        hops_SNHWB = hops_of(powers_QN, reset_SNWB[part]).view(-1, num_nodes, terms, width, batch)
        reset_LKM = by_layer(hops_SNHWB, depth)
        del hops_SNHWB
        for layer, into_GM in enumerate(into_LGM):
            sums.add(f"candidate {layer}", reset_LKM[layer], into_GM[2 * hidden :])
        del reset_LKM
    return sums.of_layers(layers, bias_LG)
