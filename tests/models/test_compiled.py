"""Compiled models: one graph of the whole forward pass for batches of all sizes, the same results.

No code is generated: that takes a minute for each model, and is torch's. `test_generated_code` does
it once.
"""

import contextlib
import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pgti.models import MODELS, AbstractModel, TeacherForcing
from pgti.nn import Supports
from pgti.nn.limits import DenseLimits
from pgti.training.compilation import compile_network

from .small_models import NUM_NODES, TARGETS, build, inputs, shape, supports_of

NAMES = [name for name, entry in MODELS.items() if not entry.library]
VARIANTS = ("training", "evaluation", "bfloat16", "checkpointing")
QUICK = (
    ("dcrnn", "bfloat16"),
    ("stid", "training"),
    ("tgcn", "checkpointing"),
    ("tgcn", "evaluation"),
)
"""The compiler takes seconds for each model: the others have `make test-slow`."""

ALL = [
    pytest.param(*each, marks=[] if each in QUICK else pytest.mark.slow)
    for each in itertools.product(NAMES, VARIANTS)
]
LARGE, HORIZON = 9, 2
SIZES = shape(input_steps=3, horizon=HORIZON)
FEW_LAYERS: dict[str, dict[str, object]] = {
    "d2stgnn": {"layers": 1},
    "dcrnn": {"layers": 1},
    "graph-wavenet": {"blocks": 1},
    "st-llm": {"gpt_layers": 1},
    "staeformer": {"layers": 1},
}
"""More of them are traced alike."""
BFLOAT16_TOLERANCE = {"gman": 0.1}
"""Of the largest number of a tensor, where it is not 0.02. Batch statistics of two windows magnify
what bfloat16 rounds off: GMAN's gradients differ from those of float32 by up to 0.6, compiled or
not, and those of compiled code, which rounds elsewhere, by 0.04 from the others."""


def small(name: str) -> AbstractModel:
    """A small model of few layers."""
    return build(name, SIZES, **FEW_LAYERS.get(name, {}))


class CountingBackend:
    """Runs what the compiler traces, and counts the graphs."""

    def __init__(self, name: str) -> None:
        self.num_graphs = 0
        self._backend: Callable[..., Any] = torch._dynamo.lookup_backend(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What is called in place of a graph."""
        self.num_graphs += 1
        return self._backend(*args, **kwargs)


def compiled(model: AbstractModel, backend: str = "eager") -> CountingBackend:
    """Compile a model, whole or not at all."""
    torch.compiler.reset()
    counter = CountingBackend(backend)
    compile_network(model, backend=counter, fullgraph=True)
    return counter


def teacher_of(num_windows: int, step: int = 3) -> TeacherForcing:
    """What a model may see of the future at a step of training."""
    return TeacherForcing(
        targets_BHNC=torch.ones(num_windows, HORIZON, NUM_NODES, TARGETS),
        calendar_BHF=torch.zeros(num_windows, HORIZON, 2),
        step=step,
        seed=1,
    )


def assert_same_at_every_size(
    model: AbstractModel,
    supports: Supports,
    counter: CountingBackend,
    *,
    gradients: bool = False,
    autocast: float | None = None,
) -> None:
    """Forecasts, and gradients if asked, are the uncompiled ones; one graph serves all batches.

    `autocast` is the tolerance of bfloat16, None for float32.
    """
    original = copy.deepcopy(model)
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    if autocast is not None:
        tolerance = {"rtol": 5e-2, "atol": autocast}
    x = inputs(sizes=SIZES, batch=LARGE)
    for step, num_windows in enumerate((LARGE, LARGE - 1, 2)):
        teacher = teacher_of(num_windows, step) if model.training else None
        results = []
        for each in (model, original):
            torch.manual_seed(4)
            with (
                torch.autocast("cpu", torch.bfloat16, enabled=autocast is not None),
                contextlib.nullcontext() if model.training else torch.no_grad(),
            ):
                results.append([each(x[:num_windows].clone(), supports, teacher)])
            if gradients:
                trained = [weight for weight in each.parameters() if weight.requires_grad]
                results[-1] += torch.autograd.grad(results[-1][0].square().sum(), trained)
        assert_close(*results, **tolerance)
    assert counter.num_graphs == 1


def assert_close(found: list[Tensor], expected: list[Tensor], *, rtol: float, atol: float) -> None:
    """Within rounding, beside the largest number of each tensor."""
    for one, other in zip(found, expected, strict=True):
        scale = float(other.detach().abs().max().clamp(min=1.0))
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol * scale)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_one_graph(name: str) -> None:
    """In training, without a break, for batches of three sizes."""
    model = small(name).train()
    assert_same_at_every_size(model, supports_of(model), compiled(model))


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_compiled_models_are_the_same_models(name: str, variant: str) -> None:
    """The compiler changes neither forecasts nor gradients, those of dropout included."""
    model = small(name).train(variant != "evaluation")
    if variant == "checkpointing":
        if not model.can_checkpoint_activations:
            pytest.skip(f"{name} keeps its activations")
        model.activation_checkpointing = True
    counter = compiled(model, "aot_eager")
    assert_same_at_every_size(
        model,
        supports_of(model),
        counter,
        gradients=model.training,
        autocast=BFLOAT16_TOLERANCE.get(name, 2e-2) if variant == "bfloat16" else None,
    )


def test_scheduled_sampling_is_not_compiled_for_each_step() -> None:
    """Whatever the coins of a step are, which differ."""
    model = small("dcrnn").train()
    model.config = replace(model.config, scheduled_sampling=True, sampling_decay=1.0)
    supports = supports_of(model)
    forecasts = [model(inputs(sizes=SIZES), supports, teacher_of(3, step)) for step in (0, 2)]
    assert not torch.equal(*forecasts)
    counter = compiled(model, "aot_eager")
    assert_same_at_every_size(model, supports, counter, gradients=True)


def test_stacked_layers_are_one_graph() -> None:
    """The layers that small graphs have on GPUs."""
    model = small("dcrnn").train()
    supports = supports_of(model)
    supports.dense = DenseLimits(stacked=1 << 20)
    assert_same_at_every_size(model, supports, compiled(model, "aot_eager"), gradients=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of torch itself
@pytest.mark.parametrize("name", ["dcrnn", "stid"])
def test_generated_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of torch's own backend, in training, with gradients and the dropout of uncompiled code."""
    import torch._inductor.config  # noqa: PLC0415 - it takes a second

    monkeypatch.setattr(torch._inductor.config, "fallback_random", True)
    model = small(name).train()
    counter = compiled(model, "inductor")
    assert_same_at_every_size(model, supports_of(model), counter, gradients=True)
