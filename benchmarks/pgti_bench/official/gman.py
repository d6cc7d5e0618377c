"""GMAN as zhengchuanpan/GMAN computes it, in torch.

State and embedding are concatenated for every map, queries, keys and values are maps of their own,
heads are concatenated along the batch, and all weights of attention are stored.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.models import GMAN, AbstractModel
from pgti.models.layers import continued_calendar, day_index, step_index
from pgti.nn import NormedMaps, Supports
from pgti_bench.official.layers import linear, taken

__all__ = ["build_gman"]


class _Map(nn.Module):
    """relu(norm(x W + b)), one of several maps of a layer."""

    def __init__(self, maps: NormedMaps, part: slice = slice(None)) -> None:
        super().__init__()
        weight = maps.weight[part]
        self.map = linear(weight, torch.zeros(len(weight)))
        self.norm = nn.BatchNorm1d(self.map.out_features, eps=maps.norm.eps)
        self.norm.weight, self.norm.bias = (
            taken(maps.norm.weight[part]),
            taken(maps.norm.bias[part]),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.map(x)
        return functional.relu(self.norm(y.flatten(0, -2)).view(y.shape))


def _maps(maps: NormedMaps, number: int = 1) -> nn.ModuleList:
    width = len(maps.weight) // number
    parts = (slice(first * width, (first + 1) * width) for first in range(number))
    return nn.ModuleList(_Map(maps, part) for part in parts)


def _pair(pair: nn.Module) -> nn.Sequential:
    first, second = pair.get_submodule("first"), pair.get_submodule("second")
    assert isinstance(first, NormedMaps)
    assert isinstance(second, nn.Linear)
    return nn.Sequential(_Map(first), linear(second.weight, second.bias))


def _attend(parts: list[Tensor], heads: int, *, causal: bool = False) -> Tensor:
    """Over the last but one dimension of [.., T, D]; heads go through the batch."""
    query, key, value = (torch.cat(each.chunk(heads, dim=-1)) for each in parts)
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = torch.where(mask.expand(scores.shape), scores, -(2.0**15) + 1)
    return torch.cat((scores.softmax(dim=-1) @ value).chunk(heads), dim=-1)


class _Attention(nn.Module):
    """Over sensors, or over steps."""

    def __init__(self, attention: nn.Module, model: GMAN, *, over_steps: bool) -> None:
        super().__init__()
        maps = attention.get_submodule("query_key_value")
        assert isinstance(maps, NormedMaps)
        self.maps, self.attended = _maps(maps, 3), _pair(attention.get_submodule("attended"))
        self.heads, self.over_steps = model.config.heads, over_steps
        self.causal = over_steps and model.config.causal

    def forward(self, h_BTND: Tensor, embedding_BTND: Tensor) -> Tensor:
        joined = torch.cat([h_BTND, embedding_BTND], dim=3)
        parts = [each(joined) for each in self.maps]
        if self.over_steps:
            parts = [each.transpose(1, 2) for each in parts]
        read = _attend(parts, self.heads, causal=self.causal)
        attended: Tensor = self.attended(read.transpose(1, 2) if self.over_steps else read)
        return attended


class _Block(nn.Module):
    """Both attentions, a gate, a residual connection."""

    def __init__(self, block: nn.Module, model: GMAN) -> None:
        super().__init__()
        part = block.get_submodule
        self.spatial = _Attention(part("spatial"), model, over_steps=False)
        self.temporal = _Attention(part("temporal"), model, over_steps=True)
        fusion = part("fusion")
        self.of_spatial = linear(fusion.get_parameter("of_spatial.weight"))
        self.of_temporal = linear(
            fusion.get_parameter("of_temporal.weight"), fusion.get_parameter("of_temporal.bias")
        )
        self.fused = _pair(fusion.get_submodule("fused"))

    def forward(self, h_BTND: Tensor, embedding_BTND: Tensor) -> Tensor:
        spatial = self.spatial(h_BTND, embedding_BTND)
        temporal = self.temporal(h_BTND, embedding_BTND)
        z = torch.sigmoid(self.of_spatial(spatial) + self.of_temporal(temporal))
        fused: Tensor = self.fused(z * spatial + (1 - z) * temporal)
        return h_BTND + fused


class _GMAN(nn.Module):
    """The whole network; times are one-hot."""

    def __init__(self, model: GMAN) -> None:
        super().__init__()
        tables, times = model.calendar, model.calendar_maps
        assert tables.time_of_day is not None
        assert tables.day_of_week is not None
        assert times is not None
        self.shape, self.heads = model.shape, model.config.heads
        self.sensors = taken(model.sensor_embedding)
        self.sensor_maps = _pair(model.sensor_maps)
        days_and_rows = torch.cat([tables.day_of_week.weight, tables.time_of_day.weight])
        self.time_map = linear(days_and_rows.t(), torch.zeros(days_and_rows.shape[1]))
        self.time_norm = nn.BatchNorm1d(times.norm.num_features, eps=times.norm.eps)
        self.time_end = linear(times.second.weight, times.second.bias)
        self.entrance = _pair(model.entrance)
        self.encoder = nn.ModuleList(_Block(block, model) for block in model.encoder)
        transform = model.transform
        parts = (transform.query, transform.key, transform.value)
        self.transform = nn.ModuleList(_Map(maps) for maps in parts)
        self.transformed = _pair(transform.attended)
        self.decoder = nn.ModuleList(_Block(block, model) for block in model.decoder)
        self.exit = _Map(model.exit)
        self.regression = linear(model.regression.weight, model.regression.bias)

    def forward(self, x: Tensor) -> Tensor:
        shape = self.shape
        rows = continued_calendar(x, shape)[:, :, None]
        padded = functional.pad(rows, (shape.input_channels - rows.shape[3], 0))
        day, row = day_index(padded, shape), step_index(padded, shape)
        assert day is not None
        assert row is not None
        assert shape.steps_per_day is not None
        day_and_row = (functional.one_hot(day, 7), functional.one_hot(row, shape.steps_per_day))
        time_BTD = self.time_map(torch.cat(day_and_row, dim=2).to(x.dtype))
        time_BTD = functional.relu(self.time_norm(time_BTD.flatten(0, 1)).view(time_BTD.shape))
        embedding = self.sensor_maps(self.sensors) + self.time_end(time_BTD)[:, :, None]
        past, future = embedding[:, : shape.input_steps], embedding[:, shape.input_steps :]
        h = self.entrance(x[..., : -shape.calendar_channels])
        for block in self.encoder:
            h = block(h, past)
        parts = zip(self.transform, (future, past, h), strict=True)
        read = _attend([each(source).transpose(1, 2) for each, source in parts], self.heads)
        h = self.transformed(read.transpose(1, 2))
        for block in self.decoder:
            h = block(h, future)
        forecast: Tensor = self.regression(self.exit(h))
        return forecast


def build_gman(model: AbstractModel, supports: Supports) -> nn.Module:  # noqa: ARG001 - a `Rival`
    """Of a `GMAN` with both features of the calendar and without dropout."""
    assert isinstance(model, GMAN)
    return _GMAN(model)
