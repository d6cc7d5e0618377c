"""STAEformer against a reference written token by token, its sizes and its memory."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pgti.errors import ConfigError
from pgti.memory import LiveBytes
from pgti.models import AbstractModel, STAEformer, STAEformerConfig, num_parameters
from pgti.nn import ChunkLimits
from pgti.nn.execution import DEFAULT_LIMITS

from .cases import (
    BATCH,
    CHANNELS,
    FLOAT64,
    HORIZON,
    INPUT_STEPS,
    NUM_NODES,
    STEPS_PER_DAY,
    TARGETS,
    build,
    inputs,
    shape,
    supports_of,
)

CALENDARS = [("time-of-day", "day-of-week"), ("day-of-week",), ("time-of-day",), ()]
HEADS, LAYERS = 2, 2
EPSILON = 1e-5


def normalised(x_TD: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Layer norm of each token."""
    centred = x_TD - x_TD.mean(dim=1, keepdim=True)
    variance = centred.square().mean(dim=1, keepdim=True)
    return centred / torch.sqrt(variance + EPSILON) * weight + bias


def reference_layer(
    p: dict[str, Tensor], name: str, x_TD: Tensor, kept: list[Tensor] | None
) -> Tensor:
    """One post-norm transformer layer on one group of tokens, with all T x T weights.

    Args:
        p: parameters by name.
        name: of the layer.
        x_TD: tokens that attend to one another.
        kept: what the outputs of attention and feed-forward network are multiplied by, [T, D].
    """

    def affine(part: str, vectors: Tensor) -> Tensor:
        return vectors @ p[f"{name}.{part}.weight"].T + p[f"{name}.{part}.bias"]

    def norm(part: str, vectors: Tensor) -> Tensor:
        return normalised(vectors, p[f"{name}.{part}.weight"], p[f"{name}.{part}.bias"])

    width = x_TD.shape[1]
    size = width // HEADS
    made = affine("query_key_value", x_TD)
    read = []
    for head in range(HEADS):
        query, key, value = (
            made[:, start + head * size :][:, :size] for start in (0, width, 2 * width)
        )
        weights = torch.exp(query @ key.T / math.sqrt(size))
        read.append(weights / weights.sum(dim=1, keepdim=True) @ value)
    attended = affine("attended", torch.cat(read, dim=1))
    x_TD = norm("attention_norm", x_TD + (attended if kept is None else attended * kept[0]))
    fed = affine("contraction", affine("expansion", x_TD).clamp(min=0))
    return norm("feed_forward_norm", x_TD + (fed if kept is None else fed * kept[1]))


def reference_embedding(model: AbstractModel, x: Tensor, sample: int) -> Tensor:
    """The token of each step and sensor of one sample, [L, N, D]."""
    p, calendar = dict(model.named_parameters()), model.shape.calendar
    steps = []
    for step in range(INPUT_STEPS):
        row, nodes = 31 * sample + step, []  # rows as `cases.inputs` counts them
        for node in range(NUM_NODES):
            reading = p["input_embedding.weight"] @ x[sample, step, node]
            parts = [reading + p["input_embedding.bias"]]
            if "time-of-day" in calendar:
                parts.append(p["calendar.time_of_day.weight"][row % STEPS_PER_DAY])
            if "day-of-week" in calendar:
                parts.append(p["calendar.day_of_week.weight"][row // STEPS_PER_DAY % 7])
            parts.append(p["adaptive_embedding"][step, node])
            nodes.append(torch.cat(parts))
        steps.append(torch.stack(nodes))
    return torch.stack(steps)


def reference(model: AbstractModel, x: Tensor, kept: list[Tensor] | None = None) -> Tensor:
    """The whole model; `kept` are the dropout masks, two of each layer, [B, groups, tokens, D]."""
    p = dict(model.named_parameters())

    def masks(layer: int, sample: int, group: int) -> list[Tensor] | None:
        return kept and [each[sample, group] for each in kept[2 * layer : 2 * layer + 2]]

    samples = []
    for sample in range(BATCH):
        tokens = reference_embedding(model, x, sample)
        for layer in range(LAYERS):
            name = f"temporal_layers.{layer}"
            groups = [
                reference_layer(p, name, tokens[:, node], masks(layer, sample, node))
                for node in range(NUM_NODES)
            ]
            tokens = torch.stack(groups, dim=1)
        for layer in range(LAYERS):
            name = f"spatial_layers.{layer}"
            groups = [
                reference_layer(p, name, tokens[step], masks(LAYERS + layer, sample, step))
                for step in range(INPUT_STEPS)
            ]
            tokens = torch.stack(groups)
        nodes = []
        for node in range(NUM_NODES):
            numbers = p["regression.weight"] @ tokens[:, node].flatten() + p["regression.bias"]
            nodes.append(numbers.reshape(HORIZON, TARGETS))
        samples.append(torch.stack(nodes, dim=1))
    return torch.stack(samples)


@pytest.mark.parametrize("calendar", CALENDARS)
def test_forecasts_and_gradients_equal_the_reference(calendar: tuple[str, ...]) -> None:
    """Outputs and the gradients of all parameters, in float64, whatever the calendar."""
    sizes = shape(calendar=calendar, input_channels=CHANNELS - 2 + len(calendar))
    model = build("staeformer", sizes).double()
    x = inputs(FLOAT64, sizes)
    found, expected = model(x, supports_of(model)), reference(model, x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    seed = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, list(model.parameters()), seed),
        torch.autograd.grad(expected, list(model.parameters()), seed),
        rtol=1e-9,
        atol=1e-9,
    )


def test_outputs_of_both_networks_are_dropped() -> None:
    """In training, with the masks that torch's generator draws: before each sum and norm."""
    model = build("staeformer", dropout=0.3).double().train()
    x = inputs(FLOAT64)
    torch.manual_seed(8)
    found = model(x, supports_of(model))
    torch.manual_seed(8)
    width, kept = model.regression.in_features // INPUT_STEPS, []  # type: ignore[attr-defined]
    for groups, tokens in ((NUM_NODES, INPUT_STEPS), (INPUT_STEPS, NUM_NODES)):
        ones = torch.ones(BATCH, groups, tokens, width, dtype=FLOAT64)
        kept += [functional.dropout(ones, 0.3) for _ in range(2 * LAYERS)]
    torch.testing.assert_close(found, reference(model, x, kept), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("num_nodes", "published"),
    [(207, 1_258_980), (325, 1_372_260), (307, 1_354_980), (170, 1_223_460)],
)
def test_parameters_are_those_published(num_nodes: int, published: int) -> None:
    """METR-LA, PEMS-BAY, PEMS04 and PEMS08, as Torch-MTS logs them: 3 channels, 5 minutes."""
    sizes = shape(
        num_nodes=num_nodes,
        horizon=12,
        input_channels=3,
        target_channels=1,
        target_indices=(0,),
        steps_per_day=288,
    )
    assert num_parameters("staeformer", {}, sizes) == published


@pytest.mark.parametrize("tokens", [1, 2 * INPUT_STEPS, 5 * NUM_NODES])
def test_tokens_at_a_time_change_nothing(tokens: int) -> None:
    """Groups are independent, so any number of them may be computed together."""
    model = build("staeformer").double()
    x, parameters = inputs(FLOAT64), list(model.parameters())
    whole = model(x, supports_of(model))
    model.limits = ChunkLimits(tokens=tokens)
    parts = model(x, supports_of(model))
    torch.testing.assert_close(parts, whole, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(parts.square().sum(), parameters),
        torch.autograd.grad(whole.square().sum(), parameters),
        rtol=1e-10,
        atol=1e-10,
    )


def step_bytes(
    num_nodes: int, *, checkpointing: bool = False, limits: ChunkLimits = DEFAULT_LIMITS
) -> int:
    """The most that the tensors of a step of training take, forward and back."""
    sizes = shape(num_nodes=num_nodes, input_steps=2, horizon=1)
    model = build("staeformer", sizes, layers=1).train()
    model.activation_checkpointing, model.limits = checkpointing, limits
    x, supports = inputs(sizes=sizes, batch=2), supports_of(build("staeformer"))
    with LiveBytes() as memory:
        model(x, supports).sum().backward()
    return memory.peak_bytes


def test_memory_grows_with_the_sensors_and_not_with_their_square() -> None:
    """No N x N weights: twice the sensors take twice the memory."""
    assert step_bytes(1024) < 2.05 * step_bytes(512)


def test_recomputing_saves_memory() -> None:
    """A layer stores its input alone, and recomputes the rest for some tokens at a time."""
    limits = ChunkLimits(tokens=512)
    assert step_bytes(512, checkpointing=True, limits=limits) < 0.5 * step_bytes(512, limits=limits)


def test_heads_must_divide_the_width_of_this_input() -> None:
    """Which depends on the calendar: 24 + 24 + 24 + 80 is a multiple of 19, 24 + 80 is not."""
    STAEformer(STAEformerConfig(heads=19), shape())
    with pytest.raises(ConfigError, match=r"heads is 19: .* 24 \+ 80 = 104"):
        STAEformer(STAEformerConfig(heads=19), shape(calendar=(), input_channels=3))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": 0}, "layers is 0: it must be at least 1"),
        ({"heads": 0}, "heads is 0"),
        ({"adaptive_embedding": 0}, "adaptive_embedding is 0"),
        ({"dropout": 1.0}, r"dropout is 1\.0: it must be below 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        STAEformerConfig(**options)  # type: ignore[arg-type]
