"""T-GCN as lehaifeng/T-GCN computes it in PyTorch, and its states with A3T-GCN's attention.

A gate concatenates inputs and states, turns them so that the nodes come first, multiplies with the
dense operator, turns them back, and applies its weights.
"""

import torch
from torch import Tensor, nn

from pgti.models import A3TGCN, TGCN, AbstractModel
from pgti.nn import Supports
from pgti_bench.official.layers import dense_operators, linear

__all__ = ["build_graph_gru"]


class _Convolution(nn.Module):
    """S [x, h] W + b of [B, N, C] and [B, N, D]."""

    def __init__(self, weight_CO: Tensor, bias_O: Tensor, operator_NN: Tensor) -> None:
        super().__init__()
        self.map = linear(weight_CO.t(), bias_O)
        self.register_buffer("operator", operator_NN)

    def forward(self, x_BNC: Tensor, h_BND: Tensor) -> Tensor:
        batch, num_nodes, _ = x_BNC.shape
        joined_BNC = torch.cat([x_BNC, h_BND], dim=2)
        joined_NF = joined_BNC.permute(1, 2, 0).reshape(num_nodes, -1)
        mixed_NF = self.get_buffer("operator") @ joined_NF
        mixed_BNC = mixed_NF.reshape(num_nodes, -1, batch).permute(2, 0, 1)
        mapped: Tensor = self.map(mixed_BNC.reshape(batch * num_nodes, -1))
        return mapped.reshape(batch, num_nodes, -1)


class _GraphGRU(nn.Module):
    """T-GCN; with a score, A3T-GCN."""

    def __init__(self, model: TGCN | A3TGCN, operator_NN: Tensor) -> None:
        super().__init__()
        cell, self.hidden = model.cell, model.cell.hidden
        split, horizon = 2 * self.hidden, model.shape.horizon
        gates = torch.cat([cell.weight_input[:, :split], cell.weight_gates])
        candidate = torch.cat([cell.weight_input[:, split:], cell.weight_candidate])
        self.gates = _Convolution(gates, cell.bias[:split], operator_NN)
        self.candidate = _Convolution(candidate, cell.bias[split:], operator_NN)
        self.regression = linear(model.regression.weight, model.regression.bias)
        self.score = None
        if isinstance(model, A3TGCN):
            first, _, last = model.score
            assert isinstance(first, nn.Linear)
            assert isinstance(last, nn.Linear)
            self.score = nn.Sequential(
                linear(first.weight, first.bias), nn.Tanh(), linear(last.weight)
            )
        self.horizon = horizon

    def forward(self, x: Tensor) -> Tensor:
        batch, num_steps, num_nodes, _ = x.shape
        h_BND, states = x.new_zeros(batch, num_nodes, self.hidden), []
        for step in range(num_steps):
            r_BND, u_BND = torch.sigmoid(self.gates(x[:, step], h_BND)).chunk(2, dim=2)
            c_BND = torch.tanh(self.candidate(x[:, step], r_BND * h_BND))
            h_BND = u_BND * h_BND + (1 - u_BND) * c_BND
            states.append(h_BND)
        if self.score is not None:
            states_BLND = torch.stack(states, dim=1)
            h_BND = (self.score(states_BLND).softmax(dim=1) * states_BLND).sum(dim=1)
        forecast_BNK: Tensor = self.regression(h_BND)
        return forecast_BNK.view(batch, num_nodes, self.horizon, -1).transpose(1, 2)


def build_graph_gru(model: AbstractModel, supports: Supports) -> nn.Module:
    """Of a `TGCN` or an `A3TGCN`."""
    assert isinstance(model, TGCN | A3TGCN)
    return _GraphGRU(model, dense_operators(supports)[0])
