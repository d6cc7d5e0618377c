"""Sizes of batches: of all ranks, of each rank, and of validation; checkpoints by time."""

from pathlib import Path
from typing import Any

import pytest
import torch

from .conftest import RunRanks
from .rank_jobs import make_store
from .test_training import check_parameters


def test_the_batch_of_a_rank_makes_that_of_all_which_a_resumed_run_keeps(
    run_ranks: RunRanks, tmp_path: Path
) -> None:
    """3 ranks of 5 windows are a batch of 15, also when 2 ranks of 5 would take 10."""
    store = str(make_store(tmp_path / "store").path)
    options: dict[str, Any] = {"epochs": 1, "dtype": "float64"}
    (alone,) = run_ranks(
        "train", 1, store=store, run=str(tmp_path / "1"), options={**options, "batch_size": 15}
    )
    by_rank = {**options, "batch_size": None, "batch_size_per_rank": 5}
    run = str(tmp_path / "run")
    begun = run_ranks("train", 3, store=store, run=run, options={**by_rank, "max_steps": 3})
    resumed = run_ranks("train", 2, store=store, run=run, options=by_rank, resume=True)
    for result in (*begun, *resumed):
        assert "error" not in result, result
        assert result["batch_size"] == 15
    check_parameters(resumed[0], alone, 1e-12)
    stays = "batch_size=15 stays, with which the run began: batch_size_per_rank=5 on 2 ranks"
    assert not any("stays" in line for line in begun[0]["lines"])
    assert [stays in line for line in resumed[0]["lines"]].count(True) == 1
    assert not resumed[1]["lines"]


@pytest.mark.parametrize(("batch_size", "idle"), [(2, "1 of 3"), (3, None)])
def test_ranks_without_windows_are_named_and_validation_gives_each_some(
    run_ranks: RunRanks, tmp_path: Path, batch_size: int, idle: str | None
) -> None:
    store = str(make_store(tmp_path / "store").path)
    options = {"epochs": 1, "max_steps": 2, "batch_size": batch_size}
    result, *others = run_ranks("train", 3, store=store, run=str(tmp_path / "run"), options=options)
    lines = [line for line in result["lines"] if "no window of a batch" in line]
    assert len(lines) == (idle is not None)
    for line in lines:
        assert line.startswith(f"{idle} ranks")
        assert "raise it, to batch_size=3 or by batch_size_per_rank" in line
    assert not any(other["lines"] for other in others)


def test_errors_do_not_depend_on_the_batches_that_compute_them(
    run_ranks: RunRanks, tmp_path: Path
) -> None:
    store, run = str(make_store(tmp_path / "store").path), str(tmp_path / "run")
    options = {"epochs": 1, "batch_size": 10, "eval_batch_size": 17}
    (alone,) = run_ranks("train", 1, store=store, run=run, options=options)
    assert "error" not in alone, alone
    scores = []
    for world_size in (1, 3):
        Path(run, "intervals.npz").unlink(missing_ok=True)  # rank 0 calibrates, for all of them
        for result in run_ranks("evaluate_in_batches", world_size, run=run):
            assert "error" not in result, result
            found, expected = result["errors"], result["errors"]["default"]
            assert found == pytest.approx(dict.fromkeys(found, expected), rel=1e-6)
            assert expected == pytest.approx(alone["errors"][0], rel=1e-6)
            scores.append((result["width"], result["crps"]))
    for each in scores:
        assert each == pytest.approx(scores[0], rel=1e-6)


def test_checkpoints_by_time_are_those_of_all_ranks(run_ranks: RunRanks, tmp_path: Path) -> None:
    """Rank 0 decides; stopped and resumed between them, the bits are those of an unbroken run."""
    store = str(make_store(tmp_path / "store").path)
    options = {"epochs": 2, "checkpoint_every_minutes": 1e-9, "log_every_steps": 0}
    unbroken = run_ranks("train", 2, store=store, run=str(tmp_path / "a"), options={"epochs": 2})
    run = tmp_path / "b"
    killed = run_ranks("train_and_die", 2, store=store, run=str(run), options=options, step=15)
    assert {each["exit_code"] for each in killed} == {9}
    step = torch.load(run / "checkpoints/last.pt", weights_only=True)["position"]["step"]
    assert 11 < step < 15  # after the checkpoint at the end of the first epoch
    resumed = run_ranks("train", 2, store=store, run=str(run), options=options, resume=True)
    for found, expected in zip(resumed, unbroken, strict=True):
        assert "error" not in found, found
        check_parameters(found, expected, 0.0)
        assert found["errors"] == expected["errors"]
