"""Commands that write, killed at random moments: the old state or the new one, and then the end."""

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pgti.cli.main import run_command
from pgti.run.search_study import optuna
from pgti.store import SeriesStore

from ..conftest import ProcessJob, ProcessPool, pgti_process
from ..datasets import published_files
from ..datasets.file_server import Served, serving
from .small_runs import make_series, make_store

DATASET, FILE = "Chickenpox-Hungary", "chickenpox.json"
KILLS = [2, pytest.param(10, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
WINDOWS = ("--windows.input-steps", "3", "--windows.horizon", "2", "--batch-size", "16")


def run(*tokens: object) -> int:
    return run_command([str(token) for token in tokens])


def names(folder: Path) -> list[str]:
    """Names of what is in a folder, in order."""
    return sorted(path.name for path in folder.iterdir())


class Lives:
    """Starts a process again and again, and kills each after a while that chance gives."""

    def __init__(self, pool: ProcessPool, process: dict[str, Any], seed: int) -> None:
        self.pool, self.process = pool, process
        self.chance = random.Random(seed)
        with pool.job([]):  # once its server has begun, seconds are those of the process
            pass

    def whole(self) -> float:
        """Let it come to its end; gives its seconds."""
        began = time.monotonic()
        with self.pool.job([self.process]) as job:
            assert job.end(0) == 0, job.log()
        return time.monotonic() - began

    def killed(self, kills: int, seconds: float) -> Iterator[ProcessJob]:
        """Kill so many within their first seconds; gives each, dead or at its end."""
        while kills:
            with self.pool.job([self.process]) as job:
                time.sleep(self.chance.uniform(0, seconds))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(job.pids[0], signal.SIGKILL)
                code = job.end(0)
                assert code in (0, -signal.SIGKILL), job.log()
                kills -= code != 0
                yield job


@pytest.mark.parametrize("kills", KILLS)
def test_killed_appends_leave_the_old_store_or_the_new_one(
    process_pool: ProcessPool, tmp_path: Path, kills: int
) -> None:
    values = np.random.default_rng(0).integers(1, 900, (220, 3)) / 10
    times = pd.date_range("2025-01-01", periods=220, freq="5min")
    frame = pd.DataFrame(values, index=times, columns=["a", "b", "c"])
    for rows in range(20, 221, 20):
        frame.iloc[max(0, rows - 30) : rows].to_csv(tmp_path / f"{rows}.csv")
    store, written = tmp_path / "store", tmp_path / "written"
    assert run("ingest", tmp_path / "20.csv", "--out", store) == 0
    assert run("ingest", tmp_path / "20.csv", "--out", tmp_path / "other") == 0

    def append(rows: int, to: Path, seed: int = 0) -> Lives:
        command = ("append", to, tmp_path / f"{rows}.csv")
        return Lives(process_pool, pgti_process(*command, log=tmp_path / "log"), seed)

    seconds = append(40, tmp_path / "other").whole()
    had = 20
    for kill in range(kills):
        for _ in append(had + 20, store, kill).killed(1, seconds):
            assert run("info", store, "--verify") == 0
            steps = SeriesStore.open(store).meta.num_steps
            assert steps in (had, had + 20)
            had = min(steps, 200)  # the last rows are left for the end
    for rows in range(had, 221, 20):
        append(rows, store).whole()
    frame.to_csv(tmp_path / "all.csv")
    assert run("ingest", tmp_path / "all.csv", "--out", written) == 0
    grown = SeriesStore.open(store)
    assert grown.fingerprint == SeriesStore.open(written).fingerprint
    assert names(store) == names(written)
    np.testing.assert_array_equal(grown.read(0, 220)[..., 0], values.astype(np.float32))


@pytest.mark.parametrize("kills", KILLS)
def test_killed_fetches_leave_no_store_or_a_whole_one(
    process_pool: ProcessPool, tmp_path: Path, kills: int
) -> None:
    pytest.importorskip("pooch", reason="pooch is not installed")
    content = {**published_files.CHICKENPOX}
    content["FX"] = np.random.default_rng(0).normal(size=(9000, 3)).round(6).tolist()
    with serving() as server:
        server.files[FILE] = Served(json.dumps(content).encode(), pause_seconds=0.03)

        def fetch_to(name: str) -> Lives:
            where = {"out": str(tmp_path / name), "cache": str(tmp_path / f"{name}-cache")}
            process = {
                "program": "function",
                "arguments": {
                    "module": str(Path(__file__).with_name("fetch_job.py")),
                    "function": "fetch",
                    "arguments": {"name": DATASET, "url": server.url, **where},
                    "timeout": 60,
                    "result_path": str(tmp_path / f"{name}.result"),
                },
                "environment": {"NO_PROXY": "127.0.0.1"},
                "stderr": str(tmp_path / "log"),
            }
            return Lives(process_pool, process, kills)

        seconds = fetch_to("unbroken").whole()
        lives = fetch_to("killed")
        for _ in lives.killed(kills, seconds):
            if (tmp_path / "killed").exists():
                assert run("info", tmp_path / "killed", "--verify") == 0
                for path in (tmp_path / "killed").iterdir():
                    path.unlink()
                (tmp_path / "killed").rmdir()
        lives.whole()
    assert any(wanted for _, wanted, _ in server.asked) or kills < 10  # some were resumed
    found, expected = (torch.load(tmp_path / f"{each}.result") for each in ("killed", "unbroken"))
    assert found == expected
    assert names(tmp_path / "killed-cache/chickenpox-hungary") == ["checksums.json", FILE]
    assert names(tmp_path) == ["killed", "killed-cache", "killed.result", "log", "unbroken",
                               "unbroken-cache", "unbroken.result"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_study_ends_with_the_trainings_that_it_would_have_had(
    process_pool: ProcessPool, tmp_path: Path
) -> None:
    """Ten times, in every other case with its training; one that lives on is waited for."""
    store = make_store(tmp_path / "store", make_series(num_steps=200)).path
    for name in ("gru", "linear"):
        (tmp_path / f"{name}.toml").write_text(
            f'[model]\nname = "{name}"\n[windows]\ninput_steps = 3\nhorizon = 2\n'
            "[training]\nepochs = 60\nbatch_size = 16\ncheckpoint_every_steps = 3\n"
        )
    configs = [tmp_path / "gru.toml", tmp_path / "linear.toml"]
    command = ("study", store, *configs, "--seeds", "0,1", "--workdir", tmp_path / "work")
    lives = Lives(process_pool, pgti_process(*command, log=tmp_path / "log"), seed=1)
    chance = random.Random(2)
    for _ in range(10):
        with process_pool.job([lives.process]) as job:
            time.sleep(chance.uniform(0, 6))
            children = job.children()
            os.kill(job.pids[0], signal.SIGKILL)
            for child in children if chance.random() < 0.5 else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            assert job.end(0) == -signal.SIGKILL, job.log()
    lives.whole()
    assert "failed" not in (tmp_path / "log").read_text()
    for name in ("gru", "linear"):
        for seed in (0, 1):
            alone = tmp_path / f"{name}-{seed}"
            command = ("train", store, "--config", tmp_path / f"{name}.toml", "--seed", seed)
            process = pgti_process(*command, "--run", alone, log=tmp_path / "alone.log")
            Lives(process_pool, process, 0).whole()
            studied = tmp_path / "work" / alone.name / "run"
            for file in ("test.json", "config.toml"):
                assert (studied / file).read_bytes() == (alone / file).read_bytes()
            assert_same_weights(studied, alone)


def assert_same_weights(one: Path, other: Path) -> None:
    """Bit for bit."""
    found, expected = (
        torch.load(each / "checkpoints/last.pt", weights_only=True)["network"]
        for each in (one, other)
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_search_that_is_killed_ends_with_each_trial_once(
    process_pool: ProcessPool, tmp_path: Path
) -> None:
    """Ten times; a trial that was killed three times has failed."""
    store = make_store(tmp_path / "store", make_series(num_steps=200)).path
    space, out = tmp_path / "space.toml", tmp_path / "search"
    space.write_text('["learning-rate"]\nlow = 1e-4\nhigh = 1e-1\nlog = true\n')
    command = ("tune", store, "--space", space, "--out", out, "--trials", 8, "--epochs", 30)
    more = (*WINDOWS, "--model", "linear", "--checkpoint-every-steps", 2, "--pruner", "none")
    lives = Lives(process_pool, pgti_process(*command, *more, log=tmp_path / "log"), seed=3)
    for _ in lives.killed(10, 3):
        pass
    lives.whole()
    study = optuna().load_study(study_name="pgti", storage=f"sqlite:///{out / 'study.db'}")
    states = [trial.state.name for trial in study.trials]
    assert [trial.number for trial in study.trials] == list(range(8))
    assert set(states) <= {"COMPLETE", "FAIL"}
    assert states.count("FAIL") <= 3
    assert (out / "best.toml").exists()
    best = out / "trials" / f"{study.best_trial.number:04d}"
    again = ("train", store, "--config", out / "best.toml", "--run", tmp_path / "again")
    Lives(process_pool, pgti_process(*again, log=tmp_path / "again.log"), 0).whole()
    assert_same_weights(best, tmp_path / "again")
    assert not list(out.rglob("*.partial"))
