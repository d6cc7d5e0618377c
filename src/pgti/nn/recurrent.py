"""Gated recurrent layers whose matrix products are convolutions over a graph.

`DiffusionGRU` (Li et al., Diffusion Convolutional Recurrent Neural Network, ICLR 2018, section 2.3,
DCGRU), where * diffuses:

    r = sigmoid([x, h] * Theta_r + b_r)     u = sigmoid([x, h] * Theta_u + b_u)
    c = tanh([x, r . h] * Theta_c + b_c)    h' = u . h + (1 - u) . c

Without a change of the function, the part of the inputs is computed for many time steps before the
recurrence, because convolutions are linear; and r and u, which see the same state, share its
convolution and have one weight matrix.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from pgti.nn import plain
from pgti.nn.diffusion import DiffusionProduct, diffusion_convolution
from pgti.nn.execution import (
    autocast_dtype,
    refuse_second_derivative,
    without_autocast,
)
from pgti.nn.operators import Operation, Operator
from pgti.nn.sparse import Supports
from pgti.shapes import NBD

__all__ = ["DiffusionGRU", "GatedLayer", "gated_recurrence"]

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


class GatedLayer(nn.Module):
    """The parameters of a gated recurrent layer, a matrix for each term of a graph convolution.

    Weights start as in the released codes of DCRNN and T-GCN: Glorot-uniform on the matrix of the
    gates, which maps [x, h] of all terms, and on that of the candidate; gate biases 1, so that the
    state changes slowly at first; candidate bias 0.

    Args:
        input_channels: C.
        hidden: D.
        terms: H, before the matrices' axes; empty for a single matrix.
    """

    def __init__(self, input_channels: int, hidden: int, *terms: int) -> None:
        super().__init__()
        self.hidden = hidden
        # The last axis of weight_input and bias is (r, u, c), that of weight_gates (r, u).
        self.weight_input = nn.Parameter(torch.empty(*terms, input_channels, 3 * hidden))
        self.weight_gates = nn.Parameter(torch.empty(*terms, hidden, 2 * hidden))
        self.weight_candidate = nn.Parameter(torch.empty(*terms, hidden, hidden))
        self.bias = nn.Parameter(torch.empty(3 * hidden))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial weights from torch's generator."""
        gates = 2 * self.hidden
        fan_in = math.prod(self.weight_input.shape[:-1]) + math.prod(self.weight_gates.shape[:-1])
        gate_bound = math.sqrt(6 / (fan_in + gates))
        candidate_bound = math.sqrt(6 / (fan_in + self.hidden))
        with torch.no_grad():
            self.weight_input[..., :gates].uniform_(-gate_bound, gate_bound)
            self.weight_input[..., gates:].uniform_(-candidate_bound, candidate_bound)
            self.weight_gates.uniform_(-gate_bound, gate_bound)
            self.weight_candidate.uniform_(-candidate_bound, candidate_bound)
            self.bias[:gates] = 1.0
            self.bias[gates:] = 0.0


class DiffusionGRU(GatedLayer):
    """One recurrent layer over a graph: L inputs and a state in, L states out.

    Args:
        input_channels: C.
        hidden: D.
        num_supports: S, operators of the graph.
        hops: K, powers of each operator.
    """

    def __init__(self, input_channels: int, hidden: int, num_supports: int, hops: int) -> None:
        super().__init__(input_channels, hidden, 1 + num_supports * hops)

    def forward(self, x_LNBC: Tensor, h_NBD: NBD | None, supports: Supports) -> tuple[Tensor, NBD]:
        """The states after each of L inputs, and the last of them.

        Args:
            x_LNBC: [L, N, B, C].
            h_NBD: [N, B, D], the state before the first input; None for zeros, which saves the
                products of the first step.
            supports: operators on N nodes.

        Returns:
            [L, N, B, D] and [N, B, D].
        """
        inputs_LNBG = diffusion_convolution(x_LNBC, self.weight_input, self.bias, supports)
        return gated_recurrence(
            inputs_LNBG, h_NBD, self.weight_gates, self.weight_candidate, supports
        )


def gated_recurrence(
    inputs_LNBG: Tensor,
    h_NBD: NBD | None,
    weight_gates: Tensor,
    weight_candidate: Tensor,
    supports: Supports,
) -> tuple[Tensor, NBD]:
    """The recurrence over time after the diffusion of the inputs: all states, and the last.

    Args:
        inputs_LNBG: [L, N, B, 3 D], the terms of inputs and biases in (r, u, c).
        h_NBD: [N, B, D], the state before the first input; None for zeros.
        weight_gates: [H, D, 2 D], a matrix per hop from the state to (r, u).
        weight_candidate: [H, D, D], from the reset state to c.
        supports: S operators on N nodes; H = 1 + S * K.

    Returns:
        [L, N, B, D] and [N, B, D].
    """
    states: tuple[Tensor, Tensor] = _recur(
        inputs_LNBG,
        None if h_NBD is None else h_NBD.contiguous(),
        weight_gates,
        weight_candidate,
        supports,
        autocast_dtype(inputs_LNBG.device),
        torch.is_grad_enabled(),
    )
    return states


class _Recurrence(Operation):
    """The recurrence over time, with a hand-written backward pass through time.

    Per step it stores r, u, c and h, 4 D numbers per node and sample, where autograd would also
    store the 2 H D of the diffused states: those are recomputed. Gradients of weights are summed in
    place.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs_LNBG: Tensor,
        h_NBD: Tensor | None,
        weight_gates: Tensor,
        weight_candidate: Tensor,
        supports: Supports,
        matmul_dtype: torch.dtype | None,
        stores: bool,  # gradients are never enabled in here, and needs_input_grad does not say
    ) -> tuple[Tensor, Tensor]:
        num_steps, num_nodes, batch, _ = inputs_LNBG.shape
        hidden = weight_candidate.shape[1]
        ctx.set_materialize_grads(False)
        stored = num_steps if stores and any(ctx.needs_input_grad) else 1
        states_LNBD = inputs_LNBG.new_empty(num_steps, num_nodes, batch, hidden)
        gates_LNBG = inputs_LNBG.new_empty(stored, num_nodes, batch, 2 * hidden)
        candidates_LNBD = inputs_LNBG.new_empty(stored, num_nodes, batch, hidden)
        reset_NBD = torch.empty_like(states_LNBD[0])
        state_NBD = h_NBD
        with without_autocast(inputs_LNBG.device):
            to_gates = DiffusionProduct(weight_gates, supports, matmul_dtype)
            to_candidate = DiffusionProduct(weight_candidate, supports, matmul_dtype)
            for step in range(num_steps):
                gates_NBG = gates_LNBG[step % stored].copy_(inputs_LNBG[step, ..., : 2 * hidden])
                if state_NBD is not None:
                    to_gates.add_output(state_NBD, gates_NBG)
                r_NBD, u_NBD = gates_NBG.sigmoid_().tensor_split(2, dim=-1)
                c_NBD = candidates_LNBD[step % stored].copy_(inputs_LNBG[step, ..., 2 * hidden :])
                if state_NBD is not None:
                    torch.mul(r_NBD, state_NBD, out=reset_NBD)
                    to_candidate.add_output(reset_NBD, c_NBD)
                    # c + u (h - c) = u h + (1 - u) c
                    torch.lerp(c_NBD.tanh_(), state_NBD, u_NBD, out=states_LNBD[step])
                else:
                    torch.addcmul(c_NBD.tanh_(), u_NBD, c_NBD, value=-1, out=states_LNBD[step])
                state_NBD = states_LNBD[step]
        activations = (gates_LNBG, candidates_LNBD) if stored == num_steps else (None, None)
        ctx.save_for_backward(h_NBD, states_LNBD, *activations, weight_gates, weight_candidate)
        ctx.options = supports, matmul_dtype, stores
        # The last state twice, so that its gradient is not padded to L steps of zeros.
        return states_LNBD, states_LNBD[-1].clone()

    @staticmethod
    def backward(
        ctx: Any,
        grad_states_LNBD: Tensor | None,
        grad_last_NBD: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        first_NBD, states_LNBD, gates_LNBG, candidates_LNBD, *weights = ctx.saved_tensors
        supports, matmul_dtype, _ = ctx.options
        num_steps, hidden = states_LNBD.shape[0], states_LNBD.shape[-1]
        grad_inputs_LNBG = states_LNBD.new_empty(*states_LNBD.shape[:-1], 3 * hidden)
        grad_gates, grad_candidate = (
            torch.zeros_like(weight, dtype=states_LNBD.dtype) for weight in weights
        )
        # Contiguous, whatever the layout of the incoming gradient.
        grad_NBD, grad_before_NBD = (torch.zeros_like(states_LNBD[0]) for _ in range(2))
        if grad_last_NBD is not None:
            grad_NBD.copy_(grad_last_NBD)
        scratch_NBD, reset_NBD = torch.empty_like(states_LNBD[0]), torch.empty_like(states_LNBD[0])
        with without_autocast(states_LNBD.device):
            to_gates, to_candidate = (
                DiffusionProduct(weight, supports, matmul_dtype) for weight in weights
            )
            for step in reversed(range(num_steps)):
                if grad_states_LNBD is not None:
                    grad_NBD.add_(grad_states_LNBD[step])
                before_NBD = states_LNBD[step - 1] if step else first_NBD
                r_NBD, u_NBD = gates_LNBG[step].tensor_split(2, dim=-1)
                c_NBD = candidates_LNBD[step]
                into_r, into_u, into_c = grad_inputs_LNBG[step].tensor_split(3, dim=-1)

                # h' = u . h + (1 - u) . c
                torch.mul(grad_NBD, u_NBD, out=grad_before_NBD)
                torch.sub(grad_NBD, grad_before_NBD, out=scratch_NBD)
                _tanh_backward(scratch_NBD, c_NBD, grad_input=into_c)
                if before_NBD is None:  # h = 0: weights and reset gate had no effect
                    torch.mul(c_NBD, grad_NBD, out=scratch_NBD).neg_()
                    _sigmoid_backward(scratch_NBD, u_NBD, grad_input=into_u)
                    into_r.zero_()
                    break
                torch.sub(before_NBD, c_NBD, out=scratch_NBD).mul_(grad_NBD)
                _sigmoid_backward(scratch_NBD, u_NBD, grad_input=into_u)

                # c = tanh([x, r . h] * Theta_c + b_c)
                torch.mul(r_NBD, before_NBD, out=reset_NBD)
                to_candidate.add_gradients(
                    reset_NBD,
                    into_c.flatten(0, 1),
                    into_weight_HCO=grad_candidate,
                    into_x_NBC=scratch_NBD.zero_(),
                )
                grad_before_NBD.addcmul_(scratch_NBD, r_NBD)
                _sigmoid_backward(scratch_NBD.mul_(before_NBD), r_NBD, grad_input=into_r)

                # r, u = sigmoid([x, h] * Theta_ru + b_ru)
                into_gates_MG = grad_inputs_LNBG[step, ..., : 2 * hidden].flatten(0, 1)
                to_gates.add_gradients(
                    before_NBD,
                    into_gates_MG,
                    into_weight_HCO=grad_gates,
                    into_x_NBC=grad_before_NBD,
                )
                grad_NBD, grad_before_NBD = grad_before_NBD, grad_NBD
        grad_first_NBD = None if first_NBD is None else grad_NBD
        return grad_inputs_LNBG, grad_first_NBD, grad_gates, grad_candidate, None, None, None

    @staticmethod
    def like(
        inputs_LNBG: Tensor,
        _h_NBD: Tensor | None,
        _weight_gates: Tensor,
        weight_candidate: Tensor,
        *options: Any,
    ) -> tuple[Tensor, ...]:
        stores = options[-1]
        hidden = weight_candidate.shape[1]
        states_LNBD = inputs_LNBG.new_empty(*inputs_LNBG.shape[:3], hidden)
        widths = (2 * hidden, hidden)
        stored = [
            inputs_LNBG.new_empty((*inputs_LNBG.shape[:3], width) if stores else (0,))
            for width in widths
        ]
        return states_LNBD, torch.empty_like(states_LNBD[0]), *stored

    @staticmethod
    def gradients_like(ctx: Any) -> tuple[Tensor, ...]:
        _, states_LNBD, _, _, *weights = ctx.saved_tensors
        num_steps, num_nodes, batch, hidden = states_LNBD.shape
        return (
            states_LNBD.new_empty(num_steps, num_nodes, batch, 3 * hidden),
            torch.empty_like(states_LNBD[0]),
            *(torch.empty_like(weight, dtype=states_LNBD.dtype) for weight in weights),
        )


_recur = Operator(
    _Recurrence,
    "diffusion_recurrence",
    returns=["states", "last"],
    saves=["h_NBD", "states", "gates", "candidates", "weight_gates", "weight_candidate"],
    plain=plain.diffusion_recurrence,
    takes_none=True,
)
