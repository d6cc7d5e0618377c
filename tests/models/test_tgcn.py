"""T-GCN against a dense float64 reference."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pgti.models import TGCN, TGCNConfig
from pgti.nn import ChunkLimits

from .dense_reference import assert_equals_reference, regression, round_as_supports, sigmoid
from .small_models import (
    FLOAT64,
    INPUT_STEPS,
    NUM_NODES,
    asymmetric_graph,
    build,
    count_parameters,
    inputs,
    measure_memory,
    metr_la_shape,
    supports_of,
)


def build_tgcn(**options: object) -> TGCN:
    """A small T-GCN."""
    model = build("tgcn", **options)
    assert isinstance(model, TGCN)
    return model


def reference_operator() -> Tensor:
    """D^-1/2 (A + I)^T D^-1/2 entry by entry."""
    looped = asymmetric_graph().adjacency.toarray().astype(np.float64) + np.eye(NUM_NODES)
    degrees = looped.sum(axis=1)
    operator = np.empty_like(looped)
    for row in range(NUM_NODES):
        for column in range(NUM_NODES):
            scale = np.sqrt(degrees[row] * degrees[column])
            operator[row, column] = looped[column, row] / scale
    return round_as_supports(operator)


def reference_states(cell: nn.Module, sample: Tensor) -> list[Tensor]:
    """States [N, D] of one sample [L, N, C]: one gate, one graph convolution of [x, h] each."""
    weights, operator = dict(cell.named_parameters()), reference_operator()
    size = len(weights["weight_candidate"])

    def convolve(x: Tensor, h: Tensor, gate: int) -> Tensor:
        columns = slice(gate * size, (gate + 1) * size)
        from_state = (
            weights["weight_gates"][:, columns] if gate < 2 else weights["weight_candidate"]
        )
        weight = torch.cat([weights["weight_input"][:, columns], from_state])
        return operator @ torch.cat([x, h], dim=1) @ weight + weights["bias"][columns]

    h, states = sample.new_zeros(NUM_NODES, size), []
    for x in sample:
        r, u = sigmoid(convolve(x, h, 0)), sigmoid(convolve(x, h, 1))
        c = torch.tanh(convolve(x, r * h, 2))
        h = u * h + (1 - u) * c
        states.append(h)
    return states


def reference(model: TGCN, x: Tensor) -> Tensor:
    """The whole model, sample by sample."""
    return torch.stack([regression(model, reference_states(model.cell, each)[-1]) for each in x])


def test_forecasts_and_gradients_equal_the_dense_reference() -> None:
    """Outputs and the gradients of all parameters and inputs, in float64."""
    assert_equals_reference(build_tgcn().double(), inputs(FLOAT64), reference)


def test_parameters_are_as_many_as_in_the_released_code() -> None:
    """One speed, 64 units, 3 steps: a convolution for both gates, one for the candidate, a head."""
    model = TGCN(TGCNConfig(), metr_la_shape(horizon=3, input_channels=1, calendar=()))
    expected = (65 * 128 + 128) + (65 * 64 + 64) + (64 * 3 + 3)
    assert count_parameters(model) == expected == 12_867
    assert model.cell.bias.tolist() == [1.0] * 128 + [0.0] * 64


@pytest.mark.parametrize("steps", [1, 5])
def test_evaluation_reads_a_few_steps_at_a_time(steps: int) -> None:
    """The state is carried from part to part."""
    model, x = build_tgcn().double(), inputs(FLOAT64)
    supports = supports_of(model).double()
    expected = model(x, supports)
    numbers_a_step = x.shape[0] * NUM_NODES * 3 * model.config.hidden
    model.limits = ChunkLimits(activations=steps * numbers_a_step)
    with torch.no_grad():
        parts = list(model.read(x, supports))
        assert len(parts) == -(-INPUT_STEPS // steps)
        torch.testing.assert_close(model(x, supports), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["tgcn", "a3tgcn"])
def test_recomputation_keeps_little_more_than_the_states(name: str) -> None:
    """Between the passes; at the peak, what lies between two states comes on top."""
    model, x = build(name, hidden=32), inputs(batch=64)
    states_bytes = INPUT_STEPS * 64 * NUM_NODES * 32 * 4
    stored, peak = measure_memory(model, x)
    model.activation_checkpointing = True
    fewer, lower = measure_memory(model, x)
    assert stored > 5 * states_bytes, (stored, states_bytes)
    assert fewer < 1.25 * states_bytes, (fewer, states_bytes)
    assert lower < peak / 2, (fewer, stored, lower, peak)
