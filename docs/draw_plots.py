"""Draw the pictures of docs/plots.md with the headless Chromium of the tests.

    python docs/draw_plots.py pems_i5nb_oct2025.npz build/plots docs/images

ingests the I-5 month (docs/accuracy.md says what it is), trains STID on it for eight epochs, a few
minutes on two cores, and writes a picture of each figure, as an .html file and as a .png file.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

import pgti

ROOT = Path(__file__).parents[1]
WIDTH = 900


def ingest(source: Path, out: Path) -> pgti.SeriesStore:
    """The speeds of a file like that of the month, in mph."""
    return pgti.ingest(
        source,
        out,
        values="speed_x10",
        scale=0.1,
        channels=("speed",),
        units=("mph",),
        edges=("edge_src", "edge_dst", "edge_miles"),
        start="2025-10-01T00:00",
        interval="5min",
        overwrite=True,
    )


def leave_out_imputed(source: Path, out: Path) -> Path:
    """The month without the speeds that PeMS did not measure but imputed."""
    arrays = dict(np.load(source))
    arrays["speed_x10"] = np.where(arrays["pct_observed"] > 0, arrays["speed_x10"], np.nan)
    np.savez(out, **arrays)
    return out


def figures(source: Path, work: Path) -> dict[str, Any]:
    """Each figure of the page by its name."""
    work.mkdir(parents=True, exist_ok=True)
    measured = ingest(leave_out_imputed(source, work / "measured.npz"), work / "measured")
    store = ingest(source, work / "store")
    run = pgti.train(
        store,
        work / "run",
        model="stid",
        epochs=8,
        batch_size=32,
        learning_rate=0.002,
        schedule="cosine",
        val_windows=300,
        windows={
            "calendar": ("time-of-day", "day-of-week"),
            "climatology": True,
            "history": ("1d..7d",),
        },
        resume=True,
    )
    errors = run.evaluate()
    worst = errors.by("sensor").query("forecaster == 'stid'").sort_values("mae")["sensor"].iloc[-1]
    rush = ("2025-10-28T00:00", "2025-10-28T23:55")
    return {
        "store": measured.plot(),
        "forecast": run.plot.forecast(worst, between=rush, intervals=(0.8, 0.95)),
        "latest": run.plot.latest(worst),
        "map": run.plot.map(errors),
        "against": run.plot.map(errors, against="persistence"),
        "horizon": run.plot.horizon(errors),
        "hours": run.plot.hours(errors),
        "history": run.plot.history(),
    }


def draw(drawn: dict[str, Any], work: Path, out: Path) -> None:
    """Write every figure as a page, and a picture of that."""
    sys.path.insert(0, str(ROOT))
    from tests.browser import assert_drawn, open_browser  # noqa: PLC0415 - once it can be found

    with open_browser() as browser:
        for name, figure in drawn.items():
            page_file = work / f"{name}.html"
            figure.write_html(page_file)
            with browser.page(page_file, WIDTH, figure.layout.height + 16) as page:
                assert_drawn(page)
                page.screenshot(path=out / f"plot-{name}.png")


if __name__ == "__main__":
    source, work, out = map(Path, sys.argv[1:])
    draw(figures(source, work), work, out)
