"""The figures of a run: `run.plot()`, `run.plot.forecast(...)` and the others."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from pgti.errors import ConfigError, require_whole_number
from pgti.figures import graph_objects, series_lines, stack_figures
from pgti.forecasting import AbstractForecaster, ForecastLabels, step_heading
from pgti.run.error_plots import ErrorPlots
from pgti.run.intervals import known_levels
from pgti.run.newer import NewerReadings
from pgti.run.selection import SelectedWindows, Selection, TimeLike
from pgti.run.sensor_forecasts import collect_forecasts, wall_times
from pgti.windows import SplitName

__all__ = ["RunPlots"]

_SHOWN = 288  # windows of a split: a day of five minutes


class RunPlots(ErrorPlots):
    """The figures of a run; each needs plotly, the extra `report`."""

    def __call__(
        self,
        sensor: str | None = None,
        *,
        split: SplitName = "test",
        step: int | None = None,
        max_windows: int | None = None,
    ) -> Any:
        """A first look: forecasts of a sensor, errors by horizon, and a map of errors.

        Args:
            sensor: as in `forecast`.
            split: whose windows and errors to show.
            step: as in `forecast`.
            max_windows: as in `forecast`.

        Returns:
            A `plotly.graph_objects.Figure` with a panel below the other.

        Raises:
            PgtiError: as the methods of the panels.
        """
        graph_objects()  # a missing library is known before the work
        alone = RunPlots(self._run, are_panels=True)
        first = alone.forecast(sensor, split=split, step=step, max_windows=max_windows)
        report = self._errors(split, "sensor", "mae")
        panels = [first, alone.horizon(report)]
        if len(self._ids) > 1:
            panels.append(alone.map(report))
        return stack_figures(panels)

    def forecast(
        self,
        sensor: str | None = None,
        *,
        channel: str | None = None,
        split: SplitName | None = None,
        between: tuple[TimeLike, TimeLike] | None = None,
        step: int | None = None,
        intervals: Sequence[float] | None = None,
        max_windows: int | None = None,
    ) -> Any:
        """Forecasts of a sensor some steps ahead beside what was observed, with intervals.

        Args:
            sensor: its id; by default the first.
            channel: the target; by default the first.
            split: the windows to show; by default "test".
            between: those whose first forecast step lies between two wall-clock times instead.
            step: the horizon step of the forecasts, from 1; by default the last.
            intervals: probabilities of conformal intervals, as in `run.evaluate`; by default those
                that the run was calibrated for, or those between its quantiles. () asks for none.
            max_windows: the last windows at most: by default 288 of a split, and all between times.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ConfigError: if there is no such sensor, channel, split or step, or no window.
            MissingExtraError: if plotly is not installed.
            RunError: if the run's own series is needed and its store is gone.
        """
        graph_objects()
        horizon = self._run.source.spec.horizon
        step = horizon if step is None else step
        require_whole_number("step", step, 1)
        if step > horizon:
            raise ConfigError(f"step is {step}: the horizon has the steps 1 to {horizon}")
        if max_windows is not None:
            require_whole_number("max_windows", max_windows, 1)
        node, target = self._sensor(sensor), self._target(channel)
        if between is None:
            split, max_windows = split or "test", max_windows or _SHOWN
        selection = Selection(split=split, between=between, last=max_windows)
        with self._forecasts(selection, intervals) as (selected, forecaster):
            found = collect_forecasts(
                selected, forecaster, sensors=(node,), channel=target, steps=(step,)
            )
        heading = step_heading(step, self._run.store.time_axis.step_seconds)
        observed, forecast = found.observed[:, 0, 0], found.forecast[:, 0, 0]
        figure = series_lines(
            found.times[:, 0],
            {"observed": observed, f"forecast {heading} ahead": forecast},
            label=self._reading(target),
            bands={
                name: (low[:, 0, 0], high[:, 0, 0]) for name, (low, high) in found.bands.items()
            },
            x=_time_title(selected.labels),
            title=self._title(f"sensor {self._ids[node]}", split),
        )
        return self._finish(figure)

    def latest(
        self,
        sensor: str | None = None,
        readings: NewerReadings | None = None,
        *,
        channel: str | None = None,
        intervals: Sequence[float] | None = None,
    ) -> Any:
        """The forecast of the steps after the last reading of a sensor, and what came before.

        Args:
            sensor: its id; by default the first.
            readings: newer readings to forecast from, as in `run.forecast`; by default those of the
                run's store as it is now.
            channel: the target; by default the first.
            intervals: as in `forecast`.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ConfigError: if there is no such sensor or channel, or nothing to forecast from.
            DataError: if the newer readings are not of the run's sensors, channels and interval.
            MissingExtraError: if plotly is not installed.
            RunError: if the run's own series is needed and its store is gone.
        """
        graph_objects()
        node, target = self._sensor(sensor), self._target(channel)
        spec = self._run.source.spec
        with self._forecasts(Selection(readings=readings), intervals) as (selected, forecaster):
            found = collect_forecasts(
                selected,
                forecaster,
                sensors=(node,),
                channel=target,
                steps=range(1, spec.horizon + 1),
            )
            store, labels = selected.source.store, selected.labels
            stop = selected.first + spec.input_steps
            rows = np.arange(max(0, stop - max(spec.input_steps, 4 * spec.horizon)), stop)
            index = selected.source.target_indices[target]
            observed = store.read(int(rows[0]), stop)[:, node, index]
            heading = step_heading(spec.horizon, store.time_axis.step_seconds)
        known = rows if labels.numbered else wall_times(labels.timestamps(rows), labels)
        ahead = np.full(spec.horizon, np.nan)
        past = np.full(len(rows), np.nan)
        figure = series_lines(
            np.concatenate([known, found.times[0]]),
            {
                "observed": np.concatenate([observed, ahead]),
                "forecast": np.concatenate([past, found.forecast[0, :, 0]]),
            },
            label=self._reading(target),
            bands={
                name: tuple(np.concatenate([past, end[0, :, 0]]) for end in ends)  # type: ignore[misc] # two
                for name, ends in found.bands.items()
            },
            x=_time_title(labels),
            title=self._title(f"sensor {self._ids[node]}, next {heading}"),
        )
        return self._finish(figure)

    @contextmanager
    def _forecasts(
        self, selection: Selection, intervals: Sequence[float] | None
    ) -> Iterator[tuple[SelectedWindows, AbstractForecaster]]:
        """Windows, and what forecasts them with the intervals to show."""
        levels = known_levels(self._run) if intervals is None else intervals
        with self._run._select(selection, levels) as (selected, forecaster, _):
            yield selected, forecaster


def _time_title(labels: ForecastLabels) -> str:
    """What the axis of times shows: rows where they are not known."""
    return "row" if labels.numbered else labels.time_axis.title
