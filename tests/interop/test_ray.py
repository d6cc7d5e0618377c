"""Ray Train starts the ranks, and the run is that of one process."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

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


@needs_ray
def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "config.toml").touch()
    with pytest.raises(pgti.RunError, match="holds a run already: give resume=True"):
        train_on_ray(tmp_path / "store", tmp_path, num_workers=2)


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.train", None)
    with pytest.raises(pgti.MissingExtraError, match=r"pip install 'pgti\[ray\]'"):
        train_on_ray(tmp_path / "store", tmp_path / "run", num_workers=2)
