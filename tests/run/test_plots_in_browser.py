"""Figures are drawn by a browser as they are written, wide and narrow."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgti.run import Run, train_run

from ..browser import WIDTHS, Browser, assert_drawn, assert_fits
from .small_runs import make_config, make_series, make_store

pytest.importorskip("plotly")


def _join(figures: dict[str, Any], path: Path) -> Path:
    """All figures in one page, which takes plotly's script once."""
    parts = [
        figure.to_html(full_html=False, include_plotlyjs=number == 0, div_id=name)
        for number, (name, figure) in enumerate(figures.items())
    ]
    style = "<style>body { margin: 0 }</style>"
    path.write_text(f"<!doctype html><meta charset=utf-8>{style}{''.join(parts)}")
    return path


def test_every_figure_is_drawn_wide_and_narrow(browser: Browser, tmp_path: Path) -> None:
    values = make_series()
    values[30:40, 1] = np.nan
    run: Run = train_run(make_config(make_store(tmp_path / "s", values)), tmp_path / "run")[0]
    report = run.evaluate()
    plot = run.plot
    figures = {
        "forecast": plot.forecast("b", intervals=(0.5, 0.8)),
        "latest": plot.latest("b"),
        "map": plot.map(report, against="persistence"),
        "horizon": plot.horizon(report),
        "hours": plot.hours(report),
        "history": plot.history(),
        "look": plot("b"),
        "store": run.store.plot(),
    }
    page_file = _join(figures, tmp_path / "page.html")
    for width in WIDTHS:
        with browser.page(page_file, width) as page:
            assert_drawn(page, num_figures=len(figures))
            assert_fits(page)
            for name in figures:
                marks = page.locator(f"#{name} :is(.point, .js-line, .hm image, .js-fill)")
                assert marks.count() > 0, name
            titles = page.locator("#store .annotation-text").all_text_contents()
            assert titles[1:3] == ["longest gaps", "typical week by hour"]
