"""ST-Balance as ST-Balance/ST-Balance computes it: dense rows of the graph through a perceptron,
vectors of the calendar looked up for every sensor, gates with torch's attention and its weights.

The file of its attention layers over the window could not be read: here they are those that
`pgti.models.STBalance` describes, with torch's attention, which need not return its weights.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.models import AbstractModel, STBalance
from pgti.nn import Supports
from pgti_bench.official.layers import copied, dense_operators, taken

__all__ = ["build_st_balance"]


def _attention(attention: nn.Module, heads: int) -> nn.MultiheadAttention:
    """torch's, with copies of weights."""
    weight, bias = (
        taken(attention.get_parameter(f"query_key_value.{name}")) for name in ("weight", "bias")
    )
    layer = nn.MultiheadAttention(weight.shape[1], heads, batch_first=True)
    layer.in_proj_weight, layer.in_proj_bias = weight, bias
    layer.out_proj.load_state_dict(attention.get_submodule("attended").state_dict())
    return layer


class _AttentionLayer(nn.Module):
    """Attention over sensors, over a memory of them, and a perceptron."""

    def __init__(self, layer: nn.Module, heads: int) -> None:
        super().__init__()
        part = layer.get_submodule
        found = (getattr(layer, name) for name in ("attention", "memory_attention"))
        self.attentions = nn.ModuleList(_attention(each, heads) for each in found if each)
        self.expansion, self.contraction = copied(part("expansion")), copied(part("contraction"))
        self.dropouts = nn.ModuleList(nn.Dropout(0.1) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        for attention, dropout, other in zip(
            self.attentions, self.dropouts, (None, memory), strict=False
        ):
            source = x if other is None else other
            x = x + dropout(attention(x, source, source, need_weights=False)[0])
        units = self.dropouts[2](functional.relu(self.expansion(x)))
        result: Tensor = x + self.dropouts[3](self.contraction(units))
        return result


class _Residual(nn.Module):
    """A residual layer."""

    def __init__(self, layer: nn.Module, dropout: float) -> None:
        super().__init__()
        first, second = (copied(layer.get_submodule(name)) for name in ("first", "second"))
        self.units = nn.Sequential(first, nn.ReLU(), nn.Dropout(dropout), second)

    def forward(self, x: Tensor) -> Tensor:
        units: Tensor = self.units(x)
        return units + x


def _perceptron(layers: nn.Module, dropout: float) -> nn.Sequential:
    return nn.Sequential(*(_Residual(each, dropout) for each in layers.children()))


class _Rows(nn.Module):
    """Vectors of the rows of an operator."""

    def __init__(self, embedding: nn.Module, operator_NN: Tensor) -> None:
        super().__init__()
        self.first, self.second = (
            copied(embedding.get_submodule(name)) for name in ("first", "second")
        )
        self.dropout, self.operator = nn.Dropout(0.2), operator_NN

    def forward(self, batch: int) -> Tensor:
        units = self.dropout(functional.relu(self.first(self.operator[None])))
        vectors: Tensor = units + self.second(units)
        return vectors.expand(batch, -1, -1)


class _Stage(nn.Module):
    """Fuses what it gets, in both directions."""

    def __init__(self, stage: nn.Module, gates: nn.ModuleList, model: STBalance) -> None:
        super().__init__()
        part, rate = stage.get_submodule, model.config.dropout
        self.times, self.days = (
            taken(stage.get_parameter(f"calendar.{name}.weight"))
            for name in ("time_of_day", "day_of_week")
        )
        self.shared, self.both = (_perceptron(part(name), rate) for name in ("shared", "both"))
        self.directions = nn.ModuleList(map(copied, part("directions").children()))
        self.result = copied(part("result"))
        self.attentions = nn.ModuleList(
            _attention(gate.get_submodule("attention"), model.config.heads) for gate in gates
        )
        self.scales = nn.ModuleList(copied(gate.get_submodule("scale")) for gate in gates)

    def forward(
        self, x: Tensor, handed: Tensor, nodes: list[Tensor], states: list[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        times = [
            self.times[(x[:, -1, :, -2] * len(self.times) + 0.5).long()],
            self.days[(x[:, -1, :, -1] * 7 + 0.5).long()],
        ]
        if len(self.attentions):
            read = [
                attention(state, state, state)[0]
                for attention, state in zip(self.attentions, states, strict=True)
            ]
            gates = zip(nodes, self.scales, read, strict=True)
            nodes = [node * torch.sigmoid(scale(state)) for node, scale, state in gates]
        states = [
            direction(self.shared(torch.cat([handed, node, *times], dim=2)))
            for direction, node in zip(self.directions, nodes, strict=True)
        ]
        return self.result(self.both(torch.cat(states, dim=2))), nodes, states


class _STBalance(nn.Module):
    """The whole network."""

    def __init__(self, model: STBalance, walks: list[Tensor]) -> None:
        super().__init__()
        heads = model.config.heads
        self.encoder, self.decoder = (
            nn.ModuleList(_AttentionLayer(each, heads) for each in layers)
            for layers in (model.encoder, model.decoder)
        )
        embeddings = zip(model.node_embeddings, walks, strict=True)
        self.rows = nn.ModuleList(_Rows(each, walk) for each, walk in embeddings)
        self.stages = nn.ModuleList(
            _Stage(stage, model.gates[max(0, 2 * index - 2) : 2 * index], model)
            for index, stage in enumerate(model.stages)
        )
        self.output = _perceptron(model.output, model.config.dropout)
        self.regression = copied(model.regression)

    def forward(self, x: Tensor) -> Tensor:
        window = x[..., 0].transpose(1, 2)
        encoded = decoded = window
        for layer in self.encoder:
            encoded = layer(encoded)
        for layer in self.decoder:
            decoded = layer(decoded, encoded)
        handed = torch.cat([encoded, decoded], dim=2)
        states: list[Tensor] = []
        results: list[Tensor] = []
        nodes = [rows(len(x)) for rows in self.rows]
        for stage in self.stages:
            handed, nodes, states = stage(x, handed, nodes, states)
            results.append(handed)
        forecast: Tensor = self.regression(self.output(torch.cat(results, dim=2)))
        return forecast.transpose(1, 2).unsqueeze(3)


def build_st_balance(model: AbstractModel, supports: Supports) -> nn.Module:
    """Of an `STBalance` with both features of the calendar, one channel and no history."""
    assert isinstance(model, STBalance)
    return _STBalance(model, dense_operators(supports))
