"""Evaluation of several forecasters in one pass."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pgti.batching import WindowSource
from pgti.errors import ConfigError, RunError
from pgti.forecasting import (
    HistoricalAverageForecaster,
    PersistenceForecaster,
    evaluate,
    evaluation_report,
)

from ..training.tiny_training import (
    SPEC,
    Constant,
    Setting,
    make_forecaster,
    make_loader,
    make_series,
    make_setting,
    make_source,
    make_store,
)

STARTS = range(54, 75)


def naive(
    forecast: np.ndarray, target: np.ndarray, threshold: float = 1e-3
) -> dict[str, dict[str, float]]:
    """The errors as anybody would compute them, NaN targets being missing; [S, H, N, C]."""
    errors: dict[str, dict[str, float]] = {"mae": {}, "rmse": {}, "mape": {}}
    for name, step in [(str(h + 1), h) for h in range(SPEC.horizon)] + [("mean", slice(None))]:
        truth = target[:, step].astype(np.float64)
        error = np.abs(forecast[:, step].astype(np.float64) - truth)
        relevant = np.abs(truth) > threshold
        errors["mae"][name] = np.nanmean(error)
        errors["rmse"][name] = np.sqrt(np.nanmean(error**2))
        errors["mape"][name] = 100 * np.mean(error[relevant] / np.abs(truth[relevant]))
    for table in errors.values():
        table["average"] = np.mean([table[str(h + 1)] for h in range(SPEC.horizon)])
    return errors


def windows_of(values: np.ndarray, starts: range) -> np.ndarray:
    """Targets of the windows, [S, H, N, C]."""
    return np.stack([values[start + SPEC.input_steps :][: SPEC.horizon] for start in starts])


def test_evaluation_agrees_with_a_naive_computation(tmp_path: Path) -> None:
    """For a constant, from the readings themselves, with missing and zero targets."""
    values = make_series()
    values[60:64, 1] = 0.0
    store = make_store(tmp_path / "store", values)

    loader = make_loader(make_source(store), STARTS, 4)
    found = evaluate({"model": Constant(50.0)}, loader)["model"].summary()

    target = windows_of(values, STARTS)
    expected = naive(np.full_like(target, 50.0), target)
    for error, table in expected.items():
        assert found[error] == pytest.approx(table, rel=1e-12), error
    assert found["count"] == int((~np.isnan(target)).sum())


def test_one_pass_gives_what_single_passes_give(tmp_path: Path) -> None:
    """Evaluating together changes no number."""
    setting = make_setting(tmp_path)
    source = setting.source
    forecasters = {
        "model": make_forecaster(setting),
        "persistence": PersistenceForecaster(source.scaler, (0,), SPEC.horizon),
        "historical-average": HistoricalAverageForecaster.fit(
            source.store,
            range(60),
            target_indices=(0,),
            input_steps=SPEC.input_steps,
            horizon=SPEC.horizon,
        ),
    }
    loader = make_loader(source, STARTS, 4)

    together = evaluate(forecasters, loader)

    assert list(together) == list(forecasters)
    for name, forecaster in forecasters.items():
        alone = evaluate({name: forecaster}, loader)[name]
        assert together[name].summary() == alone.summary()


@pytest.mark.parametrize("batch_size", [1, 2, 5, 20, 100])
def test_the_batch_size_changes_nothing(tmp_path: Path, batch_size: int) -> None:
    """21 windows in batches of any size, the last one ragged."""
    source = make_setting(tmp_path).source
    forecasters = {"model": PersistenceForecaster(source.scaler, (0,), SPEC.horizon)}
    whole = evaluate(forecasters, make_loader(source, STARTS, len(STARTS)))["model"].summary()

    found = evaluate(forecasters, make_loader(source, STARTS, batch_size))["model"].summary()

    for error in ("mae", "rmse", "mape"):
        assert found[error] == pytest.approx(whole[error], rel=1e-12)
    assert found["count"] == whole["count"]


def test_training_mode_comes_back(tmp_path: Path) -> None:
    """Evaluation is without dropout, and training goes on with it."""
    setting: Setting = make_setting(tmp_path, network="dropout")
    forecaster = make_forecaster(setting)
    loader = make_loader(setting.source, STARTS, 4)

    once, twice = (evaluate({"model": forecaster}, loader)["model"].summary() for _ in range(2))

    assert once == twice
    assert forecaster.network.training
    assert all(parameter.grad is None for parameter in forecaster.network.parameters())


def test_a_report_has_the_model_in_front(tmp_path: Path) -> None:
    """Its tables are at the top, the others' under their names."""
    loader = make_loader(make_setting(tmp_path).source, STARTS, 4)
    metrics = evaluate({"model": Constant(50.0), "persistence": Constant(40.0)}, loader)

    report = evaluation_report(metrics, "model", ("c0",))

    assert set(report) == {"mae", "rmse", "mape", "count", "persistence"}
    assert report["mae"] == metrics["model"].summary()["mae"]
    assert report["persistence"] == metrics["persistence"].summary()
    assert list(report["mae"]) == ["1", "2", "3", "mean", "average"]


@pytest.mark.parametrize(
    ("names", "main", "message"),
    [
        (("model",), "dcrnn", "no forecaster 'dcrnn': it is one of model"),
        (("model", "mae"), "model", "cannot be called 'mae'"),
    ],
)
def test_names_that_mean_nothing_are_refused(
    tmp_path: Path, names: tuple[str, ...], main: str, message: str
) -> None:
    """A report must say whose errors are whose."""
    loader = make_loader(make_setting(tmp_path).source, STARTS, 4)
    metrics = evaluate({name: Constant(50.0) for name in names}, loader)

    with pytest.raises(ConfigError, match=message):
        evaluation_report(metrics, main, ("c0",))


def two_channels(tmp_path: Path) -> tuple[np.ndarray, WindowSource]:
    """Readings whose second channel has another unit, and their windows."""
    values = make_series(num_channels=2) * np.array([1.0, 1000.0], dtype=np.float32)
    return values, make_source(make_store(tmp_path / "store", values), (1, 0))


def test_channels_are_told_apart_in_a_report(tmp_path: Path) -> None:
    """Each target's errors are those of a naive computation on its readings alone."""
    values, source = two_channels(tmp_path)
    persistence = PersistenceForecaster(source.scaler, (1, 0), SPEC.horizon)
    loader = make_loader(source, STARTS, 4)
    metrics = evaluate({"model": persistence, "rule": persistence}, loader)

    report = evaluation_report(metrics, "model", ("c1", "c0"))

    assert set(report) == {"mae", "rmse", "mape", "count", "channels", "rule"}
    assert report["rule"]["channels"] == report["channels"]
    forecast = np.concatenate([persistence(batch).numpy().copy() for batch in loader.epoch(0)])
    assert list(report["channels"]) == ["c1", "c0"]
    for position, (name, channel) in enumerate((("c1", 1), ("c0", 0))):
        target = windows_of(values, STARTS)[..., channel : channel + 1]
        expected = naive(forecast[..., position : position + 1], target)
        for error, table in expected.items():
            # The targets of a batch are float32 of the store's, the means of another.
            assert report["channels"][name][error] == pytest.approx(table, rel=1e-6), error
        assert report["channels"][name]["count"] == int((~np.isnan(target)).sum())
    counts = [report["channels"][name]["count"] for name in ("c0", "c1")]
    assert report["count"] == sum(counts)


def test_every_target_has_one_name(tmp_path: Path) -> None:
    """One name for two channels would hide one of them."""
    _, source = two_channels(tmp_path)
    persistence = PersistenceForecaster(source.scaler, (1, 0), SPEC.horizon)
    metrics = evaluate({"model": persistence}, make_loader(source, STARTS, 4))

    with pytest.raises(ConfigError, match="1 channels are named and 2 are forecast"):
        evaluation_report(metrics, "model", ("c0",))


def test_no_window_is_an_error(tmp_path: Path) -> None:
    """There is nothing to evaluate."""
    loader = make_loader(make_setting(tmp_path).source, range(0), 4)

    with pytest.raises(ConfigError, match="no window to evaluate"):
        evaluate({"model": Constant(50.0)}, loader)


def test_windows_without_targets_are_an_error(tmp_path: Path) -> None:
    """Nobody knows the future."""
    loader = make_loader(make_setting(tmp_path).source, range(86, 87), 4, with_targets=False)

    with pytest.raises(ConfigError, match="no targets"):
        evaluate({"model": Constant(50.0)}, loader)


def test_a_diverged_model_is_an_error(tmp_path: Path) -> None:
    """NaN forecasts are not averaged away."""
    setting = make_setting(tmp_path, network="linear")
    forecaster = make_forecaster(setting)
    with torch.no_grad():
        forecaster.network.linear.bias.fill_(torch.nan)

    with pytest.raises(RunError, match="not finite"):
        evaluate({"model": forecaster}, make_loader(setting.source, STARTS, 4))["model"].summary()
