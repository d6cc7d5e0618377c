"""The shape of a window: how many steps go in, how many come out, how far apart windows start."""

from dataclasses import dataclass

from pgti.errors import require_whole_number

__all__ = ["WindowSpec"]


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowSpec:
    """A window is `input_steps` consecutive rows followed by `horizon` rows to forecast.

    Attributes:
        input_steps: rows that the model sees, L >= 1.
        horizon: rows that the model forecasts, H >= 1; independent of `input_steps`.
        stride: rows between the starts of neighbouring windows, >= 1.

    Raises:
        ConfigError: if a value is not a positive whole number.

    >>> spec = WindowSpec(input_steps=12, horizon=12)
    >>> spec.num_windows(34_272)
    34249
    >>> spec.starts(26)
    range(0, 3)
    """

    input_steps: int = 12
    horizon: int = 12
    stride: int = 1

    def __post_init__(self) -> None:
        for name in ("input_steps", "horizon", "stride"):
            require_whole_number(name, getattr(self, name), 1)

    @property
    def span(self) -> int:
        """Rows from the first input to the last target, L + H."""
        return self.input_steps + self.horizon

    @property
    def extent(self) -> range:
        """Rows that a window reaches over, relative to its start."""
        return range(self.span)

    def row_offsets(self, *, with_targets: bool = True) -> tuple[range, ...]:
        """The rows of a window relative to its start, as rising ranges that do not touch."""
        return (range(self.span if with_targets else self.input_steps),)

    def num_windows(self, num_steps: int) -> int:
        """Number of whole windows in a series of `num_steps` rows (0 if it is too short)."""
        return len(self.starts(num_steps))

    def starts(self, num_steps: int) -> range:
        """Start row of every whole window in a series of `num_steps` rows."""
        return range(0, max(0, num_steps - self.span + 1), self.stride)
