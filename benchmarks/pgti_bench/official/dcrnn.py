"""DCRNN as chnsh/DCRNN_PyTorch computes it, with the powers of the paper.

Inputs and states are concatenated at every step and turned so that the nodes come first; all powers
are stacked and turned back before the weights.
"""

import torch
from torch import Tensor, nn

from pgti.models import DCRNN, AbstractModel
from pgti.nn import DiffusionGRU, Supports
from pgti_bench.official.layers import dense_operators, linear

__all__ = ["build_dcrnn"]


class _Diffusion(nn.Module):
    """A diffusion convolution of [x, h]."""

    def __init__(self, weight_HCO: Tensor, bias_O: Tensor, operators: list[Tensor]) -> None:
        super().__init__()
        terms, channels, outputs = weight_HCO.shape
        by_channel = weight_HCO.transpose(0, 1).reshape(channels * terms, outputs)
        self.map = linear(by_channel.t(), bias_O)
        self.operators, self.hops = operators, (terms - 1) // len(operators)

    def forward(self, x_BNC: Tensor, h_BND: Tensor) -> Tensor:
        joined = torch.cat([x_BNC, h_BND], dim=2)
        batch, num_nodes, channels = joined.shape
        first = joined.permute(1, 2, 0).reshape(num_nodes, -1)
        powers = [first]
        for operator in self.operators:
            power = first
            for _ in range(self.hops):
                power = operator @ power
                powers.append(power)
        stacked = torch.stack(powers).view(-1, num_nodes, channels, batch)
        mapped: Tensor = self.map(stacked.permute(3, 1, 2, 0).reshape(batch * num_nodes, -1))
        return mapped.view(batch, num_nodes, -1)


class _Cell(nn.Module):
    """A gated unit whose products are diffusion convolutions."""

    def __init__(self, layer: DiffusionGRU, operators: list[Tensor]) -> None:
        super().__init__()
        split = 2 * layer.hidden
        gates = torch.cat([layer.weight_input[..., :split], layer.weight_gates], dim=1)
        candidate = torch.cat([layer.weight_input[..., split:], layer.weight_candidate], dim=1)
        self.gates = _Diffusion(gates, layer.bias[:split], operators)
        self.candidate = _Diffusion(candidate, layer.bias[split:], operators)

    def forward(self, x_BNC: Tensor, h_BND: Tensor) -> Tensor:
        r_BND, u_BND = torch.sigmoid(self.gates(x_BNC, h_BND)).chunk(2, dim=2)
        c_BND = torch.tanh(self.candidate(x_BNC, r_BND * h_BND))
        return u_BND * h_BND + (1 - u_BND) * c_BND


class _DCRNN(nn.Module):
    """Encoder and decoder, without scheduled sampling."""

    def __init__(self, model: DCRNN, operators: list[Tensor]) -> None:
        super().__init__()
        self.shape, self.hidden = model.shape, model.config.hidden
        self.encoder, self.decoder = (
            nn.ModuleList(_Cell(layer, operators) for layer in layers)  # type: ignore[arg-type] # are of that class
            for layers in (model.encoder, model.decoder)
        )
        self.projection = linear(model.projection.weight, model.projection.bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, num_steps, num_nodes, _ = x.shape
        states = [x.new_zeros(batch, num_nodes, self.hidden) for _ in self.encoder]
        for step in range(num_steps):
            signal = x[:, step]
            for index, cell in enumerate(self.encoder):
                signal = states[index] = cell(signal, states[index])
        signal, forecasts = x.new_zeros(batch, num_nodes, self.shape.target_channels), []
        for _ in range(self.shape.horizon):
            for index, cell in enumerate(self.decoder):
                signal = states[index] = cell(signal, states[index])
            signal = self.projection(signal)
            forecasts.append(signal)
        return torch.stack(forecasts, dim=1)


def build_dcrnn(model: AbstractModel, supports: Supports) -> nn.Module:
    """Of a `DCRNN`."""
    assert isinstance(model, DCRNN)
    return _DCRNN(model, dense_operators(supports))
