"""Searches: trials are pruned, fail, are killed and go on, alone and in several processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import pgti
from pgti.errors import Interrupted, MissingExtraError, RunError
from pgti.run.config import RunConfig
from pgti.run.search_study import optuna
from pgti.storage import file_lock
from pgti.store import SeriesStore

from .small_runs import WINDOWS, make_series, make_store

SPACE = {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}, "batch_size": [16, 32]}

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SeriesStore:
    """The same for all tests."""
    return make_store(tmp_path_factory.mktemp("store") / "store", make_series())


def tune(store: SeriesStore, out: Path, **options: Any) -> pgti.TuneResult:
    """A search of a linear model for two epochs."""
    chosen = {"trials": 2, "space": SPACE, "epochs": 2, "batch_size": 16, "seed": 3, **options}
    return pgti.tune(store, out, model="linear", windows=WINDOWS, progress=False, **chosen)


@pytest.fixture(scope="module")
def whole(store: SeriesStore, tmp_path_factory: pytest.TempPathFactory) -> pgti.TuneResult:
    """A search of three trials that nothing interrupted."""
    return tune(store, tmp_path_factory.mktemp("whole") / "search", trials=3)


class StopTrial(pgti.Callback):
    """Ends a trial after a validation, as `error` says."""

    def __init__(self, trial: int, epoch: int, error: BaseException) -> None:
        self.trial, self.epoch, self.error = f"{trial:04d}", epoch, error

    def on_validation(
        self, status: pgti.TrainingStatus, errors: Mapping[str, float | None]
    ) -> None:
        """Raise, of one trial."""
        if status.directory.name == self.trial and status.epoch == self.epoch:
            raise self.error


def test_the_best_trial_by_validation_is_ready_to_train(store: SeriesStore, tmp_path: Path) -> None:
    """Trials, the best, its configuration and run, a failure among them, and the report."""
    failing = StopTrial(1, 1, RunError("the loss is not finite"))

    result = tune(store, tmp_path / "search", trials=3, callbacks=[failing])

    first, failed, *_ = result.trials
    assert first.params == {"training.learning_rate": 1e-3, "training.batch_size": 16}  # the base
    assert (failed.state, failed.error) == ("failed", "the loss is not finite")
    complete = [each for each in result.trials if each.state == "complete"]
    assert len(complete) == 2
    assert result.best.val_mae == min(each.val_mae for each in complete if each.val_mae)
    for each in complete:
        run = pgti.Run.open(result.run_directory(each.number)) if each == result.best else None
        records = (result.run_directory(each.number) / "metrics.jsonl").read_text().splitlines()
        curve = [json.loads(line)["val"]["mae"] for line in records if '"epoch",' in line]
        assert list(each.curve.values()) == curve
        assert each.val_mae == min(curve)
        assert (run is None) == (not list(result.run_directory(each.number).rglob("*.pt")))
    config = RunConfig.from_toml(result.best_config)
    assert config.training.learning_rate == result.best.params["training.learning_rate"]
    assert result.best_run().config == config
    frame = result.to_frame()
    assert frame["state"].tolist() == [each.state for each in result.trials]
    page = result.report_file.read_text(encoding="utf-8")
    assert "the loss is not finite" in page
    assert 'src="http' not in page


def test_no_trial_reads_a_test_window(whole: pgti.TuneResult, tmp_path: Path) -> None:
    """With other test readings a trial is the same, bit for bit."""
    values = make_series()
    values[-15:] = 7  # targets of test windows alone

    other = tune(make_store(tmp_path / "other", values), tmp_path / "search", trials=1)

    assert other.trials[0].curve == whole.trials[0].curve


def test_pruned_trials_end_early(
    store: SeriesStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that the pruner refuses ends after that epoch, as a run that is finished."""
    pruner = type(optuna().pruners.MedianPruner())
    monkeypatch.setattr(pruner, "prune", lambda *given: given[2].number == 1)

    result = tune(store, tmp_path / "search", epochs=3)

    assert [each.state for each in result.trials] == ["complete", "pruned"]
    assert [list(each.curve) for each in result.trials] == [[1, 2, 3], [1]]


def test_an_interrupted_search_goes_on_where_it_stopped(
    store: SeriesStore, whole: pgti.TuneResult, tmp_path: Path
) -> None:
    """As if it had not been: the same trials, epochs once, in the total that is asked for."""
    stop = StopTrial(1, 2, Interrupted("stopped", 15))

    with pytest.raises(Interrupted, match="goes on if it is started again") as caught:
        tune(store, tmp_path / "search", trials=3, callbacks=[stop])
    assert caught.value.signal_number == 15
    resumed = tune(store, tmp_path / "search", trials=3)
    again = tune(store, tmp_path / "search", trials=3)

    def comparable(result: pgti.TuneResult) -> list[Any]:
        return [(each.state, each.val_mae, each.params, each.curve) for each in result.trials]

    assert comparable(resumed) == comparable(whole)
    assert comparable(again) == comparable(whole)
    assert not list((tmp_path / "search" / "trials").glob("*.lock"))


def test_a_trial_of_another_process_is_left_to_it(store: SeriesStore, tmp_path: Path) -> None:
    """While its lock is held it counts, and nobody takes it over."""
    stop = StopTrial(0, 1, Interrupted("stopped", 15))
    with pytest.raises(Interrupted):
        tune(store, tmp_path / "search", callbacks=[stop])

    with file_lock(tmp_path / "search" / "trials" / "0000.lock", on_busy=pytest.fail):
        result = tune(store, tmp_path / "search")

    assert [each.state for each in result.trials] == ["running", "complete"]


def test_a_trial_that_always_kills_its_process_fails(store: SeriesStore, tmp_path: Path) -> None:
    """After the third start, so that the search goes on."""
    stop = StopTrial(0, 1, Interrupted("stopped", 15))
    with pytest.raises(Interrupted):
        tune(store, tmp_path / "search", callbacks=[stop])
    study = optuna().load_study(
        study_name="pgti", storage=f"sqlite:///{tmp_path / 'search' / 'study.db'}"
    )
    study._storage.set_trial_user_attr(study.trials[0]._trial_id, "starts", 3)

    result = tune(store, tmp_path / "search", callbacks=[stop])

    assert [each.state for each in result.trials] == ["failed", "complete"]
    assert result.trials[0].error == "its process was killed 3 times"


def test_a_search_whose_trials_all_fail_says_why(store: SeriesStore, tmp_path: Path) -> None:
    """Each time it is started, and writes no configuration that would fail, too."""
    failing = [StopTrial(trial, 1, RunError("training diverged")) for trial in range(2)]
    for _ in range(2):
        with pytest.raises(RunError, match=r"no trial of .* because training diverged: choose"):
            tune(store, tmp_path / "search", callbacks=failing)
    assert not (tmp_path / "search" / "best.toml").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 3}, "search was started with training.epochs = 2, and not 3"),
        ({"space": {"learning_rate": [1e-3, 1e-2]}}, "search was started with space"),
        ({"pruner": "none"}, "search was started with pruner = 'median'"),
        ({"pruner": "best"}, "pruner is 'best': it must be one of median, hyperband, none"),
        ({"trials": 0}, "trials is 0: it must be a whole number of at least 1"),
    ],
)
def test_refusals(store: SeriesStore, whole: pgti.TuneResult, options: Any, message: str) -> None:
    """Another search in the same directory, and values that there are not."""
    with pytest.raises(pgti.PgtiError, match=message):
        tune(store, whole.path, **options)


def test_other_directories_and_missing_libraries_are_refused(
    store: SeriesStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is written."""
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RunError, match="exists and is not a search"):
        tune(store, tmp_path)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pgti\[tune\]'"):
        tune(store, tmp_path / "search")
    assert not (tmp_path / "search").exists()


def start(store: SeriesStore, tmp_path: Path, trials: int, epochs: int) -> subprocess.Popen[str]:
    """A process that searches, as users start it."""
    space = tmp_path / "space.toml"
    space.write_text('["learning-rate"]\nlow = 1e-4\nhigh = 1e-1\nlog = true\n')
    options = f"--trials {trials} --epochs {epochs} --batch-size 16 --model linear --json"
    windows = "--windows.input-steps 3 --windows.horizon 2 --checkpoint-every-steps 1"
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "pgti", "tune", str(store.path), "--space", str(space)),
            *("--out", str(tmp_path / "search"), *options.split(), *windows.split()),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_two_processes_share_a_search_and_outlive_kill(store: SeriesStore, tmp_path: Path) -> None:
    """One of two is killed in the middle of a trial; trials are as many as asked, each once."""
    killed = start(store, tmp_path, trials=6, epochs=60)
    first = tmp_path / "search" / "trials" / "0000" / "checkpoints" / "last.pt"
    for _ in range(600):
        if first.exists():
            break
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    processes = [start(store, tmp_path, trials=6, epochs=60) for _ in range(2)]
    outputs = [process.communicate(timeout=240) for process in processes]

    assert [process.returncode for process in processes] == [0, 0], outputs
    logs = [lines for _, lines in outputs]
    assert sum("trial 0 goes on where its process ended" in lines for lines in logs) == 1
    begun = [lines.count(": training.learning_rate = ") for lines in logs]
    assert sum(begun) == 6
    assert all(begun)
    study = optuna().load_study(
        study_name="pgti", storage=f"sqlite:///{tmp_path / 'search' / 'study.db'}"
    )
    assert [trial.number for trial in study.trials] == list(range(6))
    assert {trial.state.name for trial in study.trials} <= {"COMPLETE", "PRUNED"}
    assert len({trial.params["training.learning_rate"] for trial in study.trials}) == 6
    assert (tmp_path / "search" / "best.toml").exists()
