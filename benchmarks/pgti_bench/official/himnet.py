"""HimNet as XDZhelheim/HimNet computes it: at every step the weights of all nodes, of all windows,
or of all nodes in all windows, from their embeddings, and the graph's polynomials."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.models import AbstractModel, HimNet
from pgti.models.layers import continued_calendar, day_index, step_index
from pgti.nn import AdaptiveGRU, Supports
from pgti_bench.official.layers import linear, taken

__all__ = ["build_himnet"]


class _Convolution(nn.Module):
    """A convolution whose weights are those of each entry along some axes, `n`, `b` or `bn`."""

    def __init__(self, pool_RKCO: Tensor, pool_RO: Tensor, axes: str) -> None:
        super().__init__()
        self.order, self.axes = pool_RKCO.shape[1], axes
        self.weights, self.biases = taken(pool_RKCO.flatten(1, 2)), taken(pool_RO)

    def forward(self, x_BNC: Tensor, graph: Tensor, embedding: Tensor) -> Tensor:
        over = "nm" if graph.ndim == 2 else "bnm"
        identity = torch.eye(graph.shape[-1])
        terms = [identity if graph.ndim == 2 else identity.repeat(len(graph), 1, 1), graph]
        for _ in range(2, self.order):
            terms.append(2 * graph @ terms[-1] - terms[-2])
        mixed = torch.cat([torch.einsum(f"{over},bmc->bnc", each, x_BNC) for each in terms], dim=2)
        weights = torch.einsum(f"{self.axes}d,dio->{self.axes}io", embedding, self.weights)
        biases = embedding @ self.biases
        mapped = torch.einsum(f"bni,{self.axes}io->bno", mixed, weights)
        return mapped + (biases[:, None] if self.axes == "b" else biases)


class _Cell(nn.Module):
    """A gated unit of such convolutions."""

    def __init__(self, layer: AdaptiveGRU, axes: str) -> None:
        super().__init__()
        split = 2 * layer.hidden
        gates = torch.cat([layer.pool_input[..., :split], layer.pool_gates], dim=2)
        candidate = torch.cat([layer.pool_input[..., split:], layer.pool_candidate], dim=2)
        self.gates = _Convolution(gates, layer.pool_bias[:, :split], axes)
        self.candidate = _Convolution(candidate, layer.pool_bias[:, split:], axes)

    def forward(self, x_BNC: Tensor, h_BND: Tensor, graph: Tensor, embedding: Tensor) -> Tensor:
        gates = self.gates(torch.cat([x_BNC, h_BND], dim=2), graph, embedding)
        z_BND, r_BND = torch.sigmoid(gates).chunk(2, dim=2)
        reset = torch.cat([x_BNC, z_BND * h_BND], dim=2)
        c_BND = torch.tanh(self.candidate(reset, graph, embedding))
        return r_BND * h_BND + (1 - r_BND) * c_BND


class _HimNet(nn.Module):
    """Two encoders, one decoder."""

    def __init__(self, model: HimNet) -> None:
        super().__init__()
        self.shape, self.hidden = model.shape, model.config.hidden
        times, days = model.calendar.time_of_day, model.calendar.day_of_week
        assert times is not None
        assert days is not None
        self.nodes, self.times, self.days = map(
            taken, (model.node_embedding, times.weight, days.weight)
        )
        self.of_nodes = _Cell(model.node_encoder, "n")
        self.of_times = _Cell(model.time_encoder, "b")
        self.decoder = _Cell(model.decoder, "bn")
        self.window = linear(model.window_embedding.weight, model.window_embedding.bias)
        self.projection = linear(model.projection.weight, model.projection.bias)

    def encode(self, cell: nn.Module, x: Tensor, graph: Tensor, embedding: Tensor) -> Tensor:
        """[B, L, N, D]."""
        state, states = x.new_zeros(len(x), x.shape[2], self.hidden), []
        for step in range(x.shape[1]):
            state = cell(x[:, step], state, graph, embedding)
            states.append(state)
        return torch.stack(states, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        batch, num_steps, num_nodes, _ = x.shape
        row, day = step_index(x, self.shape), day_index(x, self.shape)
        assert row is not None
        assert day is not None
        when_BR = torch.cat([self.times[row[:, -1]], self.days[day[:, -1]]], dim=1)
        graph = functional.relu(self.nodes @ self.nodes.t()).softmax(dim=1)
        by_node = self.encode(self.of_nodes, x, graph, self.nodes)
        by_time = self.encode(self.of_times, x, graph, when_BR)
        h_BND = (by_node + by_time)[:, -1]
        vectors_BNR = self.window(h_BND)
        scores_BNN = torch.einsum("bnc,bmc->bnm", vectors_BNR, vectors_BNR)
        graph = functional.relu(scores_BNN).softmax(dim=2)
        ahead_BHF = continued_calendar(x, self.shape)[:, num_steps:]
        fed_BNC, forecasts = x.new_zeros(batch, num_nodes, self.shape.target_channels), []
        for ahead_BF in ahead_BHF.unbind(dim=1):
            input_BNC = torch.cat([fed_BNC, ahead_BF[:, None].expand(-1, num_nodes, -1)], dim=2)
            h_BND = self.decoder(input_BNC, h_BND, graph, vectors_BNR)
            fed_BNC = self.projection(h_BND)
            forecasts.append(fed_BNC)
        return torch.stack(forecasts, dim=1)


def build_himnet(model: AbstractModel, supports: Supports) -> nn.Module:  # noqa: ARG001 - a `Rival`
    """Of a `HimNet` with both features of the calendar, whose graphs are dense."""
    assert isinstance(model, HimNet)
    return _HimNet(model)
