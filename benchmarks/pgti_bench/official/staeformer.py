"""STAEformer as XDZhelheim/STAEformer computes it: attention with N x N weights in memory."""

import torch
from torch import Tensor, nn

from pgti.models import AbstractModel, STAEformer
from pgti.nn import Supports
from pgti_bench.official.layers import copied, linear, taken

__all__ = ["build_staeformer"]


class _Layer(nn.Module):
    """Attention over a dimension and a feed-forward network; heads are folded into the batch."""

    def __init__(self, layer: nn.Module, heads: int) -> None:
        super().__init__()
        part = layer.get_submodule
        joined = part("query_key_value")
        weights, biases = joined.weight.chunk(3), joined.bias.chunk(3)  # type: ignore[operator] # a Linear
        self.query, self.key, self.value = map(linear, weights, biases)
        self.attended = copied(part("attended"))
        self.expansion, self.contraction = copied(part("expansion")), copied(part("contraction"))
        width = self.attended.in_features
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        for norm, name in zip(self.norms, ("attention_norm", "feed_forward_norm"), strict=True):
            norm.load_state_dict(part(name).state_dict())
        self.dropouts = nn.ModuleList(nn.Dropout(0.1) for _ in range(2))
        self.relu = nn.ReLU(inplace=True)
        self.width = width // heads

    def forward(self, x: Tensor, dim: int) -> Tensor:
        x = x.transpose(dim, -2)
        query, key, value = (
            torch.cat(torch.split(each(x), self.width, dim=-1), dim=0)
            for each in (self.query, self.key, self.value)
        )
        weights = torch.softmax(query @ key.transpose(-1, -2) / self.width**0.5, dim=-1)
        read = torch.cat(torch.split(weights @ value, len(x), dim=0), dim=-1)
        x = self.norms[0](x + self.dropouts[0](self.attended(read)))
        fed = self.contraction(self.relu(self.expansion(x)))
        result: Tensor = self.norms[1](x + self.dropouts[1](fed))
        return result.transpose(dim, -2)


class _STAEformer(nn.Module):
    """Vectors of the calendar are looked up for every sensor."""

    def __init__(self, model: STAEformer) -> None:
        super().__init__()
        times, days = model.calendar.time_of_day, model.calendar.day_of_week
        assert times is not None
        assert days is not None
        self.times, self.days, self.adaptive = map(
            taken, (times.weight, days.weight, model.adaptive_embedding)
        )
        self.input = copied(model.input_embedding)
        heads = model.config.heads
        self.over_time = nn.ModuleList(_Layer(each, heads) for each in model.temporal_layers)
        self.over_space = nn.ModuleList(_Layer(each, heads) for each in model.spatial_layers)
        self.regression = copied(model.regression)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, num_nodes, channels = x.shape
        parts = [
            self.input(x),
            self.times[(x[..., channels - 2] * len(self.times) + 0.5).long()],
            self.days[(x[..., channels - 1] * 7 + 0.5).long()],
            self.adaptive.expand(batch, -1, -1, -1),
        ]
        tokens = torch.cat(parts, dim=-1)
        for layer in self.over_time:
            tokens = layer(tokens, 1)
        for layer in self.over_space:
            tokens = layer(tokens, 2)
        states = tokens.transpose(1, 2).reshape(batch, num_nodes, -1)
        return self.regression(states).unsqueeze(3).transpose(1, 2)  # type: ignore[no-any-return] # a tensor


def build_staeformer(model: AbstractModel, _: Supports) -> nn.Module:
    """The network, with the weights of `model`."""
    assert isinstance(model, STAEformer)
    return _STAEformer(model)
