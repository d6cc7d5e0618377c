"""Recurrent layers over a small graph that read their own forecasts, in few kernels.

The layers of `pgti.nn.stacked` in a decoder: at every step each layer moves in turn, and the first
reads an affine map of the last one's state, the forecast. Convolutions are linear, so that the map
is folded into the weights of the first layer: its gates read hops of the last state, which the last
layer needs anyway. Hops of all layers' states stand side by side, [N, H, layers, D, B], and a layer
that has moved writes its own anew; so each layer's step takes 8 kernels forward, and 7 backward.
"""

from collections.abc import Sequence
from itertools import groupby
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
    write,
)

__all__ = ["write_stacked"]


def write_stacked(
    first_NWB: Tensor,
    truths_TNCB: Tensor | None,
    is_fed: Sequence[bool],
    projection: tuple[Tensor, Tensor],
    layers: Sequence[GatedWeights],
    powers_QN: Tensor,
    row_sums_NH: Tensor,
) -> tuple[Tensor, Tensor]:
    """The states of T steps whose input is the forecast before, or the truth; differentiable once.

    Args:
        first_NWB: [N, layers * D, B], states before the first step.
        truths_TNCB: [T, N, C, B], inputs of the steps that are not fed a forecast, and zeros
            elsewhere; None if all are zeros. They get no gradient.
        is_fed: for each of T steps, whether its input is the forecast before it.
        projection: weight [C, D] and bias [C] from the last layer's state to a forecast.
        layers: of equal width D.
        powers_QN: [N * H, N], in the precision of products.
        row_sums_NH: [N, H], sums of its rows: the hops of a constant.

    Returns:
        The states of the last layer, [T, N, D, B], and those of all layers after the last step,
        [N, layers * D, B].
    """
    weight_CD, bias_C = projection
    with without_autocast(first_NWB.device):
        folded_HDG = weight_CD.t() @ layers[0].input_HCG
        constant_NG = row_sums_NH @ (bias_C @ layers[0].input_HCG)
    flat = [tensor for layer in layers for tensor in layer]
    states_TNDB, last_NWB = _feed_back(
        first_NWB, truths_TNCB, tuple(is_fed), powers_QN, folded_HDG, constant_NG, *flat
    )
    return states_TNDB, last_NWB


def _runs(is_fed: Sequence[bool]) -> list[slice]:
    """The runs of steps that are fed forecasts."""
    steps = groupby(enumerate(is_fed), key=lambda step: step[1])
    runs = [[index for index, _ in run] for fed, run in steps if fed]
    return [slice(run[0], run[-1] + 1) for run in runs]


class _Feedback(Operation):
    """`write_stacked`; stores the gates and states of all steps.

    Gates are [T, layers, N, 3, D, B], states before and after [T + 1, N, layers, D, B].
    """

    @staticmethod
    def forward(
        ctx: Any,
        first_NWB: Tensor,
        truths_TNCB: Tensor | None,
        is_fed: tuple[bool, ...],
        powers_QN: Tensor,
        folded_HDG: Tensor,
        constant_NG: Tensor,
        *flat: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        layers, num_steps = layers_of(flat), len(is_fed)
        depth, hidden = len(layers), layers[0].candidate_HDD.shape[1]
        num_nodes, _, batch = first_NWB.shape
        with without_autocast(first_NWB.device):
            states_SNLDB = first_NWB.new_empty(num_steps + 1, num_nodes, depth, hidden, batch)
            states_SNLDB[0] = first_NWB.view(num_nodes, depth, hidden, batch)
            gates_TLNGDB = first_NWB.new_empty(num_steps, depth, num_nodes, 3, hidden, batch)
            biases = torch.stack([layer.bias_G for layer in layers])
            gates_TLNGDB.copy_(biases.view(depth, 1, 3, hidden, 1))
            for run in _runs(is_fed):
                gates_TLNGDB[run, 0] += constant_NG.view(num_nodes, 3, hidden, 1)
            if truths_TNCB is not None:
                weight_GK = by_gate(layers[0].input_HCG, hidden).flatten(2).flatten(0, 1)
                hops_TNKB = hops_of(powers_QN, truths_TNCB)
                taught_MGB = weigh(weight_GK.to(powers_QN.dtype), hops_TNKB.flatten(0, 1))
                gates_TLNGDB[:, 0] += taught_MGB.view(num_steps, *gates_TLNGDB.shape[2:])
            to_gates_LGK, fed_GK = _packed(layers, folded_HDG, powers_QN.dtype)
            to_candidate = [
                each.candidate_HDD.flatten(0, 1).t().to(fed_GK.dtype) for each in layers
            ]
            hops_QF = hops_of(powers_QN, states_SNLDB[0].flatten(1, 2)).view(len(powers_QN), -1)
            hops_NKB = hops_QF.view(num_nodes, -1, batch)
            columns = hidden * batch
            for step, fed in enumerate(is_fed):
                for layer in range(depth):
                    gates_NGDB = gates_TLNGDB[step, layer]
                    weight_GK = to_gates_LGK[layer] if layer or not fed else fed_GK
                    add_weighed(gates_NGDB.view(num_nodes, -1, batch), weight_GK, hops_NKB)
                    after_NDB = states_SNLDB[step + 1, :, layer]
                    activate(
                        gates_NGDB,
                        states_SNLDB[step, :, layer],
                        to_candidate[layer],
                        powers_QN,
                        after_NDB,
                        from_zero=False,
                    )
                    if (step, layer) != (num_steps - 1, depth - 1):
                        own_QF = hops_QF[:, layer * columns : (layer + 1) * columns]
                        after_NF = after_NDB.flatten(1).to(powers_QN.dtype)
                        write(own_QF, torch.mm, powers_QN, after_NF)
        ctx.save_for_backward(
            truths_TNCB,
            states_SNLDB,
            gates_TLNGDB,
            to_gates_LGK,
            fed_GK,
            powers_QN,
            folded_HDG,
            *flat,
        )
        ctx.options = (is_fed,)
        return states_SNLDB[1:, :, -1], states_SNLDB[-1].flatten(1, 2).clone()

    @staticmethod
    def backward(
        ctx: Any, grad_states_TNDB: Tensor | None, grad_last_NWB: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        (
            truths_TNCB,
            states_SNLDB,
            gates_TLNGDB,
            to_gates_LGK,
            fed_GK,
            powers_QN,
            folded_HDG,
            *flat,
        ) = ctx.saved_tensors
        num_steps, depth, num_nodes, *_, batch = gates_TLNGDB.shape
        (is_fed,), layers = ctx.options, layers_of(flat)
        grad_NLDB = torch.zeros_like(states_SNLDB[0])
        if grad_last_NWB is not None:
            grad_NLDB.copy_(grad_last_NWB.view_as(grad_NLDB))
        with without_autocast(grad_NLDB.device):
            before_TLNDB = states_SNLDB[:-1].transpose(1, 2)
            local_TLNGDB = local_derivatives(gates_TLNGDB, before_TLNDB, dim=3)
            to_candidate = [each.candidate_HDD.flatten(0, 1).to(fed_GK.dtype) for each in layers]
            for step in reversed(range(num_steps)):
                for layer in reversed(range(depth)):
                    grad_NDB, local_NGDB = grad_NLDB[:, layer], local_TLNGDB[step, layer]
                    if layer == depth - 1 and grad_states_TNDB is not None:
                        grad_NDB += grad_states_TNDB[step]
                    r_NDB = gates_TLNGDB[step, layer, :, 0]
                    step_back(local_NGDB, grad_NDB, r_NDB, to_candidate[layer], powers_QN)
                    weight_GK = to_gates_LGK[layer] if layer or not is_fed[step] else fed_GK
                    into_NGB = local_NGDB[:, :3].view(num_nodes, -1, batch)
                    add_hop_gradient(powers_QN, weigh(weight_GK.t(), into_NGB), grad_NLDB)
            into_TLNGDB = local_TLNGDB[:, :, :, :3]
            reset_TLNDB = gates_TLNGDB[:, :, :, 0] * before_TLNDB
            constant_N3D = torch.zeros_like(local_TLNGDB[0, 0, :, :3, :, 0])
            for run in _runs(is_fed):
                constant_N3D += into_TLNGDB[run, 0].sum(dim=(0, 4))
            folded, *grads = _weight_gradients(
                into_TLNGDB,
                states_SNLDB,
                reset_TLNDB,
                truths_TNCB,
                is_fed,
                layers,
                folded_HDG,
                powers_QN,
            )
        grad_first = grad_NLDB.flatten(1, 2)
        return grad_first, None, None, None, folded, constant_N3D.flatten(1), *grads

    @staticmethod
    def like(
        first_NWB: Tensor,
        _truths_TNCB: Tensor | None,
        is_fed: tuple[bool, ...],
        powers_QN: Tensor,
        _folded_HDG: Tensor,
        _constant_NG: Tensor,
        *flat: Tensor,
    ) -> tuple[Tensor, ...]:
        layers, num_steps = layers_of(flat), len(is_fed)
        terms, hidden, _ = layers[0].candidate_HDD.shape
        num_nodes, width, batch = first_NWB.shape
        depth, columns = len(layers), terms * width
        return (
            first_NWB.new_empty(num_steps, num_nodes, hidden, batch),
            torch.empty_like(first_NWB, memory_format=torch.contiguous_format),
            first_NWB.new_empty(num_steps + 1, num_nodes, depth, hidden, batch),
            first_NWB.new_empty(num_steps, depth, num_nodes, 3, hidden, batch),
            powers_QN.new_empty(depth, 3 * hidden, columns),
            powers_QN.new_empty(3 * hidden, columns),
        )

    @staticmethod
    def gradients_like(ctx: Any) -> tuple[Tensor, ...]:
        truths_TNCB, states_SNLDB, _, _, _, powers_QN, folded_HDG, *flat = ctx.saved_tensors
        _, num_nodes, depth, hidden, batch = states_SNLDB.shape
        return (
            states_SNLDB.new_empty(num_nodes, depth * hidden, batch),
            powers_QN if truths_TNCB is None else torch.empty_like(truths_TNCB),  # not needed
            torch.empty_like(powers_QN),
            torch.empty_like(folded_HDG),
            states_SNLDB.new_empty(num_nodes, 3 * hidden),
            *(torch.empty_like(each) for each in flat),
        )


_feed_back = Operator(
    _Feedback,
    "stacked_decoder",
    returns=["states", "last"],
    saves=[
        "truths_TNCB",
        "all_states",
        "gates",
        "to_gates",
        "to_fed",
        "powers_QN",
        "folded_HDG",
        "flat",
    ],
    takes_none=True,
)


def _packed(
    layers: Sequence[GatedWeights], folded_HDG: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The weights of every layer's gates, as those of hops of all states, [layers, 3 D, H * W].

    That of c has none of the layer's own state. Beside them the first layer's where it is fed.
    """
    terms, hidden, _ = layers[0].candidate_HDD.shape
    depth = len(layers)
    gates = folded_HDG.new_zeros(depth, 3, hidden, terms, depth, hidden, dtype=dtype)
    for position, layer in enumerate(layers):
        gates[position, :2, :, :, position] = by_gate(layer.gates_HDG, hidden)
        if position:
            gates[position, :, :, :, position - 1] = by_gate(layer.input_HCG, hidden)
    fed = gates[0].clone()
    fed[:, :, :, -1] += by_gate(folded_HDG, hidden)
    return gates.view(depth, 3 * hidden, -1), fed.view(3 * hidden, -1)


def _weight_gradients(
    into_TLNGDB: Tensor,
    states_SNLDB: Tensor,
    reset_TLNDB: Tensor,
    truths_TNCB: Tensor | None,
    is_fed: Sequence[bool],
    layers: Sequence[GatedWeights],
    folded_HDG: Tensor,
    powers_QN: Tensor,
) -> list[Tensor | None]:
    """Gradients of the folded weight and of all parameters, in their order."""
    num_steps, depth, num_nodes, _, hidden, batch = into_TLNGDB.shape
    dtype, terms = powers_QN.dtype, len(powers_QN) // num_nodes
    rows = num_nodes * batch
    sums = Sums(into_TLNGDB.dtype)
    bias_LG = into_TLNGDB.sum(dim=(0, 2, 5)).flatten(1)
    for part in parts_of_steps(num_steps, 2 * len(powers_QN) * depth * hidden * batch):
        steps = part.stop - part.start
        into_LGM = into_TLNGDB[part].permute(1, 3, 4, 0, 2, 5).flatten(3).flatten(1, 2).to(dtype)
        states_SNWB = states_SNLDB[part.start : part.stop + 1].flatten(2, 3)
        hops_SNHWB = hops_of(powers_QN, states_SNWB).view(steps + 1, num_nodes, terms, -1, batch)
        own_LKM = by_layer(hops_SNHWB, depth)
        del hops_SNHWB  # hops are the most that a step takes
        before_LKM, after_LKM = own_LKM[..., : steps * rows], own_LKM[..., rows:]
        for layer, into_GM in enumerate(into_LGM):
            sums.add(f"gates {layer}", before_LKM[layer], into_GM[: 2 * hidden])
            if layer:
                sums.add(f"input {layer}", after_LKM[layer - 1], into_GM)
        for run in _runs(is_fed[part]):
            columns = slice(run.start * rows, run.stop * rows)
            sums.add("folded", before_LKM[-1][:, columns], into_LGM[0][:, columns])
        del own_LKM, before_LKM, after_LKM
        reset_NDB = reset_TLNDB[part].flatten(0, 1)
        reset_MNKB = hops_of(powers_QN, reset_NDB).view(steps, depth, num_nodes, -1, batch)
        reset_LKM = reset_MNKB.permute(1, 3, 0, 2, 4).flatten(2)
        del reset_MNKB
        for layer, into_GM in enumerate(into_LGM):
            sums.add(f"candidate {layer}", reset_LKM[layer], into_GM[2 * hidden :])
        del reset_LKM
        if truths_TNCB is not None:
            hops_TNKB = hops_of(powers_QN, truths_TNCB[part])
            sums.add("input 0", hops_TNKB.permute(2, 0, 1, 3).flatten(1), into_LGM[0])
    folded = sums.of("folded", folded_HDG)
    if folded is None:
        folded = torch.zeros_like(folded_HDG)
    return [folded, *sums.of_layers(layers, bias_LG)]
