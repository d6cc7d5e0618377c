"""`GraphGRU`: a gated recurrent layer with one operator of a graph.

Zhao et al., T-GCN: A Temporal Graph Convolutional Network for Traffic Prediction, IEEE T-ITS 2020,
in the form of its released code. Its equations are those of `pgti.nn.recurrent`, where [x, h] *
Theta is S [x, h] Theta, S the graph's operator.
"""

import torch
from torch import Tensor

from pgti.nn.execution import autocast_dtype
from pgti.nn.recurrent import GatedLayer
from pgti.nn.sparse import Supports
from pgti.nn.stacked import read_one_stacked
from pgti.nn.stacked_steps import GatedWeights
from pgti.shapes import NBD

__all__ = ["GraphGRU"]


class GraphGRU(GatedLayer):
    """One recurrent layer over a graph: L inputs and a state in, L states out.

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
        operator_NN = supports.stacked_powers(1, autocast_dtype(x_LNBC.device), identity=False)
        if operator_NN is not None:
            states_LNBD, _ = read_one_stacked(x_LNBC, h_NBD, GatedWeights.of(self), operator_NN)
            return list(states_LNBD)
        states_NBD = []
        for inputs_NBG in self._inputs(x_LNBC, supports):
            h_NBD = self._step(inputs_NBG, h_NBD, supports)
            states_NBD.append(h_NBD)
        return states_NBD

    def _inputs(self, x_LNBC: Tensor, supports: Supports) -> Tensor:
        """S x W + b of all gates and time steps: [L, N, B, 3 D]."""
        x_NLBC = x_LNBC.transpose(0, 1)
        mixed_NF = supports.multiply(0, x_NLBC.flatten(1))
        mixed_LNBC = mixed_NF.view(x_NLBC.shape).transpose(0, 1)
        return torch.matmul(mixed_LNBC, self.weight_input).to(supports.dtype) + self.bias

    def _step(self, inputs_NBG: Tensor, h_NBD: NBD | None, supports: Supports) -> NBD:
        """One step of the recurrence."""
        to_gates, to_candidate = inputs_NBG.tensor_split([2 * self.hidden], dim=-1)
        if h_NBD is None:  # the reset gate has no effect
            u_NBD = torch.sigmoid(to_gates[..., self.hidden :])
            return (1 - u_NBD) * torch.tanh(to_candidate)
        gates_NBG = torch.sigmoid(to_gates + _convolve(h_NBD, self.weight_gates, supports))
        r_NBD, u_NBD = gates_NBG.tensor_split(2, dim=-1)
        reset_NBD = _convolve(r_NBD * h_NBD, self.weight_candidate, supports)
        # c + u (h - c) = u h + (1 - u) c
        return torch.lerp(torch.tanh(to_candidate + reset_NBD), h_NBD, u_NBD)


def _convolve(state_NBD: NBD, weight_DO: Tensor, supports: Supports) -> Tensor:
    """S h W: [N, B, O]."""
    mixed_NBD = supports.multiply(0, state_NBD.flatten(1)).view(state_NBD.shape)
    return torch.matmul(mixed_NBD, weight_DO).to(supports.dtype)
