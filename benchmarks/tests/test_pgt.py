"""The process that runs PGT: with a stand-in of PGT's interface, and with PGT where it is there."""

import importlib.metadata
import importlib.util
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pgti_bench import pgt_environment
from pgti_bench.pgt_environment import PGT_VARIANTS, pgt_command
from pgti_bench.step import workers as step_workers
from pgti_bench.step.measure import measure_step
from pgti_bench.step.network import (
    INPUT_CHANNELS,
    LAYER,
    TARGET_CHANNELS,
    RandomBatchStep,
    StepSpec,
)
from pgti_bench.step.options import StepOptions, nearest_graph
from pgti_bench.worker import Worker

from .in_process_workers import in_process_or_real

SCRIPT = Path(pgt_environment.__file__).with_name("pgt_worker.py")
PYTHON = Path(__file__).parents[2] / pgt_environment.DEFAULT_PGT
needs_pgt = pytest.mark.skipif(
    not PYTHON.exists(), reason=f"{pgt_environment.DEFAULT_PGT} is not there: make bench-pgt"
)


class Layer(nn.Module):
    """Called as PGT's `BatchedDCRNN` is; it mixes each node with those that have an edge to it."""

    def __init__(self, in_channels: int, out_channels: int, K: int) -> None:
        super().__init__()
        self.linear, self.K = nn.Linear(in_channels, out_channels), K

    def forward(self, X: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
        """[B, T, N, F] -> [B, T, N, H]."""
        sources, targets = edge_index
        mixed = torch.zeros_like(X)
        mixed.index_add_(2, targets, X[:, :, sources] * edge_weight[:, None])
        out: Tensor = self.linear(X + mixed)
        return out


class Loader:
    """Called as PGT's METR-LA loader in index mode is."""

    def __init__(self, raw_data_dir: str, index: bool) -> None:
        assert index
        self.values = torch.from_numpy(np.load(Path(raw_data_dir) / "node_values.npy"))

    def get_index_dataset(self, lags: int, batch_size: int, shuffle: bool) -> tuple[Any, ...]:
        """Seven things, the first of them the training windows."""
        assert shuffle
        windows = self.values.unfold(0, 2 * lags, 1).permute(0, 3, 1, 2)
        dataset = TensorDataset(windows[:, :lags], windows[:, lags:])
        return (DataLoader(dataset, batch_size=batch_size, shuffle=True), *range(6))


@pytest.fixture(name="handlers")
def _handlers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The worker's handlers, in this process, on the stand-ins."""
    package = types.ModuleType("torch_geometric_temporal")
    recurrent = types.ModuleType("torch_geometric_temporal.nn.recurrent")
    recurrent.BatchedDCRNN = Layer  # type: ignore[attr-defined]
    dataset = types.ModuleType("torch_geometric_temporal.dataset")
    dataset.METRLADatasetLoader = Loader  # type: ignore[attr-defined]
    layers = types.ModuleType("torch_geometric_temporal.nn")
    for module in (package, layers, recurrent, dataset):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "torch_sparse", raising=False)
    spec = importlib.util.spec_from_file_location("pgt_worker", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    monkeypatch.setattr(worker, "version", lambda library: f"of {library}")
    yield worker.Handlers(lambda: 123)
    sys.modules.pop("torch_sparse", None)


def step_request(tmp_path: Path, **changed: Any) -> dict[str, Any]:
    graph = tmp_path / "graph.npz"
    nearest_graph(12, degree=3).save(graph)
    return {
        "graph": str(graph),
        "hidden": 5,
        "hops": 2,
        "steps": 3,
        "batch_size": 4,
        "channels": [2, 1],
        "device": "cpu",
        "retain_freed": False,
        **changed,
    }


def test_a_step_of_the_peer_learns(handlers: Any, tmp_path: Path) -> None:
    """The graph, the sizes and the hops are those asked for, the identity counted as a hop."""
    prepared = handlers.prepare_step(**step_request(tmp_path))
    assert prepared["parameters"] == (2 * 5 + 5) + (5 + 1)
    assert not prepared["retains"]
    assert prepared["versions"]["torch"] == "of torch"
    assert handlers._model.layer.K == 3
    assert handlers._x.shape == (4, 3, 12, 2)
    graph = nearest_graph(12, degree=3)
    assert np.array_equal(handlers._edge_index.numpy(), graph.edge_index)
    assert np.array_equal(handlers._edge_weight.numpy(), graph.edge_weight)
    before = [parameter.clone() for parameter in handlers._model.parameters()]
    assert handlers.step()["seconds"] > 0
    after = list(handlers._model.parameters())
    assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert handlers.peak() == {"bytes": 123}


def test_batches_of_the_peer_are_counted(handlers: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "node_values.npy", np.zeros((40, 5, 2), dtype=np.float32))
    prepared = handlers.prepare_loader(
        directory=str(tmp_path), steps=3, batch_size=8, retain_freed=False
    )
    assert prepared["batches"] == 5  # 35 windows
    of_all = handlers.batches(count=99)
    assert (of_all["windows"], of_all["bytes"]) == (35, 35 * 2 * 3 * 5 * 2 * 4)
    assert handlers.batches(count=2)["windows"] == 16


def test_the_script_needs_nothing_of_this_package() -> None:
    """Its interpreter has torch and numpy, but not pgti or its other dependencies."""
    listing = "import runpy, sys; runpy.run_path(sys.argv[1]); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", listing, str(SCRIPT)],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "torch" in loaded
    assert not {"pgti", "scipy", "pandas"} & loaded


@needs_pgt
def test_pgt_itself_takes_steps(tmp_path: Path) -> None:
    """The real one: same layer but for a second matrix of each gate for the identity."""
    for name, retain_freed in PGT_VARIANTS.items():
        with Worker(pgt_command(PYTHON), {"OMP_NUM_THREADS": "1"}, name) as worker:
            request = step_request(tmp_path, retain_freed=retain_freed)
            prepared = worker.ask(do="prepare_step", **request)
            assert worker.ask(do="step")["seconds"] > 0
            assert prepared["versions"]["torch_geometric_temporal"] == "0.56.2"
    spec = StepSpec(
        model=LAYER,
        options={"hidden": 5, "hops": 2},
        steps=3,
        batch_size=4,
        precision="float32",
        activation_checkpointing=False,
    )
    ours = RandomBatchStep(nearest_graph(12, degree=3), spec, torch.device("cpu")).num_parameters
    assert TARGET_CHANNELS == 1
    assert prepared["parameters"] - ours == 3 * (INPUT_CHANNELS + 5) * 5


def test_a_peer_that_cannot_run_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is measured all the same."""
    monkeypatch.setattr(step_workers, "Worker", in_process_or_real)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no PGT here' >&2\nexit 3\n", encoding="utf-8")
    python.chmod(0o755)
    options = StepOptions(model_options={"hidden": 2}, nodes=9, steps=2, batch_size=1, rounds=1)
    result = measure_step(options, pgt=python)
    assert len(result.own) == 1
    assert result.peers == ()
    assert result.left_out == tuple(
        f"{name} ended with exit code 3: no PGT here" for name in PGT_VARIANTS
    )
