"""Compiled models against those that are not: gradients, breaks of the graph, time."""

import time
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters

from pgti.training import TrainingConfig, TrainStep
from pgti_bench.devices import synchronize
from pgti_bench.gpu_check.setting import Setting, relative_error
from pgti_bench.gpu_check.windows import COMPARED_OPTIONS, build_step_inputs

__all__ = ["check"]

_LARGEST_ERROR = 1e-4
_MODELS = ("stid", "stgcn", "dcrnn")


def check(setting: Setting) -> None:
    """Compile as `pgti train --compile` does, the quickest first: the compiler takes its time."""
    for name in setting.size(_MODELS, ("stid",)):
        with setting.guard(name):
            _compare(setting, name)


def _compare(setting: Setting, name: str) -> None:
    # A rehearsal traces and differentiates, and leaves out minutes of a C++ compiler.
    options: dict[str, Any] = {} if setting.on_gpu else {"backend": "aot_eager"}
    torch.compiler.reset()
    counters.clear()
    usual, usual_ms, _ = _step(setting, name, None)
    found, compiled_ms, seconds = _step(setting, name, options)
    breaks: Counter[str] = counters["graph_break"]
    error = relative_error(found, usual)
    setting.add(
        name,
        {
            "gradients": error,
            "graph_breaks": breaks.total(),
            "compile_s": seconds,
            "compiled_ms": compiled_ms,
            "usual_ms": usual_ms,
        },
        passed=error < _LARGEST_ERROR and not breaks,
        message="; ".join(reason.splitlines()[0][:100] for reason in list(breaks)[:2]),
    )


def _step(
    setting: Setting, name: str, options: dict[str, Any] | None
) -> tuple[Tensor, float, float]:
    """Gradients of the first step, milliseconds of later ones, seconds of the first."""
    forecaster, batch = build_step_inputs(
        name,
        COMPARED_OPTIONS.get(name, {}),
        num_nodes=setting.size(207, 5),
        batch_size=setting.size(64, 2),
        device=setting.device,
    )
    if options is not None:
        forecaster.network.compile(**options)
    step = TrainStep.from_config(forecaster.train(), TrainingConfig(cuda_graphs="off"))
    began = time.perf_counter()
    step.seed(0)
    step.differentiate(batch)
    synchronize(setting.device)
    seconds = time.perf_counter() - began
    gradients = [each.grad.flatten() for each in step.parameters if each.grad is not None]
    vector = torch.cat(gradients)
    number = 0

    def take() -> None:
        nonlocal number
        step([batch], step=number, num_batches=1)
        number += 1

    times = setting.milliseconds(take, repeats=8, warmups=2, limit_seconds=1)
    return vector, times["ms"], seconds
