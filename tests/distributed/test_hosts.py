"""Several machines: two torchrun agents, and srun's variables alone, train as one process does."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from pgti.cli.main import run_command

from .conftest import free_port
from .jobs import make_store

OPTIONS = (
    "--model.hidden", "2", "--model.layers", "1", "--windows.input-steps", "3",
    "--windows.horizon", "2", "--batch-size", "10", "--seed", "5",
    "--checkpoint-every-steps", "5", "--peer-timeout", "60", "--device", "cpu",
)  # fmt: skip
LAUNCHERS = re.compile("RANK|WORLD_SIZE|LOCAL_|MASTER_|SLURM_|OMPI_|PMI_|TORCHELASTIC_|PET_")


def clean_environment(**variables: str) -> dict[str, str]:
    """The environment without a launcher's variables, and with these."""
    kept = {name: text for name, text in os.environ.items() if not LAUNCHERS.match(name)}
    return kept | {"OMP_NUM_THREADS": "1"} | variables


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


class Group:
    """The processes of one machine, or of one task, their output in a file."""

    def __init__(self, log: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)

    def end(self) -> int:
        """Wait for the end; gives the exit code."""
        return self.process.wait(timeout=150)

    def children(self) -> list[int]:
        """Process ids of the ranks of a torchrun."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(child) for child in path.read_text().split()]


@contextmanager
def ended(groups: list[Group]) -> Iterator[list[Group]]:
    """Nothing of them outlives a test that fails."""
    try:
        yield groups
    finally:
        for group in groups:
            if group.process.poll() is None:
                group.process.terminate()
                group.process.wait(timeout=60)


def torchrun(node: int, port: int, store: Path, run: Path, *more: str) -> Group:
    """One machine of two."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", f"{node}",
        "--nproc-per-node", f"{2 - node}", "--master-addr", "127.0.0.1", "--master-port",
        f"{port}", "--max-restarts", "1", "--monitor-interval", "0.1",
        "-m", "pgti", "train", f"{store}", "--run-dir", f"{run}", *OPTIONS, *more,
    ]  # fmt: skip
    return Group(run.with_suffix(f".{node}.log"), command, clean_environment())


def test_two_machines_of_torchrun_train_as_one_process(tmp_path: Path) -> None:
    """Two ranks on the first and one on the second, which hold the series in parts."""
    store = make_store(tmp_path / "store").path
    more = (
        "--epochs",
        "2",
        "--placement",
        "partitioned",
        "--order",
        "partitions",
        "--order.partitions",
        "7",
    )
    port, run = free_port(), tmp_path / "run"
    with ended([torchrun(node, port, store, run, *more) for node in range(2)]) as machines:
        expected = trained_alone(store, tmp_path / "alone", *more)
        assert [machine.end() for machine in machines] == [0, 0], machines[0].log.read_text()
    found = parameters(run)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6, msg=name)
    said = machines[0].log.read_text()
    assert "3 ranks; bytes that rank 0 sent: data" in said
    assert "pgti: " not in machines[1].log.read_text()  # one rank speaks


def test_tasks_of_srun_train_as_one_process(tmp_path: Path) -> None:
    """What srun tells two tasks on two nodes is enough: no torchrun, no MASTER_ADDR."""
    store, run = make_store(tmp_path / "store").path, tmp_path / "run"
    job, more = free_slurm_job(), ("--epochs", "2")
    tasks = []
    for rank in range(2):
        environment = clean_environment(
            SLURM_JOB_ID=f"{job}", SLURM_STEP_ID="0", SLURM_PROCID=f"{rank}",
            SLURM_LOCALID="0", SLURM_NODEID=f"{rank}", SLURM_STEP_NUM_TASKS="2",
            SLURM_STEP_TASKS_PER_NODE="1(x2)", SLURM_STEP_NODELIST="localhost,elsewhere",
        )  # fmt: skip
        command = [
            sys.executable,
            "-m",
            "pgti",
            "train",
            f"{store}",
            "--run",
            f"{run}",
            *OPTIONS,
            *more,
        ]
        tasks.append(Group(tmp_path / f"{rank}.log", command, environment))
    with ended(tasks):
        expected = trained_alone(store, tmp_path / "alone", *more)
        assert [task.end() for task in tasks] == [0, 0], tasks[0].log.read_text()
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
    tmp_path: Path, node: int
) -> None:
    store = make_store(tmp_path / "store").path
    port, run, more = free_port(), tmp_path / "run", ("--epochs", "40")
    with ended([torchrun(each, port, store, run, *more) for each in range(2)]) as machines:
        deadline = time.monotonic() + 120
        while not (run / "checkpoints/last.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(machines[node].children()[0], signal.SIGKILL)
        assert [machine.end() for machine in machines] == [0, 0], machines[0].log.read_text()
    assert "is gone: it gives no sign of life" in "".join(each.log.read_text() for each in machines)
    expected = trained_alone(store, tmp_path / "alone", *more)
    found = parameters(run)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5, msg=name)
