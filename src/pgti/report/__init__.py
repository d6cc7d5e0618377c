"""Reports in HTML: self-contained pages that show where and when a model is wrong.

A page is written from plain contents (`Page`); nothing here knows a run.
"""

from pgti.report.packing import PackedSeries, pack_series
from pgti.report.page import Missing, Page, Panel, Section, Table, render_page

__all__ = [
    "Missing",
    "PackedSeries",
    "Page",
    "Panel",
    "Section",
    "Table",
    "pack_series",
    "render_page",
]
