"""Jobs that fail: who is blamed, and what is left. Rank 0 keeps the store here, as under srun."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import RunRanks, free_port
from .jobs import make_store
from .test_torchrun import OPTIONS, last_step


class Ranks:
    """The command as several processes that nobody watches over."""

    def __init__(
        self, tmp_path: Path, world_size: int, *more: str, stores: tuple[Path, ...]
    ) -> None:
        self.run = tmp_path / "run"
        self.logs = [tmp_path / f"{rank}.log" for rank in range(world_size)]
        port = f"{free_port()}"
        self.processes = []
        for rank in range(world_size):
            variables = {
                "RANK": f"{rank}", "WORLD_SIZE": f"{world_size}", "LOCAL_RANK": f"{rank}",
                "LOCAL_WORLD_SIZE": f"{world_size}", "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port, "OMP_NUM_THREADS": "1",
            }  # fmt: skip
            command = [sys.executable, "-m", "pgti", "train", str(stores[rank % len(stores)]),
                       "--run", str(self.run), *OPTIONS, *more]  # fmt: skip
            with self.logs[rank].open("w") as log:
                self.processes.append(
                    subprocess.Popen(command, stderr=log, stdout=log, env=os.environ | variables)
                )

    def wait_for_step(self, step: int) -> None:
        """Wait until a step is checkpointed."""
        deadline = time.monotonic() + 120
        while last_step(self.run) < step and time.monotonic() < deadline:
            time.sleep(0.05)

    def said(self, rank: int) -> list[str]:
        """The errors that a rank has told of."""
        lines = self.logs[rank].read_text().splitlines()
        return [line for line in lines if line.startswith("pgti: ") and "error" in line]

    def end(self, rank: int) -> int:
        """Wait for a rank's end; gives its exit code."""
        return self.processes[rank].wait(timeout=120)


@contextmanager
def ranks(tmp_path: Path, world_size: int, *more: str, stores: tuple[Path, ...]) -> Iterator[Ranks]:
    """Ranks that do not outlive the test."""
    started = Ranks(tmp_path, world_size, *more, stores=stores)
    try:
        yield started
    finally:
        for process in started.processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_of_four_ranks_the_killed_one_is_named(tmp_path: Path) -> None:
    """Those beside it leave first, and are not blamed for it."""
    store = make_store(tmp_path / "store").path
    with ranks(tmp_path, 4, "--epochs", "100000", stores=(store,)) as job:
        job.wait_for_step(5)
        job.processes[2].kill()
        assert [job.end(rank) for rank in (0, 1, 3)] == [1, 1, 1]
        message = "pgti: error: rank 2 is gone: it gives no sign of life: the job cannot continue"
        assert job.said(0) == [message]
        assert job.said(1) == job.said(3) == []


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)]
)
def test_rank_0_with_the_store_it_keeps(tmp_path: Path, number: signal.Signals) -> None:
    """Gone or stopped, the others end, and say so since it cannot."""
    store = make_store(tmp_path / "store").path
    more = ("--epochs", "100000", "--peer-timeout", "3")
    with ranks(tmp_path, 2, *more, stores=(store,)) as job:
        job.wait_for_step(5)
        job.processes[0].send_signal(number)
        assert job.end(1) == 1
        (line,) = job.said(1)
        assert line.startswith("pgti: rank 1: error: rank 0")


@pytest.mark.slow
def test_ranks_with_other_stores_are_refused(tmp_path: Path) -> None:
    stores = (make_store(tmp_path / "a").path, make_store(tmp_path / "b", num_steps=200).path)
    with ranks(tmp_path, 2, stores=stores) as job:
        assert [job.end(0), job.end(1)] == [2, 2]
        assert job.said(0) == [
            "pgti: error: the store of rank 1 differs from that of rank 0: every rank needs the "
            "same"
        ]
        assert job.said(1) == []
        assert not job.run.exists()


def test_options_that_differ_are_refused(run_ranks: RunRanks, tmp_path: Path) -> None:
    store = str(make_store(tmp_path / "store").path)
    results = run_ranks("train_apart", 2, store=store, run=str(tmp_path / "run"))
    for result in results:
        assert "the options of rank 1 differs from that of rank 0" in result["error"]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_restarted_job_goes_on_with_its_own_run_alone(tmp_path: Path) -> None:
    """A run of somebody else's in the place of --run is refused at every start."""
    store = make_store(tmp_path / "store").path
    run = tmp_path / "run"
    command = [sys.executable, "-m", "pgti", "train", str(store), "--run", str(run), *OPTIONS]
    subprocess.run([*command, "--epochs", "1"], check=True, capture_output=True)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    restarting = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
                  "--max-restarts", "1", "--master-port", f"{free_port()}",
                  "--monitor-interval", "0.1", "-m", "pgti", "train", str(store),
                  "--run-dir", str(run), *OPTIONS, "--epochs", "3"]  # fmt: skip
    done = subprocess.run(restarting, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.count("pgti: error: ") == 2
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert json.loads((run / "run.json").read_text())["world_size"] == 1
