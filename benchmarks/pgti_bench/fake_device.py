"""A training step of any registered model on a fake GPU: see `pgti_bench.fake_gpu`.

launches = count_launches(FakeStepSpec(model="dcrnn", num_nodes=207, batch_size=64))
launches.total, launches.by_kind["sparse"]
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pgti.batching import Batch
from pgti.forecasting import NetworkForecaster
from pgti.graph import SensorGraph
from pgti.models import AbstractModel, ModelShape, add_heads, build_model
from pgti.nn import ChunkLimits
from pgti.nn.limits import DenseLimits
from pgti.store import Scaler
from pgti.training import TrainingConfig, TrainStep
from pgti_bench.fake_gpu import FAKE_DEVICE, FakeGpu
from pgti_bench.fake_waits import (
    FakeGpuError,
    HostTensorError,
    HostWaitError,
    UnknownShapeError,
)
from pgti_bench.launches import Launches

__all__ = [
    "FakeGpu",
    "FakeGpuError",
    "FakeStep",
    "FakeStepSpec",
    "HostTensorError",
    "HostWaitError",
    "Launches",
    "UnknownShapeError",
    "count_launches",
    "fake_batch",
    "fake_step",
    "ring_graph",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class FakeStepSpec:
    """A model, its sizes and its training.

    Attributes:
        model: name of a registered model.
        options: of the model.
        graph: of the sensors; None makes a `ring_graph` of `num_nodes`.
        num_nodes: sensors N.
        batch_size: windows B.
        input_steps: L.
        horizon: H.
        calendar: features of time, which are inputs too.
        covariates: a channel known in advance and two features of the sensors.
        training: optimizer, precision, clipping.
        activation_checkpointing: recompute activations in the backward pass.
        windows: sizes of the windows; None makes them of those above.
    """

    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    graph: SensorGraph | None = None
    num_nodes: int = 207
    batch_size: int = 64
    input_steps: int = 12
    horizon: int = 12
    calendar: tuple[str, ...] = ("time-of-day",)
    covariates: bool = False
    training: TrainingConfig = field(default_factory=TrainingConfig)
    activation_checkpointing: bool = False
    windows: ModelShape | None = None

    @property
    def shape(self) -> ModelShape:
        """What windows of one channel, the target, ask of the network: once for each quantile."""
        if self.windows is not None:
            return self.windows
        num_outputs = max(1, len(self.training.quantiles))
        return ModelShape(
            input_steps=self.input_steps,
            horizon=self.horizon,
            num_nodes=self.num_nodes if self.graph is None else self.graph.num_nodes,
            input_channels=1 + len(self.calendar),
            target_channels=num_outputs,
            target_indices=(0,) * num_outputs,
            calendar=self.calendar,
            steps_per_day=288,
            future_channels=1 * self.covariates,
            static_channels=2 * self.covariates,
        )


@dataclass(kw_only=True, slots=True)
class FakeStep:
    """A forecaster, a batch of windows and the step that trains one on the other.

    Attributes:
        forecaster: with the network.
        batch: windows with targets.
        train_step: as `TrainStep.from_config` makes it.
        num_taken: steps so far.
    """

    forecaster: NetworkForecaster
    batch: Batch
    train_step: TrainStep
    num_taken: int = 0

    def take(self) -> None:
        """Take a step: forward, backward, clipping, update."""
        self.train_step([self.batch], step=self.num_taken, learning_rate=1e-3)
        self.num_taken += 1


def fake_step(spec: FakeStepSpec, device: torch.device = FAKE_DEVICE) -> FakeStep:
    """A training step on made-up windows: of shapes alone on a fake GPU, or computed on `device`.

    Args:
        spec: the step.
        device: by default the fake one, which needs the block of a `FakeGpu`.

    Raises:
        ConfigError: there is no such model or option.
    """
    shape = spec.shape
    graph = ring_graph(shape.num_nodes) if spec.graph is None else spec.graph
    torch.manual_seed(0)
    network = build_model(spec.model, spec.options, shape)
    assert isinstance(network, AbstractModel)
    network.activation_checkpointing = spec.activation_checkpointing
    scaler = Scaler(mean=(50.0,), std=(10.0,))
    forecaster = NetworkForecaster(
        network,
        network.build_supports(graph),
        scaler,
        (0,),
        heads=add_heads(network, shape),
        quantile_levels=spec.training.quantiles,
    )
    forecaster.to(device)
    return FakeStep(
        forecaster=forecaster,
        batch=fake_batch(shape, spec.batch_size, device),
        train_step=TrainStep.from_config(forecaster.train(), spec.training),
    )


def fake_batch(shape: ModelShape, batch_size: int, device: torch.device = FAKE_DEVICE) -> Batch:
    """Made-up windows with targets: without content on the fake GPU, or with it on `device`."""
    sizes = {
        "x": (batch_size, shape.input_steps, shape.num_nodes, shape.input_channels),
        "y": (batch_size, shape.horizon, shape.num_nodes, len(set(shape.target_indices))),
        "calendar": (batch_size, shape.input_steps + shape.horizon, len(shape.calendar)),
        "future": (batch_size, shape.horizon, shape.num_nodes, shape.future_channels),
        "static": (shape.num_nodes, shape.static_channels),
        "history": (batch_size, shape.history_steps, shape.num_nodes, shape.history_channels),
    }
    x, y, calendar, future, static, history = (
        torch.rand(each, device=device) for each in sizes.values()
    )
    channels = shape.input_channels - len(shape.calendar)
    return Batch(
        x=x,
        x_mask=torch.ones(*x.shape[:3], channels, dtype=torch.bool, device=device),
        y=y,
        y_mask=torch.ones(y.shape, dtype=torch.bool, device=device),
        calendar=calendar,
        starts=np.arange(batch_size),
        future=future if shape.future_channels else None,
        static=static if shape.static_channels else None,
        history=history if shape.history else None,
        history_mask=torch.ones_like(history, dtype=torch.bool) if shape.history else None,
    )


def count_launches(
    spec: FakeStepSpec, *, limits: ChunkLimits | None = None, dense: DenseLimits | None = None
) -> Launches:
    """Kernels that a GPU would start in one training step, after a first one that prepares.

    Args:
        spec: the step.
        limits: how much layers compute at a time; by default what suits a GPU.
        dense: which products are dense; likewise.

    Raises:
        FakeGpuError: the step waits for the GPU, or mixes devices.
        ConfigError: there is no such model or option.
    """
    with FakeGpu() as gpu:
        step = fake_step(spec)
        if limits is not None:
            network = step.forecaster.network
            assert isinstance(network, AbstractModel)
            network.limits = limits
        step.forecaster.supports.dense = dense
        step.take()
        with gpu.checked() as launches:
            step.take()
    return launches


def ring_graph(num_nodes: int, neighbours: int = 8) -> SensorGraph:
    """Each sensor has edges to the `neighbours` that follow it, or to all others if they are few.

    With 8 of them METR-LA's 207 sensors have about as many edges as in its published graph.
    """
    nodes = np.arange(num_nodes)
    steps = np.arange(1, 1 + min(neighbours, num_nodes - 1))
    targets = (nodes[:, None] + steps) % num_nodes
    weights = np.broadcast_to(np.exp(-((steps / neighbours) ** 2)), targets.shape)
    sources = np.repeat(nodes, len(steps))
    return SensorGraph.from_edges(num_nodes, sources, targets.ravel(), weights.ravel())
