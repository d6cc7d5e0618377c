"""What regressions see of a window: deviations of its readings from the typical ones."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pgti.batching import WindowSource
from pgti.forecasting.baselines.past_readings import PastReadings, season_steps
from pgti.store import SeriesStore, TypicalReadings

__all__ = ["WindowFeatures", "WindowSample", "as_forecast", "earlier_lags"]

_NUM_DAYS = 7
_MAX_RECENT = 36  # readings: more do not help a regression that sees the last days


def earlier_lags(source: WindowSource) -> tuple[int, ...]:
    """How many rows before its target a regression looks: on the last seven days at that time.

    A season (`season_steps`) where a day is not several rows; none where that is not known either.
    """
    steps = source.store.time_axis.steps_per_day
    if steps is not None and steps > 1:
        return tuple(day * steps for day in range(1, _NUM_DAYS + 1))
    season = season_steps(source.store.time_axis)
    return () if season is None else (season,)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class WindowSample:
    """Features and targets of windows, float64.

    Attributes:
        recent: the last readings of each target channel, 36 at most, less their typical
            ones [B, n, C_out, L], NaN where missing.
        earlier: the readings at the time of each target on earlier days, likewise
            [B, n, C_out, H, K].
        typical: the typical reading at the time of each target [B, n, C_out, H].
        target: the targets less that reading [B, n, C_out, H]; NaN where missing.
    """

    recent: NDArray[np.float64]
    earlier: NDArray[np.float64]
    typical: NDArray[np.float64]
    target: NDArray[np.float64]


class WindowFeatures:
    """Reads features of windows from a series, whatever a batch has.

    A reading after the origin of a window is never a feature: an earlier day whose time at the
    target lies after the origin, with a horizon longer than a day, counts as missing.

    Args:
        source: the series of the windows.
        typical: typical readings of the training rows.
        lags: rows before a target at which earlier readings lie (`earlier_lags`).
        older: a series that has the rows before the first; see `PastReadings`.
        sensors: which of the source's sensors, a slice of their positions; all by default.
    """

    def __init__(
        self,
        source: WindowSource,
        typical: TypicalReadings,
        lags: tuple[int, ...],
        older: SeriesStore | None = None,
        sensors: slice = slice(None),
    ) -> None:
        self._readings = PastReadings(source, older, sensors)
        every = typical.table if source.sensors is None else typical.table[:, source.sensors]
        self._table = every[:, sensors][..., list(source.target_indices)].astype(np.float64)
        self._bins_of, self._axis = typical.bins, source.store.time_axis
        self._lags_K = np.array(lags, dtype=np.int64)
        self._input_steps, self._horizon = source.spec.input_steps, source.spec.horizon

    @property
    def num_features(self) -> int:
        """Readings that a target has as features, L + K."""
        return min(self._input_steps, _MAX_RECENT) + len(self._lags_K)

    @property
    def num_targets(self) -> int:
        """Targets of a window."""
        _, num_sensors, num_channels = self._table.shape
        return self._horizon * int(num_sensors * num_channels)

    def sample(self, starts: NDArray[np.int64]) -> WindowSample:
        """Features and targets of windows.

        Args:
            starts: first row of each window, int64 [B].
        """
        rows_BL = starts[:, None] + np.arange(self._input_steps)[-_MAX_RECENT:]
        ahead_H = np.arange(self._horizon)
        rows_BH = starts[:, None] + self._input_steps + ahead_H
        typical = self._typical(rows_BH)
        earlier_BHK = rows_BH[..., None] - self._lags_K
        earlier = self._deviation(rows_BH[..., None], self._lags_K)
        earlier[earlier_BHK >= (starts + self._input_steps)[:, None, None]] = np.nan
        return WindowSample(
            recent=self._deviation(rows_BL, np.int64(0)).transpose(0, 2, 3, 1),
            earlier=earlier.transpose(0, 3, 4, 1, 2),
            typical=typical.transpose(0, 2, 3, 1),
            target=(self._readings.at(rows_BH) - typical).transpose(0, 2, 3, 1),
        )

    def _deviation(
        self, rows: NDArray[np.int64], steps: NDArray[np.int64] | np.int64
    ) -> NDArray[np.float64]:
        """Readings some rows earlier, less the typical ones."""
        lag = np.asarray(steps)
        typical = self._typical(rows - lag)
        deviation: NDArray[np.float64] = self._readings.earlier(rows, lag) - typical
        return deviation

    def _typical(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Typical readings at rows; those before the first have no reading to compare with."""
        typical: NDArray[np.float64]
        typical = self._table[self._bins_of(self._axis, np.maximum(rows, 0))]
        return typical


def as_forecast(values: NDArray[np.float64], like: torch.Tensor) -> torch.Tensor:
    """Forecasts [B, n, C_out, H] as a tensor [B, H, n, C_out] of the type and device of another."""
    ordered = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    return torch.from_numpy(ordered).to(like)
