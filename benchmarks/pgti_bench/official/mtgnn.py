"""MTGNN as nnzhan/MTGNN computes it: [B, C, N, L], a dense graph by einsum.

Filter and gate are four convolutions each, of which the shorter ones also compute steps that are
cut off, and the terms of either propagation are concatenated.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.models import MTGNN, AbstractModel
from pgti.nn import Supports
from pgti_bench.official.layers import convolution, linear, taken

__all__ = ["build_mtgnn"]


class _Inception(nn.Module):
    """Parallel convolutions, aligned at the end."""

    def __init__(self, inception: nn.Module, part: int, dilation: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList()
        for index in range(4):
            weight_KCGO = inception.get_parameter(f"weights.{index}")
            bias_GO = inception.get_parameter(f"biases.{index}")
            weight_OCK = weight_KCGO[:, :, part].permute(2, 1, 0)
            self.convolutions.append(convolution(weight_OCK, bias_GO[part], dilation))

    def forward(self, x_BCNL: Tensor) -> Tensor:
        found = [each(x_BCNL) for each in self.convolutions]
        steps = found[-1].shape[3]
        return torch.cat([each[..., -steps:] for each in found], dim=1)


class _Propagation(nn.Module):
    """Mix-hop propagation over a graph."""

    def __init__(self, weight_KCO: Tensor, bias_O: Tensor, beta: float) -> None:
        super().__init__()
        self.hops, self.beta = len(weight_KCO) - 1, beta
        self.mixing = convolution(weight_KCO.flatten(0, 1).t().unsqueeze(2), bias_O)

    def forward(self, x_BCNL: Tensor, graph_NN: Tensor) -> Tensor:
        graph_NN = graph_NN + torch.eye(len(graph_NN))
        walk_NN = graph_NN / graph_NN.sum(dim=1).view(-1, 1)
        terms = [x_BCNL]
        for _ in range(self.hops):
            hop_BCNL = torch.einsum("ncwl,vw->ncvl", terms[-1], walk_NN).contiguous()
            terms.append(self.beta * x_BCNL + (1 - self.beta) * hop_BCNL)
        mixed: Tensor = self.mixing(torch.cat(terms, dim=1))
        return mixed


class _Layer(nn.Module):
    """A gated inception, its skip connection, both propagations, a norm."""

    def __init__(self, layer: nn.Module, model: MTGNN, index: int) -> None:
        super().__init__()
        part, config = layer.get_submodule, model.config
        dilation = config.dilations[index]
        self.filter, self.gate = (_Inception(part("inception"), half, dilation) for half in (0, 1))
        self.dropout = nn.Dropout(config.dropout)
        self.skip = _of_steps(part("skip"), config.hidden)
        hops, biases = layer.get_parameter("hop_weight"), layer.get_parameter("hop_bias")
        self.along, self.against = (
            _Propagation(*each, config.beta) for each in zip(hops, biases, strict=True)
        )
        weight_NLC, bias_NLC = (part("norm").get_parameter(name) for name in ("weight", "bias"))
        num_nodes, steps, hidden = weight_NLC.shape
        self.norm = nn.LayerNorm((hidden, num_nodes, steps))
        self.norm.weight, self.norm.bias = (
            taken(each.permute(2, 0, 1)) for each in (weight_NLC, bias_NLC)
        )

    def forward(self, x_BCNL: Tensor, graph_NN: Tensor) -> tuple[Tensor, Tensor]:
        z_BCNL = torch.tanh(self.filter(x_BCNL)) * torch.sigmoid(self.gate(x_BCNL))
        z_BCNL = self.dropout(z_BCNL)
        y_BCNL = self.along(z_BCNL, graph_NN) + self.against(z_BCNL, graph_NN.t())
        y_BCNL = y_BCNL + x_BCNL[..., -y_BCNL.shape[3] :]
        return self.norm(y_BCNL), self.skip(z_BCNL)


class _MTGNN(nn.Module):
    """The whole network."""

    def __init__(self, model: MTGNN) -> None:
        super().__init__()
        config, learner = model.config, model.graph
        self.shape, self.rows = model.shape, config.receptive_field
        self.alpha, self.neighbours = config.alpha, config.neighbours
        self.first, self.second = taken(learner.source_embedding), taken(learner.target_embedding)
        self.source = linear(learner.source.weight, learner.source.bias)
        self.target = linear(learner.target.weight, learner.target.bias)
        self.entrance = _of_steps(model.entrance, model.shape.input_channels)
        self.first_skip = _of_steps(model.first_skip, model.shape.input_channels)
        self.layers = nn.ModuleList(
            _Layer(layer, model, index) for index, layer in enumerate(model.layers)
        )
        self.last_skip = _of_steps(model.last_skip, config.hidden)
        self.end = _of_steps(model.end, config.skip_channels)
        self.regression = _of_steps(model.regression, config.end_channels)
        self.dropout = nn.Dropout(config.dropout)

    def learned(self) -> Tensor:
        """[N, N]. Neighbours are chosen as the model chooses them, without the released noise."""
        m1_NR = torch.tanh(self.alpha * self.source(self.first))
        m2_NR = torch.tanh(self.alpha * self.target(self.second))
        scores_NN = m1_NR @ m2_NR.t() - m2_NR @ m1_NR.t()
        graph_NN = functional.relu(torch.tanh(self.alpha * scores_NN))
        chosen_NK = scores_NN.topk(min(self.neighbours, len(scores_NN)), dim=1).indices
        return graph_NN * torch.zeros_like(graph_NN).scatter_(1, chosen_NK, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        missing = max(0, self.rows - x.shape[1])
        x_BCNL = functional.pad(x.permute(0, 3, 2, 1), (missing, 0))
        graph_NN = self.learned()
        h_BCNL, total = self.entrance(x_BCNL), self.first_skip(self.dropout(x_BCNL))
        for layer in self.layers:
            h_BCNL, skip = layer(h_BCNL, graph_NN)
            total = skip + total
        total = functional.relu(self.last_skip(h_BCNL) + total)
        forecast: Tensor = self.regression(functional.relu(self.end(total)))[..., 0]
        return forecast.view(len(x), self.shape.horizon, -1, x.shape[2]).transpose(2, 3)


def _of_steps(layer: nn.Module, channels: int) -> nn.Conv2d:
    """An affine map of all steps, of which `layer` has those of [N, B, L * C]."""
    weight_OF, bias_O = layer.get_parameter("weight"), layer.get_parameter("bias")
    weight_OLC = weight_OF.view(len(weight_OF), -1, channels)
    return convolution(weight_OLC.transpose(1, 2), bias_O)


def build_mtgnn(model: AbstractModel, supports: Supports) -> nn.Module:  # noqa: ARG001 - a `Rival`
    """Of an `MTGNN`."""
    assert isinstance(model, MTGNN)
    return _MTGNN(model)
