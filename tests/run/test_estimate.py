"""What a run needs in memory, and what is done so that it fits."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from pgti.errors import ConfigError
from pgti.models import ModelShape
from pgti.run import ModelConfig, RunConfig, estimate, train_run
from pgti.run.estimate import MemoryPlan
from pgti.run.prepare import prepare
from pgti.series import SeriesStore
from pgti.training import RunDirectory

from .small import Linear, make_config, make_series, make_store

MIB = 1 << 20


@pytest.fixture(autouse=True)
def nothing_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Budgets in these tests are what the run itself may take."""
    monkeypatch.setattr(estimate, "pss_bytes", lambda: 0)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A network whose activations outweigh everything else."""
    made = make_config(make_store(tmp_path / "store", make_series()), max_steps=2)
    return replace(made, model=ModelConfig(options={"hidden": 64, "layers": 1}))


def planned(config: RunConfig, budget: int | None = None, **training: Any) -> MemoryPlan:
    config = replace(config, memory_budget=budget, training=replace(config.training, **training))
    directory = RunDirectory(Path("never/written"))
    return prepare(config, directory, SeriesStore.open(config.store), None, None).memory


def enough_for(plan: MemoryPlan) -> int:
    """A budget in which that run fits, and nothing larger by a fifth."""
    return int(plan.estimate.needed / 0.85)


def test_the_estimate_adds_up_and_grows_with_the_batch(config: RunConfig) -> None:
    """Activations and batches grow in proportion; the rest does not."""
    small, large = planned(config, batch_size=4), planned(config, batch_size=16)
    assert not small.recompute
    for plan in (small, large):
        each = plan.estimate
        assert each.needed == max(each.activations, each.baselines) + each.batches + each.optimiser
        assert plan.choices[0].startswith("memory: about ")
        assert "GiB are free" in plan.choices[0]
    assert large.estimate.batches == 4 * small.estimate.batches
    # The gradients of the parameters, 4 bytes each, do not grow.
    growth = large.estimate.activations / small.estimate.activations
    assert 1.1 < growth < 4
    assert large.estimate.optimiser == small.estimate.optimiser
    assert small.freed == "kept"


def test_what_does_not_fit_is_recomputed(config: RunConfig) -> None:
    """With a word on what it would take otherwise; and with room for it, it is not."""
    roomy = planned(config, batch_size=64)
    on = planned(config, batch_size=64, recompute="on")
    tight = planned(config, budget=enough_for(on), batch_size=64)
    assert tight.recompute
    assert tight.estimate.activations < roomy.estimate.activations
    assert tight.freed == "given back"
    assert "recompute on" in tight.choices[1]
    assert "would be needed otherwise" in tight.choices[1]
    assert not planned(config, budget=2 * roomy.estimate.needed, batch_size=64).recompute


def test_what_is_asked_for_is_done(config: RunConfig) -> None:
    """On is on where there is room, and off takes what it takes."""
    on = planned(config, batch_size=64, recompute="on")
    assert on.recompute
    assert "as asked" in on.choices[1]
    off = planned(config, batch_size=64, recompute="off")
    assert not off.recompute
    just = planned(config, budget=enough_for(off), batch_size=64, recompute="off")
    assert not just.recompute


def test_what_fits_in_no_way_is_refused(config: RunConfig, tmp_path: Path) -> None:
    """With the largest batch that fits, or else what makes the model smaller; nothing is left."""
    on = planned(config, batch_size=64, recompute="on").estimate
    with pytest.raises(ConfigError, match=r"use --batch-size \d+ \(--accumulate \d+") as refusal:
        planned(config, budget=on.needed, batch_size=64)
    fitting = int(str(refusal.value).partition("--batch-size ")[2].split()[0])
    assert 1 <= fitting < 64
    assert planned(config, budget=on.needed, batch_size=fitting).recompute
    with pytest.raises(ConfigError, match="--batch-size"):
        planned(config, budget=on.needed, batch_size=fitting + 1)

    with pytest.raises(ConfigError, match=r"for a single window .* smaller model"):
        planned(config, budget=MIB // 2)
    with pytest.raises(ConfigError, match="--recompute auto"):
        planned(config, budget=MIB // 2, recompute="off")
    small = replace(config, memory_budget=MIB // 2)
    with pytest.raises(ConfigError):
        train_run(small, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_of_ones_own_is_measured_too(config: RunConfig, tmp_path: Path) -> None:
    """It has no way to recompute: that is refused where asked for, and auto goes without."""

    def network(shape: ModelShape) -> nn.Module:
        return Linear(shape)

    own = replace(config, model=ModelConfig(name="custom"))
    train_run(own, tmp_path / "run", model=network)
    wished = replace(own, training=replace(own.training, recompute="on"))
    with pytest.raises(ConfigError, match="no way to recompute"):
        train_run(wished, tmp_path / "other", model=network)


def test_a_run_goes_on_as_it_began(config: RunConfig, tmp_path: Path) -> None:
    """Recomputed gradients differ in their last bits: a run keeps to them where there is room."""
    path = tmp_path / "run"
    budget = enough_for(planned(config, batch_size=64, recompute="on"))
    training = replace(config.training, batch_size=64)
    tight = replace(config, memory_budget=budget, training=training)
    train_run(tight, path)
    assert json.loads((path / "run.json").read_text())["recompute"] is True

    said: list[str] = []
    longer = replace(training, max_steps=3, epochs=3)
    train_run(
        replace(tight, memory_budget=None, training=longer), path, resume=True, say=said.append
    )
    assert any("recompute on" in line and "as asked" in line for line in said)
    assert json.loads((path / "run.json").read_text())["recompute"] is True


def test_a_budget_that_is_spent_is_refused(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process itself takes memory."""
    monkeypatch.setattr(estimate, "pss_bytes", lambda: 300 * MIB)
    with pytest.raises(ConfigError, match=r"memory_budget is 0\.20 GiB and 0\.29 GiB are in use"):
        planned(config, budget=200 * MIB)
