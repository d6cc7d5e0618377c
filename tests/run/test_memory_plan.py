"""What a run needs in memory, and what is done so that it fits."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pgti.distributed import SingleProcess
from pgti.errors import ConfigError
from pgti.graph import SensorGraph
from pgti.memory import LiveBytes
from pgti.models import ModelShape
from pgti.nn import Supports
from pgti.nn.limits import DenseLimits
from pgti.run import ModelConfig, RunConfig, memory_estimate, memory_plan, train_run
from pgti.run.loaders import RunLoaders
from pgti.run.memory_plan import MemoryPlan
from pgti.run.prepare import PreparedRun, prepare
from pgti.store import SeriesStore, StoreWriter
from pgti.training import RunDirectory, Trainer

from .small_runs import Linear, make_config, make_series, make_store

MIB = 1 << 20


@pytest.fixture(autouse=True)
def nothing_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Budgets in these tests are what the run itself may take."""
    monkeypatch.setattr(memory_plan, "pss_bytes", lambda: 0)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A network whose activations outweigh everything else."""
    made = make_config(make_store(tmp_path / "store", make_series()), max_steps=2)
    return replace(made, model=ModelConfig(options={"hidden": 64, "layers": 1}))


def planned(config: RunConfig, budget: int | None = None, **training: Any) -> MemoryPlan:
    config = replace(config, memory_budget=budget, training=replace(config.training, **training))
    directory = RunDirectory(Path("never/written"))
    prepared = prepare(
        config, directory, SeriesStore.open(config.store), None, None, SingleProcess()
    )
    return prepared.plan_memory()


def enough_for(plan: MemoryPlan) -> int:
    """A budget in which that run fits, and nothing larger by a fifth."""
    return int(plan.estimate.needed / 0.85)


def test_the_estimate_adds_up_and_grows_with_the_batch(config: RunConfig) -> None:
    """Activations and batches grow in proportion; the rest does not."""
    small, large = planned(config, batch_size=4), planned(config, batch_size=16)
    assert not small.activation_checkpointing
    for plan in (small, large):
        each = plan.estimate
        assert each.needed == max(each.activations, each.baselines) + each.batches + each.optimizer
        assert plan.choices[0].startswith("memory: about ")
        assert "GiB are free" in plan.choices[0]
    assert large.estimate.batches == 4 * small.estimate.batches
    # The gradients of the parameters, 4 bytes each, do not grow.
    growth = large.estimate.activations / small.estimate.activations
    assert 1.1 < growth < 4
    assert large.estimate.optimizer == small.estimate.optimizer
    assert small.malloc_policy == "retain"


def test_the_optimizer_and_the_average_of_weights_are_counted(config: RunConfig) -> None:
    """Adam has two moments and RMSProp one; an average is another copy. A step takes two more."""
    adam = planned(config).estimate.optimizer
    assert planned(config, optimizer="rmsprop").estimate.optimizer == 3 * adam // 4
    assert planned(config, ema_decay=0.9).estimate.optimizer == 5 * adam // 4


def test_an_exact_store_takes_more(config: RunConfig, tmp_path: Path) -> None:
    """Rows and targets of twice the width, and inputs before their offsets are subtracted."""
    exact = make_store(tmp_path / "exact", make_series(), exact=True)
    assert exact.meta.dtype == "float64"
    wide, compact = (planned(each).estimate for each in (replace(config, store=exact.path), config))
    assert wide.series == 2 * compact.series
    sensors, inputs, horizon = 3, 3, 2
    more = 4 * (inputs + horizon) + 4 * horizon + 8 * inputs
    assert wide.batches - compact.batches == 4 * 16 * sensors * more  # four batches alive
    assert wide.baselines == pytest.approx(compact.baselines * 20 / 16)


def test_what_does_not_fit_is_recomputed(config: RunConfig) -> None:
    """With a word on what it would take otherwise; and with room for it, it is not."""
    roomy = planned(config, batch_size=64)
    on = planned(config, batch_size=64, activation_checkpointing="on")
    tight = planned(config, budget=enough_for(on), batch_size=64)
    assert tight.activation_checkpointing
    assert tight.estimate.activations < roomy.estimate.activations
    assert tight.malloc_policy == "trim"
    assert "activation checkpointing on" in tight.choices[1]
    assert "would be needed otherwise" in tight.choices[1]
    assert not planned(
        config, budget=2 * roomy.estimate.needed, batch_size=64
    ).activation_checkpointing


def test_what_is_asked_for_is_done(config: RunConfig) -> None:
    """On is on where there is room, and off takes what it takes."""
    on = planned(config, batch_size=64, activation_checkpointing="on")
    assert on.activation_checkpointing
    assert "as asked" in on.choices[1]
    off = planned(config, batch_size=64, activation_checkpointing="off")
    assert not off.activation_checkpointing
    just = planned(config, budget=enough_for(off), batch_size=64, activation_checkpointing="off")
    assert not just.activation_checkpointing


def test_what_fits_in_no_way_is_refused(config: RunConfig, tmp_path: Path) -> None:
    """With the largest batch that fits, or else what makes the model smaller; nothing is left."""
    on = planned(config, batch_size=64, activation_checkpointing="on").estimate
    with pytest.raises(ConfigError, match=r"use batch_size=\d+ \(with accumulate=") as refusal:
        planned(config, budget=on.needed, batch_size=64)
    fitting = int(str(refusal.value).partition("batch_size=")[2].split()[0])
    assert 1 <= fitting < 64
    assert planned(config, budget=on.needed, batch_size=fitting).activation_checkpointing
    with pytest.raises(ConfigError, match="batch_size="):
        planned(config, budget=on.needed, batch_size=fitting + 1)
    with pytest.raises(ConfigError, match="batch_size="):  # found without trying every size
        planned(config, budget=on.needed, batch_size=2**63 - 1)

    with pytest.raises(ConfigError, match=r"for one window, and .* model .* smaller") as refusal:
        planned(config, budget=MIB // 2)
    assert "activation_checkpointing" not in str(refusal.value)
    assert "over ranks (shard_sensors=2)" in str(refusal.value)
    with pytest.raises(ConfigError, match="activation_checkpointing='on'"):
        planned(config, budget=MIB // 2, activation_checkpointing="off")
    small = replace(config, memory_budget=MIB // 2)
    with pytest.raises(ConfigError):
        train_run(small, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_budget_gives_no_more_than_there_is(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it take away from what may be used: the smaller of both counts."""
    monkeypatch.setattr(memory_plan, "available_bytes", lambda _: 64 * MIB)
    assert "64.0 MiB are free" in planned(config, budget=1 << 50).choices[0]
    assert "48.0 MiB are free" in planned(config, budget=48 * MIB).choices[0]


class Peculiar(Linear):
    """Normalises over the batch, which one window is not, and counts its own calls."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__(shape)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor, supports: Supports) -> Tensor:
        """The linear map of what is normalised."""
        self.calls = self.calls + 1
        return super().forward(x + 0 * self.norm(x[:, 0, :, 0])[:, None, :, None], supports)


def test_a_network_of_ones_own_is_measured_too(config: RunConfig, tmp_path: Path) -> None:
    """With two windows at least, and it does not notice; it has no way to recompute."""
    own = replace(config, model=ModelConfig(name="custom"))
    run, result = train_run(own, tmp_path / "run", model=Peculiar)
    calls = run.forecaster.network.get_buffer("calls")
    num_validations = -(-len(run.splits.val) // 16)
    assert result.steps == 2
    # The try of one window at the beginning, in evaluation, is the only other call.
    assert calls == 1 + 2 + num_validations
    assert json.loads((tmp_path / "run/run.json").read_text())["activation_checkpointing"] is False

    with pytest.raises(ConfigError, match=r"may be used: make the model"):
        train_run(replace(own, memory_budget=1000), tmp_path / "tight", model=Peculiar)
    wished = replace(own, training=replace(own.training, activation_checkpointing="on"))
    with pytest.raises(ConfigError, match="no way to recompute"):
        train_run(wished, tmp_path / "other", model=Peculiar)


def test_a_run_goes_on_as_it_began(config: RunConfig, tmp_path: Path) -> None:
    """Recomputed gradients differ in their last bits: a run keeps to them, or does without."""
    budget = enough_for(planned(config, batch_size=64, activation_checkpointing="on"))
    short = replace(config.training, batch_size=64, max_steps=1)
    long = replace(short, max_steps=3, epochs=3)
    tight = replace(config, memory_budget=budget, training=short)

    def recomputes(path: Path) -> bool:
        told: bool = json.loads((path / "run.json").read_text())["activation_checkpointing"]
        return told

    train_run(tight, tmp_path / "on")
    assert recomputes(tmp_path / "on")
    roomy = replace(tight, memory_budget=None, training=long)
    train_run(roomy, tmp_path / "on", resume=True)
    assert recomputes(tmp_path / "on")

    train_run(replace(tight, memory_budget=None), tmp_path / "off")
    assert not recomputes(tmp_path / "off")
    with pytest.raises(ConfigError, match="activation_checkpointing='on'"):
        train_run(replace(roomy, memory_budget=MIB), tmp_path / "off", resume=True)
    train_run(roomy, tmp_path / "off", resume=True)
    assert not recomputes(tmp_path / "off")


def test_a_finished_run_needs_no_memory(config: RunConfig, tmp_path: Path) -> None:
    """There is nothing to train, and nothing to refuse."""
    path = tmp_path / "run"
    _, result = train_run(config, path)
    _, again = train_run(replace(config, memory_budget=1), path, resume=True)
    assert again == replace(result, was_finished=True)


def test_a_budget_that_is_spent_is_refused(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process itself takes memory."""
    monkeypatch.setattr(memory_plan, "pss_bytes", lambda: 300 * MIB)
    with pytest.raises(ConfigError, match=r"memory_budget is 0\.20 GiB and 0\.29 GiB are in use"):
        planned(config, budget=200 * MIB)


def test_no_trial_takes_more_than_the_run_may(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that could use all that is free would be killed by the limit that it looks for."""
    limits, step_peak_bytes = list[int](), memory_plan.step_peak_bytes

    def recorded(*args: Any) -> int | None:
        limits.append(args[-1])
        return step_peak_bytes(*args)

    monkeypatch.setattr(memory_plan, "step_peak_bytes", recorded)
    on = planned(config, batch_size=64, activation_checkpointing="on")
    limits.clear()
    room = enough_for(on)
    assert planned(config, budget=room, batch_size=64).activation_checkpointing
    assert set(limits) == {int(0.6 * room), int(0.9 * room)}


def test_a_second_window_may_be_too_much(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One window fits and two do not: the rest is made again, or one window is what to use."""

    def taken(differentiate: Any, network: Any, _device: Any, limit: int) -> int | None:
        each = MIB // 10 if network.activation_checkpointing else 7 * MIB
        found = each * len(differentiate.args[0].x)
        return found if found <= limit else None

    monkeypatch.setattr(memory_plan, "step_peak_bytes", taken)
    plan = planned(config, budget=12 * MIB, batch_size=4)
    assert plan.activation_checkpointing
    assert "2 windows would take too much otherwise" in plan.choices[1]
    with pytest.raises(ConfigError, match=r"more than there is for 2 windows.*batch_size=1 "):
        planned(config, budget=12 * MIB, batch_size=4, activation_checkpointing="off")


@pytest.mark.parametrize("checkpointing", ["on", "off"])
def test_operators_of_the_graph_count_once(tmp_path: Path, checkpointing: str) -> None:
    """However many windows there are: all powers of a graph as one matrix take more than each."""
    num_nodes, batch_size, nodes = 150, 12, np.arange(149)
    graph = SensorGraph.from_edges(num_nodes, nodes, nodes + 1)
    names = tuple(str(node) for node in range(num_nodes))
    with StoreWriter(tmp_path / "wide", node_ids=names, channels=("c",), graph=graph) as writer:
        writer.append(np.ones((80, num_nodes, 1), np.float32))
        writer.finish(start=None, interval_seconds=None)
    made = make_config(
        SeriesStore.open(tmp_path / "wide"),
        batch_size=batch_size,
        activation_checkpointing=checkpointing,
    )
    model = ModelConfig(options={"hidden": 2, "layers": 1, "hops": 3})
    run = RunDirectory(Path("never/written"))
    store = SeriesStore.open(made.store)
    prepared = prepare(replace(made, model=model), run, store, None, None, SingleProcess())
    supports, train_step = prepared.run.forecaster.supports, prepared.trainer.train_step
    supports.dense = DenseLimits(stacked=1 << 20)
    estimated = prepared.plan_memory().estimate.activations

    batch = prepared.loaders.trial.gather(np.zeros(batch_size, np.int64))
    supports.free_memory()
    with LiveBytes() as memory:
        train_step.differentiate(batch)
    assert supports.built_bytes > 7 * num_nodes**2 * 4
    assert estimated == pytest.approx(memory.peak_bytes, rel=0.02)


GPU = torch.device("cuda", 0)


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan believes in a GPU, which the tensors of the CPU stand in for."""
    monkeypatch.setattr(memory_plan, "_is_gpu", lambda _: True)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 0)
    monkeypatch.setattr(memory_plan, "available_bytes", lambda _: 1 << 40)


@pytest.mark.usefixtures("on_a_gpu")
def test_nine_tenths_of_a_gpu_may_be_used(config: RunConfig) -> None:
    """And not what malloc would leave: without checkpointing, too."""
    plan = planned(config, batch_size=64)
    assert plan.malloc_policy == "default"
    assert plan.estimate.errors > 0
    assert "errors" in plan.choices[0]
    just = int(plan.estimate.needed / 0.9) + 1
    assert not planned(config, budget=just, batch_size=64).activation_checkpointing
    assert planned(config, budget=just - 64, batch_size=64).activation_checkpointing


@pytest.mark.usefixtures("on_a_gpu")
def test_rows_leave_the_device_before_activations_are_recomputed(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they were chosen to be there; where a user asked for it, they stay."""
    monkeypatch.setattr(RunLoaders, "may_leave_device", property(lambda self: self.may_leave))
    monkeypatch.setattr(RunLoaders, "may_leave", True, raising=False)
    resident = replace(config, batching="device")
    roomy = planned(resident, batch_size=64)
    rows = roomy.estimate.rows
    assert rows > SeriesStore.open(config.store).num_bytes
    assert not roomy.leaves_device
    room = int((roomy.estimate.needed - rows / 2) / 0.9)
    directory = RunDirectory(Path("never/written"))

    def prepared_in(budget: int) -> PreparedRun:
        training = replace(config.training, batch_size=64)
        made = replace(resident, memory_budget=budget, training=training)
        store = SeriesStore.open(config.store)
        return prepare(made, directory, store, None, None, SingleProcess())

    prepared = prepared_in(room)
    plan = prepared.plan_memory()
    assert plan.leaves_device
    assert not plan.activation_checkpointing
    assert plan.estimate.rows == 0
    assert prepared.info["batching"] == "index"
    assert "batching index after all: beside the rows, " in prepared.choices[-2]
    assert type(prepared.training.batcher.rows).__name__ != "DeviceRows"  # type: ignore[attr-defined]
    batch = next(prepared.training.epoch(0))
    expected = next(prepared_in(1 << 40).training.epoch(0))
    assert torch.equal(batch.x, expected.x)

    on = planned(config, batch_size=64, activation_checkpointing="on").estimate
    tight = prepared_in(int(on.needed / 0.88)).plan_memory()
    assert tight.leaves_device
    assert tight.activation_checkpointing

    monkeypatch.setattr(RunLoaders, "may_leave", False)
    asked = prepared_in(room).plan_memory()
    assert asked.activation_checkpointing
    assert asked.estimate.rows == rows


def test_the_peak_of_a_gpu_is_reported(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the rank that took the most; None on a CPU."""
    run, result = train_run(config, tmp_path / "cpu")
    assert result.peak_device_bytes is None
    assert run.peak_device_bytes is None
    assert run.evaluate("test").peak_device_bytes is None
    monkeypatch.setattr(memory_estimate, "device_peak_bytes", lambda _: 5 * MIB)
    monkeypatch.setattr(
        SingleProcess, "all_reduce_max", lambda _, numbers: [2 * n for n in numbers]
    )
    lines = list[str]()
    run, result = train_run(config, tmp_path / "gpu", log=lines.append)
    assert result.peak_device_bytes == run.peak_device_bytes == 10 * MIB
    assert "memory: tensors took 10.0 MiB of a GPU at most" in lines
    assert run.evaluate("test").peak_device_bytes == 10 * MIB


def test_a_gpu_is_waited_for_where_its_rate_is_read(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At lines of the log and ends of epochs, not in the loop; the wait counts as training."""
    waits = list[torch.device]()
    now = [0.0]

    def wait(device: torch.device) -> None:
        waits.append(device)
        now[0] += 10.0

    created = Trainer.__init__

    def on_a_gpu(trainer: Trainer, *arguments: Any, **options: Any) -> None:
        created(trainer, *arguments, **options)
        trainer._device = GPU

    monkeypatch.setattr(Trainer, "__init__", on_a_gpu)
    monkeypatch.setattr(torch.cuda, "synchronize", wait)
    monkeypatch.setattr("pgti.training.trainer.time.perf_counter", lambda: now[0])
    training = replace(config.training, epochs=1, max_steps=5, log_every_steps=2)
    run, result = train_run(replace(config, training=training), tmp_path / "run")
    assert waits == [GPU] * 3  # after steps 2 and 4, and at the end
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["seconds"] for line in lines] == [10.0, 20.0, 30.0]
    assert result.windows_per_second == len(run.splits.train) / 30
