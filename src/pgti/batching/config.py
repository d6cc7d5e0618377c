"""Which windows of a store there are, and what belongs to their inputs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from pgti.batching.history_texts import check_history, history_ranges
from pgti.errors import ConfigError, option
from pgti.options import convert_fields
from pgti.store import parse_time
from pgti.windows import (
    Splits,
    Starts,
    WindowSpec,
    leave_out_holes,
    split_by_fractions,
    split_by_rows,
)

if TYPE_CHECKING:
    from pgti.store import SeriesStore

__all__ = ["Fill", "WindowConfig", "upgrade_window_options"]

Fill: TypeAlias = Literal["last", "mean"]
"""What stands for a missing input."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowConfig:
    """Shape and split of the windows.

    Attributes:
        input_steps: Time steps that the model sees.
        horizon: Time steps that it forecasts.
        stride: Time steps between the starts of neighbouring windows.
        history: Earlier readings that the model sees beside its inputs: 14d is the whole span of 14
            days that ends at the last input, 1d..7d the hours of inputs and horizon on each of the
            7 days before, 1w..4w on the same weekday of 4 weeks. A number without a unit counts
            time steps. Readings before the first time step are missing, so that the windows stay
            the same.
        targets: Channels to forecast. By default all inputs that are not known in advance.
        inputs: Channels that the model sees, targets included. By default all of them.
        calendar: Calendar features to append to the inputs: time-of-day, day-of-week, day-of-year,
            month-of-year. By default those that suit the series and that the model is published
            with: `default` stands for the time of day, and the day of the week if the model has it.
        holidays: Countries, or parts of them (US, US-CA), whose public holidays are calendar
            features: 1 on such a day of the series' clock, else 0.
        climatology: Append the climatology of each target to the inputs. It is the historical
            average of each sensor at that time of day, on working days or on weekends, over the
            training rows; for the time step itself and for the time step one horizon later.
        fill: What stands for a missing input: last or mean. "last" is the sensor's last reading in
            the window, which fades step by step into its typical one at that time of the training
            rows, or that one if there is no reading. "mean" is the channel's mean.
        observed_mask: Append to the inputs which readings were observed: 1, or 0 where missing.
        covariates: Give the model what is known of the steps to forecast and does not follow from
            the past: values of channels known in advance, and holidays; and features of the
            sensors. A network of your own that names them in `forward` always reads them itself.
        fractions: Fractions of train, validation and test windows, in time order.
        val_from: Time of the first validation target, ISO 8601, instead of fractions.
        test_from: Time of the first test target, ISO 8601; required with val-from.
        gap: Time steps left out between splits. With input-steps + horizon - 1, splits share no
            time step.
        across_holes: Also use windows that reach across missing time steps (a store with
            `--gaps keep`), as if those were not missing.

    Raises:
        ConfigError: if a size breaks its rule, or a split is given in two ways.
    """

    renamed: ClassVar[Mapping[str, str]] = MappingProxyType({"profile": "climatology"})

    input_steps: int = 12
    horizon: int = 12
    stride: int = 1
    history: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    calendar: tuple[str, ...] | None = None
    holidays: tuple[str, ...] = ()
    climatology: bool = False
    fill: Fill = "last"
    observed_mask: bool = False
    covariates: bool = True
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    val_from: str | None = None
    test_from: str | None = None
    gap: int = 0
    across_holes: bool = False

    def __post_init__(self) -> None:
        convert_fields(self)
        _ = self.spec
        check_history(self.history)
        if (self.val_from is None) != (self.test_from is None):
            raise ConfigError(
                f"val_from is {self.val_from} and test_from {self.test_from}: "
                "a split by dates needs both"
            )

    @property
    def spec(self) -> WindowSpec:
        """The window's shape, which says where windows start; `spec_of` adds the history."""
        return WindowSpec(input_steps=self.input_steps, horizon=self.horizon, stride=self.stride)

    def spec_of(self, store: "SeriesStore") -> WindowSpec:
        """The window's shape with the rows of its history, which a store's interval decides.

        Raises:
            ConfigError: if the store has no such rows.
        """
        if not self.history:
            return self.spec
        axis, steps = store.time_axis, self.input_steps
        return replace(self.spec, history=history_ranges(self.history, axis, steps, self.horizon))

    def splits(self, store: "SeriesStore") -> Splits:
        """Train, validation and test windows of a store.

        Raises:
            ConfigError: if the split leaves no training window, a time is not valid, or the history
                is longer than the series.
        """
        num_steps = store.meta.num_steps
        longest = -self.spec_of(store).reach.start
        if longest >= num_steps:
            raise ConfigError(
                f"history is {', '.join(self.history)}: it begins {longest} rows before the first "
                f"input, and the series has {num_steps}: no window would have all of it; shorten "
                f"{option('windows.history')}"
            )
        holes = None if self.across_holes else store.time_axis.holes
        if self.val_from is None or self.test_from is None:
            return split_by_fractions(num_steps, self.spec, self.fractions, self.gap, holes)
        return split_by_rows(
            num_steps,
            self.spec,
            val_row=store.time_axis.row_of(parse_time("val_from", self.val_from)),
            test_row=store.time_axis.row_of(parse_time("test_from", self.test_from)),
            gap=self.gap,
            holes=holes,
        )

    def whole(self, store: "SeriesStore", starts: Starts) -> Starts:
        """Those of the windows of a store that may be used: none across a hole, unless asked."""
        holes = None if self.across_holes else store.time_axis.holes
        return leave_out_holes(starts, self.spec.extent, holes)

    def target_indices(self, store: "SeriesStore") -> tuple[int, ...]:
        """Positions of the target channels: by default all inputs that are not known in advance.

        Raises:
            ConfigError: if a target is known in advance, or is not among the inputs, or none is
                left.
            DataError: if there is no such channel, or one is named twice.
        """
        inputs = self.inputs or store.meta.channels
        known = store.meta.known_future
        for name in self.targets:
            if name in known:
                raise ConfigError(
                    f"{name} is known in advance in {store.path}: it is an input, and no target; "
                    f"leave it out of {option('windows.targets')}"
                )
            if name in store.meta.channels and name not in inputs:
                raise ConfigError(
                    f"{name} is a target and not among the inputs ({', '.join(inputs)}): a model "
                    f"sees what it forecasts, so add it to {option('windows.inputs')}"
                )
        unknown = tuple(name for name in inputs if name not in known)
        if not unknown:
            raise ConfigError(
                f"the inputs are {', '.join(inputs)}: all known in advance in {store.path}; name "
                f"a channel to forecast in {option('windows.inputs')}, too"
            )
        return store.channel_indices(self.targets or unknown)

    def input_indices(self, store: "SeriesStore") -> tuple[int, ...]:
        """Positions of the channels that the model sees, rising; empty where those are all.

        Raises:
            DataError: if there is no such channel, or one is named twice.
        """
        chosen = tuple(sorted(store.channel_indices(self.inputs)))
        return () if len(chosen) == store.meta.num_channels else chosen


def upgrade_window_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the windows of an earlier version, by their present names."""
    return {WindowConfig.renamed.get(name, name): value for name, value in options.items()}
