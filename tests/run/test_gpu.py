"""Runs on a GPU: training, resuming, a group of one rank, partitioned rows, evaluation.

Each test also runs on the CPU, so that what a GPU runs is known to work.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pgti
from pgti_bench.gpu_check.training import group_of_one, watch_waits

from .small_runs import make_series, make_store

CPU = torch.device("cpu")
on_devices = pytest.mark.parametrize(
    "device",
    [
        pytest.param(CPU, id="rehearsed"),
        pytest.param(
            torch.device("cuda", 0),
            id="cuda",
            marks=(
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ),
        ),
    ],
)
OPTIONS: dict[str, Any] = {
    "model": "dcrnn",
    "model_options": {"hidden": 2, "layers": 1, "scheduled_sampling": True},
    "windows": {"input_steps": 3, "horizon": 2},
    "epochs": 2,
    "batch_size": 16,
    "log_every_steps": 0,
    "progress": False,
}


def store_with_gaps(path: Path) -> pgti.SeriesStore:
    """Hourly readings, a tenth of them missing."""
    values = make_series()
    values[np.random.default_rng(1).random(values.shape) < 0.1] = np.nan
    return make_store(path, values)


def train(store: pgti.SeriesStore, run: Path, device: torch.device, **options: Any) -> pgti.Run:
    """A run of two epochs of 4 steps."""
    return pgti.train(store, run, **{"device": device.type, **OPTIONS, **options})


def parameters(run: pgti.Run) -> list[Tensor]:
    """Those of the last step, on the CPU."""
    return [each.cpu() for each in run.directory.load_last().network.values()]


def same(left: pgti.Run, right: pgti.Run) -> bool:
    """Bit for bit."""
    return all(map(torch.equal, parameters(left), parameters(right)))


def assert_close(found: pgti.Run, expected: pgti.Run) -> None:
    """As near as a few steps in float32 leave parameters that started from the same."""
    for one, other in zip(parameters(found), parameters(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@on_devices
@pytest.mark.parametrize("batching", ["index", "device"])
def test_training_repeats_and_resumes(tmp_path: Path, device: torch.device, batching: str) -> None:
    """With deterministic algorithms, to the bit; near to what the CPU gives."""
    store = store_with_gaps(tmp_path / "store")
    options = {"batching": batching, "deterministic": True}
    whole = train(store, tmp_path / "whole", device, **options)
    assert same(whole, train(store, tmp_path / "again", device, **options))
    train(store, tmp_path / "stopped", device, max_steps=3, **options)
    resumed = train(store, tmp_path / "stopped", device, resume=True, max_steps=8, **options)
    assert same(whole, resumed)
    assert_close(whole, train(store, tmp_path / "cpu", CPU, batching=batching))


@on_devices
@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_lower_precision_trains(tmp_path: Path, device: torch.device, precision: str) -> None:
    """To errors near those of float32."""
    if precision == "tf32" and device.type == "cpu":
        pytest.skip("a CPU has no TF32")
    store = store_with_gaps(tmp_path / "store")
    exact, rounded = (
        train(store, tmp_path / each, device, precision=each).evaluate().to_dict()["test"]["mae"]
        for each in ("float32", precision)
    )
    assert rounded["mean"] == pytest.approx(exact["mean"], rel=0.05)


@on_devices
def test_a_group_of_one_rank_trains_as_a_process(tmp_path: Path, device: torch.device) -> None:
    """Over NCCL on a GPU, where partitioned rows live there too."""
    store = store_with_gaps(tmp_path / "store")
    for placement in ("replicated", "partitioned"):
        options = {"deterministic": True, "placement": placement}
        alone = train(store, tmp_path / f"{placement}-alone", device, **options)
        with group_of_one(device) as communicator:
            run = train(store, tmp_path / placement, device, communicator=communicator, **options)
        assert same(run, alone)
        cpu = train(store, tmp_path / f"{placement}-cpu", CPU, **options)
        assert_close(run, cpu)


@on_devices
def test_evaluation_and_its_breakdowns_are_those_of_the_cpu(
    tmp_path: Path, device: torch.device
) -> None:
    """Of one run: errors of sensors, hours, weekdays and ranges, and those of the baselines."""
    store = store_with_gaps(tmp_path / "store")
    train(store, tmp_path / "run", CPU)
    there, here = (
        pgti.Run.open(tmp_path / "run", device=each).evaluate(ranges=(49.0, 51.0)).to_dict()
        for each in (device.type, "cpu")
    )
    assert set(there["test"]["by"]) == {"sensor", "hour", "weekday", "hour-of-week", "range"}
    assert_near(there["test"], here["test"])


def assert_near(found: Any, expected: Any) -> None:
    """Numbers to 1e-4, and everything else equal."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_near(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_near(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6, nan_ok=True)
    else:
        assert found == expected


@on_devices
def test_forecasts_are_those_of_the_cpu(tmp_path: Path, device: torch.device) -> None:
    """Written from a run that was trained elsewhere."""
    store = store_with_gaps(tmp_path / "store")
    train(store, tmp_path / "run", CPU)
    forecasts = []
    for name in (device.type, "cpu"):
        path = tmp_path / f"{len(forecasts)}.npz"
        pgti.Run.open(tmp_path / "run", device=name).predict(path)
        forecasts.append(np.load(path)["forecast"])
    np.testing.assert_allclose(*forecasts, rtol=1e-4)


@on_devices
def test_a_step_waits_for_nothing(tmp_path: Path, device: torch.device) -> None:
    """As CUDA's debug mode sees it; the first steps prepare."""
    store = store_with_gaps(tmp_path / "store")

    class Watching(pgti.Callback):
        """Watches from one step's end to the next one's."""

        def __init__(self) -> None:
            self.waits: list[str] = []

        def on_step(self, status: Any) -> None:
            if status.step == 2:
                self.watching = watch_waits(device)
                self.found = self.watching.__enter__()
            elif status.step == 4:
                self.watching.__exit__(None, None, None)
                self.waits.extend(self.found)

    watching = Watching()
    train(store, tmp_path / "run", device, max_steps=4, callbacks=[watching], batching="device")
    assert not watching.waits
