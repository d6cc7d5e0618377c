"""The GRU against its equations: sample by sample, sensor by sensor, step by step."""

from itertools import product

import pytest
import torch
from torch import Tensor

from pgti.errors import ConfigError
from pgti.models import GRU, build_config
from pgti.nn import ChunkLimits

from .dense_reference import assert_equals_reference, sigmoid
from .small_models import (
    BATCH,
    FLOAT64,
    HORIZON,
    NUM_NODES,
    TARGETS,
    build,
    count_parameters,
    inputs,
    measure_memory,
    shape,
    supports_of,
)


def build_gru(**options: object) -> GRU:
    """A small GRU."""
    model = build("gru", **options)
    assert isinstance(model, GRU)
    return model


def reference_step(weights: dict[str, Tensor], layer: int, x: Tensor, h: Tensor) -> Tensor:
    """One step of one layer of one sequence; torch stacks the gates in the order r, z, n."""
    from_x = weights[f"{layer}.weight_ih_l0"] @ x + weights[f"{layer}.bias_ih_l0"]
    from_h = weights[f"{layer}.weight_hh_l0"] @ h + weights[f"{layer}.bias_hh_l0"]
    (r_x, z_x, n_x), (r_h, z_h, n_h) = from_x.chunk(3), from_h.chunk(3)
    r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
    n = torch.tanh(n_x + r * n_h)
    return (1 - z) * n + z * h


def reference(model: GRU, x: Tensor) -> Tensor:
    """Every sequence on its own."""
    weights = dict(model.encoder.named_parameters())
    forecasts = x.new_zeros(BATCH, HORIZON, NUM_NODES, TARGETS)
    for sample, node in product(range(BATCH), range(NUM_NODES)):
        states = [x.new_zeros(model.config.hidden) for _ in range(model.config.layers)]
        for signal in x[sample, :, node]:
            below = signal
            for layer, state in enumerate(states):
                states[layer] = below = reference_step(weights, layer, below, state)
        output = model.regression.weight @ states[-1] + model.regression.bias
        forecasts[sample, :, node] = output.view(HORIZON, TARGETS)
    return forecasts


@pytest.mark.parametrize("layers", [1, 2])
def test_forecasts_and_gradients_equal_the_equations(layers: int) -> None:
    """Outputs and the gradients of all parameters and inputs, in float64."""
    model = build_gru(layers=layers).double()
    assert_equals_reference(model, inputs(FLOAT64), reference)


def test_sensors_stay_apart() -> None:
    """A forecast depends on its own sensor alone."""
    model = build_gru()
    x = inputs().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x, supports_of(model))[:, :, 2].sum(), x)
    used = gradient.abs().sum(dim=(0, 1, 3)) > 0
    assert used.tolist() == [node == 2 for node in range(NUM_NODES)]


def test_sequences_are_read_a_few_at_a_time() -> None:
    """In evaluation, and where they are checkpointed: without a change of forecast or gradient."""
    model = build_gru().double()
    supports, x = supports_of(model), inputs(FLOAT64)
    parameters = list(model.parameters())
    expected = model(x, supports)
    gradients = torch.autograd.grad(expected.square().sum(), parameters)
    rows: list[int] = []
    model.encoder[0].register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[1]))
    numbers_a_row = x.shape[1] * 3 * model.config.hidden
    model.limits = ChunkLimits(activations=4 * numbers_a_row)
    with torch.no_grad():
        torch.testing.assert_close(model(x, supports), expected, rtol=1e-12, atol=1e-12)
    assert rows == [4] * 5 + [1]
    model.activation_checkpointing = True
    found = model(x, supports)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(found.square().sum(), parameters), gradients, rtol=1e-10, atol=1e-12
    )
    assert sorted(rows[6:]) == [1] * 2 + [4] * 10


def test_recomputation_takes_a_fraction_of_the_memory() -> None:
    """Little stays alive between the passes, and one part's activations at the peak."""
    model = build_gru(hidden=16)
    x = inputs(batch=32)
    model.limits = ChunkLimits(activations=32 * x.shape[1] * 3 * 16)
    stored, peak = measure_memory(model, x)
    model.activation_checkpointing = True
    fewer, lower = measure_memory(model, x)
    assert fewer < stored / 10, (fewer, stored, lower, peak)
    assert lower < peak / 3, (fewer, stored, lower, peak)


@pytest.mark.parametrize("layers", [1, 2])
def test_dropout_acts_in_training_alone(layers: int) -> None:
    """After every layer, the last one included: where all is dropped, the bias is left."""
    model, x = build_gru(layers=layers, dropout=0.999999), inputs()
    supports = supports_of(model)
    assert torch.equal(model(x, supports), model(x, supports))
    model.train()
    bias = model.regression.bias.view(HORIZON, 1, TARGETS)
    torch.testing.assert_close(model(x, supports), bias.expand(BATCH, HORIZON, NUM_NODES, TARGETS))


def test_parameters_are_as_many_as_the_equations_have() -> None:
    """3 D (C + D) weights and 6 D biases of each layer, and the map of the last state."""
    model = build_gru(hidden=64, layers=2)
    channels, hidden = shape().input_channels, 64
    layers = [3 * hidden * (width + hidden) + 6 * hidden for width in (channels, hidden)]
    expected = sum(layers) + (hidden + 1) * HORIZON * TARGETS
    assert count_parameters(model) == expected


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_wrong_dropout_is_named(dropout: float) -> None:
    """One line: what, the value, the rule."""
    with pytest.raises(ConfigError, match=f"dropout is {dropout}: it must be"):
        build_config("gru", {"dropout": dropout})
