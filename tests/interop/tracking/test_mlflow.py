"""Runs in a real server of MLflow on loopback."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pgti
from pgti.errors import ConfigError
from pgti.interop.tracking import MLflowTracker, log_test

from .tracked_runs import StopAt, StoppedError, open_store, train

pytestmark = pytest.mark.filterwarnings("ignore")  # of MLflow and of what it imports


def start_server(directory: Path, port: int = 0) -> tuple[subprocess.Popen[str], int]:
    """The process of a server, and its port."""
    script = Path(__file__).parent / "mlflow_server.py"
    with (directory / "server.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, script, str(directory), str(port)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server."""
    process, port = start_server(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.communicate()


def test_a_run_and_its_continuation_are_one_run(server: str, tmp_path: Path) -> None:
    """Metrics, parameters, tags, files and status on the server are those of the run."""
    import mlflow  # noqa: PLC0415 - an extra

    store, path = open_store(tmp_path), tmp_path / "run"
    tracker = MLflowTracker(experiment="traffic", tags={"team": "roads"})
    with pytest.raises(StoppedError):
        train(store, path, tracker, callbacks=[StopAt(7)])
    client = mlflow.MlflowClient(server)
    experiment = client.get_experiment_by_name("traffic").experiment_id
    (before,) = client.search_runs([experiment])
    assert before.info.status == "FAILED"

    run = train(store, path, tracker, resume=True, epochs=3)
    report = run.evaluate("test")
    log_test(run, report, tracker)

    (found,) = client.search_runs([experiment])
    assert (found.info.run_id, found.info.run_name) == (before.info.run_id, "run")
    assert found.info.status == "FINISHED"
    assert found.data.params["training.learning_rate"] == "0.001"
    assert found.data.params["run.sensors"] == "3"
    assert found.data.tags["team"] == "roads"
    assert found.data.tags["changed"] == "training.epochs=3"
    test = report.to_dict()["test"]
    assert found.data.metrics["test/mae"] == pytest.approx(test["mae"]["mean"])

    def history(name: str) -> list[tuple[int, Any]]:
        found_points = client.get_metric_history(before.info.run_id, name)
        return sorted((each.step, each.value) for each in found_points)

    epochs = [each for each in run.directory.read_metrics() if each["kind"] == "epoch"]
    assert history("val/mae") == [(each["step"], each["val"]["mae"]) for each in epochs]
    assert [step for step, _ in history("train/loss")] == [2, 4, 6, 8, 10, 12]
    assert history("test_by_horizon/mae") == [(1, test["mae"]["1"]), (2, test["mae"]["2"])]
    files = {each.path for each in client.list_artifacts(before.info.run_id)}
    assert files == {"config.toml", "run.json", "metrics.jsonl", "best.pt"}
    local = client.download_artifacts(before.info.run_id, "best.pt", str(tmp_path))
    assert Path(local).read_bytes() == run.directory.best_checkpoint.read_bytes()


@pytest.mark.slow
def test_a_server_that_dies_delays_no_training_and_gets_the_rest_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed after the second step; started again, it has one run, with each step once."""
    import mlflow  # noqa: PLC0415 - an extra

    class KillServer(pgti.Callback):
        def on_step(self, status: pgti.TrainingStatus) -> None:
            if status.step == 2:
                process.kill()
                process.communicate()

    process, port = start_server(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    store = open_store(tmp_path)
    run = train(store, tmp_path / "run", "mlflow", callbacks=[KillServer()])
    assert [each["step"] for each in run.directory.read_metrics()] == [2, 4, 4, 6, 8, 8]
    lines = capsys.readouterr().err
    assert lines.count("training goes on") == 1
    assert lines.count("misses a part of the run") == 1

    process, _ = start_server(tmp_path, port)
    try:
        train(store, tmp_path / "run", "mlflow", resume=True)
        client = mlflow.MlflowClient(f"http://127.0.0.1:{port}")
        experiment = client.get_experiment_by_name("pgti").experiment_id
        (found,) = client.search_runs([experiment])
        assert found.info.status == "FINISHED"
        points = client.get_metric_history(found.info.run_id, "train/loss")
        assert sorted(each.step for each in points) == [2, 4, 6, 8]
    finally:
        process.kill()
        process.communicate()


def test_a_server_that_is_away_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any work; the line has no password."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"MLflow does not answer at http://127\.0\.0\.1:9"):
        train(open_store(tmp_path), tmp_path / "run", "mlflow")
    assert not (tmp_path / "run").exists()
