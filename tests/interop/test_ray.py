"""Ray Train starts the ranks, and the run is that of one process."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

import pgti
from pgti.interop.ray import train_on_ray

from ..distributed.rank_jobs import make_store
from ..distributed.test_hosts import one_thread
from .ray_job import OPTIONS, windows

RAY_JOB = Path(__file__).with_name("ray_job.py")

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="ray is not installed: pip install 'pgti[ray]'",
)


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_workers_of_ray_train_as_one_process(tmp_path: Path) -> None:
    """Also where one of them dies: Ray starts both anew, and they go on from the checkpoint."""
    store = make_store(tmp_path / "store").path
    with one_thread():
        alone = pgti.train(store, tmp_path / "alone", device="cpu", windows=windows(), **OPTIONS)
    paths = [tmp_path / "ray", store, tmp_path / "run", tmp_path / "failing"]
    paths[0].mkdir()
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, f"{RAY_JOB}", *map(str, paths)],
        env=environment, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    mae = float((paths[0] / "mae").read_text())
    assert mae == pytest.approx(alone.evaluate().mae, rel=1e-6)
    expected = alone.forecaster.network.state_dict()
    for run in paths[2:]:
        best = torch.load(run / "checkpoints/best.pt", weights_only=True)["network"]
        assert best.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(best[name], tensor, rtol=1e-6, atol=1e-6, msg=name)
        assert json.loads((run / "run.json").read_text())["world_size"] == 2


class FakeRay:
    """Ray, as far as `train_on_ray` uses it, with one worker in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, in_trial: bool = False) -> None:
        self.reports: list[dict[str, Any]] = []
        self.given: dict[str, Any] = {}
        modules: dict[str, dict[str, Any]] = {
            "ray": {},
            "ray.train": {
                "FailureConfig": dict,
                "RunConfig": dict,
                "ScalingConfig": dict,
                "TrainingFailedError": RuntimeError,
                "report": self.reports.append,
            },
            "ray.train.torch": {"TorchConfig": dict, "TorchTrainer": self.trainer},
            "ray.tune": {},
            "ray.tune.integration": {},
            "ray.tune.integration.ray_train": {
                "TuneReportCallback": (lambda: "to Tune") if in_trial else self.refuse
            },
        }
        for name, content in modules.items():
            module = ModuleType(name)
            vars(module).update(content)
            monkeypatch.setitem(sys.modules, name, module)
            if "." in name:
                parent, _, last = name.rpartition(".")
                setattr(sys.modules[parent], last, module)

    def trainer(self, worker: Any, *, train_loop_config: Any, **given: Any) -> Any:
        """A trainer whose one worker is this process."""
        self.given = given
        return SimpleNamespace(fit=lambda: worker(train_loop_config))

    @staticmethod
    def refuse() -> None:
        """As Ray does outside of a trial."""
        raise RuntimeError("TuneReportCallback must be used in a Tune session.")


@pytest.mark.parametrize("in_trial", [False, True])
def test_ray_receives_every_validation_and_passes_it_on_to_tune(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_trial: bool
) -> None:
    ray = FakeRay(monkeypatch, in_trial=in_trial)
    seen: list[float | None] = []

    class Mine(pgti.Callback):
        def on_validation(self, status: object, errors: Mapping[str, float | None]) -> None:
            del status
            seen.append(errors["mae"])

    store, run = make_store(tmp_path / "store").path, tmp_path / "run"
    shared: dict[str, Any] = {"windows": windows(), "callbacks": [Mine()], **OPTIONS}
    trained = train_on_ray(store, run, num_workers=(2, 8), max_failures=-1, **shared)
    assert ray.given["scaling_config"]["num_workers"] == (2, 8)
    assert ray.given["run_config"]["failure_config"] == {"max_failures": -1}
    assert ray.given["run_config"]["callbacks"] == (["to Tune"] if in_trial else [])
    assert [report["epoch"] for report in ray.reports] == [1, 2]
    assert [report["mae"] for report in ray.reports] == seen == list(trained.history["val_mae"])
    last = ray.reports[-1]
    assert {"rmse", "mape"} < last.keys()
    assert last["best_mae"] == min(report["mae"] for report in ray.reports)
    assert last["step"] == trained.history["step"].iloc[-1]
    assert last["checkpoint"] == f"{run}/checkpoints/best.pt"
    assert Path(last["checkpoint"]).is_file()


@pytest.mark.parametrize("num_workers", [0, 2.0, True, (4, 2), (0, 2), (1, 2, 3), "2"])
def test_numbers_of_workers_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: Any
) -> None:
    FakeRay(monkeypatch)
    with pytest.raises(pgti.ConfigError, match=r"num_workers is .*: it must be a whole number"):
        train_on_ray(tmp_path / "store", tmp_path / "run", num_workers=num_workers)


@needs_ray
def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "config.toml").touch()
    with pytest.raises(pgti.RunError, match="holds a run already: give resume=True"):
        train_on_ray(tmp_path / "store", tmp_path, num_workers=2)


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.train", None)
    with pytest.raises(pgti.MissingExtraError, match=r"pip install 'pgti\[ray\]'"):
        train_on_ray(tmp_path / "store", tmp_path / "run", num_workers=2)
