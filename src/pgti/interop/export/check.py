"""Windows on which an exported program is compared with the run: real ones, with missing readings.

Their readings are those of the run's store, or where that is gone what is typical of its sensors;
some more are taken away. The run forecasts them as it does anything: from a store, by its batches.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pgti.batching import WindowSource, build_batcher
from pgti.forecasting import NetworkForecaster
from pgti.interop.export.interface import ProgramInterface
from pgti.store import SeriesStore, TimeAxis, calendar_features

__all__ = ["CheckedWindows"]

_NUM_WINDOWS = 3
_MISSING = 0.05  # of the readings are taken away


class CheckedWindows:
    """A few windows: what the program is given for them, and what the run forecasts.

    Args:
        source: what the windows of the run hold.
        forecaster: of the run.
        interface: of the program.

    Attributes:
        inputs: arrays by name, of all windows.
        expected: the run's forecasts, by name of the outputs.
    """

    def __init__(
        self, source: WindowSource, forecaster: NetworkForecaster, interface: ProgramInterface
    ) -> None:
        self._source = replace(source, store=_piece(source))
        last = self._source.store.meta.num_steps - source.spec.span
        starts = np.array([last, last // 2, 0])[-_NUM_WINDOWS:]
        self.inputs = {name: self._input(name, starts, interface) for name in interface.names}
        batcher = build_batcher("index", self._source, forecaster.mean.device)
        with torch.inference_mode():
            prediction = forecaster.predict(batcher.gather(starts))
        given = {"forecast": prediction.point, "quantiles": prediction.quantiles}
        self.expected = {
            each.name: values.cpu().numpy()
            for each in interface.outputs
            if (values := given[each.name]) is not None
        }

    def difference(self, outputs: list[NDArray[Any]], windows: slice = slice(None)) -> float:
        """The largest difference of outputs, of some windows, from what the run forecasts.

        It is relative to the scale of a target: the larger of the standard deviation of its
        training readings and the largest forecast here. Infinite where a shape or a number is
        missing.
        """
        worst = 0.0
        for found, expected in zip(outputs, self.expected.values(), strict=True):
            wanted = expected[windows]
            if found.shape != wanted.shape or not np.isfinite(found).all():
                return float("inf")
            scaler, targets = self._source.scaler, self._source.target_indices
            for place, target in enumerate(targets):
                each = wanted[:, :, :, place]
                scale = max(scaler.std[target], float(np.abs(each).max()))
                apart = np.abs(found[:, :, :, place].astype(np.float64) - each).max()
                worst = max(worst, float(apart) / scale)
        return worst

    def _input(
        self, name: str, starts: NDArray[np.int64], interface: ProgramInterface
    ) -> NDArray[Any]:
        source, store, spec = self._source, self._source.store, self._source.spec
        raw: NDArray[Any] = store.raw
        axis = store.time_axis
        rows = starts[:, None] + np.arange(spec.span)
        if name == "times":
            return _wall_seconds(axis, rows)
        if name == "holidays":
            return calendar_features(axis, interface.holidays, rows)
        if name == "future":
            return np.ascontiguousarray(raw[rows[:, spec.input_steps :]][..., source.known_indices])
        if name == "readings":
            return np.ascontiguousarray(raw[rows[:, : spec.input_steps]][..., interface.channels])
        earlier, begins = starts[:, None] + spec.history_offsets, source.history_begins(starts)
        is_there = earlier >= begins[:, None]
        if name == "history":
            values = raw[np.where(is_there, earlier, 0)][..., interface.channels]
            return np.where(is_there[..., None, None], values, np.nan).astype(values.dtype)
        times = _wall_seconds(axis, np.maximum(earlier, begins[:, None]))
        for window, begin in enumerate(begins.tolist()):
            count = int((~is_there[window]).sum())
            if count:
                reach = begin - int(earlier[window, 0])
                before = _wall_seconds(axis.before(begin, reach), np.arange(reach))
                times[window, :count] = before[earlier[window, :count] - int(earlier[window, 0])]
        return times


def _wall_seconds(axis: TimeAxis, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return axis.at(rows).astype("datetime64[s]").astype(np.int64)


def _piece(source: WindowSource) -> SeriesStore:
    """A few rows of the series, or rows like them, some readings of which are missing."""
    spec, meta, random = source.spec, source.store.meta, np.random.default_rng(0)
    num_rows = -spec.reach.start + spec.span + _NUM_WINDOWS
    first = max(0, meta.num_steps - num_rows)
    has_rows = meta.num_steps >= spec.span
    rows = np.arange(first, min(first + num_rows, meta.num_steps) if has_rows else num_rows)
    axis = source.store.time_axis
    seconds = axis.seconds_at(rows) if axis.is_dated else None
    axis = replace(
        axis,
        num_steps=len(rows),
        start_seconds=None if seconds is None else int(seconds[0]),
        seconds=None if axis.seconds is None and axis.rule is None else seconds,
    )
    values = source.store.read(int(rows[0]), int(rows[-1]) + 1) if has_rows else None
    if values is None:
        values = _made_readings(source, axis, random)
    values = values.copy()
    values[random.random(values.shape) < _MISSING] = np.nan
    values[-spec.span :, 0] = np.nan  # a sensor without any reading in the last window
    return SeriesStore.in_memory(
        values,
        source.store.graph,
        axis,
        node_ids=meta.node_ids,
        channels=meta.channels,
        units=meta.units,
        known_future=meta.known_future,
        static=source.store.static_features,
        name="the windows of the check",
        exact=source.is_exact,
    )


def _made_readings(
    source: WindowSource, axis: TimeAxis, random: np.random.Generator
) -> NDArray[Any]:
    """Readings like those of training, [rows, N, C]."""
    meta, typical = source.store.meta, source.typical
    shape = (axis.num_steps, meta.num_nodes, meta.num_channels)
    mean, std = np.array(source.scaler.mean), np.array(source.scaler.std)
    usual: Any = mean
    if typical is not None:
        usual = typical.table[typical.bins(axis, np.arange(axis.num_steps))]
    elif source.offsets is not None:
        usual = source.offsets
    return np.asarray(usual + 0.3 * std * random.normal(size=shape))
