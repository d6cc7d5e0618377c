"""Recorded steps equal usual ones bit for bit. A CPU stands in for the GPU: `recording.py`."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from pgti.nn.limits import DenseLimits
from pgti.training import TrainingConfig, TrainStep
from pgti.training.optim import plain_optimizer_state

from .recorded_steps import (
    OwnNet,
    TwoAlike,
    assert_same,
    make_batch,
    make_forecaster,
    make_model,
    make_step,
    train_steps,
)
from .recording import CpuRecorder, parts_of

MODELS: list[tuple[str, dict[str, Any]]] = [
    ("dcrnn", {"hidden": 8, "layers": 1}),
    ("graph-wavenet", {"blocks": 1, "layers": 2, "dropout": 0.3}),  # batch normalization, too
    ("stgcn", {"dropout": 0.2}),
    ("mtgnn", {"layers": 2, "dropout": 0.3}),
    ("agcrn", {"hidden": 8}),
    ("stid", {}),
    ("staeformer", {"layers": 1, "dropout": 0.1}),
    ("tgcn", {"hidden": 8}),
    ("linear", {"covariates": True}),
]


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_recorded_steps_are_the_usual_ones_bit_for_bit(name: str, options: dict[str, Any]) -> None:
    """20 steps; each batch differs in content, and every fifth is a smaller one."""
    recorder, config = CpuRecorder(), TrainingConfig(clip_norm=0.5)
    network = make_model(name, **options)
    recorded = train_steps(make_step(network, config, recorder), 0, 20)
    assert_same(recorded, train_steps(make_step(network, config, None), 0, 20))
    assert recorder.num_recorded == 3  # the pass of two shapes, and the update
    # The fourth step is the first to be recorded; of the smaller batch, the second.
    assert recorder.num_replayed == (20 - 3) + (20 - 3 - 1)


@pytest.mark.parametrize(
    "config",
    [
        TrainingConfig(clip_norm=0),
        TrainingConfig(optimizer="adamw", loss="huber"),  # type: ignore[arg-type]
        TrainingConfig(precision="bfloat16"),
        TrainingConfig(freeze=("encoder.*",)),
        TrainingConfig(curriculum_steps=2, curriculum_warmup_steps=1),
    ],
    ids=["no clipping", "adamw and huber", "bfloat16", "freeze", "curriculum"],
)
def test_options_of_training(config: TrainingConfig) -> None:
    network, recorder = make_model("dcrnn", hidden=8, layers=1), CpuRecorder()
    recorded = train_steps(make_step(network, config, recorder), 0, 10)
    assert_same(recorded, train_steps(make_step(network, config, None), 0, 10))
    assert recorder.num_replayed > 10


def test_frozen_batch_normalization_stays_as_it_is_after_a_validation() -> None:
    network, recorder = make_model("graph-wavenet", blocks=1, layers=2), CpuRecorder()
    config = TrainingConfig(freeze=("*norm*",))

    def train(step: TrainStep) -> dict[str, Tensor]:
        step.watch_for_changes()
        train_steps(step, 0, 6)
        step.forecaster.eval()
        step.forecaster.train()  # as `evaluate` does
        return train_steps(step, 6, 12)

    recorded = train(make_step(network, config, recorder))
    assert_same(recorded, train(make_step(network, config, None)))
    assert recorder.num_recorded == 3  # nothing is recorded again


def test_activation_checkpointing() -> None:
    network, recorder = make_model("dcrnn", hidden=8, layers=1), CpuRecorder()
    network.activation_checkpointing = True  # type: ignore[assignment]
    recorded = train_steps(make_step(network, TrainingConfig(), recorder), 0, 8)
    assert_same(recorded, train_steps(make_step(network, TrainingConfig(), None), 0, 8))
    assert recorder.num_replayed > 5


def test_several_batches_a_step() -> None:
    """Their gradients add up, whichever of them are recorded; a batch may have no window."""
    sizes: Any = ((6, 6, 6), (6, 6, 3), (6, 0, 6), (0, 6), (6, 6), (3, 5, 3))
    network, recorder = OwnNet(), CpuRecorder()
    recorded = train_steps(make_step(network, TrainingConfig(), recorder), 0, 14, sizes=sizes)
    usual = train_steps(make_step(network, TrainingConfig(), None), 0, 14, sizes=sizes)
    assert_same(recorded, usual)
    assert recorder.num_recorded == 4  # of 6, 3 and 5 windows, and the update


@pytest.mark.parametrize("sizes", [(6, 6, 6, 6, 3), ((6, 6), (6, 0), (3, 6))])
def test_several_ranks_sum_between_the_recorded_parts(sizes: Any) -> None:
    network, recorder = OwnNet(), CpuRecorder()
    recorded, usual = (
        train_steps(make_step(network, TrainingConfig(), each, TwoAlike()), 0, 14, sizes=sizes)
        for each in (recorder, None)
    )
    assert_same(recorded, usual)
    assert recorder.num_replayed > 14


def test_a_parameter_without_a_gradient_stays_as_it_is() -> None:
    network = OwnNet()
    step = make_step(network, TrainingConfig(optimizer="adamw"), CpuRecorder())  # type: ignore[arg-type]
    recorded = train_steps(step, 0, 8)
    assert torch.equal(recorded["unused.weight"], network.unused.weight)
    assert step.forecaster.network.unused.weight.grad is None  # type: ignore[union-attr]


def test_a_checkpoint_in_the_middle_resumes_bit_for_bit() -> None:
    """Into a new process, which records anew, and into the same one, which forgets."""
    network, config = make_model("graph-wavenet", blocks=1, layers=2), TrainingConfig()
    usual = train_steps(make_step(network, config, None), 0, 16)
    first = make_step(network, config, CpuRecorder())
    train_steps(first, 0, 7)
    weights = copy.deepcopy(first.forecaster.network.state_dict())
    saved = copy.deepcopy(plain_optimizer_state(first.optimizer, first.learning_rate))
    train_steps(first, 7, 9)
    for step in (first, make_step(network, config, CpuRecorder())):
        step.forecaster.network.load_state_dict(weights)
        step.load_optimizer(copy.deepcopy(saved))  # torch takes its tensors over
        resumed = train_steps(step, 7, 16)
        for name in weights:
            assert torch.equal(resumed[name], usual[name]), name


def test_a_checkpoint_holds_the_same_from_a_gpu_as_from_a_cpu() -> None:
    """And either resumes on the other."""
    network, config = OwnNet(), TrainingConfig()
    on_cpu = TrainStep.from_config(make_forecaster(copy.deepcopy(network)), config)
    as_gpu = make_step(network, config, CpuRecorder())
    states = []
    for step in (on_cpu, as_gpu):
        train_steps(step, 0, 5)
        states.append(plain_optimizer_state(step.optimizer, step.learning_rate))
    plain, of_gpu = states
    assert plain["param_groups"] == of_gpu["param_groups"]
    assert plain["param_groups"] == on_cpu.optimizer.state_dict()["param_groups"]
    on_cpu.load_optimizer(of_gpu)
    as_gpu.load_optimizer(plain)
    assert on_cpu.optimizer.param_groups[0]["lr"] == on_cpu.learning_rate
    assert on_cpu.optimizer.param_groups[0]["fused"] is None
    rate = as_gpu.optimizer.param_groups[0]["lr"]
    assert isinstance(rate, Tensor)
    assert float(rate) == pytest.approx(as_gpu.learning_rate)
    assert as_gpu.optimizer.param_groups[0]["fused"] is True
    train_steps(on_cpu, 5, 7)
    train_steps(as_gpu, 5, 7)


def test_batches_that_reuse_their_memory_are_copied() -> None:
    """Loaders overwrite the tensors of a batch once the next is taken."""
    step = make_step(OwnNet(), TrainingConfig(), CpuRecorder())
    usual = make_step(OwnNet(), TrainingConfig(), None)
    shared = make_batch(6, 0)
    for number in range(8):
        fresh = make_batch(6, number)
        for into, value in zip(shared.tensors, fresh.tensors, strict=True):
            into.copy_(value)
        step([shared], step=number)
        usual([fresh], step=number)
        for into in shared.tensors:
            into.zero_()
    for ours, theirs in zip(step.parameters, usual.parameters, strict=True):
        assert torch.equal(ours, theirs)


def _addresses(tree: object) -> set[int]:
    """Of the memory of all tensors in nested attributes, mappings and sequences."""
    found, seen, waiting = set(), set(), [tree]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, Tensor):
            found |= {part.untyped_storage().data_ptr() for part in parts_of(each)}
        elif isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, list | tuple):
            waiting += each
        elif type(each).__module__.startswith("pgti."):
            names = getattr(each, "__slots__", None) or vars(each)
            waiting += [getattr(each, name) for name in names]
    return found


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["dcrnn", "graph-wavenet", "stgcn"])
def test_a_recording_uses_only_memory_that_stays(name: str, precision: Any) -> None:
    """Parameters, buffers, states of the optimizer, and what `StepGraphs` holds, operators too.

    A CUDA graph has addresses, and does not keep the memory there from being freed.
    """
    options = {"dcrnn": {"hidden": 24, "layers": 1}, "graph-wavenet": {"blocks": 1, "layers": 2}}
    step = make_step(
        make_model(name, **options.get(name, {})), TrainingConfig(precision=precision), None
    )
    step.forecaster.supports.dense = DenseLimits(density=0.0, nodes=100, stacked=0)
    recorder = CpuRecorder()
    step.record(recorder)
    train_steps(step, 0, 12)
    assert recorder.num_recorded == 3
    step.forecaster.supports.to("cpu")  # as `run.evaluate` sends it, which drops its operators
    tensors = (*step.forecaster.parameters(), *step.forecaster.buffers())
    held = _addresses([tensors, dict(step.optimizer.state), step.optimizer.param_groups])
    assert recorder.used <= held | _addresses(step._graphs)
