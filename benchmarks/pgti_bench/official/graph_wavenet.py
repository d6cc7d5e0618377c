"""Graph WaveNet as nnzhan/Graph-WaveNet computes it: [B, C, N, L], graphs by einsum.

All steps go through the skip connections, and the terms of a graph convolution are concatenated.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.models import AbstractModel, GraphWaveNet
from pgti.nn import Supports
from pgti_bench.official.layers import convolution, dense_operators, taken

__all__ = ["build_graph_wavenet"]


def _pointwise(layer: nn.Module) -> nn.Conv2d:
    """An affine map of the channels."""
    return convolution(layer.get_parameter("weight")[..., None], layer.get_parameter("bias"))


class _Layer(nn.Module):
    """A gated convolution, its skip connection, and but for the last a graph convolution."""

    def __init__(self, model: GraphWaveNet, index: int) -> None:
        super().__init__()
        part, config = model.get_submodule, model.config
        weight_GCK = part(f"temporal.{index}").get_parameter("weight").permute(2, 1, 0)
        bias_G, width = part(f"temporal.{index}").get_parameter("bias"), config.hidden
        dilation, self.hops = config.dilations[index], config.hops
        self.filter = convolution(weight_GCK[:width], bias_G[:width], dilation)
        self.gate = convolution(weight_GCK[width:], bias_G[width:], dilation)
        self.skip = _pointwise(part(f"skips.{index}"))
        self.mixing = self.norm = None
        if index < len(config.dilations) - 1:
            spatial = part(f"spatial.{index}")
            names = ("weight_walks", "weight_adaptive")
            terms_TIO = torch.cat([spatial.get_parameter(name) for name in names])
            by_term_OF = terms_TIO.permute(2, 0, 1).reshape(width, -1)
            self.mixing = convolution(by_term_OF[..., None], spatial.get_parameter("bias"))
            self.norm = nn.BatchNorm2d(width)
            self.norm.load_state_dict(part(f"norms.{index}").state_dict())
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BCNL: Tensor, graphs: list[Tensor]) -> tuple[Tensor, Tensor]:
        z_BCNL = torch.tanh(self.filter(x_BCNL)) * torch.sigmoid(self.gate(x_BCNL))
        skip_BCNL = self.skip(z_BCNL)
        if self.mixing is None or self.norm is None:
            return z_BCNL, skip_BCNL
        terms = [z_BCNL]
        for graph in graphs:
            hop = z_BCNL
            for _ in range(self.hops):
                hop = torch.einsum("bcvl,vw->bcwl", hop, graph).contiguous()
                terms.append(hop)
        mixed = self.dropout(self.mixing(torch.cat(terms, dim=1)))
        return self.norm(mixed + x_BCNL[..., -mixed.shape[3] :]), skip_BCNL


class _GraphWaveNet(nn.Module):
    """The whole network."""

    def __init__(self, model: GraphWaveNet, walks: list[Tensor]) -> None:
        super().__init__()
        self.shape, self.rows = model.shape, model.config.receptive_field
        self.walks = [each.t().contiguous() for each in walks]
        self.source, self.target = taken(model.source_embedding), taken(model.target_embedding)
        self.entrance = _pointwise(model.entrance)
        self.layers = nn.ModuleList(_Layer(model, index) for index in range(len(model.temporal)))
        self.end, self.regression = _pointwise(model.end), _pointwise(model.regression)

    def forward(self, x: Tensor) -> Tensor:
        learned = functional.relu(self.source @ self.target.t()).softmax(dim=1)
        graphs = [*self.walks, learned.t()]
        missing = max(0, self.rows - x.shape[1])
        h = self.entrance(functional.pad(x.permute(0, 3, 2, 1), (missing, 0)))
        total: Tensor | None = None
        for layer in self.layers:
            h, skip = layer(h, graphs)
            total = skip if total is None else skip + total[..., -skip.shape[3] :]
        assert total is not None
        state = functional.relu(self.end(functional.relu(total[..., -1:])))
        forecast: Tensor = self.regression(state)[..., 0]
        return forecast.view(len(x), self.shape.horizon, -1, x.shape[2]).transpose(2, 3)


def build_graph_wavenet(model: AbstractModel, supports: Supports) -> nn.Module:
    """Of a `GraphWaveNet` whose learned graph is dense, and an input within its receptive field."""
    assert isinstance(model, GraphWaveNet)
    return _GraphWaveNet(model, dense_operators(supports))
