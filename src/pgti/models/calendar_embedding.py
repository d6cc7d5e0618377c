"""Learned vectors of the row of the day and of the day of the week."""

from torch import Tensor, nn

from pgti.models.base import ModelShape
from pgti.models.calendar import DAYS_PER_WEEK, day_index, step_index, steps_per_day
from pgti.shapes import BLNC

__all__ = ["CalendarEmbedding"]


class CalendarEmbedding(nn.Module):
    """One vector per row of the day, and one per day of the week, where the input has them.

    Tables are drawn from the standard normal distribution.

    Args:
        shape: says which features the input has.
        time_of_day: width of the first table.
        day_of_week: width of the second.

    Attributes:
        widths: of the tables that there are, in this order.

    Raises:
        ConfigError: if the input has the time of day, and a day is no whole number of rows.
    """

    def __init__(self, shape: ModelShape, time_of_day: int, day_of_week: int) -> None:
        super().__init__()
        self._shape = shape
        rows = steps_per_day(shape)
        self.time_of_day = None if rows is None else nn.Embedding(rows, time_of_day)
        has_days = shape.calendar_position("day-of-week") is not None
        self.day_of_week = nn.Embedding(DAYS_PER_WEEK, day_of_week) if has_days else None
        tables = (self.time_of_day, self.day_of_week)
        self.widths = [each.embedding_dim for each in tables if each is not None]

    def forward(self, x: BLNC) -> list[Tensor]:
        """The vectors of every input row, [B, L, D] of each table.

        Args:
            x: [B, L, N, C_in]; the calendar is the same for all nodes.
        """
        vectors_BLD = []
        steps_BL, days_BL = step_index(x, self._shape), day_index(x, self._shape)
        if self.time_of_day is not None and steps_BL is not None:
            vectors_BLD.append(self.time_of_day(steps_BL))
        if self.day_of_week is not None and days_BL is not None:
            vectors_BLD.append(self.day_of_week(days_BL))
        return vectors_BLD
