"""Figures drawn with plotly from plain arrays and texts: maps, lines, heat maps and bars.

Nothing here knows a store or a run: reports, `run.plot`, `store.plot` and the dashboard call the
same functions. Texts are shown as they are; what plotly would take for markup is escaped.
"""

from pgti.figures.accessor import Plots
from pgti.figures.grids import bars, heat_map
from pgti.figures.layout import graph_layout
from pgti.figures.lines import error_by_horizon, series_lines, training_curves
from pgti.figures.maps import sensor_map
from pgti.figures.panels import stack_figures
from pgti.figures.spans import span_bars
from pgti.figures.theme import (
    COLORS,
    DIFFERENCE_SCALE,
    MAGNITUDE_SCALE,
    RUN_COLORS,
    color_of,
    escape_text,
    graph_objects,
    new_figure,
)

__all__ = [
    "COLORS",
    "DIFFERENCE_SCALE",
    "MAGNITUDE_SCALE",
    "RUN_COLORS",
    "Plots",
    "bars",
    "color_of",
    "error_by_horizon",
    "escape_text",
    "graph_layout",
    "graph_objects",
    "heat_map",
    "new_figure",
    "sensor_map",
    "series_lines",
    "span_bars",
    "stack_figures",
    "training_curves",
]
