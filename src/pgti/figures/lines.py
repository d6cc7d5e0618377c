"""Lines: a series with its forecasts and intervals, errors by horizon, curves of a training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pgti.figures.theme import color_of, escape_text, new_figure

__all__ = ["error_by_horizon", "series_lines", "training_curves"]

_WIDTH = 1.6


def series_lines(
    times: Sequence[Any] | ArrayLike,
    lines: Mapping[str, ArrayLike],
    *,
    label: str,
    bands: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    x: str = "time",
    title: str = "",
    height: int = 360,
) -> Any:
    """Series over one time axis, with intervals as bands beneath them.

    Args:
        times: of the values, [T]: dates, texts in ISO 8601 or numbers.
        lines: the values of each line by its name, [T], NaN where there is none; "observed" and
            "forecast ..." have colors of their own.
        label: what the values are, with their unit.
        bands: lower and upper end of each interval by its name, [T], the widest first.
        x: title of the horizontal axis.
        title: of the figure.
        height: in pixels.

    Returns:
        A `plotly.graph_objects.Figure`.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    figure = new_figure(title, x=x, y=label, height=height, hovermode="x unified")
    along = list(times) if isinstance(times, Sequence) else np.asarray(times)
    for index, (name, ends) in enumerate((bands or {}).items()):
        for end, values in zip(("low", "high"), ends, strict=True):
            figure.add_scatter(
                x=along,
                y=np.asarray(values),
                mode="lines",
                line={"width": 0},
                fill="tonexty" if end == "high" else None,
                fillcolor=_faint(index),
                name=escape_text(name),
                legendgroup=f"band {index}",
                showlegend=end == "high",
                hoverinfo="skip",
            )
    forecasts = [name for name in lines if name.startswith("forecast")]
    for position, (name, values) in enumerate(lines.items()):
        role = "model" if name in forecasts[:1] else name
        place = forecasts.index(name) if name in forecasts else position
        figure.add_scatter(
            x=along,
            y=np.asarray(values),
            mode="lines",
            line={"color": color_of(role, place), "width": _WIDTH},
            hovertemplate="%{y:.4~g}",
            name=escape_text(name),
        )
    return figure


def error_by_horizon(
    headings: Sequence[str],
    errors: Mapping[str, ArrayLike],
    *,
    label: str,
    spreads: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    first: str | None = None,
    title: str = "",
    height: int = 340,
) -> Any:
    """Errors at each horizon step, a line for each forecaster.

    Args:
        headings: of the steps, [H], such as "15 min".
        errors: of each forecaster by its name, [H], NaN where there is none.
        label: what the errors are, with their unit.
        spreads: smallest and largest error of forecasters that stand for several, [H] each.
        first: the forecaster that is drawn as the model, thicker than the others.
        title: of the figure.
        height: in pixels.

    Returns:
        A `plotly.graph_objects.Figure`.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    figure = new_figure(title, x="forecast horizon", y=label, height=height)
    steps = [escape_text(each) for each in headings]
    for position, (name, values) in enumerate(errors.items()):
        color = color_of("model" if name == first else name, position)
        for end, ends in zip(("low", "high"), (spreads or {}).get(name, ()), strict=False):
            figure.add_scatter(
                x=steps,
                y=np.asarray(ends),
                mode="lines",
                line={"width": 0, "color": color},
                fill="tonexty" if end == "high" else None,
                fillcolor=_with_alpha(color, 0.2),
                hoverinfo="skip",
                showlegend=False,
            )
        figure.add_scatter(
            x=steps,
            y=np.asarray(values),
            mode="lines+markers",
            line={"color": color, "width": 2.4 if name == first else _WIDTH},
            marker={"size": 5},
            hovertemplate="%{x}: %{y:.4~g}",
            name=escape_text(name),
        )
    figure.update_xaxes(type="category", tickangle=0, nticks=6)
    figure.update_yaxes(rangemode="tozero")
    return figure


def training_curves(
    epochs: ArrayLike,
    curves: Mapping[str, ArrayLike],
    *,
    label: str,
    best: float | None = None,
    title: str = "",
    height: int = 320,
) -> Any:
    """What a training measured at the end of each epoch.

    Args:
        epochs: [E].
        curves: values of each curve by its name, [E]; "training" and "validation" have colors of
            their own.
        label: what the values are, with their unit.
        best: the epoch whose parameters were kept, which is marked.
        title: of the figure.
        height: in pixels.

    Returns:
        A `plotly.graph_objects.Figure`.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    figure = new_figure(title, x="epoch", y=label, height=height)
    for position, (name, values) in enumerate(curves.items()):
        figure.add_scatter(
            x=np.asarray(epochs),
            y=np.asarray(values),
            mode="lines+markers",
            line={"color": color_of(name, position), "width": _WIDTH},
            marker={"size": 5},
            hovertemplate="epoch %{x}: %{y:.4~g}",
            name=escape_text(name),
        )
    if best is not None:
        figure.add_vline(x=best, line={"dash": "dot", "width": 1, "color": "#7a7a7a"})
        figure.add_annotation(
            x=best, y=1, yref="paper", yanchor="top", xanchor="left", showarrow=False, text=" best"
        )
    figure.update_xaxes(dtick=max(1, -(-np.size(epochs) // 8)), tickformat="d")
    return figure


def _faint(index: int) -> str:
    """Colors of bands: the first, the widest, is the faintest."""
    return _with_alpha("#56B4E9", min(0.25 + 0.2 * index, 0.8))


def _with_alpha(color: str, alpha: float) -> str:
    red, green, blue = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"
