"""Trackers that need no server: TensorBoard, and W&B and Trackio as they are offline."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from .tracked_runs import StopAt, StoppedError, open_store, train


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TensorBoard's own imports
def test_tensorboard_reads_each_metric_once(tmp_path: Path) -> None:
    """The events of a run and of its continuation are those of metrics.jsonl."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415 # an extra

    store = open_store(tmp_path)
    with pytest.raises(StoppedError):
        train(store, tmp_path / "run", "tensorboard", callbacks=[StopAt(7)])
    run = train(store, tmp_path / "run", "tensorboard", resume=True)

    events = EventAccumulator(str(run.directory.tensorboard_directory))
    events.Reload()
    epochs = [each for each in run.directory.read_metrics() if each["kind"] == "epoch"]
    scalars = events.Scalars("val/mae")
    assert [event.step for event in scalars] == [record["step"] for record in epochs]
    assert [event.value for event in scalars] == pytest.approx(
        [record["val"]["mae"] for record in epochs]
    )
    assert [event.step for event in events.Scalars("train/loss")] == [2, 4, 6, 8]
    (options,) = events.Tensors("options/text_summary")
    assert b"| training.seed | 3 |" in options.tensor_proto.string_val[0]


def run_twice(tmp_path: Path, tracker: str, **environment: str) -> Path:
    """Train an epoch and resume for another, each in a process as users start it."""
    store = open_store(tmp_path)
    options = "--windows.input-steps 3 --windows.horizon 2 --model linear --batch-size 16"
    for epochs in ("1", "2"):
        subprocess.run(
            [
                *(sys.executable, "-m", "pgti", "train", store.path, "--run", tmp_path / "run"),
                *(*options.split(), "--log-every-steps", "2", "--epochs", epochs, "--resume"),
                *("--track", tracker, "--json"),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            check=True,
            capture_output=True,
            timeout=120,
        )
    return tmp_path / "run"


@pytest.mark.slow
def test_trackio_keeps_one_run(tmp_path: Path) -> None:
    """Its own database has each step once, under one name."""
    run = run_twice(tmp_path, "trackio", TRACKIO_DIR=str(tmp_path / "trackio"))

    known = json.loads((run / "tracking.json").read_text())["trackio"]
    (database,) = (tmp_path / "trackio").glob("pgti*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT run_name, step, metrics FROM metrics").fetchall()
    assert {name for name, _, _ in rows} == {known["id"]}
    losses = [step for _, step, text in rows if "train/loss" in json.loads(text)]
    assert sorted(losses) == [2, 4, 6, 8]
    assert len([step for _, step, text in rows if "val/mae" in json.loads(text)]) == 2


@pytest.mark.slow
def test_wandb_offline_keeps_one_run(tmp_path: Path) -> None:
    """Both of its records have the identifier of one run, and what was logged."""
    run = run_twice(tmp_path, "wandb", WANDB_MODE="offline")

    known = json.loads((run / "tracking.json").read_text())["wandb"]
    records = sorted(run.glob("wandb/offline-run-*/*.wandb"))
    assert [record.name for record in records] == [f"run-{known['id']}.wandb"] * 2
    for record in records:
        content = record.read_bytes()
        assert b"val/mae" in content
        assert b"test_by_horizon/mae" in content
    assert (records[1].parent / "files" / "test.json").exists()
