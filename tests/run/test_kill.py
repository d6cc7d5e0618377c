"""The command `pgti train`, killed again and again, ends as if it never had been."""

import contextlib
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from ..conftest import ProcessJob, ProcessPool, pgti_process
from .small_runs import make_series, make_store

OPTIONS = (
    "--model.hidden", "2", "--model.layers", "1", "--windows.input-steps", "3",
    "--windows.horizon", "2", "--batch-size", "8", "--seed", "5",
    "--checkpoint-every-steps", "2", "--log-every-steps", "3",
)  # fmt: skip
LONGEST_START_SECONDS = 1.0
LONGEST_TRAINING_SECONDS = 0.3


def wait_until_it_writes(job: ProcessJob, run: Path) -> None:
    """Wait until the process has written to the run, or has ended."""
    before = state_of(run)
    deadline = time.monotonic() + 120
    while state_of(run) == before and time.monotonic() < deadline:
        if not Path(f"/proc/{job.pids[0]}").exists():
            return
        time.sleep(0.002)


def state_of(run: Path) -> tuple[int, ...]:
    """When the run's files were last written."""
    times = []
    for name in ("config.toml", "run.json", "checkpoints/last.pt"):
        with contextlib.suppress(FileNotFoundError):
            times.append((run / name).stat().st_mtime_ns)
    return tuple(times)


def tensors(run: Path, name: str) -> dict[str, torch.Tensor]:
    """Parameters of a checkpoint, and moments of the optimizer."""
    state = torch.load(run / "checkpoints" / name, weights_only=True)
    moments = {
        f"{place} {kind}": tensor
        for place, of_parameter in state["optimizer"]["state"].items()
        for kind, tensor in of_parameter.items()
    }
    return {**state["network"], **moments}


def records(run: Path) -> list[dict[str, object]]:
    """Lines of metrics.jsonl without what depends on the clock."""
    clock = {"seconds", "windows_per_second"}
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("num_kills", "num_early_kills", "epochs"), [(3, 1, 8), (50, 15, 60)], ids=["3", "50"]
)
def test_kill_9_of_the_command_changes_nothing(
    process_pool: ProcessPool, tmp_path: Path, num_kills: int, num_early_kills: int, epochs: int
) -> None:
    """Processes of one run die, the early ones while they start; one more ends it."""
    store = make_store(tmp_path / "store", make_series(num_steps=200)).path
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    chance = random.Random(num_kills)

    def train(run: Path) -> contextlib.AbstractContextManager[ProcessJob]:
        command = ("train", store, "--run", run, "--resume", *OPTIONS, "--epochs", epochs)
        return process_pool.job([pgti_process(*command, log=run.with_suffix(".log"))])

    for life in range(num_kills):
        with train(killed) as job:
            if life < num_early_kills:
                time.sleep(chance.uniform(0, LONGEST_START_SECONDS))
            else:
                wait_until_it_writes(job, killed)
                time.sleep(chance.uniform(0, LONGEST_TRAINING_SECONDS))
            with contextlib.suppress(ProcessLookupError):  # it has come to its end: too few epochs
                os.kill(job.pids[0], signal.SIGKILL)
            assert job.end(0) == -signal.SIGKILL, job.log()
    died_at = torch.load(killed / "checkpoints" / "last.pt", weights_only=True)["position"]["step"]
    for run in (killed, unbroken):
        with train(run) as job:
            assert job.end(0) == 0, job.log()

    assert 0 < died_at < records(unbroken)[-1]["step"]
    for name in ("last.pt", "best.pt"):
        found, expected = tensors(killed, name), tensors(unbroken, name)
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            assert torch.equal(found[key], tensor), f"{name} {key}"
    assert records(killed) == records(unbroken)
    assert not list(tmp_path.rglob("*.partial"))
    for name in ("test.json", "config.toml"):
        assert (killed / name).read_bytes() == (unbroken / name).read_bytes()
