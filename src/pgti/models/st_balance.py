"""ST-Balance: a long history in a few numbers, and rows of the graph as identities of sensors."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.errors import ConfigError
from pgti.graph import SensorGraph, dual_random_walk
from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.layers import (
    CalendarEmbedding,
    HistoryEmbedding,
    Regression,
    ResidualLayer,
    required_history,
)
from pgti.nn import Supports, attend
from pgti.shapes import BHNC, BLNC

__all__ = ["STBalance", "STBalanceConfig"]

_EXPANSION = 4
_ATTENTION_DROPOUT = 0.1
_NODE_DROPOUT = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class STBalanceConfig(ModelConfig):
    """Options of ST-Balance; the defaults are those of the released code for GBA, GLA and CA.

    Attributes:
        history_embedding: width of the vector of a sensor's history.
        node_embedding: width of the vector of a row of each operator of the graph.
        time_of_day_embedding: width of the vector of a row of the day, in each stage.
        day_of_week_embedding: width of the vector of a day of the week, in each stage.
        hidden: width of the state of each direction of the graph; `heads` must divide it.
        stage_outputs: width of what each stage hands to the next, and to the last map.
        stages: how often the vectors are fused; from the second on with attention over sensors.
        layers: residual layers of each perceptron.
        heads: attention heads, and also the number of attention layers that encode, and that
            decode, the window: the released code has one number for both, 2 for SD and PEMS0x. It
            must divide the numbers of a window.
        dropout: fraction of a residual layer's units that is zeroed in training.
    """

    history_embedding: int = 12
    node_embedding: int = 64
    time_of_day_embedding: int = 32
    day_of_week_embedding: int = 32
    hidden: int = 64
    stage_outputs: int = 16
    stages: int = 2
    layers: int = 3
    heads: int = 1
    dropout: float = 0.2

    def __post_init__(self) -> None:
        self.check_at_least(history_embedding=1, node_embedding=1, hidden=1, stage_outputs=1)
        self.check_at_least(time_of_day_embedding=1, day_of_week_embedding=1)
        self.check_at_least(stages=2, layers=1, heads=1)
        self.check_fractions("dropout")
        if self.hidden % self.heads:
            raise ConfigError(f"heads is {self.heads}: it must divide hidden, {self.hidden}")


class STBalance(AbstractModel):
    """ST-Balance (arXiv 2605.18793, 2026), after its released code.

    The paper is "Dimensional Balance Improves Large Scale Spatiotemporal Prediction Performance".
    A sensor's long history, the window included, goes through one affine map to 12 numbers; its
    window through attention layers over the sensors, once as an encoder and once as a decoder that
    reads the encoder. Those vectors, that of the sensor, and those of the last row's time of day
    and day of the week are concatenated and fused by residual layers h + W_2 relu(W_1 h + b_1) +
    b_2, once for each direction of the graph with the same weights, and an affine map of both
    results is what the stage hands on. The next stage fuses that instead of the window, with a
    vector of the sensor that is scaled by a gate, which attends over the sensors' states. A
    perceptron maps what all stages handed on to the H steps. The vector of a sensor is a perceptron
    of its row of D_out^-1 A or D_in^-1 A^T: no parameter belongs to a sensor but a column of its
    first weight.

    The parameters are as many as the logs of the released code say: 656,608 for PEMS04 (`1d` of
    history, 2 heads), 1,714,200 for CA with 14 days and 1,673,700 without history. Those logs
    also say what the history is worth on CA: a mean absolute error of 14.93 with it and 18.50
    without, where STID has 18.34.

    Where it differs, or where a source is missing:

    - The file of the released attention layers could not be read. The numbers of parameters leave
      no room for the gains of a normalization, so the layers have none: x + f(x) for attention
      and then for a relu layer of four times the width. Dropout after each is 0.1, torch's
      default, and attention weights are not dropped.
    - It reads all readings of the window, L x C numbers, and the history of the targets, each
      channel once; published are one channel and one target. Several targets are forecast by one
      map to H x C_out.
    - The vectors of a calendar feature that the input lacks, and of history without
      `windows.history`, are left out, and the residual layers are narrower by as much. The row of
      the day is found in whole seconds, where the code truncates (see `layers.step_index`).
    - Rows of the operators are not stored: the first weight of a sensor's perceptron is multiplied
      by the sparse operator. Attention is `scaled_dot_product_attention`: its memory grows with N,
      and its time with N squared.
    """

    support_kind = "transition"
    recalls_days = False  # as published
    can_checkpoint_activations = True
    has_calendar_tables_alone = True
    uses_day_of_week = True
    config: STBalanceConfig

    @property
    def shard_refusal(self) -> str | None:
        """Every sensor attends to all others."""
        return "every sensor attends to all others"

    def __init__(self, config: STBalanceConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        self._readings = shape.input_channels - shape.calendar_channels
        window = shape.input_steps * self._readings
        if window % config.heads:
            raise ConfigError(
                f"heads is {config.heads}: it must divide the {window} numbers of a window, "
                f"{shape.input_steps} rows of {self._readings} channels"
            )
        self.node_embeddings = nn.ModuleList(
            _RowEmbedding(shape.num_nodes, config.node_embedding) for _ in range(2)
        )
        self.history_embedding = None
        if shape.history_steps:
            self.history_embedding = HistoryEmbedding(
                config.history_embedding, shape, with_window=True
            )
        self.encoder = nn.ModuleList(
            _AttentionLayer(window, config.heads) for _ in range(config.heads)
        )
        self.decoder = nn.ModuleList(
            _AttentionLayer(window, config.heads, reads_memory=True) for _ in range(config.heads)
        )
        first = 2 * window + (config.history_embedding if shape.history_steps else 0)
        widths = [first] + [config.stage_outputs] * (config.stages - 1)
        self.stages = nn.ModuleList(_Stage(width, config, shape) for width in widths)
        self.gates = nn.ModuleList(_Gate(config) for _ in range(2 * (config.stages - 1)))
        handed_on = config.stages * config.stage_outputs
        self.output = _perceptron(handed_on, config)
        self.regression = Regression(handed_on, shape)

    def build_supports(self, graph: SensorGraph) -> Supports:
        """D_out^-1 A and D_in^-1 A^T, whose rows are of a sensor's outgoing and incoming edges."""
        operators = [walk.T.tocsr() for walk in dual_random_walk(graph)]
        return Supports(operators, graph, self.support_kind)

    def forward(
        self,
        x: BLNC,
        supports: Supports,
        teacher: TeacherForcing | None = None,
        *,
        history: Tensor | None = None,
    ) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`."""
        self.check_supports(supports)
        history = required_history(history, self.shape)
        window_BND = x[..., : self._readings].permute(0, 2, 3, 1).flatten(2)
        encoded_BND = window_BND
        for layer in self.encoder:
            encoded_BND = self.maybe_checkpoint(layer, encoded_BND, draws=True)
        decoded_BND = window_BND
        for layer in self.decoder:
            decoded_BND = self.maybe_checkpoint(layer, decoded_BND, encoded_BND, draws=True)
        vectors = [encoded_BND, decoded_BND]
        if self.history_embedding is not None and history is not None:
            vectors.insert(0, self.history_embedding(history, x))
        handed_BND = torch.cat(vectors, dim=2)
        nodes_BND = [
            embedding(supports, index).expand(x.shape[0], -1, -1)
            for index, embedding in enumerate(self.node_embeddings)
        ]
        states_BND: list[Tensor] = []
        results_BND = []
        for number, stage in enumerate(self.stages):
            if number:
                gates = self.gates[2 * number - 2 : 2 * number]
                nodes_BND = [
                    self.maybe_checkpoint(gate, node_BND, state_BND)
                    for gate, node_BND, state_BND in zip(gates, nodes_BND, states_BND, strict=True)
                ]
            handed_BND, *states_BND = self.maybe_checkpoint(
                stage, handed_BND, x[:, -1:], *nodes_BND, draws=True
            )
            results_BND.append(handed_BND)
        return self.regression(self.output(torch.cat(results_BND, dim=2)))


class _RowEmbedding(nn.Module):
    """The vector of a row of an operator: a relu layer, and an affine map added to it."""

    def __init__(self, num_nodes: int, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(num_nodes, width)
        self.second = nn.Linear(width, width)

    def forward(self, supports: Supports, index: int) -> Tensor:
        """[N, D], of operator `index`."""
        product_ND = supports.multiply(index, self.first.weight.t())
        units_ND = functional.relu(product_ND.to(self.first.bias.dtype) + self.first.bias)
        units_ND = functional.dropout(units_ND, _NODE_DROPOUT, training=self.training)
        vector_ND: Tensor = units_ND + self.second(units_ND)
        return vector_ND


class _Stage(nn.Module):
    """Fuses what it gets with the vectors of sensors and times, in both directions."""

    def __init__(self, inputs: int, config: STBalanceConfig, shape: ModelShape) -> None:
        super().__init__()
        self.calendar = CalendarEmbedding(
            shape, config.time_of_day_embedding, config.day_of_week_embedding
        )
        for table in self.calendar.parameters():
            nn.init.xavier_uniform_(table)
        width = inputs + config.node_embedding + sum(self.calendar.widths)
        self.shared = _perceptron(width, config)
        self.directions = nn.ModuleList(nn.Linear(width, config.hidden) for _ in range(2))
        self.both = _perceptron(2 * config.hidden, config)
        self.result = nn.Linear(2 * config.hidden, config.stage_outputs)

    def forward(self, handed_BND: Tensor, last_row: BLNC, *nodes_BND: Tensor) -> tuple[Tensor, ...]:
        """What it hands on, and the state of each direction."""
        num_nodes = handed_BND.shape[1]
        times_BND = [each.expand(-1, num_nodes, -1) for each in self.calendar(last_row)]
        states_BND = [
            direction(self.shared(torch.cat([handed_BND, node_BND, *times_BND], dim=2)))
            for direction, node_BND in zip(self.directions, nodes_BND, strict=True)
        ]
        return self.result(self.both(torch.cat(states_BND, dim=2))), *states_BND


class _Gate(nn.Module):
    """Scales the vectors of sensors by a gate that attends over their states."""

    def __init__(self, config: STBalanceConfig) -> None:
        super().__init__()
        self.attention = _Attention(config.hidden, config.heads)
        self.scale = nn.Linear(config.hidden, config.node_embedding)

    def forward(self, node_BND: Tensor, state_BND: Tensor) -> Tensor:
        return node_BND * torch.sigmoid(self.scale(self.attention(state_BND, state_BND)))


class _AttentionLayer(nn.Module):
    """Attention over sensors, over a memory of them, and a relu layer, each added to its input."""

    def __init__(self, width: int, heads: int, *, reads_memory: bool = False) -> None:
        super().__init__()
        self.attention = _Attention(width, heads)
        self.memory_attention = _Attention(width, heads) if reads_memory else None
        self.expansion = nn.Linear(width, _EXPANSION * width)
        self.contraction = nn.Linear(_EXPANSION * width, width)

    def forward(self, x_BND: Tensor, memory_BND: Tensor | None = None) -> Tensor:
        x_BND = x_BND + self._drop(self.attention(x_BND, x_BND))
        if self.memory_attention is not None:
            x_BND = x_BND + self._drop(self.memory_attention(x_BND, memory_BND))
        units_BND = self._drop(functional.relu(self.expansion(x_BND)))
        return x_BND + self._drop(self.contraction(units_BND))

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, _ATTENTION_DROPOUT, training=self.training)


class _Attention(nn.Module):
    """Multi-head attention of sensors over a memory of sensors; starts as torch's."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.query_key_value.weight)
        nn.init.zeros_(self.query_key_value.bias)
        nn.init.zeros_(self.attended.bias)
        self._heads = heads

    def forward(self, x_BND: Tensor, memory_BND: Tensor) -> Tensor:
        weights = self.query_key_value.weight.chunk(3)
        biases = self.query_key_value.bias.chunk(3)
        sources = (x_BND, memory_BND, memory_BND)
        query, key, value = (
            functional.linear(source, weight, bias)
            for source, weight, bias in zip(sources, weights, biases, strict=True)
        )
        attended: Tensor = self.attended(attend(query, key, value, self._heads))
        return attended


def _perceptron(width: int, config: STBalanceConfig) -> nn.Sequential:
    """Residual layers of one width."""
    return nn.Sequential(*(ResidualLayer(width, config.dropout) for _ in range(config.layers)))
