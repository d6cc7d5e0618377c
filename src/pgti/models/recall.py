"""Earlier days for any network: its forecast beside what followed on days like today."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.nn import without_autocast
from pgti.shapes import BHNC, BLNC
from pgti.windows import ModelShape

__all__ = ["RecallHead", "rows_of_days"]

_CLOSEST = 0.003
"""Distance, in standard deviations of a channel, below which two days are the same."""
_TRUST = 4.0
"""Score of the network's forecast at first: that of a day at a distance of 0.015."""


class RecallHead(nn.Module):
    """Mixes the forecasts of a network with what was read at that time on earlier days.

    The forecast of a step is a weighted mean of the network's and of the readings at that time of
    each of K earlier days, and a correction. Weights are a softmax over these K + 1 candidates (a
    pointer: Vinyals et al., NeurIPS 2015, arXiv 1506.03134): the score of a day is what a
    perceptron says of it, plus a learned gain times its closeness, -log(d + 0.003), where d is the
    mean absolute difference, in standard deviations, between the L rows of that day and today's
    window. This is the inverse distance weighting of analogue, or nearest neighbour, forecasts: one
    day that repeats today has a weight of 0.86 at first, and a larger gain brings that close to 1,
    so that its readings are copied, which a perceptron approximates. The perceptron of two hidden
    layers reads the network's forecast, how each day differs from it, how close each day is, how
    much of it was observed, and the newest row of the inputs; its last map, which gives scores and
    correction, is 0 at first. Sensors share the weights and do not see one another.

    The days are all of 1, 2, .. whose L + H rows are in the history: `1d..7d` has seven of them,
    and a span `8d` the same.

    Args:
        shape: sizes of the data, with at least one whole earlier day in the history.
        width: units of a hidden layer.

    Attributes:
        reads: names of what it is given of a batch beside x.
    """

    name = "recall_head"  # by which a network has it
    reads = ("history", "history_mask")

    if TYPE_CHECKING:  # torch declares that calls return Any

        def __call__(
            self, forecast: BHNC, x: BLNC, history: Tensor, history_mask: Tensor | None = None
        ) -> BHNC:
            """`forward`, typed."""

    def __init__(self, shape: ModelShape, width: int = 64) -> None:
        super().__init__()
        self.shape = shape
        self._days = rows_of_days(shape)
        self._channels = tuple(dict.fromkeys(shape.target_indices))
        num_days, horizon, targets = len(self._days), shape.horizon, shape.target_channels
        facts = num_days * (2 * len(self._channels) + horizon * targets)
        self.first = nn.Linear(facts + horizon * targets + shape.input_channels, width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, horizon * targets * (num_days + 1))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.closeness_gain = nn.Parameter(torch.ones(targets, num_days))

    def forward(
        self, forecast: BHNC, x: BLNC, history: Tensor, history_mask: Tensor | None = None
    ) -> BHNC:
        """The mixed forecast; in float32, also under autocast.

        Args:
            forecast: of the network, standardised [B, H, N, C_out].
            x: inputs of the network [B, L, N, C_in].
            history: as `Batch.history`, of the channels that the network sees [B, R, N, C].
            history_mask: which of it was observed, bool; None where nothing is missing.

        Returns:
            [B, H, N, C_out].
        """
        batch, horizon, num_nodes, targets = forecast.shape
        steps, num_days = self.shape.input_steps, len(self._days)
        with without_autocast(forecast.device):
            forecast = forecast.to(self.last.weight.dtype)
            days = {
                each: self._of_days(history, each).to(forecast.dtype) for each in self._channels
            }
            closeness = {each: self._closeness(x, days[each], each) for each in days}
            # [B, K, H, N, C_out], and [B, K, N, C_out].
            then = torch.stack([days[c][:, :, steps:] for c in self.shape.target_indices], dim=-1)
            close = torch.stack([closeness[c] for c in self.shape.target_indices], dim=-1)
            facts = [x[:, -1].to(forecast.dtype), forecast.transpose(1, 2).flatten(2)]
            facts.append((then - forecast[:, None]).permute(0, 3, 1, 2, 4).flatten(2))
            facts += [each.transpose(1, 2) for each in closeness.values()]
            facts += [self._observed(history_mask, days[c], c).transpose(1, 2) for c in days]
            units_BND = functional.relu(self.first(torch.cat(facts, dim=-1)))
            units_BND = functional.relu(self.second(units_BND))
            sizes = (batch, num_nodes, num_days + 1, horizon, targets)
            outputs = self.last(units_BND).view(sizes).permute(0, 2, 3, 1, 4)
            correction, scores = outputs[:, 0], outputs[:, 1:]
            scores = scores + (close * self.closeness_gain.T[:, None])[:, :, None] - _TRUST
            weights = torch.softmax(functional.pad(scores, (0, 0) * 3 + (1, 0)), dim=1)
            mixed = weights[:, 0] * forecast + (weights[:, 1:] * then).sum(dim=1)
            corrected: Tensor = mixed + correction
            return corrected.contiguous()

    def _of_days(self, history: Tensor, channel: int) -> Tensor:
        """[B, K, L + H, N]: the rows of each day that are the window's and its targets'."""
        rows = self.shape.input_steps + self.shape.horizon
        return torch.stack([history[:, i : i + rows, :, channel] for i in self._days], dim=1)

    def _closeness(self, x: BLNC, days_BKTN: Tensor, channel: int) -> Tensor:
        """[B, K, N]: minus the logarithm of each day's distance from the window."""
        window_BLN = x[..., channel].to(days_BKTN.dtype)
        then_BKLN = days_BKTN[:, :, : self.shape.input_steps]
        distance = (then_BKLN - window_BLN[:, None]).abs().mean(dim=2)
        return -torch.log(distance + _CLOSEST)

    def _observed(self, mask: Tensor | None, days_BKTN: Tensor, channel: int) -> Tensor:
        """[B, K, N]: the fraction of each day that was observed."""
        if mask is None:
            return torch.ones_like(days_BKTN[:, :, 0])
        return self._of_days(mask, channel).to(days_BKTN.dtype).mean(dim=2)


def rows_of_days(shape: ModelShape) -> tuple[int, ...]:
    """For each earlier day that the history has whole, L + H rows, where in it they begin."""
    places: list[int] = []
    if shape.steps_per_day is None or not shape.history:
        return ()
    rows, before = shape.input_steps + shape.horizon, 0
    for each in reversed(shape.history):
        before += len(each)
        for day in range(1, -each.start // shape.steps_per_day + 1):
            first = -day * shape.steps_per_day
            if each.start <= first and first + rows <= each.stop:
                places.append(shape.history_steps - before + first - each.start)
    return tuple(places)
