"""Figures of a run show the numbers of its forecasts and its errors."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pgti import ConfigError, MissingExtraError
from pgti.run import Run, train_run
from pgti.run.plots import RunPlots

from .small_runs import make_config, make_series, make_store

pytest.importorskip("plotly")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = tmp_path_factory.mktemp("plots")
    values = make_series()
    values[30:40, 1] = np.nan
    run = train_run(make_config(make_store(directory / "store", values)), directory / "run")[0]
    run.directory.write_test(run.evaluate().to_dict()["test"])
    return run


def test_a_first_look_has_forecasts_errors_and_a_map(run: Run) -> None:
    figure = run.plot("b", step=1)
    observed, forecast, *errors, edges, sensors = figure.data
    assert (observed.name, forecast.name) == ("observed", "forecast 60 min ahead")
    assert [each.name for each in errors] == [
        "dcrnn", "persistence", "historical-average", "seasonal-naive",
    ]  # fmt: skip
    assert (errors[0].yaxis, edges.name, sensors.yaxis) == ("y2", "edges", "y3")


def test_forecasts_are_those_of_run_forecast(run: Run) -> None:
    observed, forecast = run.plot.forecast("b", step=1).data
    frame = run.forecast(split="test").query("sensor == 'b' and horizon == 1")
    np.testing.assert_array_equal(observed.y, frame["observed"])
    np.testing.assert_array_equal(forecast.y, frame["forecast"])
    np.testing.assert_array_equal(observed.x, frame["timestamp"].to_numpy())
    assert len(run.plot.forecast(max_windows=5).data[0].y) == 5
    times = ("2025-10-04T00:00", "2025-10-04T05:00")
    assert len(run.plot.forecast(between=times).data[0].y) == 6


def test_intervals_are_drawn_as_asked_and_then_as_the_run_knows_them(run: Run) -> None:
    asked = run.plot.forecast("c", intervals=(0.5, 0.8))
    frame = run.forecast(split="test", intervals=(0.5, 0.8)).query("sensor == 'c' and horizon == 2")
    names = [each.name for each in asked.data]
    assert names == ["80 % interval"] * 2 + ["50 % interval"] * 2 + [
        "observed", "forecast 120 min ahead",
    ]  # fmt: skip
    for trace, column in zip(asked.data, ("lo-80", "hi-80", "lo-50", "hi-50"), strict=False):
        np.testing.assert_array_equal(trace.y, frame[column])
    assert len(run.plot.forecast("c").data) == 6
    assert len(run.plot.forecast("c", intervals=()).data) == 2


def test_the_latest_forecast_follows_what_was_observed(run: Run) -> None:
    observed, forecast = run.plot.latest("b", intervals=()).data
    frame = run.forecast().query("sensor == 'b'")
    np.testing.assert_array_equal(forecast.y[-2:], frame["forecast"])
    np.testing.assert_array_equal(forecast.x[-2:], frame["timestamp"].to_numpy())
    assert np.isnan(forecast.y[:-2]).all()
    np.testing.assert_array_equal(observed.y[:-2], run.store.read(72, 80)[:, 1, 0])
    newer = pd.DataFrame(
        np.full((4, 3), 50.0),
        columns=["a", "b", "c"],
        index=pd.date_range("2025-12-01", periods=4, freq="h"),
    )
    observed, forecast = run.plot.latest("b", newer, intervals=()).data
    np.testing.assert_array_equal(observed.y[:-2], 50)
    assert forecast.x[-1] == np.datetime64("2025-12-01T05:00")


def test_errors_are_those_that_the_run_kept_or_that_it_is_given(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    validation = run.evaluate("val")
    monkeypatch.setattr(Run, "evaluate", None)  # nothing below may evaluate
    stored = run.read_test()
    assert stored is not None
    for report, errors in ((stored, "test"), (validation, validation)):
        lines = run.plot.horizon(errors, metric="rmse")
        frame = report.to_frame()
        for line in lines.data:
            expected = frame[frame["forecaster"] == line.name]["rmse"]
            np.testing.assert_array_equal(line.y, expected)
        by_sensor = report.by("sensor").pivot_table("mae", "sensor", "forecaster")
        np.testing.assert_allclose(
            run.plot.map(errors).data[-1].marker.color, by_sensor["dcrnn"], rtol=1e-6
        )
        difference = by_sensor["dcrnn"] - by_sensor["persistence"]
        figure = run.plot.map(errors, against="persistence")
        np.testing.assert_allclose(figure.data[-1].marker.color, difference, rtol=1e-5)
        (grid,) = run.plot.hours(errors).data
        by_hour = report.by("hour-of-week").query("forecaster == 'dcrnn'")
        assert np.isfinite(grid.z).sum() == len(by_hour)
        first = by_hour.iloc[0]
        day, hour = first["hour-of-week"].split()
        value = grid.z[list(grid.y).index(day), int(hour[:2])]
        assert value == pytest.approx(first["mae"], rel=1e-6)


def test_what_the_run_did_not_keep_is_evaluated(run: Run) -> None:
    figure = run.plot.horizon("val")
    np.testing.assert_array_equal(
        figure.data[0].y, run.evaluate("val").to_frame().query("forecaster == 'dcrnn'")["mae"]
    )


def test_curves_of_training_are_its_history(run: Run) -> None:
    training, validation = run.plot.history().data
    np.testing.assert_array_equal(training.y, run.history["train_loss"])
    np.testing.assert_array_equal(validation.y, run.history["val_mae"])


@pytest.mark.parametrize(
    ("draw", "problem"),
    [
        (lambda plot: plot("z"), "there is no sensor 'z': the store has a, b, c"),
        (lambda plot: plot(step=3), "step is 3: the horizon has the steps 1 to 2"),
        (lambda plot: plot.forecast(max_windows=0), "max_windows is 0"),
        (
            lambda plot: plot.forecast(channel="c9"),
            "no target 'c9': the targets of this run are",
        ),
        (lambda plot: plot.map(metric="crps"), r"metric 'crps' is not one that the run computes"),
        (
            lambda plot: plot.map(against="ridge"),
            "no baseline 'ridge': the errors have pers",
        ),
        (lambda plot: plot.horizon("tset"), "tset"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    run: Run, draw: Callable[[RunPlots], object], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        draw(run.plot)


def test_errors_of_several_splits_are_not_drawn_as_one(run: Run) -> None:
    both = run.evaluate(["val", "test"])
    with pytest.raises(ConfigError, match=r"splits val, test: choose one, such as report\['val'\]"):
        run.plot.map(both)
    assert run.plot.map(both["val"]).data


def test_a_series_without_hours_is_refused_before_anything_is_evaluated(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", make_series(), interval_seconds=86_400)
    run = train_run(make_config(store), tmp_path / "run")[0]
    with pytest.raises(ConfigError, match=r"has no hours: .* run\.plot\.horizon\(\)"):
        run.plot.hours()
    assert run.read_test() is None


def test_a_run_lists_its_figures(run: Run) -> None:
    text = repr(run.plot)
    for name in ("()", ".forecast()", ".latest()", ".map()", ".horizon()", ".hours()"):
        assert name in text


def test_without_plotly_one_line_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    for plot in (run.plot, run.store.plot):
        with pytest.raises(MissingExtraError, match=r"pip install 'pgti\[report\]'"):
            plot()
