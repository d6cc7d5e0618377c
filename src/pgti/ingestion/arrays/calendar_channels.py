"""Channels that only repeat the calendar, such as the time of day beside the speeds."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import DataError, option
from pgti.store import format_interval

__all__ = ["TimeOfDay", "find_time_of_day"]

_DAY_SECONDS = 86_400
_TOLERANCE = 0.1  # of a step; float32 rounds a day's fraction to a thousandth of five minutes
_MIN_STEPS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeOfDay:
    """A channel whose readings are fractions of a day, the same at all sensors.

    Attributes:
        channel: position of the channel.
        first: its first reading, from 0 to 1.
        steps_per_day: rows of a day.
    """

    channel: int
    first: float
    steps_per_day: int

    @property
    def interval_seconds(self) -> int:
        """Seconds between rows."""
        return _DAY_SECONDS // self.steps_per_day

    def describe(self, name: str) -> str:
        """The note that it was left out."""
        seconds = round(self.first * _DAY_SECONDS)
        clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}"
        return (
            f"channel {self.channel + 1} of {name} is the time of day (rows {self._interval()} "
            f"apart, the first at {clock}) and was left out: calendar features are computed when "
            f"batches are made; {option('start')} with the date gives them, and "
            f"{option('channels')} with a name for each channel keeps it"
        )

    def check(self, rows: NDArray[np.floating[Any]], first_row: int, name: str) -> None:
        """Refuse rows [rows, N, C] where the channel is something else.

        Raises:
            DataError: naming the first such row.
        """
        places = np.arange(first_row, first_row + len(rows))
        wanted = (self.first + places / self.steps_per_day) % 1
        off = np.abs(rows[..., self.channel] - wanted[:, np.newaxis])
        off = np.minimum(off, 1 - off) * self.steps_per_day
        wrong = np.flatnonzero(~(off <= _TOLERANCE).all(axis=1))
        if len(wrong):
            raise DataError(
                f"channel {self.channel + 1} of {name} is the time of day up to row "
                f"{first_row + wrong[0]}, where it jumps: rows are missing, or it is something "
                f"else; name every channel with {option('channels')} to read it as it is"
            )

    def after(self, rows: NDArray[np.floating[Any]], num_rows: int) -> NDArray[np.float64]:
        """The channel [rows, 1] of rows that follow others, [., N, C]."""
        steps = np.arange(1, num_rows + 1) / self.steps_per_day
        after: NDArray[np.float64] = (float(rows[-1, 0, self.channel]) + steps) % 1
        return after[:, np.newaxis]

    def _interval(self) -> str:
        return format_interval(self.interval_seconds)


def find_time_of_day(rows: NDArray[np.floating[Any]]) -> TimeOfDay | None:
    """The channel of rows [rows, N, C] that is the time of day, beside others; None if none is."""
    if len(rows) < _MIN_STEPS or rows.shape[2] < 2:
        return None
    for channel in range(rows.shape[2]):
        values = rows[..., channel].astype(np.float64)
        if not ((values >= 0) & (values < 1)).all() or (values != values[:, :1]).any():
            continue
        steps = np.diff(values[:, 0]) % 1
        step = float(np.median(steps))
        if not 0 < step < 1:
            continue
        steps_per_day = round(1 / step)
        is_even = np.abs(steps * steps_per_day - 1).max() < _TOLERANCE
        if is_even and steps_per_day > 1 and _DAY_SECONDS % steps_per_day == 0:
            first = float(values[0, 0])
            return TimeOfDay(channel=channel, first=first, steps_per_day=steps_per_day)
    return None
