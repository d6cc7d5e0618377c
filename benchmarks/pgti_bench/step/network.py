"""The network of the step benchmark, and an optimizer step of it on a batch of random windows."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pgti.batching import Batch
from pgti.errors import ConfigError, require_whole_number
from pgti.forecasting import NetworkForecaster
from pgti.graph import SensorGraph
from pgti.models import (
    AbstractModel,
    ModelConfig,
    ModelShape,
    build_config,
    build_model,
    num_trainable_parameters,
)
from pgti.nn import DiffusionGRU, Supports
from pgti.shapes import BHNC, BLNC
from pgti.store import Scaler
from pgti.training import TrainingConfig, TrainStep
from pgti.training.compilation import compile_network
from pgti.training.config import Precision
from pgti_bench.devices import synchronize

__all__ = [
    "INPUT_CHANNELS",
    "LAYER",
    "TARGET_CHANNELS",
    "LayerConfig",
    "RandomBatchStep",
    "RecurrentLayer",
    "StepSpec",
    "build_network",
    "resolve_options",
]

LAYER = "layer"
"""Name, in `pgti-bench step`, of the recurrent layer that PGT has too."""
INPUT_CHANNELS, TARGET_CHANNELS = 2, 1
"""Inputs are an observation and the time of day, the target is an observation, as in METR-LA."""

_SCALER = Scaler(mean=(50.0,), std=(10.0,))


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerConfig(ModelConfig):
    """Options of the layer.

    Attributes:
        hidden: units D.
        hops: powers K of each of the two random walks; PGT counts the identity too, K + 1.

    Raises:
        ConfigError: an option out of range.
    """

    hidden: int = 64
    hops: int = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_whole_number("hidden", self.hidden, 1)
        require_whole_number("hops", self.hops, 1)


class RecurrentLayer(AbstractModel):
    """One diffusion GRU whose state after each input is projected to the targets.

    The counterpart of PGT's `BatchedDCRNN` followed by a linear map: the same recurrence with
    equally many sparse products and terms of the same two walks. PGT's terms are Chebyshev
    polynomials, these are powers. The forecast of step t depends on the inputs up to t alone.
    """

    config: LayerConfig

    def __init__(self, config: LayerConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        self.layer = DiffusionGRU(shape.input_channels, config.hidden, 2, config.hops)
        self.head = nn.Linear(config.hidden, shape.target_channels)

    def forward(self, x: BLNC, supports: Supports, teacher: object = None) -> BHNC:
        """Forecast one step per input; see `AbstractModel.forward`."""
        states_LNBD, _ = self.layer(x.permute(1, 2, 0, 3), None, supports)
        forecasts_LNBC: Tensor = self.head(states_LNBD)
        return forecasts_LNBC.permute(2, 0, 1, 3)


def resolve_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The model's complete options: those given, and defaults for the others.

    Raises:
        ConfigError: an unknown model or option, or a value that cannot be used.
    """
    if name != LAYER:
        return asdict(build_config(name, options))
    known = [field.name for field in fields(LayerConfig)]
    for option in options:
        if option not in known:
            raise ConfigError(
                f"model {LAYER!r} has no option {option!r}: it has {' and '.join(known)}"
            )
    return asdict(LayerConfig(**options))


def build_network(name: str, options: Mapping[str, Any], shape: ModelShape) -> AbstractModel:
    """The layer, or one of pgti's models, with fresh weights.

    Raises:
        ConfigError: as `resolve_options`.
    """
    if name != LAYER:
        model = build_model(name, options, shape)
        if not isinstance(model, AbstractModel):
            raise ConfigError(
                f"model {name!r} is not of pgti: measure one that `pgti models` lists"
            )
        return model
    return RecurrentLayer(LayerConfig(**resolve_options(name, options)), shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSpec:
    """The network and the batch.

    Attributes:
        model: as `build_network` takes it.
        options: of that model.
        steps: input steps, and equally many forecast steps.
        batch_size: windows B.
        precision: as `pgti train` takes it.
        activation_checkpointing: recompute activations in the backward pass.
        compile: as `pgti train --compile`, in the first step.
    """

    model: str
    options: Mapping[str, Any]
    steps: int
    batch_size: int
    precision: Precision
    activation_checkpointing: bool
    compile: bool = False


class RandomBatchStep:
    """A network and one random batch: each call of `seconds` takes one optimizer step.

    Args:
        graph: N sensors.
        spec: the network and the batch.
        device: where to compute.

    Attributes:
        forecaster: with the network.
        batch: the random windows.
        num_parameters: number of trainable parameters.

    Raises:
        ConfigError: as `build_network`.
    """

    def __init__(self, graph: SensorGraph, spec: StepSpec, device: torch.device) -> None:
        torch.manual_seed(0)
        shape = _shape(graph.num_nodes, spec.steps)
        network = build_network(spec.model, spec.options, shape)
        network.activation_checkpointing = spec.activation_checkpointing
        supports = network.build_supports(graph)
        self.forecaster = NetworkForecaster(network, supports, _SCALER, (0,)).to(device)
        self.batch = _random_batch(shape, spec.batch_size, device)
        self.num_parameters = num_trainable_parameters(network)
        self._device = device
        self._step = TrainStep.from_config(
            self.forecaster, TrainingConfig(precision=spec.precision)
        )
        if spec.compile:
            compile_network(network)
        self._steps = 0

    def seconds(self) -> float:
        """Take one step; how many seconds it took."""
        synchronize(self._device)
        began = time.perf_counter()
        self.take()
        synchronize(self._device)
        return time.perf_counter() - began

    def take(self) -> None:
        """Take one step."""
        self._step([self.batch], step=self._steps)
        self._steps += 1


def _shape(num_nodes: int, steps: int) -> ModelShape:
    return ModelShape(
        input_steps=steps,
        horizon=steps,
        num_nodes=num_nodes,
        input_channels=INPUT_CHANNELS,
        target_channels=TARGET_CHANNELS,
        target_indices=(0,),
        calendar=("time-of-day",) * (INPUT_CHANNELS - 1),
        steps_per_day=288,
    )


def _random_batch(shape: ModelShape, batch_size: int, device: torch.device) -> Batch:
    x = torch.randn(batch_size, shape.input_steps, shape.num_nodes, shape.input_channels)
    y = 50 + 10 * torch.randn(batch_size, shape.horizon, shape.num_nodes, shape.target_channels)
    return Batch(
        x=x.to(device),
        x_mask=torch.ones(*x.shape[:3], 1, dtype=torch.bool, device=device),
        y=y.to(device),
        y_mask=torch.ones(y.shape, dtype=torch.bool, device=device),
        calendar=torch.zeros(batch_size, shape.input_steps + shape.horizon, 1, device=device),
        starts=np.arange(batch_size),
    )
