"""How figures look: plotly imported late, colors of roles, scales of numbers, one template."""

import html
from collections.abc import Iterable, Mapping
from typing import Any

from pgti.display import printable
from pgti.errors import MissingExtraError

__all__ = [
    "COLORS",
    "DIFFERENCE_SCALE",
    "MAGNITUDE_SCALE",
    "RUN_COLORS",
    "color_of",
    "escape_text",
    "graph_objects",
    "new_figure",
    "shorten_labels",
]

COLORS: Mapping[str, str] = {
    "observed": "#333333",
    "model": "#0072B2",
    "persistence": "#D55E00",
    "historical-average": "#7a7a7a",
    "seasonal-naive": "#009E73",
    "ridge": "#CC79A7",
    "lightgbm": "#E69F00",
    "chronos": "#56B4E9",
    "training": "#7a7a7a",
    "validation": "#0072B2",
}
"""One color per role, the same in every figure: those of Okabe and Ito."""

RUN_COLORS = ("#0072B2", "#CC79A7", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#7a7a7a")
"""Colors of things without a role, such as several runs, in their order: those of the usual
baselines come last."""

MAGNITUDE_SCALE = "Cividis"
"""Scale of numbers from small to large."""

DIFFERENCE_SCALE = ((0.0, "#0072B2"), (0.5, "#f2f2f2"), (1.0, "#D55E00"))
"""Scale of differences, with 0 in its middle: blue below and vermilion above."""

_MAX_LABEL = 24  # characters
_INK = "#333333"
_GRID = "#dddddd"


def graph_objects() -> Any:
    """The module `plotly.graph_objects`.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    try:
        import plotly.graph_objects  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingExtraError("plotly", "report") from None
    return plotly.graph_objects


def escape_text(text: object) -> str:
    """A text that plotly shows as it is, where it would interpret tags and entities."""
    return html.escape(printable(str(text)), quote=False)


def shorten_labels(names: Iterable[object]) -> dict[str, str]:
    """Plotly's `labelalias` of an axis: names that would take the room of the plot, cut short."""
    texts = (str(name) for name in names)
    return {
        escape_text(text): escape_text(text[: _MAX_LABEL - 1] + "…")
        for text in texts
        if len(text) > _MAX_LABEL
    }


def color_of(name: str, position: int = 0) -> str:
    """The color of a role, or else that of a position among things without one."""
    return COLORS.get(name.partition(":")[0], RUN_COLORS[position % len(RUN_COLORS)])


def new_figure(
    title: str = "", *, x: str = "", y: str = "", height: int | None = None, **layout: Any
) -> Any:
    """An empty figure with the look of all of them; it takes the width that it is given.

    Args:
        title: of the figure; none by default.
        x: title of the horizontal axis, with its unit.
        y: title of the vertical axis, with its unit.
        height: in pixels; None leaves it to plotly.
        **layout: further keys of plotly's layout.

    Returns:
        A `plotly.graph_objects.Figure`.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    figure = graph_objects().Figure()
    axis = {
        "gridcolor": _GRID,
        "zerolinecolor": _GRID,
        "linecolor": "#999999",
        "ticks": "outside",
        "tickcolor": "#999999",
        "automargin": True,
    }
    # Axes have a title even where there is none: plotly's editor would invite to write one.
    figure.update_layout(
        template="none",
        colorway=RUN_COLORS,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, -apple-system, Segoe UI, sans-serif", "size": 13},
        font_color=_INK,
        xaxis=axis | {"title": {"text": escape_text(x), "standoff": 8}},
        yaxis=axis | {"title": {"text": escape_text(y), "standoff": 8}},
        legend={
            "orientation": "h",
            "yanchor": "bottom",
            "y": 1.02,
            "xanchor": "left",
            "x": 0,
            "traceorder": "normal",
        },
        margin={"l": 8, "r": 8, "t": 48 if title else 16, "b": 8},
        hoverlabel={"namelength": -1},
    )
    figure.update_layout(**layout)
    if height is not None:
        figure.update_layout(height=height)
    if title:
        figure.update_layout(title={"text": escape_text(title), "x": 0, "xref": "paper"})
        figure.update_layout(title={"yref": "container", "y": 0.98, "yanchor": "top"})
        figure.update_layout(title_font_size=15, margin_t=72)
    return figure
