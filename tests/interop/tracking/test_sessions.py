"""What trackers are shown, whatever happens to them and to the training."""

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import pgti
from pgti.errors import ConfigError, Interrupted, MissingExtraError
from pgti.interop.tracking import TrackedRun, Tracker, log_test
from pgti.run.tracking import Tracking
from pgti.store import SeriesStore

from .tracked_runs import METRICS, StopAt, StoppedError, open_store, train


class ListTracker(Tracker):
    """Keeps what it is shown, in lists; fails after `last_step`."""

    kind = "list"

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[tuple[TrackedRun, str | None]] = []
        self.metrics: list[tuple[int, dict[str, float]]] = []
        self.files: list[str] = []
        self.ends: list[str] = []
        self.last_step = 1000
        self.threads: set[threading.Thread] = set()

    def check(self) -> str:
        """It is a list."""
        return "here"

    def begin(self, run: TrackedRun, run_id: str | None) -> tuple[str, str]:
        """Count the runs."""
        self.begun.append((run, run_id))
        return run_id or f"run {len(self.begun)}", "a list"

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Keep them."""
        if step > self.last_step:
            raise ConnectionError("nobody\nthere")
        self.threads.add(threading.current_thread())
        self.metrics.append((step, dict(metrics)))

    def log_file(self, path: Path) -> None:
        """Keep its name."""
        self.files.append(path.name)

    def end(self, status: str) -> None:
        """Keep the status."""
        self.ends.append(status)

    def steps(self, name: str) -> list[int]:
        """The steps of a metric."""
        return [step for step, metrics in self.metrics if name in metrics]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SeriesStore:
    """The same for all tests."""
    return open_store(tmp_path_factory.mktemp("store"))


def errors_of(run: pgti.Run) -> list[Any]:
    """The validation errors of each epoch."""
    return [each["val"] for each in run.directory.read_metrics() if each["kind"] == "epoch"]


def test_a_run_is_shown_with_options_metrics_and_files(store: SeriesStore, tmp_path: Path) -> None:
    """Each metric once at its step, the errors of metrics.jsonl, options, facts and files."""
    tracker = ListTracker()

    run = train(store, tmp_path / "run", tracker)

    ((shown, run_id),) = tracker.begun
    assert run_id is None
    assert shown.params["training.learning_rate"] == 1e-3
    assert shown.params["model.name"] == shown.tags["model"] == "linear"
    assert (shown.params["run.sensors"], shown.params["run.edges"]) == (3, 2)
    assert shown.params["run.windows.train"] == len(run.splits.train)
    assert shown.params["run.pgti"] == pgti.__version__
    assert tracker.steps("train/loss") == [2, 4, 6, 8]
    assert tracker.steps("val/mae") == [4, 8]
    assert all(metrics.keys() >= METRICS for _, metrics in tracker.metrics if "lr" in metrics)
    assert [each["val/rmse"] for _, each in tracker.metrics if "val/rmse" in each] == [
        each["rmse"] for each in errors_of(run)
    ]
    best = [each["val/best_mae"] for _, each in tracker.metrics if "val/mae" in each]
    assert best[-1] == min(each["mae"] for each in errors_of(run))
    assert tracker.files == ["config.toml", "run.json", "metrics.jsonl", "best.pt"]
    assert tracker.ends == ["finished"]
    assert threading.main_thread() not in tracker.threads


def test_test_errors_are_added_to_the_same_run(store: SeriesStore, tmp_path: Path) -> None:
    """By horizon and over it, beside those of baselines, and once."""
    tracker = ListTracker()
    run = train(store, tmp_path / "run", tracker)
    report = run.evaluate("test")

    log_test(run, report, tracker)
    log_test(run, report, tracker)

    assert [run_id for _, run_id in tracker.begun] == [None, "run 1", "run 1"]
    test = report.to_dict()["test"]
    (shown,) = (metrics for _, metrics in tracker.metrics if "test/mae" in metrics)
    assert shown["test/mae"] == test["mae"]["mean"]
    assert shown["test/persistence/rmse"] == test["persistence"]["rmse"]["mean"]
    curve = [(step, m["test_by_horizon/mae"]) for step, m in tracker.metrics if len(m) == 3]
    assert curve[-2:] == [(1, test["mae"]["1"]), (2, test["mae"]["2"])]


def test_steps_that_a_resumed_run_repeats_are_shown_once(
    store: SeriesStore, tmp_path: Path
) -> None:
    """A run that fails after step 7 resumes from step 4; it stays one run."""
    tracker = ListTracker()
    with pytest.raises(StoppedError):
        train(store, tmp_path / "run", tracker, callbacks=[StopAt(7)])
    assert tracker.steps("train/loss") == [2, 4, 6]
    assert tracker.ends == ["failed"]

    train(store, tmp_path / "run", tracker, resume=True)

    assert tracker.steps("train/loss") == [2, 4, 6, 8]
    assert tracker.steps("val/mae") == [4, 8]
    assert [run_id for _, run_id in tracker.begun] == [None, "run 1"]
    assert tracker.ends == ["failed", "finished"]


def test_a_tracker_that_goes_away_changes_nothing(
    store: SeriesStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says so, the training ends as without it, and resuming sends the rest."""
    tracker = ListTracker()
    tracker.last_step = 2
    run = train(store, tmp_path / "run", tracker)
    untracked = train(store, tmp_path / "untracked", ())

    assert errors_of(run) == errors_of(untracked)
    assert tracker.steps("train/loss") == [2]
    lines = capsys.readouterr().err.splitlines()
    for text in ("list fails (nobody there): training goes on", "list misses a part of the run"):
        assert len([line for line in lines if text in line]) == 1

    tracker.last_step = 1000
    train(store, tmp_path / "run", tracker, resume=True)

    assert tracker.steps("train/loss") == [2, 4, 6, 8]
    assert [run_id for _, run_id in tracker.begun] == [None, "run 1"]


def test_a_run_that_was_not_tracked_is_sent_when_it_is(store: SeriesStore, tmp_path: Path) -> None:
    """What metrics.jsonl has, once its run is evaluated with a tracker."""
    tracker = ListTracker()
    run = train(store, tmp_path / "run", ())

    log_test(run, run.evaluate("test"), tracker)

    assert tracker.steps("train/loss") == [2, 4, 6, 8]


def test_an_interrupted_run_is_killed(tmp_path: Path) -> None:
    """So says the tracker."""
    store, tracker = open_store(tmp_path), ListTracker()
    run = train(store, tmp_path / "run", ())

    with pytest.raises(Interrupted), Tracking(tracker) as tracking:  # noqa: PT012 - as train does
        tracking.check()
        (session,) = tracking.observers()(run.directory)
        session.begin("epoch 1", 1)
        raise Interrupted("stopped", 15)

    assert tracker.ends == ["killed"]


def test_another_place_has_a_run_of_its_own(store: SeriesStore, tmp_path: Path) -> None:
    """Identifiers belong to the server that gave them."""
    tracker = ListTracker()
    run = train(store, tmp_path / "run", tracker)
    positions = json.loads(run.directory.tracking_file.read_text())
    positions["list"]["place"] = "elsewhere"
    run.directory.tracking_file.write_text(json.dumps(positions))

    train(store, tmp_path / "run", tracker, resume=True, epochs=3)

    assert [run_id for _, run_id in tracker.begun] == [None, None]
    assert tracker.steps("val/mae") == [4, 8, 4, 8, 12]


def test_folds_are_runs_of_a_group(store: SeriesStore, tmp_path: Path) -> None:
    """Each fold is tracked and finished."""
    tracker = ListTracker()

    pgti.backtest(
        store,
        tmp_path / "spring",
        folds=2,
        refit="every",
        model="linear",
        windows={"input_steps": 3, "horizon": 2},
        epochs=1,
        track=[tracker],
        progress=False,
    )

    assert [(run.group, run.directory.name) for run, _ in tracker.begun] == [
        ("spring", "fold-1"),
        ("spring", "fold-2"),
    ]
    assert tracker.ends == ["finished", "finished"]


@pytest.mark.parametrize(
    ("track", "message"),
    [
        ("mlfow", "did you mean 'mlflow'"),
        (["tensorboard", "tensorboard"], "track names tensorboard twice"),
        ([3], "track is 3: it must be names of trackers"),
    ],
)
def test_refusals(store: SeriesStore, tmp_path: Path, track: Sequence[Any], message: str) -> None:
    """In one line, before anything is written."""
    with pytest.raises(ConfigError, match=message):
        train(store, tmp_path / "run", track)
    assert not (tmp_path / "run").exists()


def test_a_library_that_is_missing_names_its_extra(
    store: SeriesStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tracker's own."""
    for name, module in (
        ("mlflow", "mlflow"),
        ("tensorboard", "torch.utils.tensorboard"),
        ("trackio", "trackio"),
        ("wandb", "wandb"),
    ):
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(MissingExtraError, match=rf"pip install 'pgti\[{name}\]'"):
            train(store, tmp_path / "run", name)


def test_wandb_without_a_key_is_refused(
    store: SeriesStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would ask for one, in the middle of a job."""
    import pgti.interop.tracking.wandb as adapter  # noqa: PLC0415

    monkeypatch.setattr(adapter, "_has_key", lambda _: False)
    fake = type(
        "Wandb", (), {"Settings": type("Settings", (), {"mode": "online", "base_url": "x"})}
    )
    monkeypatch.setitem(__import__("sys").modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with pytest.raises(ConfigError, match="has no key for x: run `wandb login`"):
        train(store, tmp_path / "run", "wandb")
