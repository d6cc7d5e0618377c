"""Small models, away from their initial weights, and the graph, sizes and inputs to test them."""

import numpy as np
import torch
from torch import Tensor, nn

from pgti.graph import SensorGraph, from_dense
from pgti.memory import LiveBytes
from pgti.models import AbstractModel, ModelShape, build_model
from pgti.nn import Supports

FLOAT64 = torch.float64
NUM_NODES, BATCH, INPUT_STEPS, HORIZON, CHANNELS, TARGETS = 7, 3, 12, 5, 5, 2
STEPS_PER_DAY = 24

SMALL: dict[str, dict[str, object]] = {
    "a3tgcn": {"hidden": 6},
    "agcrn": {"hidden": 6, "embedding": 8},
    "d2stgnn": {
        "hidden": 4,
        "node_embedding": 3,
        "calendar_embedding": 3,
        "layers": 2,
        "heads": 2,
        "gate_channels": 5,
        "forecast_channels": 6,
        "end_channels": 8,
    },
    "dcrnn": {"hidden": 6},
    "gman": {"layers": 1, "heads": 2, "head_width": 4},
    "graph-wavenet": {"hidden": 4, "skip_channels": 8, "end_channels": 8, "embedding": 3},
    "gru": {"hidden": 6, "dropout": 0.2},
    "himnet": {
        "hidden": 4,
        "node_embedding": 5,
        "window_embedding": 3,
        "time_of_day_embedding": 2,
        "day_of_week_embedding": 2,
    },
    "linear": {"kernel": 5},
    "megacrn": {"hidden": 4, "prototypes": 3, "memory_width": 3},
    "mtgnn": {"hidden": 8, "layers": 2, "neighbours": 3, "embedding": 4, "alpha": 0.5},
    "patchstg": {
        "window_embedding": 4,
        "node_embedding": 2,
        "time_of_day_embedding": 3,
        "day_of_week_embedding": 3,
        "layers": 1,
        "leaf_capacity": 2,
        "leaves_per_patch": 2,
    },
    "pgt-dcrnn": {"hidden": 6, "hops": 3},
    "st-balance": {"hidden": 6, "node_embedding": 5, "stage_outputs": 4, "layers": 1},
    "st-llm": {"embedding": 6, "gpt_layers": 2, "width": 8, "heads": 2},
    "staeformer": {"adaptive_embedding": 6, "feed_forward": 8, "heads": 2, "layers": 2},
    "stgcn": {"hidden": 6, "bottleneck": 4, "end_channels": 8, "dropout": 0.2},
    "stid": {"layers": 2},
    "tgcn": {"hidden": 6},
}
"""Options that make each model small."""


def asymmetric_graph() -> SensorGraph:
    """An asymmetric weighted graph; the last node is isolated, node 0 only leads out."""
    generator = np.random.default_rng(3)
    size = (NUM_NODES, NUM_NODES)
    matrix = generator.random(size) * (generator.random(size) < 0.4)
    matrix[-1] = 0
    matrix[:, -1] = 0
    matrix[:, 0] = 0
    matrix[0, 1] = 0.7
    return from_dense(matrix)


def shape(**changes: object) -> ModelShape:
    """Three channels, the second and first of them targets, time of day and day of week."""
    sizes: dict[str, object] = {
        "input_steps": INPUT_STEPS,
        "horizon": HORIZON,
        "num_nodes": NUM_NODES,
        "input_channels": CHANNELS,
        "target_channels": TARGETS,
        "target_indices": (1, 0),
        "calendar": ("time-of-day", "day-of-week"),
        "steps_per_day": STEPS_PER_DAY,
    }
    return ModelShape(**{**sizes, **changes})  # type: ignore[arg-type]


def metr_la_shape(**changes: object) -> ModelShape:
    """The sizes for which papers count parameters."""
    return shape(
        **{
            "horizon": 12,
            "num_nodes": 207,
            "input_channels": 2,
            "target_channels": 1,
            "target_indices": (0,),
            "calendar": ("time-of-day",),
            **changes,
        }
    )


def build(
    name: str, sizes: ModelShape | None = None, seed: int = 0, **options: object
) -> AbstractModel:
    """A small model in float32 and evaluation mode, every parameter away from its initial value."""
    torch.manual_seed(seed)
    model = build_model(name, {**SMALL[name], **options}, sizes or shape())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def count_parameters(model: nn.Module) -> int:
    """Frozen ones included."""
    return sum(parameter.numel() for parameter in model.parameters())


def measure_memory(
    model: AbstractModel, x: Tensor, graph: SensorGraph | None = None
) -> tuple[int, int]:
    """Bytes of tensors between the forward and backward pass, and at the peak of both."""
    supports = supports_of(model, graph)
    with LiveBytes() as memory:
        forecasts = model(x, supports)
        stored = memory.alive_bytes
        forecasts.sum().backward()
    return stored, memory.peak_bytes


def supports_of(model: AbstractModel, graph: SensorGraph | None = None) -> Supports:
    """The operators of the graph that a model uses, float32."""
    return model.build_supports(graph or asymmetric_graph())


def inputs(
    dtype: torch.dtype = torch.float32, sizes: ModelShape | None = None, batch: int = BATCH
) -> Tensor:
    """Standard normal observations, a fifth missing (0), and a calendar of hourly rows."""
    sizes = sizes or shape()
    generator = torch.Generator().manual_seed(5)
    size = (batch, sizes.input_steps, sizes.num_nodes, sizes.input_channels)
    x = torch.randn(*size, generator=generator, dtype=FLOAT64)
    x = torch.where(torch.rand(*size, generator=generator) < 0.2, 0.0, x)
    rows = torch.arange(batch)[:, None] * 31 + torch.arange(sizes.input_steps)
    day = sizes.steps_per_day or STEPS_PER_DAY
    features = {"time-of-day": rows % day / day, "day-of-week": rows // day % 7 / 7}
    for name in sizes.calendar:
        position = sizes.calendar_position(name)
        assert position is not None
        feature = features.get(name, rows % 5 == 0)  # a holiday, else
        x[..., position] = feature[..., None].to(torch.float32).to(FLOAT64)
    return x.to(dtype)
