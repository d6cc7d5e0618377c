"""The historical average: the mean of the training readings at the same time of the week."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching import Batch
from pgti.batching.copies import to_device
from pgti.errors import ConfigError, DataError
from pgti.forecasting.forecaster import AbstractForecaster
from pgti.shapes import BHNC
from pgti.store import SECONDS_PER_DAY, SeriesStore, TimeAxis, sum_by_bin

__all__ = ["HistoricalAverageForecaster"]

_MAX_WEEK_BINS = 2016
"""Bins of a week at most: five minutes each. A finer series is averaged over that."""


class HistoricalAverageForecaster(AbstractForecaster):
    """Forecasts the training mean of the same sensor at the same time of the week.

    Create one with `fit`. Where a sensor was never observed in a bin of the week, the mean of the
    bin of the day stands in, then the mean of the sensor, then that of the channel. Where rows are
    a week or more apart (weeks, months, quarters), the bins are the months of the year. Without
    times, the forecast is the sensor's mean.

    Args:
        table: mean of each bin, node and target, in original units [bins, N, C_out].
        intervals_per_bin: intervals of the series that share a bin.
        time_axis: maps rows to bins of the week.
        input_steps: L, to find the target rows of a window.
        horizon: H.

    Raises:
        ConfigError: if the table has another shape or contains NaN.
    """

    def __init__(
        self,
        table: Tensor,
        intervals_per_bin: int,
        time_axis: TimeAxis,
        *,
        input_steps: int,
        horizon: int,
    ) -> None:
        super().__init__()
        if table.ndim != 3:
            raise ConfigError(
                f"the table of averages has shape {tuple(table.shape)}: it must be "
                "[week bins, nodes, targets]"
            )
        num_gaps = int(torch.isnan(table).sum())
        if num_gaps:
            raise ConfigError(
                f"the table of averages has {num_gaps} gaps (NaN): fill bins without "
                "observations before you build the forecaster"
            )
        self.table: Tensor
        self.register_buffer("table", table)
        self.intervals_per_bin = intervals_per_bin
        self.time_axis = time_axis
        self.input_steps = input_steps
        self.horizon = horizon

    @classmethod
    def fit(
        cls,
        store: SeriesStore,
        train_rows: range,
        *,
        target_indices: tuple[int, ...],
        input_steps: int,
        horizon: int,
        sensors: NDArray[np.int64] | None = None,
    ) -> "HistoricalAverageForecaster":
        """Average the observed values of the training rows, a chunk at a time.

        Memory: 16 bytes per bin, node and target (exact: 20), whatever the length of the series.

        Args:
            store: the series.
            train_rows: the rows to average.
            target_indices: positions of the targets among the store's channels.
            input_steps: L, to find the target rows of a window.
            horizon: H.
            sensors: positions of the sensors to forecast; all if not given.

        Raises:
            DataError: if a target channel has no observed value in those rows.
        """
        num_bins = store.time_axis.num_season_bins
        merged = -(-num_bins // _MAX_WEEK_BINS)
        sums, counts = sum_by_bin(
            store,
            train_rows,
            target_indices,
            lambda rows: store.time_axis.season_bins(rows) // merged,
            -(-num_bins // merged),
            sensors=sensors,
        )
        of_channels = sums.sum(axis=0).sum(axis=0), counts.sum(axis=(0, 1))
        if sensors is not None:  # of all sensors, too
            moments, targets = store.moments(train_rows), list(target_indices)
            of_channels = (moments.mean * moments.count)[targets], moments.count[targets]
        for index, count in zip(target_indices, of_channels[1], strict=True):
            if count == 0:
                raise DataError(
                    f"channel {store.meta.channels[index]!r} has no observed reading in the "
                    f"training rows {train_rows.start} to {train_rows.stop - 1}: "
                    "choose another split"
                )
        bin_seconds = merged * (store.time_axis.interval_seconds or SECONDS_PER_DAY)
        whole_days = store.time_axis.num_week_bins > 1 and SECONDS_PER_DAY % bin_seconds == 0
        _fill_unobserved(sums, counts, of_channels, whole_days=whole_days)
        sums /= counts
        table = torch.from_numpy(sums.astype(store.codec.reading_dtype))
        return cls(table, merged, store.time_axis, input_steps=input_steps, horizon=horizon)

    @staticmethod
    def fit_bytes(store: SeriesStore, num_targets: int, num_nodes: int) -> int:
        """Memory that `fit` takes for that many targets and sensors."""
        num_bins = min(_MAX_WEEK_BINS, store.time_axis.num_season_bins)
        bytes_per_bin = 12 + store.codec.reading_dtype.itemsize  # sums, counts and the table
        return bytes_per_bin * num_bins * num_nodes * num_targets

    def forward(self, batch: Batch, *, step: int | None = None) -> BHNC:
        """The table's entries for the windows' target rows."""
        rows_BH = batch.starts[:, None] + self.input_steps + np.arange(self.horizon)
        bins_BH = self.time_axis.season_bins(rows_BH) // self.intervals_per_bin
        return self.table[to_device(bins_BH, self.table.device)]


def _fill_unobserved(
    sums: NDArray[np.float64],
    counts: NDArray[np.int32],
    of_channels: tuple[NDArray[Any], NDArray[Any]],
    *,
    whole_days: bool,
) -> None:
    """Give each bin without an observation the sums of the next wider average that has one."""
    node_sums, node_counts = sums.sum(axis=0), counts.sum(axis=0)
    all_sums, all_counts = of_channels
    empty = node_counts == 0
    node_sums[empty] = np.broadcast_to(all_sums, empty.shape)[empty]
    node_counts[empty] = np.broadcast_to(all_counts, empty.shape)[empty]
    bins_per_day = len(sums) // 7 if whole_days else len(sums)
    for day_bin in range(bins_per_day):
        same_time = slice(day_bin, None, bins_per_day)
        wider_sums, wider_counts = sums[same_time].sum(axis=0), counts[same_time].sum(axis=0)
        empty = wider_counts == 0
        wider_sums[empty], wider_counts[empty] = node_sums[empty], node_counts[empty]
        for week_bin in range(day_bin, len(sums), bins_per_day):
            empty = counts[week_bin] == 0
            sums[week_bin][empty] = wider_sums[empty]
            counts[week_bin][empty] = wider_counts[empty]
