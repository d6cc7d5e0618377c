"""`pgti-bench launches`: the goals of launches per step, and what the command prints."""

import json

import pytest
import torch

from pgti.forecasting import ForecastMetrics
from pgti_bench.app import run_command
from pgti_bench.fake_device import FakeGpu, FakeStepSpec, count_launches, fake_batch
from pgti_bench.launch_table import count_models

GOALS = {("dcrnn", 207): 700, ("graph-wavenet", 207): 600, ("agcrn", 11_160): 2000}


@pytest.mark.parametrize(("model", "sensors"), GOALS)
def test_a_training_step_makes_few_launches(model: str, sensors: int) -> None:
    """Forward, backward, clipping and Adam, with default options and 64 windows."""
    launches = count_launches(FakeStepSpec(model=model, num_nodes=sensors))
    assert launches.total < GOALS[model, sensors]
    assert not launches.by_kind["sparse"]


@pytest.mark.parametrize(("sensors", "most"), [(207, 30), (11_160, 150)])
def test_the_errors_of_a_batch_make_few_launches(sensors: int, most: int) -> None:
    """All steps of the horizon together, as far as temporaries stay small."""
    with FakeGpu() as gpu:
        batch = fake_batch(FakeStepSpec(model="linear", num_nodes=sensors).shape, 64)
        assert batch.y is not None
        assert batch.y_mask is not None
        metrics = ForecastMetrics(12, device=batch.y.device)
        with gpu.checked() as launches:
            metrics.update(torch.empty_like(batch.y), batch.y, batch.y_mask)
    assert launches.total < most


def test_steps_in_the_pieces_of_a_cpu_make_more() -> None:
    """Sparse products and chunks, for comparison; without a stacked operator nothing differs."""
    result = count_models(["tgcn", "linear"], [30], batch_size=4, in_pieces=True)
    tgcn, linear = result.counts
    assert tgcn.in_pieces is not None
    assert tgcn.in_pieces > tgcn.total > linear.total
    assert linear.in_pieces == linear.total
    assert tgcn.total == tgcn.dense + tgcn.sparse + tgcn.copies + tgcn.elementwise


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One object; an unknown model is one line and exit 2."""
    assert run_command(["launches", "--models", "linear", "--sensors", "20,30", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["sensors"] for each in found["counts"]] == [20, 30]
    assert found["batch_size"] == 64
    assert run_command(["launches", "--models", "no-such"]) == 2
    assert "there is no model 'no-such'" in capsys.readouterr().err
