"""Layers that several models share: the output map, embeddings of the calendar and of history."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.errors import ConfigError, option
from pgti.models.base import ModelShape
from pgti.nn import Linear, linear, relu_dropout, without_autocast
from pgti.shapes import BHNC, BLNC

__all__ = [
    "CalendarEmbedding",
    "HistoryEmbedding",
    "Regression",
    "ResidualLayer",
    "continued_calendar",
    "day_index",
    "map_steps",
    "required_history",
    "step_index",
]

_DAYS_PER_WEEK = 7
_SECONDS_PER_DAY = 86_400


class Regression(nn.Linear):
    """An affine map from the state of a node to its H steps of C_out targets.

    Args:
        width: D of the state.
        shape: gives H and C_out.
    """

    if TYPE_CHECKING:  # torch declares that calls return Any

        def __call__(self, state_BND: Tensor, added_BNK: Tensor | None = None) -> BHNC:
            """`forward`, typed."""

    def __init__(self, width: int, shape: ModelShape) -> None:
        super().__init__(width, shape.horizon * shape.target_channels)
        self._steps_and_targets = (shape.horizon, shape.target_channels)

    def forward(self, state_BND: Tensor, added_BNK: Tensor | None = None) -> BHNC:
        """Contiguous forecasts from [B, N, D]; no autocast, as bfloat16 rounds off 3 digits.

        Args:
            state_BND: of the nodes.
            added_BNK: what is added to the forecasts [B, N, H * C_out].
        """
        with without_autocast(state_BND.device):
            state_BND = state_BND.to(self.weight.dtype)
            forecast_BNK = functional.linear(state_BND, self.weight, self.bias)
        if added_BNK is not None:
            forecast_BNK = forecast_BNK + added_BNK
        forecast_BNHC = forecast_BNK.view(*forecast_BNK.shape[:2], *self._steps_and_targets)
        return forecast_BNHC.transpose(1, 2).contiguous()


class ResidualLayer(nn.Module):
    """h + W_2 dropout(relu(W_1 h + b_1)) + b_2, all of one width.

    Args:
        width: of h.
        dropout: fraction of the units that is zeroed in training.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.first = Linear(width, width)
        self.second = Linear(width, width)
        self._dropout = dropout

    def forward(self, h_BND: Tensor) -> Tensor:
        """[B, N, D] from [B, N, D]."""
        h_SD = h_BND.flatten(0, 1)
        units_SD, weight = self._units(h_SD)
        return (h_SD + linear(units_SD, weight, self.second.bias)).view_as(h_BND)

    def regress(self, h_BND: Tensor, regression: Regression) -> BHNC:
        """`regression(self(h))`, where the layer's last map and the regression are one product."""
        units_SD, weight = self._units(h_BND.flatten(0, 1))
        into = regression.weight
        with without_autocast(h_BND.device):
            units_BNH = linear(units_SD.to(into.dtype), into @ weight, into @ self.second.bias)
        return regression(h_BND, units_BNH.view(*h_BND.shape[:2], -1))

    def _units(self, h_SD: Tensor) -> tuple[Tensor, Tensor]:
        """The units, and the weight that follows."""
        units_SD, scale = relu_dropout(self.first(h_SD), self._dropout * self.training)
        return units_SD, self.second.weight * scale


class CalendarEmbedding(nn.Module):
    """A learned vector per row of the day, and one per day of the week, where the input has them.

    Tables are drawn from the standard normal distribution.

    Args:
        shape: lists the features of the input.
        time_of_day: width of the first table.
        day_of_week: width of the second.

    Attributes:
        widths: of the tables that exist, in this order.

    Raises:
        ConfigError: the input has the time of day, and a day is not a whole number of rows.
    """

    def __init__(self, shape: ModelShape, time_of_day: int, day_of_week: int) -> None:
        super().__init__()
        self._shape = shape
        has_times = shape.calendar_position("time-of-day") is not None
        has_days = shape.calendar_position("day-of-week") is not None
        if has_times and shape.steps_per_day is None:
            raise ConfigError(
                "the time of day is an input and a day is not a whole number of rows, so its "
                f"embeddings are not a table: leave it out with "
                f"{option('windows.calendar', 'day-of-week')}, or "
                f"{option('windows.calendar', ())}"
            )
        rows = shape.steps_per_day if has_times else None
        self.time_of_day = None if rows is None else nn.Embedding(rows, time_of_day)
        self.day_of_week = nn.Embedding(_DAYS_PER_WEEK, day_of_week) if has_days else None
        tables = (self.time_of_day, self.day_of_week)
        self.widths = [each.embedding_dim for each in tables if each is not None]

    def forward(self, x: BLNC) -> list[Tensor]:
        """The vectors of every input row, [B, L, D] of each table; nodes share the calendar."""
        indices_BL = (step_index(x, self._shape), day_index(x, self._shape))
        tables = zip((self.time_of_day, self.day_of_week), indices_BL, strict=True)
        return [table(index_BL) for table, index_BL in tables if table is not None]


class HistoryEmbedding(nn.Linear):
    """An affine map from the history of a sensor's target channels to a vector.

    A channel that is several targets, as with quantiles, counts once.

    Args:
        width: D of the vector.
        shape: gives R, the rows of history, at least one, and the targets.
        with_window: whether the L rows of the window follow those of history.
    """

    def __init__(self, width: int, shape: ModelShape, *, with_window: bool = False) -> None:
        self._channels = tuple(dict.fromkeys(shape.target_indices))
        self._steps = [shape.history_steps, shape.input_steps if with_window else 0]
        super().__init__(len(self._channels) * sum(self._steps), width)

    def forward(self, history: Tensor, x: BLNC | None = None) -> Tensor:
        """[B, N, D] from [B, R, N, C] and, with the window, x.

        The columns of the weight are those of the first channel, oldest row first, then the next.
        The history is read once and, with one channel, not copied.
        """
        products_BDN = []
        weights_DR = self.weight.chunk(len(self._channels), dim=1)
        for channel, weight_DR in zip(self._channels, weights_DR, strict=True):
            of_history, of_window = torch.split(weight_DR, self._steps, dim=1)
            products_BDN.append(map_steps(of_history, history[..., channel]))
            if x is not None:
                products_BDN.append(map_steps(of_window, x[..., channel]))
        return sum(products_BDN[1:], products_BDN[0]).transpose(1, 2) + self.bias


def map_steps(weight_KR: Tensor, series_BRN: Tensor) -> Tensor:
    """[B, K, N]: `weight_KR` times each matrix of a series, which stays in its layout.

    `torch.matmul` and einsum would transpose the series into a copy of it.
    """
    return torch.bmm(weight_KR.expand(series_BRN.shape[0], -1, -1), series_BRN)


def required_history(history: Tensor | None, shape: ModelShape) -> Tensor | None:
    """The history that a network of `shape` sees: None without rows of history.

    Raises:
        ConfigError: the network was built for rows of history, and gets none.
    """
    if not shape.history_steps:
        return None
    if history is None:
        raise ConfigError(
            f"the network was built for {shape.history_steps} rows of history and got none: give "
            "history [B, R, N, C], as `Batch.history`"
        )
    return history


def step_index(x: BLNC, shape: ModelShape) -> Tensor | None:
    """[B, L] int64, the row of the day of each input row; None without the time of day."""
    position, steps = shape.calendar_position("time-of-day"), shape.steps_per_day
    if position is None or steps is None:
        return None
    # The time of day is a float32 fraction, and 7/288 * 288 may fall just below 7: the error is
    # less than a hundredth of a second, and times are whole seconds.
    seconds = (x[:, :, 0, position].float() * _SECONDS_PER_DAY).round().long()
    return seconds * steps // _SECONDS_PER_DAY % steps


def day_index(x: BLNC, shape: ModelShape) -> Tensor | None:
    """[B, L] int64, the day of the week (Monday is 0) of each input row; None if x lacks it."""
    position = shape.calendar_position("day-of-week")
    if position is None:
        return None
    return (x[:, :, 0, position].float() * _DAYS_PER_WEEK).round().long() % _DAYS_PER_WEEK


def continued_calendar(x: BLNC, shape: ModelShape) -> Tensor:
    """[B, L + H, F]: calendar features of the input rows, continued over the target rows.

    For a network that is called without `Batch.calendar`, which knows changes of clocks and rows
    that do not follow at constant intervals. Days advance by the time of day; without it, by whole
    days after the last row.
    """
    past_BLF = x[:, :, 0, shape.input_channels - shape.calendar_channels :]
    rows_H = torch.arange(1, shape.horizon + 1, device=x.device)
    last = {name: past_BLF[:, -1:, place] for place, name in enumerate(shape.calendar)}
    per_day = shape.steps_per_day
    days_BH = rows_H.div(per_day).expand(x.shape[0], -1) if per_day else torch.zeros_like(rows_H)
    if "time-of-day" in last:
        seconds_BH = (last["time-of-day"] + days_BH) * _SECONDS_PER_DAY
        days_BH = seconds_BH.round() / _SECONDS_PER_DAY  # a rounded fraction may miss midnight
        last["time-of-day"] = days_BH % 1
    if "day-of-week" in last:
        whole_BH = (days_BH + 1e-6).floor()
        last["day-of-week"] = (last["day-of-week"] * _DAYS_PER_WEEK + whole_BH) % _DAYS_PER_WEEK
        last["day-of-week"] = last["day-of-week"] / _DAYS_PER_WEEK
    future = [each.expand(-1, shape.horizon) for each in last.values()]
    if not future:
        return past_BLF.new_zeros(x.shape[0], shape.input_steps + shape.horizon, 0)
    return torch.cat([past_BLF, torch.stack(future, dim=2).to(x.dtype)], dim=1)
