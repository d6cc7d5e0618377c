"""The report of runs: its numbers are those of `evaluate`, and its texts never become markup."""

import base64
import json
import random
import re
import shutil
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from pgti import ConfigError, RunError, simulate, write_report
from pgti.figures import sensor_map
from pgti.graph import SensorGraph
from pgti.report import Page, Panel, Section, Table, pack_series, render_page
from pgti.run import ModelConfig, Run, RunConfig, train_run
from pgti.run.reporting.learned import strongest_edges
from pgti.run.reporting.write import CURVES_BYTES, build_page
from pgti.store import SeriesStore, StoreWriter

from ..browser import WIDTHS, Browser, assert_drawn, assert_fits
from ..fuzz.values import change_tree
from .small_runs import make_config

pytest.importorskip("plotly")

HOSTILE = "</script><img src=x onerror=alert(1)>"
IDS = (HOSTILE, "b", "c")


def make_store(
    path: Path,
    *,
    seed: int = 0,
    unit: str = "<b>mph</b>",
    seconds: int = 3600,
    observed: int = 120,
) -> SeriesStore:
    random = np.random.default_rng(seed)
    values = (50 + random.normal(size=(120, 3, 1)) * [[[1.0], [3.0], [2.0]]]).astype(np.float32)
    values[30:40, 1] = np.nan
    values[observed:] = np.nan
    graph = SensorGraph.from_edges(3, np.array([0, 1]), np.array([1, 2]))
    with StoreWriter(path, node_ids=IDS, channels=("speed",), units=(unit,), graph=graph) as writer:
        writer.append(values)
        writer.finish(start=np.datetime64("2025-10-01T00:00"), interval_seconds=seconds)
    return SeriesStore.open(path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    directory = tmp_path_factory.mktemp("report")
    store = make_store(directory / "store")
    first, second = (
        train_and_evaluate(make_config(store, epochs=1, seed=seed), directory / f"run{seed}")
        for seed in (1, 2)
    )
    return first, second


def train_and_evaluate(config: RunConfig, path: Path) -> Run:
    """A run with stored errors, as `pgti train` leaves it."""
    run = train_run(config, path)[0]
    run.directory.write_test(run.evaluate().to_dict()["test"])
    return run


@pytest.fixture(scope="module")
def page(runs: tuple[Run, Run]) -> Path:
    return runs[0].report(runs[0].directory.path.parent / "one.html", intervals=(0.8,))


class Addresses(HTMLParser):
    """Collects what a page refers to, and the tags that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag."""
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


def test_stored_errors_that_were_damaged(runs: tuple[Run, Run], tmp_path: Path) -> None:
    """They are one line, or a page can be made of them."""
    shutil.copytree(runs[0].directory.path, tmp_path / "run")
    run = Run.open(tmp_path / "run", store=runs[0].store.path)
    stored, num_refused = run.directory.read_test(), 0
    for seed in range(150):
        damaged = change_tree(random.Random(seed), stored)
        run.directory.test_file.write_text(json.dumps(damaged))
        try:
            report = run.read_test()
        except RunError:
            num_refused += 1
            continue
        assert report is not None
        assert repr(report)
        if seed < 20:
            build_page([run])
    assert num_refused > 50


def tables_of(page: Page) -> dict[str, Table]:
    return {table.caption: table for section in page.sections for table in section.tables}


def test_the_worst_sensors_and_hours_are_those_of_evaluate(runs: tuple[Run, Run]) -> None:
    tables = tables_of(build_page(runs[:1]))
    report = runs[0].evaluate()
    for caption, breakdown in (
        ("The 3 worst sensors", "sensor"),
        ("The ten worst hours", "hour-of-week"),
    ):
        frame = report.by(breakdown).query("forecaster == 'dcrnn'")
        worst = frame.sort_values("mae", ascending=False, kind="stable").head(10)
        rows = tables[caption].rows
        assert [row[0] for row in rows] == worst[breakdown].tolist()
        assert [row[1] for row in rows] == [f"{error:.3f}" for error in worst["mae"]]
        assert [row[-1] for row in rows] == [f"{count:,}" for count in worst["count"]]
        for column, name in enumerate(report.baselines, 3):
            baseline = report.by(breakdown).query(f"forecaster == '{name}'")
            theirs = baseline.set_index(breakdown)["mae"].loc[worst[breakdown]]
            assert tables[caption].columns[column] == f"MAE of {name}"
            assert [row[column] for row in rows] == [f"{error:.3f}" for error in theirs]
    assert [IDS[sensor] for sensor in tables["The 3 worst sensors"].sensors] == [
        row[0] for row in tables["The 3 worst sensors"].rows
    ]


def test_figures_and_lead_have_the_numbers_of_evaluate(runs: tuple[Run, Run]) -> None:
    page = build_page(runs[:1])
    report = runs[0].evaluate()
    panels = {panel.name: panel for section in page.sections for panel in section.panels}
    lines = {line.name: line for line in panels["horizon"].figure.data}
    frame = report.to_frame()
    for name in ("dcrnn", "persistence", "historical-average", "seasonal-naive"):
        expected = frame.query(f"forecaster == '{name}'")["mae"]
        np.testing.assert_array_equal(lines[name].y, expected)
    week = panels["week"].figure.data[0]
    for row in report.by("hour-of-week").query("forecaster == 'dcrnn'").to_dict("records"):
        day, hour = row["hour-of-week"].split()
        value = week.z[list(week.y).index(day), int(hour[:2])]
        assert value == pytest.approx(row["mae"], rel=1e-6)
    errors = report.by("sensor").query("forecaster == 'dcrnn'")["mae"]
    by_label = {label: choice["values"] for label, choice in panels["map"].choices.items()}
    np.testing.assert_allclose(by_label["MAE, dcrnn"], errors, rtol=1e-6)
    skill = report.by("sensor").query("forecaster == 'persistence'")["mae"]
    np.testing.assert_allclose(
        by_label["MAE, dcrnn minus persistence"], errors.to_numpy() - skill.to_numpy(), rtol=1e-5
    )
    first = frame.query("forecaster == 'dcrnn' and horizon == 1")["mae"].item()
    assert f"{first:.3f} at 60 min" in page.lead[0]


def test_a_page_refers_to_nothing_outside_and_has_no_markup_of_others(page: Path) -> None:
    text = page.read_text()
    parser = Addresses()
    parser.feed(text)
    assert all(address.startswith("#") for address in parser.addresses)
    assert parser.tags.count("img") == 0
    assert parser.tags.count("script") == 3
    assert parser.tags.count("b") == 0
    assert HOSTILE not in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    content = json.loads(data)
    assert content["ids"][0] == HOSTILE
    for figure in content["figures"].values():
        assert "<img" not in json.dumps(figure)
        assert "<b>" not in json.dumps(figure)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_draws_every_panel_and_a_click_shows_a_sensor(
    browser: Browser, page: Path, width: int
) -> None:
    count = page.read_text().count('class="plot"')
    with browser.page(page, width) as opened:
        opened.wait_for_selector("#curves[data-sensor]")
        for name in opened.eval_on_selector_all(".plot", "all => all.map(each => each.id)"):
            assert_drawn(opened, f"#{name}.js-plotly-plot")
        assert count == opened.locator(".js-plotly-plot").count() >= 8
        assert_fits(opened)
        opened.click("button[data-sensor='2']")
        opened.wait_for_selector("#curves[data-sensor='2']")
        assert opened.input_value("#sensor") == "c"
        point = opened.locator("#map .scatterlayer .point").nth(1)
        point.scroll_into_view_if_needed()
        box = point.bounding_box()
        opened.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        opened.wait_for_selector("#curves[data-sensor='1']")
        assert_shows_forecasts(opened, page)
        opened.select_option("select[data-panel='map']", index=3)
        shown = opened.evaluate(
            "() => document.getElementById('map').data.at(-1).marker.colorbar.title.text"
        )
        assert "minus persistence" in shown


def assert_shows_forecasts(opened: Any, page: Path) -> None:
    """The lines of sensor b are its observations and forecasts at the last horizon step."""
    run = Run.open(page.parent / "run1")
    frame = run.forecast(split="test").query("sensor == 'b' and horizon == 2")
    names = opened.evaluate("() => document.getElementById('curves').data.map(each => each.name)")
    assert names == ["80 % interval", "80 % interval", "observed", "forecast"]
    for name, column in (("observed", "observed"), ("forecast", "forecast")):
        y = opened.evaluate(f"() => document.getElementById('curves').data[{names.index(name)}].y")
        found = np.array(y[-len(frame) :], dtype=float)
        spread = frame["observed"].max() - frame["observed"].min() + 20
        np.testing.assert_allclose(found, frame[column].astype(float), atol=spread / 250)


def test_seeds_are_one_group_and_other_options_another(runs: tuple[Run, Run]) -> None:
    page = build_page(runs)
    panels = {panel.name: panel for section in page.sections for panel in section.panels}
    low, high, line, *_ = panels["horizon"].figure.data
    errors = [
        run.evaluate().to_frame().query("forecaster == 'dcrnn'")["mae"].to_numpy() for run in runs
    ]
    np.testing.assert_allclose(low.y, np.min(errors, axis=0))
    np.testing.assert_allclose(high.y, np.max(errors, axis=0))
    np.testing.assert_allclose(line.y, np.median(errors, axis=0))
    assert "median of 2 runs" in page.lead[0]
    rows = tables_of(page)["Errors of speed in <b>mph</b> on the test windows"].rows
    low_mean, high_mean = sorted(float(run.evaluate().mae or 0) for run in runs)
    assert f"({low_mean:.3f} to {high_mean:.3f})" in rows[0][-1]


def test_two_models_are_compared_on_the_map_and_by_hour(
    runs: tuple[Run, Run], tmp_path: Path
) -> None:
    config = make_config(runs[0].store, epochs=2, seed=1)
    other = train_and_evaluate(config, tmp_path / "longer")
    page = build_page([runs[0], other])
    panels = {panel.name: panel for section in page.sections for panel in section.panels}
    (label,) = [each for each in panels["map"].choices if "minus dcrnn" in each]
    mine, theirs = (
        run.evaluate().by("sensor").query("forecaster == 'dcrnn'")["mae"].to_numpy()
        for run in (runs[0], other)
    )
    np.testing.assert_allclose(
        panels["map"].choices[label]["values"], mine - theirs, rtol=1e-4, atol=1e-6
    )
    assert "week-difference" in panels
    assert [trace.name for trace in panels["curves"].figure.data][-2:] == [
        "forecast dcrnn (epochs 1)", "forecast dcrnn (epochs 2)",
    ]  # fmt: skip


def test_what_is_missing_is_said_with_its_command(runs: tuple[Run, Run], tmp_path: Path) -> None:
    """No stored errors; errors of an earlier version; no rows."""
    run = runs[1]
    stored = run.directory.read_test()
    assert stored is not None
    run.directory.test_file.unlink()
    missing = [each for section in build_page([run]).sections for each in section.missing]
    assert any("no stored errors" in each.text for each in missing)
    assert any(each.command == f"pgti evaluate {run.directory.path}" for each in missing)
    del stored["by"]["hour-of-week"]
    run.directory.write_test(stored)
    page = build_page([run])
    panels = {panel.name for section in page.sections for panel in section.panels}
    assert {"hour", "weekday"} <= panels
    assert "The ten worst hours" in tables_of(page)
    place = run.store.path
    place.rename(tmp_path / "elsewhere")
    try:
        gone = build_page([Run.open(run.directory.path)])
    finally:
        (tmp_path / "elsewhere").rename(place)
    texts = [each.text for section in gone.sections for each in section.missing]
    assert sum("is gone" in text for text in texts) == 2
    assert "map" in {panel.name for section in gone.sections for panel in section.panels}


def test_a_run_without_stored_errors_is_evaluated(runs: tuple[Run, Run], tmp_path: Path) -> None:
    """As one is that Python trained."""
    run = runs[1]
    run.directory.test_file.unlink()
    text = write_report(run, tmp_path / "report.html").read_text()
    assert "Where and when it is wrong" in text
    stored = run.read_test()
    assert stored is not None
    assert stored.to_dict() == run.evaluate().to_dict()


def test_a_report_without_any_observed_target_is_drawn(browser: Browser, tmp_path: Path) -> None:
    """No sensor has an error: all are without a value on the map."""
    store = make_store(tmp_path / "store", observed=90)
    run = train_and_evaluate(make_config(store, epochs=1), tmp_path / "run")
    with browser.page(run.report(tmp_path / "report.html")) as opened:
        opened.wait_for_selector("#curves[data-sensor]")


def test_bad_outputs_are_refused(runs: tuple[Run, Run], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"report\.pdf: a report is one HTML file"):
        runs[0].report(tmp_path / "report.pdf")
    with pytest.raises(ConfigError, match="does not exist"):
        runs[0].report(tmp_path / "none" / "report.html")
    with pytest.raises(ConfigError, match="no run"):
        write_report([], tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_run_given_twice_is_refused(runs: tuple[Run, Run], tmp_path: Path) -> None:
    """Also by another path: two of the same would pass for two seeds."""
    (tmp_path / "link").symlink_to(runs[0].directory.path)
    with pytest.raises(ConfigError, match="is given twice"):
        write_report([*runs, runs[0]], tmp_path / "report.html")
    with pytest.raises(ConfigError, match="is given twice"):
        write_report([runs[0], tmp_path / "link"], tmp_path / "report.html")


def test_runs_on_other_readings_are_no_seeds(runs: tuple[Run, Run], tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", seed=1)
    other = train_and_evaluate(make_config(store, epochs=1, seed=2), tmp_path / "other")
    page = build_page([runs[0], other])
    assert page.lead[0].startswith(f"dcrnn (store {runs[0].fingerprint[:12]}): MAE")
    assert page.lead[1].startswith(f"dcrnn (store {other.fingerprint[:12]}): MAE")
    assert any("different windows or rows" in line for line in page.lead)
    assert tables_of(page)["Runs"].rows[1][2:] == (str(store.path), other.fingerprint[:12])


@pytest.mark.parametrize(
    ("changed", "message"), [({"unit": "km/h"}, "units"), ({"seconds": 900}, "steps")]
)
def test_runs_of_other_units_or_steps_are_refused(
    runs: tuple[Run, Run], tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    store = make_store(tmp_path / "store", **changed)
    other = train_run(make_config(store, epochs=1), tmp_path / "other")[0]
    with pytest.raises(ConfigError, match=f"have different {message}"):
        write_report([runs[0], other], tmp_path / "report.html")


def test_a_table_explains_its_totals_and_baselines(runs: tuple[Run, Run]) -> None:
    """Those of a single run and of several."""
    for given in (runs[:1], runs):
        table = tables_of(build_page(given))["Errors of speed in <b>mph</b> on the test windows"]
        words = {*table.columns, *(row[0] for row in table.rows)}
        for word in ("mean", "average", "persistence", "historical-average", "seasonal-naive"):
            assert (f"“{word}” " in table.note) == (word in words), word


def test_packed_series_are_what_they_were_and_hold_their_budget() -> None:
    random = np.random.default_rng(0)
    values = (60 + random.normal(size=(40, 3, 500)).cumsum(axis=2)).astype(np.float32)
    values[3, 1, 20:40] = np.nan
    values[4] = np.nan
    for budget in (200_000, 60_000, 20_000):
        packed = pack_series(values, budget)
        assert packed.num_bytes <= budget
        times = packed.shape[2]
        found = unpack(packed)
        wanted = values[:, :, -times:]
        assert np.array_equal(np.isnan(found), np.isnan(wanted))
        wide = np.nanmax(values.reshape(40, -1)[[0]]) - np.nanmin(values.reshape(40, -1)[[0]])
        assert np.nanmax(np.abs(found - wanted)[0]) <= 0.51 * max(float(packed.step[0]), 1e-6)
        assert packed.step[0] <= 1.01 * wide / 250
    assert times < 500


def unpack(packed: Any) -> np.ndarray:
    """As the page does it."""
    kind = f"<u{packed.bytes_per_number}"
    codes = np.frombuffer(zlib.decompress(base64.b64decode(packed.content)), kind)
    whole = np.cumsum(codes.reshape(packed.shape), axis=2, dtype=kind)
    numbers = packed.low[:, None, None] + whole * packed.step[:, None, None].astype(np.float64)
    return np.where(whole == packed.missing, np.nan, numbers)


def test_a_page_of_11160_sensors_has_at_most_8_megabytes() -> None:
    count, random = 11_160, np.random.default_rng(0)
    ids = [f"sensor {400_000 + i}" for i in range(count)]
    values = random.gamma(2, 1, size=count)
    edges = random.integers(0, count, size=(2, 100_000))
    figure = sensor_map(random.random((count, 2)), ids, values, label="MAE in mph", edges=edges)
    choice = {
        "values": values.astype(np.float32),
        "label": "x",
        "limits": [0, 1],
        "scale": "Cividis",
    }
    curves = pack_series(random.normal(size=(count, 4, 90)).astype(np.float32), CURVES_BYTES)
    panel = Panel(
        name="map", figure=figure, caption="A map.", choices={str(i): choice for i in range(9)}
    )
    page = Page(
        title="large", lead=[], sections=[Section(heading="map", panels=[panel])], ids=ids,
        curves={"content": curves.content, "low": curves.low, "step": curves.step},
    )  # fmt: skip
    # Heat maps, tables and lines of a report take less than 0.5 MB more.
    assert len(render_page(page).encode()) < 7_500_000


def test_the_strongest_edges_are_the_largest_weights() -> None:
    matrix = sparse.random_array((20, 20), density=0.3, rng=np.random.default_rng(1)).toarray()
    edges, weights = strongest_edges(matrix, 7)
    assert sorted(weights) == sorted(np.sort(matrix.ravel())[-7:])
    assert np.array_equal(matrix[edges[0], edges[1]], weights)
    assert strongest_edges(np.zeros((3, 3)), 5)[0].shape == (2, 0)


@pytest.mark.slow
def test_a_report_of_a_run_of_11160_sensors(tmp_path: Path) -> None:
    """Simulated, trained for an epoch, and reported in 8 MB without forecasting all windows."""
    store = simulate(tmp_path / "store", sensors=11_160, steps=150)
    config = make_config(store, epochs=1, batch_size=32)
    config = replace(config, model=ModelConfig(name="stid", options={"layers": 1}))
    run = train_and_evaluate(config, tmp_path / "run")
    out = run.report(tmp_path / "report.html")
    assert out.stat().st_size < 8_000_000
    (table, *_) = [t for c, t in tables_of(build_page([run])).items() if "worst sensors" in c]
    frame = run.evaluate().by("sensor").query("forecaster == 'stid'")
    worst = frame.sort_values("mae", ascending=False, kind="stable").head(10)
    assert [row[0] for row in table.rows] == worst["sensor"].tolist()
