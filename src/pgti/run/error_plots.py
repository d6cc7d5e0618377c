"""The figures of a run's errors and of its training, from what the run kept where it can be."""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from pgti.display import shorten
from pgti.errors import ConfigError
from pgti.figures import (
    Plots,
    error_by_horizon,
    graph_layout,
    graph_objects,
    heat_map,
    sensor_map,
    training_curves,
)
from pgti.forecasting import WEEKDAYS, Report, is_score, metric_label, step_heading
from pgti.store.typical import has_times_of_day
from pgti.windows import SplitName

if TYPE_CHECKING:
    from pgti.run.run import Run

__all__ = ["ErrorPlots", "Errors"]

Errors: TypeAlias = SplitName | Report
"""Whose errors to draw: a split, or what `run.evaluate` returned."""

_WEEK = "hour-of-week"
_METRICS = ("mae", "rmse", "mape")


class ErrorPlots(Plots):
    """The figures of a run's errors and of its training.

    Args:
        run: the run.
        are_panels: as `Plots` takes it.
    """

    def __init__(self, run: "Run", *, are_panels: bool = False) -> None:
        super().__init__(are_panels=are_panels)
        self._run = run

    def map(
        self,
        errors: Errors = "test",
        *,
        metric: str = "mae",
        channel: str | None = None,
        against: str | None = None,
    ) -> Any:
        """Sensors on a map, or laid out by their edges, colored by their errors.

        Args:
            errors: a split, whose errors are those that the run kept if it did; or what
                `run.evaluate` returned: of newer readings, of other times, with intervals.
            metric: "mae", "rmse", "mape", or another that the errors have.
            channel: the target; by default the first.
            against: a baseline, such as "persistence": color by the difference of the model's
                error from its error, which is negative where the model is better.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ConfigError: if there is no such split, metric, channel or baseline.
            MissingExtraError: if plotly is not installed.
        """
        graph_objects()
        report, target = self._errors(errors, "sensor", metric), self._target(channel)
        found, label = self._by_group(report, "sensor", metric, target, against)
        values = found.reindex(self._ids).to_numpy()
        graph = self._run.store.graph
        figure = sensor_map(
            graph_layout(graph.adjacency, graph.coordinates),
            self._ids,
            values,
            label=label,
            edges=graph.edge_index,
            weights=graph.edge_weight,
            is_difference=against is not None,
            title=self._title("by sensor", *report.splits),
        )
        return self._finish(figure)

    def hours(
        self,
        errors: Errors = "test",
        *,
        metric: str = "mae",
        channel: str | None = None,
        against: str | None = None,
    ) -> Any:
        """The error at each hour of each weekday, on the clock of the series.

        Args:
            errors: as in `map`.
            metric: as in `map`.
            channel: the target; by default the first.
            against: as in `map`.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ConfigError: as `map`; if a day has not several readings, at times that are known.
            MissingExtraError: if plotly is not installed.
        """
        graph_objects()
        if not has_times_of_day(self._run.store.time_axis):
            raise ConfigError(
                "the run's series has no hours: its times are unknown, or a day has one reading; "
                "run.plot.horizon() and run.plot.map() show its errors"
            )
        report, target = self._errors(errors, _WEEK, metric), self._target(channel)
        found, label = self._by_group(report, _WEEK, metric, target, against)
        table = np.full((len(WEEKDAYS), 24), np.nan)
        for name, value in found.items():
            day, hour = str(name).split()
            table[WEEKDAYS.index(day), int(hour[:2])] = value
        figure = heat_map(
            table,
            x=np.arange(24),
            y=WEEKDAYS,
            label=label,
            x_title="hour of the day",
            is_difference=against is not None,
            title=self._title("by hour", *report.splits),
        )
        return self._finish(figure)

    def horizon(
        self, errors: Errors = "test", *, metric: str = "mae", channel: str | None = None
    ) -> Any:
        """The error at each horizon step, of the model and of the baselines.

        Args:
            errors: as in `map`.
            metric: as in `map`.
            channel: the target; by default the first.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ConfigError: if there is no such split, metric or channel.
            MissingExtraError: if plotly is not installed.
        """
        graph_objects()
        report, target = self._errors(errors, None, metric), self._target(channel)
        frame = report.to_frame()
        frame = frame[frame["channel"] == self._channels[target]].dropna(subset=[metric])
        names = list(dict.fromkeys(frame["forecaster"]))
        lines = {name: _of_forecaster(frame, name).set_index("horizon")[metric] for name in names}
        steps = sorted(set(frame["horizon"]))
        figure = error_by_horizon(
            [step_heading(step, report.interval_seconds) for step in steps],
            {name: line.reindex(steps).to_numpy() for name, line in lines.items()},
            label=self._error_label(metric, target),
            first=report.model,
            title=self._title("by horizon", *report.splits),
        )
        return self._finish(figure)

    def history(self) -> Any:
        """The loss of training and the validation MAE at the end of each epoch.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ConfigError: if no epoch was validated yet.
            MissingExtraError: if plotly is not installed.
        """
        graph_objects()
        frame = self._run.history
        if not len(frame):
            raise ConfigError("the run has no curves: no epoch of it was validated yet")
        kind = self._run.config.training.loss.kind
        loss = "training" if kind == "mae" else f"training: {kind} loss"
        unit = self._error_label("mae", 0)
        figure = training_curves(
            frame["epoch"],
            {loss: frame["train_loss"], "validation": frame["val_mae"]},
            label=unit if kind == "mae" else f"{unit}; loss",
            best=frame["epoch"][int(frame["val_mae"].argmin())],
            title=self._title("training"),
        )
        return self._finish(figure)

    @property
    def _ids(self) -> tuple[str, ...]:
        return self._run.store.meta.node_ids

    @property
    def _channels(self) -> tuple[str, ...]:
        return self._run.source.target_names

    def _sensor(self, sensor: str | None) -> int:
        """Position of a sensor."""
        wanted = self._ids[0] if sensor is None else str(sensor)
        if wanted not in self._ids:
            raise ConfigError(f"there is no sensor {wanted!r}: the store has {shorten(self._ids)}")
        return self._ids.index(wanted)

    def _target(self, channel: str | None) -> int:
        """Position of a target channel."""
        wanted = self._channels[0] if channel is None else channel
        if wanted not in self._channels:
            has = shorten(self._channels)
            raise ConfigError(f"there is no target {wanted!r}: the targets of this run are {has}")
        return self._channels.index(wanted)

    def _reading(self, target: int) -> str:
        """A target with its unit: "speed in mph"."""
        name = self._channels[target]
        unit = self._run.source.target_units[name]
        return f"{name} in {unit}" if unit else name

    def _error_label(self, metric: str, target: int) -> str:
        """A metric with its unit: "MAE of speed in mph", "MAPE of speed in %"."""
        label, name = metric_label(metric), self._channels[target]
        if metric == "mape" or metric.startswith("coverage_"):
            return f"{label.removesuffix(' %')} of {name} in %"
        has_unit = metric in ("mae", "rmse") or is_score(metric)
        return f"{label} of {self._reading(target) if has_unit else name}"

    def _title(self, what: str, split: str | None = None) -> str:
        name = self._run.config.model.name
        return f"{name}, {what}" + (f", {split}" if split else "")

    def _by_group(
        self, report: Report, breakdown: str, metric: str, target: int, against: str | None
    ) -> tuple["pd.Series[float]", str]:
        """A metric of each group, or its difference from a baseline's, and what that is."""
        frame = report.by(breakdown)
        frame = frame[frame["channel"] == self._channels[target]].set_index(breakdown)
        values, label = (
            _of_forecaster(frame, report.model)[metric],
            self._error_label(metric, target),
        )
        if against is None:
            return values, label
        if against not in report.baselines:
            known = ", ".join(report.baselines)
            raise ConfigError(f"there is no baseline {against!r}: the errors have {known}")
        return values - _of_forecaster(frame, against)[metric], f"{label}, less that of {against}"

    def _errors(self, errors: Errors, breakdown: str | None, metric: str) -> Report:
        """Errors of one split that have a metric, kept by the run or evaluated."""
        run = self._run
        if isinstance(errors, Report):
            if len(errors.splits) > 1:
                raise ConfigError(
                    f"the errors are those of the splits {', '.join(errors.splits)}: choose one, "
                    f"such as report[{errors.splits[0]!r}]"
                )
            return _require_metric(errors, metric)
        stored = run.read_test() if errors == "test" else None
        if (
            stored is not None
            and metric in stored.metrics
            and (breakdown is None or breakdown in stored.breakdowns)
        ):
            return stored
        if metric not in (*_METRICS, *run.metrics):
            known = ", ".join((*_METRICS, *run.metrics))
            raise ConfigError(
                f"metric {metric!r} is not one that the run computes by itself ({known}): give "
                "what run.evaluate returns with it, such as run.evaluate(intervals=(0.8,))"
            )
        return run.evaluate(errors)


def _require_metric(report: Report, metric: str) -> Report:
    if metric not in report.metrics:
        raise ConfigError(
            f"metric {metric!r} was not computed: the report has {', '.join(report.metrics)}"
        )
    return report


def _of_forecaster(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    return frame[frame["forecaster"] == name]
