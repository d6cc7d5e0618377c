"""Training with the sensors of each window split over ranks is training on one."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn

from pgti.run import Run
from pgti.training import Checkpoint

from .conftest import RunRanks
from .rank_jobs import sharded_store

DCRNN = {"name": "dcrnn", "options": {"hidden": 4, "layers": 1}}


def check_same(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    assert "error" not in found, found
    assert found["parameters"].keys() == expected["parameters"].keys()
    for name, tensor in expected["parameters"].items():
        torch.testing.assert_close(
            found["parameters"][name], tensor, rtol=tolerance, atol=tolerance, msg=name
        )
    assert found["errors"] == pytest.approx(expected["errors"], rel=tolerance, abs=tolerance)
    assert found["loss"] == pytest.approx(expected["loss"], rel=tolerance)
    assert found["steps"] == expected["steps"]


def opened(run: str) -> Run:
    """A run that was trained in float64, with its network in float32 as ever."""
    load = Checkpoint.load_into

    def load_single(checkpoint: Checkpoint, network: nn.Module) -> None:
        load(checkpoint, network.double())
        network.float()

    with patch.object(Checkpoint, "load_into", load_single):
        return Run.open(run)


def test_dcrnn_on_two_and_four_ranks(run_ranks: RunRanks, tmp_path: Path) -> None:
    """1 x 2 and 2 x 2 ranks, data x space; and one process opens each of the runs."""
    store = str(sharded_store(tmp_path / "store").path)
    job: dict[str, Any] = {"store": store, "model": DCRNN, "training": {}}
    (alone,) = run_ranks("train_shards", 1, run=str(tmp_path / "alone"), shards=1, **job)
    assert alone["sent"]["halo"] == 0
    for world_size, shards in ((2, 2), (4, 2)):
        run = str(tmp_path / f"{world_size} {shards}")
        results = run_ranks("train_shards", world_size, run=run, shards=shards, **job)
        for result in results:
            check_same(result, alone, 1e-12)
        sizes = [result["sensors"] for result in results]
        assert sum(sizes) == 11 * world_size // shards
        assert max(sizes) - min(sizes) == 1
        assert results[0]["sent"]["halo"] > 0
        assert any("sensors split over" in line for line in results[0]["lines"])
        assert len(opened(run).forecast()) == 11 * 2


def test_exact_readings(run_ranks: RunRanks, tmp_path: Path) -> None:
    """Every rank adds the offsets of its own sensors."""
    store = str(sharded_store(tmp_path / "store", exact=True).path)
    job: dict[str, Any] = {"store": store, "model": DCRNN, "training": {}}
    (alone,) = run_ranks("train_shards", 1, run=str(tmp_path / "alone"), shards=1, **job)
    for result in run_ranks("train_shards", 2, run=str(tmp_path / "two"), shards=2, **job):
        check_same(result, alone, 1e-12)


@pytest.mark.parametrize(
    ("name", "options", "windows", "batching"),
    [
        ("stid", {"dropout": 0.0}, {"climatology": True}, "index"),
        ("stgcn", {"hidden": 4, "bottleneck": 2, "end_channels": 4}, {"fill": "mean"}, "device"),
        pytest.param(
            "graph-wavenet",
            {"hidden": 4, "skip_channels": 4, "end_channels": 4, "dropout": 0.0}
            | {"adjacency": "low-rank"},
            {"observed_mask": True},
            "standard",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_other_models_and_inputs(
    run_ranks: RunRanks,
    tmp_path: Path,
    name: str,
    options: dict[str, Any],
    windows: dict[str, Any],
    batching: str,
) -> None:
    """Parameters of each sensor, sums over all of them, covariates; every batching."""
    store = str(sharded_store(tmp_path / "store", covariates=name == "stid").path)
    job: dict[str, Any] = {"store": store, "model": {"name": name, "options": options}}
    job |= {"windows": windows, "batching": batching, "training": {}}
    (alone,) = run_ranks("train_shards", 1, run=str(tmp_path / "1"), shards=1, **job)
    for result in run_ranks("train_shards", 2, run=str(tmp_path / "2"), shards=2, **job):
        check_same(result, alone, 1e-10)


def test_a_run_is_resumed_with_other_shards(run_ranks: RunRanks, tmp_path: Path) -> None:
    """Stopped in the middle of an epoch at 2 shards, resumed at 1 and at 4."""
    store = str(sharded_store(tmp_path / "store").path)
    model = {"name": "stid", "options": {"dropout": 0.0, "layers": 1}}
    job: dict[str, Any] = {"store": store, "model": model}
    (alone,) = run_ranks("train_shards", 1, run=str(tmp_path / "1"), shards=1, training={}, **job)
    for shards in (1, 4):
        run = str(tmp_path / f"run {shards}")
        first = run_ranks("train_shards", 2, run=run, shards=2, training={"max_steps": 5}, **job)
        assert first[0]["steps"] == 5
        results = run_ranks(
            "train_shards", shards, run=run, shards=shards, training={}, resume=True, **job
        )
        for result in results:
            check_same(result, alone, 1e-10)


def test_the_batch_of_a_rank_is_that_of_ranks_with_the_same_windows(
    run_ranks: RunRanks, tmp_path: Path
) -> None:
    """2 x 2 ranks of 3 windows are a batch of 6; resumed on as many, nothing is said about it."""
    store, run = str(sharded_store(tmp_path / "store").path), str(tmp_path / "run")
    training = {"batch_size_per_rank": 3}
    job: dict[str, Any] = {"store": store, "run": run, "shards": 2}
    job["model"] = {"name": "linear", "options": {}}
    run_ranks("train_shards", 4, training={**training, "max_steps": 3}, **job)
    result, *_ = run_ranks("train_shards", 4, training=training, resume=True, **job)
    assert "error" not in result, result
    assert not [line for line in result["lines"] if "stays" in line]
    assert opened(run).config.training.batch_size == 6


@pytest.mark.parametrize(
    ("world_size", "shards", "model", "message"),
    [
        (2, 3, DCRNN, "shard_sensors is 3 and the number of ranks 2"),
        (2, 2, {"name": "staeformer", "options": {}}, "staeformer cannot be split over ranks"),
        (
            2,
            2,
            {"name": "graph-wavenet", "options": {}},
            "use model_options['adjacency']='low-rank'",
        ),
    ],
)
def test_refusals(
    run_ranks: RunRanks,
    tmp_path: Path,
    world_size: int,
    shards: int,
    model: dict[str, Any],
    message: str,
) -> None:
    store, run = str(sharded_store(tmp_path / "store").path), tmp_path / "run"
    results = run_ranks(
        "train_shards",
        world_size,
        store=store,
        run=str(run),
        shards=shards,
        model=model,
        training={},
    )
    assert message in results[0]["error"]
    assert not run.exists()
