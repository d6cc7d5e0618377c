"""`measure_step` and `pgti-bench step`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pgti.errors import ConfigError
from pgti.models import ModelShape
from pgti.nn import Supports
from pgti.run.results import to_json
from pgti_bench.app import run_command
from pgti_bench.errors import BenchError
from pgti_bench.pgt_environment import find_pgt
from pgti_bench.step import network as step_network
from pgti_bench.step import workers as step_workers
from pgti_bench.step.measure import measure_step
from pgti_bench.step.network import (
    INPUT_CHANNELS,
    LAYER,
    RandomBatchStep,
    RecurrentLayer,
    StepSpec,
    build_network,
    resolve_options,
)
from pgti_bench.step.options import StepOptions, nearest_graph

from .in_process_workers import InProcessWorker

TINY = StepOptions(model_options={"hidden": 4}, nodes=30, degree=3, steps=3, batch_size=2, rounds=2)


@pytest.fixture
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our processes are this one."""
    monkeypatch.setattr(step_workers, "Worker", InProcessWorker)
    InProcessWorker.started.clear()
    InProcessWorker.ended.clear()


def run(*tokens: object) -> int:
    return run_command([str(token) for token in tokens])


def test_a_step_is_measured_in_processes_of_its_own() -> None:
    """For real: two processes, one that takes steps and one that runs the products alone."""
    lines: list[str] = []
    options = StepOptions(
        model_options={"hidden": 4}, nodes=30, steps=3, batch_size=2, threads=1, rounds=2
    )
    result = measure_step(options, log=lines.append)
    (own,) = result.own
    assert (result.nodes, result.edges) == (30, 240)
    assert result.machine.threads == 1
    assert own.seconds.runs == own.products.dense_seconds.runs == own.over_products.runs == 2
    assert own.over_products.minimum > 0
    assert own.peak_bytes is None or own.peak_bytes > 50 << 20
    assert own.products.count.dense > 0
    assert result.peers == ()
    assert "make bench-pgt" in result.left_out[0]
    assert lines[-1] == "round 2 of 2 is done"


@pytest.mark.usefixtures("_in_process")
def test_both_precisions_are_measured_on_the_same_graph() -> None:
    graph = nearest_graph(30, degree=3)
    options = StepOptions(
        model="dcrnn",
        model_options={"hidden": 20},
        steps=2,
        batch_size=2,
        precision="both",
        rounds=1,
        threads=3,
    )
    result = measure_step(options, graph)
    assert [own.precision for own in result.own] == ["float32", "bfloat16"]
    assert result.edges == graph.num_edges
    first, second = result.own
    assert first.over_first is None
    assert second.over_first is not None
    assert first.products.count.dense_flop == second.products.count.dense_flop
    assert result.options.model_options["layers"] == 2  # the model's default, spelled out
    assert "no counterpart of the model 'dcrnn'" in result.left_out[0]
    env = {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"}
    assert [each[1] for each in InProcessWorker.started] == [env] * 4


@pytest.mark.usefixtures("_in_process", "_both_forms")
def test_a_compiled_step_is_measured_beside_the_uncompiled_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own, whose first step, which compiles, does not count."""
    compiled: list[object] = []
    monkeypatch.setattr(step_network, "compile_network", compiled.append)
    sizes = ("--nodes", 30, "--degree", 3, "--steps", 3, "--batch-size", 2, "--rounds", 2)
    assert run("step", "--model.hidden", 4, *sizes, "--compile", "--json") == 0
    assert len(compiled) == 1
    captured = capsys.readouterr()
    (own,) = json.loads(captured.out.strip().splitlines()[-1])["own"]
    assert own["compiled"]["seconds"]["runs"] == own["compiled"]["over_eager"]["runs"] == 2
    assert own["compiled"]["first_seconds"] > 0
    assert "  compiled" in captured.out
    assert "times the uncompiled step" in captured.err


@pytest.mark.usefixtures("_in_process")
def test_the_result_is_json() -> None:
    content = json.loads(json.dumps(to_json(measure_step(TINY)), allow_nan=False))
    assert content["own"][0]["seconds"]["runs"] == 2
    assert content["options"]["model_options"] == {"hidden": 4, "hops": 2}


def test_a_step_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_workers.sys, "executable", "/nowhere/python")
    with pytest.raises(BenchError, match="cannot start pgti float32"):
        measure_step(TINY)


class Peer(InProcessWorker):
    """pgti's workers run in this process; PGT's takes steps of half a second, or fails."""

    fails_at = 0

    def __init__(self, command: Sequence[str], env: Any = None, name: str = "worker") -> None:
        self._is_pgt = name.startswith("PGT")
        self._taken = 0
        super().__init__(["pgti_bench.step.worker"] if self._is_pgt else command, env, name)

    def ask(self, **request: Any) -> dict[str, Any]:
        """As PGT's process answers."""
        if not self._is_pgt:
            return super().ask(**request)
        if request["do"] == "prepare_step":
            return {"parameters": 7, "retains": request["retain_freed"], "versions": {}}
        if request["do"] == "step":
            self._taken += 1
            if self.name == "PGT" and self._taken == self.fails_at:
                raise BenchError("PGT was killed")
        return {"seconds": 0.5, "bytes": 1}


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_peer_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch, fails_at: int) -> None:
    """At its first step, as it starts, its process ends at once; in a round it is dropped."""
    monkeypatch.setattr(Peer, "fails_at", fails_at)
    monkeypatch.setattr(step_workers, "Worker", Peer)
    InProcessWorker.ended.clear()
    result = measure_step(TINY, pgt=Path("python"))
    assert [peer.name for peer in result.peers] == ["PGT, freed memory retained"]
    assert result.peers[0].seconds.runs == TINY.rounds
    assert result.left_out == ("PGT was killed",)
    assert (InProcessWorker.ended[0] == ("PGT", True)) == (fails_at == 1)
    assert len(InProcessWorker.ended) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": 0}, "nodes is 0"),
        ({"degree": 0}, "degree is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"steps": -1}, "steps is -1"),
        ({"rounds": 0}, "rounds is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"model": "dcrn"}, "did you mean 'dcrnn'"),
        ({"model_options": {"width": 3}}, "no option 'width': it has hidden and hops"),
        ({"model_options": {"hidden": "big"}}, "hidden is 'big'"),
        ({"model_options": {"hops": 0}}, "hops is 0"),
        ({"model": "dcrnn", "model_options": {"hops": 0}}, "hops is 0"),
        (
            {"activation_checkpointing": True},
            "activation_checkpointing is on and the model 'layer'",
        ),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StepOptions(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no usable GPU"):
        StepOptions(device="cuda")


# -- the step itself ---------------------------------------------------------------------------


def layer_shape(steps: int = 4) -> ModelShape:
    return ModelShape(
        input_steps=steps,
        horizon=steps,
        num_nodes=30,
        input_channels=INPUT_CHANNELS,
        target_channels=1,
        target_indices=(0,),
        calendar=("time-of-day",),
    )


def test_a_forecast_of_the_layer_has_seen_the_inputs_so_far() -> None:
    """As PGT's: the state after input t makes forecast t."""
    torch.manual_seed(0)
    network = build_network(LAYER, {"hidden": 6}, layer_shape())
    supports = Supports.from_graph(nearest_graph(30, degree=3))
    x = torch.randn(2, 4, 30, INPUT_CHANNELS)
    changed = x.clone()
    changed[:, 2] += 1
    before, after = network(x, supports), network(changed, supports)
    assert before.shape == (2, 4, 30, 1)
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.isclose(before[:, 2], after[:, 2]).any()
    assert (before[:, 3] != after[:, 3]).any()


def test_the_layer_has_a_weight_for_each_power_of_both_walks() -> None:
    """3 gates x (1 + 2 K) terms x (C + D) x D, biases, and the map to the target."""
    network = build_network(LAYER, {"hidden": 6, "hops": 3}, layer_shape())
    assert isinstance(network, RecurrentLayer)
    numbers = sum(parameter.numel() for parameter in network.parameters())
    assert numbers == 3 * 7 * (INPUT_CHANNELS + 6) * 6 + 3 * 6 + 6 + 1
    assert resolve_options(LAYER, {"hops": 3}) == {"hidden": 64, "hops": 3}


@pytest.mark.parametrize(
    ("model", "options"),
    [("layer", {"hidden": 4}), ("dcrnn", {"hidden": 4}), ("stid", {"layers": 1})],
)
def test_steps_learn(model: str, options: dict[str, Any]) -> None:
    """The same batch again and again: the loss falls."""
    spec = StepSpec(
        model=model,
        options=options,
        steps=3,
        batch_size=4,
        precision="float32",
        activation_checkpointing=False,
    )
    step = RandomBatchStep(nearest_graph(30, degree=3), spec, torch.device("cpu"))
    losses = []
    for _ in range(30):
        forecast = step.forecaster(step.batch, step=0)
        losses.append(float((forecast.detach() - step.batch.y).abs().mean()))
        assert step.seconds() > 0
    assert losses[-1] < losses[0]
    assert step.num_parameters == sum(each.numel() for each in step.forecaster.network.parameters())


# -- the command line --------------------------------------------------------------------------


@pytest.mark.usefixtures("_in_process")
@pytest.mark.usefixtures("_both_forms")
def test_bench_step_prints_a_table_and_json(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # no .venv-pgt here
    np.savez(tmp_path / "graph.npz", source=[0, 1, 2], target=[1, 2, 0], weight=[1.0, 2.0, 3.0])
    graph = ("--graph", "graph.npz", "--edges", "source,target,weight")
    sizes = ("--model.hidden", 4, "--steps", 3, "--batch-size", 2, "--rounds", 1)
    plot = tmp_path / "plot.html"
    assert run("step", *graph, *sizes, "--precision", "both", "--plot", plot, "--json") == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out.strip().splitlines()[-1])
    assert (result["nodes"], result["edges"]) == (3, 3)
    assert [own["precision"] for own in result["own"]] == ["float32", "bfloat16"]
    assert "A training step: layer (hidden 4, hops 2), 3 nodes, 3 edges" in captured.out
    assert "its dense products alone" in captured.out
    assert "of the limit" in captured.err
    assert "left out: PGT: .venv-pgt/bin/python does not exist" in captured.err
    assert "Time of a step" in plot.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        ("without --graph", ("--edges", "a,b")),
        ("pass one or the other", ("--graph", "g.npz", "--nodes", "5")),
        ("does not exist", ("--graph", "g.npz")),
        ("hidden is 0", ("--model.hidden", "0")),
        ("Invalid value", ("--precision", "float16")),
        ("pgt is nowhere/python, which is not a file", ("--pgt", "nowhere/python")),
        ("rounds is 0", ("--rounds", "0")),
    ],
)
def test_bench_step_refuses(
    message: str,
    tokens: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("step", *tokens, "--plot", tmp_path / "plot.html", "--json") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.strip().splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_the_peer_is_looked_for_where_the_make_target_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_pgt(None) is None
    python = tmp_path / ".venv-pgt" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert find_pgt(None) == Path(".venv-pgt/bin/python")
    assert find_pgt(python) == python
    with pytest.raises(ConfigError, match="make bench-pgt"):
        find_pgt(tmp_path / "other")
