"""The seasonal naive forecast: what the same sensor read one season earlier."""

import numpy as np
import torch
from numpy.typing import NDArray

from pgti.batching import Batch, WindowSource
from pgti.batching.copies import to_device
from pgti.forecasting.baselines.past_readings import PastReadings
from pgti.forecasting.baselines.persistence import last_observed
from pgti.forecasting.forecaster import AbstractScaledForecaster
from pgti.shapes import BHNC
from pgti.store import SeriesStore

__all__ = ["SeasonalNaiveForecaster"]


class SeasonalNaiveForecaster(AbstractScaledForecaster):
    """Forecasts the reading of the same sensor one season earlier: at the same time last week.

    The season is a week of 168 hours, also where clocks change, or a year where rows are a week or
    more apart (`season_steps`). A horizon that is longer than the season repeats the last season
    before it. Where that reading is missing, the one of the season before stands in, then the last
    observed one of the window.

    Nothing is fitted. The rows are read from the series on the host, whatever the window has.

    Args:
        source: what the windows hold; `source.store` is the series that they are cut from.
        season: rows of a season.
        older: a series that has the rows before the first; see `PastReadings`.
    """

    def __init__(self, source: WindowSource, season: int, older: SeriesStore | None = None) -> None:
        super().__init__(source.scaler, source.target_indices, source.sensors)
        self._readings = PastReadings(source, older)
        self._season = season
        self._input_steps, self._horizon = source.spec.input_steps, source.spec.horizon

    def forward(self, batch: Batch, *, step: int | None = None) -> BHNC:
        """The readings a season before each target row."""
        values = self._earlier(batch.starts)
        last_B1NC = self.unscale(last_observed(batch.x, batch.x_mask, self.target_indices))
        earlier = to_device(values, batch.x.device).to(last_B1NC.dtype)
        return torch.where(earlier.isnan(), last_B1NC, earlier)

    def _earlier(self, starts: NDArray[np.int64]) -> NDArray[np.floating]:
        ahead_H = np.arange(self._horizon)
        rows_BH = starts[:, None] + self._input_steps + ahead_H
        lags_H = self._season * (1 + ahead_H // self._season)
        values = self._readings.earlier(rows_BH, lags_H)
        if np.isnan(values).any():
            before = self._readings.earlier(rows_BH, lags_H + self._season)
            values = np.where(np.isnan(values), before, values)
        return values
