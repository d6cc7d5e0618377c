"""`GraphGRU`: a gated recurrent layer with one operator of a graph.

Zhao et al., T-GCN: A Temporal Graph Convolutional Network for Traffic Prediction, IEEE T-ITS 2020,
in the form of its released code. Its equations are those of `pgti.nn.recurrent`, where [x, h] *
Theta is S [x, h] Theta, S the graph's operator.
"""

from typing import Any

import torch
from torch import Tensor

from pgti.nn import plain
from pgti.nn.execution import (
    add_product,
    autocast_dtype,
    hop_dtype,
    refuse_second_derivative,
    without_autocast,
)
from pgti.nn.operators import Operation, Operator
from pgti.nn.recurrent import GatedLayer
from pgti.nn.sparse import Supports
from pgti.nn.stacked import read_one_stacked
from pgti.nn.stacked_steps import GatedWeights
from pgti.shapes import NBD

__all__ = ["GraphGRU"]

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


class GraphGRU(GatedLayer):
    """One recurrent layer over a graph: L inputs and a state in, L states out; differentiable once.

    Unlike `DiffusionGRU` it has one operator, without higher powers or an identity term: a sensor
    sees its own past through the operator's diagonal and the update gate.

    Args:
        input_channels: C.
        hidden: D.
    """

    def forward(self, x_LNBC: Tensor, h_NBD: NBD | None, supports: Supports) -> list[NBD]:
        """The states after each of L inputs.

        Under autocast products are rounded; states and sums stay in full precision.

        Args:
            x_LNBC: [L, N, B, C].
            h_NBD: [N, B, D], the state before the first input; None for zeros, which saves the
                products of the first step.
            supports: one operator on N nodes.

        Returns:
            L tensors [N, B, D], in the precision of the supports.
        """
        dtype = autocast_dtype(x_LNBC.device)
        operator_NN = supports.stacked_powers(1, dtype, identity=False)
        if operator_NN is not None:
            states_LNBD, _ = read_one_stacked(x_LNBC, h_NBD, GatedWeights.of(self), operator_NN)
            return list(states_LNBD)
        x_NLBC = x_LNBC.transpose(0, 1)
        mixed_NLBC = supports.multiply(0, x_NLBC.flatten(1)).view(x_NLBC.shape)
        ones_NLB1 = mixed_NLBC.new_ones(1).expand(*x_NLBC.shape[:3], 1)
        states: Tensor = _recur(
            torch.cat([mixed_NLBC, ones_NLB1], dim=3).transpose(0, 1).contiguous(),
            None if h_NBD is None else h_NBD.contiguous(),
            torch.cat([self.weight_input, self.bias[None]]),
            torch.cat([self.weight_gates, self.weight_candidate], dim=1),
            supports,
            dtype,
            torch.is_grad_enabled(),
        )
        return list(states.unbind())


class _GraphRecurrence(Operation):
    """The recurrence over time, with a hand-written backward pass through time.

    Per step it stores r, u, c, h and S h, 5 D numbers per node and sample. All of a step is small
    enough for a CPU's caches, so inputs are weighed step by step too: S x has a column of ones,
    which the biases multiply. The gradient of S (r . h) W needs one product with S^T, for both of
    its factors: T = S^T dc gives T W^T and (r . h)^T T. A tanh is 2 sigmoid(2 a) - 1, a third of
    the time of torch's.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_LNBC: Tensor,
        h_NBD: Tensor | None,
        weight_input: Tensor,
        weight_state: Tensor,
        supports: Supports,
        matmul_dtype: torch.dtype | None,
        stores: bool,  # gradients are never enabled in here, and needs_input_grad does not say
    ) -> Tensor:
        num_steps, num_nodes, batch, _ = x_LNBC.shape
        hidden, dtype = len(weight_state), supports.dtype
        ctx.set_materialize_grads(False)
        stored = num_steps if stores and any(ctx.needs_input_grad) else 1
        hop = hop_dtype(x_LNBC.device, matmul_dtype) or dtype
        states_LNBD, gates_LNBG, candidates_LNBD, mixed_LNBD = (
            x_LNBC.new_empty(steps, num_nodes, batch, width, dtype=kind)
            for steps, width, kind in (
                (num_steps, hidden, dtype),
                (stored, 2 * hidden, dtype),
                (stored, hidden, dtype),
                (stored, hidden, hop),
            )
        )
        reset_NBD, mixed_NBD = torch.empty_like(states_LNBD[0]), torch.empty_like(mixed_LNBD[0])
        state_NBD = h_NBD
        with without_autocast(x_LNBC.device):
            cast = matmul_dtype or dtype
            (of_x, of_x_to_c), (of_h, of_h_to_c) = (
                weight.to(cast).tensor_split([2 * hidden], dim=1)
                for weight in (weight_input, weight_state)
            )
            of_x_to_c, of_h_to_c = 2 * of_x_to_c, 2 * of_h_to_c
            for step in range(num_steps):
                x_MC = _rows(x_LNBC[step]).to(cast)
                gates_NBG, c_NBD = gates_LNBG[step % stored], candidates_LNBD[step % stored]
                _write_product(gates_NBG, x_MC, of_x)
                _write_product(c_NBD, x_MC, of_x_to_c)
                if state_NBD is not None:
                    _mix(supports, state_NBD, mixed_LNBD[step % stored])
                    _add_product(gates_NBG, mixed_LNBD[step % stored], of_h)
                r_NBD, u_NBD = gates_NBG.sigmoid_().tensor_split(2, dim=-1)
                if state_NBD is None:  # the reset gate has no effect
                    mixed_LNBD[step].zero_()
                    c_NBD.sigmoid_().mul_(2).sub_(1)
                    torch.addcmul(c_NBD, u_NBD, c_NBD, value=-1, out=states_LNBD[step])
                else:
                    torch.mul(r_NBD, state_NBD, out=reset_NBD)
                    _mix(supports, reset_NBD, mixed_NBD)
                    _add_product(c_NBD, mixed_NBD, of_h_to_c)
                    c_NBD.sigmoid_().mul_(2).sub_(1)
                    # c + u (h - c) = u h + (1 - u) c
                    torch.lerp(c_NBD, state_NBD, u_NBD, out=states_LNBD[step])
                state_NBD = states_LNBD[step]
        all_stored = stored == num_steps
        activations = (gates_LNBG, candidates_LNBD, mixed_LNBD) if all_stored else (None,) * 3
        ctx.save_for_backward(x_LNBC, h_NBD, states_LNBD, *activations, weight_input, weight_state)
        ctx.options = supports, matmul_dtype, stores
        return states_LNBD

    @staticmethod
    def backward(ctx: Any, grad_states_LNBD: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        if grad_states_LNBD is None:
            return (None,) * 7
        x_LNBC, first_NBD, states_LNBD, gates_LNBG, candidates_LNBD, mixed_LNBD, *weights = (
            ctx.saved_tensors
        )
        supports, matmul_dtype, _ = ctx.options
        split = 2 * states_LNBD.shape[-1]
        grads = [torch.zeros_like(each, dtype=states_LNBD.dtype) for each in weights]
        grad_x_LNBC = torch.empty_like(x_LNBC) if ctx.needs_input_grad[0] else None
        grad_NBD = torch.zeros_like(states_LNBD[0])
        into_c_NBD, reset_NBD, into_g_NBG = (
            torch.empty_like(each) for each in (grad_NBD, grad_NBD, gates_LNBG[0])
        )
        hop_NBD, turned_NBD = (torch.empty_like(mixed_LNBD[0]) for _ in range(2))
        with without_autocast(states_LNBD.device):
            cast = matmul_dtype or states_LNBD.dtype
            of_x, of_h = (weight.to(cast) for weight in weights)
            for step in reversed(range(len(states_LNBD))):
                grad_NBD.add_(grad_states_LNBD[step])
                before_NBD = states_LNBD[step - 1] if step else first_NBD
                r_NBD, u_NBD = gates_LNBG[step].tensor_split(2, dim=-1)
                into_r_NBD, into_u_NBD = into_g_NBG.tensor_split(2, dim=-1)
                activations = (u_NBD, candidates_LNBD[step], before_NBD)
                _into_activations(grad_NBD, *activations, into_u_NBD, into_c_NBD, reset_NBD)
                if before_NBD is None:  # weights of the state and the reset gate had no effect
                    into_r_NBD.zero_()
                else:
                    # c = tanh(S (r . h) W_c + ..)
                    torch.mul(r_NBD, before_NBD, out=reset_NBD)
                    _mix(supports, into_c_NBD, turned_NBD, transposed=True)
                    _add_product(grads[1][:, split:], _rows(reset_NBD).t(), turned_NBD, cast)
                    _write_product(reset_NBD, turned_NBD, of_h[:, split:].t())
                    grad_NBD.addcmul_(reset_NBD, r_NBD)
                    _sigmoid_backward(reset_NBD.mul_(before_NBD), r_NBD, grad_input=into_r_NBD)
                    # r, u = sigmoid(S h W_ru + ..)
                    mixed_DM = _rows(mixed_LNBD[step]).t()
                    _add_product(grads[1][:, :split], mixed_DM, into_g_NBG, cast)
                    _write_product(hop_NBD, into_g_NBG, of_h[:, :split].t())
                    _mix(supports, hop_NBD, turned_NBD, transposed=True)
                    grad_NBD.add_(turned_NBD)
                x_CM = _rows(x_LNBC[step]).t()
                _add_product(grads[0][:, :split], x_CM, into_g_NBG, cast)
                _add_product(grads[0][:, split:], x_CM, into_c_NBD, cast)
                if grad_x_LNBC is not None:
                    _write_product(grad_x_LNBC[step], into_g_NBG, of_x[:, :split].t())
                    _add_product(grad_x_LNBC[step], into_c_NBD, of_x[:, split:].t())
        grad_first_NBD = None if first_NBD is None else grad_NBD
        return grad_x_LNBC, grad_first_NBD, *grads, None, None, None

    @staticmethod
    def like(
        x_LNBC: Tensor,
        _h_NBD: Tensor | None,
        _weight_input: Tensor,
        weight_state: Tensor,
        supports: Supports,
        matmul_dtype: torch.dtype | None,
        stores: bool,
    ) -> tuple[Tensor, ...]:
        hidden, dtype = len(weight_state), supports.dtype
        states_LNBD = x_LNBC.new_empty(*x_LNBC.shape[:3], hidden, dtype=dtype)
        hop = hop_dtype(x_LNBC.device, matmul_dtype) or dtype
        return states_LNBD, *(
            x_LNBC.new_empty((*x_LNBC.shape[:3], width) if stores else (0,), dtype=kind)
            for width, kind in ((2 * hidden, dtype), (hidden, dtype), (hidden, hop))
        )

    @staticmethod
    def gradients_like(ctx: Any) -> tuple[Tensor, ...]:
        x_LNBC, _, states_LNBD, _, _, _, *weights = ctx.saved_tensors
        return (
            torch.empty_like(x_LNBC),
            torch.empty_like(states_LNBD[0]),
            *(torch.empty_like(weight, dtype=states_LNBD.dtype) for weight in weights),
        )


_recur = Operator(
    _GraphRecurrence,
    "graph_recurrence",
    returns=["states"],
    saves=[
        "x_LNBC",
        "h_NBD",
        "states",
        "gates",
        "candidates",
        "mixed",
        "weight_input",
        "weight_state",
    ],
    plain=plain.graph_recurrence,
    takes_none=True,
)


def _into_activations(
    grad_NBD: NBD,
    u_NBD: Tensor,
    c_NBD: Tensor,
    before_NBD: Tensor | None,
    into_u_NBD: Tensor,
    into_c_NBD: Tensor,
    scratch_NBD: Tensor,
) -> None:
    """The gradients of the sums of u and c from that of h' = u . h + (1 - u) . c.

    That of h' becomes that of h, but for what goes through the gates.
    """
    torch.addcmul(grad_NBD, grad_NBD, u_NBD, value=-1, out=scratch_NBD)
    _tanh_backward(scratch_NBD, c_NBD, grad_input=into_c_NBD)
    if before_NBD is None:
        torch.mul(c_NBD, grad_NBD, out=scratch_NBD).neg_()
    else:
        torch.sub(before_NBD, c_NBD, out=scratch_NBD).mul_(grad_NBD)
    _sigmoid_backward(scratch_NBD, u_NBD, grad_input=into_u_NBD)
    grad_NBD.mul_(u_NBD)


def _mix(supports: Supports, state_NBD: NBD, out_NBD: Tensor, *, transposed: bool = False) -> None:
    """Write S h, or S^T h, to contiguous memory of the hops' precision."""
    state_NF = state_NBD.to(out_NBD.dtype).flatten(1)
    supports.product(0, state_NF, transposed=transposed, out=out_NBD.view(len(out_NBD), -1))


def _rows(x: Tensor) -> Tensor:
    """[M, C] of all but the last dimension, a view."""
    return x.view(-1, x.shape[-1])


def _write_product(out: Tensor, left: Tensor, weight: Tensor) -> None:
    """Write left @ weight to contiguous memory of any precision."""
    left_MI = _rows(left).to(weight.dtype)
    if out.dtype == weight.dtype:
        torch.mm(left_MI, weight, out=_rows(out))
    else:
        _rows(out).copy_(left_MI @ weight)


def _add_product(
    into: Tensor, left: Tensor, right: Tensor, dtype: torch.dtype | None = None
) -> None:
    """Add left @ right in a precision, by default that of `right`."""
    dtype = dtype or right.dtype
    into = into if into.ndim == 2 else _rows(into)  # a part of columns has no view of rows
    left = left if left.ndim == 2 else _rows(left)
    add_product(into, left.to(dtype), _rows(right).to(dtype))
