"""Everything that determines what a window holds."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.config import Fill, WindowConfig
from pgti.batching.static_inputs import StaticInputs
from pgti.display import count_of
from pgti.errors import ConfigError, option
from pgti.store import (
    Scaler,
    SeriesStore,
    TypicalReadings,
    calendar_features,
    default_calendar,
    holiday_feature,
)
from pgti.store.codec import Raw, Values
from pgti.store.static_features import StaticFeatures
from pgti.windows import ModelShape, WindowSpec

__all__ = ["WindowSource", "needs_typical", "relative"]


def needs_typical(windows: WindowConfig, store: SeriesStore) -> bool:
    """Whether inputs have typical readings: in a climatology, or in place of missing ones.

    With history some are always missing: those before the series begins.
    """
    is_filled = windows.fill == "last"
    return windows.climatology or (
        is_filled and (store.meta.missing_count > 0 or bool(windows.history))
    )


def relative(values: Values, offsets: NDArray[np.float64] | None) -> NDArray[np.float32]:
    """Readings [.., n, C] less the offsets of their sensors [n, C], computed in float64."""
    less = values if offsets is None else values.astype(np.float64, copy=False) - offsets
    return less.astype(np.float32, copy=False)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class WindowSource:
    """A series, the shape of its windows, and what is made of their rows.

    Attributes:
        store: the series.
        spec: the window's shape.
        scaler: standardisation of the inputs.
        target_indices: positions, among the store's channels, of those to forecast.
        calendar: names of the calendar features that are appended to the inputs.
        typical: what each sensor usually reads, of the training rows.
        fill: what stands for a missing reading: "last", the sensor's last one in the window,
            fading into its typical one (`fill_missing`); "mean", 0.
        observed_mask: whether the mask of the readings is appended to them.
        climatology: whether the typical readings of the target channels are appended to the inputs
            before the calendar, for the input's own row and for the row H steps later.
        known_indices: positions, among the store's channels, of those whose values are known in
            advance: a batch has them at the steps to forecast, too.
        static: features of the sensors, of all N.
        input_indices: positions, among the store's channels, of those that a network sees, rising;
            empty for all. A batch has all of them; see `network_channels`.
        sensors: positions of the sensors that batches have, rising int64 [n], where the sensors of
            the windows are split over ranks; None for all N.
        across_holes: whether history reaches across holes in the times, as if there were none.

    Raises:
        ConfigError: if there is no such calendar feature, the series has no times, or a climatology
            has no typical readings, or none by time of day; if readings are to be filled and none
            are typical.
        DataError: if the scaler is of other sensors, channels or features.
    """

    store: SeriesStore
    spec: WindowSpec
    scaler: Scaler
    target_indices: tuple[int, ...]
    calendar: tuple[str, ...] = ()
    typical: TypicalReadings | None = None
    fill: Fill = "mean"
    observed_mask: bool = False
    climatology: bool = False
    known_indices: tuple[int, ...] = ()
    static: StaticFeatures | None = None
    input_indices: tuple[int, ...] = ()
    sensors: NDArray[np.int64] | None = None
    across_holes: bool = False

    def __post_init__(self) -> None:
        if self.climatology and (self.typical is None or not self.typical.has_times_of_day):
            why = "the series has no times or no more than one reading a day"
            leave = f"leave {option('windows.climatology')} out"
            raise ConfigError(f"a climatology is the mean of a time of day, and {why}: {leave}")
        if (self.fills or self.fills_history) and self.typical is None:
            raise ConfigError(
                f"readings {'are missing' if self.fills else 'before the first row are missing'} "
                "and fill is 'last', which needs the typical readings of the "
                "training rows: pass typical=TypicalReadings.fit(store, rows), or use fill='mean'"
            )
        # Refuses unknown features, and years whose holidays are not known, at once.
        self.calendar_of(np.array([0, max(0, self.store.meta.num_steps - self.spec.input_steps)]))
        meta = self.store.meta
        self.scaler.check_fits(meta.num_nodes, meta.num_channels, self.static)

    @classmethod
    def from_config(
        cls,
        store: SeriesStore,
        windows: WindowConfig,
        scaler: Scaler | None = None,
        *,
        typical: TypicalReadings | None = None,
        day_of_week: bool = False,
    ) -> Self:
        """What the windows of a store hold; statistics are those of its training rows alone.

        Args:
            store: the series.
            windows: shape and split of the windows, and what belongs to their inputs.
            scaler: standardisation of the inputs, if it is known.
            typical: what each sensor usually reads, if it is known.
            day_of_week: whether the default calendar has the day of the week, too.

        Raises:
            ConfigError: if the split leaves no training window, or the calendar does not suit the
                series.
            DataError: if a target channel is not in the store, or a channel was never observed.
        """
        targets, spec = windows.target_indices(store), windows.spec_of(store)
        inputs = windows.input_indices(store)
        default = default_calendar(store.time_axis, day_of_week=day_of_week)
        calendar = default if windows.calendar is None else windows.calendar
        if "default" in calendar:
            calendar = (*default, *(name for name in calendar if name != "default"))
        named = (*calendar, *map(holiday_feature, windows.holidays))
        calendar = tuple(dict.fromkeys(named))
        is_needed = typical is None and needs_typical(windows, store)
        if scaler is None or is_needed:  # both known: the store may have no rows
            train_rows = windows.splits(store).train_rows(spec)
            scaler = Scaler.fit(store, train_rows) if scaler is None else scaler
            if is_needed:
                typical = TypicalReadings.fit(store, train_rows, every_step=windows.climatology)
        return cls(
            store=store,
            spec=spec,
            scaler=scaler,
            target_indices=targets,
            calendar=calendar,
            typical=typical,
            fill=windows.fill,
            observed_mask=windows.observed_mask,
            climatology=windows.climatology,
            known_indices=tuple(
                index for index in store.meta.known_indices if not inputs or index in inputs
            ),
            static=store.static_features,
            input_indices=inputs,
            across_holes=windows.across_holes,
        )

    @property
    def target_units(self) -> dict[str, str]:
        """Unit of each target channel by name, "" where unknown."""
        meta = self.store.meta
        return {meta.channels[index]: meta.units[index] for index in self.target_indices}

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the target channels."""
        return tuple(self.target_units)

    @property
    def is_exact(self) -> bool:
        """Whether readings are float64: targets are too, and inputs are less their offsets."""
        return self.store.meta.is_exact or self.scaler.offsets is not None

    @property
    def offsets(self) -> NDArray[np.float64] | None:
        """What the inputs of a batch's sensors are relative to, [n, C]; None for nothing."""
        offsets = self.scaler.offset_array
        return offsets if offsets is None or self.sensors is None else offsets[self.sensors]

    # -- sizes ------------------------------------------------------------------------------------

    @property
    def num_nodes(self) -> int:
        """Sensors of a batch: N, or those of this rank."""
        return self.store.meta.num_nodes if self.sensors is None else len(self.sensors)

    @property
    def num_input_channels(self) -> int:
        """Channels of a batch's `x`: the store's, mask, climatology and calendar."""
        readings = self.store.meta.num_channels * (1 + self.observed_mask)
        typical = 2 * len(self.target_indices) * self.climatology
        return readings + typical + len(self.calendar)

    @property
    def network_channels(self) -> tuple[int, ...] | None:
        """Channels of a batch's `x` that a network sees; None for all."""
        if not self.input_indices:
            return None
        num_channels, chosen = self.store.meta.num_channels, self.input_indices
        of_mask = tuple(num_channels + index for index in chosen) if self.observed_mask else ()
        first = num_channels * (1 + self.observed_mask)
        return (*chosen, *of_mask, *range(first, self.num_input_channels))

    @property
    def shape(self) -> ModelShape:
        """The sizes of a network for these windows; of all N sensors, whichever a batch has."""
        channels, targets = self.network_channels, self.target_indices
        if channels is not None:
            targets = tuple(self.input_indices.index(index) for index in targets)
        num_seen = len(self.input_indices) or self.store.meta.num_channels
        return ModelShape(
            input_steps=self.spec.input_steps,
            horizon=self.spec.horizon,
            num_nodes=self.store.meta.num_nodes,
            input_channels=self.num_input_channels if channels is None else len(channels),
            target_channels=len(targets),
            target_indices=targets,
            calendar=self.calendar,
            steps_per_day=self.store.time_axis.steps_per_day,
            future_channels=len(self.known_indices),
            static_channels=0 if self.static is None else self.static.num_values,
            static_categories=() if self.static is None else self.static.num_categories,
            history=self.spec.history,
            history_channels=num_seen if self.spec.history else 0,
        )

    @property
    def stored_row_bytes(self) -> int:
        """Bytes of a row of the series as it is stored, of a batch's sensors."""
        return self.num_nodes * self.store.meta.num_channels * self.store.raw.dtype.itemsize

    @property
    def series_bytes(self) -> int:
        """Bytes of all rows as they are stored, of a batch's sensors."""
        return self.store.meta.num_steps * self.stored_row_bytes

    @property
    def input_row_bytes(self) -> int:
        """Bytes of a row of a batch's inputs and their mask."""
        return self.num_nodes * (4 * self.num_input_channels + self.store.meta.num_channels)

    @property
    def target_row_bytes(self) -> int:
        """Bytes of a row of a batch's targets and their mask."""
        return self.num_nodes * (4 * (1 + self.is_exact) + 1) * len(self.target_indices)

    @property
    def history_bytes(self) -> int:
        """Bytes of a window's history in a batch, and of its mask where readings are missing."""
        readings = self.num_nodes * self.store.meta.num_channels
        return self.spec.history_steps * readings * (4 + (self.store.meta.missing_count > 0))

    @property
    def window_bytes(self) -> int:
        """Bytes of a window in a batch, without history: inputs, targets, known values, masks."""
        known = self.num_nodes * (4 + 1) * len(self.known_indices)
        return self.spec.input_steps * self.input_row_bytes + self.spec.horizon * (
            self.target_row_bytes + known
        )

    # -- rows -------------------------------------------------------------------------------------

    def raw_rows(self, rows: slice) -> Raw:
        """Readings of rows as they are stored, of a batch's sensors [rows, n, C]."""
        raw = self.store.raw[rows]
        return raw if self.sensors is None else raw[:, self.sensors]

    # -- features of rows -------------------------------------------------------------------------

    def calendar_of(self, starts: NDArray[np.int64]) -> Tensor:
        """Calendar features of the windows, float32 [B, L + H, F]."""
        rows = starts[:, None] + np.arange(self.spec.span)
        return torch.from_numpy(calendar_features(self.store.time_axis, self.calendar, rows))

    @property
    def fills(self) -> bool:
        """Whether missing readings are replaced: by what is known of their sensors."""
        return self.fill == "last" and self.store.meta.missing_count > 0

    @property
    def fills_history(self) -> bool:
        """Whether missing readings of history are replaced by what is typical of their sensors."""
        return self.fill == "last" and bool(self.spec.history)

    @property
    def typical_offsets(self) -> tuple[int, ...]:
        """Distances from a row to those whose typical readings its inputs need."""
        if self.climatology:
            return (0, self.spec.horizon)
        return (0,) if self.fills else ()

    def scaled_typical(self) -> NDArray[np.float32] | None:
        """The typical readings of a batch's sensors, standardised like the inputs: [bins, n, C]."""
        if self.typical is None:
            return None
        mean = np.asarray(self.scaler.mean, dtype=np.float32)
        std = np.asarray(self.scaler.std, dtype=np.float32)
        table = self.typical.table
        chosen = table if self.sensors is None else table[:, self.sensors]
        scaled = relative(chosen, self.offsets) - mean
        scaled /= std
        return scaled

    def static_inputs(self, device: torch.device) -> StaticInputs | None:
        """Features of a batch's sensors, on a device; None where the series has none."""
        if self.static is None:
            return None
        return StaticInputs.of_features(self.static, self.scaler, self.sensors).to(device)

    @property
    def typical_bytes(self) -> int:
        """Bytes of the standardised typical readings, where inputs need them."""
        is_used = bool(self.typical_offsets) or self.fills_history
        return self.typical.table.nbytes if self.typical is not None and is_used else 0

    # -- windows ----------------------------------------------------------------------------------

    def check_starts(self, starts: NDArray[np.int64], *, with_targets: bool) -> None:
        """Refuse windows that reach outside the series.

        Raises:
            ConfigError: naming the first such window.
        """
        rows = self.spec.span if with_targets else self.spec.input_steps
        last = self.store.meta.num_steps - rows
        outside = (starts < 0) | (starts > last)
        if outside.any():
            raise ConfigError(
                f"window start {int(starts[outside][0])} is outside the series: the rule is 0 <= "
                f"start <= {last} ({count_of(self.store.meta.num_steps, 'step')}, "
                f"{count_of(rows, 'row')} a window)"
            )

    def history_begins(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first row that each window's history may read: of the series, or after a hole."""
        holes = self.store.time_axis.holes
        if not self.spec.history or self.across_holes or not len(holes):
            return np.zeros_like(starts)
        return np.append(0, holes + 1)[np.searchsorted(holes, starts)]

    def num_missing_history(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of each window's history that are not there: its first ones."""
        return np.searchsorted(self.spec.history_offsets, self.history_begins(starts) - starts)
