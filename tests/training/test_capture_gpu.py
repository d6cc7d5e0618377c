"""CUDA graphs on a GPU: recorded steps equal usual ones, in bounded memory. Not run without one."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pgti.batching import Batch
from pgti.training import RunningLoss, TrainingConfig, TrainStep
from pgti.training.optim import plain_optimizer_state

from .recorded_steps import OwnNet, make_batch, make_forecaster, make_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
_DEVICE = torch.device("cuda", 0)
_SIZES = (6, 6, 6, 6, 3)


def _step(network: nn.Module, **options: Any) -> TrainStep:
    config = TrainingConfig(deterministic=True, **options)
    return TrainStep.from_config(make_forecaster(network).to(_DEVICE).train(), config)


def _on_gpu(number: int) -> Batch:
    return make_batch(_SIZES[number % len(_SIZES)], number).to(_DEVICE)


def _train(step: TrainStep, first: int, last: int) -> dict[str, Tensor]:
    running = RunningLoss(_DEVICE)
    for number in range(first, last):
        rate = 1e-3 / (1 + number)
        step([_on_gpu(number)], step=number, num_batches=1, learning_rate=rate, running=running)
    weights = {name: each.clone() for name, each in step.forecaster.network.state_dict().items()}
    return weights | {"loss": running.total, "count": running.count}


def _assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name, each in theirs.items():
        assert torch.equal(ours[name], each), (name, float((ours[name] - each).abs().max()))


MODELS: list[tuple[str, dict[str, Any]]] = [
    ("dcrnn", {"hidden": 8, "layers": 1}),
    ("graph-wavenet", {"blocks": 1, "layers": 2, "dropout": 0.3}),
    ("mtgnn", {"layers": 2, "dropout": 0.3}),
    ("agcrn", {"hidden": 8}),
    ("stid", {}),
    ("staeformer", {"layers": 1, "dropout": 0.1}),
    ("stgcn", {"dropout": 0.2}),
    ("tgcn", {"hidden": 8}),
    ("gru", {"hidden": 8, "dropout": 0.2}),
]


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize(("name", "options"), MODELS)
def test_20_recorded_steps_are_the_usual_ones(
    name: str, options: dict[str, Any], precision: str
) -> None:
    lines: list[str] = []
    recorded = _step(make_model(name, **options), precision=precision)
    recorded.explain_to(lines.append)
    usual = _step(make_model(name, **options), precision=precision, cuda_graphs="off")
    _assert_same(_train(recorded, 0, 20), _train(usual, 0, 20))
    assert lines == []
    assert recorded._graphs is not None
    assert recorded._graphs.num_recorded == 2


def test_rmsprop_with_a_curriculum_and_an_average() -> None:
    """The rate and the horizon's limit are read from memory, and the average follows the step."""
    options: dict[str, Any] = {
        "optimizer": "rmsprop",
        "curriculum_steps": 3,
        "ema_decay": 0.9,
    }
    steps = [_step(make_model("stid"), **options, cuda_graphs=each) for each in ("auto", "off")]
    for each in steps:
        each.average.begin()
    recorded, usual = (_train(each, 0, 12) for each in steps)
    _assert_same(recorded, usual)
    averaged, expected = (each.average.state_dicts()[0] for each in steps)
    _assert_same(averaged, expected)
    assert steps[0]._graphs is not None
    assert steps[0]._graphs.reason is None


def test_a_checkpoint_in_the_middle_resumes_bit_for_bit() -> None:
    first = _step(make_model("dcrnn", hidden=8, layers=1))
    _train(first, 0, 10)
    weights = {name: each.clone() for name, each in first.forecaster.network.state_dict().items()}
    saved = plain_optimizer_state(first.optimizer, first.learning_rate)
    resumed = _step(make_model("dcrnn", hidden=8, layers=1))
    resumed.forecaster.network.load_state_dict(weights)
    resumed.load_optimizer(saved)
    ours = _train(resumed, 10, 20)
    usual = _step(make_model("dcrnn", hidden=8, layers=1), cuda_graphs="off")
    _assert_same(ours, {**_train(usual, 0, 20), "loss": ours["loss"], "count": ours["count"]})


def test_activation_checkpointing_and_several_batches_a_step() -> None:
    results = []
    for graphs in ("auto", "off"):
        network = make_model("dcrnn", hidden=8, layers=1)
        network.activation_checkpointing = True  # type: ignore[assignment]
        step = _step(network, cuda_graphs=graphs)
        for number in range(12):
            step([_on_gpu(number), _on_gpu(number + 1)], step=number, num_batches=2)
        results.append({name: each.clone() for name, each in network.state_dict().items()})
    _assert_same(*results)


def test_what_cannot_be_recorded_is_taken_as_usual() -> None:
    """A failed recording leaves neither the stream nor the generator in the graph."""
    lines: list[str] = []
    results = []
    for graphs in ("auto", "off"):
        step = _step(OwnNet(lambda net: net.linear.weight.sum().item()), cuda_graphs=graphs)
        step.explain_to(lines.append)
        results.append(_train(step, 0, 12))
    _assert_same(*results)
    (line,) = lines
    assert line.startswith("CUDA graphs are not used: recording failed (")
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.rand(3, device=_DEVICE)


def test_memory_is_bounded() -> None:
    """Recordings of several shapes share their memory, and none is added after the first epoch."""
    step = _step(make_model("graph-wavenet", blocks=1, layers=2))
    _train(step, 0, 15)
    torch.cuda.synchronize()
    after_an_epoch = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    _train(step, 15, 60)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= 1.05 * after_an_epoch[0]
    assert torch.cuda.memory_reserved() <= 1.5 * after_an_epoch[1]
