"""Measurements as an HTML page: one bar per figure with its range, one line per limit."""

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pgti.run.results import Machine, Spread
from pgti_bench.errors import BenchError

__all__ = [
    "Bar",
    "Chart",
    "Limit",
    "check_plot",
    "graph_objects",
    "scale_spread",
    "write_page",
    "write_plot",
]

_MEASURED, _LIMIT = "#4c78a8", "#e45756"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One measured figure.

    Attributes:
        name: what was measured.
        value: a figure, or the spread of several runs, drawn as its median and range.
    """

    name: str
    value: Spread | float


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """A reference value for the bars of a chart.

    Attributes:
        name: of the limit.
        value: in the unit of the chart.
    """

    name: str
    value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Figures of one unit, side by side.

    Attributes:
        title: of the chart.
        unit: of every bar and limit; the label of the axis.
        bars: at least one.
        limits: drawn across all bars.
    """

    title: str
    unit: str
    bars: tuple[Bar, ...]
    limits: tuple[Limit, ...] = ()


def scale_spread(spread: Spread, factor: float) -> Spread:
    """The same in another unit, one of which is 1 / factor of this one; factor is positive."""
    return replace(
        spread,
        median=spread.median * factor,
        minimum=spread.minimum * factor,
        maximum=spread.maximum * factor,
    )


def check_plot(path: Path | None) -> None:
    """Check before a measurement that its plot can be written.

    Args:
        path: file to write; None checks nothing.

    Raises:
        BenchError: plotly is not installed, or the file cannot be written.
    """
    if path is None:
        return
    graph_objects()
    if path.is_dir():
        raise BenchError(f"cannot write the plot {path}: it is a directory; name a file")
    if not path.parent.is_dir():
        raise BenchError(
            f"cannot write the plot {path}: there is no directory {path.parent}; create it first"
        )
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise BenchError(f"cannot write the plot {path}: permission denied; name another file")


def write_plot(
    path: Path, title: str, charts: Sequence[Chart], machine: Machine, left_out: Sequence[str] = ()
) -> None:
    """Write the charts to an HTML file that can be read without a network.

    Args:
        path: file to write; replaced if it exists.
        title: of the page.
        charts: one below the other.
        machine: named below the title.
        left_out: what was not measured and why, one line each.

    Raises:
        BenchError: plotly is not installed, or the file cannot be written.
    """
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    paragraphs = [
        f"{machine.cpu}, {machine.cores} cores, {machine.threads} threads",
        f"{machine.system}; {versions}",
        *(f"left out: {line}" for line in left_out),
    ]
    write_page(path, title, paragraphs, [_figure(chart) for chart in charts])


def write_page(path: Path, title: str, paragraphs: Sequence[str], figures: Sequence[Any]) -> None:
    """Write paragraphs of plain text and plotly figures to an HTML file.

    Raises:
        BenchError: the file cannot be written.
    """
    parts = [f"<h1>{html.escape(title)}</h1>"]
    parts += [f"<p>{html.escape(line)}</p>" for line in paragraphs]
    for number, figure in enumerate(figures):
        # plotly.js goes into the page once, so that it can be read without a network.
        parts.append(figure.to_html(full_html=False, include_plotlyjs=number == 0))
    body = "\n".join(parts)
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title></head>\n"
        f'<body style="font-family: sans-serif; max-width: 70em; margin: auto">\n{body}\n'
        "</body></html>\n"
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise BenchError(f"cannot write the plot {path}: {error.strerror}") from error


def graph_objects() -> Any:
    """plotly's `graph_objects`.

    Raises:
        BenchError: plotly is not installed.
    """
    try:
        from plotly import graph_objects as objects  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise BenchError(
            "plotly is not installed and --plot needs it; install it with "
            "`pip install 'pgti-bench[plot]'`"
        ) from error
    return objects


def _figure(chart: Chart) -> Any:
    objects = graph_objects()
    spreads = [
        bar.value if isinstance(bar.value, Spread) else Spread.of([bar.value]) for bar in chart.bars
    ]
    figure = objects.Figure(
        objects.Bar(
            x=[bar.name for bar in chart.bars],
            y=[spread.median for spread in spreads],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [spread.maximum - spread.median for spread in spreads],
                "arrayminus": [spread.median - spread.minimum for spread in spreads],
            },
            marker_color=_MEASURED,
        )
    )
    for limit in chart.limits:
        figure.add_hline(
            y=limit.value, line_dash="dash", line_color=_LIMIT, annotation_text=limit.name
        )
    figure.update_layout(title=chart.title, yaxis_title=chart.unit, template="plotly_white")
    figure.update_yaxes(rangemode="tozero")
    return figure
