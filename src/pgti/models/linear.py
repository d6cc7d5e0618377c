"""DLinear: a moving average, and one linear map from the past to H for each of its two parts."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.errors import ConfigError
from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.layers import map_steps, required_history
from pgti.nn import Supports, without_autocast
from pgti.shapes import BHNC, BLNC

__all__ = ["DLinear", "DLinearConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DLinearConfig(ModelConfig):
    """Options of DLinear; the defaults are those of the released code.

    Attributes:
        kernel: steps of the moving average that is the trend; odd.
        individual: a pair of maps for every sensor, N times the parameters (DLinear-I); otherwise
            all sensors share one pair (DLinear-S).
    """

    kernel: int = 25
    individual: bool = False

    def __post_init__(self) -> None:
        self.check_at_least(kernel=3)
        if self.kernel % 2 == 0:
            raise ConfigError(f"kernel is {self.kernel}: it must be odd, so that it has a middle")


class DLinear(AbstractModel):
    """DLinear (Zeng, Chen, Zhang, Xu, AAAI 2023, arXiv 2205.13504, section 4).

    As published: a moving average, with both ends of the window repeated, splits a series into
    trend and remainder; one affine map from L steps to H for each; the forecast is their sum. It
    is linear and ignores the graph: a model that does not beat it gains from neither.

    Where it differs:

    - Every target channel has separate maps, which all sensors share unless `individual`. The paper
      has one kind of variate, with one map for all or one for each.
    - The maps see the target's own past; other channels and the calendar are not used. With
      `windows.history`, S = R + L rows of it take the place of L: the history, and the window after
      it. A span that ends at the window is one series with it, as if L were that long (the paper's
      L is 336); rows with gaps between them, such as those of `1d..7d`, are decomposed range by
      range.
    - The average and both maps are multiplied before they meet the data, as one [H, L] matrix of a
      target, so nothing is decomposed: x W_r (I - M) + x W_t M is x (W_r + (W_t - W_r) M). The
      parameters, and gradients up to rounding, are those of the two maps.

    Each map starts as torch's linear layers do: weights and bias uniform in +-1 / sqrt(S).

    The history is multiplied in the layout that a batch has, without a copy of it (with
    `individual`, or several channels, one copy of the targets).
    """

    support_kind = "none"
    recalls_days = False  # it would not be linear
    reads_targets_alone = True
    config: DLinearConfig
    window_counts: Tensor

    @property
    def shard_refusal(self) -> str | None:
        """None: it maps every sensor by itself."""
        return None

    def __init__(self, config: DLinearConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        maps = (shape.num_nodes if config.individual else 1, shape.target_channels, shape.horizon)
        steps = shape.history_steps + shape.input_steps
        self.trend_weight = nn.Parameter(torch.empty(*maps, steps))
        self.trend_bias = nn.Parameter(torch.empty(maps))
        self.remainder_weight = nn.Parameter(torch.empty(*maps, steps))
        self.remainder_bias = nn.Parameter(torch.empty(maps))
        bound = steps**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        # Whole numbers, which every precision holds exactly.
        counts_LL = _window_counts(shape.input_steps, config.kernel)
        self.register_buffer("window_counts", counts_LL, persistent=False)
        self._pieces = _contiguous(shape)

    def forward(
        self,
        x: BLNC,
        supports: Supports,
        teacher: TeacherForcing | None = None,
        *,
        history: Tensor | None = None,
    ) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`."""
        history = required_history(history, self.shape)
        # [C, B, L, N], C the targets; slices, because a list of indices would have to be copied
        # to the device.
        targets = torch.stack([x[..., index] for index in self.shape.target_indices])
        with without_autocast(x.device):
            # [nodes or 1, C, H, S] and [nodes or 1, C, H].
            averaged = self._average(self.trend_weight - self.remainder_weight)
            weight = self.remainder_weight + averaged
            bias = self.remainder_bias + self.trend_bias
            if self.config.individual:
                weight, bias = supports.local(weight), supports.local(bias)
            older, recent = weight.tensor_split([self.shape.history_steps], dim=3)
            forecast_BHNC = torch.einsum("cbln,nchl->bhnc", targets.to(weight.dtype), recent)
            if history is not None:
                forecast_BHNC = forecast_BHNC + self._of_history(history.to(weight.dtype), older)
            return (forecast_BHNC + bias.permute(2, 0, 1)).contiguous()

    def _average(self, weight: Tensor) -> Tensor:
        """What a map of averages is of the series itself: [..., S] times the matrix M of means."""
        if not self.shape.history_steps:
            averaged: Tensor = weight @ (self.window_counts / self.config.kernel)
            return averaged
        pieces = torch.split(weight, self._pieces, dim=-1)
        return torch.cat([_average_adjoint(each, self.config.kernel) for each in pieces], dim=-1)

    def _of_history(self, history: Tensor, weight: Tensor) -> Tensor:
        """[B, H, N, C] from [B, R, N, C'] and the maps [nodes or 1, C, H, R]."""
        indices = self.shape.target_indices
        # A channel that is several targets, as with quantiles, is copied once, if at all.
        series_BRN = {index: history[..., index].contiguous() for index in indices}
        if self.config.individual:
            parts = [
                torch.einsum("brn,nhr->bhn", series_BRN[index], weight[:, target])
                for target, index in enumerate(indices)
            ]
        else:
            parts = [
                map_steps(weight[0, target], series_BRN[index])
                for target, index in enumerate(indices)
            ]
        return torch.stack(parts, dim=3)


def _contiguous(shape: ModelShape) -> list[int]:
    """Lengths of the pieces of history and window between which rows are left out."""
    ranges = [*shape.history, range(shape.input_steps)]
    lengths = [len(ranges[0])]
    for before, after in itertools.pairwise(ranges):
        if before.stop == after.start:
            lengths[-1] += len(after)
        else:
            lengths.append(len(after))
    return lengths


def _average_adjoint(weight: Tensor, kernel: int) -> Tensor:
    """`weight @ _window_counts(S, kernel) / kernel` for [..., S], without that S x S matrix."""
    flat = weight.flatten(0, -2)
    length, half = flat.shape[1], kernel // 2
    sums = functional.avg_pool1d(functional.pad(flat, (kernel - 1, kernel - 1)), kernel, stride=1)
    # The repeated ends: what falls outside belongs to the first and the last step.
    before, inside, after = torch.split(sums, [half, length, half], dim=1)
    ends = functional.pad(before.sum(1, keepdim=True), (0, length - 1))
    ends = ends + functional.pad(after.sum(1, keepdim=True), (length - 1, 0))
    return (inside + ends).view_as(weight)


def _window_counts(length: int, kernel: int) -> Tensor:
    """[L, L]: row l counts each step in the window of `kernel` steps around l, ends repeated."""
    steps_L = torch.arange(length)
    offsets_K = torch.arange(kernel) - kernel // 2
    steps_LK = (steps_L[:, None] + offsets_K).clamp(0, length - 1)
    return torch.zeros(length, length).scatter_add_(1, steps_LK, torch.ones(length, kernel))
