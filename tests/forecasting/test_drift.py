"""Drift of inputs against training."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgti.errors import ConfigError
from pgti.forecasting import Report, measure_drift
from pgti.forecasting.drift import describe_drift, drift_frame
from pgti.store import Scaler, SeriesStore, TypicalReadings

from ..training.tiny_training import make_store

TRAIN = range(24 * 14)


def make_values(num_days: int = 21, seed: int = 0) -> np.ndarray:
    """Hourly readings with a daily rhythm, [T, 3, 2]."""
    random = np.random.default_rng(seed)
    hours = np.arange(24 * num_days)[:, None, None]
    rhythm = 10 * np.sin(hours * np.pi / 12) + np.array([50.0, 500.0])
    return (rhythm + random.normal(size=(24 * num_days, 3, 2))).round(1).astype(np.float32)


def drift_of(path: Path, values: np.ndarray, rows: range) -> dict[str, Any]:
    store = make_store(path, values)
    return measured(store, rows)


def measured(store: SeriesStore, rows: range) -> dict[str, Any]:
    typical, scaler = TypicalReadings.fit(store, TRAIN), Scaler.fit(store, TRAIN)
    return measure_drift(store, rows, typical, scaler)


def test_figures_are_those_of_numpy(tmp_path: Path) -> None:
    """Mean, spread, missing, outside and the index, against a computation from the readings."""
    values = make_values()
    values[TRAIN.stop :, :, 0] += 8
    values[TRAIN.start : 40, 1, 0] = np.nan
    values[TRAIN.stop + 10 : TRAIN.stop + 60, 2, 0] = np.nan
    rows = range(TRAIN.stop, TRAIN.stop + 24 * 7)
    found = drift_of(tmp_path / "s", values, rows)["channels"]["c0"]
    train, now = (values[each.start : each.stop, :, 0] for each in (TRAIN, rows))
    seen, before = now[~np.isnan(now)].astype(float), train[~np.isnan(train)].astype(float)
    assert found["mean"] == pytest.approx(seen.mean(), rel=1e-9)
    assert found["std"] == pytest.approx(seen.std(), rel=1e-9)
    assert found["training_mean"] == pytest.approx(before.mean(), rel=1e-9)
    assert found["training_std"] == pytest.approx(before.std(), rel=1e-9)
    assert found["missing"] == pytest.approx(50 / now.size)
    assert found["training_missing"] == pytest.approx(40 / train.size, rel=1e-6)
    outside = (seen < before.min()) | (seen > before.max())
    assert 0.05 < found["outside"] == pytest.approx(outside.mean())
    edges = np.quantile(before, np.linspace(0.1, 0.9, 9))
    shares = [
        np.bincount(np.searchsorted(edges, each, side="right"), minlength=10) / len(each)
        for each in (seen, before)
    ]
    p, q = (np.maximum(each, 1e-4) for each in shares)
    assert found["psi"] == pytest.approx(((p - q) * np.log(p / q)).sum(), rel=0.05)
    assert found["shift"] == pytest.approx(8 / before.std(), rel=0.1)


def test_the_same_again_has_not_drifted(tmp_path: Path) -> None:
    drift = drift_of(tmp_path / "s", make_values(), range(TRAIN.stop, 24 * 21))
    assert all(each["psi"] < 0.05 for each in drift["channels"].values())
    assert describe_drift(drift, {"c0": "mph", "c1": ""}) is None


def test_a_few_hours_alone_are_no_drift(tmp_path: Path) -> None:
    """Their readings are distributed in another way, as they always are at that time."""
    drift = drift_of(tmp_path / "s", make_values(), range(TRAIN.stop, TRAIN.stop + 5))
    assert drift["channels"]["c0"]["psi"] > 0.25
    assert describe_drift(drift, {}) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda now: now * 10,
            r"c0: mean 4\d\d.* mph, in training 49.* \(population stability index",
        ),
        (lambda now: np.where(np.arange(len(now))[:, None] % 3 > 0, np.nan, now), "67% missing"),
        (lambda now: np.where(np.arange(len(now))[:, None] % 20 > 0, now, 0), "5% outside the"),
        (lambda now: now * np.nan, "c0 was never observed"),
    ],
)
def test_one_line_says_what_has_changed(tmp_path: Path, change: Any, message: str) -> None:
    values = make_values()
    values[TRAIN.stop :, :, 0] = change(values[TRAIN.stop :, :, 0])
    drift = drift_of(tmp_path / "s", values, range(TRAIN.stop, 24 * 21))
    line = describe_drift(drift, {"c0": "mph"})
    assert line is not None
    assert "\n" not in line
    assert "c1" not in line
    assert re.search(message, line), line


def test_the_worst_sensors_are_listed(tmp_path: Path) -> None:
    """By what is typical of each; one that was never observed comes first."""
    values = make_values()
    values[TRAIN.stop :, 1, 0] -= 20
    values[TRAIN.stop :, 2, 1] = np.nan
    drift = drift_of(tmp_path / "s", values, range(TRAIN.stop, 24 * 21))
    worst = drift["sensors"]["c0"][0]
    assert worst["sensor"] == "s1"
    assert worst["shift"] < -2
    assert drift["sensors"]["c1"][0] == {
        "sensor": "s2", "shift": None, "missing": 1.0, "outside": None,
    }  # fmt: skip
    frame = drift_frame({"test": {"drift": drift}}, "sensors")
    assert list(frame.columns) == ["split", "channel", "sensor", "shift", "missing", "outside"]
    assert len(frame) == 6


def test_constant_readings_and_many_equal_ones(tmp_path: Path) -> None:
    """Bins that share their edges are no reason to divide by zero."""
    values = make_values()
    values[..., 0] = 7
    values[..., 1] = np.where(values[..., 1] < 505, 0, values[..., 1])
    drift = drift_of(tmp_path / "s", values, range(TRAIN.stop, 24 * 21))["channels"]
    assert drift["c0"]["psi"] == 0
    assert drift["c1"]["psi"] < 0.05


def test_series_without_times(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", make_values(), dated=False)
    assert measured(store, range(TRAIN.stop, 24 * 21))["channels"]["c0"]["psi"] < 0.05


def test_reports_of_earlier_versions_have_none() -> None:
    content = {"mae": {"1": 1.0, "mean": 1.0}, "count": 1, "windows": 1, "split_windows": 1}
    report = Report({"test": content}, model="gru", units={"speed": ""}, metrics=("mae",))
    assert report.notes == ()
    assert report.breakdowns == ()
    assert report.average("mae") == 1.0
    with pytest.raises(ConfigError, match="has no drift: evaluate the run again"):
        _ = report.drift
    with pytest.raises(ConfigError, match="not broken down by 'sensor': it has none"):
        report.by("sensor")
