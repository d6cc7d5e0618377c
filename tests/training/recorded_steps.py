"""Training steps that are recorded, or not, and what they leave behind, for tests to compare."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pgti.batching import Batch
from pgti.distributed import Communicator, SingleProcess, Work
from pgti.distributed.communicator import Kind
from pgti.forecasting import NetworkForecaster
from pgti.graph import SensorGraph
from pgti.models import (
    AbstractModel,
    CovariateHead,
    ModelShape,
    add_heads,
    build_model,
)
from pgti.nn import Supports
from pgti.store import Scaler
from pgti.training import RunningLoss, TrainingConfig, TrainStep

from .recording import CpuRecorder, as_on_a_gpu

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
    future_channels=2,
    static_channels=1,
)


def make_batch(num_windows: int, seed: int) -> Batch:
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
        future=torch.randn(num_windows, _HORIZON, _NODES, 2, generator=generator),
        static=torch.linspace(-1, 1, _NODES)[:, None],
    )


def make_forecaster(network: nn.Module) -> NetworkForecaster:
    nodes = np.arange(_NODES)
    ring = (nodes, (nodes + 1) % _NODES, 1 / (1 + nodes))  # sparse at this size
    graph = SensorGraph.from_edges(_NODES, *ring)
    kind = getattr(network, "support_kind", "dual_random_walk")
    is_ours = isinstance(network, AbstractModel)
    supports = network.build_supports(graph) if is_ours else Supports.from_graph(graph, kind)
    heads = tuple(each for each in network.children() if isinstance(each, CovariateHead))
    scaler = Scaler(mean=(50.0,), std=(10.0,))
    return NetworkForecaster(network, supports, scaler, (0,), heads=heads).train()


def make_model(name: str, *, covariates: bool = False, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    network = build_model(name, options, _SHAPE)
    if covariates:
        add_heads(network, _SHAPE)
    return network


class OwnNet(nn.Module):
    """A linear map with dropout, and what a test adds to its forward pass."""

    def __init__(self, also: Callable[["OwnNet"], object] = lambda _: None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(_INPUTS * 2, _HORIZON)
        self.dropout = nn.Dropout(0.2)
        self.unused = nn.Linear(2, 2)
        self.also = [also]

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, N, C] -> [B, H, N, 1]."""
        self.also[0](self)
        out = self.linear(self.dropout(x.transpose(1, 2).flatten(2)))
        return out.transpose(1, 2).unsqueeze(-1)


def make_step(
    network: nn.Module,
    config: TrainingConfig,
    recorder: CpuRecorder | None,
    communicator: Communicator | None = None,
) -> TrainStep:
    forecaster = make_forecaster(copy.deepcopy(network))
    step = as_on_a_gpu(TrainStep.from_config(forecaster, config, communicator))
    if recorder is not None:
        step.record(recorder)
    return step


def train_steps(
    step: TrainStep, first: int, last: int, *, sizes: Sequence[int] = (6, 6, 6, 6, 3)
) -> dict[str, Tensor]:
    """Steps first .. last - 1, each of a batch of its size or, if it has several, of all of them.

    Returns parameters, buffers, the optimizer's state and the loss.
    """
    running = RunningLoss(step.device)
    for number in range(first, last):
        size = sizes[number % len(sizes)]
        several = size if isinstance(size, tuple) else (size,)
        batches = [make_batch(each, 100 * number + index) for index, each in enumerate(several)]
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


def assert_same(recorded: dict[str, Tensor], usual: dict[str, Tensor]) -> None:
    assert recorded.keys() == usual.keys()
    for name, each in usual.items():
        assert torch.equal(recorded[name], each), name


class TwoAlike(SingleProcess):
    """One of two ranks, the other of which has the same windows."""

    def __init__(self) -> None:
        super().__init__()
        self.world_size = 2

    def all_reduce_async(self, tensor: Tensor, kind: Kind) -> Work:
        """The sum over both."""
        tensor.mul_(2)
        return Work()
