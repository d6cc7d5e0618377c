"""What is known beside the past, for any network: values known in advance, features of sensors."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.nn import without_autocast
from pgti.shapes import BHNC, BLNC
from pgti.windows import ModelShape

__all__ = ["CovariateHead", "has_covariates"]

_HOLIDAY = "holiday:"


def has_covariates(shape: ModelShape) -> bool:
    """Whether something is known that the past does not show: also holidays to come."""
    has_holidays = any(name.startswith(_HOLIDAY) for name in shape.calendar)
    return bool(shape.future_channels or shape.static_channels) or has_holidays


class CovariateHead(nn.Module):
    """Corrects the forecasts of a network by what is known of the steps to forecast.

    For each sensor, a perceptron of two hidden layers reads the network's forecast, the values
    known in advance and the calendar, each at all H steps, the newest row of the inputs, and the
    features of the sensor; its output, H x C_out, is added to the forecast. So a value that is
    known for a step may act on others, as wind does on the air of the hours after it, and as a
    change since the newest row. Categories are numbers, 1 or 0, so that the first map has a vector
    for each: an embedding. Sensors share the weights and do not see one another.

    The last map is 0 at first: a network begins as it would without the head.

    Args:
        shape: sizes of the data.
        width: units of a hidden layer.

    Attributes:
        reads: names of what it is given of a batch beside x.
    """

    name = "covariate_head"  # by which a network has it

    if TYPE_CHECKING:  # torch declares that calls return Any

        def __call__(
            self,
            forecast: BHNC,
            x: BLNC,
            calendar: Tensor | None = None,
            future: Tensor | None = None,
            static: Tensor | None = None,
        ) -> BHNC:
            """`forward`, typed."""

    def __init__(self, shape: ModelShape, width: int = 64) -> None:
        super().__init__()
        sizes = {
            "calendar": shape.calendar_channels,
            "future": shape.future_channels,
            "static": shape.static_channels,
        }
        self.reads = tuple(name for name, size in sizes.items() if size)
        self._horizon, self._targets = shape.horizon, shape.target_channels
        per_step = shape.target_channels + sizes["calendar"] + sizes["future"]
        inputs = shape.horizon * per_step + shape.input_channels + sizes["static"]
        self.first = nn.Linear(inputs, width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, shape.horizon * shape.target_channels)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(
        self,
        forecast: BHNC,
        x: BLNC,
        calendar: Tensor | None = None,
        future: Tensor | None = None,
        static: Tensor | None = None,
    ) -> BHNC:
        """The corrected forecast; in float32, also under autocast.

        Args:
            forecast: of the network, standardised [B, H, N, C_out].
            x: inputs of the network [B, L, N, C_in].
            calendar: calendar features of inputs and horizon [B, L + H, K].
            future: values known in advance, standardised [B, H, N, F].
            static: features of the sensors [N, S].

        Returns:
            [B, H, N, C_out].
        """
        batch, horizon, num_nodes, _ = forecast.shape
        with without_autocast(forecast.device):
            forecast = forecast.to(self.last.weight.dtype)
            steps = [forecast]
            if future is not None and "future" in self.reads:
                steps.append(future.to(forecast.dtype))
            if calendar is not None and "calendar" in self.reads:
                of_horizon = calendar[:, -horizon:, None].to(forecast.dtype)
                steps.append(of_horizon.expand(-1, -1, num_nodes, -1))
            of_steps = torch.cat(steps, dim=-1).transpose(1, 2).flatten(2)
            known = [of_steps, x[:, -1].to(forecast.dtype)]
            if static is not None and "static" in self.reads:
                known.append(static.to(forecast.dtype).expand(batch, -1, -1))
            units_BND = functional.relu(self.first(torch.cat(known, dim=-1)))
            units_BND = functional.relu(self.second(units_BND))
            sizes = (batch, num_nodes, self._horizon, self._targets)
            corrected: Tensor = forecast + self.last(units_BND).view(sizes).transpose(1, 2)
            return corrected.contiguous()
