"""The seasonal naive forecast, ridge regression, boosting and Chronos-2 beside a model."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

import pgti
from pgti.batching import WindowConfig, WindowSource
from pgti.batching.standard import StandardBatcher
from pgti.errors import ConfigError, MissingExtraError
from pgti.forecasting.baselines import build_baselines
from pgti.forecasting.baselines.features import WindowFeatures, earlier_lags
from pgti.forecasting.baselines.past_readings import season_steps
from pgti.store import SeriesStore, TimeAxis, TypicalReadings

_WINDOWS = WindowConfig(input_steps=6, horizon=4)


def _readings(days: int = 28) -> NDArray[np.float64]:
    """Hourly readings of three sensors: a day, a week, a random walk that decays, and gaps."""
    generator = np.random.default_rng(3)
    hours = np.arange(24 * days)
    daily = 10 * np.sin(2 * np.pi * hours / 24)[:, None] * np.array([1.0, 2.0, -1.0])
    noise = np.zeros((len(hours), 3))
    for hour in range(1, len(hours)):
        noise[hour] = 0.9 * noise[hour - 1] + generator.normal(size=3)
    values = 50 + daily + noise
    values[generator.random(values.shape) < 0.05] = np.nan
    return values


def _store(path: Path, values: NDArray[np.float64]) -> SeriesStore:
    times = pd.date_range("2024-01-01", periods=len(values), freq="h")
    return pgti.ingest(pd.DataFrame(values, index=times, columns=["a", "b", "c"]), path)


@pytest.fixture
def store(tmp_path: Path) -> SeriesStore:
    """The readings as a store."""
    return _store(tmp_path / "s", _readings())


def _mae(store: SeriesStore, name: str, starts: NDArray[np.int64]) -> float:
    """Mean absolute error of a baseline over observed targets."""
    source = WindowSource.from_config(store, _WINDOWS)
    baselines = build_baselines(source, _WINDOWS.splits(store), [name])
    batch = StandardBatcher(source, torch.device("cpu")).gather(starts)
    assert batch.y is not None
    assert batch.y_mask is not None
    forecast = baselines[name](batch)
    assert forecast.shape == batch.y.shape
    assert forecast.dtype == batch.y.dtype
    return float((forecast - batch.y)[batch.y_mask].abs().mean())


def test_the_seasonal_naive_forecast_is_the_reading_of_last_week(store: SeriesStore) -> None:
    """Or of the week before where that is missing, or the last observed reading of the window."""
    source = WindowSource.from_config(store, _WINDOWS)
    naive = build_baselines(source, _WINDOWS.splits(store))["seasonal-naive"]
    starts = np.array([0, 100, 200, 401, 662])
    batch = StandardBatcher(source, torch.device("cpu")).gather(starts)
    forecast = naive(batch)
    readings = store.read(0, store.meta.num_steps)[..., 0]
    for window, start in enumerate(starts):
        for step in range(4):
            row = start + 6 + step
            for node in range(3):
                earlier = [readings[row - lag, node] for lag in (168, 336) if row >= lag]
                past = readings[start : start + 6, node]
                found = [each for each in earlier if not np.isnan(each)]
                found += [*past[~np.isnan(past)][::-1]]
                assert forecast[window, step, node, 0].item() == pytest.approx(found[0], abs=1e-4)


@pytest.mark.parametrize(
    ("seconds", "steps"),
    [(300, 2016), (3600, 168), (86_400, 7), (7 * 86_400, 52), (5_000, None), (365 * 86_400, None)],
)
def test_a_season_is_a_week_or_a_year(seconds: int, steps: int | None) -> None:
    """Of any interval that divides it."""
    axis = TimeAxis(num_steps=50, start_seconds=0, interval_seconds=seconds)
    assert season_steps(axis) == steps
    assert season_steps(TimeAxis(num_steps=50)) is None


def test_months_and_working_days_have_seasons_too(tmp_path: Path) -> None:
    """Twelve months, four quarters, and five working days."""
    for freq, steps in (("MS", 12), ("QS", 4), ("B", 5)):
        times = pd.date_range("2015-01-01", periods=60, freq=freq)
        frame = pd.DataFrame(np.arange(60.0), index=times, columns=["a"])
        assert season_steps(pgti.ingest(frame, tmp_path / freq).time_axis) == steps


def test_ridge_solves_the_normal_equations(store: SeriesStore) -> None:
    """As a direct solution with scipy-like least squares of one sensor and one step does."""
    source = WindowSource.from_config(store, _WINDOWS)
    splits = _WINDOWS.splits(store)
    ridge = build_baselines(source, splits, ["ridge"])["ridge"]
    typical = TypicalReadings.fit(store, splits.train_rows(_WINDOWS.spec))
    features = WindowFeatures(source, typical, earlier_lags(source))
    sample = features.sample(np.asarray(splits.train, dtype=np.int64))
    node, step = 1, 2
    table = np.concatenate(
        [
            np.nan_to_num(sample.recent[:, node, 0]),
            np.nan_to_num(sample.earlier[:, node, 0, step]),
            sample.typical[:, node, 0, step, None],
            np.ones((len(sample.target), 1)),
        ],
        axis=1,
    )
    target = sample.target[:, node, 0, step]
    table, target = table[~np.isnan(target)], target[~np.isnan(target)]
    gram = table.T @ table
    candidates = []
    for penalty in (1e-3, 1e-2, 1e-1, 1.0, 10.0):
        added = penalty * np.trace(gram) / len(gram) * np.eye(len(gram))
        added[-1, -1] = 0
        candidates.append(np.linalg.solve(gram + added, table.T @ target))
    found = ridge.coefficients[node, 0, step]  # type: ignore[index]
    assert min(np.abs(found - each).max() for each in candidates) < 1e-5


def test_regressions_beat_what_is_not_fitted(store: SeriesStore) -> None:
    """On a noisy daily course, over the test windows."""
    starts = np.asarray(_WINDOWS.splits(store).test, dtype=np.int64)
    names = ("persistence", "historical-average", "seasonal-naive", "ridge", "lightgbm")
    errors = {name: _mae(store, name, starts) for name in names}
    for fitted in ("ridge", "lightgbm"):
        assert errors[fitted] < 0.9 * min(errors[name] for name in names[:3])


@pytest.mark.parametrize("name", ["seasonal-naive", "ridge", "lightgbm"])
def test_no_forecast_depends_on_a_reading_after_its_origin(tmp_path: Path, name: str) -> None:
    """Other readings from the origin of a test window on change nothing that it is forecast."""
    values = _readings()
    other = values.copy()
    start = len(values) - 40
    other[start + 6 :] = np.random.default_rng(0).normal(50, 20, other[start + 6 :].shape)
    forecasts = []
    for number, each in enumerate((values, other)):
        store = _store(tmp_path / str(number), each)
        source = WindowSource.from_config(store, _WINDOWS)
        baseline = build_baselines(source, _WINDOWS.splits(store), [name])[name]
        batch = StandardBatcher(source, torch.device("cpu")).gather(np.array([start]))
        forecasts.append(baseline(batch))
    torch.testing.assert_close(forecasts[0], forecasts[1])


def test_a_horizon_longer_than_a_day_never_looks_past_the_origin(store: SeriesStore) -> None:
    """Of 30 hours ahead, the reading a day before the target is not known yet."""
    windows = WindowConfig(input_steps=6, horizon=30)
    source = WindowSource.from_config(store, windows)
    typical = TypicalReadings.fit(store, range(300))
    sample = WindowFeatures(source, typical, earlier_lags(source)).sample(np.array([300]))
    assert np.isnan(sample.earlier[0, :, 0, 24:, 0]).all()
    assert not np.isnan(sample.earlier[0, :, 0, 24:, 1]).all()


def test_unknown_baselines_are_refused(store: SeriesStore) -> None:
    """With the nearest name; and Chronos-2 with a directory that has no weights."""
    source = WindowSource.from_config(store, _WINDOWS)
    splits = _WINDOWS.splits(store)
    for name, message in (
        ("rigde", "did you mean 'ridge'"),
        ("chronos", "chronos:PATH"),
        ("chronos:/nowhere", "no config.json"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_baselines(source, splits, [name])


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [("lightgbm", "lightgbm", "boosting"), ("chronos:{}", "chronos", "chronos")],
)
def test_a_missing_library_names_its_extra(
    store: SeriesStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    library: str,
    extra: str,
) -> None:
    """And the baselines that do not need it work without it."""
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, library, None)  # importing it now fails
    source, splits = WindowSource.from_config(store, _WINDOWS), _WINDOWS.splits(store)
    with pytest.raises(MissingExtraError, match=rf"pip install 'pgti\[{extra}\]'"):
        build_baselines(source, splits, [name.format(tmp_path)])
    assert list(build_baselines(source, splits, ["ridge"])) == ["ridge"]


def test_chronos_forecasts_with_the_weights_of_a_directory(
    store: SeriesStore, tmp_path: Path
) -> None:
    """A tiny network of random weights: its medians are what its pipeline gives for each sensor."""
    chronos2 = pytest.importorskip("chronos.chronos2")
    config = chronos2.Chronos2CoreConfig(
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        chronos_config={
            "context_length": 64,
            "output_patch_size": 4,
            "input_patch_size": 4,
            "input_patch_stride": 4,
            "quantiles": [level / 10 for level in range(1, 10)],
            "use_reg_token": True,
            "use_arcsinh": True,
            "max_output_patches": 2,
        },
    )
    config.architectures = ["Chronos2Model"]
    torch.manual_seed(0)
    network = chronos2.Chronos2Model(config).eval()
    network.save_pretrained(tmp_path / "weights")
    source = WindowSource.from_config(store, _WINDOWS)
    name = f"chronos:{tmp_path / 'weights'}"
    baseline = build_baselines(source, _WINDOWS.splits(store), [name])["chronos"]
    batch = StandardBatcher(source, torch.device("cpu")).gather(np.array([0, 300]))
    forecast = baseline(batch)
    assert forecast.shape == (2, 4, 3, 1)
    pipeline = chronos2.Chronos2Pipeline(network)
    readings = store.read(0, store.meta.num_steps)[..., 0]
    past = torch.from_numpy(readings[306 - 64 : 306, 1].copy())
    median, _ = pipeline.predict_quantiles([past], prediction_length=4, quantile_levels=[0.5])
    torch.testing.assert_close(forecast[1, :, 1, 0], median[0][0, :, 0])
