"""Errors of forecasts as sums and counts."""

import math

import pytest
import torch

from pgti.errors import ConfigError, RunError
from pgti.forecasting import ForecastMetrics

# Two windows, two horizon steps, one node, one channel.
TARGET = torch.tensor([[10.0, 0.0], [20.0, 4.0]])[..., None, None]
PREDICTION = torch.tensor([[13.0, 2.0], [16.0, 99.0]])[..., None, None]
MASK = torch.tensor([[True, True], [True, False]])[..., None, None]


def measured(*parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> ForecastMetrics:
    """Metrics of the given batches."""
    metrics = ForecastMetrics(horizon=2)
    for part in parts:
        metrics.update(*part)
    return metrics


def test_errors_are_those_computed_by_hand() -> None:
    """Errors 3 and -4 at step 1, 2 at step 2; the masked 95 counts nowhere, nor zero in MAPE."""
    summary = measured((PREDICTION, TARGET, MASK)).summary()

    assert summary["mae"] == pytest.approx(
        {"1": 3.5, "2": 2.0, "mean": 3.0, "average": 2.75}, rel=1e-14
    )
    assert summary["rmse"] == pytest.approx(
        {
            "1": math.sqrt(12.5),
            "2": 2.0,
            "mean": math.sqrt(29 / 3),
            "average": (math.sqrt(12.5) + 2.0) / 2,
        },
        rel=1e-14,
    )
    assert summary["mape"]["1"] == pytest.approx(25.0, rel=1e-14)  # 30 % and 20 %
    assert summary["mape"]["2"] is None
    assert summary["mape"]["mean"] == pytest.approx(25.0, rel=1e-14)
    assert summary["mape"]["average"] == pytest.approx(25.0, rel=1e-14)  # of the step that has one
    assert summary["count"] == 3


def test_mape_leaves_out_small_targets_as_told() -> None:
    """The threshold decides which targets a relative error is computed of."""
    metrics = ForecastMetrics(horizon=2, mape_threshold=15.0)
    metrics.update(PREDICTION, TARGET, MASK)

    assert metrics.summary()["mape"]["mean"] == pytest.approx(20.0)


def test_mean_is_over_targets_and_not_over_steps() -> None:
    """Two targets at step 1 weigh twice as much as one at step 2."""
    summary = measured((PREDICTION, TARGET, MASK)).summary()

    assert summary["mae"]["mean"] != pytest.approx((3.5 + 2.0) / 2)


def test_nothing_observed_gives_none() -> None:
    """A step without observed targets has no error, which is not zero and not NaN."""
    summary = measured((PREDICTION, TARGET, torch.zeros_like(MASK))).summary()

    nothing = {"1": None, "2": None, "mean": None, "average": None}
    assert summary == {"mae": nothing, "rmse": nothing, "mape": nothing, "count": 0}


def test_a_masked_forecast_that_is_not_finite_counts_nowhere() -> None:
    """What is forecast for a missing reading cannot spoil the errors."""
    spoiled = torch.where(MASK, PREDICTION, torch.nan)

    assert (
        measured((spoiled, TARGET, MASK)).summary()
        == measured((PREDICTION, TARGET, MASK)).summary()
    )


def test_a_forecast_that_is_not_finite_is_an_error() -> None:
    """A diverged model is told of, not averaged."""
    metrics = measured((PREDICTION * torch.nan, TARGET, MASK))

    with pytest.raises(RunError, match="not finite"):
        metrics.summary()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20])
def test_the_batch_size_changes_nothing(size: int) -> None:
    """Batches of any size, the last one ragged, and merged parts give the same errors."""
    generator = torch.Generator().manual_seed(1)
    target, prediction = (torch.rand(20, 2, 5, 1, generator=generator) * 70 for _ in range(2))
    mask = torch.rand(20, 2, 5, 1, generator=generator) < 0.7
    whole = measured((prediction, target, mask)).summary()

    pieces = list(zip(prediction.split(size), target.split(size), mask.split(size), strict=True))
    merged = measured(*pieces[::2])
    merged.sums += measured(*pieces[1::2]).sums

    for error in ("mae", "rmse", "mape"):
        assert merged.summary()[error] == pytest.approx(whole[error], rel=1e-13)
    assert merged.summary()["count"] == whole["count"] == int(mask.sum())


def test_channels_are_told_apart() -> None:
    """The summary of one channel is that of the metrics of this channel alone."""
    target = torch.tensor([[[[10.0, 1.0]]]])
    prediction = torch.tensor([[[[12.0, 4.0]]]])
    metrics = ForecastMetrics(horizon=1, num_targets=2)
    metrics.update(prediction, target, torch.ones_like(target, dtype=torch.bool))

    assert metrics.summary(channel=0)["mae"]["mean"] == 2.0
    assert metrics.summary(channel=1)["mae"]["mean"] == 3.0
    assert metrics.summary()["mae"]["mean"] == 2.5


def test_sums_are_exact_where_float32_would_not_be() -> None:
    """Many small errors on large readings are summed in float64."""
    target = torch.full((1000, 1, 1000, 1), 16_000.0)
    prediction = target + 1 / 512
    metrics = ForecastMetrics(horizon=1)
    metrics.update(prediction, target, torch.ones_like(target, dtype=torch.bool))

    expected = float(prediction[0, 0, 0, 0].double() - 16_000.0)
    assert metrics.summary()["mae"]["mean"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("threshold", [-1.0, math.nan, math.inf])
def test_a_threshold_that_is_no_magnitude_is_refused(threshold: float) -> None:
    """A negative or unbounded threshold is an error of the user."""
    with pytest.raises(ConfigError, match="mape_threshold"):
        ForecastMetrics(horizon=1, mape_threshold=threshold)
