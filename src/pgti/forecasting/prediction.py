"""Forecasts as files, written in bounded memory; a file appears once it is complete."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from pgti.batching import Batch
from pgti.errors import ConfigError
from pgti.forecasting.forecaster import AbstractForecaster
from pgti.forecasting.observers import AbstractObserver
from pgti.forecasting.writers import ForecastBlock, ForecastLabels, open_writer

__all__ = ["predict"]


def predict(
    forecaster: AbstractForecaster,
    batches: Iterable[Batch],
    labels: ForecastLabels,
    path: str | Path,
    *,
    observers: Iterable[AbstractObserver] = (),
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
        observed    the observed value, empty where missing; only if the first batch has targets

    An NPZ file has the arrays `forecast` and, in the same case, `observed`, float32 [S, H, N, C],
    `timestamps` [S, H], `origins` [S], `horizon` [H], `sensor_ids` [N] and `channels` [C].

    Times of a series with a time zone are unambiguous: with their UTC offset in a CSV file
    (2025-10-26T02:00:00+01:00), with the zone in a Parquet file, and in UTC in an NPZ file, beside
    an array `time_zone` with the name of the zone. Other times are those of the source.

    Args:
        forecaster: on the device of the batches.
        batches: the windows, with or without targets; read one at a time.
        labels: names of the rows, sensors and channels.
        path: the suffix, .csv, .parquet or .npz, selects the format; the complete file replaces
            an existing one.
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
    has_observed: bool | None = None
    was_training = forecaster.training
    forecaster.eval()
    try:
        with torch.no_grad(), open_writer(path, labels) as write:
            for batch in batches:
                if has_observed is None:
                    has_observed = batch.y is not None
                forecast = forecaster(batch)
                for block in _blocks(batch, forecast, labels, block_size, has_observed):
                    write(block)
                num_windows += batch.num_windows
                for observer in observers:
                    observer.advance(batch.num_windows)
            if num_windows == 0:
                raise ConfigError("there is no window to forecast: choose another split or range")
    finally:
        forecaster.train(was_training)
    return num_windows


def _blocks(
    batch: Batch,
    prediction: torch.Tensor,
    labels: ForecastLabels,
    block_size: int,
    has_observed: bool,
) -> Iterator[ForecastBlock]:
    """The forecasts of a batch, at most about `block_size` at a time."""
    forecast = prediction.float().cpu().numpy()
    observed = np.full_like(forecast, np.nan) if has_observed else None
    if has_observed and batch.y is not None and batch.y_mask is not None:
        observed = torch.where(batch.y_mask, batch.y.float(), torch.nan).cpu().numpy()
    horizon = np.arange(1, forecast.shape[1] + 1)
    last_rows = batch.starts + labels.input_steps - 1
    size = max(1, block_size // max(1, forecast[0].size))
    for first in range(0, batch.num_windows, size):
        part = slice(first, first + size)
        yield ForecastBlock(
            timestamps=labels.timestamps(last_rows[part, None] + horizon),
            origins=labels.timestamps(last_rows[part]),
            forecast=forecast[part],
            observed=None if observed is None else observed[part],
        )
