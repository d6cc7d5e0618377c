"""The command under torchrun: jobs whose ranks are killed, stopped or signalled."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from .conftest import free_port
from .jobs import make_store

OPTIONS = (
    "--model.hidden", "2", "--model.layers", "1", "--windows.input-steps", "3",
    "--windows.horizon", "2", "--batch-size", "8", "--seed", "5",
    "--checkpoint-every-steps", "5", "--log-every-steps", "5",
)  # fmt: skip


class Job:
    """A `torchrun` of the command, its standard error in a file."""

    def __init__(
        self,
        store: Path,
        run: Path,
        *more: str,
        ranks: int = 2,
        restarts: int = 0,
        torchrun: tuple[str, ...] = (),
    ) -> None:
        self.run = run
        self._log = run.with_suffix(".log")
        command = [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", f"{ranks}",
            "--max-restarts", f"{restarts}", "--master-port", f"{free_port()}",
            "--monitor-interval", "0.1", *torchrun, "-m", "pgti", "train", f"{store}",
            "--run-dir", f"{run}", *OPTIONS, *more,
        ]  # fmt: skip
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )

    @property
    def said(self) -> list[str]:
        """What the command has said so far, without torchrun's own lines."""
        lines = self._log.read_text().splitlines()
        return [line for line in lines if re.match(r"pgti: ", line)]

    @property
    def step(self) -> int:
        """The last step that was checkpointed."""
        return last_step(self.run)

    def ranks(self) -> list[int]:
        """Process ids of the ranks."""
        with contextlib.suppress(OSError):
            path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
            return [int(child) for child in Path(path).read_text().split()]
        return []

    def wait_for_step(self, step: int) -> None:
        """Wait until a step is checkpointed, or the job has ended."""
        deadline = time.monotonic() + 120
        while self.process.poll() is None and self.step < step and time.monotonic() < deadline:
            time.sleep(0.01)

    def end(self) -> int:
        """Wait for the end; gives the exit code."""
        return self.process.wait(timeout=200)


def last_step(run: Path) -> int:
    with contextlib.suppress(OSError, RuntimeError, EOFError, KeyError):
        state = torch.load(run / "checkpoints/last.pt", weights_only=True)
        return int(state["position"]["step"])
    return -1


def losses(run: Path) -> list[tuple[int, float]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["train_loss"]) for line in map(json.loads, lines)]


def check_killed(tmp_path: Path, kills: int, epochs: int) -> None:
    """Ranks die at random moments; the run ends with the losses of the unbroken run."""
    store = make_store(tmp_path / "store").path
    more = ("--epochs", f"{epochs}")
    unbroken = Job(store, tmp_path / "unbroken", *more)
    assert unbroken.end() == 0, unbroken.said
    chance = random.Random(kills)
    job = Job(store, tmp_path / "killed", *more, restarts=kills)
    last = last_step(unbroken.run)
    for number in range(kills):
        job.wait_for_step(1 + number * last // (2 * kills))
        time.sleep(chance.uniform(0, 0.3))
        alive = job.ranks()
        assert alive, job.said
        os.kill(chance.choice(alive), signal.SIGKILL)
        deadline = time.monotonic() + 60
        while set(job.ranks()) & set(alive) and time.monotonic() < deadline:
            time.sleep(0.05)  # the rest of them end before they are started again
    assert job.end() == 0, job.said
    assert last_step(job.run) == last
    assert [step for step, _ in losses(job.run)] == [step for step, _ in losses(unbroken.run)]
    for (_, found), (_, expected) in zip(losses(job.run), losses(unbroken.run), strict=True):
        assert found == pytest.approx(expected, rel=1e-12)
    found, expected = (
        torch.load(run / "checkpoints/best.pt", weights_only=True)["network"]
        for run in (job.run, unbroken.run)
    )
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_a_killed_rank_costs_no_more_than_the_steps_since_the_checkpoint(tmp_path: Path) -> None:
    check_killed(tmp_path, kills=1, epochs=40)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_9_of_any_rank_at_ten_random_moments(tmp_path: Path) -> None:
    check_killed(tmp_path, kills=10, epochs=150)


@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_job_with_its_name(tmp_path: Path) -> None:
    """A stopped process answers nobody: the others wait as long as they were told, and say who."""
    store = make_store(tmp_path / "store").path
    job = Job(store, tmp_path / "run", "--epochs", "100000", "--peer-timeout", "3", ranks=3)
    job.wait_for_step(5)
    stopped = job.ranks()[2]
    os.kill(stopped, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + 60
        while not any("rank 2" in line for line in job.said) and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert job.end() != 0
    first = next(line for line in job.said if "error" in line)
    assert first == "pgti: error: rank 2 is gone: it gives no sign of life: the job cannot continue"


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGUSR1]
)
def test_a_signal_checkpoints_and_ends_all_ranks(tmp_path: Path, number: signal.Signals) -> None:
    """As SLURM sends it: to torchrun, which hands it on."""
    store = make_store(tmp_path / "store").path
    torchrun = ("--signals-to-handle", "SIGTERM,SIGINT,SIGUSR1")
    job = Job(store, tmp_path / "run", "--epochs", "100000", torchrun=torchrun)
    job.wait_for_step(5)
    before = job.step
    job.process.send_signal(number)
    job.end()
    assert f"pgti: stopped by {number.name} after step {job.step}" in " ".join(job.said)
    assert job.step >= before


@pytest.mark.slow
def test_what_the_user_gave_wrong_is_said_once(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store").path
    options = ("--placement", "partitioned", "--order", "partitions", "--order.partitions", "2")
    job = Job(store, tmp_path / "run", *options, ranks=3)
    assert job.end() != 0
    (line,) = job.said
    assert line.startswith("pgti: error: partitions is 2 and there are 3 ranks")
    assert not job.run.exists()


def test_evaluation_on_several_ranks_is_that_of_one(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store").path
    job = Job(store, tmp_path / "run", "--epochs", "2")
    assert job.end() == 0, job.said
    reports = []
    for launcher in ((), ("-m", "torch.distributed.run", "--nproc-per-node", "2",
                          "--master-port", f"{free_port()}")):  # fmt: skip
        command = [sys.executable, *launcher, "-m", "pgti", "evaluate", f"{job.run}",
                   "--split", "all", "--json"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        (line,) = done.stdout.splitlines()  # rank 0 alone speaks
        reports.append(json.loads(line))
    alone, together = reports
    for split in ("train", "val", "test"):
        assert together[split]["count"] == alone[split]["count"]
        assert together[split]["mae"] == pytest.approx(alone[split]["mae"], rel=1e-12)
    assert together["test"]["mae"]["mean"] == pytest.approx(
        json.loads((job.run / "test.json").read_text())["mae"]["mean"], rel=1e-12
    )


def test_a_forecast_file_is_written_by_one_process(tmp_path: Path) -> None:
    environment = os.environ | {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                                "MASTER_PORT": "1"}  # fmt: skip
    command = [sys.executable, "-m", "pgti", "predict", f"{tmp_path}", "--out", "x.csv"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "predict was launched as 2 processes" in done.stderr
