"""Pictures of a search of options: errors by trial, by epoch and by option."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pgti.figures.theme import escape_text, graph_objects, new_figure

__all__ = [
    "option_importance",
    "option_slices",
    "parallel_options",
    "search_curves",
    "search_history",
]

_STATES = {
    "complete": ("#0072B2", "circle"),
    "pruned": ("#999999", "circle-open"),
    "failed": ("#D55E00", "x"),
    "running": ("#009E73", "diamond-open"),
}


def search_history(
    numbers: ArrayLike, errors: ArrayLike, states: Sequence[str], *, label: str, height: int = 340
) -> Any:
    """The error of each trial by its number, and the best of the complete ones so far.

    Args:
        numbers: [K].
        errors: [K]; NaN where a trial has none, which is left out.
        states: of each trial: "complete", "pruned", "failed" or "running".
        label: what the errors are, with their unit.
        height: in pixels.

    Returns:
        A `plotly.graph_objects.Figure`.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    x, y, state = np.asarray(numbers), np.asarray(errors, dtype=float), np.asarray(states)
    figure = new_figure(x="trial", y=label, height=height)
    for name, (color, symbol) in _STATES.items():
        chosen = (state == name) & np.isfinite(y)
        if chosen.any():
            figure.add_scatter(
                x=x[chosen],
                y=y[chosen],
                mode="markers",
                marker={"color": color, "symbol": symbol, "size": 8},
                hovertemplate="trial %{x}: %{y:.4~f}",
                name=name,
            )
    complete = (state == "complete") & np.isfinite(y)
    if complete.any():
        figure.add_scatter(
            x=x[complete],
            y=np.minimum.accumulate(y[complete]),
            mode="lines",
            line={"shape": "hv", "color": "#0072B2", "width": 1.5},
            hoverinfo="skip",
            name="best so far",
        )
    figure.update_xaxes(tickformat="d", dtick=max(1, -(-x.size // 10)))
    return figure


def search_curves(
    curves: Mapping[int, Mapping[int, float]],
    states: Mapping[int, str],
    *,
    best: int,
    label: str,
    height: int = 360,
) -> Any:
    """The error of each trial by epoch; those that were pruned end early.

    Args:
        curves: error by epoch, by the number of the trial.
        states: by the number of the trial.
        best: number of the best trial.
        label: what the errors are, with their unit.
        height: in pixels.

    Returns:
        A `plotly.graph_objects.Figure`.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    figure = new_figure(x="epoch", y=label, height=height)
    shown: set[str] = set()
    for number, curve in sorted(curves.items(), key=lambda each: each[0] == best):
        name = "best trial" if number == best else states[number]
        color = "#E69F00" if number == best else _STATES[states[number]][0]
        figure.add_scatter(
            x=list(curve),
            y=list(curve.values()),
            mode="lines+markers",
            line={"color": color, "width": 3 if number == best else 1},
            marker={"size": 6 if number == best else 4},
            opacity=1 if number == best else 0.6,
            hovertemplate=f"trial {number}, epoch %{{x}}: %{{y:.4~f}}<extra></extra>",
            name=name,
            legendgroup=name,
            showlegend=name not in shown,
        )
        shown.add(name)
    longest = max((len(curve) for curve in curves.values()), default=1)
    figure.update_xaxes(tickformat="d", dtick=max(1, -(-longest // 10)))
    return figure


def option_slices(
    option: str,
    values: Sequence[Any],
    errors: ArrayLike,
    states: Sequence[str],
    *,
    label: str,
    is_log: bool = False,
    height: int = 280,
) -> Any:
    """The error of each trial by the value of one option.

    Args:
        option: its name.
        values: of each trial, [K]; text stands for categories.
        errors: [K].
        states: of each trial.
        label: what the errors are, with their unit.
        is_log: whether the axis of the option is logarithmic.
        height: in pixels.

    Returns:
        A `plotly.graph_objects.Figure`.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    y, state = np.asarray(errors, dtype=float), np.asarray(states)
    figure = new_figure(x=option, y=label, height=height)
    shown = [escape_text(each) if isinstance(each, str) else each for each in values]
    for name, (color, symbol) in _STATES.items():
        chosen = np.flatnonzero((state == name) & np.isfinite(y)).tolist()
        if chosen:
            figure.add_scatter(
                x=[shown[index] for index in chosen],
                y=y[chosen],
                mode="markers",
                marker={"color": color, "symbol": symbol, "size": 8},
                hovertemplate="%{x}: %{y:.4~f}",
                name=name,
            )
    if any(isinstance(each, str | bool) for each in values):
        figure.update_xaxes(type="category")
    elif all(isinstance(each, int) for each in values):
        width = max(values, default=0) - min(values, default=0)
        figure.update_xaxes(tickformat="d", dtick=max(1, -(-width // 8)))
    elif is_log:
        figure.update_xaxes(type="log", dtick=1, exponentformat="power")
    return figure


def option_importance(shares: Mapping[str, float], *, height: int | None = None) -> Any:
    """How much of the spread of the errors each option explains.

    Args:
        shares: of each option by its name, together 1.
        height: in pixels; by default as much as the bars need.

    Returns:
        A `plotly.graph_objects.Figure`.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    names = sorted(shares, key=lambda each: shares[each])
    figure = new_figure(
        x="share of the spread of errors (%)", height=height or 90 + 30 * len(names)
    )
    figure.add_bar(
        y=[escape_text(each.rpartition(".")[2]) for each in names],
        x=[100 * shares[each] for each in names],
        orientation="h",
        marker={"color": "#0072B2"},
        hovertemplate="%{y}: %{x:.1f} %<extra></extra>",
    )
    figure.update_layout(bargap=0.3, showlegend=False)
    return figure


def parallel_options(
    options: Mapping[str, Sequence[Any]],
    errors: ArrayLike,
    *,
    label: str,
    logs: Sequence[str] = (),
    height: int = 380,
) -> Any:
    """A line for each trial through the values of its options to its error.

    Args:
        options: values by name, [K] each.
        errors: [K], finite.
        label: what the errors are, with their unit.
        logs: names of the options that have a logarithmic axis.
        height: in pixels.

    Returns:
        A `plotly.graph_objects.Figure`.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    y = np.asarray(errors, dtype=float)
    axes = [_parallel_axis(name, values, name in logs) for name, values in options.items()]
    axes.append({"label": escape_text(label), "values": y})
    figure = new_figure(height=height)
    figure.add_trace(
        graph_objects().Parcoords(
            dimensions=axes,
            line={"color": y, "colorscale": "Cividis", "reversescale": True, "showscale": False},
            labelangle=-20,
        )
    )
    figure.update_layout(margin={"l": 64, "r": 64, "t": 100, "b": 24})
    return figure


def _parallel_axis(name: str, values: Sequence[Any], is_log: bool) -> dict[str, Any]:
    label = escape_text(name.rpartition(".")[2])
    if any(isinstance(each, str | bool) for each in values):
        texts = sorted({str(each) for each in values})
        return {
            "label": label,
            "values": [texts.index(str(each)) for each in values],
            "tickvals": list(range(len(texts))),
            "ticktext": [escape_text(each) for each in texts],
        }
    numbers = np.asarray(values, dtype=float)
    if not is_log:
        ticks = np.unique(numbers)
        few = {"tickvals": ticks} if ticks.size <= 8 and not np.any(ticks % 1) else {}
        return {"label": label, "values": numbers, **few}
    shown = np.geomspace(numbers.min(), numbers.max(), 5)
    return {
        "label": label,
        "values": np.log10(numbers),
        "tickvals": np.log10(shown),
        "ticktext": [f"{each:.1e}" for each in shown],
    }
