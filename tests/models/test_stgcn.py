"""STGCN against a dense float64 reference, and what its docstring promises."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.graph import SensorGraph
from pgti.models import STGCN, STGCNConfig, build_model

from .dense_reference import (
    affine,
    assert_equals_reference,
    chebyshev,
    regression,
    round_as_supports,
    sigmoid,
)
from .small_models import (
    FLOAT64,
    asymmetric_graph,
    build,
    count_parameters,
    inputs,
    metr_la_shape,
    shape,
    supports_of,
)


def reference_laplacian(graph: SensorGraph, *, self_loops: bool) -> Tensor:
    """2 L / lambda_max - I from the definitions."""
    adjacency = graph.adjacency.toarray().astype(np.float64)
    weights = np.maximum(adjacency, adjacency.T)
    if not self_loops:
        np.fill_diagonal(weights, 0)
    num_nodes = len(weights)
    laplacian = np.eye(num_nodes)
    degrees = weights.sum(axis=1)
    for row in range(num_nodes):
        for column in range(num_nodes):
            if weights[row, column]:
                laplacian[row, column] -= weights[row, column] / np.sqrt(
                    degrees[row] * degrees[column]
                )
    scaled = 2 / np.linalg.eigvalsh(laplacian)[-1] * laplacian - np.eye(num_nodes)
    return round_as_supports(scaled)


def reference_gate(layer: nn.Module, x: Tensor) -> Tensor:
    """(a + x) . sigmoid(b) for one sample, [L, N, C] -> [L - K + 1, N, D], step by step."""
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    taps, inputs_, width = weight.shape[0], weight.shape[1], weight.shape[2] // 2
    steps = []
    for first in range(len(x) - taps + 1):
        both = bias + sum(x[first + tap] @ weight[tap] for tap in range(taps))
        a, b = both[:, :width], both[:, width:]
        if inputs_ <= width:
            newest = x[first + taps - 1]
            a = a + torch.cat([newest, newest.new_zeros(len(newest), width - inputs_)], dim=1)
        steps.append(a * sigmoid(b))
    return torch.stack(steps)


def reference_filter(layer: nn.Module, x: Tensor, laplacian: Tensor) -> Tensor:
    """sum_k T_k(L) x W_k for one sample, step by step, with the polynomials as matrices."""
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    polynomials = chebyshev(laplacian, len(weight))
    return torch.stack(
        [bias + sum(polynomials[k] @ step @ weight[k] for k in range(len(weight))) for step in x]
    )


def reference_norm(layer: nn.Module, x: Tensor) -> Tensor:
    """Over all nodes and channels of each step, a gain and an offset for each."""
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    steps = []
    for step in x:
        deviation = step - step.mean()
        variance = deviation.square().mean()
        steps.append(deviation / torch.sqrt(variance + 1e-6) * weight + bias)
    return torch.stack(steps)


def reference(model: STGCN, x: Tensor) -> Tensor:
    """The whole model, sample by sample."""
    graph, self_loops = asymmetric_graph(), model.config.self_loops
    assert graph.adjacency.diagonal().any()
    laplacian = reference_laplacian(graph, self_loops=self_loops)
    shortest = 1 + model.config.blocks * 2 * (model.config.kernel - 1)
    samples = []
    for sample in x:
        state = sample
        if len(state) < shortest:
            state = torch.cat([state.new_zeros(shortest - len(state), *state.shape[1:]), state])
        for block in model.blocks:
            state = reference_gate(block.get_submodule("before"), state)
            state = reference_filter(block.get_submodule("filter"), state, laplacian).clamp(min=0)
            state = reference_gate(block.get_submodule("after"), state)
            state = reference_norm(block.get_submodule("norm"), state)
        state = reference_norm(model.norm, reference_gate(model.temporal, state))
        assert len(state) == 1
        samples.append(regression(model, affine(model.end, state[0]).clamp(min=0)))
    return torch.stack(samples)


@pytest.mark.parametrize(
    ("options", "input_steps"),
    [
        ({}, 12),
        ({"hops": 1, "kernel": 2, "blocks": 3}, 12),
        ({"hops": 4, "hidden": 4, "bottleneck": 5}, 9),  # fewer channels than inputs
        ({"kernel": 1}, 3),
        ({"self_loops": True}, 9),
        ({}, 5),  # padded
    ],
)
def test_forecasts_and_gradients_equal_the_dense_reference(
    options: dict[str, object], input_steps: int
) -> None:
    """In evaluation, where dropout does nothing, in float64."""
    sizes = shape(input_steps=input_steps)
    model = build("stgcn", sizes, **options).double()
    assert isinstance(model, STGCN)
    assert_equals_reference(model, inputs(FLOAT64, sizes), reference, atol=1e-10)


def test_short_inputs_are_padded_with_zeros() -> None:
    """Five rows are nine rows that begin with four of zeros."""
    short, long = (build("stgcn", shape(input_steps=steps)) for steps in (5, 9))
    long.load_state_dict(short.state_dict())
    x = inputs(sizes=shape(input_steps=5))
    padded = torch.cat([torch.zeros_like(x[:, :4]), x], dim=1)
    supports = supports_of(short)
    assert torch.equal(short(x, supports), long(padded, supports))


def test_dropout_zeroes_its_share_of_a_block() -> None:
    """In training alone, and what is kept is scaled up."""
    model = build("stgcn", dropout=0.25)
    block, supports = model.get_submodule("blocks.0"), supports_of(model)
    x_NBLC = torch.randn(7, 400, 6, 5)
    exact = block(x_NBLC, supports, model.limits)
    dropped = block.train()(x_NBLC, supports, model.limits)
    kept = dropped != 0
    assert abs(kept.double().mean() - 0.75) < 0.01
    torch.testing.assert_close(dropped[kept], exact[kept] / 0.75)


def test_parameters_are_as_many_as_published() -> None:
    """246,028 in the port that the field compares with, of which 12,256 belong to other layers.

    The port learns projections of residual connections and uses some of them: 128 + 1,040 + 1,088,
    4,160 + 1,040 + 1,088 and 8,320 numbers. It filters after such a projection, from 16 channels
    to 16 (784 numbers), where the paper's filter goes from 64 to 16 (3,088).
    """
    model = build_model("stgcn", {}, metr_la_shape(input_channels=1, calendar=()))
    projections = 128 + 1_040 + 1_088 + 4_160 + 1_040 + 1_088 + 8_320
    expected = 246_028 - projections + 2 * (3_088 - 784)
    assert count_parameters(model) == expected == 233_772


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 0}, "kernel is 0: it must be at least 1"),
        ({"hops": 0}, "hops is 0: it must be at least 1"),
        ({"dropout": 1.0}, r"dropout is 1\.0: it must be below 1"),
        ({"dropout": float("nan")}, "dropout is nan: it must be at least 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    """One line with the option, its value and the rule."""
    with pytest.raises(ConfigError, match=message):
        STGCNConfig(**options)  # type: ignore[arg-type]
