"""Every model's steps on a fake GPU: no host wait, no tensor of the host, no shape of data.

Tensors have shapes and no content, so a step takes a moment without a GPU and computes nothing:
`tests/models` has the results.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pgti.forecasting import IntervalForecaster, scored_levels
from pgti.forecasting.calibration import Calibration
from pgti.forecasting.metrics import ForecastMetrics
from pgti.forecasting.scores import scored_quantiles
from pgti.models import MODELS
from pgti.training import TrainingConfig
from pgti.training.config import HuberLoss, MSELoss, QuantileLoss
from pgti.training.optimizers import AdamWOptimizer, RMSPropOptimizer
from pgti.training.running_loss import RunningLoss
from pgti_bench.fake_device import FakeGpu, FakeStepSpec, fake_step

NAMES = [name for name, entry in MODELS.items() if not entry.library]
SMALL: dict[str, dict[str, object]] = {
    "d2stgnn": {"layers": 2},
    "dcrnn": {"layers": 1},
    "gman": {"layers": 1},
    "graph-wavenet": {"blocks": 1, "layers": 2},
    "mtgnn": {"layers": 2},
    "patchstg": {"layers": 1},
    "st-balance": {"layers": 1},
    "st-llm": {"embedding": 6, "gpt_layers": 2, "width": 8, "heads": 2},
    "staeformer": {"layers": 1},
}
"""Options of models that take long to build or to run."""
SIZES: dict[str, Any] = {
    "num_nodes": 100,  # sparse: fewer have dense operators
    "batch_size": 2,
    "input_steps": 3,
    "horizon": 3,
    "calendar": ("time-of-day", "day-of-week"),
}
VARIANTS: list[tuple[str, dict[str, object]]] = [
    ("agcrn", {"adjacency": "low-rank"}),
    ("dcrnn", {"scheduled_sampling": True}),
    ("graph-wavenet", {"adjacency": "low-rank"}),
    ("gru", {"dropout": 0.2}),
    ("linear", {"individual": True}),
    ("pgt-dcrnn", {"head": False}),
    ("stgcn", {"dropout": 0.2}),
]


def spec_of(name: str, **changes: Any) -> FakeStepSpec:
    """A small step of a model."""
    options = {**SMALL.get(name, {}), **changes.pop("options", {})}
    return FakeStepSpec(model=name, options=options, **{**SIZES, **changes})


def check_steps(spec: FakeStepSpec, num_batches: int = 1) -> None:
    """Take a step that may prepare, and one that may not wait; parameters stay where they are."""
    with FakeGpu() as gpu:
        step = fake_step(spec)
        running = RunningLoss(gpu.device)
        step.train_step.average.begin()
        step.take()
        with gpu.checked() as launches:
            step.train_step([step.batch] * num_batches, step=1, running=running)
        assert {each.device for each in step.forecaster.parameters()} == {gpu.device}
        assert launches.total > 50


@pytest.mark.parametrize("name", NAMES)
def test_training_waits_for_nothing(name: str) -> None:
    """Forward, backward, clipping, Adam, the running loss, two batches of a step."""
    check_steps(spec_of(name), num_batches=2)


@pytest.mark.parametrize("name", NAMES)
def test_training_in_bfloat16_waits_for_nothing(name: str) -> None:
    check_steps(spec_of(name, training=TrainingConfig(precision="bfloat16")))


@pytest.mark.parametrize("name", NAMES)
def test_recomputing_activations_waits_for_nothing(name: str) -> None:
    check_steps(spec_of(name, activation_checkpointing=True))


@pytest.mark.parametrize("name", NAMES)
def test_small_graphs_with_dense_operators_wait_for_nothing(name: str) -> None:
    check_steps(spec_of(name, num_nodes=20))


@pytest.mark.parametrize(("name", "options"), VARIANTS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_variants_wait_for_nothing(name: str, options: dict[str, object], precision: Any) -> None:
    check_steps(spec_of(name, options=options, training=TrainingConfig(precision=precision)))


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": AdamWOptimizer()},
        {"optimizer": RMSPropOptimizer()},
        {"ema_decay": 0.9},
        {"curriculum_steps": 1},
        {"loss": HuberLoss()},
        {"loss": MSELoss()},
        {"loss": QuantileLoss()},
        {"loss": QuantileLoss(), "precision": "bfloat16"},
        {"clip_norm": 0.0},
        {"freeze": ("*.norm.*",)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_options_of_training_wait_for_nothing(changes: dict[str, Any]) -> None:
    check_steps(spec_of("stgcn", training=TrainingConfig(**changes)))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_covariates_wait_for_nothing(precision: Any) -> None:
    check_steps(spec_of("linear", covariates=True, training=TrainingConfig(precision=precision)))


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_waits_for_nothing(name: str) -> None:
    """Forecasts, and the sums of every metric."""
    with FakeGpu() as gpu:
        step = fake_step(spec_of(name))
        step.forecaster.eval()
        horizon, targets = step.batch.y.shape[1], step.batch.y.shape[3]
        metrics = ForecastMetrics(horizon, targets, device=gpu.device)
        with torch.no_grad(), gpu.checked():
            metrics.update(step.forecaster(step.batch), step.batch.y, step.batch.y_mask)
        assert {each.device for each in metrics.all_sums} == {gpu.device}


@pytest.mark.parametrize("adaptive", [False, True])
def test_intervals_wait_for_nothing(adaptive: bool) -> None:
    """Quantiles, ends of intervals, what they learn from the outcomes, and their scores."""
    with FakeGpu() as gpu:
        step = fake_step(spec_of("stgcn", training=TrainingConfig(loss=QuantileLoss())))
        shape = horizon, _, targets = tuple(step.batch.y.shape[1:])
        calibration = Calibration(
            levels=(0.5, 0.8),
            below=np.zeros((2, *shape), np.float32),
            above=np.zeros((2, *shape), np.float32),
            spread=np.ones(shape, np.float32),
            counts=np.ones(shape, np.int32),
        )
        forecaster = IntervalForecaster(step.forecaster, calibration, adaptive=adaptive).eval()
        levels = scored_levels(forecaster)
        metrics = ForecastMetrics(horizon, targets, device=gpu.device, levels=levels)
        batches = [
            replace(step.batch, starts=np.arange(first, first + step.batch.num_windows))
            for first in (0, 1000)
        ]
        with torch.no_grad():
            forecaster.predict(batches[0])
            with gpu.checked():
                found = forecaster.predict(batches[1])
                quantiles = scored_quantiles(found)
                observed = step.batch.y, step.batch.y_mask
                metrics.update(found.point, *observed, quantiles=quantiles)
        assert {each.device for each in metrics.all_sums} == {gpu.device}
