"""STRecall: forecasts that recall what a sensor read on earlier days, if today is like them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.errors import ConfigError, option
from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.layers import CalendarEmbedding, HistoryEmbedding, Regression, required_history
from pgti.nn import NUM_SUPPORTS, Supports, diffusion_convolution, draw_as_linear
from pgti.shapes import BHNC, BLNC

__all__ = ["STRecall", "STRecallConfig"]

_CLOSEST = 0.003
"""Distance, in standard deviations of a channel, below which two days are the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class STRecallConfig(ModelConfig):
    """Options of STRecall.

    Attributes:
        window_embedding: width of the vector of a sensor's window.
        node_embedding: width of the vector of a sensor.
        time_of_day_embedding: width of the vector of a row of the day.
        day_of_week_embedding: width of the vector of a day of the week.
        history_embedding: width of the vector of a sensor's history, where windows have one; 0
            leaves it out, so that the history is what can be copied, and no more.
        day_embedding: width of the vector of how close the earlier days are.
        layers: residual layers.
        hops: steps of the walks along and against the edges, in each layer; 0 leaves the graph out.
        diffused: width of what walks.
        dropout: fraction of a residual layer's units that is zeroed in training.
    """

    window_embedding: int = 32
    node_embedding: int = 32
    time_of_day_embedding: int = 32
    day_of_week_embedding: int = 32
    history_embedding: int = 64
    day_embedding: int = 16
    layers: int = 3
    hops: int = 3
    diffused: int = 32
    dropout: float = 0.15

    def __post_init__(self) -> None:
        self.check_at_least(window_embedding=1, node_embedding=1, day_embedding=1, layers=1)
        self.check_at_least(history_embedding=0)
        self.check_at_least(time_of_day_embedding=1, day_of_week_embedding=1)
        self.check_at_least(hops=0, diffused=1)
        self.check_fractions("dropout")


class STRecall(AbstractModel):
    """STID with a graph, whose output copies readings of earlier days; published nowhere else.

    The vectors of a sensor's window, of its history, of how close earlier days are, of the sensor,
    and of the last row's time of day and day of the week are concatenated, as in STID (Shao et al.,
    CIKM 2022), with history as in `STID`. Residual layers
    h + W_2 dropout(relu(W_1 h + sum_k S^k U h W_k + b_1)) + b_2 follow: U narrows h, and S^k are
    walks of up to `hops` steps along and against the edges (the diffusion convolution of Li et al.,
    ICLR 2018).

    The forecast of a step is a correction and a weighted mean of what could come next: the last
    reading, and the reading at that time of each earlier day, today's window being the same rows of
    that day. Weights are a softmax (a pointer: Vinyals et al., NeurIPS 2015, arXiv 1506.03134) of
    what the last layer says and of how close the day is: -log(d + 0.003) times a learned gain, d
    the mean absolute difference of the two windows in standard deviations. That is the inverse
    distance weighting of analogue, or nearest neighbour, forecasts; one day that equals today
    has a weight of almost 1. So a reading that repeats, such as a value that was imputed by time of
    the week, is copied exactly, which a perceptron approximates.

    The days are all of 1, 2, .. whose L + H rows are in the history: `1d..7d` has seven of them,
    and a span `8d` the same. How much of a day was observed is one of the inputs: a missing reading
    is the sensor's typical one at that time. Without history, or where a day is not a whole number
    of rows, the last reading is the only candidate, and the rest a STID with a graph.
    """

    support_kind = "dual_random_walk"
    can_checkpoint_activations = True
    uses_day_of_week = True
    config: STRecallConfig

    @property
    def shard_refusal(self) -> str | None:
        """None: sensors meet along the edges alone."""
        return None

    def __init__(self, config: STRecallConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        self._channels = tuple(dict.fromkeys(shape.target_indices))
        self._days = _rows_of_days(shape)
        num_days = len(self._days)
        if shape.history_steps and not (config.history_embedding or num_days):
            raise ConfigError(
                "history_embedding is 0, and the history has no whole earlier day to copy from: "
                f"give {option('windows.history', ('1d..7d',))}, or a width of at least 1"
            )
        window = shape.input_steps * shape.input_channels
        self.window_embedding = nn.Linear(window, config.window_embedding)
        self.node_embedding = nn.Parameter(torch.empty(shape.num_nodes, config.node_embedding))
        self.calendar = CalendarEmbedding(
            shape, config.time_of_day_embedding, config.day_of_week_embedding
        )
        for table in (self.node_embedding, *self.calendar.parameters()):
            nn.init.xavier_uniform_(table)
        width = config.window_embedding + config.node_embedding + sum(self.calendar.widths)
        self.history_embedding = None
        if shape.history_steps and config.history_embedding:
            self.history_embedding = HistoryEmbedding(config.history_embedding, shape)
            width += config.history_embedding
        self.day_embedding = None
        if num_days:
            # Of each day and channel: how close it is, and how much of it was observed.
            facts = 2 * num_days * len(self._channels)
            self.day_embedding = nn.Linear(facts, config.day_embedding)
            width += config.day_embedding
            self.closeness_gain = nn.Parameter(torch.ones(shape.target_channels, num_days))
        self.layers = nn.ModuleList(_Layer(width, config) for _ in range(config.layers))
        outputs = 2 + num_days  # the correction, and the scores of the last reading and of days
        indices = shape.target_indices * outputs
        repeated = replace(shape, target_channels=len(indices), target_indices=indices)
        self.regression = Regression(width, repeated)

    def forward(
        self,
        x: BLNC,
        supports: Supports,
        teacher: TeacherForcing | None = None,
        *,
        history: Tensor | None = None,
        history_mask: Tensor | None = None,
    ) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`.

        A `history_mask` of None stands for a history without missing readings.
        """
        self.check_supports(supports)
        history = required_history(history, self.shape)
        batch, num_nodes = len(x), x.shape[2]
        vectors = [
            self.window_embedding(x.transpose(1, 2).flatten(2)),
            supports.local(self.node_embedding).expand(batch, -1, -1),
            *(vector_B1D.expand(-1, num_nodes, -1) for vector_B1D in self.calendar(x[:, -1:])),
        ]
        days, closeness = None, None
        if self.history_embedding is not None and history is not None:
            vectors.append(self.history_embedding(history))
        if self.day_embedding is not None and history is not None:
            days = {each: self._of_days(history, each) for each in self._channels}
            closeness = {each: self._closeness(x, days[each], each) for each in days}
            facts = list(closeness.values())
            facts += [self._observed(history_mask, days[each], each) for each in days]
            vectors.append(self.day_embedding(torch.cat(facts, dim=1).transpose(1, 2)))
        h_BND = torch.cat(vectors, dim=2)
        for layer in self.layers:
            h_BND = self.maybe_checkpoint(layer, h_BND, supports, draws=True)
        return self._recall(self.regression(h_BND), x, days, closeness)

    def _of_days(self, history: Tensor, channel: int) -> Tensor:
        """[B, K, L + H, N]: the rows of each day that are the window's and its targets'."""
        rows = self.shape.input_steps + self.shape.horizon
        return torch.stack([history[:, i : i + rows, :, channel] for i in self._days], dim=1)

    def _closeness(self, x: BLNC, days_BKTN: Tensor, channel: int) -> Tensor:
        """[B, K, N]: minus the logarithm of each day's distance from the window."""
        window_BLN = x[..., channel]
        then_BKLN = days_BKTN[:, :, : self.shape.input_steps]
        distance = (then_BKLN - window_BLN[:, None]).abs().mean(dim=2)
        return -torch.log(distance + _CLOSEST)

    def _observed(self, mask: Tensor | None, days_BKTN: Tensor, channel: int) -> Tensor:
        """[B, K, N]: the fraction of each day that was observed."""
        if mask is None:
            return torch.ones_like(days_BKTN[:, :, 0])
        return self._of_days(mask, channel).to(days_BKTN.dtype).mean(dim=2)

    def _recall(
        self,
        outputs: Tensor,
        x: BLNC,
        days: dict[int, Tensor] | None,
        closeness: dict[int, Tensor] | None,
    ) -> BHNC:
        """The corrections, and the weighted means of the candidates, [B, H, N, C]."""
        parts_BHNC = torch.split(outputs, self.shape.target_channels, dim=3)
        correction_BHNC, *scores = parts_BHNC
        forecasts = []
        for target, channel in enumerate(self.shape.target_indices):
            scores_BKHN = torch.stack([each[..., target] for each in scores], dim=1)
            last_BKHN = x[:, -1:, None, :, channel].expand(-1, -1, self.shape.horizon, -1)
            candidates_BKHN = last_BKHN
            if days is not None and closeness is not None:
                then_BKHN = days[channel][:, :, self.shape.input_steps :]
                candidates_BKHN = torch.cat([last_BKHN, then_BKHN], dim=1)
                close_BKN = closeness[channel] * self.closeness_gain[target][:, None]
                close_BKN = functional.pad(close_BKN, (0, 0, 1, 0))
                scores_BKHN = scores_BKHN + close_BKN[:, :, None]
            weights_BKHN = torch.softmax(scores_BKHN, dim=1)
            forecasts.append((weights_BKHN * candidates_BKHN).sum(dim=1))
        forecast: BHNC = correction_BHNC + torch.stack(forecasts, dim=3)
        return forecast.contiguous()


class _Layer(nn.Module):
    """h + W_2 dropout(relu(W_1 h + sum_k S^k U h W_k + b_1)) + b_2, all of one width."""

    def __init__(self, width: int, config: STRecallConfig) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self._dropout = config.dropout
        self.narrow = None
        if config.hops:
            terms = 1 + NUM_SUPPORTS["dual_random_walk"] * config.hops
            self.narrow = nn.Linear(width, config.diffused, bias=False)
            self.walks = nn.Parameter(torch.empty(terms, config.diffused, width))
            draw_as_linear(terms * config.diffused, self.walks)

    def forward(self, h_BND: Tensor, supports: Supports) -> Tensor:
        """[B, N, D]."""
        units_BND = self.first(h_BND)
        if self.narrow is not None:
            x_LNBC = self.narrow(h_BND).transpose(0, 1)[None]
            zeros = torch.zeros_like(self.first.bias)
            walked_LNBO = diffusion_convolution(x_LNBC, self.walks, zeros, supports)
            units_BND = units_BND + walked_LNBO[0].transpose(0, 1)
        units_BND = functional.dropout(functional.relu(units_BND), self._dropout, self.training)
        output_BND: Tensor = h_BND + self.second(units_BND)
        return output_BND


def _rows_of_days(shape: ModelShape) -> list[int]:
    """For each earlier day that the history has whole, L + H rows, where in it they begin."""
    places: list[int] = []
    if shape.steps_per_day is None or not shape.history:
        return places
    rows, before = shape.input_steps + shape.horizon, 0
    for each in reversed(shape.history):
        before += len(each)
        for day in range(1, -each.start // shape.steps_per_day + 1):
            first = -day * shape.steps_per_day
            if each.start <= first and first + rows <= each.stop:
                places.append(shape.history_steps - before + first - each.start)
    return places
