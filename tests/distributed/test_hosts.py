"""Several machines: two torchrun agents, and srun's variables alone, train as one process does."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from pgti.cli.main import run_command

from ..conftest import ProcessPool, pgti_process
from .conftest import free_port, torchrun_process
from .rank_jobs import make_store

OPTIONS = (
    "--model.hidden", "2", "--model.layers", "1", "--windows.input-steps", "3",
    "--windows.horizon", "2", "--batch-size", "10", "--seed", "5",
    "--checkpoint-every-steps", "5", "--peer-timeout", "60", "--device", "cpu",
)  # fmt: skip


def parameters(run: Path) -> dict[str, torch.Tensor]:
    network: dict[str, torch.Tensor] = torch.load(run / "checkpoints/last.pt", weights_only=True)[
        "network"
    ]
    return network


@contextmanager
def one_thread() -> Iterator[None]:
    """Threads that wait for each other take the cores from the ranks beside this process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained_alone(store: Path, run: Path, *more: str) -> dict[str, torch.Tensor]:
    """The parameters of one process."""
    with one_thread():
        assert run_command(["train", f"{store}", "--run", f"{run}", *OPTIONS, *more]) == 0
    return parameters(run)


def machines_of_torchrun(store: Path, run: Path, *more: str) -> list[dict[str, Any]]:
    """Two ranks on the first machine and one on the second."""
    port = free_port()
    return [
        torchrun_process(
            "--nnodes", 2, "--node-rank", node, "--nproc-per-node", 2 - node,
            "--master-addr", "127.0.0.1", "--master-port", port, "--max-restarts", 1,
            command=("train", store, "--run-dir", run, *OPTIONS, *more),
            log=run.with_suffix(f".{node}.log"),
        )
        for node in range(2)
    ]  # fmt: skip


@pytest.mark.slow  # tasks of srun are two hosts, too
def test_two_machines_of_torchrun_train_as_one_process(
    process_pool: ProcessPool, tmp_path: Path
) -> None:
    """Two ranks on the first and one on the second, which hold the series in parts."""
    store, run = make_store(tmp_path / "store").path, tmp_path / "run"
    order = ("--order", "partitions", "--order.partitions", "7")
    more = ("--epochs", "2", "--placement", "partitioned", *order)
    with process_pool.job(machines_of_torchrun(store, run, *more)) as job:
        expected = trained_alone(store, tmp_path / "alone", *more)
        assert job.end_all() == [0, 0], job.log()
    found = parameters(run)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6, msg=name)
    assert "3 ranks; bytes that rank 0 sent: data" in job.log(0)
    assert "pgti: " not in job.log(1)  # only rank 0 logs


def test_tasks_of_srun_train_as_one_process(process_pool: ProcessPool, tmp_path: Path) -> None:
    """What srun tells two tasks on two nodes is enough: no torchrun, no MASTER_ADDR."""
    store, run = make_store(tmp_path / "store").path, tmp_path / "run"
    slurm_job, more = free_slurm_job(), ("--epochs", "2")
    tasks = [
        pgti_process(
            "train", store, "--run", run, *OPTIONS, *more,
            log=tmp_path / f"{rank}.log",
            environment={
                "SLURM_JOB_ID": f"{slurm_job}", "SLURM_STEP_ID": "0", "SLURM_PROCID": f"{rank}",
                "SLURM_LOCALID": "0", "SLURM_NODEID": f"{rank}", "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_STEP_NODELIST": "localhost,elsewhere",
            },
        )
        for rank in range(2)
    ]  # fmt: skip
    with process_pool.job(tasks) as job:
        expected = trained_alone(store, tmp_path / "alone", *more)
        assert job.end_all() == [0, 0], job.log()
    found = parameters(run)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6, msg=name)


def free_slurm_job() -> int:
    """A job id whose port, as `find_launch` derives it, nobody listens on."""
    for job in range(os.getpid(), os.getpid() + 1000):
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", 20000 + 101 * job % 10000))
            except OSError:
                continue
            return job
    raise AssertionError("every port is taken")


@pytest.mark.slow
@pytest.mark.parametrize("node", [0, 1])
def test_a_rank_that_dies_on_either_machine_costs_the_steps_since_the_checkpoint(
    process_pool: ProcessPool, tmp_path: Path, node: int
) -> None:
    store, run, more = make_store(tmp_path / "store").path, tmp_path / "run", ("--epochs", "40")
    with process_pool.job(machines_of_torchrun(store, run, *more)) as job:
        deadline = time.monotonic() + 120
        while not (run / "checkpoints/last.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(job.children(node)[0], signal.SIGKILL)
        assert job.end_all() == [0, 0], job.log()
    assert "did not respond for 3 s" in job.log(0) + job.log(1)
    expected = trained_alone(store, tmp_path / "alone", *more)
    found = parameters(run)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5, msg=name)
