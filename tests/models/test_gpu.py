"""Every model on a GPU against the CPU: forecasts, gradients, precision, recomputing, compiling.

Each test also runs on the CPU with one model, so that what a GPU runs is known to work.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from pgti.models import MODELS, AbstractModel
from pgti.nn.numerics import float32_products

from .small_models import SMALL, build, inputs, supports_of

NAMES = [name for name, entry in MODELS.items() if not entry.library]
CPU = torch.device("cpu")

NEEDS_GPU = (
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
)
on_devices = pytest.mark.parametrize(
    ("name", "device"),
    [
        pytest.param("dcrnn", CPU, id="dcrnn-rehearsed"),
        *(
            pytest.param(name, torch.device("cuda", 0), marks=NEEDS_GPU, id=f"{name}-cuda")
            for name in NAMES
        ),
    ],
)


def results(model: AbstractModel, device: torch.device, **options: Any) -> list[Tensor]:
    """Forecasts and the gradient of every trained parameter, on the CPU, of a model's copy there.

    Args:
        model: on any device; it stays there.
        device: where to compute.
        options: `tf32` rounds products, `bfloat16` uses autocast, `compiled` compiles.
    """
    model.to(device)
    supports, x = supports_of(model).to(device), inputs().to(device)
    call = torch.compile(model) if options.get("compiled") else model
    trained = [each for each in model.parameters() if each.requires_grad]
    with float32_products(device, tf32=options.get("tf32", False)):
        with torch.autocast(device.type, torch.bfloat16, enabled=options.get("bfloat16", False)):
            forecast = call(x, supports)
        gradients = torch.autograd.grad(forecast.square().sum(), trained)
    return [each.detach().cpu() for each in (forecast, *gradients)]


def error(found: list[Tensor], expected: list[Tensor]) -> float:
    """Relative, of forecasts and gradients together."""
    flat = [torch.cat([each.double().flatten() for each in side]) for side in (found, expected)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


@on_devices
def test_forecasts_and_gradients_are_those_of_the_cpu(name: str, device: torch.device) -> None:
    """In float32, which is that in cuDNN's recurrent layers too."""
    expected = results(build(name), CPU)
    found = results(build(name), device)
    assert error(found[:1], expected[:1]) < 1e-5
    assert error(found, expected) < 1e-4


@on_devices
def test_recomputed_activations_change_nothing(name: str, device: torch.device) -> None:
    model = build(name)
    model.activation_checkpointing = model.can_checkpoint_activations
    assert error(results(model, device), results(build(name), CPU)) < 1e-4


@on_devices
@pytest.mark.parametrize(("precision", "bound"), [("tf32", 0.05), ("bfloat16", 0.25)])
def test_lower_precision_stays_near(
    name: str, device: torch.device, precision: str, bound: float
) -> None:
    """Of TF32 on a CPU, which has none, nothing is rounded."""
    options = {precision: device.type == "cuda" or precision == "bfloat16"}
    found = results(build(name), device, **options)
    difference = error(found, results(build(name), CPU))
    assert difference < bound
    assert (difference > 0) == options[precision] or name == "linear"


@on_devices
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.slow
def test_compiled_models_are_the_same_models(name: str, device: torch.device) -> None:
    torch.compiler.reset()
    found = results(build(name), device, compiled=True)
    assert error(found, results(build(name), CPU)) < 1e-4


def test_every_model_is_here() -> None:
    assert sorted(SMALL) == NAMES
