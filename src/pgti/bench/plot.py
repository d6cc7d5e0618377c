"""Measurements as an HTML page: a bar per figure with its extremes, a line per limit."""

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgti.bench.results import Machine, Spread
from pgti.errors import BenchError, MissingExtraError

__all__ = ["Bar", "Chart", "Limit", "check_plot", "write_plot"]

_MEASURED, _LIMIT = "#4c78a8", "#e45756"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One measured figure.

    Args:
        name: what was measured.
        value: a figure, or the spread of several runs, drawn as its median and extremes.
    """

    name: str
    value: Spread | float


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """A value that the bars of a chart are held against.

    Args:
        name: what it is.
        value: in the unit of the chart.
    """

    name: str
    value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Figures of one unit, side by side.

    Args:
        title: what the bars show.
        unit: of every bar and limit; the label of the axis.
        bars: at least one.
        limits: drawn across all bars.
    """

    title: str
    unit: str
    bars: tuple[Bar, ...]
    limits: tuple[Limit, ...] = ()


def check_plot(path: Path | None) -> None:
    """Refuse before anything is measured what could not be drawn afterwards.

    Args:
        path: file to write; None if nothing is to be drawn.

    Raises:
        MissingExtraError: plotly is not installed.
        BenchError: the file cannot be written.
    """
    if path is None:
        return
    _graph_objects()
    if path.is_dir():
        raise BenchError(f"the plot {path} cannot be written: it is a directory; name a file")
    if not path.parent.is_dir():
        raise BenchError(
            f"the plot {path} cannot be written: there is no directory {path.parent}; make it first"
        )
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise BenchError(
            f"the plot {path} cannot be written: permission is denied; name another file"
        )


def write_plot(
    path: Path, title: str, charts: Sequence[Chart], machine: Machine, left_out: Sequence[str] = ()
) -> None:
    """Write the charts to an HTML file that needs no network to be read.

    Args:
        path: file to write; replaced if it exists.
        title: of the page.
        charts: one below the other.
        machine: named below the title.
        left_out: what was not measured and why, a line each.

    Raises:
        MissingExtraError: plotly is not installed.
        BenchError: the file cannot be written.
    """
    objects = _graph_objects()
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(f'{machine.cpu}, {machine.cores} cores, {machine.threads} threads')}"
        f"<br>{html.escape(f'{machine.system}; {versions}')}</p>",
        *(f"<p>left out: {html.escape(line)}</p>" for line in left_out),
    ]
    for number, chart in enumerate(charts):
        # plotly.js goes into the page once, so that it can be read without a network.
        script = number == 0
        parts.append(_figure(objects, chart).to_html(full_html=False, include_plotlyjs=script))
    body = "\n".join(parts)
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title></head>\n"
        f'<body style="font-family: sans-serif; max-width: 60em; margin: auto">\n{body}\n'
        "</body></html>\n"
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise BenchError(f"the plot {path} cannot be written: {error.strerror}") from error


def _figure(objects: Any, chart: Chart) -> Any:
    spreads = [_spread(bar.value) for bar in chart.bars]
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


def _spread(value: Spread | float) -> Spread:
    return value if isinstance(value, Spread) else Spread.of([value])


def _graph_objects() -> Any:
    try:
        from plotly import graph_objects  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError("plotly", "report") from error
    return graph_objects
