"""Estimate how long recipes train on a GPU, by counting what their steps compute; needs no GPU.

A training step and an evaluation step of each recipe run at their true shape on a fake GPU
(`pgti_bench.fake_gpu`), which counts kernels with their arithmetic and traffic (`pgti_bench.work`).
Hours are those of all epochs, validation included, by the rule of `estimate_seconds`.
"""

import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

from pgti import ingest
from pgti.cli.output import log as log_line
from pgti.cli.output import print_results
from pgti.datasets import Recipe, find_dataset, find_recipe, recipe_names, recipes_of
from pgti.errors import ConfigError
from pgti.forecasting import ForecastMetrics
from pgti.nn import linear
from pgti.run.build import shape_of_store
from pgti.run.config import RunConfig
from pgti.run.protocol import windows_of
from pgti.run.results import Machine, to_json
from pgti_bench.fake_device import FakeGpu, FakeStep, FakeStepSpec, fake_step, ring_graph
from pgti_bench.output import finish
from pgti_bench.work import DEVICES, Device, Watched, Work, estimate_seconds

__all__ = ["CpuCheck", "HoursResult", "RecipeHours", "check_on_cpu", "estimate_recipe"]

_EDGES = 8
_LARGEST_EDGES = 24
"""Edges of a sensor: LargeST's SD has 17,319 of 716 sensors, its CA 201,363 of 8,600."""

_PARAMETER_COPIES = 4
"""In memory: the parameters, their gradients and two moments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Schedule:
    """The step of a recipe, and how often it is taken."""

    spec: FakeStepSpec
    num_train: int
    num_val: int
    epochs: int
    eval_batch_size: int

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return math.ceil(self.num_train / self.spec.batch_size)

    @property
    def evaluations(self) -> int:
        """Batches of a validation."""
        return math.ceil(self.num_val / self.eval_batch_size)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeHours:
    """How long a recipe would train, estimated.

    Attributes:
        recipe: its name.
        batch_size: windows of a step.
        steps: of an epoch.
        epochs: at most; early stopping ends training sooner.
        launches: kernels of a training step.
        flops: arithmetic of a training step.
        bytes: traffic of a training step.
        peak_bytes: memory of a step, parameters included, without what the allocator reserves.
        step_seconds: of a training step.
        epoch_seconds: with validation.
        hours: of all epochs.
    """

    recipe: str
    batch_size: int
    steps: int
    epochs: int
    launches: int
    flops: float
    bytes: float
    peak_bytes: int
    step_seconds: float
    epoch_seconds: float
    hours: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CpuCheck:
    """A training step on the CPU of this machine, measured and by the same rule.

    Attributes:
        recipe: whose step it is.
        estimated_seconds: by the rule, with the measured figures of the CPU.
        measured_seconds: the median.
    """

    recipe: str
    estimated_seconds: float
    measured_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class HoursResult:
    """The result of the command.

    Attributes:
        device: whose figures the rule used.
        recipes: in order.
        cpu: the figures of this machine's CPU; None without a check.
        checks: in the order of the recipes; empty without a check.
    """

    device: Device
    recipes: tuple[RecipeHours, ...]
    cpu: Device | None = None
    checks: tuple[CpuCheck, ...] = ()


def estimate_recipe(recipe: Recipe, device: Device) -> RecipeHours:
    """Count the steps of a recipe, and estimate how long it trains.

    Raises:
        ConfigError: an operator of the network has no formula.
        FakeGpuError: the step waits for the GPU, or mixes devices.
    """
    schedule = _schedule(recipe)
    train, evaluation, held = _count(schedule)
    _refuse_unknown(train.unknown | evaluation.unknown)
    step = estimate_seconds(train, device)
    validation = schedule.evaluations * estimate_seconds(evaluation, device)
    epoch = schedule.steps * step + validation
    return RecipeHours(
        recipe=recipe.name,
        batch_size=schedule.spec.batch_size,
        steps=schedule.steps,
        epochs=schedule.epochs,
        launches=train.total,
        flops=train.flops,
        bytes=train.num_bytes,
        peak_bytes=max(train.peak_bytes, evaluation.peak_bytes) + held,
        step_seconds=step,
        epoch_seconds=epoch,
        hours=schedule.epochs * epoch / 3600,
    )


def _schedule(recipe: Recipe) -> _Schedule:
    """The windows of a recipe do not depend on its sensors: a store of two has the same."""
    dataset = find_dataset(recipe.dataset)
    with tempfile.TemporaryDirectory(prefix="pgti-") as scratch:
        readings = np.ones((dataset.num_steps, 2, len(dataset.channels)), dtype=np.float32)
        store = ingest(
            readings,
            Path(scratch) / "store",
            channels=dataset.channels,
            start=dataset.start or "2018-01-01",
            interval=dataset.interval,
        )
        windows = windows_of(dataset, store) | recipe.windows
        config = RunConfig(store=store.path).override(
            {"windows": windows, "model": recipe.model, "training": recipe.training}
        )
        shape = shape_of_store(store, config.windows, recipe.model_name)
        splits = config.windows.splits(store)
        training = config.training
        is_largest = dataset.name.startswith("LargeST")
        return _Schedule(
            spec=FakeStepSpec(
                model=recipe.model_name,
                options=config.model.options,
                graph=ring_graph(dataset.num_nodes, _LARGEST_EDGES if is_largest else _EDGES),
                batch_size=training.batch_size,
                training=training,
                windows=replace(shape, num_nodes=dataset.num_nodes),
            ),
            num_train=len(splits.train),
            num_val=len(splits.val),
            epochs=training.epochs,
            eval_batch_size=training.evaluated_at_once(1),
        )


def _count(schedule: _Schedule) -> tuple[Work, Work, int]:
    """A training step, an evaluation step, and the bytes that are there meanwhile."""
    train, evaluation = Work(), Work()
    with FakeGpu() as gpu:
        step = fake_step(schedule.spec)
        step.take()
        with gpu.checked(train):
            step.take()
        held = sum(each.nbytes for each in step.batch.tensors)
        parameters = step.forecaster.network.parameters()
        held += _PARAMETER_COPIES * sum(each.nbytes for each in parameters)
        evaluated = fake_step(replace(schedule.spec, batch_size=schedule.eval_batch_size))
        evaluated.forecaster.eval()
        _evaluate(evaluated)
        with gpu.checked(evaluation):
            _evaluate(evaluated)
    return train, evaluation, held


def _evaluate(step: FakeStep) -> None:
    batch = step.batch
    assert batch.y is not None
    assert batch.y_mask is not None
    horizon, targets = batch.y.shape[1], batch.y.shape[3]
    with torch.no_grad():
        metrics = ForecastMetrics(horizon, targets, device=batch.y.device)
        metrics.update(step.forecaster.predict(batch).point, batch.y, batch.y_mask)


def _refuse_unknown(products: set[str]) -> None:
    if products:
        names = ", ".join(sorted(products))
        raise ConfigError(f"there is no formula for the arithmetic of {names}")


def measure_cpu() -> Device:
    """The figures of this machine's CPU: of a product of matrices, and of a copy in memory."""
    one, other = torch.rand(2, 2048, 2048)
    source, target = torch.rand(2, 1 << 26)
    return Device(
        name=f"this CPU, {torch.get_num_threads()} threads",
        flops=2 * 2048**3 / _seconds(lambda: linear(one, other, None)),
        bytes_per_second=2 * source.nbytes / _seconds(lambda: target.copy_(source)),
    )


def check_on_cpu(recipe: Recipe, cpu: Device) -> CpuCheck:
    """Take the training step of a recipe on the CPU, beside the estimate of the same rule."""
    step, work = fake_step(_schedule(recipe).spec, torch.device("cpu")), Work()
    step.take()
    with Watched(work):
        step.take()
    _refuse_unknown(work.unknown)
    return CpuCheck(
        recipe=recipe.name,
        estimated_seconds=estimate_seconds(work, cpu),
        measured_seconds=_seconds(step.take),
    )


def _seconds(function: Callable[[], object], rounds: int = 3) -> float:
    """The median time of a call, after a first one."""
    function()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def recipes_command(
    *,
    recipes: tuple[str, ...] = ("all",),
    gpu: str = "a100",
    check_cpu: bool = False,
    json: bool = False,
) -> None:
    """Estimate how long recipes train on a GPU, by counting what their steps compute.

    A step takes the longer of 6 us for each kernel and the sum over the kernels of the longer of
    arithmetic at half of the GPU's float32 peak and traffic at 70 % of its memory bandwidth. These
    three are assumptions. Nothing is run on a GPU.

    Args:
        recipes: Comma-separated recipes, or data sets all of whose recipes to take; all takes
            every one.
        gpu: a100, a6000 or 1080ti; figures of its data sheet.
        check_cpu: Take each step on this machine's CPU too, beside the estimate of the same rule.
        json: Print one JSON object on standard output, and no table.
    """
    if gpu not in DEVICES:
        raise ConfigError(f"gpu is {gpu!r}: it must be one of {', '.join(DEVICES)}")
    device = DEVICES[gpu]
    found = _find(recipes)
    estimated = []
    for recipe in found:
        estimated.append(estimate_recipe(recipe, device))
        log_line(f"{recipe.name}: {estimated[-1].hours:.2f} hours")
    result = HoursResult(device=device, recipes=tuple(estimated))
    tables = [_hours_table(result)]
    if check_cpu:
        load, cpu = os.getloadavg()[0], measure_cpu()
        checks = tuple(check_on_cpu(recipe, cpu) for recipe in found)
        result = replace(result, cpu=cpu, checks=checks)
        tables.append(_check_table(cpu, checks))
        log_line(f"load before the check: {load:.1f}")
    print_results(to_json(result), *tables, as_json=json)
    finish("Recipes", Machine.here(), ())


def _find(names: Sequence[str]) -> list[Recipe]:
    if tuple(names) == ("all",):
        return [find_recipe(name) for name in recipe_names()]
    return [recipe for name in names for recipe in recipes_of(name)]


def _hours_table(result: HoursResult) -> Table:
    title = f"estimated for one {result.device.name}, by counting: nothing was run on a GPU"
    table = Table(title=title, title_justify="left")
    table.add_column("recipe", no_wrap=True)
    for column in ("batch", "steps", "epochs", "launches", "GFLOP", "GB", "memory, GB", "step, ms"):
        table.add_column(column, justify="right")
    for column in ("epoch, s", "hours, at most"):
        table.add_column(column, justify="right")
    for each in result.recipes:
        table.add_row(
            each.recipe,
            *(f"{n:,}" for n in (each.batch_size, each.steps, each.epochs, each.launches)),
            f"{each.flops / 1e9:,.0f}",
            f"{each.bytes / 1e9:,.1f}",
            f"{each.peak_bytes / 1e9:,.1f}",
            f"{1e3 * each.step_seconds:,.1f}",
            f"{each.epoch_seconds:,.0f}",
            f"{each.hours:,.2f}",
        )
    return table


def _check_table(cpu: Device, checks: Sequence[CpuCheck]) -> Table:
    title = f"{cpu.name}: {cpu.flops / 1e9:,.0f} GFLOP/s, {cpu.bytes_per_second / 1e9:,.1f} GB/s"
    table = Table(title=title, title_justify="left")
    table.add_column("recipe", no_wrap=True)
    for column in ("estimated, ms", "measured, ms", "measured / estimated"):
        table.add_column(column, justify="right")
    for each in checks:
        table.add_row(
            each.recipe,
            f"{1e3 * each.estimated_seconds:,.1f}",
            f"{1e3 * each.measured_seconds:,.1f}",
            f"{each.measured_seconds / each.estimated_seconds:.2f}",
        )
    return table
