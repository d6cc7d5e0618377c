"""Training on several ranks is training on one: same parameters, same errors, same batches."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pgti.training.gradients import STOP_BITS

from .conftest import RunRanks
from .rank_jobs import make_store

TWENTY_STEPS = {"epochs": 3, "max_steps": 20, "batch_size": 10}
"""109 training windows are 11 batches an epoch, the last one of 9: neither 4 nor 3 divides them."""

PLACEMENTS: dict[str, dict[str, Any]] = {
    "replicated": {},
    "partitioned": {"placement": "partitioned", "order": {"kind": "partitions", "partitions": 7}},
    "same order, replicated": {"order": {"kind": "partitions", "partitions": 7}},
    "global shuffle, partitioned": {"placement": "partitioned", "order": "global"},
}


def check_parameters(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    assert found["parameters"].keys() == expected["parameters"].keys()
    for name, tensor in expected["parameters"].items():
        torch.testing.assert_close(
            found["parameters"][name], tensor, rtol=tolerance, atol=tolerance, msg=name
        )


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [pytest.param("float32", 1e-6, marks=pytest.mark.slow), ("float64", 1e-12)],
)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_parameters_and_errors_do_not_depend_on_the_number_of_ranks(
    run_ranks: RunRanks, tmp_path: Path, placement: str, dtype: str, tolerance: float
) -> None:
    """Twenty steps, a ragged last batch among them, with gaps spread unevenly over ranks."""
    store = str(make_store(tmp_path / "store").path)
    options = {**TWENTY_STEPS, **PLACEMENTS[placement], "dtype": dtype}
    by_world_size = {
        world_size: run_ranks(
            "train", world_size, store=store, run=str(tmp_path / f"{world_size}"), options=options
        )
        for world_size in (1, 2, 3, 4)
    }
    (alone,) = by_world_size[1]
    assert alone["steps"] == 20
    for results in by_world_size.values():
        for rank, result in enumerate(results):
            assert "error" not in result, result
            check_parameters(result, results[0], 0.0)  # the same bits on every rank
            check_parameters(result, alone, tolerance)
            assert result["errors"] == pytest.approx(alone["errors"], rel=tolerance), rank
            assert result["counts"] == alone["counts"]


@pytest.mark.parametrize("dtype", ["int32", "float64"])
def test_exact_readings_train_the_same_at_every_number_of_ranks(
    run_ranks: RunRanks, tmp_path: Path, dtype: str
) -> None:
    """The scaler's offsets, the loss and the errors of large readings, in float64."""
    store = str(make_store(tmp_path / "store", dtype=dtype).path)
    options = {**TWENTY_STEPS, **PLACEMENTS["global shuffle, partitioned"], "dtype": "float64"}
    alone, *others = (
        result
        for size in (1, 3)
        for result in run_ranks(
            "train", size, store=store, run=str(tmp_path / f"{size}"), options=options
        )
    )
    for result in (alone, *others):
        assert "error" not in result, result
        check_parameters(result, alone, 1e-12)
        assert result["errors"] == pytest.approx(alone["errors"], rel=1e-12)


def test_the_two_placements_agree_given_the_same_order(run_ranks: RunRanks, tmp_path: Path) -> None:
    store = str(make_store(tmp_path / "store").path)
    results = [
        run_ranks(
            "train",
            3,
            store=store,
            run=str(tmp_path / name.replace(" ", "-")),
            options={**TWENTY_STEPS, **PLACEMENTS[name], "dtype": "float64"},
        )[0]
        for name in ("partitioned", "same order, replicated")
    ]
    check_parameters(results[0], results[1], 1e-12)


@pytest.mark.parametrize("name", ["partitioned", "global shuffle, partitioned"])
def test_rows_on_the_device_train_the_same_bits(
    run_ranks: RunRanks, tmp_path: Path, name: str
) -> None:
    """Where the run is resumed in the middle of an epoch, too; as many bytes are sent."""
    store, placement = str(make_store(tmp_path / "store").path), PLACEMENTS[name]
    options = {**TWENTY_STEPS, **placement, "dtype": "float32"}

    def trained(run: str, **more: Any) -> list[dict[str, Any]]:
        resume = more.pop("resume", False)
        path = str(tmp_path / run)
        return run_ranks(
            "train", 2, store=store, run=path, options={**options, **more}, resume=resume
        )

    on_host, on_device = trained("host"), trained("device", batching="device")
    trained("resumed", batching="device", max_steps=15)
    resumed = trained("resumed", batching="device", resume=True)
    for rank in range(2):
        check_parameters(on_device[rank], on_host[rank], 0.0)
        check_parameters(resumed[rank], on_host[rank], 0.0)
        assert on_device[rank]["sent"]["data"] == on_host[rank]["sent"]["data"]


def test_dcrnn_with_accumulation_and_more_ranks_than_windows(
    run_ranks: RunRanks, tmp_path: Path
) -> None:
    """Batches of 3 windows leave a rank of 4 with nothing to do, and every rank takes part."""
    store = str(make_store(tmp_path / "store").path)
    options = {"epochs": 1, "max_steps": 12, "batch_size": 3, "accumulate": 2}
    (alone,) = run_ranks("train", 1, store=store, run=str(tmp_path / "1"), options=options)
    for result in run_ranks("train", 4, store=store, run=str(tmp_path / "4"), options=options):
        assert "error" not in result, result
        check_parameters(result, alone, 1e-5)
        assert result["errors"] == pytest.approx(alone["errors"], rel=1e-5)


@pytest.mark.parametrize("placement", ["replicated", "partitioned", "global shuffle, partitioned"])
def test_a_run_goes_on_at_another_number_of_ranks(
    run_ranks: RunRanks, tmp_path: Path, placement: str
) -> None:
    """Stopped in the middle of an epoch at 4 ranks, resumed at 1 and at 3: the same batches."""
    store = str(make_store(tmp_path / "store").path)
    options = {**PLACEMENTS[placement], "epochs": 2, "dtype": "float64"}
    (unbroken,) = run_ranks(
        "train", 1, store=store, run=str(tmp_path / "unbroken"), options=options
    )
    for world_size in (1, 3):
        run = str(tmp_path / f"run {world_size}")
        run_ranks("train", 4, store=store, run=run, options={**options, "max_steps": 14})
        results = run_ranks("train", world_size, store=store, run=run, options=options, resume=True)
        for result in results:
            assert "error" not in result, result
            assert result["steps"] == unbroken["steps"] == 22
            check_parameters(result, unbroken, 1e-12)


def test_dropout_is_drawn_anew_on_every_rank_and_the_same_on_resume(
    run_ranks: RunRanks, tmp_path: Path
) -> None:
    store = str(make_store(tmp_path / "store").path)
    options = {"epochs": 2, "dtype": "float64", "dropout": 0.5, "ema_decay": 0.9}
    unbroken = run_ranks("train", 2, store=store, run=str(tmp_path / "a"), options=options)
    run = str(tmp_path / "b")
    run_ranks("train", 2, store=store, run=run, options={**options, "max_steps": 9})
    resumed = run_ranks("train", 2, store=store, run=run, options=options, resume=True)
    check_parameters(resumed[0], unbroken[0], 0.0)
    (alone,) = run_ranks("train", 1, store=store, run=str(tmp_path / "c"), options=options)
    weight = "linear.weight"
    assert not torch.equal(alone["parameters"][weight], unbroken[0]["parameters"][weight])


def test_what_is_sent(run_ranks: RunRanks, tmp_path: Path) -> None:
    """No row where the series is replicated, the stated fraction an epoch where it is partitioned.

    And gradients: as many bytes as there are learning parameters, in every step. Beside them
    the count, the reasons to stop, and whether each of five parameters has a gradient.
    """
    store = make_store(tmp_path / "store")
    learning = 4 * ((3 * 2 + 1) * 2 + 1)  # a linear map of 3 steps of 2 features to 2, scaled
    learning += 4 * (2 + 1) * 2  # a part that is not used could be
    message = 8 * (1 + STOP_BITS + 5)
    epochs, steps = 3, 33
    sent = {}
    for name, placement in PLACEMENTS.items():
        results = run_ranks(
            "train",
            2,
            store=str(store.path),
            run=str(tmp_path / name.replace(" ", "-")),
            options={**placement, "epochs": epochs, "dtype": "float32"},
        )
        assert [result["sent"]["gradients"] for result in results] == [steps * learning] * 2
        assert [result["sent"]["counts"] for result in results] == [steps * message] * 2
        sent[name] = [result["sent"]["data"] for result in results]
    assert sent["replicated"] == sent["same order, replicated"] == [0, 0]
    row_bytes = store.raw[0].nbytes
    # Two eighths of a partition of 109 / 7 windows are 3 windows: 1 moves on, then 2. Each brings
    # one new row, but for the first window behind the last, which brings all of its 5.
    assert sent["partitioned"] == [(5 + 2) * row_bytes, (1 + 2) * row_bytes]
    assert min(sent["global shuffle, partitioned"]) > 100 * row_bytes


def test_a_signal_to_one_rank_stops_all_of_them_after_the_same_step(
    run_ranks: RunRanks, tmp_path: Path
) -> None:
    store = str(make_store(tmp_path / "store").path)
    results = run_ranks(
        "interrupted", 3, store=store, run=str(tmp_path / "run"), options={}, rank=1
    )
    for result in results:
        assert "stopped by SIGUSR1 after step 3" in result["error"]
        assert result["signal"] == 10
    state = torch.load(tmp_path / "run/checkpoints/last.pt", weights_only=True)
    assert state["position"]["step"] == 3


def test_the_ledger_is_in_the_metrics(run_ranks: RunRanks, tmp_path: Path) -> None:
    """By step and by epoch; gradients go in steps alone, rows of partitions between epochs."""
    store = str(make_store(tmp_path / "store").path)
    options = {**PLACEMENTS["partitioned"], "epochs": 3, "dtype": "float32"}
    run_ranks("train", 2, store=store, run=str(tmp_path / "run"), options=options)
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    learning = 4 * ((3 * 2 + 1) * 2 + 1 + (2 + 1) * 2)
    for record in records:
        assert record["sent_bytes_step"]["gradients"] == learning
        assert record["sent_bytes_step"]["data"] == 0
    epochs = [record["sent_bytes"] for record in records if record["kind"] == "epoch"]
    assert [sent["gradients"] for sent in epochs] == [11 * learning] * 3
    assert [sent["data"] > 0 for sent in epochs] == [True, True, False]


def test_a_warm_start_does_not_depend_on_the_number_of_ranks(
    run_ranks: RunRanks, tmp_path: Path
) -> None:
    """Frozen parameters keep their bits on every rank; the others are those of one process."""
    store = str(make_store(tmp_path / "store").path)
    options = {"epochs": 1, "batch_size": 10}
    start = str(tmp_path / "start")
    (before,) = run_ranks("train", 1, store=store, run=start, options=options)
    frozen = ("encoder*",)
    results = {
        size: run_ranks(
            "warm", size, store=store, start=start, run=str(tmp_path / f"{size}"), freeze=frozen
        )
        for size in (1, 2)
    }
    (alone,) = results[1]
    assert "error" not in alone, alone
    names = [name for name in alone["parameters"] if name.startswith("encoder")]
    assert 0 < len(names) < len(alone["parameters"])
    for result in results[2]:
        assert "error" not in result, result
        check_parameters(result, alone, 1e-6)
        assert result["val"] == pytest.approx(alone["val"], rel=1e-6)
        assert result["num_trained"] == alone["num_trained"]
        for name in names:
            assert torch.equal(result["parameters"][name], before["parameters"][name])


@pytest.mark.parametrize("refit", ["warm", "never"])
def test_a_backtest_does_not_depend_on_the_number_of_ranks(
    run_ranks: RunRanks, tmp_path: Path, refit: str
) -> None:
    store = str(make_store(tmp_path / "store").path)
    (alone,), both = (
        run_ranks("backtest", size, store=store, out=str(tmp_path / f"{size}"), refit=refit)
        for size in (1, 2)
    )
    for result in (alone, *both):
        assert "error" not in result, result
        assert result["mae"] == pytest.approx(alone["mae"], rel=1e-6)
        assert result["count"] == alone["count"]
        assert result["is_read_again"]
