"""Spans of time as bars, a row for each thing that they belong to."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pgti.figures.theme import escape_text, new_figure, shorten_labels

__all__ = ["span_bars"]


def span_bars(
    names: Sequence[str],
    firsts: ArrayLike,
    lasts: ArrayLike,
    texts: Sequence[str],
    *,
    x: str = "time",
    title: str = "",
) -> Any:
    """Spans from left to right, such as gaps of sensors; those of one name share a row.

    Args:
        names: what each span belongs to, [G]; the first is at the top.
        firsts: where each begins, [G]: times or numbers.
        lasts: where each ends, [G].
        texts: what the pointer shows of each, [G].
        x: title of the horizontal axis.
        title: of the figure.

    Returns:
        A `plotly.graph_objects.Figure`, as high as it has rows.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    rows = [escape_text(name) for name in names]
    height = 100 + 26 * len(set(rows)) + (72 if title else 16)
    figure = new_figure(title, x=x, height=height, showlegend=False)
    ends = zip(rows, np.asarray(firsts), np.asarray(lasts), texts, strict=True)
    for row, first, last, text in ends:
        figure.add_scatter(
            x=np.array([first, last]),
            y=[row, row],
            mode="lines+markers",
            line={"width": 10, "color": "#D55E00"},
            marker={"size": 10, "symbol": "line-ns", "line": {"width": 2, "color": "#D55E00"}},
            hovertemplate=f"{escape_text(text)}<extra>{row}</extra>",
        )
    figure.update_xaxes(tickangle=0)
    figure.update_yaxes(type="category", autorange="reversed", labelalias=shorten_labels(names))
    return figure
