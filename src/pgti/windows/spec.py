"""The shape of a window: how many steps go in, how many come out, how far apart windows start."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pgti.errors import ConfigError, require_whole_number

__all__ = ["WindowSpec"]


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowSpec:
    """A window is `input_steps` consecutive rows followed by `horizon` rows to forecast.

    Attributes:
        input_steps: rows that the model sees, L >= 1.
        horizon: rows that the model forecasts, H >= 1; independent of `input_steps`.
        stride: rows between the starts of neighbouring windows, >= 1.
        history: earlier rows that the model sees too, relative to the first input: rising ranges
            that do not touch, each of which begins before the first input and ends no later than
            the last. Rows before the series begins are missing, so they change no start.

    Raises:
        ConfigError: if a size is not a positive whole number, or the history breaks its rule.

    >>> spec = WindowSpec(input_steps=12, horizon=12)
    >>> spec.num_windows(34_272)
    34249
    >>> spec.starts(26)
    range(0, 3)
    """

    input_steps: int = 12
    horizon: int = 12
    stride: int = 1
    history: tuple[range, ...] = ()

    def __post_init__(self) -> None:
        for name in ("input_steps", "horizon", "stride"):
            require_whole_number(name, getattr(self, name), 1)
        is_rising = all(a.stop < b.start for a, b in pairwise(self.history))
        if not is_rising or not all(
            each and each.step == 1 and each.start < 0 and each.stop <= self.input_steps
            for each in self.history
        ):
            raise ConfigError(
                f"history is {self.history}: the rule is rising ranges of rows that do not touch, "
                f"each from a row before the first input (0) to one before the first target "
                f"({self.input_steps})"
            )

    @property
    def span(self) -> int:
        """Rows from the first input to the last target, L + H."""
        return self.input_steps + self.horizon

    @property
    def extent(self) -> range:
        """Rows that a window reaches over, relative to its start."""
        return range(self.span)

    @property
    def history_steps(self) -> int:
        """Rows of history."""
        return sum(map(len, self.history))

    @property
    def history_offsets(self) -> NDArray[np.int64]:
        """The rows of history relative to the first input, rising, int64."""
        parts = [np.arange(each.start, each.stop) for each in self.history]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    @property
    def reach(self) -> range:
        """All rows that a window reads lie in it, relative to its start: `extent` and history."""
        return range(self.history[0].start if self.history else 0, self.span)

    @property
    def read_offsets(self) -> tuple[range, ...]:
        """History, inputs and targets relative to a window's start, as `row_offsets` gives rows.

        The first rows of it are those of history.
        """
        *earlier, last = self.history or (range(0),)
        if last.stop < 0:
            return (*self.history, self.extent)
        return (*earlier, range(last.start, self.span))

    def row_offsets(self, *, with_targets: bool = True) -> tuple[range, ...]:
        """Inputs and targets relative to a window's start, as rising ranges that do not touch."""
        return (range(self.span if with_targets else self.input_steps),)

    def num_windows(self, num_steps: int) -> int:
        """Number of whole windows in a series of `num_steps` rows (0 if it is too short)."""
        return len(self.starts(num_steps))

    def starts(self, num_steps: int) -> range:
        """Start row of every whole window in a series of `num_steps` rows."""
        return range(0, max(0, num_steps - self.span + 1), self.stride)
