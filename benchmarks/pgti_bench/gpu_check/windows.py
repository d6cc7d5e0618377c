"""Forecasters and random windows for the check, the same on every device."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch

from pgti.batching import Batch
from pgti.forecasting import NetworkForecaster
from pgti.graph import SensorGraph
from pgti.models import AbstractModel, ModelShape, build_model
from pgti.store import Scaler
from pgti_bench.errors import BenchError
from pgti_bench.fake_device import ring_graph

__all__ = ["COMPARED_OPTIONS", "PEMS_NODES", "build_step_inputs", "graph_of", "random_windows"]

PEMS_NODES = 11_160
_METR_LA_NEIGHBOURS, _PEMS_NEIGHBOURS = 8, 18

COMPARED_OPTIONS: dict[str, dict[str, Any]] = {
    "graph-wavenet": {"dropout": 0.0},
    "gru": {"dropout": 0.0},
    "mtgnn": {"dropout": 0.0},
    "st-llm": {"dropout": 0.0, "gpt_layers": 2, "width": 64, "heads": 2},
    "staeformer": {"dropout": 0.0},
    "stid": {"dropout": 0.0},
}
"""Options with which a model draws nothing, so that devices can be compared, and is not large."""


@cache
def graph_of(num_nodes: int) -> SensorGraph:
    """A graph with about as many edges as that of METR-LA, or of all California."""
    is_large = num_nodes > PEMS_NODES // 2
    return ring_graph(num_nodes, _PEMS_NEIGHBOURS if is_large else _METR_LA_NEIGHBOURS)


def build_step_inputs(
    name: str,
    options: Mapping[str, Any],
    *,
    num_nodes: int,
    batch_size: int,
    device: torch.device,
    steps: int = 12,
) -> tuple[NetworkForecaster, Batch]:
    """A forecaster with its initial parameters, and windows, on a device.

    Args:
        name: of a registered model.
        options: of the model.
        num_nodes: sensors N.
        batch_size: windows B.
        device: where both are.
        steps: inputs, and as many to forecast.
    """
    shape = ModelShape(
        input_steps=steps,
        horizon=steps,
        num_nodes=num_nodes,
        input_channels=3,
        target_channels=1,
        target_indices=(0,),
        calendar=("time-of-day", "day-of-week"),
        steps_per_day=288,
    )
    torch.manual_seed(0)
    network = build_model(name, options, shape)
    if not isinstance(network, AbstractModel):
        raise BenchError(f"{name} is not a model of pgti")
    supports = network.build_supports(graph_of(num_nodes))
    forecaster = NetworkForecaster(network, supports, Scaler(mean=(50.0,), std=(10.0,)), (0,))
    return forecaster.to(device), random_windows(shape, batch_size).to(device)


def random_windows(shape: ModelShape, batch_size: int, seed: int = 1) -> Batch:
    """Windows of five-minute readings on the CPU, a tenth of the targets missing."""
    generator = torch.Generator().manual_seed(seed)
    size = (batch_size, shape.input_steps, shape.num_nodes)
    rows = 37 * torch.arange(batch_size)[:, None] + torch.arange(shape.input_steps + shape.horizon)
    calendar = torch.stack([rows % 288 / 288, rows // 288 % 7 / 7], dim=-1)
    features = calendar[:, : shape.input_steps, None].expand(*size, 2)
    readings = torch.randn(*size, 1, generator=generator)
    y = 50 + 10 * torch.randn(batch_size, shape.horizon, shape.num_nodes, 1, generator=generator)
    return Batch(
        x=torch.cat([readings, features], dim=-1),
        x_mask=torch.ones(*size, 1, dtype=torch.bool),
        y=y,
        y_mask=torch.rand(y.shape, generator=generator) >= 0.1,
        calendar=calendar,
        starts=np.arange(batch_size),
    )
