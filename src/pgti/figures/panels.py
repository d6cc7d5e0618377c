"""Several figures as one: panels from top to bottom, which fit a wide page and a narrow one."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from pgti.figures.theme import new_figure

__all__ = ["stack_figures"]

_TITLE = 40  # pixels of a panel's title
_LEGEND_ROW = 20
_AXIS = 68  # of the ticks and title of its horizontal axis
_BAR = 66  # of a color bar below it
_NARROW = 280  # the width that legends are given rows for
_OF_ALL = ("template", "font", "colorway", "paper_bgcolor", "plot_bgcolor", "hoverlabel")


def stack_figures(figures: Sequence[Any]) -> Any:
    """Figures of one panel each as a single figure, from top to bottom.

    Each keeps its title, axes, legend, color bar and height. A single figure gets room for its
    title and for as many rows of the legend as a narrow screen needs.

    Args:
        figures: as the other functions of this package return them, or of this one.

    Returns:
        A `plotly.graph_objects.Figure`.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    panels = [_Panel(figure) for figure in figures]
    total = sum(panel.head + panel.height + panel.foot for panel in panels)
    stacked = new_figure()
    stacked.layout = {key: panels[0].layout[key] for key in _OF_ALL}
    stacked.update_layout(height=total + 16, margin={"l": 8, "r": 8, "t": 8, "b": 8})
    top = total
    for number, panel in enumerate(panels, 1):
        panel.add_to(stacked, "" if number == 1 else str(number), top, total)
        top -= panel.head + panel.height + panel.foot
    return stacked


class _Panel:
    """A figure, and how many pixels its parts need one below the other.

    Args:
        figure: of one panel, which stays as it is.
    """

    def __init__(self, figure: Any) -> None:
        self.traces = copy.deepcopy(figure.data)
        self.layout = figure.layout.to_plotly_json()
        names = [each.name for each in self.traces if each.name and each.showlegend is not False]
        self.has_legend = self.layout.get("showlegend", len(names) > 1)
        rows = _legend_rows(names) if self.has_legend else 0
        has_axis = self.layout["xaxis"].get("visible", True)
        self.head = _TITLE + _LEGEND_ROW * rows
        self.axis = _AXIS if has_axis else 8
        self.foot = self.axis + (_BAR if any(map(_bar_of, self.traces)) else 0)
        self.height = self.layout["height"] - self.layout["margin"]["t"] - 24

    def add_to(self, stacked: Any, suffix: str, top: float, total: float) -> None:
        """Add the panel below `top`, in pixels of `total` from the bottom."""
        begin = (top - self.head) / total
        end = (top - self.head - self.height) / total
        x, y = f"x{suffix}", f"y{suffix}"
        for trace in self.traces:
            bar = _bar_of(trace)
            if bar is not None:
                _place_bar(bar, end - self.axis / total)
            stacked.add_trace(trace.update(xaxis=x, yaxis=y, legend=f"legend{suffix}"))
        axes = {name: copy.deepcopy(self.layout[name]) for name in ("xaxis", "yaxis")}
        axes["xaxis"] |= {"anchor": y, "domain": [0, 1]}
        axes["yaxis"] |= {"anchor": x, "domain": [end, begin]}
        if "scaleanchor" in axes["yaxis"]:
            axes["yaxis"]["scaleanchor"] = x
        legend = {**self.layout["legend"], "y": begin + 6 / total, "visible": self.has_legend}
        stacked.update_layout(
            {f"xaxis{suffix}": axes["xaxis"], f"yaxis{suffix}": axes["yaxis"]}
            | {f"legend{suffix}": legend}
        )
        title = self.layout.get("title", {})
        if title.get("text"):
            stacked.add_annotation(
                text=title["text"],
                font=title.get("font"),
                x=0,
                y=top / total,
                xref="paper",
                yref="paper",
                xanchor="left",
                yanchor="top",
                align="left",
                showarrow=False,
            )
        for kind in ("shapes", "annotations"):
            for each in self.layout.get(kind, ()):
                getattr(stacked, f"add_{kind[:-1]}")(_moved(each, x, y))


def _legend_rows(names: Sequence[str]) -> int:
    """Rows of a legend on a narrow screen: plotly gives each name a row, or one to all of them."""
    return 1 if sum(7 * len(name) + 46 for name in names) <= _NARROW else len(names)


def _bar_of(trace: Any) -> Any:
    """The color bar of a trace, which may be changed; None if it shows none."""
    bar = trace.colorbar if trace.type == "heatmap" else trace.marker.colorbar
    return bar if bar.to_plotly_json() else None


def _place_bar(bar: Any, top: float) -> None:
    """Lay a color bar down below the panel, over its width."""
    bar.update(orientation="h", x=0.5, xanchor="center", len=0.9, title_side="top")
    bar.update(y=top, yanchor="top", yref="paper")


def _moved(each: Mapping[str, Any], x: str, y: str) -> dict[str, Any]:
    """A shape or an annotation that refers to the axes of its panel; "paper" is its plot."""
    moved = dict(each)
    for key, axis in (("xref", x), ("yref", y)):
        text = str(each.get(key, key[0]))
        moved[key] = f"{axis} domain" if text == "paper" or text.endswith("domain") else axis
    return moved
