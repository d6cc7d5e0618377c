"""Graph WaveNet against a dense float64 reference of all its steps, and its normalisation."""

import copy

import pytest
import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.models import GraphWaveNet, GraphWaveNetConfig, ModelShape, build_config

from . import small_models
from .dense_reference import (
    affine,
    assert_equals_reference,
    dense_adjacency,
    dense_walks,
    powers,
    regression,
)
from .small_models import (
    FLOAT64,
    asymmetric_graph,
    count_parameters,
    inputs,
    measure_memory,
    metr_la_shape,
    supports_of,
)


def build(sizes: ModelShape | None = None, **options: object) -> GraphWaveNet:
    """A small model, its parameters and running statistics away from their start."""
    model = small_models.build("graph-wavenet", sizes, **options)
    assert isinstance(model, GraphWaveNet)
    for norm in model.norms:
        assert isinstance(norm, nn.BatchNorm1d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return model


def reference_norm(norm: nn.Module, samples: list[list[Tensor]]) -> None:
    """Normalise every step of every sample in place, by the statistics of all or running ones."""
    assert isinstance(norm, nn.BatchNorm1d)
    mean, variance = norm.running_mean, norm.running_var
    if norm.training:
        every = torch.stack([step for steps in samples for step in steps]).flatten(0, 1)
        mean = every.mean(dim=0)
        variance = ((every - mean) ** 2).mean(dim=0)
    assert mean is not None
    assert variance is not None
    for steps in samples:
        for position, step in enumerate(steps):
            scaled = (step - mean) / torch.sqrt(variance + norm.eps)
            steps[position] = scaled * norm.weight + norm.bias


def reference(model: GraphWaveNet, x: Tensor) -> Tensor:
    """The whole model: sample by sample, step by step, all steps of all skip connections."""
    hidden, hops = model.config.hidden, model.config.hops
    walked_powers = powers(dense_walks(asymmetric_graph()), hops)
    learned = dense_adjacency(
        model.source_embedding, model.target_embedding, model.config.adjacency
    )
    learned_powers = powers([learned], hops)[1:]

    missing = max(0, model.config.receptive_field - x.shape[1])
    samples = []
    for sample in x:
        padded = [torch.zeros_like(sample[0])] * missing + list(sample)
        samples.append([affine(model.entrance, row) for row in padded])
    skips: list[list[Tensor]] = [[] for _ in x]
    for layer, dilation in enumerate(model.config.dilations):
        gates, skip = model.temporal[layer], model.skips[layer]
        for number, steps in enumerate(samples):
            z = []
            for first in range(len(steps) - (len(gates.weight) - 1) * dilation):
                taps = [steps[first + k * dilation] @ w for k, w in enumerate(gates.weight)]
                into = sum(taps) + gates.bias
                z.append(torch.tanh(into[:, :hidden]) * torch.sigmoid(into[:, hidden:]))
            skipped = [affine(skip, step) for step in z]
            before = skips[number][-len(z) :] or [torch.zeros_like(skipped[0])] * len(z)
            skips[number] = [one + other for one, other in zip(before, skipped, strict=True)]
            if layer == len(model.norms):
                continue
            spatial, after = model.spatial[layer], []
            for step in z:
                walked = [
                    p @ step @ w for p, w in zip(walked_powers, spatial.weight_walks, strict=True)
                ]
                adapted = [
                    p @ step @ w
                    for p, w in zip(learned_powers, spatial.weight_adaptive, strict=True)
                ]
                after.append(sum(walked) + sum(adapted) + spatial.bias)
            residuals = steps[-len(z) :]
            samples[number] = [one + other for one, other in zip(after, residuals, strict=True)]
        if layer < len(model.norms):
            reference_norm(model.norms[layer], samples)
    forecasts = []
    for steps in skips:
        end = affine(model.end, torch.relu(steps[-1]))
        forecasts.append(regression(model, torch.relu(end)))
    return torch.stack(forecasts)


@pytest.mark.parametrize("adjacency", ["dense", "low-rank"])
@pytest.mark.parametrize("hops", [1, 2])
def test_forecasts_and_gradients_equal_the_dense_reference(adjacency: str, hops: int) -> None:
    """Of the default depth, in evaluation."""
    model = build(adjacency=adjacency, hops=hops).double()
    assert_equals_reference(model, inputs(FLOAT64), reference, atol=1e-11)


@pytest.mark.parametrize(
    ("blocks", "layers", "kernel", "field"), [(2, 1, 2, 3), (2, 3, 2, 15), (2, 2, 3, 13)]
)
def test_other_depths_equal_the_dense_reference(
    blocks: int, layers: int, kernel: int, field: int
) -> None:
    """Receptive fields shorter and longer than the 12 rows of input."""
    model = build(blocks=blocks, layers=layers, kernel=kernel).double()
    assert model.config.receptive_field == field
    rows = inputs(FLOAT64)
    rows = rows if field > 12 else rows[:, -field:]
    assert_equals_reference(model, rows, reference, atol=1e-11)


def test_training_equals_the_dense_reference() -> None:
    """Normalised by the statistics of the batch, through which gradients flow too."""
    model = build(dropout=0.0, blocks=2).double().train()
    assert_equals_reference(model, inputs(FLOAT64)[:, -7:], reference, atol=1e-11)


def test_only_the_receptive_field_is_seen() -> None:
    """Of 20 rows the last 13, and the forecast is that of these 13 alone."""
    long, short = small_models.shape(input_steps=20), small_models.shape(input_steps=13)
    model = build(long).double()
    x = inputs(FLOAT64, sizes=long).requires_grad_()
    forecast = model(x, supports_of(model).double())
    (gradient,) = torch.autograd.grad(forecast.square().sum(), x)
    assert (gradient[:, :7] == 0).all()
    assert (gradient[:, 7:].abs().sum(dim=(0, 2, 3)) > 0).all()
    other = build(short).double()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x[:, 7:], supports_of(other).double()), forecast)


def test_parameters_are_as_many_as_published() -> None:
    """309,400 on METR-LA, less what the released code has and never uses."""
    model = GraphWaveNet(GraphWaveNetConfig(), metr_la_shape())
    embeddings, entrance = 2 * 207 * 10, 2 * 32 + 32
    gates, residual, skip = 2 * (2 * 32 * 32 + 32), 32 * 32 + 32, 32 * 256 + 256
    graph_convolution, norm = (1 + 3 * 2) * 32 * 32 + 32, 2 * 32
    head = 256 * 512 + 512 + 512 * 12 + 12
    layer = gates + residual + skip + graph_convolution + norm
    published = embeddings + entrance + 8 * layer + head
    assert published == 309_400
    unused = 8 * residual + graph_convolution + norm
    assert count_parameters(model) == published - unused == 293_688


@pytest.mark.parametrize("checkpointing", [False, True])
def test_running_statistics_are_updated_once(*, checkpointing: bool) -> None:
    """By forward and backward together, whether activations are kept or made again."""
    model = build().train()
    model.activation_checkpointing = checkpointing
    expected = copy.deepcopy(model)
    expected.activation_checkpointing = False
    for each in (model, expected):
        torch.manual_seed(1)
        forecast = each(inputs(), supports_of(each))
        if each is model:
            forecast.sum().backward()
    for norm, other in zip(model.norms, expected.norms, strict=True):
        assert norm.num_batches_tracked == other.num_batches_tracked == 1
        assert torch.equal(norm.running_mean, other.running_mean)
        assert torch.equal(norm.running_var, other.running_var)


def test_recomputation_takes_a_fraction_of_the_memory() -> None:
    """Half stays alive between the passes."""
    model = build(hidden=32).train()
    x = inputs(batch=64)
    stored, _ = measure_memory(model, x)
    model.activation_checkpointing = True
    fewer, _ = measure_memory(model, x)
    assert fewer < stored / 2, (fewer, stored)


def test_dropout_is_for_training_alone() -> None:
    """It changes forecasts in training and none in evaluation."""
    model, without, x = build(dropout=0.5), build(dropout=0.0), inputs()
    supports = supports_of(model)
    assert torch.equal(model(x, supports), without(x, supports))
    for each in (model, without):
        each.train()
        for norm in each.norms:
            norm.eval()
    assert not torch.isclose(model(x, supports), model(x, supports)).all()
    assert torch.equal(without(x, supports), without.eval()(x, supports))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kernel": 1}, "kernel is 1: it must be at least 2"),
        ({"blocks": 0}, "blocks is 0"),
        ({"blocks": 1, "layers": 1}, "blocks and layers are 1: .* use two layers or more"),
        ({"dropout": 1.0}, r"dropout is 1\.0: it must be below 1"),
        ({"dropout": -0.1}, r"dropout is -0\.1: it must be at least 0"),
        ({"adjacency": "sparse"}, "adjacency is 'sparse': choose one of auto, dense, low-rank"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], words: str) -> None:
    """One line: what, the value, the rule."""
    with pytest.raises(ConfigError, match=words):
        build_config("graph-wavenet", options)
