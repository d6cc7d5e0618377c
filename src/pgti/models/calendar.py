"""Calendar features of an input as positions in a table of embeddings."""

from torch import Tensor

from pgti.errors import ConfigError
from pgti.models.base import ModelShape
from pgti.shapes import BLNC

__all__ = ["DAYS_PER_WEEK", "day_index", "step_index", "steps_per_day"]

DAYS_PER_WEEK = 7

_SECONDS_PER_DAY = 86_400


def steps_per_day(shape: ModelShape) -> int | None:
    """Rows of a day, if the input has the time of day; None if it has not.

    Raises:
        ConfigError: if it has, and a day is no whole number of rows.
    """
    if shape.calendar_position("time-of-day") is None:
        return None
    if shape.steps_per_day is None:
        raise ConfigError(
            "the time of day is an input and a day is no whole number of rows, so it has no table "
            "of embeddings: leave it out with --windows.calendar day-of-week, or "
            "--windows.empty-calendar"
        )
    return shape.steps_per_day


def step_index(x: BLNC, shape: ModelShape) -> Tensor | None:
    """Row of the day, 0 .. steps_per_day - 1, of every input row; None without the time of day.

    Args:
        x: [B, L, N, C_in]; the calendar is the same for all nodes.
        shape: what the channels of `x` are.

    Returns:
        [B, L] int64.
    """
    position, steps = shape.calendar_position("time-of-day"), shape.steps_per_day
    if position is None or steps is None:
        return None
    # The share of the day is a float32, and 7/288 * 288 may fall just below 7: it is off by less
    # than a hundredth of a second, and times are whole seconds.
    seconds = (x[:, :, 0, position].float() * _SECONDS_PER_DAY).round().long()
    return seconds * steps // _SECONDS_PER_DAY % steps


def day_index(x: BLNC, shape: ModelShape) -> Tensor | None:
    """Day of the week, Monday 0 to Sunday 6, of every input row; None if the input lacks it.

    Args:
        x: [B, L, N, C_in].
        shape: what the channels of `x` are.

    Returns:
        [B, L] int64.
    """
    position = shape.calendar_position("day-of-week")
    if position is None:
        return None
    return (x[:, :, 0, position].float() * DAYS_PER_WEEK).round().long() % DAYS_PER_WEEK
