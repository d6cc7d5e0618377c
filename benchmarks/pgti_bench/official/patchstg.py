"""PatchSTG as LMissher/PatchSTG computes it: vectors of all sensors, of which the places of patches
are a copy, attention and perceptrons of timm, and a copy back in the order of the sensors."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.models import AbstractModel, PatchSTG
from pgti.nn import PatchSupports, Supports
from pgti_bench.official.layers import convolution, copied, taken

__all__ = ["build_patchstg"]


class _Attention(nn.Module):
    """timm's, of one head, fused as with torch 2; the torch that the code requires cannot fuse."""

    def __init__(self, block: nn.Module, dropout: float) -> None:
        super().__init__()
        self.query_key_value = copied(block.get_submodule("query_key_value"))
        self.attended = copied(block.get_submodule("attended"))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_GTD: Tensor) -> Tensor:
        groups, tokens, width = x_GTD.shape
        parts = self.query_key_value(x_GTD).reshape(groups, tokens, 3, 1, width)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        rate = self.dropout.p if self.training else 0.0
        read = functional.scaled_dot_product_attention(query, key, value, dropout_p=rate)
        joined = read.transpose(1, 2).reshape(groups, tokens, width)
        attended: Tensor = self.dropout(self.attended(joined))
        return attended


def _perceptron(block: nn.Module, dropout: float) -> nn.Sequential:
    expansion, contraction = (block.get_submodule(f"{name}ion") for name in ("expans", "contract"))
    first = (copied(expansion), nn.GELU(), nn.Dropout(dropout))
    return nn.Sequential(*first, copied(contraction), nn.Dropout(dropout))


class _Layer(nn.Module):
    """Attention within patches, then among the same places of all patches."""

    def __init__(self, layer: nn.Module, model: PatchSTG) -> None:
        super().__init__()
        depth, breadth = layer.get_submodule("depth"), layer.get_submodule("breadth")
        width, rate = model.regression.in_features, model.config.dropout
        self.norms = nn.ModuleList(
            nn.LayerNorm(width, eps=1e-6, elementwise_affine=False) for _ in range(4)
        )
        self.within, self.across = _Attention(depth, rate), _Attention(breadth, rate)
        self.after_within, self.after_across = _perceptron(depth, rate), _perceptron(breadth, rate)

    def forward(self, x_BPSD: Tensor) -> Tensor:
        batch, patches, size, width = x_BPSD.shape
        read = self.within(self.norms[0](x_BPSD.reshape(batch * patches, size, width)))
        x_BPSD = x_BPSD + read.reshape(x_BPSD.shape)
        x_BPSD = x_BPSD + self.after_within(self.norms[1](x_BPSD))
        by_place = x_BPSD.transpose(1, 2).reshape(batch * size, patches, width)
        read = self.across(self.norms[2](by_place))
        x_BPSD = x_BPSD + read.reshape(batch, size, patches, width).transpose(1, 2)
        result: Tensor = x_BPSD + self.after_across(self.norms[3](x_BPSD))
        return result


class _PatchSTG(nn.Module):
    """The whole network."""

    def __init__(self, model: PatchSTG, patches: PatchSupports) -> None:
        super().__init__()
        times, days = model.calendar.time_of_day, model.calendar.day_of_week
        assert times is not None
        assert days is not None
        self.nodes, self.times, self.days = map(
            taken, (model.node_embedding, times.weight, days.weight)
        )
        window = model.window_embedding
        weight_OLC = window.weight.view(len(window.weight), model.shape.input_steps, -1)
        self.window = convolution(weight_OLC.transpose(1, 2), window.bias)
        self.layers = nn.ModuleList(_Layer(layer, model) for layer in model.layers)
        self.regression = convolution(model.regression.weight[..., None], model.regression.bias)
        self.patched, self.patches = patches.sensors.flatten(), patches.sensors.shape
        self.places, self.sensors = patches.places.sort()

    def forward(self, x: Tensor) -> Tensor:
        batch, _, num_nodes, channels = x.shape
        parts = [
            self.window(x.permute(0, 3, 2, 1))[..., 0].transpose(1, 2),
            self.times[(x[:, -1, :, channels - 2] * len(self.times) + 0.5).long()],
            self.days[(x[:, -1, :, channels - 1] * 7 + 0.5).long()],
            self.nodes.expand(batch, -1, -1),
        ]
        tokens = torch.cat(parts, dim=2)[:, self.patched].view(batch, *self.patches, -1)
        for layer in self.layers:
            tokens = layer(tokens)
        tokens = tokens.flatten(1, 2)
        states = torch.zeros(batch, num_nodes, tokens.shape[2])
        states[:, self.sensors] = tokens[:, self.places]
        forecast: Tensor = self.regression(states.transpose(1, 2).reshape(batch, -1, num_nodes, 1))
        return forecast


def build_patchstg(model: AbstractModel, supports: Supports) -> nn.Module:
    """Of a `PatchSTG` with both features of the calendar and one target."""
    assert isinstance(model, PatchSTG)
    assert isinstance(supports, PatchSupports)
    return _PatchSTG(model, supports)
