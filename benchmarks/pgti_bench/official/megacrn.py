"""MegaCRN as deepkashiwa20/MegaCRN computes it: at every step the polynomials of both graphs, the
identity twice among them, and products of each with the concatenated input and state.

Neither network computes the terms of the loss.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.models import AbstractModel, MegaCRN
from pgti.models.layers import continued_calendar
from pgti.nn import GatedLayer, Supports
from pgti_bench.official.layers import linear, taken

__all__ = ["build_megacrn"]


class _Convolution(nn.Module):
    """A convolution of two graphs."""

    def __init__(self, weight_TCO: Tensor, bias_O: Tensor) -> None:
        super().__init__()
        self.order = len(weight_TCO) // 2
        self.weight, self.bias = taken(weight_TCO.flatten(0, 1)), taken(bias_O)

    def forward(self, x_BNC: Tensor, graphs: list[Tensor]) -> Tensor:
        polynomials: list[Tensor] = []
        for graph in graphs:
            of_graph = [torch.eye(len(graph)), graph]
            for _ in range(2, self.order):
                of_graph.append(2 * graph @ of_graph[-1] - of_graph[-2])
            polynomials += of_graph
        terms = [torch.einsum("nm,bmc->bnc", each, x_BNC) for each in polynomials]
        return torch.einsum("bni,io->bno", torch.cat(terms, dim=2), self.weight) + self.bias


class _Cell(nn.Module):
    """A gated unit of such convolutions."""

    def __init__(self, layer: GatedLayer) -> None:
        super().__init__()
        split = 2 * layer.hidden
        gates = torch.cat([layer.weight_input[..., :split], layer.weight_gates], dim=1)
        candidate = torch.cat([layer.weight_input[..., split:], layer.weight_candidate], dim=1)
        self.gates = _Convolution(gates, layer.bias[:split])
        self.candidate = _Convolution(candidate, layer.bias[split:])

    def forward(self, x_BNC: Tensor, h_BND: Tensor, graphs: list[Tensor]) -> Tensor:
        joined = torch.cat([x_BNC, h_BND], dim=2)
        z_BND, r_BND = torch.sigmoid(self.gates(joined, graphs)).chunk(2, dim=2)
        c_BND = torch.tanh(self.candidate(torch.cat([x_BNC, z_BND * h_BND], dim=2), graphs))
        return r_BND * h_BND + (1 - r_BND) * c_BND


class _MegaCRN(nn.Module):
    """Encoder, memory, decoder."""

    def __init__(self, model: MegaCRN) -> None:
        super().__init__()
        self.shape, self.hidden = model.shape, model.config.hidden
        tables = (model.memory, model.query, model.first_mixture, model.second_mixture)
        self.memory, self.query, self.first, self.second = map(taken, tables)
        self.encoder, self.decoder = _Cell(model.encoder), _Cell(model.decoder)
        self.projection = linear(model.projection.weight, model.projection.bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, num_steps, num_nodes, channels = x.shape
        first, second = self.first @ self.memory, self.second @ self.memory
        graphs = [
            functional.relu(source @ target.t()).softmax(dim=1)
            for source, target in ((first, second), (second, first))
        ]
        readings = channels - self.shape.calendar_channels
        h_BND, states = x.new_zeros(batch, num_nodes, self.hidden), []
        for step in range(num_steps):
            h_BND = self.encoder(x[:, step, :, :readings], h_BND, graphs)
            states.append(h_BND)
        h_BND = torch.stack(states, dim=1)[:, -1]
        scores_BNM = (h_BND @ self.query @ self.memory.t()).softmax(dim=2)
        h_BND = torch.cat([h_BND, scores_BNM @ self.memory], dim=2)
        ahead_BHF = continued_calendar(x, self.shape)[:, num_steps:]
        fed_BNC, forecasts = x.new_zeros(batch, num_nodes, self.shape.target_channels), []
        for ahead_BF in ahead_BHF.unbind(dim=1):
            input_BNC = torch.cat([fed_BNC, ahead_BF[:, None].expand(-1, num_nodes, -1)], dim=2)
            h_BND = self.decoder(input_BNC, h_BND, graphs)
            fed_BNC = self.projection(h_BND)
            forecasts.append(fed_BNC)
        return torch.stack(forecasts, dim=1)


def build_megacrn(model: AbstractModel, supports: Supports) -> nn.Module:  # noqa: ARG001 - a `Rival`
    """Of a `MegaCRN` whose graphs are dense, without scheduled sampling."""
    assert isinstance(model, MegaCRN)
    return _MegaCRN(model)
