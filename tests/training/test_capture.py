"""Recorded steps equal usual ones bit for bit; what cannot be recorded is taken as usual.

A CPU stands in for the GPU: `recording.py`.
"""

import copy
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pgti.batching import Batch
from pgti.distributed import Communicator, SingleProcess, Work
from pgti.distributed.communicator import Kind
from pgti.forecasting import NetworkForecaster
from pgti.graph import SensorGraph
from pgti.models import AbstractModel, ModelShape, build_model
from pgti.nn import Supports
from pgti.nn.limits import DenseLimits
from pgti.store import Scaler
from pgti.training import RunningLoss, TrainingConfig, TrainStep
from pgti.training.capture import WARM_UP_STEPS
from pgti.training.gradients import GradientReducer
from pgti.training.optim import plain_optimizer_state

from .recording import CpuRecorder, as_on_a_gpu, parts_of
from .tiny_training import SampledNet

_NODES, _INPUTS, _HORIZON = 20, 4, 3
_SHAPE = ModelShape(
    input_steps=_INPUTS,
    horizon=_HORIZON,
    num_nodes=_NODES,
    input_channels=2,
    target_channels=1,
    target_indices=(0,),
    calendar=("time-of-day",),
    steps_per_day=24,
)


def _batch(num_windows: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    y_mask = torch.rand(num_windows, _HORIZON, _NODES, 1, generator=generator) < 0.8
    y = 50 + 10 * torch.randn(y_mask.shape, generator=generator)
    return Batch(
        x=torch.randn(num_windows, _INPUTS, _NODES, 2, generator=generator),
        x_mask=torch.rand(num_windows, _INPUTS, _NODES, 1, generator=generator) < 0.9,
        y=torch.where(y_mask, y, 0.0),
        y_mask=y_mask,
        calendar=torch.rand(num_windows, _INPUTS + _HORIZON, 1, generator=generator),
        starts=np.arange(num_windows),
    )


def _forecaster(network: nn.Module) -> NetworkForecaster:
    nodes = np.arange(_NODES)
    ring = (nodes, (nodes + 1) % _NODES, 1 / (1 + nodes))  # sparse at this size
    graph = SensorGraph.from_edges(_NODES, *ring)
    kind = getattr(network, "support_kind", "dual_random_walk")
    is_ours = isinstance(network, AbstractModel)
    supports = network.build_supports(graph) if is_ours else Supports.from_graph(graph, kind)
    return NetworkForecaster(network, supports, Scaler(mean=(50.0,), std=(10.0,)), (0,)).train()


def _model(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, options, _SHAPE)


class _OwnNet(nn.Module):
    """A linear map with dropout, and what a test adds to its forward pass."""

    def __init__(self, also: Callable[["_OwnNet"], object] = lambda _: None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(_INPUTS * 2, _HORIZON)
        self.dropout = nn.Dropout(0.2)
        self.unused = nn.Linear(2, 2)
        self.also = [also]

    def forward(self, x: Tensor) -> Tensor:
        self.also[0](self)
        out = self.linear(self.dropout(x.transpose(1, 2).flatten(2)))
        return out.transpose(1, 2).unsqueeze(-1)


def _step(
    network: nn.Module,
    config: TrainingConfig,
    recorder: CpuRecorder | None,
    communicator: Communicator | None = None,
) -> TrainStep:
    forecaster = _forecaster(copy.deepcopy(network))
    step = as_on_a_gpu(TrainStep.from_config(forecaster, config, communicator))
    if recorder is not None:
        step.record(recorder)
    return step


def _train(
    step: TrainStep, first: int, last: int, *, sizes: Sequence[int] = (6, 6, 6, 6, 3)
) -> dict[str, Tensor]:
    """Steps first .. last - 1, each of a batch of its size or, if it has several, of all of them.

    Returns parameters, buffers, the optimizer's state and the loss.
    """
    running = RunningLoss(step.device)
    for number in range(first, last):
        size = sizes[number % len(sizes)]
        several = size if isinstance(size, tuple) else (size,)
        batches = [_batch(each, 100 * number + index) for index, each in enumerate(several)]
        step(
            iter(batches),
            step=number,
            num_batches=len(batches),
            learning_rate=1e-3 / (1 + number),
            running=running,
        )
    result = {name: each.clone() for name, each in step.forecaster.network.state_dict().items()}
    for place, of_one in step.optimizer.state_dict()["state"].items():
        result |= {f"{name} of {place}": each.clone() for name, each in of_one.items()}
    for name, each in step.forecaster.network.named_parameters():
        if each.grad is not None:
            result[f"gradient of {name}"] = each.grad.clone()
    return result | {"loss": running.total, "count": running.count}


def _assert_same(recorded: dict[str, Tensor], usual: dict[str, Tensor]) -> None:
    assert recorded.keys() == usual.keys()
    for name, each in usual.items():
        assert torch.equal(recorded[name], each), name


MODELS: list[tuple[str, dict[str, Any]]] = [
    ("dcrnn", {"hidden": 8, "layers": 1}),
    ("graph-wavenet", {"blocks": 1, "layers": 2, "dropout": 0.3}),  # batch normalization, too
    ("stgcn", {"dropout": 0.2}),
    ("mtgnn", {"layers": 2, "dropout": 0.3}),
    ("agcrn", {"hidden": 8}),
    ("stid", {}),
    ("staeformer", {"layers": 1, "dropout": 0.1}),
    ("tgcn", {"hidden": 8}),
    ("linear", {}),
]


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_recorded_steps_are_the_usual_ones_bit_for_bit(name: str, options: dict[str, Any]) -> None:
    """20 steps; each batch differs in content, and every fifth is a smaller one."""
    recorder, config = CpuRecorder(), TrainingConfig(clip_norm=0.5)
    network = _model(name, **options)
    recorded = _train(_step(network, config, recorder), 0, 20)
    _assert_same(recorded, _train(_step(network, config, None), 0, 20))
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
    ],
    ids=["no clipping", "adamw and huber", "bfloat16", "freeze"],
)
def test_options_of_training(config: TrainingConfig) -> None:
    network, recorder = _model("dcrnn", hidden=8, layers=1), CpuRecorder()
    recorded = _train(_step(network, config, recorder), 0, 10)
    _assert_same(recorded, _train(_step(network, config, None), 0, 10))
    assert recorder.num_replayed > 10


def test_frozen_batch_normalization_stays_as_it_is_after_a_validation() -> None:
    network, recorder = _model("graph-wavenet", blocks=1, layers=2), CpuRecorder()
    config = TrainingConfig(freeze=("*norm*",))

    def train(step: TrainStep) -> dict[str, Tensor]:
        step.watch_for_changes()
        _train(step, 0, 6)
        step.forecaster.eval()
        step.forecaster.train()  # as `evaluate` does
        return _train(step, 6, 12)

    recorded = train(_step(network, config, recorder))
    _assert_same(recorded, train(_step(network, config, None)))
    assert recorder.num_recorded == 3  # nothing is recorded again


def test_activation_checkpointing() -> None:
    network, recorder = _model("dcrnn", hidden=8, layers=1), CpuRecorder()
    network.activation_checkpointing = True  # type: ignore[assignment]
    recorded = _train(_step(network, TrainingConfig(), recorder), 0, 8)
    _assert_same(recorded, _train(_step(network, TrainingConfig(), None), 0, 8))
    assert recorder.num_replayed > 5


def test_several_batches_a_step() -> None:
    """Their gradients add up, whichever of them are recorded; a batch may have no window."""
    sizes: Any = ((6, 6, 6), (6, 6, 3), (6, 0, 6), (0, 6), (6, 6), (3, 5, 3))
    network, recorder = _OwnNet(), CpuRecorder()
    recorded = _train(_step(network, TrainingConfig(), recorder), 0, 14, sizes=sizes)
    usual = _train(_step(network, TrainingConfig(), None), 0, 14, sizes=sizes)
    _assert_same(recorded, usual)
    assert recorder.num_recorded == 4  # of 6, 3 and 5 windows, and the update


class _TwoAlike(SingleProcess):
    """One of two ranks, the other of which has the same windows."""

    def __init__(self) -> None:
        super().__init__()
        self.world_size = 2

    def all_reduce_async(self, tensor: Tensor, kind: Kind) -> Work:
        """The sum over both."""
        tensor.mul_(2)
        return Work()


@pytest.mark.parametrize("sizes", [(6, 6, 6, 6, 3), ((6, 6), (6, 0), (3, 6))])
def test_several_ranks_sum_between_the_recorded_parts(sizes: Any) -> None:
    network, recorder = _OwnNet(), CpuRecorder()
    recorded, usual = (
        _train(_step(network, TrainingConfig(), each, _TwoAlike()), 0, 14, sizes=sizes)
        for each in (recorder, None)
    )
    _assert_same(recorded, usual)
    assert recorder.num_replayed > 14


def test_gradients_that_are_sent_during_the_backward_pass_are_not_recorded() -> None:
    lines: list[str] = []
    config = TrainingConfig()
    step = as_on_a_gpu(TrainStep.from_config(_forecaster(_OwnNet()), config, _TwoAlike()))
    step._reducer = GradientReducer(step.parameters, _TwoAlike(), bucket_bytes=8)
    step.record(CpuRecorder())
    step.explain_to(lines.append)
    assert lines == [
        "CUDA graphs are not used: gradients of this size are sent to other ranks during the "
        "backward pass"
    ]


def test_a_parameter_without_a_gradient_stays_as_it_is() -> None:
    network = _OwnNet()
    step = _step(network, TrainingConfig(optimizer="adamw"), CpuRecorder())  # type: ignore[arg-type]
    recorded = _train(step, 0, 8)
    assert torch.equal(recorded["unused.weight"], network.unused.weight)
    assert step.forecaster.network.unused.weight.grad is None  # type: ignore[union-attr]


def test_a_checkpoint_in_the_middle_resumes_bit_for_bit() -> None:
    """Into a new process, which records anew, and into the same one, which forgets."""
    network, config = _model("graph-wavenet", blocks=1, layers=2), TrainingConfig()
    usual = _train(_step(network, config, None), 0, 16)
    first = _step(network, config, CpuRecorder())
    _train(first, 0, 7)
    weights = copy.deepcopy(first.forecaster.network.state_dict())
    saved = copy.deepcopy(plain_optimizer_state(first.optimizer, first.learning_rate))
    _train(first, 7, 9)
    for step in (first, _step(network, config, CpuRecorder())):
        step.forecaster.network.load_state_dict(weights)
        step.load_optimizer(copy.deepcopy(saved))  # torch takes its tensors over
        resumed = _train(step, 7, 16)
        for name in weights:
            assert torch.equal(resumed[name], usual[name]), name


def test_a_checkpoint_holds_the_same_from_a_gpu_as_from_a_cpu() -> None:
    """And either resumes on the other."""
    network, config = _OwnNet(), TrainingConfig()
    on_cpu = TrainStep.from_config(_forecaster(copy.deepcopy(network)), config)
    as_gpu = _step(network, config, CpuRecorder())
    states = []
    for step in (on_cpu, as_gpu):
        _train(step, 0, 5)
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
    _train(on_cpu, 5, 7)
    _train(as_gpu, 5, 7)


def test_batches_that_reuse_their_memory_are_copied() -> None:
    """Loaders overwrite the tensors of a batch once the next is taken."""
    step = _step(_OwnNet(), TrainingConfig(), CpuRecorder())
    usual = _step(_OwnNet(), TrainingConfig(), None)
    shared = _batch(6, 0)
    for number in range(8):
        fresh = _batch(6, number)
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
    step = _step(_model(name, **options.get(name, {})), TrainingConfig(precision=precision), None)
    step.forecaster.supports.dense = DenseLimits(density=0.0, nodes=100, stacked=0)
    recorder = CpuRecorder()
    step.record(recorder)
    _train(step, 0, 12)
    assert recorder.num_recorded == 3
    step.forecaster.supports.to("cpu")  # as `run.evaluate` sends it, which drops its operators
    tensors = (*step.forecaster.parameters(), *step.forecaster.buffers())
    held = _addresses([tensors, dict(step.optimizer.state), step.optimizer.param_groups])
    assert recorder.used <= held | _addresses(step._graphs)


# -- what is taken as usual -----------------------------------------------------------------------


def _draw_with_torch(_: _OwnNet) -> None:
    torch.rand(1)


def _draw_with_numpy(_: _OwnNet) -> None:
    np.random.random()  # noqa: NPY002 - as a user's network may


def _draw_with_python(_: _OwnNet) -> None:
    random.random()


def _carry_over(network: _OwnNet) -> None:
    network.state = torch.zeros(3)


def _count(network: _OwnNet) -> None:
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
    also: Callable[[_OwnNet], object], reason: str
) -> None:
    lines: list[str] = []
    recorder, network = CpuRecorder(), _OwnNet(also)
    step = _step(network, TrainingConfig(), recorder)
    step.explain_to(lines.append)
    recorded = _train(step, 0, 8)
    usual = _train(_step(network, TrainingConfig(), None), 0, 8)
    _assert_same(recorded, usual)
    assert recorder.num_replayed == 0
    (line,) = lines
    assert re.search(reason, line), line
    assert line.startswith("CUDA graphs are not used: ")


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (_model("dcrnn", hidden=8, layers=1, scheduled_sampling=True), "scheduled sampling"),
        (SampledNet(), "scheduled sampling"),  # a model of another package, which has a teacher
        (nn.Sequential(nn.LSTM(2, 2, num_layers=2, dropout=0.1)), "dropout inside torch.nn.LSTM"),
    ],
    ids=["scheduled sampling", "of another package", "dropout of cuDNN"],
)
def test_what_cannot_be_recorded_is_known_beforehand(network: nn.Module, reason: str) -> None:
    lines: list[str] = []
    step = _step(network, TrainingConfig(), CpuRecorder())
    step.explain_to(lines.append)
    (line,) = lines
    assert reason in line


def test_what_layers_make_in_the_first_pass_does_no_harm() -> None:
    def prepare(network: _OwnNet) -> None:
        if not hasattr(network, "factor"):
            network.factor, network.number = torch.rand(3), np.random.random()  # noqa: NPY002

    recorder = CpuRecorder()
    _train(_step(_OwnNet(prepare), TrainingConfig(), recorder), 0, 6)
    assert recorder.num_replayed > 0


def test_without_memory_for_two_steps_nothing_is_recorded() -> None:
    lines: list[str] = []
    recorder = CpuRecorder(memory="a step takes 60.0 GiB, and a recorded one as much again")
    step = _step(_OwnNet(), TrainingConfig(), recorder)
    step.explain_to(lines.append)
    _assert_same(_train(step, 0, 6), _train(_step(_OwnNet(), TrainingConfig(), None), 0, 6))
    assert recorder.num_recorded == 0
    assert lines == [f"CUDA graphs are not used: {recorder.memory}"]


def _read_rate(optimizer: torch.optim.Optimizer, *_: object) -> None:
    optimizer.param_groups[0]["lr"].item()


def test_an_update_that_cannot_be_recorded_is_taken_as_usual() -> None:
    network, recorder = _OwnNet(), CpuRecorder()
    step, usual = (_step(network, TrainingConfig(), each) for each in (recorder, None))
    for each in (step, usual):
        each.optimizer.register_step_pre_hook(_read_rate)
    _assert_same(_train(step, 0, 8), _train(usual, 0, 8))
    assert recorder.num_replayed == 1  # of the pass before the update


def test_at_most_eight_shapes_are_recorded() -> None:
    sizes = tuple(range(1, 13))
    recorder = CpuRecorder()
    recorded = _train(_step(_OwnNet(), TrainingConfig(), recorder), 0, 36, sizes=sizes)
    _assert_same(recorded, _train(_step(_OwnNet(), TrainingConfig(), None), 0, 36, sizes=sizes))
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
        _train(step, 0, 7)
        change(step)
        return _train(step, 7, 16)

    recorder = CpuRecorder()
    recorded = train(_step(_OwnNet(), TrainingConfig(), recorder))
    _assert_same(recorded, train(_step(_OwnNet(), TrainingConfig(), None)))
    assert recorder.num_recorded > 3


def test_parameters_that_moved_are_recorded_again() -> None:
    recorder = CpuRecorder()
    step = _step(_OwnNet(), TrainingConfig(), recorder)
    _train(step, 0, 6)
    for parameter in step.parameters:
        parameter.data = parameter.data.clone()
    usual = _step(_OwnNet(), TrainingConfig(), None)
    _train(usual, 0, 6)
    _assert_same(_train(step, 6, 14), _train(usual, 6, 14))


def test_warm_up_runs_on_the_stream_that_records() -> None:
    recorder = CpuRecorder()
    _train(_step(_OwnNet(), TrainingConfig(), recorder), 0, WARM_UP_STEPS, sizes=(6,))
    assert recorder.num_aside == WARM_UP_STEPS
    assert recorder.num_recorded == 0
