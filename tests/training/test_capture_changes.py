"""What cannot be recorded is taken as usual; what changes is recorded again."""

import random
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pgti.training import TrainingConfig, TrainStep
from pgti.training.capture import WARM_UP_STEPS
from pgti.training.gradients import GradientReducer

from .recorded_steps import (
    OwnNet,
    TwoAlike,
    assert_same,
    make_forecaster,
    make_model,
    make_step,
    train_steps,
)
from .recording import CpuRecorder, as_on_a_gpu
from .tiny_training import SampledNet


def test_gradients_that_are_sent_during_the_backward_pass_are_not_recorded() -> None:
    lines: list[str] = []
    config = TrainingConfig()
    step = as_on_a_gpu(TrainStep.from_config(make_forecaster(OwnNet()), config, TwoAlike()))
    step._reducer = GradientReducer(step.parameters, TwoAlike(), bucket_bytes=8)
    step.record(CpuRecorder())
    step.explain_to(lines.append)
    assert lines == [
        "CUDA graphs are not used: gradients of this size are sent to other ranks during the "
        "backward pass"
    ]


def _draw_with_torch(_: OwnNet) -> None:
    torch.rand(1)


def _draw_with_numpy(_: OwnNet) -> None:
    np.random.random()  # noqa: NPY002 - as a user's network may


def _draw_with_python(_: OwnNet) -> None:
    random.random()


def _carry_over(network: OwnNet) -> None:
    network.state = torch.zeros(3)


def _count(network: OwnNet) -> None:
    network.calls = getattr(network, "calls", 0) + 1  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("also", "reason"),
    [
        (_draw_with_numpy, "draws random numbers on the host"),
        (_draw_with_python, "draws random numbers on the host"),
        (_count, "changes attributes of its modules"),
        (_carry_over, "changes attributes of its modules"),
        (lambda net: net.linear.weight.sum().item(), r"recording failed \(RuntimeError: .*host"),
    ],
    ids=["numpy", "random", "counter", "state", "item"],
)
def test_what_a_network_decides_on_the_host_is_not_recorded(
    also: Callable[[OwnNet], object], reason: str
) -> None:
    lines: list[str] = []
    recorder, network = CpuRecorder(), OwnNet(also)
    step = make_step(network, TrainingConfig(), recorder)
    step.explain_to(lines.append)
    recorded = train_steps(step, 0, 8)
    usual = train_steps(make_step(network, TrainingConfig(), None), 0, 8)
    assert_same(recorded, usual)
    assert recorder.num_replayed == 0
    (line,) = lines
    assert re.search(reason, line), line
    assert line.startswith("CUDA graphs are not used: ")


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (make_model("dcrnn", hidden=8, layers=1, scheduled_sampling=True), "scheduled sampling"),
        (SampledNet(), "scheduled sampling"),  # a model of another package, which has a teacher
        (nn.Sequential(nn.LSTM(2, 2, num_layers=2, dropout=0.1)), "dropout inside torch.nn.LSTM"),
    ],
    ids=["scheduled sampling", "of another package", "dropout of cuDNN"],
)
def test_what_cannot_be_recorded_is_known_beforehand(network: nn.Module, reason: str) -> None:
    lines: list[str] = []
    step = make_step(network, TrainingConfig(), CpuRecorder())
    step.explain_to(lines.append)
    (line,) = lines
    assert reason in line


def test_what_layers_make_in_the_first_pass_does_no_harm() -> None:
    def prepare(network: OwnNet) -> None:
        if not hasattr(network, "factor"):
            network.factor, network.number = torch.rand(3), np.random.random()  # noqa: NPY002

    recorder = CpuRecorder()
    train_steps(make_step(OwnNet(prepare), TrainingConfig(), recorder), 0, 6)
    assert recorder.num_replayed > 0


def test_without_memory_for_two_steps_nothing_is_recorded() -> None:
    lines: list[str] = []
    recorder = CpuRecorder(memory="a step takes 60.0 GiB, and a recorded one as much again")
    step = make_step(OwnNet(), TrainingConfig(), recorder)
    step.explain_to(lines.append)
    assert_same(
        train_steps(step, 0, 6), train_steps(make_step(OwnNet(), TrainingConfig(), None), 0, 6)
    )
    assert recorder.num_recorded == 0
    assert lines == [f"CUDA graphs are not used: {recorder.memory}"]


def _read_rate(optimizer: torch.optim.Optimizer, *_: object) -> None:
    optimizer.param_groups[0]["lr"].item()


def test_an_update_that_cannot_be_recorded_is_taken_as_usual() -> None:
    network, recorder = OwnNet(), CpuRecorder()
    step, usual = (make_step(network, TrainingConfig(), each) for each in (recorder, None))
    for each in (step, usual):
        each.optimizer.register_step_pre_hook(_read_rate)
    assert_same(train_steps(step, 0, 8), train_steps(usual, 0, 8))
    assert recorder.num_replayed == 1  # of the pass before the update


def test_at_most_eight_shapes_are_recorded() -> None:
    sizes = tuple(range(1, 13))
    recorder = CpuRecorder()
    recorded = train_steps(make_step(OwnNet(), TrainingConfig(), recorder), 0, 36, sizes=sizes)
    assert_same(
        recorded, train_steps(make_step(OwnNet(), TrainingConfig(), None), 0, 36, sizes=sizes)
    )
    assert recorder.num_recorded == 8 + 1


def _raise_dropout(step: TrainStep) -> None:
    step.forecaster.network.dropout.p = 0.6  # type: ignore[union-attr]


def _decay_weights(step: TrainStep) -> None:
    step.optimizer.param_groups[0]["weight_decay"] = 0.1


def _freeze(step: TrainStep) -> None:
    step.forecaster.network.linear.bias.requires_grad_(False)  # type: ignore[union-attr]


def _stop_dropout(step: TrainStep) -> None:
    step.forecaster.network.dropout.eval()  # type: ignore[union-attr]


@pytest.mark.parametrize("change", [_raise_dropout, _decay_weights, _freeze, _stop_dropout])
def test_what_a_callback_changes_is_recorded_again(change: Callable[[TrainStep], None]) -> None:
    def train(step: TrainStep) -> dict[str, Tensor]:
        step.watch_for_changes()
        train_steps(step, 0, 7)
        change(step)
        return train_steps(step, 7, 16)

    recorder = CpuRecorder()
    recorded = train(make_step(OwnNet(), TrainingConfig(), recorder))
    assert_same(recorded, train(make_step(OwnNet(), TrainingConfig(), None)))
    assert recorder.num_recorded > 3


def test_parameters_that_moved_are_recorded_again() -> None:
    recorder = CpuRecorder()
    step = make_step(OwnNet(), TrainingConfig(), recorder)
    train_steps(step, 0, 6)
    for parameter in step.parameters:
        parameter.data = parameter.data.clone()
    usual = make_step(OwnNet(), TrainingConfig(), None)
    train_steps(usual, 0, 6)
    assert_same(train_steps(step, 6, 14), train_steps(usual, 6, 14))


def test_warm_up_runs_on_the_stream_that_records() -> None:
    recorder = CpuRecorder()
    train_steps(make_step(OwnNet(), TrainingConfig(), recorder), 0, WARM_UP_STEPS, sizes=(6,))
    assert recorder.num_aside == WARM_UP_STEPS
    assert recorder.num_recorded == 0
