"""Bytes between ranks that share sensors: predicted, and equal to those that were sent."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pgti.cli.main import run_command
from pgti.graph import SensorGraph, partition_sensors
from pgti.models import AbstractModel, ModelShape, build_model
from pgti.nn import ShardedSupports
from pgti.run.halo import predict_halo

from ..distributed.rank_jobs import sharded_store
from ..shards import ThreadGroup, run_sharded

SHAPE = ModelShape(
    input_steps=4,
    horizon=3,
    num_nodes=21,
    input_channels=2,
    target_channels=1,
    target_indices=(0,),
)
MODELS: dict[str, dict[str, Any]] = {
    "dcrnn": {"hidden": 18, "layers": 1},
    "stgcn": {"hidden": 4, "bottleneck": 2, "end_channels": 4},
    "graph-wavenet": {"hidden": 4, "skip_channels": 4, "end_channels": 4, "adjacency": "low-rank"},
    "gru": {"hidden": 3},
}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_what_a_step_sends(name: str, checkpointing: bool) -> None:
    """Rows of all products in both directions, and sums over sensors; a model without a graph."""
    pairs = np.unique(np.random.default_rng(0).integers(0, 21, (60, 2)), axis=0)
    graph = SensorGraph.from_edges(21, pairs[:, 0], pairs[:, 1])
    partition, options = partition_sensors(graph, 3), MODELS[name]
    model = build_model(name, options, SHAPE)
    assert isinstance(model, AbstractModel)
    model.activation_checkpointing = checkpointing

    def step(group: ThreadGroup) -> int:
        supports = ShardedSupports.cut(graph, model.support_kind, partition, group)
        num_local = len(partition.parts[group.rank])
        x = torch.ones(2, 4, num_local, 2)
        copy.deepcopy(model)(x, supports).sum().backward()
        return group.sent_bytes

    expected = predict_halo(
        name, options, SHAPE, graph, partition, windows=2, activation_checkpointing=checkpointing
    )
    assert list(expected.step_bytes) == run_sharded(3, step)
    assert (sum(expected.step_bytes) > 0) == (name != "gru")
    assert expected.parts == (7, 7, 7)


def test_the_plan_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = sharded_store(tmp_path / "store")
    options = ["--world-size", "4", "--shard-sensors", "2", "--batch-size", "6"]
    options += ["--windows.input-steps", "4", "--windows.horizon", "2", "--model.hidden", "4"]
    assert run_command(["plan", str(store.path), *options, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["halo"]["parts"] == [5, 6]
    assert result["halo"]["windows"] == 3
    assert min(result["halo"]["step_bytes"]) > 0
    assert result["schedule"]["windows_per_batch"]["maximum"] == 3  # of a group, not of a rank
    assert run_command(["plan", str(store.path), *options]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "sensors split over 2 ranks" in said
    low, high = (
        result["schedule"]["steps"] * each for each in sorted(result["halo"]["step_bytes"])
    )
    assert f"for them in the epoch, at most {low:,}" + f" to {high:,}" * (low < high) in said
    assert "everything in the epoch but the rows of neighbours" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shard-sensors", "3"), "the number of ranks 4"),
        (("--shard-sensors", "2", "--model", "agcrn"), "agcrn cannot be split over ranks"),
        (("--shard-sensors", "2", "--placement", "partitioned"), "placement is partitioned"),
        (("--shard-sensors", "2", "--compile"), "compile is on"),
        (("--shard-sensors", "0"), "shard_sensors is 0"),
    ],
)
def test_refusals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    store = sharded_store(tmp_path / "store")
    assert run_command(["plan", str(store.path), "--world-size", "4", *options]) == 2
    error = capsys.readouterr().err.replace("-", "_")
    assert message.replace("-", "_") in " ".join(error.split())
