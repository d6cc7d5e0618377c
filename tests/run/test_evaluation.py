"""Evaluations of a run: breakdowns, ranges, drift, and what is stored of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pgti import ConfigError
from pgti.forecasting import BASELINES
from pgti.run import Run, train_run

from .small_runs import make_config, make_series, make_store


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained run of hourly readings of the sensors a, b and c."""
    directory = tmp_path_factory.mktemp("evaluation")
    store = make_store(directory / "store", make_series(num_steps=200))
    return train_run(make_config(store, epochs=1), directory / "run")[0]


@pytest.mark.parametrize("breakdown", ["sensor", "hour", "weekday", "hour-of-week", "range"])
def test_breakdowns_are_those_of_the_forecasts_themselves(run: Run, breakdown: str) -> None:
    """Of `Run.forecast`, grouped by pandas."""
    frame = run.forecast(split="test")
    error = (frame["forecast"].astype(float) - frame["observed"]).abs()
    report = run.evaluate("test")
    edges = report.to_dict()["test"]["by"]["range"]["c0"]["names"]
    bounds = [float(label.split(" to ")[-1].removeprefix("under ")) for label in edges[:-1]]
    keys: dict[str, Any] = {
        "sensor": frame["sensor"].astype("str"),
        "hour": frame["timestamp"].dt.hour,
        "weekday": frame["timestamp"].dt.day_name(),
        "hour-of-week": frame["timestamp"].dt.strftime("%A %H:00"),
        "range": np.array(edges)[np.searchsorted(bounds, frame["observed"], side="right")],
    }
    expected = error.groupby(keys[breakdown]).agg(["mean", "size"])
    found = report.by(breakdown).query("forecaster == 'dcrnn'").set_index(breakdown)
    assert len(found) == len(expected) > 1
    found = found.loc[expected.index]
    np.testing.assert_allclose(found["mae"], expected["mean"], rtol=1e-6)
    assert list(found["count"]) == list(expected["size"])
    assert set(report.by(breakdown)["forecaster"]) == {
        "dcrnn", *BASELINES,
    }  # fmt: skip


def test_columns_say_what_they_are(run: Run) -> None:
    report = run.evaluate(["val", "test"], ranges=(49, 50.5), metrics={"near": near})
    assert report.breakdowns == ("sensor", "hour", "weekday", "hour-of-week", "range")
    frame = report.by("range")
    assert list(frame.columns) == [
        "split", "forecaster", "channel", "range", "mae", "rmse", "mape", "near", "count",
    ]  # fmt: skip
    assert set(frame["range"]) == {"under 49", "49 to 50.5", "50.5 and over"}
    assert frame["near"].between(0, 1).all()
    assert str(report.by("hour")["hour"].dtype) == "int64"
    assert report.drift["channel"].tolist() == ["c0", "c0"]
    assert set(report.drift_by_sensor["sensor"]) == {"a", "b", "c"}
    overall = report.to_frame(by_horizon=False)
    assert {"mae", "mae_average", "near_average"} <= set(overall)


def near(prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> Any:
    return (((prediction - target).abs() < 1) & mask).sum(), mask.sum()


def test_the_threshold_of_mape_is_that_of_the_user(run: Run) -> None:
    """Targets of 50 and less count nowhere."""
    report = run.evaluate("test", mape_threshold=50.0)
    frame = run.forecast(split="test").astype({"forecast": float, "observed": float})
    chosen = frame[frame["observed"] > 50]
    expected = 100 * ((chosen["forecast"] - chosen["observed"]).abs() / chosen["observed"]).mean()
    assert report.mape == pytest.approx(expected, rel=1e-6)
    assert report.to_dict()["test"]["mape_threshold"] == 50.0
    with pytest.raises(ConfigError, match="mape_threshold is -1"):
        run.evaluate("test", mape_threshold=-1)
    with pytest.raises(ConfigError, match=r"ranges of c0 are \(2, 1\)"):
        run.evaluate("test", ranges=(2, 1))


def test_what_is_stored_says_the_same(run: Run) -> None:
    """`test.json` has the breakdowns, a list on one line, and gives the same frames."""
    report = run.evaluate("test")
    run.directory.write_test(report.to_dict()["test"])
    text = run.directory.test_file.read_text()
    assert json.loads(text) == report.to_dict()["test"]
    assert max(map(len, text.splitlines())) < 4000
    assert len(text.splitlines()) < 300
    again = run.read_test()
    assert again is not None
    for breakdown in report.breakdowns:
        pd.testing.assert_frame_equal(again.by(breakdown), report.by(breakdown))
    pd.testing.assert_frame_equal(again.drift, report.drift)


def test_stored_errors_of_an_earlier_version_are_read(run: Run) -> None:
    """Without averages, breakdowns and drift."""
    content = run.evaluate("test").to_dict()["test"]
    old = {name: each for name, each in content.items() if name not in ("by", "drift")}
    for table in [old, *(old[name] for name in BASELINES)]:
        for metric in ("mae", "rmse", "mape"):
            table[metric] = {k: v for k, v in table[metric].items() if k != "average"}
    run.directory.write_test(old)
    again = run.read_test()
    assert again is not None
    assert again.average("mae") == content["mae"]["average"]
    assert again.notes == ()
    with pytest.raises(ConfigError, match="not broken down by 'sensor'"):
        again.by("sensor")


@pytest.mark.parametrize("seconds", [86_400, None])
def test_series_without_hours(tmp_path: Path, seconds: int | None) -> None:
    """Days have weekdays, and a series without times sensors and ranges alone."""
    store = make_store(tmp_path / "store", make_series(), interval_seconds=seconds)
    run = train_run(make_config(store, epochs=1), tmp_path / "run")[0]
    names = ("sensor", "weekday", "range") if seconds else ("sensor", "range")
    report = run.evaluate()
    assert report.breakdowns == names
    with pytest.raises(ConfigError, match=f"by 'hour': it has {', '.join(names)}"):
        report.by("hour")


def test_several_targets_are_broken_down_one_by_one(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", make_series(num_channels=2))
    run = train_run(make_config(store, epochs=1), tmp_path / "run")[0]
    report = run.evaluate(ranges={"c1": [5000]})
    frame = report.by("range")
    assert set(frame["channel"]) == {"c1"}
    assert set(frame["range"]) == {"under 5000", "5000 and over"}
    assert len(report.by("sensor")) == 3 * 2 * 4  # three baselines beside the model
    with pytest.raises(ConfigError, match="there are 2 targets"):
        run.evaluate(ranges=[5000])
