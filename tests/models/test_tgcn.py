"""T-GCN against a dense float64 reference."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pgti.memory import LiveBytes
from pgti.models import TGCN, ModelShape, TGCNConfig
from pgti.nn import ChunkLimits

from .cases import (
    FLOAT64,
    HORIZON,
    INPUT_STEPS,
    NUM_NODES,
    TARGETS,
    asymmetric_graph,
    build,
    inputs,
    supports_of,
)


def build_tgcn(**options: object) -> TGCN:
    """A small T-GCN."""
    model = build("tgcn", **options)
    assert isinstance(model, TGCN)
    return model


def reference_operator() -> Tensor:
    """D^-1/2 (A + I)^T D^-1/2 entry by entry, then rounded as supports are."""
    looped = asymmetric_graph().adjacency.toarray().astype(np.float64) + np.eye(NUM_NODES)
    degrees = looped.sum(axis=1)
    operator = np.empty_like(looped)
    for row in range(NUM_NODES):
        for column in range(NUM_NODES):
            scale = np.sqrt(degrees[row] * degrees[column])
            operator[row, column] = looped[column, row] / scale
    return torch.tensor(operator.astype(np.float32)).to(FLOAT64)


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
        r = 1 / (1 + torch.exp(-convolve(x, h, 0)))
        u = 1 / (1 + torch.exp(-convolve(x, h, 1)))
        c = torch.tanh(convolve(x, r * h, 2))
        h = u * h + (1 - u) * c
        states.append(h)
    return states


def reference_forecast(head: nn.Linear, state: Tensor) -> Tensor:
    """All steps of one sample from one state: [H, N, C_out]."""
    output = state @ head.weight.T + head.bias
    return output.view(NUM_NODES, HORIZON, TARGETS).transpose(0, 1)


def test_forecasts_and_gradients_equal_the_dense_reference() -> None:
    """Outputs and the gradients of all parameters and inputs, in float64."""
    model = build_tgcn().double()
    x = inputs(FLOAT64).requires_grad_()
    found = model(x, supports_of(model).double())
    last_states = [reference_states(model.cell, sample)[-1] for sample in x]
    expected = torch.stack([reference_forecast(model.regression, state) for state in last_states])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    seed = torch.randn_like(found)
    wanted = (x, *model.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(found, wanted, seed),
        torch.autograd.grad(expected, wanted, seed),
        rtol=1e-9,
        atol=1e-11,
    )


def test_parameters_are_as_many_as_in_the_released_code() -> None:
    """One speed, 64 units, 3 steps: a convolution for both gates, one for the candidate, a head."""
    sizes = ModelShape(
        input_steps=12,
        horizon=3,
        num_nodes=207,
        input_channels=1,
        target_channels=1,
        target_indices=(0,),
    )
    model = TGCN(TGCNConfig(), sizes)
    expected = (65 * 128 + 128) + (65 * 64 + 64) + (64 * 3 + 3)
    assert sum(each.numel() for each in model.parameters()) == expected == 12_867
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
        parts = list(model.cell.read(x.permute(1, 2, 0, 3), supports, limits=model.limits))
        assert len(parts) == -(-INPUT_STEPS // steps)
        torch.testing.assert_close(model(x, supports), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["tgcn", "a3tgcn"])
def test_recomputation_keeps_little_more_than_the_states(name: str) -> None:
    """Between the passes; at the peak, what lies between two states comes on top."""
    model = build(name, hidden=32)
    supports, x = supports_of(model), inputs(batch=64)
    states_bytes = INPUT_STEPS * 64 * NUM_NODES * 32 * 4

    def measure() -> tuple[int, int]:
        with LiveBytes() as memory:
            forecasts = model(x, supports)
            kept = memory.alive_bytes
            forecasts.sum().backward()
        return kept, memory.peak_bytes

    kept, peak = measure()
    model.activation_checkpointing = True
    fewer, lower = measure()
    assert kept > 5 * states_bytes, (kept, states_bytes)
    assert fewer < 1.25 * states_bytes, (fewer, states_bytes)
    assert lower < peak / 2, (fewer, kept, lower, peak)
