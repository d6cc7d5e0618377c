"""STAEformer against a reference written token by token, its sizes and its memory."""

import math

import pytest
import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.graph import SensorGraph
from pgti.models import AbstractModel, STAEformer, STAEformerConfig, num_parameters
from pgti.nn import ChunkLimits, dropout
from pgti.nn.limits import CPU_LIMITS

from .dense_reference import (
    affine,
    assert_equals_reference,
    calendar_vectors,
    layer_norm,
    regression,
)
from .small_models import (
    BATCH,
    CHANNELS,
    FLOAT64,
    INPUT_STEPS,
    NUM_NODES,
    build,
    inputs,
    measure_memory,
    metr_la_shape,
    shape,
    supports_of,
)

CALENDARS = [("time-of-day", "day-of-week"), ("day-of-week",), ("time-of-day",), ()]
HEADS, LAYERS = 2, 2
EPSILON = 1e-5


def reference_layer(layer: nn.Module, x_TD: Tensor, kept: list[Tensor] | None) -> Tensor:
    """One post-norm transformer layer on one group of tokens, with all T x T weights.

    Args:
        layer: whose parameters are used.
        x_TD: tokens that attend to one another.
        kept: what the outputs of attention and feed-forward network are multiplied by, [T, D].
    """
    part = layer.get_submodule
    width = x_TD.shape[1]
    size = width // HEADS
    products = affine(part("query_key_value"), x_TD)
    read = []
    for head in range(HEADS):
        query, key, value = (
            products[:, start + head * size :][:, :size] for start in (0, width, 2 * width)
        )
        weights = torch.exp(query @ key.T / math.sqrt(size))
        read.append(weights / weights.sum(dim=1, keepdim=True) @ value)
    attended = affine(part("attended"), torch.cat(read, dim=1))
    attended = attended if kept is None else attended * kept[0]
    x_TD = layer_norm(part("attention_norm"), x_TD + attended)
    fed = affine(part("contraction"), affine(part("expansion"), x_TD).clamp(min=0))
    return layer_norm(part("feed_forward_norm"), x_TD + (fed if kept is None else fed * kept[1]))


def reference_embedding(model: AbstractModel, x: Tensor, sample: int) -> Tensor:
    """The token of each step and sensor of one sample, [L, N, D]."""
    steps = []
    for step in range(INPUT_STEPS):
        times = calendar_vectors(model, 31 * sample + step)
        nodes = []
        for node in range(NUM_NODES):
            observation = affine(model.get_submodule("input_embedding"), x[sample, step, node])
            own = model.get_parameter("adaptive_embedding")[step, node]
            nodes.append(torch.cat([observation, *times, own]))
        steps.append(torch.stack(nodes))
    return torch.stack(steps)


def reference(model: AbstractModel, x: Tensor, kept: list[Tensor] | None = None) -> Tensor:
    """The whole model; `kept` are the dropout masks, two of each layer, [B, groups, tokens, D]."""

    def masks(layer: int, sample: int, group: int) -> list[Tensor] | None:
        return kept and [each[sample, group] for each in kept[2 * layer : 2 * layer + 2]]

    samples = []
    for sample in range(BATCH):
        tokens = reference_embedding(model, x, sample)
        for layer in range(LAYERS):
            own = model.get_submodule(f"temporal_layers.{layer}")
            groups = [
                reference_layer(own, tokens[:, node], masks(layer, sample, node))
                for node in range(NUM_NODES)
            ]
            tokens = torch.stack(groups, dim=1)
        for layer in range(LAYERS):
            own = model.get_submodule(f"spatial_layers.{layer}")
            groups = [
                reference_layer(own, tokens[step], masks(LAYERS + layer, sample, step))
                for step in range(INPUT_STEPS)
            ]
            tokens = torch.stack(groups)
        samples.append(regression(model, tokens.transpose(0, 1).flatten(1)))
    return torch.stack(samples)


@pytest.mark.parametrize("calendar", CALENDARS)
def test_forecasts_and_gradients_equal_the_reference(calendar: tuple[str, ...]) -> None:
    """Outputs and the gradients of all parameters, in float64, whatever the calendar."""
    sizes = shape(calendar=calendar, input_channels=CHANNELS - 2 + len(calendar))
    model = build("staeformer", sizes).double()
    assert_equals_reference(model, inputs(FLOAT64, sizes), reference, atol=1e-10)


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
        kept += [dropout(ones, 0.3) for _ in range(2 * LAYERS)]
    torch.testing.assert_close(found, reference(model, x, kept), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("num_nodes", "published"),
    [(207, 1_258_980), (325, 1_372_260), (307, 1_354_980), (170, 1_223_460)],
)
def test_parameters_are_those_published(num_nodes: int, published: int) -> None:
    """METR-LA, PEMS-BAY, PEMS04 and PEMS08, as Torch-MTS logs them: 3 channels, 5 minutes."""
    sizes = metr_la_shape(
        num_nodes=num_nodes,
        input_channels=3,
        calendar=("time-of-day", "day-of-week"),
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
    num_nodes: int, *, checkpointing: bool = False, limits: ChunkLimits = CPU_LIMITS
) -> int:
    """The most that the tensors of a step of training take, forward and back."""
    sizes = shape(num_nodes=num_nodes, input_steps=2, horizon=1)
    model = build("staeformer", sizes, layers=1).train()
    model.activation_checkpointing, model.limits = checkpointing, limits
    graph = SensorGraph.empty(num_nodes)
    return measure_memory(model, inputs(sizes=sizes, batch=2), graph)[1]


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
