"""Runs to export, which were not trained: networks away from the weights that they begin with."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pgti.batching import WindowConfig
from pgti.graph import SensorGraph
from pgti.run import ModelConfig, Run, RunConfig
from pgti.run.build import build_forecaster, window_source
from pgti.store import SeriesStore, TimeAxis
from pgti.store.static_features import StaticFeatures
from pgti.training import RunDirectory, TrainingConfig

from ...models.small_models import SMALL, asymmetric_graph

FEW_LAYERS: dict[str, dict[str, object]] = {
    "a3tgcn": {},
    "d2stgnn": {"layers": 1},
    "dcrnn": {"layers": 1},
    "graph-wavenet": {"blocks": 1},
    "st-llm": {"gpt_layers": 1},
    "staeformer": {"layers": 1},
}
HOURLY = TimeAxis(num_steps=120, start_seconds=1_740_700_800, interval_seconds=3600)


def make_series(
    axis: TimeAxis = HOURLY, graph: SensorGraph | None = None, *, exact: bool = False
) -> SeriesStore:
    """Flow, speed and the rain that is known in advance; a tenth is missing; three features."""
    graph = asymmetric_graph() if graph is None else graph
    random, nodes = np.random.default_rng(1), graph.num_nodes
    values = random.normal(size=(axis.num_steps, nodes, 3)) * [20, 5, 1] + [300, 60, 2]
    values[random.random(values.shape) < 0.1] = np.nan
    features = np.stack([random.random(nodes), np.arange(nodes) % 2], axis=1)
    return SeriesStore.in_memory(
        values,
        graph,
        axis,
        node_ids=tuple(f"s{number}" for number in range(nodes)),
        channels=("flow", "speed", "rain"),
        units=("veh/h", "mph", "mm"),
        known_future=("rain",),
        static=StaticFeatures(
            names=("lanes", "kind"), units=("", ""), values=features, categories=((), ("a", "b"))
        ),
        exact=exact,
    )


def make_run(
    model: str,
    store: SeriesStore | None = None,
    *,
    training: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    **windows: Any,
) -> Run:
    """A run of a small network, for windows of 3 steps and 2 to forecast."""
    store = make_series() if store is None else store
    small = {**SMALL.get(model, {}), **FEW_LAYERS.get(model, {})} if options is None else options
    shape = {"input_steps": 3, "horizon": 2, "targets": ("speed", "flow"), **windows}
    config = RunConfig(
        store=Path("memory"),
        windows=WindowConfig(**shape),
        model=ModelConfig(name=model, options=small),
        training=TrainingConfig(**(training or {})),
        device="cpu",
    )
    source = window_source(config, store)
    forecaster = build_forecaster(config, source, None)
    with torch.no_grad():
        for parameter in forecaster.network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Run(
        config=config,
        store=store,
        latest=store,
        splits=config.windows.splits(store),
        source=source,
        forecaster=forecaster.eval(),
        directory=RunDirectory(Path("run")),
    )
