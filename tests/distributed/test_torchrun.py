"""The command under torchrun: jobs whose ranks are killed, stopped or signalled."""

import contextlib
import json
import os
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pgti.cli.main import run_command

from ..conftest import ProcessJob, ProcessPool, pgti_process
from .conftest import free_port, rank_environments, torchrun_process
from .rank_jobs import make_store

OPTIONS = (
    "--model.hidden", "2", "--model.layers", "1", "--windows.input-steps", "3",
    "--windows.horizon", "2", "--batch-size", "8", "--seed", "5",
    "--checkpoint-every-steps", "5", "--log-every-steps", "5",
)  # fmt: skip


class Job:
    """A `torchrun` of `pgti train` whose log is a file."""

    def __init__(self, job: ProcessJob, run: Path) -> None:
        self.job = job
        self.run = run

    @property
    def said(self) -> list[str]:
        """The command's lines so far, without those of torchrun."""
        return [line for line in self.job.log().splitlines() if re.match(r"pgti: ", line)]

    @property
    def step(self) -> int:
        """The last step that was checkpointed."""
        return last_step(self.run)

    def wait_for_step(self, step: int) -> None:
        """Wait until a step is checkpointed."""
        deadline = time.monotonic() + 120
        while self.step < step and time.monotonic() < deadline:
            time.sleep(0.01)


@contextlib.contextmanager
def torchrun(
    pool: ProcessPool,
    store: Path,
    run: Path,
    *more: str,
    ranks: int = 2,
    restarts: int = 0,
    options: tuple[str, ...] = (),
) -> Iterator[Job]:
    """A job that does not outlive the block."""
    process = torchrun_process(
        "--nproc-per-node", ranks, "--max-restarts", restarts, "--master-port", free_port(),
        *options,
        command=("train", store, "--run-dir", run, *OPTIONS, *more),
        log=run.with_suffix(".log"),
    )  # fmt: skip
    with pool.job([process]) as job:
        yield Job(job, run)


def train_on_two_ranks(pool: ProcessPool, store: Path, run: Path, *more: str) -> None:
    """Train without interruption."""
    log = run.with_suffix(".log")
    processes = [
        pgti_process("train", store, "--run", run, *OPTIONS, *more, log=log, environment=each)
        for each in rank_environments(2)
    ]
    with pool.job(processes) as job:
        assert job.end_all() == [0, 0], job.log()


def last_step(run: Path) -> int:
    with contextlib.suppress(OSError, RuntimeError, EOFError, KeyError):
        state = torch.load(run / "checkpoints/last.pt", weights_only=True)
        return int(state["position"]["step"])
    return -1


def losses(run: Path) -> list[tuple[int, float]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["train_loss"]) for line in map(json.loads, lines)]


def check_killed(pool: ProcessPool, tmp_path: Path, kills: int, epochs: int) -> None:
    """Ranks die at random moments; the run ends with the losses of the unbroken run."""
    store, unbroken = make_store(tmp_path / "store").path, tmp_path / "unbroken"
    more = ("--epochs", f"{epochs}")
    train_on_two_ranks(pool, store, unbroken, *more)
    chance = random.Random(kills)
    last = last_step(unbroken)
    with torchrun(pool, store, tmp_path / "killed", *more, restarts=kills) as job:
        for number in range(kills):
            job.wait_for_step(1 + number * last // (2 * kills))
            time.sleep(chance.uniform(0, 0.3))
            alive = job.job.children()
            assert alive, job.said
            os.kill(chance.choice(alive), signal.SIGKILL)
            deadline = time.monotonic() + 60
            while set(job.job.children()) & set(alive) and time.monotonic() < deadline:
                time.sleep(0.05)  # the rest of them end before they are started again
        assert job.job.end(0) == 0, job.said
    assert job.step == last
    assert [step for step, _ in losses(job.run)] == [step for step, _ in losses(unbroken)]
    for (_, found), (_, expected) in zip(losses(job.run), losses(unbroken), strict=True):
        assert found == pytest.approx(expected, rel=1e-12)
    for name in ("best.pt", "last.pt"):
        found, expected = (
            torch.load(run / "checkpoints" / name, weights_only=True)["network"]
            for run in (job.run, unbroken)
        )
        for parameter, tensor in expected.items():
            assert torch.equal(found[parameter], tensor), f"{name} {parameter}"


@pytest.mark.slow
def test_a_killed_rank_costs_no_more_than_the_steps_since_the_checkpoint(
    process_pool: ProcessPool, tmp_path: Path
) -> None:
    check_killed(process_pool, tmp_path, kills=1, epochs=8)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kill_9_of_any_rank_at_twenty_random_moments(
    process_pool: ProcessPool, tmp_path: Path
) -> None:
    check_killed(process_pool, tmp_path, kills=20, epochs=200)


@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_job_with_its_name(
    process_pool: ProcessPool, tmp_path: Path
) -> None:
    """A stopped process answers nobody: the others wait as long as they are told, and name it."""
    store = make_store(tmp_path / "store").path
    more = ("--epochs", "100000", "--peer-timeout", "3")
    with torchrun(process_pool, store, tmp_path / "run", *more, ranks=3) as job:
        job.wait_for_step(5)
        stopped = job.job.children()[2]
        os.kill(stopped, signal.SIGSTOP)
        try:
            deadline = time.monotonic() + 60
            while not any("rank 2" in line for line in job.said) and time.monotonic() < deadline:
                time.sleep(0.1)
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert job.job.end(0) != 0
    first = next(line for line in job.said if "error" in line)
    assert first == "pgti: error: rank 2 did not respond for 3 s: the job cannot continue"


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGUSR1]
)
def test_a_signal_checkpoints_and_ends_all_ranks(
    process_pool: ProcessPool, tmp_path: Path, number: signal.Signals
) -> None:
    """As SLURM sends it: to torchrun, which passes it on."""
    store = make_store(tmp_path / "store").path
    options = ("--signals-to-handle", "SIGTERM,SIGINT,SIGUSR1")
    run, more = tmp_path / "run", ("--epochs", "100000")
    with torchrun(process_pool, store, run, *more, options=options) as job:
        job.wait_for_step(5)
        before = job.step
        os.kill(job.job.pids[0], number)
        job.job.end(0)
    assert f"pgti: stopped by {number.name} after step {job.step}" in " ".join(job.said)
    assert job.step >= before


@pytest.mark.slow
def test_what_the_user_gave_wrong_is_said_once(process_pool: ProcessPool, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store").path
    more = ("--placement", "partitioned", "--order", "partitions", "--order.partitions", "2")
    with torchrun(process_pool, store, tmp_path / "run", *more, ranks=3) as job:
        assert job.job.end(0) != 0
    (line,) = job.said
    assert line.startswith("pgti: error: partitions is 2 and there are 3 ranks")
    assert not job.run.exists()


def test_evaluation_on_several_ranks_is_that_of_one(
    process_pool: ProcessPool, tmp_path: Path
) -> None:
    """To float32's precision: kernels round by the number of windows that they are given."""
    store, run = make_store(tmp_path / "store").path, tmp_path / "run"
    train_on_two_ranks(process_pool, store, run, "--epochs", "2")
    reports = []
    for environments in ([{}], rank_environments(2)):
        outputs = [tmp_path / f"{len(environments)}-{rank}.json" for rank in range(2)]
        processes = [
            pgti_process(
                "evaluate", run, "--split", "all", "--json",
                log=tmp_path / "evaluate.log", stdout=output, environment=environment,
            )
            for environment, output in zip(environments, outputs, strict=False)
        ]  # fmt: skip
        with process_pool.job(processes) as job:
            assert not any(job.end_all()), job.log()
        (line,) = outputs[0].read_text().splitlines()
        assert len(processes) == 1 or not outputs[1].read_text()  # only rank 0 reports
        reports.append(json.loads(line))
    alone, together = reports
    for split in ("train", "val", "test"):
        assert together[split]["count"] == alone[split]["count"]
        assert together[split]["mae"] == pytest.approx(alone[split]["mae"], rel=1e-6)
    assert together["test"]["mae"]["mean"] == pytest.approx(
        json.loads((run / "test.json").read_text())["mae"]["mean"], rel=1e-12
    )


def test_a_backtest_on_several_ranks_is_that_of_one(
    process_pool: ProcessPool, tmp_path: Path
) -> None:
    """The command is one for several ranks, as its option --peer-timeout says."""
    store = make_store(tmp_path / "store").path
    results = []
    for environments in ([{}], rank_environments(2)):
        output = tmp_path / f"{len(environments)}.json"
        processes = [
            pgti_process(
                "backtest", store, "--out", tmp_path / f"of-{len(environments)}", "--json",
                *OPTIONS, "--epochs", "1", "--folds", "2",
                log=tmp_path / "backtest.log", environment=environment,
                stdout=output if not rank else tmp_path / "nothing.json",
            )
            for rank, environment in enumerate(environments)
        ]  # fmt: skip
        with process_pool.job(processes) as job:
            assert not any(job.end_all()), job.log()
        results.append(json.loads(output.read_text()))
    assert not (tmp_path / "nothing.json").read_text()  # only rank 0 reports
    alone, together = results
    assert together["all"]["count"] == alone["all"]["count"]
    assert together["all"]["mae"] == pytest.approx(alone["all"]["mae"], rel=1e-5)


def test_a_forecast_file_is_written_by_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in rank_environments(2)[0].items():
        monkeypatch.setenv(name, text)
    assert run_command(["predict", f"{tmp_path}", "--out", "x.csv"]) == 2
    assert "predict was launched as 2 processes" in capsys.readouterr().err
