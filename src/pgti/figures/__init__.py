"""Plotly's graph objects, imported when the first figure is drawn, and the colors of figures."""

from collections.abc import Mapping
from typing import Any

from pgti.errors import MissingExtraError

__all__ = ["COLORS", "graph_objects"]

COLORS: Mapping[str, str] = {
    "observed": "#333333",
    "model": "#2a6fbb",
    "persistence": "#c8702a",
    "historical-average": "#7a7a7a",
}
"""One color per role, the same in every figure."""


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
