"""Models whose sensors are split over ranks give what they give of all sensors."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pgti.graph import SensorGraph, partition_sensors
from pgti.models import MODELS, AbstractModel, ModelShape, TeacherForcing, build_model
from pgti.nn import ShardedSupports, Supports

from ..shards import ThreadGroup, run_sharded

NODES, BATCH = 23, 2
SHAPE = ModelShape(
    input_steps=6,
    horizon=3,
    num_nodes=NODES,
    input_channels=3,
    target_channels=1,
    target_indices=(0,),
    calendar=("time-of-day", "day-of-week"),
    steps_per_day=24,
)
CASES: dict[str, dict[str, Any]] = {
    "a3tgcn": {"hidden": 4},
    "dcrnn": {"hidden": 4, "scheduled_sampling": True},
    "graph-wavenet": {
        "hidden": 4,
        "skip_channels": 5,
        "end_channels": 6,
        "adjacency": "low-rank",
        "dropout": 0.0,
    },
    "gru": {"hidden": 4},
    "linear": {"individual": True},
    "stgcn": {"hidden": 4, "bottleneck": 3, "end_channels": 5},
    "stid": {"dropout": 0.0},
    "tgcn": {"hidden": 4},
}
WIDE = {"dcrnn wide": ("dcrnn", {"hidden": 18})}  # beyond 16 channels, hops are computed otherwise
ALL = {name: (name, options) for name, options in CASES.items()} | WIDE


@pytest.fixture(scope="module")
def graph() -> SensorGraph:
    generator = np.random.default_rng(3)
    source, target = generator.integers(0, NODES - 1, (2, 70))  # the last sensor is alone
    edges = sorted({(a, b) for a, b in zip(source.tolist(), target.tolist(), strict=True)})
    weights = generator.random(len(edges)) + 0.1
    return SensorGraph.from_edges(NODES, [a for a, _ in edges], [b for _, b in edges], weights)


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    shape = (BATCH, SHAPE.input_steps, NODES, SHAPE.input_channels)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    # The calendar is the same for all sensors.
    x[..., 1:] = torch.rand((*shape[:2], 1, 2), generator=generator, dtype=torch.float64)
    y = torch.randn((BATCH, SHAPE.horizon, NODES, 1), generator=generator, dtype=torch.float64)
    return x, y


def step(
    model: AbstractModel, supports: Supports, x: Tensor, y: Tensor
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Forecast, gradients by name and buffers, after a squared error summed over sensors."""
    teacher = TeacherForcing(
        targets_BHNC=y, calendar_BHF=x.new_zeros(BATCH, SHAPE.horizon, 2), step=2, seed=1
    )
    forecast = model(x, supports, teacher)
    (forecast - y).square().sum().backward()
    gradients = {
        name: torch.zeros_like(each) if each.grad is None else each.grad
        for name, each in model.named_parameters()
    }
    model.eval()
    with torch.no_grad():
        forecast = model(x, supports)
    return forecast, gradients, dict(model.named_buffers())


@pytest.mark.parametrize(("shards", "checkpointing"), [(2, False), (3, True)])
@pytest.mark.parametrize("case", ALL)
def test_forecasts_and_gradients(
    case: str, shards: int, checkpointing: bool, graph: SensorGraph
) -> None:
    name, options = ALL[case]
    torch.manual_seed(0)
    model = build_model(name, options, SHAPE).double()
    assert isinstance(model, AbstractModel)
    assert model.shard_refusal is None
    model.activation_checkpointing = checkpointing and model.can_checkpoint_activations
    x, y = inputs()
    partition = partition_sensors(graph, shards)
    kind = model.support_kind

    def of_rank(group: ThreadGroup) -> Any:
        mine = partition.parts[group.rank]
        supports = ShardedSupports.cut(graph, kind, partition, group).double()
        return step(copy.deepcopy(model), supports, x[:, :, mine], y[:, :, mine])

    parts = run_sharded(shards, of_rank)
    forecast, gradients, buffers = step(model, Supports.from_graph(graph, kind).double(), x, y)
    assert sum(map(len, partition.parts)) == NODES
    for sensors, (part, _, part_buffers) in zip(partition.parts, parts, strict=True):
        torch.testing.assert_close(part, forecast[:, :, sensors], rtol=1e-12, atol=1e-12)
        for key, buffer in buffers.items():
            torch.testing.assert_close(part_buffers[key], buffer, rtol=1e-12, atol=1e-12)
    for key, gradient in gradients.items():
        total = sum_of([of_part[key] for _, of_part, _ in parts])
        torch.testing.assert_close(total, gradient, rtol=1e-11, atol=1e-12, msg=key)


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(tensors)).sum(dim=0)


def test_other_models_say_why() -> None:
    refusals = {}
    for name in MODELS:
        if name.startswith("pgt:"):
            continue
        with torch.device("meta"):
            model = build_model(name, {}, SHAPE, is_restored=True)
        assert isinstance(model, AbstractModel)
        refusals[name] = model.shard_refusal
    assert {name for name, refusal in refusals.items() if refusal is None} == set(CASES) - {
        "graph-wavenet"
    }
    assert "low-rank" in (refusals["graph-wavenet"] or "")
    assert all(refusal is None or len(refusal) > 10 for refusal in refusals.values())
