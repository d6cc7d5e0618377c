"""The last layer of models that forecast all steps at once."""

from torch import Tensor, nn
from torch.nn import functional

from pgti.models.base import ModelShape
from pgti.nn import without_autocast
from pgti.shapes import BHNC

__all__ = ["Regression"]


class Regression(nn.Linear):
    """An affine map from the state of a node to its H steps of C_out targets.

    Args:
        width: D of the state.
        shape: says H and C_out.
    """

    def __init__(self, width: int, shape: ModelShape) -> None:
        super().__init__(width, shape.horizon * shape.target_channels)
        self._steps_and_targets = (shape.horizon, shape.target_channels)

    def forward(self, state_BND: Tensor) -> BHNC:
        """Forecasts, contiguous. Kept out of autocast: bfloat16 would round off 3 digits here.

        Args:
            state_BND: [B, N, D].
        """
        with without_autocast(state_BND.device):
            state_BND = state_BND.to(self.weight.dtype)
            forecast_BNK = functional.linear(state_BND, self.weight, self.bias)
        forecast_BNHC = forecast_BNK.view(*forecast_BNK.shape[:2], *self._steps_and_targets)
        return forecast_BNHC.transpose(1, 2).contiguous()
