"""The forecast that a calendar can give: the mean of the same time of day and week so far."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching import Batch
from pgti.errors import DataError
from pgti.forecasting.baselines import HistoricalAverage
from pgti.forecasting.forecaster import AbstractForecaster
from pgti.shapes import BHNC
from pgti.store import SeriesStore, TimeAxis, slot_sums
from pgti.store.time_axis import SECONDS_PER_DAY

__all__ = ["HistoricalAverageForecaster"]

_MAX_SLOTS = 2016
"""Slots of a week at most: five minutes each. A finer series is averaged over that."""


class HistoricalAverageForecaster(AbstractForecaster):
    """Forecasts the mean training reading of the same sensor and slot of the week.

    Make one with `fit`. Where a sensor was never observed in a slot, the mean of the slot of the
    day, then of the sensor, then of the channel stands in. Without times, the sensor's mean.

    Args:
        rule: mean of each slot, node and target, in original units.
        slots_merged: intervals of the series that share a slot.
        time_axis: says in which slot a row lies.
        input_steps: L, to find the target rows of a window.
        horizon: H.
    """

    def __init__(
        self,
        rule: HistoricalAverage,
        slots_merged: int,
        time_axis: TimeAxis,
        *,
        input_steps: int,
        horizon: int,
    ) -> None:
        super().__init__()
        self.rule = rule
        self.slots_merged = slots_merged
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
    ) -> "HistoricalAverageForecaster":
        """Average the observed readings of the training rows, a chunk at a time.

        Memory: 16 bytes per slot, node and target, whatever the length of the series.

        Args:
            store: the series.
            train_rows: rows that may be learnt from.
            target_indices: positions of the targets among the store's channels.
            input_steps: L, to find the target rows of a window.
            horizon: H.

        Raises:
            DataError: if a target channel has no observed reading in those rows.
        """
        num_week_bins = store.time_axis.num_week_bins
        merged = -(-num_week_bins // _MAX_SLOTS)
        num_bins = -(-num_week_bins // merged)
        sums, counts = slot_sums(
            store,
            train_rows,
            target_indices,
            lambda rows: store.time_axis.slot_of_week(rows) // merged,
            num_bins,
        )
        per_channel = counts.sum(axis=(0, 1))
        for index, count in zip(target_indices, per_channel, strict=True):
            if count == 0:
                raise DataError(
                    f"channel {store.meta.channels[index]!r} has no observed reading in the "
                    f"training rows {train_rows.start} to {train_rows.stop - 1}: "
                    "choose another split"
                )
        slot_seconds = merged * (store.time_axis.interval_seconds or SECONDS_PER_DAY)
        whole_days = num_week_bins > 1 and SECONDS_PER_DAY % slot_seconds == 0
        _fill_unobserved(sums, counts, whole_days=whole_days)
        sums /= counts
        return cls(
            HistoricalAverage(torch.from_numpy(sums.astype(np.float32))),
            merged,
            store.time_axis,
            input_steps=input_steps,
            horizon=horizon,
        )

    @staticmethod
    def fit_bytes(store: SeriesStore, num_targets: int) -> int:
        """Memory that `fit` takes for that many targets."""
        week_bins = min(_MAX_SLOTS, store.time_axis.num_week_bins)
        return 16 * week_bins * store.meta.num_nodes * num_targets

    def forward(self, batch: Batch, *, step: int | None = None) -> BHNC:
        """The table's entries for the windows' target rows."""
        rows_BH = batch.starts[:, None] + self.input_steps + np.arange(self.horizon)
        slots_BH = self.time_axis.slot_of_week(rows_BH) // self.slots_merged
        forecast: Tensor = self.rule(torch.from_numpy(slots_BH).to(self.rule.table.device))
        return forecast


def _fill_unobserved(
    sums: NDArray[np.float64], counts: NDArray[np.int32], *, whole_days: bool
) -> None:
    """Give each slot without a reading the sums of the next wider average that has one."""
    node_sums, node_counts = sums.sum(axis=0), counts.sum(axis=0)
    all_sums, all_counts = node_sums.sum(axis=0), node_counts.sum(axis=0)
    empty = node_counts == 0
    node_sums[empty] = np.broadcast_to(all_sums, empty.shape)[empty]
    node_counts[empty] = np.broadcast_to(all_counts, empty.shape)[empty]
    bins_per_day = len(sums) // 7 if whole_days else len(sums)
    for slot in range(bins_per_day):
        same_time = slice(slot, None, bins_per_day)
        wider_sums, wider_counts = sums[same_time].sum(axis=0), counts[same_time].sum(axis=0)
        empty = wider_counts == 0
        wider_sums[empty], wider_counts[empty] = node_sums[empty], node_counts[empty]
        for day_slot in range(slot, len(sums), bins_per_day):
            empty = counts[day_slot] == 0
            sums[day_slot][empty] = wider_sums[empty]
            counts[day_slot][empty] = wider_counts[empty]
