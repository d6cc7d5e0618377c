"""Heat maps of a table of numbers, and bars of groups."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pgti.figures.theme import (
    DIFFERENCE_SCALE,
    MAGNITUDE_SCALE,
    color_of,
    escape_text,
    new_figure,
    shorten_labels,
)

__all__ = ["bars", "heat_map"]


def heat_map(  # noqa: PLR0913 - each says one thing about the picture
    values: ArrayLike,
    *,
    x: Sequence[Any] | ArrayLike,
    y: Sequence[Any] | ArrayLike,
    label: str,
    x_title: str = "",
    y_title: str = "",
    is_difference: bool = False,
    limits: tuple[float, float] | None = None,
    title: str = "",
    height: int = 340,
) -> Any:
    """A table of numbers as colors: hours and weekdays, coverage, an adjacency.

    Args:
        values: [R, K], NaN where there is none.
        x: of the columns, [K]: texts, whole numbers or times.
        y: of the rows, [R]; the first row is at the top.
        label: what the values are, with their unit: the title of the color bar.
        x_title: title of the horizontal axis.
        y_title: title of the vertical axis.
        is_difference: color by a scale whose middle is 0.
        limits: values at the ends of the color bar; by default the smallest and the largest.
        title: of the figure.
        height: in pixels.

    Returns:
        A `plotly.graph_objects.Figure`.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    figure = new_figure(title, x=x_title, y=y_title, height=height)
    numbers = np.asarray(values, dtype=np.float32)
    finite = numbers[np.isfinite(numbers)]
    low, high = limits or ((finite.min(), finite.max()) if finite.size else (0.0, 1.0))
    if is_difference:
        high = max(abs(low), abs(high)) or 1.0
        low = -high
    columns, rows = _names(x), _names(y)
    figure.add_heatmap(
        z=numbers,
        x=columns,
        y=rows,
        zmin=float(low),
        zmax=float(high),
        colorscale=DIFFERENCE_SCALE if is_difference else MAGNITUDE_SCALE,
        hoverongaps=False,
        hovertemplate="%{y}, %{x}: %{z:.4~g}<extra></extra>",
        colorbar={
            "title": {"text": escape_text(label), "side": "right"},
            "thickness": 12,
            "outlinewidth": 0,
            "nticks": 6,
        },
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, zeroline=False)
    figure.update_xaxes(showgrid=False, zeroline=False, tickangle=0)
    for update, given in ((figure.update_xaxes, x), (figure.update_yaxes, y)):
        names = _names(given)
        if isinstance(names, list) and names and isinstance(names[0], str):
            short = shorten_labels(given)  # type: ignore[arg-type] # as in _names
            update(type="category", labelalias=short)
    return figure


def bars(
    groups: Sequence[str],
    values: Mapping[str, ArrayLike],
    *,
    label: str,
    x: str = "",
    first: str | None = None,
    title: str = "",
    height: int = 320,
) -> Any:
    """Bars of groups side by side, such as errors by range of the target.

    Args:
        groups: what the groups are called, [G].
        values: of each forecaster by its name, [G].
        label: what the values are, with their unit.
        x: title of the axis of the groups.
        first: the forecaster that is drawn in the color of the model.
        title: of the figure.
        height: in pixels.

    Returns:
        A `plotly.graph_objects.Figure`.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    figure = new_figure(title, x=x, y=label, height=height, barmode="group", bargap=0.25)
    for position, (name, each) in enumerate(values.items()):
        figure.add_bar(
            x=[escape_text(group) for group in groups],
            y=np.asarray(each, dtype=np.float64),
            marker={"color": color_of("model" if name == first else name, position)},
            hovertemplate="%{x}: %{y:.4~g}",
            name=escape_text(name),
        )
    figure.update_xaxes(type="category")  # names that do not fit side by side are turned
    figure.update_yaxes(rangemode="tozero")
    return figure


def _names(values: Sequence[Any] | ArrayLike) -> Any:
    """Texts escaped; numbers and times as they are."""
    if isinstance(values, np.ndarray) and values.dtype.kind not in "OUS":
        return values
    listed = list(values)  # type: ignore[arg-type] # anything that plotly takes in a row
    return [escape_text(each) if isinstance(each, str) else each for each in listed]
