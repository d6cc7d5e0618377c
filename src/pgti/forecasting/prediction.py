"""Forecasts as tables in memory, or as files that are written in bounded memory."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching import Batch
from pgti.errors import ConfigError
from pgti.forecasting.forecaster import AbstractForecaster, Prediction
from pgti.forecasting.inputs import InputSummary
from pgti.forecasting.observers import Observer
from pgti.forecasting.writers import ForecastBlock, ForecastLabels, open_writer
from pgti.memory import available_bytes

__all__ = ["forecast_blocks", "forecast_frame", "predict"]

_EXACT_BYTES = 16  # more, of forecast and observed value in float64
_FRAME_ROW_BYTES = 88  # of a forecast in a table, twice: its parts, and all together


def predict(
    forecaster: AbstractForecaster,
    batches: Iterable[Batch],
    labels: ForecastLabels,
    path: str | Path,
    *,
    inputs: InputSummary | None = None,
    observers: Iterable[Observer] = (),
    block_size: int = 1 << 18,
) -> int:
    """Write the forecasts of the batches' windows to a file.

    A CSV or Parquet file has one row per forecast, with the columns

        timestamp   time of the forecast value (its row number if times are unknown)
        origin      time of the last input
        horizon     steps from origin to timestamp, from 1
        sensor      id of the sensor
        channel     name of the channel
        forecast    in original units
        0.1, ..     quantiles, where the model has them, by their level; `forecast` is the median
        lo-80, hi-80, ..  ends of the intervals of a probability, in percent, if they are asked for
        observed    the observed value, empty where it is missing or not known yet
        missing_inputs  inputs of the sensor and channel that were missing in the window
        missing_newest  those of them after its last reading: 0 if the last input was observed, all
                        input steps if none was

    An NPZ file has the arrays `forecast`, `observed` and those of quantiles and intervals under the
    names above, each [S, H, N, C], `timestamps` [S, H], `origins` [S], `missing_inputs` and
    `missing_newest`, int32 [S, N, C], `horizon` [H], `sensor_ids` [N] and `channels` [C].

    Forecasts and observed values are float32; of an exact series float64, the observed values with
    every digit and forecasts with as many decimals as float32 has of their distance from the
    sensor's usual value.

    Times of a series with a time zone are unambiguous: with their UTC offset in a CSV file
    (2025-10-26T02:00:00+01:00), with the zone in a Parquet file, and in UTC in an NPZ file, beside
    an array `time_zone` with the name of the zone. Other times are those of the source.

    Args:
        forecaster: on the device of the batches.
        batches: the windows, with or without targets; read one at a time.
        labels: names of the rows, sensors and channels.
        path: the suffix, .csv, .parquet or .npz, selects the format; the complete file replaces
            an existing one.
        inputs: counts what is missing in the inputs.
        observers: receive the progress.
        block_size: forecasts (windows x horizon x nodes x channels) converted to rows at a time.

    Returns:
        Number of windows.

    Raises:
        ConfigError: if the suffix is unknown, the directory does not exist, or there is no window.
        MissingExtraError: if the library of the format is not installed.
        RunError: if the file cannot be written.
    """
    path = Path(path)
    num_windows = 0
    with open_writer(path, labels) as write:
        for block in forecast_blocks(
            forecaster, batches, labels, inputs=inputs, observers=observers, block_size=block_size
        ):
            write(block)
            num_windows += len(block.forecast)
    return num_windows


def forecast_frame(
    forecaster: AbstractForecaster,
    batches: Iterable[Batch],
    labels: ForecastLabels,
    *,
    num_windows: int,
    horizon: int,
    model: str | None = None,
    observers: Iterable[Observer] = (),
) -> pd.DataFrame:
    """The forecasts of the batches' windows as a table, with the columns of `predict`.

    Times have the series' time zone, if it has one; `sensor` and `channel` are categorical.

    Args:
        forecaster: on the device of the batches.
        batches: the windows, with or without targets; read one at a time.
        labels: names of the rows, sensors and channels.
        num_windows: windows of all batches.
        horizon: H.
        model: name of the model, to name the columns as neuralforecast does: `unique_id, ds,
            cutoff, MODEL, y`, with MODEL-ql0.1 for a quantile and MODEL-lo-80, MODEL-hi-80 for an
            interval; several channels become "SENSOR/CHANNEL".
        observers: receive the progress.

    Raises:
        ConfigError: if there is no window, or the table would not fit into memory.
    """
    num_more = len(forecaster.quantile_levels) + 2 * len(forecaster.interval_levels)
    _check_frame_fits(num_windows * horizon, labels, num_more)
    blocks = forecast_blocks(forecaster, batches, labels, observers=observers)
    parts = [block.columns() for block in blocks]
    columns: dict[str, Any] = {
        name: np.concatenate([part[name] for part in parts]) for name in parts[0]
    }
    for name, words in (("sensor", labels.sensor_ids), ("channel", labels.channels)):
        columns[name] = pd.Categorical.from_codes(columns[name], categories=pd.Index(words))
    if labels.time_zone is not None:
        for name in ("timestamp", "origin")[labels.numbered :]:
            times = pd.DatetimeIndex(columns[name], tz="UTC")
            columns[name] = times.tz_convert(labels.time_zone)
    frame = pd.DataFrame(columns)
    return frame if model is None else _rename_columns(frame, model)


def _check_frame_fits(num_rows: int, labels: ForecastLabels, num_more: int) -> None:
    row_bytes = _FRAME_ROW_BYTES + (0 if labels.decimals is None else _EXACT_BYTES)
    row_bytes += num_more * (8 if labels.decimals is None else 16)
    needed = num_rows * len(labels.sensor_ids) * len(labels.channels) * row_bytes
    free = available_bytes()
    if needed > free:
        raise ConfigError(
            f"the forecasts make a table of {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB "
            "are free: forecast fewer windows, or write them to a file with Run.predict"
        )


def _rename_columns(frame: pd.DataFrame, model: str) -> pd.DataFrame:
    unique_id = frame["sensor"].astype("str")
    if len(frame["channel"].cat.categories) > 1:
        unique_id = unique_id + "/" + frame["channel"].astype("str")
    names = {"timestamp": "ds", "origin": "cutoff", "forecast": model, "observed": "y"}
    first = list(frame.columns).index("forecast") + 1
    more = frame.columns[first : list(frame.columns).index("observed")]
    renamed = frame[[*list(names)[:3], *more, "observed"]].rename(
        columns=names
        | {name: f"{model}-{name if name[:1] in 'lh' else f'ql{name}'}" for name in more}
    )
    renamed.insert(0, "unique_id", unique_id)
    return renamed


def forecast_blocks(
    forecaster: AbstractForecaster,
    batches: Iterable[Batch],
    labels: ForecastLabels,
    *,
    inputs: InputSummary | None = None,
    observers: Iterable[Observer] = (),
    block_size: int = 1 << 18,
) -> Iterator[ForecastBlock]:
    """The forecasts of the batches' windows, at most about `block_size` numbers at a time.

    Raises:
        ConfigError: if there is no window.
    """
    num_windows = 0
    was_training = forecaster.training
    forecaster.eval()
    try:
        for batch in batches:
            yield from _blocks_of(forecaster, batch, labels, inputs, block_size)
            num_windows += batch.num_windows
            for observer in observers:
                observer.advance(batch.num_windows)
    finally:
        forecaster.train(was_training)
    if num_windows == 0:
        raise ConfigError("there is no window to forecast: choose another split or range")


def _numbers(values: Tensor, labels: ForecastLabels) -> NDArray[np.floating[Any]]:
    """Forecasts [B, H, N, C] on the host, as a file has them."""
    array: NDArray[np.floating[Any]] = values.cpu().numpy()
    if labels.decimals is None:
        return array.astype(np.float32, copy=False)
    return _round(array, labels.decimals)


def _more_columns(
    found: Prediction, forecaster: AbstractForecaster, labels: ForecastLabels
) -> dict[str, NDArray[np.floating[Any]]]:
    """Quantiles and ends of intervals by the name of their column, each [B, H, N, C]."""
    columns: dict[str, Tensor] = {}
    if found.quantiles is not None:
        names = (f"{level:.6g}" for level in forecaster.quantile_levels)
        columns |= dict(zip(names, found.quantiles.unbind(-1), strict=True))
    if found.lower is not None and found.upper is not None:
        ends = found.lower.unbind(-1), found.upper.unbind(-1)
        for level, low, high in zip(forecaster.interval_levels, *ends, strict=True):
            columns |= {f"lo-{100 * level:.6g}": low, f"hi-{100 * level:.6g}": high}
    return {name: _numbers(values, labels) for name, values in columns.items()}


def _round(
    forecast: NDArray[np.floating[Any]], decimals: tuple[int, ...]
) -> NDArray[np.floating[Any]]:
    """Forecasts [.., C] with as many decimals as each channel has."""
    parts = [np.round(forecast[..., c], places) for c, places in enumerate(decimals)]
    return np.stack(parts, axis=-1)


def _blocks_of(
    forecaster: AbstractForecaster,
    batch: Batch,
    labels: ForecastLabels,
    inputs: InputSummary | None,
    block_size: int,
) -> Iterator[ForecastBlock]:
    with torch.no_grad():
        found = forecaster.predict(batch)
    forecast = _numbers(found.point, labels)
    more = _more_columns(found, forecaster, labels)
    observed = np.full_like(forecast, np.nan)
    if batch.y is not None and batch.y_mask is not None:
        observed = torch.where(batch.y_mask, batch.y, torch.nan).cpu().numpy()
    horizon = np.arange(1, forecast.shape[1] + 1)
    last_rows = batch.starts + labels.input_steps - 1
    missing, newest = _count_missing(batch.x_mask[..., list(labels.target_indices)])
    if inputs is not None:
        inputs.add(labels, last_rows, missing, newest)
    size = max(1, block_size // max(1, forecast[0].size))
    for first in range(0, batch.num_windows, size):
        part = slice(first, first + size)
        yield ForecastBlock(
            timestamps=labels.target_times(last_rows[part, None] + horizon),
            origins=labels.timestamps(last_rows[part]),
            forecast=forecast[part],
            more={name: values[part] for name, values in more.items()},
            observed=observed[part],
            missing_inputs=missing[part],
            missing_newest=newest[part],
        )


def _count_missing(mask: Tensor) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Missing inputs, and those after the last reading, [B, N, C], of a mask [B, L, N, C]."""
    steps = torch.arange(1, mask.shape[1] + 1, device=mask.device, dtype=torch.int32)
    last = (mask * steps.view(-1, 1, 1)).amax(dim=1)
    missing = mask.logical_not().sum(dim=1, dtype=torch.int32)
    return missing.cpu().numpy(), (mask.shape[1] - last).cpu().numpy()
