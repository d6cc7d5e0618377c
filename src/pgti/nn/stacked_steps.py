"""What the layers of `pgti.nn.stacked` do at each step, forward and backward, and at once for all.

P [N * H, N] has all powers of all operators, row n * H + k for power k of node n, and states are
[N, D, B], the batch last; see there.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from pgti.nn.execution import add_product, split_rows

__all__ = [
    "GatedWeights",
    "Sums",
    "activate",
    "add_hop_gradient",
    "add_weighed",
    "by_gate",
    "by_layer",
    "hops_of",
    "layers_of",
    "local_derivatives",
    "parts_of_steps",
    "step_back",
    "weigh",
    "write",
]

_sigmoid_backward = torch.ops.aten.sigmoid_backward
_tanh_backward = torch.ops.aten.tanh_backward

_AT_ONCE = 1 << 27
"""Numbers of hops that are computed at once for the gradients of weights: 512 MiB in float32."""


class GatedWeights(NamedTuple):
    """Parameters of a layer, as those of `pgti.nn.recurrent.GatedLayer`.

    Attributes:
        input_HCG: [H, C, 3 D], from inputs to (r, u, c).
        gates_HDG: [H, D, 2 D], from the state to (r, u).
        candidate_HDD: [H, D, D], from the reset state to c.
        bias_G: [3 D].
    """

    input_HCG: Tensor
    gates_HDG: Tensor
    candidate_HDD: Tensor
    bias_G: Tensor

    @classmethod
    def of(cls, layer: nn.Module) -> Self:
        """Those of a `GatedLayer`; where a weight has a single matrix, H is 1."""
        # Attributes, which `torch.func.functional_call` replaces by any tensors.
        names = ("weight_input", "weight_gates", "weight_candidate", "bias")
        *weights, bias_G = (getattr(layer, name) for name in names)
        input_HCG, gates_HDG, candidate_HDD = (each.view(-1, *each.shape[-2:]) for each in weights)
        return cls(input_HCG, gates_HDG, candidate_HDD, bias_G)


def write(
    out: Tensor, function: Callable[..., Tensor], *args: Tensor, name: str = "out", **options: Any
) -> None:
    """Write the result of a function to memory that may be strided, its argument `name`."""
    if torch.compiler.is_compiling():  # it knows contiguous memory only, and fuses the copy
        out.copy_(function(*args, **options))
    else:
        function(*args, **options, **{name: out})


def layers_of(flat: Sequence[Tensor]) -> list[GatedWeights]:
    """The parameters of each layer among those of all."""
    return [GatedWeights(*flat[first : first + 4]) for first in range(0, len(flat), 4)]


def hops_of(powers_QN: Tensor, states_NDB: Tensor) -> Tensor:
    """All hops of a state, [N, H * D, B], or of the states [T, N, D, B] of T steps."""
    *steps, num_nodes, width, batch = states_NDB.shape
    states_NF = states_NDB.reshape(*steps, num_nodes, width * batch).to(powers_QN.dtype)
    if steps:
        hops_TQF = torch.bmm(powers_QN.expand(*steps, -1, -1), states_NF)
        return hops_TQF.view(*steps, num_nodes, -1, batch)
    return torch.mm(powers_QN, states_NF).view(num_nodes, -1, batch)


def add_hop_gradient(powers_QN: Tensor, grad_NKB: Tensor, into_NDB: Tensor) -> None:
    """Add P^T times the gradient of a state's hops to that of the state, contiguous."""
    grad_QF = grad_NKB.view(len(powers_QN), -1)
    add_product(into_NDB.view(len(into_NDB), -1), powers_QN.t(), grad_QF)


def weigh(weight_GK: Tensor, hops_NKB: Tensor) -> Tensor:
    """[N, G, B]: the same weights for the hops of every node."""
    return torch.bmm(weight_GK.expand(len(hops_NKB), -1, -1), hops_NKB.to(weight_GK.dtype))


def add_weighed(into_NGB: Tensor, weight_GK: Tensor, hops_NKB: Tensor) -> None:
    """Add W^T times hops to gates."""
    add_product(into_NGB, weight_GK.expand(len(hops_NKB), -1, -1), hops_NKB)


def activate(
    gates_NGDB: Tensor,
    state_NDB: Tensor,
    weight_DK: Tensor,
    powers_QN: Tensor,
    out_NDB: Tensor,
    *,
    from_zero: bool,
) -> None:
    """The end of a step: r, u and c in place of their sums, and the next state.

    Args:
        gates_NGDB: [N, 3, D, B], sums of inputs and gates; that of c lacks the reset state's part.
        state_NDB: [N, D, B], before the step.
        weight_DK: [D, H * D], of the reset state.
        powers_QN: P.
        out_NDB: the next state.
        from_zero: the state is zero, so that the reset gate has no effect.
    """
    r_NDB, u_NDB, c_NDB = gates_NGDB.unbind(dim=1)
    gates_NGDB[:, :2].sigmoid_()
    if from_zero:
        write(out_NDB, torch.addcmul, c_NDB.tanh_(), u_NDB, c_NDB, value=-1)
        return
    reset_NDB = torch.empty(state_NDB.shape, dtype=powers_QN.dtype, device=state_NDB.device)
    write(reset_NDB, torch.mul, r_NDB, state_NDB)
    add_weighed(c_NDB, weight_DK, hops_of(powers_QN, reset_NDB))
    # c + u (h - c) = u h + (1 - u) c
    write(out_NDB, torch.lerp, c_NDB.tanh_(), state_NDB, u_NDB)


def local_derivatives(gates: Tensor, before: Tensor, dim: int) -> Tensor:
    """What a gradient is multiplied by on its way into r, u and c, and u; of all steps at once.

    Args:
        gates: r, u and c, along `dim`.
        before: the states before the steps, without that dimension.
        dim: the dimension.

    Returns:
        Four entries along `dim`: h r (1 - r) for r, of the gradient of r . h; then of the gradient
        of h': (h - c) u (1 - u) for u, (1 - u) (1 - c^2) for c, and u for h.
    """
    r, u, c = gates.unbind(dim)
    shape = list(gates.shape)
    shape[dim] = 4
    local = gates.new_empty(shape)
    into_r, into_u, into_c, into_h = local.unbind(dim)
    write(into_h, torch.sub, before, c)
    write(into_u, _sigmoid_backward, into_h, u, name="grad_input")
    write(into_c, _tanh_backward, 1 - u, c, name="grad_input")
    write(into_r, _sigmoid_backward, before, r, name="grad_input")
    into_h.copy_(u)
    return local


def step_back(
    local_NGDB: Tensor, grad_NDB: Tensor, r_NDB: Tensor, weight_KD: Tensor, powers_QN: Tensor
) -> None:
    """One step back in time: local derivatives become gradients of the sums, in place.

    The gradient of h' becomes that of h, but for what goes through the gates of this step.

    Args:
        local_NGDB: [N, 4, D, B], of `local_derivatives`.
        grad_NDB: [N, D, B].
        r_NDB: the reset gate.
        weight_KD: [H * D, D], of the reset state.
        powers_QN: P.
    """
    local_NGDB[:, 1:].mul_(grad_NDB.unsqueeze(1))
    grad_hops_NKB = weigh(weight_KD, local_NGDB[:, 2])
    grad_reset_NF = torch.mm(powers_QN.t(), grad_hops_NKB.view(len(powers_QN), -1))
    grad_reset_NDB = grad_reset_NF.view(r_NDB.shape).to(r_NDB.dtype)
    local_NGDB[:, 0].mul_(grad_reset_NDB)
    write(grad_NDB, torch.addcmul, local_NGDB[:, 3], grad_reset_NDB, r_NDB)


class Sums:
    """Gradients of weights, each a product over all steps, nodes and batch entries, in parts."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._totals: dict[str, Tensor] = {}

    def add(self, name: str, left_KM: Tensor, right_GM: Tensor) -> None:
        """Add left @ right^T, [K, G]."""
        if name in self._totals:
            add_product(self._totals[name], left_KM, right_GM.t())
        else:
            self._totals[name] = (left_KM @ right_GM.t()).to(self._dtype)

    def of(self, name: str, like: Tensor) -> Tensor | None:
        """A gradient; None if nothing was added."""
        total = self._totals.get(name)
        return None if total is None else total.view(like.shape).to(like.dtype)

    def of_layers(self, layers: Sequence[GatedWeights], bias_LG: Tensor) -> list[Tensor | None]:
        """Gradients of all parameters, in their order; those of biases are given."""
        grads: list[Tensor | None] = []
        for position, (layer, bias_G) in enumerate(zip(layers, bias_LG, strict=True)):
            grads += [
                self.of(f"input {position}", layer.input_HCG),
                self.of(f"gates {position}", layer.gates_HDG),
                self.of(f"candidate {position}", layer.candidate_HDD),
                bias_G.to(layer.bias_G.dtype),
            ]
        return grads


def parts_of_steps(num_steps: int, numbers_per_step: int) -> list[slice]:
    """Steps whose hops are computed at once."""
    return split_rows(num_steps, _AT_ONCE // numbers_per_step)


def by_gate(weight_HCG: Tensor, hidden: int) -> Tensor:
    """[gates, D, H, C] of a weight [H, C, gates * D]."""
    terms, channels, _ = weight_HCG.shape
    return weight_HCG.view(terms, channels, -1, hidden).permute(2, 3, 0, 1)


def by_layer(hops_SNHWB: Tensor, depth: int) -> Tensor:
    """[layers, H * D, S * N * B], contiguous: the factors of gradients of weights."""
    hops_SNHLDB = hops_SNHWB.view(*hops_SNHWB.shape[:3], depth, -1, hops_SNHWB.shape[-1])
    return hops_SNHLDB.permute(3, 2, 4, 0, 1, 5).flatten(3).flatten(1, 2)
