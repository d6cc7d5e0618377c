"""Networks of the user's own, from training to a run that finds them again."""

import importlib
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pgti
from pgti import Run, SeriesStore
from pgti.errors import ConfigError, RunError
from pgti.graph import SensorGraph
from pgti.models import ModelShape
from pgti.nn import Supports
from pgti.run import ModelConfig, RunConfig, train_run
from pgti.run.build import build_forecaster, window_source
from pgti.store import StoreWriter
from pgti.training.checkpoint import Checkpoint

from .small_runs import WINDOWS, Linear, make_series, make_store

MODULE = '''
from torch import nn


class Net(nn.Module):
    def __init__(self, shape, hidden: int = 4):
        super().__init__()
        self.shape = shape
        self.inputs = nn.Linear(shape.input_channels, hidden)
        self.calendar = nn.Linear(len(shape.calendar), hidden)
        self.output = nn.Linear(shape.input_steps, shape.horizon)
        self.head = nn.Linear(hidden, shape.target_channels)

    def forward(self, x, x_mask, calendar):
        """From the observed inputs and the calendar of the horizon."""
        hidden = self.inputs(x) * x_mask[..., :1]
        steps = self.output(hidden.transpose(1, 3)).transpose(1, 3)
        future = calendar[:, self.shape.input_steps :]
        return self.head((steps + self.calendar(future)[:, :, None]).relu())


def build(shape, **options):
    return Net(shape)
'''


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> SeriesStore:
    return make_store(tmp_path / "store", make_series())


@pytest.fixture(name="module")
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module with a network, which Python finds."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/our_models.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.delitem(sys.modules, "our_models", raising=False)
    return importlib.import_module("our_models")


def fit(store: SeriesStore, run: Path, model: Any = "our_models:Net", **options: Any) -> Run:
    options = {"epochs": 2, "batch_size": 16, "windows": WINDOWS, "device": "cpu", **options}
    options["progress"] = False
    return pgti.train(store, run, model=model, **options)


def model_of(run: Path) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((run / "config.toml").read_text())["model"]
    return table


def test_a_run_finds_its_network_again(store: SeriesStore, tmp_path: Path, module: Any) -> None:
    """By name and as a class it is the same run, which remembers every option."""
    by_name = fit(store, tmp_path / "name", model_options={"hidden": 3})
    by_class = fit(store, tmp_path / "class", module.Net, model_options={"hidden": 3})
    for run in (by_name, by_class):
        path = run.directory.path
        assert model_of(path) == {"name": "our_models:Net", "hidden": 3}
        opened = Run.open(path)
        assert type(opened.forecaster.network) is module.Net
        assert opened.evaluate().to_dict() == by_name.evaluate().to_dict()
    states = [run.forecaster.network.state_dict() for run in (by_name, by_class)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_run_is_opened_with_the_network_that_is_given(
    store: SeriesStore, tmp_path: Path, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its module is not imported then: it may have moved."""
    run = fit(store, tmp_path / "run", model_options={"hidden": 3})
    expected = run.evaluate().to_dict()
    (tmp_path / "code/our_models.py").rename(tmp_path / "code/our_networks.py")
    monkeypatch.delitem(sys.modules, "our_models")
    with pytest.raises(ConfigError, match="Python finds no module our_models"):
        Run.open(tmp_path / "run")

    def rebuild(shape: pgti.ModelShape, hidden: int) -> torch.nn.Module:
        network: torch.nn.Module = module.Net(shape, hidden)
        return network

    for model in (module.Net, "our_networks:Net", rebuild):
        opened = Run.open(tmp_path / "run", model=model)
        assert opened.evaluate().to_dict() == expected
    assert opened.config.model == ModelConfig(name="custom", options={"hidden": 3})
    with pytest.raises(RunError, match="the checkpoint does not fit the model"):
        Run.open(tmp_path / "run", model=lambda shape, hidden: Linear(shape))  # noqa: ARG005
    with pytest.raises(ConfigError, match="trained with the model our_models:Net: leave model out"):
        Run.open(tmp_path / "run", model="stid")


def test_a_local_function_has_to_be_given(store: SeriesStore, tmp_path: Path) -> None:
    def build(shape: pgti.ModelShape, dropout: float = 0.1) -> torch.nn.Module:
        network = Linear(shape)
        network.dropout.p = dropout
        return network

    run = fit(store, tmp_path / "run", build, model_options={"dropout": 0.3})
    assert model_of(tmp_path / "run") == {"name": "custom", "dropout": 0.3}
    with pytest.raises(ConfigError, match=r"no module defines: give its class or function as mod"):
        Run.open(tmp_path / "run")
    opened = Run.open(tmp_path / "run", model=build)
    assert opened.evaluate().to_dict() == run.evaluate().to_dict()
    assert opened.forecaster.network.dropout.p == 0.3


def test_resuming_may_name_the_network_anew(
    store: SeriesStore, tmp_path: Path, module: Any
) -> None:
    """Its options stay, and the parameters must fit."""

    def build(shape: pgti.ModelShape, hidden: int) -> Any:
        return module.Net(shape, hidden)

    options = {"hidden": 3}
    fit(store, tmp_path / "run", build, model_options=options, max_steps=2)
    with pytest.raises(ConfigError, match="'custom' stands for a network that no module defines"):
        pgti.train(store, tmp_path / "run", resume=True)
    pgti.train(store, tmp_path / "run", model=module.Net, resume=True, max_steps=5, progress=False)
    assert model_of(tmp_path / "run") == {"name": "our_models:Net", "hidden": 3}
    whole = fit(store, tmp_path / "whole", module.Net, model_options=options, max_steps=5)
    pairs = zip(
        whole.forecaster.network.parameters(),
        Run.open(tmp_path / "run").forecaster.network.parameters(),
        strict=True,
    )
    assert all(torch.equal(*pair) for pair in pairs)
    with pytest.raises(RunError, match=r"started with model.hidden = 3 and cannot be .* with 5"):
        pgti.train(store, tmp_path / "run", resume=True, model_options={"hidden": 5})
    with pytest.raises(ConfigError, match="trained with the model our_models:Net: leave model out"):
        pgti.train(store, tmp_path / "run", resume=True, model="gru")


def test_a_training_that_cannot_work_leaves_nothing(
    store: SeriesStore, tmp_path: Path, module: Any
) -> None:
    for model, options, words in (
        (module.Net, {"hiden": 3}, "hiden is not an option of our_models:Net; did you mean 'hid"),
        (module.Net, {"hidden": "a"}, "model.hidden is 'a': it must be a whole number"),
        (module.build, {"any": 1}, "model.any is not an option of our_models:build, which has no"),
        ("our_models:Nett", {}, "did you mean 'Net'"),
        (lambda shape: module.Net(shape, 4, 5), {}, "<lambda> cannot be built: TypeError"),
    ):
        with pytest.raises(ConfigError, match=words):
            fit(store, tmp_path / "run", model, model_options=options)
    assert not (tmp_path / "run").exists()


class InPlace(Linear):
    """Overwrites what the backward pass needs."""

    def forward(self, x: torch.Tensor, supports: pgti.Supports) -> torch.Tensor:
        """[B, H, N, C_out]."""
        out = super().forward(x, supports).exp()
        if self.training:
            out += 1
        return out


def test_a_backward_pass_that_fails_is_explained(store: SeriesStore, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a trial step of training failed: RuntimeError: one of"):
        fit(store, tmp_path / "run", InPlace)
    assert not (tmp_path / "run").exists()


class OwnGraph(torch.nn.Module):
    """Asks for one kind of operator."""

    support_kind = "random_walk"

    def __init__(self, shape: pgti.ModelShape) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor, supports: pgti.Supports) -> torch.Tensor:
        """The input."""
        return x


class NoGraph(torch.nn.Module):
    """Asks for none."""

    def __init__(self, shape: pgti.ModelShape) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        """The input."""
        return x


def test_only_the_operators_that_a_network_asks_for_are_built(store: SeriesStore) -> None:
    config = RunConfig(store=store.path, windows=WINDOWS, model=ModelConfig(name="custom"))
    source = window_source(config, store)
    found = [
        build_forecaster(config, source, each).supports for each in (OwnGraph, NoGraph, Linear)
    ]
    assert [each.kind for each in found] == ["random_walk", "none", "dual_random_walk"]
    assert found[1].edge_index.shape == (2, store.meta.num_edges)


def test_a_store_without_edges_suits_a_network_without_a_graph(tmp_path: Path, module: Any) -> None:
    graph = SensorGraph.from_edges(3, np.array([], dtype=int), np.array([], dtype=int))
    with StoreWriter(tmp_path / "s", node_ids=("a", "b", "c"), channels=("v",), graph=graph) as out:
        out.append(make_series())
        out.finish(start=np.datetime64("2025-10-01T00:00"), interval_seconds=3600)
    run = fit(SeriesStore.open(tmp_path / "s"), tmp_path / "run", module.Net)
    assert run.evaluate()


def test_masks_and_calendar_reach_training(tmp_path: Path, module: Any) -> None:
    """The calendar of the horizon is that of its rows; a masked input changes no forecast."""
    values = make_series()
    values[::7] = np.nan
    run = fit(make_store(tmp_path / "store", values), tmp_path / "run", module.Net)
    batch = next(iter(run._loader(run.splits.test, run.source).epoch(0)))
    assert not batch.x_mask.all()
    forecast = run.forecaster(batch).clone()
    batch.x[..., :1][~batch.x_mask] = 1e6
    torch.testing.assert_close(run.forecaster(batch), forecast)
    batch.calendar[:, WINDOWS.input_steps :] += 0.25
    assert not torch.allclose(run.forecaster(batch), forecast)
    assert len(Checkpoint.load(run.directory.best_checkpoint).network) == 8


def test_a_compiled_training_is_the_same(
    store: SeriesStore, tmp_path: Path, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`torch.compile` gets the same arguments; without generated code, for speed."""
    compiled = []

    def compile_eagerly(network: Any, **_: object) -> None:
        compiled.append(network)
        network._compiled_call_impl = torch.compile(network._call_impl, backend="eager")

    monkeypatch.setattr(module.Net, "compile", compile_eagerly)
    one = fit(store, tmp_path / "one", module.Net, compile=True)
    assert len(compiled) == 1
    two = fit(store, tmp_path / "two", module.Net)
    assert one.evaluate().to_dict() == two.evaluate().to_dict()


def test_the_run_says_that_it_will_need_its_network(store: SeriesStore, tmp_path: Path) -> None:
    config = RunConfig(store=store.path, windows=WINDOWS, model=ModelConfig(name="custom"))
    lines: list[str] = []
    train_run(config, tmp_path / "run", model=Linear, log=lines.append)
    assert sum(bool(re.search("opening the run will need model", line)) for line in lines) == 1


class Columns(Linear):
    """With a parameter and a buffer that are every other column of something."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__(shape)
        self.factor = torch.nn.Parameter(torch.ones(2, 4)[:, ::2])
        self.register_buffer("walk", torch.eye(3).to_sparse())

    def forward(self, x: Tensor, supports: Supports) -> Tensor:
        """As without them."""
        return super().forward(x, supports) * self.factor.mean()


def test_any_layout_of_memory_will_do(store: SeriesStore, tmp_path: Path) -> None:
    """Of parameters that checkpoints compare between ranks, and of buffers that they copy."""
    run = fit(store, tmp_path / "run", Columns)
    opened = Run.open(tmp_path / "run", model=Columns)
    for name, tensor in run.forecaster.network.state_dict().items():
        found = opened.forecaster.network.state_dict()[name]
        assert torch.equal(found.to_dense(), tensor.to_dense()), name
