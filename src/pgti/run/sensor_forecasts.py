"""Forecasts of a few sensors, window after window, for pictures; no table of all is made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.forecasting import AbstractForecaster, ForecastLabels, forecast_blocks
from pgti.run.selection import SelectedWindows

__all__ = ["SensorForecasts", "collect_forecasts", "wall_times"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class SensorForecasts:
    """Forecasts of S sensors beside what was observed, of one target channel.

    Attributes:
        times: of the targets on the series' clock, or row numbers, [W, K] for K horizon steps.
        observed: in original units, NaN where missing or not known yet, [W, K, S].
        forecast: likewise.
        bands: lower and upper end of each interval by its name, such as "80 % interval", the widest
            first; ends are [W, K, S].
    """

    times: NDArray[Any]
    observed: NDArray[np.floating[Any]]
    forecast: NDArray[np.floating[Any]]
    bands: dict[str, tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]]


def collect_forecasts(
    selected: SelectedWindows,
    forecaster: AbstractForecaster,
    *,
    sensors: Sequence[int],
    channel: int,
    steps: Sequence[int],
) -> SensorForecasts:
    """Forecast windows and keep what is of a few sensors.

    Args:
        selected: the windows.
        forecaster: with the intervals to keep; else quantiles that mirror one another are.
        sensors: their positions, S.
        channel: position of the target.
        steps: horizon steps from 1, K.
    """
    places = np.array(steps) - 1

    def of_sensors(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        return values[:, places][:, :, list(sensors), channel]

    times, observed, forecast, more = [], [], [], []
    for block in forecast_blocks(forecaster, selected.batches, selected.labels):
        times.append(block.timestamps[:, places])
        observed.append(of_sensors(block.observed))
        forecast.append(of_sensors(block.forecast))
        more.append({name: of_sensors(each) for name, each in block.more.items()})
    columns = {name: np.concatenate([part[name] for part in more]) for name in more[0]}
    return SensorForecasts(
        times=wall_times(np.concatenate(times), selected.labels),
        observed=np.concatenate(observed),
        forecast=np.concatenate(forecast),
        bands=_bands(columns),
    )


def wall_times(times: NDArray[Any], labels: ForecastLabels) -> NDArray[Any]:
    """Times of forecasts as the clock of the series shows them; row numbers stay."""
    if labels.time_zone is None or times.dtype.kind != "M":
        return times
    flat = pd.DatetimeIndex(times.ravel(), tz="UTC").tz_convert(labels.time_zone)
    return np.asarray(flat.tz_localize(None)).reshape(times.shape)


def _bands(
    columns: dict[str, NDArray[np.floating[Any]]],
) -> dict[str, tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]]:
    """Pairs of ends: of intervals where there are any, else of quantiles."""
    ends = {float(name[3:]): name[3:] for name in columns if name.startswith("lo-")}
    if ends:
        return {
            f"{text} % interval": (columns[f"lo-{text}"], columns[f"hi-{text}"])
            for _, text in sorted(ends.items(), reverse=True)
        }
    levels = {round(float(name), 12): name for name in columns}
    return {
        f"{100 * (1 - 2 * low):.6g} % interval": (columns[name], columns[levels[high]])
        for low, name in sorted(levels.items())
        if low < 0.5 and (high := round(1 - low, 12)) in levels
    }
