"""Counting what a training step holds."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pgti.forecasting import NetworkForecaster
from pgti.memory import LiveBytes, step_peak_bytes
from pgti.nn import Supports
from pgti.training import TrainingConfig
from pgti.training.step import TrainStep

from ..training.tiny_training import LinearNet, make_loader, make_series, make_source, make_store

FLOAT_BYTES = 4


def test_tensors_count_while_they_are_alive() -> None:
    """A storage once, however many tensors share it; nothing after it is freed."""
    before = torch.ones(10)
    with LiveBytes() as memory:
        first = torch.ones(1000)
        second = first.view(10, 100).t()
        assert memory.alive_bytes == 1000 * FLOAT_BYTES
        third = first + 1
        del first
        assert memory.alive_bytes == 2000 * FLOAT_BYTES
        del second
        assert memory.alive_bytes == 1000 * FLOAT_BYTES
        before.add_(1)
        torch.mul(third, 2, out=third)
        assert memory.alive_bytes == 1000 * FLOAT_BYTES
    assert memory.peak_bytes == 2000 * FLOAT_BYTES


def test_a_limit_ends_the_count() -> None:
    """The operator that exceeds it raises."""
    with LiveBytes(limit_bytes=1000 * FLOAT_BYTES):
        kept = torch.ones(1000)
        with pytest.raises(MemoryError, match="4000 bytes"):
            kept.clone()


class Wide(LinearNet):
    """Keeps an activation of known size, a running mean and a dropout mask."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor, supports: Supports) -> Tensor:
        """The linear map, after 1000 numbers per window that the backward pass needs."""
        wide = x.new_ones(len(x), 1000, requires_grad=True).exp()
        self.norm(x.flatten(0, 2))
        return super().forward(x, supports) + wide.mean()


def test_a_trial_step_finds_the_peak_and_leaves_no_trace(tmp_path: Path) -> None:
    """What a batch takes grows by what a window keeps; parameters, means and generators stay."""
    source = make_source(make_store(tmp_path / "store", make_series()))
    supports = Supports.from_graph(source.store.graph)
    forecaster = NetworkForecaster(Wide(), supports, source.scaler, (0,))
    train_step = TrainStep.from_config(forecaster, TrainingConfig())

    def peak(windows: int, limit: int = 1 << 40) -> int | None:
        loader = make_loader(source, range(windows), batch_size=windows)
        (batch,) = loader.epoch(0)
        differentiate = partial(train_step.differentiate, batch)
        return step_peak_bytes(differentiate, forecaster.network, batch.x.device, limit)

    state = {name: value.clone() for name, value in forecaster.state_dict().items()}
    generator = torch.random.get_rng_state()
    one, three = peak(1), peak(3)
    assert one is not None
    assert three is not None
    kept = 2 * 1000 * FLOAT_BYTES  # the ones and their exponential
    assert 2 * kept <= three - one < 2 * 4 * kept
    assert peak(3, three) == three
    assert peak(3, three - 1) is None

    assert torch.equal(torch.random.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in forecaster.parameters())
    for name, value in forecaster.state_dict().items():
        assert torch.equal(value, state[name]), name
