"""Persistence and the historical average."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pgti.errors import ConfigError
from pgti.forecasting.baselines import HistoricalAverage, Persistence


def test_persistence_repeats_the_last_observed_reading() -> None:
    """An earlier reading stands in for a missing one, 0 where there is none, per channel."""
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1).repeat(1, 1, 4, 1)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    forecast = Persistence(3, (0,))(x, mask.t().view(1, 4, 4, 1))
    assert forecast.shape == (1, 3, 4, 1)
    assert forecast[0, :, :, 0].tolist() == [[4.0, 3.0, 1.0, 0.0]] * 3


@settings(deadline=None)
@given(st.data())
def test_persistence_equals_a_search_backwards(data: st.DataObject) -> None:
    """Whatever is missing, each target of each sample is found as a loop would find it."""
    seed = data.draw(st.integers(0, 10_000))
    targets = tuple(data.draw(st.permutations(range(3)))[: data.draw(st.integers(1, 3))])
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, 4, 2, 3, generator=generator)
    mask = torch.rand(3, 4, 2, 3, generator=generator) < 0.4
    forecast = Persistence(3, targets)(x, mask)
    for sample in range(3):
        for node in range(2):
            for output, channel in enumerate(targets):
                seen = [
                    x[sample, step, node, channel].item()
                    for step in range(4)
                    if mask[sample, step, node, channel]
                ]
                expected = seen[-1] if seen else 0.0
                assert forecast[sample, :, node, output].tolist() == [expected] * 3


def test_historical_average_looks_up_the_slot() -> None:
    """Each target row gets the averages of its time of the week."""
    table = torch.arange(24.0).view(4, 3, 2)
    week_bins = torch.tensor([[0, 3], [1, 1]])
    forecast = HistoricalAverage(table)(week_bins)
    assert forecast.shape == (2, 2, 3, 2)
    for sample in range(2):
        for step in range(2):
            assert torch.equal(forecast[sample, step], table[week_bins[sample, step]])


def test_historical_average_is_saved_with_its_table() -> None:
    """A state dict holds the table."""
    source, target = HistoricalAverage(torch.rand(4, 3, 1)), HistoricalAverage(torch.zeros(4, 3, 1))
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.table, source.table)


def test_tables_with_gaps_are_refused() -> None:
    """Gaps are for whoever builds the table to fill."""
    with pytest.raises(ConfigError, match="has 2 gaps"):
        HistoricalAverage(torch.tensor([1.0, torch.nan, torch.nan]).view(3, 1, 1))
    with pytest.raises(ConfigError, match=r"shape \(3, 1\)"):
        HistoricalAverage(torch.zeros(3, 1))
