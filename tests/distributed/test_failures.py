"""Jobs that fail: who is blamed, and what is left. Rank 0 serves the store here, as under srun."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pgti.cli.main import run_command

from ..conftest import ProcessJob, ProcessPool, pgti_process
from .conftest import RunRanks, rank_environments
from .rank_jobs import make_store
from .test_torchrun import OPTIONS, last_step, torchrun


class Ranks:
    """The command as several processes that no launcher watches."""

    def __init__(self, job: ProcessJob, run: Path, logs: list[Path]) -> None:
        self.job = job
        self.run = run
        self._logs = logs

    def wait_for_step(self, step: int) -> None:
        """Wait until a step is checkpointed."""
        deadline = time.monotonic() + 120
        while last_step(self.run) < step and time.monotonic() < deadline:
            time.sleep(0.05)

    def errors(self, rank: int) -> list[str]:
        """The errors that a rank has reported."""
        lines = self._logs[rank].read_text().splitlines()
        return [line for line in lines if line.startswith("pgti: ") and "error" in line]


@contextmanager
def ranks(
    pool: ProcessPool, tmp_path: Path, world_size: int, *more: str, stores: tuple[Path, ...]
) -> Iterator[Ranks]:
    """Ranks that do not outlive the test."""
    run, logs = tmp_path / "run", [tmp_path / f"{rank}.log" for rank in range(world_size)]
    processes = [
        pgti_process(
            "train", stores[rank % len(stores)], "--run", run, *OPTIONS, *more,
            environment=environment, log=logs[rank],
        )
        for rank, environment in enumerate(rank_environments(world_size))
    ]  # fmt: skip
    with pool.job(processes) as job:
        yield Ranks(job, run, logs)


@pytest.mark.slow
def test_of_four_ranks_the_killed_one_is_named(process_pool: ProcessPool, tmp_path: Path) -> None:
    """Those beside it leave first, and are not blamed for it."""
    store = make_store(tmp_path / "store").path
    with ranks(process_pool, tmp_path, 4, "--epochs", "100000", stores=(store,)) as job:
        job.wait_for_step(5)
        os.kill(job.job.pids[2], signal.SIGKILL)
        assert [job.job.end(rank) for rank in (0, 1, 3)] == [1, 1, 1]
        message = "pgti: error: rank 2 did not respond for 3 s: the job cannot continue"
        assert job.errors(0) == [message]
        assert job.errors(1) == job.errors(3) == []


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)]
)
def test_rank_0_with_the_store_it_serves(
    process_pool: ProcessPool, tmp_path: Path, number: signal.Signals
) -> None:
    """Gone or stopped, the others end, and say so since it cannot."""
    store = make_store(tmp_path / "store").path
    more = ("--epochs", "100000", "--peer-timeout", "3")
    with ranks(process_pool, tmp_path, 2, *more, stores=(store,)) as job:
        job.wait_for_step(5)
        os.kill(job.job.pids[0], number)
        assert job.job.end(1) == 1
        (line,) = job.errors(1)
        assert line.startswith("pgti: rank 1: error: rank 0")


@pytest.mark.slow
def test_ranks_with_other_stores_are_refused(process_pool: ProcessPool, tmp_path: Path) -> None:
    stores = (make_store(tmp_path / "a").path, make_store(tmp_path / "b", num_steps=200).path)
    with ranks(process_pool, tmp_path, 2, stores=stores) as job:
        assert [job.job.end(0), job.job.end(1)] == [2, 2]
        assert job.errors(0) == [
            "pgti: error: the store of rank 1 differs from that of rank 0: every rank needs the "
            "same"
        ]
        assert job.errors(1) == []
        assert not job.run.exists()


def test_options_that_differ_are_refused(run_ranks: RunRanks, tmp_path: Path) -> None:
    store = str(make_store(tmp_path / "store").path)
    results = run_ranks("train_apart", 2, store=store, run=str(tmp_path / "run"))
    for result in results:
        assert "the options of rank 1 differs from that of rank 0" in result["error"]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_restarted_job_resumes_its_own_run_alone(
    process_pool: ProcessPool, tmp_path: Path
) -> None:
    """A run of somebody else's in the place of --run is refused at every start."""
    store, run = make_store(tmp_path / "store").path, tmp_path / "run"
    assert run_command(["train", f"{store}", "--run", f"{run}", *OPTIONS, "--epochs", "1"]) == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with torchrun(process_pool, store, run, "--epochs", "3", restarts=1) as job:
        assert job.job.end(0) != 0
    assert "".join(job.said).count("pgti: error: ") == 2
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert json.loads((run / "run.json").read_text())["world_size"] == 1
