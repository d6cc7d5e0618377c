"""A map of sensors: points in equal aspect over the edges of their graph, without tiles."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pgti.figures.theme import (
    DIFFERENCE_SCALE,
    MAGNITUDE_SCALE,
    escape_text,
    graph_objects,
    new_figure,
)

__all__ = ["sensor_map", "thin_edges"]

_MAX_EDGES = 10_000
_MAX_SVG = 1_500  # points above which WebGL draws them
_NO_VALUE = "#b0b0b0"


def sensor_map(  # noqa: PLR0913 - each says one thing about the picture
    positions: ArrayLike,
    ids: Sequence[str],
    values: ArrayLike | None = None,
    *,
    label: str = "",
    edges: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    is_difference: bool = False,
    limits: tuple[float, float] | None = None,
    max_edges: int = _MAX_EDGES,
    title: str = "",
    height: int = 480,
) -> Any:
    """Sensors as points, colored by a value, and the edges between them as thin lines.

    The traces are called "edges", "no value" (sensors whose value is NaN) and "sensors"; each
    point has the sensor's position in `ids` as its `customdata`. Axes have one scale, so that
    distances are true, and show no numbers.

    Args:
        positions: [N, 2], horizontal and vertical, such as `graph_layout` returns.
        ids: of the sensors.
        values: [N], NaN where there is none; None draws all points alike.
        label: what the values are, with their unit: the title of the color bar.
        edges: [2, E], positions of the sensors that an edge joins; None draws none.
        weights: [E], of the edges; of too many, those of the largest weights are drawn.
        is_difference: color by a scale whose middle is 0.
        limits: values at the ends of the color bar; by default the 2nd and the 98th percentile, so
            that one bad sensor does not take all colors.
        max_edges: of more, only so many are drawn.
        title: of the figure.
        height: in pixels.

    Returns:
        A `plotly.graph_objects.Figure`.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    places = np.asarray(positions, dtype=np.float64)
    figure = new_figure(title, height=height, dragmode="pan", showlegend=False)
    if edges is not None:
        chosen = thin_edges(np.asarray(edges), weights, max_edges)
        figure.add_trace(_edge_lines(places, chosen))
    numbers = np.zeros(len(ids)) if values is None else np.asarray(values, dtype=np.float64)
    known = np.isfinite(numbers)
    names = np.array([escape_text(each) for each in ids], dtype=object)
    size = _point_size(len(ids))
    if not known.all():
        marker = {"color": _NO_VALUE, "size": size, "symbol": "circle-open"}
        figure.add_trace(
            _points(places, names, np.flatnonzero(~known), "no value", marker, "%{text}: no value")
        )
    marker = {"size": size, "color": "#0072B2", "line": {"width": 0}}
    hover = "%{text}"
    if values is not None:
        marker |= _coloring(numbers[known], label, limits, is_difference=is_difference)
        hover = "%{text}: %{marker.color:.4~g}"
    figure.add_trace(_points(places, names, np.flatnonzero(known), "sensors", marker, hover))
    hidden = {"visible": False, "showgrid": False, "zeroline": False}
    figure.update_xaxes(**hidden)
    figure.update_yaxes(**hidden, scaleanchor="x", scaleratio=1)
    return figure


def thin_edges(edges: NDArray[Any], weights: ArrayLike | None, max_edges: int) -> NDArray[np.int64]:
    """The pairs of sensors that edges join, each once, without loops: the strongest of too many.

    Args:
        edges: [2, E].
        weights: [E], or None: then an even choice is taken of too many.
        max_edges: how many at most.

    Returns:
        [2, K], the smaller number first.
    """
    pairs = np.sort(edges.astype(np.int64), axis=0)
    strength = np.ones(pairs.shape[1]) if weights is None else np.asarray(weights, np.float64)
    keep = pairs[0] != pairs[1]
    pairs, strength = pairs[:, keep], strength[keep]
    order = np.lexsort((-strength, pairs[1], pairs[0]))
    pairs, strength = pairs[:, order], strength[order]
    first = np.ones(pairs.shape[1], dtype=bool)
    first[1:] = (pairs[:, 1:] != pairs[:, :-1]).any(axis=0)
    pairs, strength = pairs[:, first], strength[first]
    if pairs.shape[1] <= max_edges:
        return pairs
    if weights is None:
        return pairs[:, np.linspace(0, pairs.shape[1] - 1, max_edges).astype(np.int64)]
    strongest = np.argsort(-strength, kind="stable")[:max_edges]
    return pairs[:, np.sort(strongest)]


def _edge_lines(places: NDArray[np.float64], edges: NDArray[np.int64]) -> Any:
    """One trace of all edges: both ends of each and a gap, in float32."""
    graphs = graph_objects()
    ends = np.full((edges.shape[1], 3, 2), np.nan, dtype=np.float32)
    ends[:, :2] = places[edges.T]
    kind = graphs.Scattergl if len(places) > _MAX_SVG else graphs.Scatter
    return kind(
        x=ends[..., 0].ravel(),
        y=ends[..., 1].ravel(),
        mode="lines",
        line={"color": "#8c96a0", "width": 0.7},
        opacity=0.6,
        hoverinfo="skip",
        name="edges",
    )


def _points(
    places: NDArray[np.float64],
    names: NDArray[np.object_],
    which: NDArray[np.int64],
    name: str,
    marker: dict[str, Any],
    hover: str,
) -> Any:
    graphs = graph_objects()
    kind = graphs.Scattergl if len(places) > _MAX_SVG else graphs.Scatter
    return kind(
        x=places[which, 0].astype(np.float32),
        y=places[which, 1].astype(np.float32),
        mode="markers",
        marker=marker,
        text=names[which].tolist(),
        customdata=which.astype(np.int32),
        hovertemplate=f"{hover}<extra></extra>",
        name=name,
    )


def _coloring(
    numbers: NDArray[np.float64],
    label: str,
    limits: tuple[float, float] | None,
    *,
    is_difference: bool,
) -> dict[str, Any]:
    if limits is None and len(numbers):
        low, high = np.percentile(numbers, (2, 98)).tolist()
        limits = (low, high if high > low else low + (abs(low) or 1.0))
    low, high = limits or (0.0, 1.0)
    if is_difference:
        high = max(abs(low), abs(high)) or 1.0
        low = -high
    return {
        "color": numbers.astype(np.float32),
        "colorscale": DIFFERENCE_SCALE if is_difference else MAGNITUDE_SCALE,
        "cmin": low,
        "cmax": high,
        "colorbar": _bar_below(label),
    }


def _bar_below(label: str) -> dict[str, Any]:
    """A color bar below the picture, as wide as it, which fits narrow screens too."""
    return {
        "title": {"text": escape_text(label), "side": "top"},
        "orientation": "h",
        "thickness": 12,
        "x": 0.5,
        "y": -0.02,
        "yanchor": "top",
        "len": 0.9,
        "outlinewidth": 0,
        "nticks": 6,
    }


def _point_size(count: int) -> float:
    return float(np.clip(240 / np.sqrt(max(1, count)), 3.0, 11.0))
