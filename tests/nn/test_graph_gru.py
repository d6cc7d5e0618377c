"""The graph-convolutional GRU: states that go on, recomputation, precision."""

import pytest
import torch

from pgti.nn import GraphGRU, Supports, checkpointed, without_autocast

from ..models.dense_reference import assert_same
from .random_graphs import asymmetric_graph

FLOAT64 = torch.float64
STEPS, NODES, BATCH, CHANNELS, HIDDEN = 6, 5, 3, 2, 4


@pytest.mark.usefixtures("_both_ways")
def test_states_and_gradients_equal_the_equations() -> None:
    """From a given state; every state and the gradient of every input and weight."""
    torch.manual_seed(0)
    supports = Supports.from_graph(asymmetric_graph(NODES, 0.5, seed=2), "renormalized").double()
    operator = supports.product(0, torch.eye(NODES, dtype=FLOAT64))
    cell = GraphGRU(CHANNELS, HIDDEN).double()
    x = torch.randn(STEPS, NODES, BATCH, CHANNELS, dtype=FLOAT64, requires_grad=True)
    h = torch.randn(NODES, BATCH, HIDDEN, dtype=FLOAT64, requires_grad=True)
    found = torch.stack(cell(x, h, supports))

    state, states = h, []
    for signal in x:

        def convolve(kept: torch.Tensor, gate: int, signal: torch.Tensor = signal) -> torch.Tensor:
            part = slice(gate * HIDDEN, (gate + 1) * HIDDEN)
            weight = cell.weight_gates[:, part] if gate < 2 else cell.weight_candidate
            weight = torch.cat([cell.weight_input[:, part], weight])
            joined = torch.cat([signal, kept], dim=-1)
            return torch.einsum("nm,mbc,co->nbo", operator, joined, weight) + cell.bias[part]

        r, u = torch.sigmoid(convolve(state, 0)), torch.sigmoid(convolve(state, 1))
        state = u * state + (1 - u) * torch.tanh(convolve(r * state, 2))
        states.append(state)
    expected = torch.stack(states)

    assert_same(found, expected, (x, h, *cell.parameters()), looser=1)


def test_no_state_is_a_state_of_zeros_and_pieces_are_the_whole() -> None:
    """However the steps are cut, checkpointed or not."""
    torch.manual_seed(0)
    supports = Supports.from_graph(asymmetric_graph(NODES, 0.5, seed=2), "renormalized").double()
    cell = GraphGRU(CHANNELS, HIDDEN).double()
    x = torch.randn(STEPS, NODES, BATCH, CHANNELS, dtype=FLOAT64)
    expected = cell(x, x.new_zeros(NODES, BATCH, HIDDEN), supports)
    torch.testing.assert_close(cell(x, None, supports), expected, rtol=1e-12, atol=1e-13)
    gradients = torch.autograd.grad(expected[-1].sum(), list(cell.parameters()))
    for checkpointing in (False, True):
        states: list[torch.Tensor] = []
        for part in torch.split(x, 4):
            before = states[-1] if states else None
            args = (part, before, supports)
            states += checkpointed(cell, *args) if checkpointing else cell(*args)
        torch.testing.assert_close(states, expected, rtol=1e-12, atol=1e-13)
        found = torch.autograd.grad(states[-1].sum(), list(cell.parameters()))
        torch.testing.assert_close(found, gradients, rtol=1e-10, atol=1e-12)


def test_states_keep_full_precision_under_autocast() -> None:
    """Products are rounded; what is carried on is not."""
    torch.manual_seed(0)
    supports = Supports.from_graph(asymmetric_graph(NODES, 0.5, seed=2), "renormalized")
    cell, x = GraphGRU(CHANNELS, HIDDEN), torch.randn(STEPS, NODES, BATCH, CHANNELS)
    exact = cell(x, None, supports)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = cell(x, None, supports)
    assert all(state.dtype == torch.float32 for state in rounded)
    assert not torch.equal(rounded[-1], exact[-1])
    torch.testing.assert_close(rounded[-1], exact[-1], rtol=0, atol=0.02)


def test_autocast_steps_aside() -> None:
    """On a device that has it and on one that has not."""
    ones = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert (ones @ ones).dtype == torch.bfloat16
        with without_autocast(torch.device("cpu")):
            assert (ones @ ones).dtype == torch.float32
    with without_autocast(torch.device("meta")):
        assert (ones.to("meta") @ ones.to("meta")).dtype == torch.float32
