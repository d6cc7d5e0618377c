"""Learning rates, plateau, and gradients that do not depend on how windows are cut into batches."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from pgti.errors import ConfigError
from pgti.training import TrainingConfig
from pgti.training.config import HuberLoss, MAELoss, MSELoss
from pgti.training.gradients import scale_gradients, separate_gradients
from pgti.training.optim import (
    Plateau,
    build_loss,
    build_optimizer,
    learning_rate,
    load_optimizer,
    plain_optimizer_state,
)
from pgti.training.optimizers import AdamWOptimizer, RMSPropOptimizer
from pgti.training.schedules import (
    CosineSchedule,
    ExponentialSchedule,
    MultistepSchedule,
    PlateauSchedule,
    StepSchedule,
)


def rates(config: TrainingConfig, num_steps: int, plateau: Plateau | None = None) -> list[float]:
    """Learning rates of the first steps, ten to an epoch."""
    plateau = Plateau() if plateau is None else plateau
    return [
        learning_rate(config, step=step, steps_per_epoch=10, plateau=plateau)
        for step in range(num_steps)
    ]


def test_without_a_schedule_the_rate_stays() -> None:
    """Nothing changes it."""
    assert rates(TrainingConfig(learning_rate=0.01), 30) == [0.01] * 30


def test_multistep_falls_at_its_epochs() -> None:
    """The rate falls by the factor with the first step of each milestone."""
    schedule = MultistepSchedule(milestones=(1, 3), factor=0.1)
    config = TrainingConfig(learning_rate=1.0, schedule=schedule)

    found = rates(config, 40)

    assert found[:10] == [1.0] * 10
    assert found[10:30] == pytest.approx([0.1] * 20)
    assert found[30:] == pytest.approx([0.01] * 10)


def test_multistep_stops_at_its_minimum() -> None:
    """DCRNN's released schedule: 0.01 falls tenfold four times, and not below 2e-6."""
    schedule = MultistepSchedule(milestones=(1, 2, 3, 4), min_learning_rate=2e-6)
    found = rates(TrainingConfig(learning_rate=0.01, schedule=schedule), 50)
    assert found[::10] == pytest.approx([1e-2, 1e-3, 1e-4, 1e-5, 2e-6])


@pytest.mark.parametrize(
    ("schedule", "kind", "options"),
    [
        (StepSchedule(every=2, factor=0.7), "StepLR", {"step_size": 2, "gamma": 0.7}),
        (ExponentialSchedule(factor=0.9), "ExponentialLR", {"gamma": 0.9}),
    ],
)
def test_step_and_exponential_agree_with_torch(
    schedule: StepSchedule | ExponentialSchedule, kind: str, options: dict[str, Any]
) -> None:
    """They are torch's schedules of epochs, above a minimum."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    theirs = getattr(torch.optim.lr_scheduler, kind)(optimizer, **options)
    expected = []
    for _ in range(7):
        expected += theirs.get_last_lr()
        optimizer.step()
        theirs.step()
    found = rates(TrainingConfig(learning_rate=0.3, schedule=schedule), 70)
    assert found[::10] == pytest.approx(expected)
    assert found[9::10] == found[::10]
    floored = replace(schedule, min_learning_rate=0.25)
    found = rates(TrainingConfig(learning_rate=0.3, schedule=floored), 70)
    assert found[::10] == pytest.approx([max(each, 0.25) for each in expected])


def test_cosine_agrees_with_torch() -> None:
    """After warm-up it is torch's CosineAnnealingLR over the remaining steps."""
    schedule = CosineSchedule(min_learning_rate=0.1)
    config = TrainingConfig(epochs=3, learning_rate=0.3, schedule=schedule, warmup_steps=5)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=25, eta_min=0.1)
    expected = []
    for _ in range(25):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()

    found = rates(config, 31)

    assert found[:5] == pytest.approx([0.06, 0.12, 0.18, 0.24, 0.3])
    assert found[5:30] == pytest.approx(expected)
    assert found[30] == pytest.approx(0.1)


def test_plateau_agrees_with_torch() -> None:
    """The factors are those of torch's ReduceLROnPlateau without a threshold."""
    config = TrainingConfig(
        learning_rate=1.0,
        schedule=PlateauSchedule(patience=1, factor=0.5, min_learning_rate=0.2),
    )
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=1, threshold=0.0, min_lr=0.2
    )
    plateau = Plateau()

    for mae in [5.0, 4.0, 4.5, 4.1, 4.0, 3.0, 3.5, 3.5, 3.4, 3.3, 9.0, 9.0, 9.0]:
        plateau = plateau.after(mae, config)
        schedule.step(mae)
        assert rates(config, 1, plateau) == pytest.approx(schedule.get_last_lr())
    assert plateau.factor == pytest.approx(0.2)


def test_nothing_to_learn_is_an_error() -> None:
    """A module without parameters, or with frozen ones only, cannot be trained."""
    frozen = nn.Linear(1, 1).requires_grad_(False)

    with pytest.raises(ConfigError, match="no trainable parameter"):
        build_optimizer(frozen.parameters(), TrainingConfig())


def test_options_reach_the_optimiser() -> None:
    """Class, rate, epsilon and decay are those of the configuration."""
    config = TrainingConfig(
        learning_rate=0.1, optimizer=AdamWOptimizer(epsilon=1e-3, weight_decay=0.01)
    )

    optimizer = build_optimizer(nn.Linear(1, 1).parameters(), config)

    assert isinstance(optimizer, torch.optim.AdamW)
    assert {name: optimizer.defaults[name] for name in ("lr", "eps", "weight_decay")} == {
        "lr": 0.1,
        "eps": 1e-3,
        "weight_decay": 0.01,
    }


def test_rmsprop_and_its_state_on_another_device() -> None:
    """Its options reach torch, and a checkpoint holds no option of a device."""
    options = RMSPropOptimizer(epsilon=1e-3, weight_decay=0.01, smoothing=0.9)
    config, network = TrainingConfig(optimizer=options), nn.Linear(2, 1)
    optimizer = build_optimizer(network.parameters(), config)
    assert isinstance(optimizer, torch.optim.RMSprop)
    assert {name: optimizer.defaults[name] for name in ("alpha", "eps", "weight_decay")} == {
        "alpha": 0.9,
        "eps": 1e-3,
        "weight_decay": 0.01,
    }
    network(torch.ones(3, 2)).sum().backward()
    optimizer.step()
    state = plain_optimizer_state(optimizer, 0.25)
    assert "fused" not in state["param_groups"][0]
    other = build_optimizer(network.parameters(), config)
    other.param_groups[0]["capturable"] = True  # as on a GPU
    load_optimizer(other, state)
    assert (other.param_groups[0]["capturable"], other.param_groups[0]["lr"]) == (True, 0.25)
    for place, each in optimizer.state_dict()["state"].items():
        assert torch.equal(other.state_dict()["state"][place]["square_avg"], each["square_avg"])


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (MAELoss(), 3.0 + 0.5),
        (MSELoss(), 9.0 + 0.25),
        (HuberLoss(delta=2.0), 2 * (3 - 1) + 0.125),
    ],
)
def test_losses_are_sums_over_observed_targets(
    loss: MAELoss | MSELoss | HuberLoss, expected: float
) -> None:
    """Errors 3 and 0.5 count, the masked one does not; Huber is linear beyond its delta of 2."""
    prediction = torch.tensor([3.0, 1.5, 100.0])
    target = torch.tensor([0.0, 1.0, 0.0])
    mask = torch.tensor([True, True, False])

    total, count = build_loss(TrainingConfig(loss=loss))(prediction, target, mask)

    assert float(total) == pytest.approx(expected)
    assert int(count) == 2


@pytest.mark.parametrize("loss", [MAELoss(), HuberLoss(), MSELoss()], ids=lambda loss: loss.kind)
@pytest.mark.parametrize("sizes", [[12], [4, 4, 4], [5, 5, 2], [1] * 12])
def test_accumulated_gradients_are_those_of_one_batch(
    loss: MAELoss | MSELoss | HuberLoss, sizes: list[int]
) -> None:
    """However 12 windows with uneven masks are cut, the gradient is that of their mean loss."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(12, 5, dtype=torch.float64, generator=generator)
    target = torch.randn(12, 2, dtype=torch.float64, generator=generator)
    mask = torch.rand(12, 2, generator=generator) < torch.linspace(0.0, 1.0, 12)[:, None]
    assert 0 < int(mask.sum()) < mask.numel()
    assert not mask[0].any()

    def network() -> nn.Linear:
        torch.manual_seed(0)
        return nn.Linear(5, 2, dtype=torch.float64)

    function = build_loss(TrainingConfig(loss=loss))
    whole = network()
    total, count = function(whole(x), target, mask)
    (total / count).backward()

    pieces, parts = network(), torch.zeros((), dtype=torch.int64)
    for x_part, y_part, m_part in zip(
        x.split(sizes), target.split(sizes), mask.split(sizes), strict=True
    ):
        total, count = function(pieces(x_part), y_part, m_part)
        total.backward()
        parts += count
    scale_gradients(pieces.parameters(), parts)

    for expected, found in zip(whole.parameters(), pieces.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-12, atol=1e-14)


def test_gradients_that_share_memory_are_scaled_once_each() -> None:
    """Stacked parameters get one gradient: neither scaling nor a second batch mixes it."""
    biases = [nn.Parameter(torch.zeros(3)) for _ in range(4)]
    for _ in range(2):
        (torch.stack(biases).sum(dim=0) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
        separate_gradients(biases)
    scale_gradients(biases, torch.tensor(2.0))

    assert [bias.grad.tolist() for bias in biases if bias.grad is not None] == [[1.0, 2.0, 3.0]] * 4


def test_no_observed_target_gives_no_gradient() -> None:
    """A count of zero gives zeros, and a NaN in the target does not reach the parameters."""
    network = nn.Linear(2, 1)
    loss = build_loss(TrainingConfig())
    total, count = loss(
        network(torch.ones(3, 2)), torch.full((3, 1), math.nan), torch.zeros(3, 1).bool()
    )
    total.backward()
    scale_gradients(network.parameters(), count)

    assert float(total.detach()) == 0.0
    assert all(bool((parameter.grad == 0).all()) for parameter in network.parameters())
