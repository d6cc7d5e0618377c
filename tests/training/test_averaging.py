"""The moving average of the weights: its values, and where they are validated and saved."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from pgti.distributed import SingleProcess
from pgti.errors import Interrupted
from pgti.forecasting import evaluate
from pgti.training import Callback, Extensions, TrainingConfig, TrainingStatus
from pgti.training.averaging import WeightAverage

from .test_trainer import Signaller, val_loader
from .tiny_training import make_forecaster, make_setting, make_trainer, open_run, resume_trainer

CONFIG = TrainingConfig(epochs=3, batch_size=10, learning_rate=0.2, ema_decay=0.8)


class Tied(nn.Module):
    """A parameter with two names, running statistics, and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = nn.Linear(2, 2)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(2)


def change(network: nn.Module, step: int) -> None:
    with torch.no_grad():
        for place, each in enumerate(network.state_dict(keep_vars=True).values()):
            each.fill_(step + place)


def test_the_average_is_the_recurrence_of_its_docstring() -> None:
    """Parameters and running statistics are averaged once each, and the counter is copied."""
    network = Tied()
    average = WeightAverage(network, 0.4)
    average.begin()
    expected = {name: each.clone().double() for name, each in network.state_dict().items()}
    for step in range(6):
        change(network, step)
        average.update(step)
        decay = min(0.4, (1 + step) / (10 + step))
        for name, each in network.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * each.double()
    expected["norm.num_batches_tracked"] = network.norm.num_batches_tracked.double()
    averaged, trained = average.state_dicts()
    for name, each in averaged.items():
        torch.testing.assert_close(each.double(), expected[name], rtol=1e-6, atol=1e-7)
    assert trained is not None
    assert averaged["first.weight"] is averaged["second.weight"]
    addresses = [each.data_ptr() for each in network.parameters()]
    with average.in_network():
        inside = {name: each.clone() for name, each in network.state_dict().items()}
        for name, each in average.state_dicts()[0].items():
            assert torch.equal(each, inside[name])
    assert [each.data_ptr() for each in network.parameters()] == addresses
    for name, each in network.state_dict().items():
        assert torch.equal(each, trained[name])


def test_buffers_that_have_no_average_are_copied() -> None:
    """A mask of -inf, an infinite extreme that a reading replaces, a sparse graph."""
    network = nn.Linear(1, 1)
    network.register_buffer("mask", torch.tensor([[0.0, -torch.inf], [0.0, 0.0]]))
    network.register_buffer("largest", torch.tensor(-torch.inf))
    network.register_buffer("graph", torch.eye(2).to_sparse())
    average = WeightAverage(network, 0.9)
    average.begin()
    average.update(0)
    network.largest.fill_(3.0)
    network.graph.copy_(2 * torch.eye(2).to_sparse())
    average.update(1)
    for _ in range(2):  # as it is, and after a validation
        averaged, _ = average.state_dicts()
        assert torch.equal(averaged["mask"], network.mask)
        assert averaged["largest"] == 3
        assert torch.equal(averaged["graph"].to_dense(), 2 * torch.eye(2))
        with average.in_network():
            assert network.largest == 3


def test_no_average_by_default() -> None:
    """A decay of 0 leaves everything as it is, and takes no memory."""
    network = nn.Linear(2, 2)
    average = WeightAverage(network, 0.0)
    average.begin()
    average.update(0)
    with average.in_network():
        assert average.state_dicts()[1] is None
    assert not average.has_begun


def test_the_average_is_validated_and_is_the_best(tmp_path: Path) -> None:
    """`best.pt` has the weights whose error the metrics name, and so has a callback's network."""
    seen: list[torch.Tensor] = []

    class Keep(Callback):
        def on_validation(self, status: TrainingStatus, errors: object) -> None:
            seen.append(status.network.state_dict()["linear.weight"].clone())

    setting = make_setting(tmp_path, CONFIG, network="linear")
    run = open_run(tmp_path / "run", CONFIG)
    trainer = make_trainer(setting, run, extensions=Extensions(callbacks=[Keep()]))
    result = trainer.fit()
    best, last = run.load_best(), run.load_last()
    assert torch.equal(best.network["linear.weight"], seen[result.best_epoch - 1])
    forecaster = make_forecaster(setting)
    best.load_into(forecaster.network)
    summary = evaluate({"model": forecaster}, val_loader(setting))["model"].summary()
    assert summary["mae"]["mean"] == result.best_val_mae
    network = trainer.train_step.forecaster.network
    assert last.trained is not None
    assert torch.equal(network.state_dict()["linear.weight"], last.trained["linear.weight"])
    assert torch.equal(last.network["linear.weight"], seen[-1])


def test_the_average_begins_with_the_weights_of_rank_0(tmp_path: Path) -> None:
    """Not with those that another rank drew for a network of one's own."""

    class Rank1(SingleProcess):
        def broadcast_(self, tensor: torch.Tensor) -> None:
            tensor.fill_(7.0)

    config = replace(CONFIG, epochs=1, learning_rate=1e-9)
    setting, run = (
        make_setting(tmp_path, config, network="linear"),
        open_run(tmp_path / "run", config),
    )
    make_trainer(setting, run, communicator=Rank1()).fit()
    averaged = run.load_last().network["linear.weight"]
    torch.testing.assert_close(averaged, torch.full_like(averaged, 7.0))


def test_the_average_changes_nothing_that_is_trained(tmp_path: Path) -> None:
    """The optimizer's weights are those of a run without it, to the bit."""
    found = []
    for decay in (0.0, 0.9):
        config = replace(CONFIG, ema_decay=decay)
        setting = make_setting(tmp_path, config, network="linear")
        run = open_run(tmp_path / f"run {decay}", config)
        make_trainer(setting, run).fit()
        last = run.load_last()
        found.append((last.trained or last.network)["linear.weight"])
        assert (last.trained is None) == (decay == 0)
    assert torch.equal(*found)


def test_a_signal_within_a_validation_saves_the_trained_weights(tmp_path: Path) -> None:
    """The network has the average at that moment; the run goes on with what was trained."""
    setting = make_setting(tmp_path, CONFIG, network="linear")
    whole = open_run(tmp_path / "whole", CONFIG)
    make_trainer(setting, whole).fit()
    run = open_run(tmp_path / "run", CONFIG)
    with pytest.raises(Interrupted):
        make_trainer(setting, run, Signaller(6, signal.SIGTERM)).fit()
    resume_trainer(setting, run).fit()
    for name in ("network", "trained"):
        expected, found = getattr(whole.load_last(), name), getattr(run.load_last(), name)
        assert torch.equal(found["linear.weight"], expected["linear.weight"])
