"""The command `pgti train`, killed again and again, ends as if it never had been."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from .small_runs import make_series, make_store

OPTIONS = (
    "--model.hidden", "2", "--model.layers", "1", "--windows.input-steps", "3",
    "--windows.horizon", "2", "--batch-size", "8", "--epochs", "8", "--seed", "5",
    "--checkpoint-every-steps", "2", "--log-every-steps", "3",
)  # fmt: skip
LONGEST_START_SECONDS = 1.5
LONGEST_TRAINING_SECONDS = 0.3


def start(store: Path, run: Path) -> subprocess.Popen[str]:
    """The command, on one thread."""
    command = [sys.executable, "-m", "pgti", "train", store, "--run", run, "--resume", *OPTIONS]
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
    )


def wait_until_it_writes(process: subprocess.Popen[str], run: Path) -> None:
    """Wait until the process has written to the run, or has ended."""
    before = state_of(run)
    deadline = time.monotonic() + 120
    while process.poll() is None and state_of(run) == before and time.monotonic() < deadline:
        time.sleep(0.005)


def state_of(run: Path) -> tuple[int, ...]:
    """When the run's files were last written."""
    times = []
    for name in ("config.toml", "run.json", "checkpoints/last.pt"):
        with contextlib.suppress(FileNotFoundError):
            times.append((run / name).stat().st_mtime_ns)
    return tuple(times)


def kill(process: subprocess.Popen[str]) -> int:
    """End the process as a power cut would; gives its exit code."""
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode


def tensors(run: Path, name: str) -> dict[str, torch.Tensor]:
    """Parameters of a checkpoint."""
    state = torch.load(run / "checkpoints" / name, weights_only=True)
    network: dict[str, torch.Tensor] = state["network"]
    return network


def records(run: Path) -> list[dict[str, object]]:
    """Lines of metrics.jsonl without what depends on the clock."""
    clock = {"seconds", "windows_per_second"}
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize(("num_kills", "num_early_kills"), [(3, 1), (10, 2)])
def test_kill_9_of_the_command_changes_nothing(
    tmp_path: Path, num_kills: int, num_early_kills: int
) -> None:
    """Processes of one run die, the early ones while they start; one more ends it."""
    store = make_store(tmp_path / "store", make_series(num_steps=200)).path
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    chance = random.Random(4)

    exit_codes = []
    for life in range(num_kills):
        process = start(store, killed)
        if life < num_early_kills:
            time.sleep(chance.uniform(0, LONGEST_START_SECONDS))
        else:
            wait_until_it_writes(process, killed)
            time.sleep(chance.uniform(0, LONGEST_TRAINING_SECONDS))
        exit_codes.append(kill(process))
    died_at = torch.load(killed / "checkpoints" / "last.pt", weights_only=True)["position"]["step"]
    for run in (killed, unbroken):
        process = start(store, run)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors

    assert exit_codes == [-signal.SIGKILL] * num_kills
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
