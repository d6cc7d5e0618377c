"""The recurrent layer: its formula, its gradients, its initial weights."""

import math

import pytest
import torch
from torch import Tensor

from pgti.graph import SensorGraph, dual_random_walk
from pgti.memory import LiveBytes
from pgti.nn import DiffusionGRU, Supports
from pgti.nn.recurrent import gated_recurrence

from ..models.dense_reference import powers
from .random_graphs import asymmetric_graph

FLOAT64 = torch.float64


def reference_states(layer: DiffusionGRU, x: Tensor, h: Tensor, graph: SensorGraph) -> Tensor:
    """The paper's equations on dense matrices, one gate and one time step at a time."""
    size, num_hops = layer.hidden, layer.weight_input.shape[0]
    walks = [torch.tensor(s.toarray()).to(x.dtype) for s in dual_random_walk(graph)]
    terms = powers(walks, num_hops // 2)

    def convolve(inputs: Tensor, state: Tensor, gate: int) -> Tensor:
        part = slice(gate * size, (gate + 1) * size)
        hidden_weight = layer.weight_gates[..., part] if gate < 2 else layer.weight_candidate
        weight = torch.cat([layer.weight_input[..., part], hidden_weight], dim=1)
        joined = torch.cat([inputs, state], dim=-1)
        products = [
            torch.einsum("nm,mbc,co->nbo", power, joined, matrix)
            for power, matrix in zip(terms, weight, strict=True)
        ]
        return torch.stack(products).sum(dim=0) + layer.bias[part]

    states = []
    for inputs in x:
        r = torch.sigmoid(convolve(inputs, h, 0))
        u = torch.sigmoid(convolve(inputs, h, 1))
        c = torch.tanh(convolve(inputs, r * h, 2))
        h = u * h + (1 - u) * c
        states.append(h)
    return torch.stack(states)


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize("channels", [2, 17])
def test_states_and_gradients_equal_the_equations(hops: int, channels: int) -> None:
    """Every state, and the gradient of every input and weight, through five steps."""
    graph = asymmetric_graph(5, seed=2)
    supports = Supports.from_graph(graph).double()
    torch.manual_seed(hops)
    layer = DiffusionGRU(channels, 4, 2, hops).double()
    x = torch.randn(5, 5, 3, channels, dtype=FLOAT64, requires_grad=True)
    h = torch.randn(5, 3, 4, dtype=FLOAT64, requires_grad=True)
    states, last = layer(x, h, supports)
    expected = reference_states(layer, x, h, graph)
    torch.testing.assert_close(states, expected, rtol=1e-10, atol=1e-12)
    assert torch.equal(last, states[-1])

    seed, seed_last = torch.randn_like(states), torch.randn_like(last)
    wanted = (x, h, *layer.parameters())
    found = torch.autograd.grad((states, last), wanted, (seed, seed_last))
    correct = torch.autograd.grad((expected, expected[-1]), wanted, (seed, seed_last))
    for one, other in zip(found, correct, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("used", ["states", "last"])
def test_either_output_may_go_unused(used: str) -> None:
    """Gradients are right when only the states, or only the last one, reach the loss."""
    supports = Supports.from_graph(asymmetric_graph(5, seed=2)).double()
    layer = DiffusionGRU(1, 2, 2, 1).double()
    x = torch.randn(3, 5, 1, 1, dtype=FLOAT64, requires_grad=True)
    h = torch.randn(5, 1, 2, dtype=FLOAT64, requires_grad=True)
    output = ["states", "last"].index(used)
    inputs = (x, h, *layer.parameters())
    assert torch.autograd.gradcheck(lambda x, h, *_: layer(x, h, supports)[output], inputs)


@pytest.mark.usefixtures("_both_ways")
def test_gradients_may_come_in_any_layout() -> None:
    """Whatever is done with the last state, such as turning it around."""
    supports = Supports.from_graph(asymmetric_graph(5, seed=2)).double()
    layer = DiffusionGRU(2, 4, 2, 2).double()
    x = torch.randn(3, 5, 3, 2, dtype=FLOAT64, requires_grad=True)
    h = torch.randn(5, 3, 4, dtype=FLOAT64, requires_grad=True)

    def turned(x: Tensor, h: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        states, last = layer(x, h, supports)
        return states.permute(2, 0, 3, 1), last.transpose(0, 1)

    assert torch.autograd.gradcheck(turned, (x, h, *layer.parameters()))


def test_no_state_is_a_state_of_zeros() -> None:
    """A layer may start from zeros without being given them: same states, same gradients."""
    supports = Supports.from_graph(asymmetric_graph(5, seed=2)).double()
    layer = DiffusionGRU(2, 3, 2, 2).double()
    x = torch.randn(4, 5, 2, 2, dtype=FLOAT64, requires_grad=True)
    zeros = torch.zeros(5, 2, 3, dtype=FLOAT64)
    wanted = (x, *layer.parameters())
    for num_steps in (1, 4):
        seed = torch.randn(num_steps, 5, 2, 3, dtype=FLOAT64)
        outcomes = []
        for start in (zeros, None):
            states, last = layer(x[:num_steps], start, supports)
            assert torch.equal(last, states[-1])
            outcomes.append((states, *torch.autograd.grad(states, wanted, seed)))
        for given, spared in zip(*outcomes, strict=True):
            torch.testing.assert_close(spared, given, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("_both_ways")
def test_states_do_not_depend_on_gradients_being_wanted() -> None:
    """Without gradients buffers are reused from step to step; the states are the same bits."""
    supports = Supports.from_graph(asymmetric_graph(5, seed=2))
    layer = DiffusionGRU(2, 3, 2, 2)
    x, h = torch.randn(4, 5, 2, 2), torch.randn(5, 2, 3)
    with_gradients, _ = layer(x, h, supports)
    with torch.no_grad():
        without, _ = layer(x, h, supports)
    assert torch.equal(with_gradients, without)


def test_evaluation_keeps_the_gates_of_one_step() -> None:
    """Although the weights are to be trained."""
    supports = Supports.from_graph(asymmetric_graph(5, seed=2))
    layer = DiffusionGRU(2, 64, 2, 2)
    inputs, state = torch.randn(40, 5, 2, 192), torch.randn(5, 2, 64)
    weights = (layer.weight_gates, layer.weight_candidate)
    peaks = []
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled), LiveBytes() as memory:
            states, _ = gated_recurrence(inputs, state, *weights, supports)
        peaks.append(memory.peak_bytes / states.nbytes)
    assert peaks[0] > 4
    assert peaks[1] < 2


def test_weights_start_as_in_the_released_code() -> None:
    """Bounds of the flattened matrices are reached and kept; biases are 1, 1, 0."""
    torch.manual_seed(0)
    channels, size, hops = 3, 40, 2
    layer = DiffusionGRU(channels, size, 2, hops)
    fan_in = (1 + 2 * hops) * (channels + size)
    gates, candidate = math.sqrt(6 / (fan_in + 2 * size)), math.sqrt(6 / (fan_in + size))
    for weight, bound in [
        (layer.weight_gates, gates),
        (layer.weight_input[..., : 2 * size], gates),
        (layer.weight_candidate, candidate),
        (layer.weight_input[..., 2 * size :], candidate),
    ]:
        assert 0.98 * bound < weight.abs().max() <= bound
        assert weight.mean().abs() < 0.1 * bound
    assert (layer.bias[: 2 * size] == 1).all()
    assert (layer.bias[2 * size :] == 0).all()


def test_second_derivatives_are_refused_in_words() -> None:
    """The hand-written backward pass says so, even under a constant gradient."""
    supports = Supports.from_graph(asymmetric_graph(5, seed=2))
    layer = DiffusionGRU(2, 3, 2, 1)
    x = torch.randn(2, 5, 1, 2, requires_grad=True)
    states, _ = layer(x, torch.zeros(5, 1, 3), supports)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        torch.autograd.grad(states.sum(), x, create_graph=True)


def test_autocast_stays_close_over_many_steps() -> None:
    """In bfloat16 products, 24 steps of states and the gradients stay near the float32 ones."""
    supports = Supports.from_graph(asymmetric_graph(20, seed=2))
    torch.manual_seed(0)
    layer = DiffusionGRU(2, 16, 2, 2)
    x, h = torch.randn(24, 20, 4, 2), torch.zeros(20, 4, 16)
    exact, _ = layer(x, h, supports)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _ = layer(x, h, supports)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 0.02
    parameters = list(layer.parameters())
    for one, other in zip(
        torch.autograd.grad(rounded.square().sum(), parameters),
        torch.autograd.grad(exact.square().sum(), parameters),
        strict=True,
    ):
        assert (one - other).norm() <= 0.02 * other.norm()
