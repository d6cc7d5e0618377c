"""HimNet: recurrent layers whose weights depend on the sensor, the time, and the window."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.layers import CalendarEmbedding, continued_calendar
from pgti.models.scheduled_sampling import Truth, next_input, sampled_truths
from pgti.nn import (
    AdaptiveAdjacency,
    AdaptiveGRU,
    AdaptiveGRUWeights,
    Supports,
    adaptive_adjacency,
    check_adjacency_form,
    without_autocast,
)
from pgti.shapes import BHNC, BLNC

__all__ = ["HimNet", "HimNetConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class HimNetConfig(ModelConfig):
    """Options of HimNet; the defaults are those of the paper on METR-LA, but for one.

    Attributes:
        hidden: units D of the two encoders and the decoder; 96 on PEMS08.
        order: K, terms of the Chebyshev polynomials: 2 means the node itself and its neighbours.
        node_embedding: width of the vector of a sensor; 14 on PEMS08.
        time_of_day_embedding: width of the vector of a row of the day; 12 on PEMS04, 10 on PEMS08.
        day_of_week_embedding: width of the vector of a day of the week; 4 on PEMS04, 2 on PEMS08.
        window_embedding: width of the vector of a sensor's window; 10 on PEMS08.
        scheduled_sampling: let the decoder see the truth at some steps of training. The paper
            does. With its `sampling_decay` the truth is the input of half the steps after 52,000
            optimizer steps; where training is much shorter, the decoder hardly sees its own
            forecasts, so it is off by default.
        sampling_decay: optimizer steps tau after which the decoder sees the truth less and less,
            with the probability tau / (tau + exp(step / tau)); 4,000 on PEMS03 and PEMS04.
        adjacency: `dense`, `low-rank`, or `auto`: dense up to 4,096 nodes.
    """

    hidden: int = 64
    order: int = 2
    node_embedding: int = 16
    time_of_day_embedding: int = 8
    day_of_week_embedding: int = 8
    window_embedding: int = 16
    scheduled_sampling: bool = False
    sampling_decay: float = 6000.0
    adjacency: str = "auto"

    def __post_init__(self) -> None:
        self.check_at_least(hidden=1, order=2, node_embedding=1, window_embedding=1)
        self.check_at_least(time_of_day_embedding=1, day_of_week_embedding=1, sampling_decay=1)
        if not math.isfinite(self.sampling_decay):
            raise ConfigError(f"sampling_decay is {self.sampling_decay}: it must be finite")
        check_adjacency_form(self.adjacency)


class HimNet(AbstractModel):
    """Heterogeneity-Informed Meta-Parameter Network (Dong, Jiang, Gao, et al., KDD 2024).

    arXiv 2405.10800. As published: the weights of recurrent layers are sums over a pool, weighed
    by an embedding, W = sum_r E_r P_r. Two encoders read the window: one has weights for every
    sensor, from its vector, the other for every window, from the vectors of its last row's time of
    day and day of the week. The sum of their last states is the decoder's first state, and an
    affine map of it is the vector of the sensor in this window, from which follow the decoder's
    weights and its graph. Every matrix product is a graph convolution, over softmax(relu(E E^T)):
    in the encoders of the vectors of the sensors, in the decoder of those of the window. The
    decoder emits H steps, each with the previous one as its input. The graph of the sensors is not
    used.
    As in the released code, where the paper says nothing: layers are those of AGCRN (see
    `pgti.nn.adaptive_gru`); encoders see all input channels, the decoder its last forecast and the
    calendar features of the step that it forecasts; the first forecast it sees (GO) is zeros; one
    coin per decoder step decides for the whole batch; pools and vectors of sensors are
    Glorot-normal at first, calendar vectors standard normal, affine maps as torch's. With speed,
    time of day and day of the week as inputs it has the released code's number of parameters,
    1,250,937 on METR-LA.

    Where this differs:

    - The weights of each sensor in each window, 170 million numbers for a batch of 32 on METR-LA,
      are never made: (E x) P is one product of a few rows at a time (see `pgti.nn.node_weights`).
    - Above 4,096 nodes both graphs have another form, of rank R and linear in N (see
      `pgti.nn.adaptive`), unless the option `adjacency` says otherwise.
    - The vector of a calendar feature that the input lacks is left out; without both, the second
      encoder's weights are the same for all windows.
    - The day of the week reaches the layers divided by 7, not as 0 to 6. The row of the day is
      found in whole seconds, where the code truncates (see `layers.step_index`).
    - Coins are a function of (seed, step), so that a resumed run repeats them.
    - The number of layers, an option of the released code, is its 1.
    """

    support_kind = "none"
    can_checkpoint_activations = True
    uses_day_of_week = True
    config: HimNetConfig

    @property
    def shard_refusal(self) -> str | None:
        """Its learned graphs join every pair of sensors."""
        return "its learned graphs join every pair of sensors"

    def __init__(self, config: HimNetConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        self.node_embedding = nn.Parameter(torch.empty(shape.num_nodes, config.node_embedding))
        nn.init.xavier_normal_(self.node_embedding)
        self.calendar = CalendarEmbedding(
            shape, config.time_of_day_embedding, config.day_of_week_embedding
        )
        self.window_embedding = nn.Linear(config.hidden, config.window_embedding)
        fed_channels = shape.target_channels + shape.calendar_channels
        self.node_encoder, self.time_encoder, self.decoder = (
            _layer(channels, width, config)
            for channels, width in (
                (shape.input_channels, config.node_embedding),
                (shape.input_channels, sum(self.calendar.widths) or 1),
                (fed_channels, config.window_embedding),
            )
        )
        self.projection = nn.Linear(config.hidden, shape.target_channels)

    @property
    def depends_on_step(self) -> bool:
        """Scheduled sampling flips its coins on the host."""
        return self.config.scheduled_sampling

    def learned_rows(self) -> Callable[[slice], Tensor]:
        """The graph of the sensors' own vectors; see `AbstractModel.learned_rows`."""
        return adaptive_adjacency(
            self.node_embedding, self.node_embedding, self.config.adjacency
        ).rows

    def forward(
        self,
        x: BLNC,
        supports: Supports,
        teacher: TeacherForcing | None = None,
        calendar: Tensor | None = None,
    ) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`.

        Args:
            x: the windows.
            supports: ignored.
            teacher: for scheduled sampling.
            calendar: [B, L + H, F], calendar features of windows and horizons; without it that of
                x continues.
        """
        batch, num_steps, num_nodes, _ = x.shape
        hidden, horizon = self.config.hidden, self.shape.horizon
        steps = self.steps_per_part(num_steps + horizon, num_nodes * batch * 6 * hidden)
        state_BND = self._encode(x, steps)
        with without_autocast(x.device):  # graph and weights follow from it
            vectors_BNR = self.window_embedding(state_BND)
        adjacency = adaptive_adjacency(vectors_BNR, vectors_BNR, self.config.adjacency)
        weights = self.decoder.weights(vectors_BNR.flatten(0, 1), self.limits)
        calendar = continued_calendar(x, self.shape) if calendar is None else calendar
        ahead_BHF = calendar[:, num_steps:]
        sampled = teacher if self.config.scheduled_sampling else None
        truths = sampled_truths(sampled, horizon, self.config.sampling_decay)
        fed_BNC = x.new_zeros(batch, num_nodes, self.shape.target_channels)
        forecasts_BNC: list[Tensor] = []
        for first in range(0, horizon, steps):
            part = slice(first, first + steps)
            decoded = self.maybe_checkpoint(
                self._decode,
                fed_BNC,
                state_BND,
                ahead_BHF[:, part],
                truths[part],
                weights,
                adjacency,
            )
            part_BNC, fed_BNC, state_BND = decoded
            forecasts_BNC += part_BNC
        return torch.stack(forecasts_BNC, dim=1)

    def _encode(self, x: BLNC, steps: int) -> Tensor:
        """The sum of both encoders' last states, [B, N, D]."""
        by_node_NBD = x.new_zeros(x.shape[2], x.shape[0], self.config.hidden)
        states = by_node_NBD, by_node_NBD.transpose(0, 1)
        adjacency = adaptive_adjacency(
            self.node_embedding, self.node_embedding, self.config.adjacency
        )
        times_B1D = self.calendar(x[:, -1:])
        times_BR = torch.cat(times_B1D, dim=2)[:, 0] if times_B1D else x.new_ones(x.shape[0], 1)
        weights = (
            self.node_encoder.weights(self.node_embedding, self.limits),
            self.time_encoder.weights(times_BR, self.limits),
        )
        for part_BLNC in torch.split(x, steps, dim=1):
            states = self.maybe_checkpoint(self._read, part_BLNC, states, weights, adjacency)
        by_node_NBD, by_time_BND = states
        return by_node_NBD.transpose(0, 1) + by_time_BND

    def _read(
        self,
        x_BLNC: Tensor,
        states: tuple[Tensor, Tensor],
        weights: tuple[AdaptiveGRUWeights, AdaptiveGRUWeights],
        adjacency: AdaptiveAdjacency,
    ) -> tuple[Tensor, Tensor]:
        """The states of both encoders after some steps, [N, B, D] and [B, N, D]."""
        x_NLBC = x_BLNC.permute(2, 1, 0, 3)
        by_node_NLBD = self.node_encoder(x_NLBC, states[0], weights[0], adjacency.propagate)
        by_time_BLND = self.time_encoder(x_BLNC, states[1], weights[1], adjacency.multiply)
        return by_node_NLBD[:, -1], by_time_BLND[:, -1]

    def _decode(
        self,
        fed_BNC: Tensor,
        state_BND: Tensor,
        ahead_BHF: Tensor,
        truths: Sequence[Truth],
        weights: AdaptiveGRUWeights,
        adjacency: AdaptiveAdjacency,
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Forecasts of some steps, the input of the next step, and the state before it."""
        batch, num_nodes, _ = fed_BNC.shape

        def propagate(s_MC: Tensor) -> Tensor:
            s_BNC = s_MC.reshape(batch, num_nodes, -1)
            return adjacency.multiply(s_BNC).view(s_MC.shape)

        forecasts_BNC = []
        for ahead_BF, truth in zip(ahead_BHF.unbind(dim=1), truths, strict=True):
            ahead_BNF = ahead_BF.unsqueeze(1).expand(-1, num_nodes, -1)
            input_BNC = torch.cat([fed_BNC, ahead_BNF.to(fed_BNC.dtype)], dim=2)
            # Each pair of window and sensor has weights of its own, and one row.
            states_M11D = self.decoder(
                input_BNC.reshape(batch * num_nodes, 1, 1, -1),
                state_BND.reshape(batch * num_nodes, 1, -1),
                weights,
                propagate,
            )
            state_BND = states_M11D.view(batch, num_nodes, -1)
            with without_autocast(state_BND.device):  # bfloat16 would round off 3 digits
                forecasts_BNC.append(self.projection(state_BND))
            fed_BNC = next_input(forecasts_BNC[-1].transpose(0, 1), truth).transpose(0, 1)
        return forecasts_BNC, fed_BNC, state_BND


def _layer(channels: int, embedding: int, config: HimNetConfig) -> AdaptiveGRU:
    """A layer that starts as in the released code: pools [R, K (C + D), O] are Glorot-normal."""
    layer = AdaptiveGRU(channels, config.hidden, embedding, config.order)
    gates = 2 * config.hidden
    rows = embedding + config.order * (channels + config.hidden)
    gate_std, candidate_std = (math.sqrt(2 / (rows * width)) for width in (gates, config.hidden))
    with torch.no_grad():
        layer.pool_input[..., :gates].normal_(std=gate_std)
        layer.pool_input[..., gates:].normal_(std=candidate_std)
        layer.pool_gates.normal_(std=gate_std)
        layer.pool_candidate.normal_(std=candidate_std)
        nn.init.xavier_normal_(layer.pool_bias[:, :gates])
        nn.init.xavier_normal_(layer.pool_bias[:, gates:])
    return layer
