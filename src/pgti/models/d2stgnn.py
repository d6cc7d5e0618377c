"""D2STGNN: what diffuses over graphs that change, split from what every sensor does by itself."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.errors import ConfigError
from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.layers import CalendarEmbedding, Regression
from pgti.nn import (
    Linear,
    Supports,
    adaptive_adjacency,
    batch_norm,
    dropout,
    linear,
    without_autocast,
)
from pgti.nn.decoupled import (
    DiffusionBlock,
    InherentBlock,
    off_diagonal_powers,
    positional_encoding,
)
from pgti.shapes import BHNC, BLNC

__all__ = ["D2STGNN", "D2STGNNConfig"]

_NUM_GRAPHS = 3
_OFF_EDGES = 1e-7
"""Weight of a pair of sensors without an edge, beside probabilities of a random walk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class D2STGNNConfig(ModelConfig):
    """Options of D2STGNN; the defaults are those of the paper and its code, for METR-LA.

    Attributes:
        hidden: D, channels of the hidden series.
        node_embedding: width of the two vectors of a sensor.
        calendar_embedding: width of the vectors of a row of the day and of a day of the week.
        layers: decoupled layers, each of which shortens the series by `kernel` - 1 steps.
        hops: k_s, powers of every graph.
        kernel: k_t, steps that a graph convolution sees.
        gap: steps that one hidden state of the future forecasts.
        heads: attention heads of the inherent block; they must divide `hidden`.
        gate_channels: hidden units of the gate that estimates which part of a series diffuses.
        forecast_channels: width of the sum over layers, before the output.
        end_channels: hidden units of the output.
        dropout: fraction of units, and of attention weights, that is zeroed in training.
    """

    hidden: int = 32
    node_embedding: int = 10
    calendar_embedding: int = 10
    layers: int = 5
    hops: int = 2
    kernel: int = 3
    gap: int = 3
    heads: int = 4
    gate_channels: int = 64
    forecast_channels: int = 256
    end_channels: int = 512
    dropout: float = 0.1

    def __post_init__(self) -> None:
        self.check_at_least(hidden=1, node_embedding=1, calendar_embedding=1, layers=1, hops=1)
        self.check_at_least(kernel=2, gap=1, heads=1, gate_channels=1)
        self.check_at_least(forecast_channels=1, end_channels=1)
        self.check_fractions("dropout")
        if self.hidden % self.heads:
            raise ConfigError(f"heads is {self.heads}: it must divide hidden, {self.hidden}")

    @property
    def receptive_field(self) -> int:
        """Input rows that the last layer needs."""
        return 1 + (self.kernel - 1) * self.layers


class D2STGNN(AbstractModel):
    """Decoupled Dynamic Spatial-Temporal GNN (Shao et al., PVLDB 15, 2022, arXiv 2206.09112).

    As published: a gate estimates from the vectors of sensor and time which part of the hidden
    series diffuses; a diffusion block convolves that part over `kernel` steps and, to `hops` powers
    without the diagonal, over three graphs: one learned from the sensors' vectors, softmax(relu(E_u
    E_d^T)), and two that change with the window, the random walks of the road graph in both
    directions, weighted by attention among sensors; what it explains is taken off, LayerNorm(x -
    relu(backcast)); an inherent block, a GRU and attention over its states, takes the rest; both
    forecast hidden states step by step, `gap` rows each, and the sum over all layers gives the
    forecast through two maps.

    As in the released code (GestaltCogTeam/D2STGNN), where the paper differs or says nothing: the
    vectors for the dynamic graphs come from the whole window, with batch normalization; a pair
    without an edge has weight 1e-7 instead of 0, so a sensor without edges sees all others;
    positional encodings are added to the states again before each step of the inherent forecast.
    Weights start as torch's, vectors Glorot-uniform.

    Where this differs:

    - It omits what the released code has and never uses: a map of the time of day and a
      normalization in every diffusion block, and the last layer's backcast. That is 1,792 of the
      391,962 parameters that the code counts on METR-LA.
    - The softmax over all sensors, times the walk, over its sum, is computed as one softmax of
      scores + log(walk + 1e-7): the same numbers.
    - A graph meets the sum over the kernel's steps once, where the code repeats it for every step.
    - The vectors of calendar features that the input lacks are left out; other calendar features
      are not used.
    - Inputs shorter than the receptive field (11 rows) repeat their oldest row.
    - A horizon that is not a multiple of `gap` is cut from the next one that is.
    - It reads several channels, the dynamic graphs too, and forecasts several targets.

    The graphs are dense: with 2 hops, a step takes 14 N^2 numbers for each window at its peak,
    65 MiB at 1,100 sensors and 7 GB at 11,160. The memory plan of a run refuses what does not
    fit, once it has tried one window.

    Batch normalization takes its statistics from a rank's part of the batch, so training depends on
    the number of ranks; running statistics are those of rank 0.
    """

    can_checkpoint_activations = True
    has_calendar_tables_alone = True
    uses_day_of_week = True
    config: D2STGNNConfig

    @property
    def needs_edges(self) -> bool:
        """False: it learns a graph of its own."""
        return False

    @property
    def shard_refusal(self) -> str | None:
        """Dense graphs."""
        return "its graphs join every pair of sensors"

    def __init__(self, config: D2STGNNConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        num_nodes, hidden = shape.num_nodes, config.hidden
        channels = shape.input_channels - shape.calendar_channels
        self.entrance = nn.Linear(channels, hidden)
        self.source_embedding = nn.Parameter(torch.empty(num_nodes, config.node_embedding))
        self.target_embedding = nn.Parameter(torch.empty(num_nodes, config.node_embedding))
        self.calendar = CalendarEmbedding(
            shape, config.calendar_embedding, config.calendar_embedding
        )
        for table in (self.source_embedding, self.target_embedding, *self.calendar.parameters()):
            nn.init.xavier_uniform_(table)
        times, num_states = sum(self.calendar.widths), -(-shape.horizon // config.gap)
        self.graphs = _DynamicGraphs(config, shape.input_steps * channels, times)
        self.layers = nn.ModuleList(
            _Layer(config, times, num_states, is_last=layer == config.layers - 1)
            for layer in range(config.layers)
        )
        rows = max(shape.input_steps, config.receptive_field) + num_states
        self.positions: Tensor
        self.register_buffer("positions", positional_encoding(rows, hidden), persistent=False)
        self.end = Linear(config.forecast_channels, config.end_channels)
        self.regression = Regression(config.end_channels, replace(shape, horizon=config.gap))

    def learned_rows(self) -> Callable[[slice], Tensor]:
        """The graph that does not change with the hour; see `AbstractModel.learned_rows`."""
        return adaptive_adjacency(self.source_embedding, self.target_embedding, "dense").rows

    def forward(self, x: BLNC, supports: Supports, teacher: TeacherForcing | None = None) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`."""
        self.check_supports(supports)
        batch, num_steps, num_nodes, _ = x.shape
        vectors = (self.source_embedding, self.target_embedding)
        times = self.calendar(x)
        times_BLT = torch.cat(times, dim=2) if times else x.new_zeros(batch, num_steps, 0)
        readings_BLNC = x[..., : self.shape.input_channels - self.shape.calendar_channels]
        graphs_BNP = self._graphs(readings_BLNC, times_BLT[:, -1], supports)
        missing = max(0, self.config.receptive_field - num_steps)
        if missing:
            readings_BLNC = _repeat_first(readings_BLNC, missing)
            times_BLT = _repeat_first(times_BLT, missing)
        h_BNLD = self.entrance(readings_BLNC.transpose(1, 2))
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        futures: list[Tensor] = []
        for layer in self.layers:
            h_BNLD, diffused_BNFD, inherent_BNFD = self.maybe_checkpoint(
                layer, h_BNLD, graphs_BNP, *vectors, times_BLT, self.positions, draws=True
            )
            futures += [diffused_BNFD, inherent_BNFD]
            for branch in (cast(_Layer, layer).diffusion, cast(_Layer, layer).inherent):
                weights.append(branch.forecast.weight)
                biases.append(branch.forecast.bias)
        # The sum of all layers' maps as one product.
        bias_K = torch.cat(biases).view(len(biases), -1).sum(dim=0)
        state = linear(torch.cat(futures, dim=3), torch.cat(weights, dim=1), bias_K)
        state = functional.relu(self.end(functional.relu(state)))
        by_state = self.regression(state.permute(0, 2, 1, 3).flatten(0, 1))
        forecast = by_state.view(batch, -1, num_nodes, self.shape.target_channels)
        return forecast[:, : self.shape.horizon].contiguous()

    def _graphs(self, readings_BLNC: Tensor, time_BT: Tensor, supports: Supports) -> Tensor:
        """[B, N, 3 * hops * N]: powers of the dynamic graphs and the learned one, side by side."""
        vectors = (self.source_embedding, self.target_embedding)
        learned_NN = functional.relu(vectors[0] @ vectors[1].t()).softmax(dim=1)
        dynamic = self.graphs(readings_BLNC, time_BT, *vectors, supports)
        powers = [off_diagonal_powers(graph, self.config.hops) for graph in dynamic]
        learned = off_diagonal_powers(learned_NN.to(dynamic[0].dtype), self.config.hops)
        expanded = [each.expand(time_BT.shape[0], -1, -1) for each in learned]
        return torch.cat([*(each for part in powers for each in part), *expanded], dim=2)


class _DynamicGraphs(nn.Module):
    """The two random walks of the road graph, weighted by attention among the sensors of a window.

    Args:
        config: of the model.
        window: numbers of a sensor in a window.
        times: width of the vectors of the calendar.
    """

    def __init__(self, config: D2STGNNConfig, window: int, times: int) -> None:
        super().__init__()
        hidden = config.hidden
        self.expansion = nn.Linear(window, 2 * hidden)
        self.norm = nn.BatchNorm1d(2 * hidden)
        self.contraction = nn.Linear(2 * hidden, hidden)
        width = hidden + times + config.node_embedding
        self.query = nn.Linear(width, hidden, bias=False)
        self.key = nn.Linear(width, hidden, bias=False)
        self._dropout = config.dropout

    def forward(
        self,
        readings_BLNC: Tensor,
        time_BT: Tensor,
        source_NE: Tensor,
        target_NE: Tensor,
        supports: Supports,
    ) -> list[Tensor]:
        """[B, N, N] each, rows sum to 1."""
        batch, _, num_nodes, _ = readings_BLNC.shape
        window_MC = readings_BLNC.transpose(1, 2).reshape(batch * num_nodes, -1)
        units_MC = batch_norm(functional.relu(self.expansion(window_MC)), self.norm, supports)
        units_MC = dropout(units_MC, self._dropout if self.training else 0.0)
        window_BND = self.contraction(units_MC).view(batch, num_nodes, -1)
        time_BNT = time_BT[:, None].expand(-1, num_nodes, -1)
        identity_NN = torch.eye(num_nodes, dtype=supports.dtype, device=window_BND.device)
        graphs = []
        for index, vectors_NE in enumerate((target_NE, source_NE)):
            parts = (window_BND, time_BNT, vectors_NE.expand(batch, -1, -1))
            features_BNF = torch.cat([each.to(window_BND.dtype) for each in parts], dim=2)
            query_BND, key_BND = self.query(features_BNF), self.key(features_BNF)
            with without_autocast(query_BND.device):
                query_BND, key_BND = (each.to(supports.dtype) for each in (query_BND, key_BND))
                walk_NN = supports.multiply(index, identity_NN)
                scores_BNN = torch.baddbmm(
                    (walk_NN + _OFF_EDGES).log().expand(batch, -1, -1),
                    query_BND,
                    key_BND.transpose(1, 2),
                    alpha=query_BND.shape[2] ** -0.5,
                )
            graphs.append(scores_BNN.softmax(dim=2))
        return graphs


class _Layer(nn.Module):
    """A decoupled layer: a gate, the diffusion block, and the inherent block of what is left."""

    def __init__(
        self, config: D2STGNNConfig, times: int, num_states: int, *, is_last: bool
    ) -> None:
        super().__init__()
        self.gate = nn.Linear(times + 2 * config.node_embedding, config.gate_channels)
        self.gate_end = Linear(config.gate_channels, 1)
        self.diffusion = DiffusionBlock(
            config.hidden,
            config.kernel,
            _NUM_GRAPHS * config.hops,
            forecast_channels=config.forecast_channels,
            num_states=num_states,
            probability=config.dropout,
        )
        self.inherent = InherentBlock(
            config.hidden,
            config.heads,
            forecast_channels=config.forecast_channels,
            num_states=num_states,
            probability=config.dropout,
            has_backcast=not is_last,
        )

    def forward(
        self,
        h_BNLD: Tensor,
        graphs_BNP: Tensor,
        source_NE: Tensor,
        target_NE: Tensor,
        times_BLT: Tensor,
        encodings_LD: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The series that is left, and the future hidden states of both blocks, [B, N, F, D]."""
        times_BLT = times_BLT[:, -h_BNLD.shape[2] :]
        of_time, of_node = self.gate.weight.tensor_split([times_BLT.shape[2]], dim=1)
        of_time_BLG = functional.linear(times_BLT.to(of_time.dtype), of_time)
        of_node_NG = functional.linear(torch.cat([source_NE, target_NE], dim=1), of_node)
        biased_NG = of_node_NG + self.gate.bias
        units_BNLG = functional.relu(biased_NG[:, None] + of_time_BLG[:, None])
        gated_BNLD = h_BNLD * torch.sigmoid(self.gate_end(units_BNLG))
        left_BNLD, diffused_BNFD = self.diffusion(h_BNLD, gated_BNLD, graphs_BNP)
        left_BNLD, inherent_BNFD = self.inherent(left_BNLD, encodings_LD)
        return left_BNLD, diffused_BNFD, inherent_BNFD


def _repeat_first(x: Tensor, rows: int) -> Tensor:
    """[B, L, ..] with its first row `rows` times more."""
    return torch.cat([*[x[:, :1]] * rows, x], dim=1)
