"""Stores and options so small that a run takes a fraction of a second."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pgti.batching import WindowConfig
from pgti.graph import SensorGraph
from pgti.models import ModelShape
from pgti.nn import Supports
from pgti.run import ModelConfig, RunConfig
from pgti.store import SeriesStore, StoreWriter
from pgti.training import TrainingConfig

# More threads only wait for one another at this size.
torch.set_num_threads(1)

NUM_NODES = 3
WINDOWS = WindowConfig(input_steps=3, horizon=2)


def make_series(num_channels: int = 1, num_steps: int = 80, seed: int = 0) -> np.ndarray:
    """Readings around 50, each channel in another unit, [T, N, C]."""
    random = np.random.default_rng(seed)
    values = 50 + random.normal(size=(num_steps, NUM_NODES, num_channels))
    return (values * 100.0 ** np.arange(num_channels)).astype(np.float32)


def make_store(
    path: Path,
    values: np.ndarray,
    *,
    interval_seconds: int | None = 3600,
    exact: bool = False,
) -> SeriesStore:
    """Hourly readings from 2025-10-01 on, or at another interval, or without times."""
    graph = SensorGraph.from_edges(NUM_NODES, np.array([0, 1]), np.array([1, 2]))
    channels = tuple(f"c{channel}" for channel in range(values.shape[2]))
    with StoreWriter(
        path, node_ids=("a", "b", "c"), channels=channels, graph=graph, exact=exact
    ) as writer:
        writer.append(values)
        start = np.datetime64("2025-10-01T00:00") if interval_seconds else None
        writer.finish(start=start, interval_seconds=interval_seconds)
    return SeriesStore.open(path)


def make_config(store: SeriesStore, **training: Any) -> RunConfig:
    """A DCRNN of two units, trained for two epochs of 4 steps."""
    options: dict[str, Any] = {"epochs": 2, "batch_size": 16, "seed": 3, **training}
    return RunConfig(
        store=store.path.absolute(),
        windows=WINDOWS,
        model=ModelConfig(
            name="dcrnn", options={"hidden": 2, "layers": 1, "scheduled_sampling": True}
        ),
        training=TrainingConfig(**options),
    )


class Linear(nn.Module):
    """A linear map from a sensor's inputs to its forecasts, with dropout."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.linear = nn.Linear(
            shape.input_steps * shape.input_channels, shape.horizon * shape.target_channels
        )
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor, supports: Supports) -> Tensor:
        """[B, L, N, C_in] -> [B, H, N, C_out]."""
        assert supports.num_nodes == x.shape[2]
        out = self.linear(self.dropout(x.permute(0, 2, 1, 3).flatten(2)))
        sizes = (self.shape.horizon, self.shape.target_channels)
        return out.unflatten(2, sizes).transpose(1, 2)
