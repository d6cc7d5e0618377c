"""DLinear: a moving average, and one linear map from L steps to H for each of its two parts."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
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
    - The maps see the target's own past; other channels and the calendar are not used.
    - The average and both maps are multiplied before they meet the data, as one [H, L] matrix of a
      target, so nothing is decomposed: x W_r (I - M) + x W_t M is x (W_r + (W_t - W_r) M). The
      parameters, and gradients up to rounding, are those of the two maps.

    Each map starts as torch's linear layers do: weights and bias uniform in +-1 / sqrt(L).
    """

    support_kind = "none"
    config: DLinearConfig
    window_counts: Tensor

    @property
    def shard_refusal(self) -> str | None:
        """None: it maps every sensor by itself."""
        return None

    def __init__(self, config: DLinearConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        maps = (shape.num_nodes if config.individual else 1, shape.target_channels, shape.horizon)
        self.trend_weight = nn.Parameter(torch.empty(*maps, shape.input_steps))
        self.trend_bias = nn.Parameter(torch.empty(maps))
        self.remainder_weight = nn.Parameter(torch.empty(*maps, shape.input_steps))
        self.remainder_bias = nn.Parameter(torch.empty(maps))
        bound = shape.input_steps**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        # Whole numbers, which every precision holds exactly.
        counts_LL = _window_counts(shape.input_steps, config.kernel)
        self.register_buffer("window_counts", counts_LL, persistent=False)

    def forward(self, x: BLNC, supports: Supports, teacher: TeacherForcing | None = None) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`."""
        # [C, B, L, N], C the targets; slices, because a list of indices would have to be copied
        # to the device.
        targets = torch.stack([x[..., index] for index in self.shape.target_indices])
        with without_autocast(x.device):
            # [nodes or 1, C, H, L] and [nodes or 1, C, H].
            mean_LL = self.window_counts / self.config.kernel
            weight = self.remainder_weight + (self.trend_weight - self.remainder_weight) @ mean_LL
            bias = self.remainder_bias + self.trend_bias
            if self.config.individual:
                weight, bias = supports.local(weight), supports.local(bias)
            forecast_BHNC = torch.einsum("cbln,nchl->bhnc", targets.to(weight.dtype), weight)
            return (forecast_BHNC + bias.permute(2, 0, 1)).contiguous()


def _window_counts(length: int, kernel: int) -> Tensor:
    """[L, L]: row l counts each step in the window of `kernel` steps around l, ends repeated."""
    steps_L = torch.arange(length)
    offsets_K = torch.arange(kernel) - kernel // 2
    steps_LK = (steps_L[:, None] + offsets_K).clamp(0, length - 1)
    return torch.zeros(length, length).scatter_add_(1, steps_LK, torch.ones(length, kernel))
