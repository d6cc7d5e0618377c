"""A first picture of a run: forecasts beside observations, and errors beside baselines."""

from typing import Any

import numpy as np

from pgti.batching import BatchLoader, WindowSource
from pgti.display import shorten
from pgti.errors import ConfigError, require_whole_number
from pgti.figures import COLORS, graph_objects
from pgti.forecasting import (
    AbstractForecaster,
    ForecastLabels,
    Report,
    forecast_blocks,
    step_heading,
)

__all__ = ["plot_run"]


def plot_run(
    report: Report,
    forecaster: AbstractForecaster,
    source: WindowSource,
    loader: BatchLoader,
    *,
    sensor: str | None = None,
    step: int | None = None,
) -> Any:
    """Two panels: a sensor's forecasts and observations, and the error at each horizon step.

    Args:
        report: of one split.
        forecaster: whose forecasts to show.
        source: of the windows.
        loader: consecutive windows of the split, W in all.
        sensor: its id; by default the first.
        step: the horizon step of the forecasts, from 1; by default the last.

    Returns:
        A `plotly.graph_objects.Figure`.

    Raises:
        ConfigError: if there is no such sensor or step.
        MissingExtraError: if plotly is not installed.
    """
    horizon, node_ids = source.spec.horizon, source.store.meta.node_ids
    step = horizon if step is None else step
    require_whole_number("step", step, 1)
    if step > horizon:
        raise ConfigError(f"step is {step}: the horizon has the steps 1 to {horizon}")
    sensor = node_ids[0] if sensor is None else str(sensor)
    if sensor not in node_ids:
        raise ConfigError(f"there is no sensor {sensor!r}: the store has {shorten(node_ids)}")
    channel = source.target_names[0]
    labels = ForecastLabels.of_source(source)
    node = node_ids.index(sensor)
    blocks = [
        (block.timestamps[:, step - 1], block.observed[:, step - 1, node, 0],
         block.forecast[:, step - 1, node, 0])
        for block in forecast_blocks(forecaster, loader.epoch(0), labels)
    ]  # fmt: skip
    times, observed, forecast = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    graphs = graph_objects()
    unit = report.units[channel]
    label = f"{channel} in {unit}" if unit else channel
    heading = step_heading(step, report.interval_seconds)
    figure = graphs.Figure()
    for name, values, color in (
        ("observed", observed, COLORS["observed"]),
        (f"forecast {heading} ahead", forecast, COLORS["model"]),
    ):
        figure.add_scatter(x=times, y=values, name=name, line={"color": color, "width": 1.5})
    errors = report.to_frame()
    only = errors[errors["channel"] == channel]
    for name in only["forecaster"].unique():
        rows = only[only["forecaster"] == name]
        figure.add_scatter(
            x=[step_heading(each, report.interval_seconds) for each in rows["horizon"]],
            y=rows["mae"],
            name=f"MAE of {name}",
            mode="lines+markers",
            line={"color": COLORS.get(name, COLORS["model"])},
            xaxis="x2",
            yaxis="y2",
        )
    figure.update_layout(
        title=f"{report.model} at sensor {sensor}, {report.splits[0]} split",
        xaxis={"domain": [0, 0.6], "title": "time"},
        yaxis={"title": label},
        xaxis2={"domain": [0.7, 1], "anchor": "y2", "title": "horizon"},
        yaxis2={"anchor": "x2", "title": f"MAE, {label}", "rangemode": "tozero"},
        legend={"orientation": "h", "y": -0.2},
        template="plotly_white",
    )
    return figure
