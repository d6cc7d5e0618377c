"""First pictures: forecasts and errors of a run, coverage of a store."""

import sys
from pathlib import Path

import numpy as np
import pytest

from pgti import ConfigError, MissingExtraError, SeriesStore
from pgti.run import Run, train_run
from pgti.store.coverage import coverage

from .small_runs import make_config, make_series, make_store

pytest.importorskip("plotly")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = tmp_path_factory.mktemp("plots")
    values = make_series()
    values[30:40, 1] = np.nan
    return train_run(make_config(make_store(directory / "store", values)), directory / "run")[0]


def test_a_run_shows_forecasts_beside_observations_and_errors_by_horizon(run: Run) -> None:
    figure = run.plot("b", step=1)
    observed, forecast, *errors = figure.data
    frame = run.forecast(split="test").query("sensor == 'b' and horizon == 1")
    np.testing.assert_array_equal(observed.y, frame["observed"])
    np.testing.assert_array_equal(forecast.y, frame["forecast"])
    np.testing.assert_array_equal(observed.x, frame["timestamp"].to_numpy())
    assert forecast.name == "forecast 60 min ahead"
    assert [each.name for each in errors] == [
        "MAE of dcrnn", "MAE of persistence", "MAE of historical-average",
        "MAE of seasonal-naive",
    ]  # fmt: skip
    report = run.evaluate().to_frame()
    expected = report.query("forecaster == 'dcrnn'")["mae"]
    np.testing.assert_array_equal(errors[0].y, expected)
    assert "plotly" in figure.to_html(include_plotlyjs="cdn")


def test_a_picture_covers_the_last_windows_alone(run: Run) -> None:
    assert len(run.plot(max_windows=5).data[0].y) == 5


def test_what_cannot_be_shown_is_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match="there is no sensor 'z': the store has a, b, c"):
        run.plot("z")
    with pytest.raises(ConfigError, match="step is 3: the horizon has the steps 1 to 2"):
        run.plot(step=3)


def test_a_store_shows_what_was_observed(run: Run) -> None:
    (heat,) = run.store.plot().data
    assert list(heat.y) == ["a", "b", "c"]
    assert heat.z.shape == (3, 80)
    assert not heat.z[1, 30:40].any()
    assert heat.z.mean() == pytest.approx(1 - 10 / 240)


@pytest.mark.parametrize("budget_bytes", [1, 200, 1 << 20])
def test_coverage_of_a_large_series_is_binned_in_bounded_memory(budget_bytes: int) -> None:
    values = np.random.default_rng(0).normal(size=(103, 11, 2)).astype(np.float32)
    values[np.random.default_rng(1).random(values.shape) < 0.3] = np.nan
    rows, sensors, shares = coverage(
        lambda first, stop: values[first:stop],
        values.shape,  # type: ignore[arg-type]
        max_times=10,
        max_sensors=4,
        budget_bytes=budget_bytes,
    )
    assert (len(rows), len(sensors)) == (10, 4)
    for i, row in enumerate(rows):
        for j, sensor in enumerate(sensors):
            block = values[row : (*rows[1:], 103)[i], sensor : (*sensors[1:], 11)[j]]
            assert shares[i, j] == pytest.approx(np.isfinite(block).mean())


def test_without_plotly_one_line_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    for plot in (run.plot, run.store.plot):
        with pytest.raises(MissingExtraError, match=r"pip install 'pgti\[report\]'"):
            plot()


def test_a_store_without_times_counts_rows(tmp_path: Path) -> None:
    import pgti  # noqa: PLC0415

    store: SeriesStore = pgti.ingest(make_series()[..., 0], tmp_path / "s")
    (heat,) = store.plot().data
    assert list(heat.x[:3]) == [0, 1, 2]
