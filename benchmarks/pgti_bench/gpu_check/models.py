"""One forward and backward pass of every model, on the GPU against the CPU."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

from pgti.models import MODELS
from pgti.nn.numerics import float32_products
from pgti.training import TrainingConfig, TrainStep
from pgti_bench.gpu_check.setting import Setting, relative_error
from pgti_bench.gpu_check.windows import COMPARED_OPTIONS, build_step_inputs

__all__ = ["check"]

_LARGEST_FORECAST_ERROR, _LARGEST_GRADIENT_ERROR = 1e-5, 1e-4
"""Of float32, relative: another order of sums. The second also bounds recomputed activations."""
_LARGEST_TF32_ERROR, _LARGEST_BFLOAT16_ERROR = 0.05, 0.25
"""Of gradients: TF32 has 10 bits of mantissa, bfloat16 has 7. On a CPU stgcn has 0.14."""

Precision = Literal["float32", "tf32", "bfloat16"]


def check(setting: Setting) -> None:
    """Compare forecasts and gradients of each model, in each precision and mode."""
    for name, entry in MODELS.items():
        if not entry.library:
            with setting.guard(name):
                _compare(setting, name, COMPARED_OPTIONS.get(name, {}))


def _compare(setting: Setting, name: str, options: Mapping[str, Any]) -> None:
    def found(
        device: torch.device, precision: Precision = "float32", *, checkpointing: bool = False
    ) -> tuple[Tensor, Tensor]:
        return _forecasts_and_gradients(setting, name, options, device, precision, checkpointing)

    forecasts, gradients = found(torch.device("cpu"))
    exact = found(setting.device)
    again = found(setting.device)
    recomputed = found(setting.device, checkpointing=True)
    rounded = found(setting.device, "bfloat16")
    in_tf32 = found(setting.device, "tf32")
    figures = {
        "forecasts": relative_error(exact[0], forecasts),
        "gradients": relative_error(exact[1], gradients),
        "recomputed": relative_error(recomputed[1], gradients),
        "tf32": relative_error(in_tf32[1], gradients),
        "bfloat16": relative_error(rounded[1], gradients),
    }
    passed = (
        figures["forecasts"] < _LARGEST_FORECAST_ERROR
        and max(figures["gradients"], figures["recomputed"]) < _LARGEST_GRADIENT_ERROR
        and figures["tf32"] < _LARGEST_TF32_ERROR
        and figures["bfloat16"] < _LARGEST_BFLOAT16_ERROR
    )
    repeats = torch.equal(exact[0], again[0]) and torch.equal(exact[1], again[1])
    setting.add(name, {**figures, "repeats_bitwise": repeats}, passed=passed)


def _forecasts_and_gradients(
    setting: Setting,
    name: str,
    options: Mapping[str, Any],
    device: torch.device,
    precision: Precision,
    checkpointing: bool,
) -> tuple[Tensor, Tensor]:
    """Of the same parameters and windows on any device; gradients as one vector."""
    forecaster, batch = build_step_inputs(
        name,
        options,
        num_nodes=setting.size(207, 12),
        batch_size=setting.size(8, 2),
        device=device,
    )
    forecaster.network.activation_checkpointing = checkpointing  # type: ignore[assignment]
    step = TrainStep.from_config(
        forecaster.train(),
        TrainingConfig(precision="bfloat16" if precision == "bfloat16" else "float32"),
    )
    products: AbstractContextManager[None] = (
        float32_products(device, tf32=precision == "tf32")
        if device.type == "cuda"
        else nullcontext()
    )
    with products:
        step.seed(0)
        step.differentiate(batch)
        with torch.no_grad():
            forecasts = forecaster.eval()(batch)
    gradients = [each.grad.flatten() for each in step.parameters if each.grad is not None]
    return forecasts, torch.cat(gradients)
