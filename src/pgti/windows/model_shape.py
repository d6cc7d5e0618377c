"""The sizes that windows ask of a network."""

from dataclasses import dataclass

from pgti.display import count_of
from pgti.errors import ConfigError

__all__ = ["ModelShape"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """Sizes that follow from the data.

    Attributes:
        input_steps: L.
        horizon: H.
        num_nodes: N.
        input_channels: C_in, the store's channels, their mask and a climatology if asked for, and
            the calendar's.
        target_channels: C_out.
        target_indices: positions of the targets among the store's channels (the first channels of
            the input), in the order of the output.
        calendar: names of the calendar features, which are the last of the input channels:
            `time-of-day` is a fraction of the day, `day-of-week` the weekday divided by 7; see
            `pgti.store.calendar_features`.
        steps_per_day: rows of a day; None if that is not a whole number, or the series lacks
            times.
        future_channels: F, channels that are known in advance: the last size of `Batch.future`.
        static_channels: S, the last size of `Batch.static`.
        static_categories: number of categories of each categorical feature of the sensors; the
            codes of `Batch.static_codes` are 0, for missing, to that number.
        history: the rows of `Batch.history`, relative to the window's first, as rising ranges.
        history_channels: C_hist, the last size of `Batch.history`.

    Raises:
        ConfigError: the sizes contradict one another.
    """

    input_steps: int
    horizon: int
    num_nodes: int
    input_channels: int
    target_channels: int
    target_indices: tuple[int, ...]
    calendar: tuple[str, ...] = ()
    steps_per_day: int | None = None
    future_channels: int = 0
    static_channels: int = 0
    static_categories: tuple[int, ...] = ()
    history: tuple[range, ...] = ()
    history_channels: int = 0

    def __post_init__(self) -> None:
        for name in ("input_steps", "horizon", "num_nodes", "input_channels", "target_channels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        store_channels = self.input_channels - self.calendar_channels
        if store_channels < 1:
            raise ConfigError(
                f"calendar features are {self.calendar_channels} of {self.input_channels} input "
                "channels: at least one channel must come from the store"
            )
        if len(self.target_indices) != self.target_channels:
            raise ConfigError(
                f"target_indices {self.target_indices} name "
                f"{count_of(len(self.target_indices), 'channel')} and target_channels is "
                f"{self.target_channels}: they must agree"
            )
        if not all(0 <= index < store_channels for index in self.target_indices):
            raise ConfigError(
                f"target_indices are {self.target_indices}: the store has channels 0 to "
                f"{store_channels - 1}"
            )
        if self.steps_per_day is not None and self.steps_per_day < 1:
            raise ConfigError(f"steps_per_day is {self.steps_per_day}: it must be at least 1")

    @property
    def history_steps(self) -> int:
        """R, the rows of `Batch.history`."""
        return sum(map(len, self.history))

    @property
    def calendar_channels(self) -> int:
        """Number of calendar features, which are the last input channels."""
        return len(self.calendar)

    def calendar_position(self, name: str) -> int | None:
        """Input channel of the calendar feature `name`; None if the input lacks it."""
        if name not in self.calendar:
            return None
        return self.input_channels - len(self.calendar) + self.calendar.index(name)
