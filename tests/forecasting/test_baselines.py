"""Persistence and the historical average."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pgti
from pgti.batching import Batch
from pgti.errors import ConfigError
from pgti.forecasting.baselines import HistoricalAverageForecaster
from pgti.forecasting.baselines.persistence import last_observed
from pgti.store import TimeAxis


def test_persistence_repeats_the_last_observed_reading() -> None:
    """An earlier reading stands in for a missing one, 0 where there is none, per channel."""
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1).repeat(1, 1, 4, 1)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    last = last_observed(x, mask.t().view(1, 4, 4, 1), (0,))
    assert last.shape == (1, 1, 4, 1)
    assert last[0, 0, :, 0].tolist() == [4.0, 3.0, 1.0, 0.0]


@settings(deadline=None)
@given(st.data())
def test_persistence_equals_a_search_backwards(data: st.DataObject) -> None:
    """Whatever is missing, each target of each sample is found as a loop would find it."""
    seed = data.draw(st.integers(0, 10_000))
    targets = tuple(data.draw(st.permutations(range(3)))[: data.draw(st.integers(1, 3))])
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, 4, 2, 3, generator=generator)
    mask = torch.rand(3, 4, 2, 3, generator=generator) < 0.4
    last = last_observed(x, mask, targets)
    for sample in range(3):
        for node in range(2):
            for output, channel in enumerate(targets):
                seen = [
                    x[sample, step, node, channel].item()
                    for step in range(4)
                    if mask[sample, step, node, channel]
                ]
                expected = seen[-1] if seen else 0.0
                assert last[sample, 0, node, output].item() == expected


def historical_average(table: torch.Tensor) -> HistoricalAverageForecaster:
    """Averages by the hour of a week that begins on a Monday; 2 inputs, 3 steps to forecast."""
    monday = 4 * 86_400
    hours = TimeAxis(num_steps=400, start_seconds=monday, interval_seconds=3600)
    return HistoricalAverageForecaster(table, 1, hours, input_steps=2, horizon=3)


def test_historical_average_looks_up_the_bin_of_the_week() -> None:
    """Each target row gets the averages of its time of the week."""
    table = torch.arange(168.0 * 3 * 2).view(168, 3, 2)
    starts = np.array([0, 164, 300])
    nothing = torch.zeros(3, 2, 3, 2)
    batch = Batch(
        x=nothing, x_mask=nothing.bool(), y=None, y_mask=None, calendar=nothing, starts=starts
    )
    forecast = historical_average(table)(batch)
    assert forecast.shape == (3, 3, 3, 2)
    for window, start in enumerate(starts):
        for step in range(3):
            assert torch.equal(forecast[window, step], table[(start + 2 + step) % 168])


def test_historical_average_is_saved_with_its_table() -> None:
    """A state dict holds the table."""
    source = historical_average(torch.rand(168, 3, 1))
    target = historical_average(torch.zeros(168, 3, 1))
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.table, source.table)


def test_tables_with_gaps_are_refused() -> None:
    """Whoever builds the table fills the gaps."""
    with pytest.raises(ConfigError, match="has 2 gaps"):
        historical_average(torch.tensor([1.0, torch.nan, torch.nan]).view(3, 1, 1))
    with pytest.raises(ConfigError, match=r"shape \(3, 1\)"):
        historical_average(torch.zeros(3, 1))


@pytest.mark.parametrize(("freq", "zone"), [("MS", None), ("ME", "Europe/Rome"), ("QS", None)])
def test_the_average_of_a_monthly_series_is_that_of_the_month(
    tmp_path: Path, freq: str, zone: str | None
) -> None:
    """Each forecast is the mean of the same month of the training years, by the clock."""
    times = pd.date_range("2010-01-01", periods=96, freq=freq)
    values = np.random.default_rng(4).normal(20, 5, (96, 2)).round(1)
    values[5, 0] = np.nan
    frame = pd.DataFrame(values, index=times, columns=["a", "b"])
    store = pgti.ingest(frame, tmp_path / "s", time_zone=zone)
    average = HistoricalAverageForecaster.fit(
        store, range(60), target_indices=(0,), input_steps=4, horizon=3
    )
    starts = np.array([0, 70, 93])  # the last window reaches beyond the end
    nothing = torch.zeros(3, 4, 2, 1)
    batch = Batch(
        x=nothing, x_mask=nothing.bool(), y=None, y_mask=None, calendar=nothing, starts=starts
    )
    months = pd.date_range("2010-01-01", periods=120, freq=freq).month
    means = frame[:60].groupby(months[:60]).mean()
    rows = starts[:, None] + 4 + np.arange(3)
    expected = means.to_numpy(np.float32)[means.index.get_indexer(months[rows.ravel()])]
    np.testing.assert_allclose(average(batch)[..., 0].numpy().reshape(-1, 2), expected, rtol=1e-6)
