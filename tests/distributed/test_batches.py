"""Every rank's batches are materialised windows, bit for bit, wherever their rows come from."""

from pathlib import Path
from typing import Any

import pytest

from .conftest import RunRanks
from .rank_jobs import make_store

ORDER = {"kind": "partitions", "partitions": 6}
OWN = {"placement": "partitioned", "order": ORDER}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="replicated"),
        pytest.param({**OWN, "order": {**ORDER, "rotation": 0.0}}, id="partitioned"),
        pytest.param({**OWN, "order": {**ORDER, "rotation": 0.5}}, id="partitioned and moving on"),
        pytest.param(
            {**OWN, "order": {**ORDER, "rotation": 1.0, "block_size": 1}},
            id="whole partitions move on",
        ),
        pytest.param({"placement": "partitioned", "order": "global"}, id="rows are sent"),
    ],
)
@pytest.mark.parametrize(
    ("world_size", "batching"),
    [(1, "index"), (2, "index"), (3, "index"), (2, "device"), (3, "device")],
)
def test_batches_of_all_ranks(
    run_ranks: RunRanks, tmp_path: Path, options: dict[str, Any], world_size: int, batching: str
) -> None:
    """Over five epochs; the windows of the ranks are those of the epoch, each once."""
    store = str(make_store(tmp_path / "store").path)
    epochs = 5
    options = {**options, "batch_size": 7, "batching": batching}
    results = run_ranks("batches", world_size, store=store, options=options, epochs=epochs)
    for result in results:
        assert "error" not in result, result
        assert result["differing"] == 0
        assert len(result["starts"]) == len(results[0]["starts"]) == epochs * 16
    for epoch in range(epochs):
        steps = slice(epoch * 16, (epoch + 1) * 16)
        used = [start for r in results for batch in r["starts"][steps] for start in batch]
        assert sorted(used) == list(range(109))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="replicated"),
        pytest.param({**OWN, "order": {**ORDER, "rotation": 0.5}}, id="partitioned and moving on"),
        pytest.param({"placement": "partitioned", "order": "global"}, id="rows are sent"),
    ],
)
@pytest.mark.parametrize(("world_size", "batching"), [(2, "index"), (3, "device")])
def test_covariates_of_all_ranks(
    run_ranks: RunRanks, tmp_path: Path, options: dict[str, Any], world_size: int, batching: str
) -> None:
    """Known values of the horizon and features of the sensors are those of one process."""
    store = str(make_store(tmp_path / "store", covariates=True).path)
    options = {**options, "batch_size": 7, "batching": batching}
    results = run_ranks("batches", world_size, store=store, options=options, epochs=2)
    for result in results:
        assert "error" not in result, result
        assert result["differing"] == 0


@pytest.mark.parametrize("dtype", ["int32", "float64"])
@pytest.mark.parametrize(
    ("world_size", "batching", "options"),
    [
        (2, "index", {**OWN, "order": {**ORDER, "rotation": 0.5}}),
        (3, "device", {**OWN, "order": {**ORDER, "rotation": 0.5}}),
        (3, "index", {"placement": "partitioned", "order": "global"}),
        (2, "device", {"placement": "partitioned", "order": "global"}),
    ],
)
def test_batches_of_an_exact_store(
    run_ranks: RunRanks,
    tmp_path: Path,
    dtype: str,
    options: dict[str, Any],
    world_size: int,
    batching: str,
) -> None:
    """Rows travel as they are stored; targets have every digit."""
    store = str(make_store(tmp_path / "store", covariates=True, dtype=dtype).path)
    options = {**options, "batch_size": 7, "batching": batching}
    for result in run_ranks("batches", world_size, store=store, options=options, epochs=2):
        assert "error" not in result, result
        assert result["differing"] == 0
        assert len(result["starts"]) == 2 * 16


@pytest.mark.parametrize("order", ["global", {**ORDER, "rotation": 0.5}], ids=str)
def test_as_many_rows_are_sent_from_devices(
    run_ranks: RunRanks, tmp_path: Path, order: Any
) -> None:
    """The bytes are those that a plan computes for rows in host memory."""
    store = str(make_store(tmp_path / "store").path)
    sent = [
        [result["sent"] for result in run_ranks("batches", 2, store=store, options=each, epochs=2)]
        for batching in ("index", "device")
        for each in [{"placement": "partitioned", "order": order, "batching": batching}]
    ]
    assert sent[0] == sent[1]
    assert all(each["data"] > 0 for each in sent[0])


HOLES = ((9, 1), (40, 700), (43, 1), (44, 2), (70, 1), (71, 3))
"""Rows that follow missing hours; no window of five rows lies between some of them."""


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="replicated"),
        pytest.param({"order": {"kind": "blocks", "block_size": 4}}, id="blocks"),
        pytest.param({**OWN, "order": {**ORDER, "rotation": 0.5}}, id="partitioned and moving on"),
        pytest.param(
            {**OWN, "order": {**ORDER, "rotation": 1.0, "block_size": 1}},
            id="whole partitions move on",
        ),
        pytest.param({"placement": "partitioned", "order": "global"}, id="rows are sent"),
    ],
)
@pytest.mark.parametrize(
    ("world_size", "batching"), [(1, "index"), (2, "index"), (3, "device"), (4, "index")]
)
def test_batches_of_a_series_with_holes(
    run_ranks: RunRanks, tmp_path: Path, options: dict[str, Any], world_size: int, batching: str
) -> None:
    """The windows that reach across no hole, each once, wherever their rows come from."""
    store = str(make_store(tmp_path / "store", holes=HOLES).path)
    options = {**options, "batch_size": 7, "batching": batching}
    results = run_ranks("batches", world_size, store=store, options=options, epochs=4)
    crossing = {row - back for row, _ in HOLES for back in range(1, 5)}
    whole = [start for start in range(156) if start not in crossing]
    training = whole[: round(0.7 * len(whole))]
    assert len(training) < 0.7 * 156 - 10
    for result in results:
        assert "error" not in result, result
        assert result["differing"] == 0
    num_steps = -(-len(training) // 7)
    for epoch in range(4):
        steps = slice(epoch * num_steps, (epoch + 1) * num_steps)
        used = [start for r in results for batch in r["starts"][steps] for start in batch]
        assert sorted(used) == training
