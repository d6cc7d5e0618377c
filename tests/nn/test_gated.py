"""The gated convolution over time against its equation."""

import pytest
import torch
from torch import Tensor

from pgti.nn import ChunkLimits, gated_convolution

FLOAT64 = torch.float64
NUM_STEPS, NUM_NODES, BATCH, CHANNELS, HIDDEN = 9, 3, 2, 4, 5


def arguments(taps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, weights and biases."""
    torch.manual_seed(0)
    x = torch.randn(NUM_STEPS, NUM_NODES, BATCH, CHANNELS, dtype=FLOAT64)
    weight = torch.randn(taps, CHANNELS, 2 * HIDDEN, dtype=FLOAT64)
    bias = torch.randn(2 * HIDDEN, dtype=FLOAT64)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def reference(x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
    """The tanh of the filter times the sigmoid of the gate, step by step."""
    steps = []
    for first in range(len(x) - (len(weight) - 1) * dilation):
        taps = [x[first + k * dilation] @ matrix for k, matrix in enumerate(weight)]
        filtered, gate = (sum(taps) + bias).split(HIDDEN, dim=-1)
        steps.append(torch.tanh(filtered) * torch.sigmoid(gate))
    return torch.stack(steps)


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize(("taps", "dilation"), [(1, 1), (2, 1), (2, 4), (3, 1), (3, 2), (2, 8)])
@pytest.mark.parametrize("limit", [1, 70, 1 << 18])
def test_outputs_and_gradients_equal_the_reference(taps: int, dilation: int, limit: int) -> None:
    """In chunks of any size; the last step, which is returned twice, adds both its gradients."""
    wanted = arguments(taps)
    found, last = gated_convolution(*wanted, dilation, ChunkLimits(gates=limit))
    expected = reference(*wanted, dilation)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
    assert torch.equal(last, found[-1])
    seed, last_seed = torch.randn_like(found), torch.randn_like(last)
    torch.testing.assert_close(
        torch.autograd.grad((found, last), wanted, (seed, last_seed), retain_graph=True),
        torch.autograd.grad((expected, expected[-1]), wanted, (seed, last_seed), retain_graph=True),
        rtol=1e-11,
        atol=1e-12,
    )
    for one, other, weights in ((found, expected, seed), (last, expected[-1], last_seed)):
        torch.testing.assert_close(
            torch.autograd.grad(one, wanted, weights, retain_graph=True),
            torch.autograd.grad(other, wanted, weights, retain_graph=True),
            rtol=1e-11,
            atol=1e-12,
        )


@pytest.mark.usefixtures("_both_ways")
def test_incoming_gradients_are_left_alone() -> None:
    """The gradient of the last step is added to a copy."""
    wanted = arguments(2)
    found, last = gated_convolution(*wanted, 1)
    seed = torch.randn_like(found)
    before = seed.clone()
    torch.autograd.grad((found, last), wanted, (seed, torch.ones_like(last)))
    assert torch.equal(seed, before)


@pytest.mark.usefixtures("_both_ways")
def test_autocast_is_accurate() -> None:
    """Rounded once a product, and float32 again."""
    x, weight, bias = (each.detach().float().requires_grad_() for each in arguments(2))
    exact, _ = gated_convolution(x, weight, bias, 2)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, last = gated_convolution(x, weight, bias, 2)
    assert rounded.dtype == last.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.05
    gradients = torch.autograd.grad(rounded.sum() + last.sum(), (x, weight, bias))
    assert all(each.dtype == torch.float32 for each in gradients)


def test_second_derivatives_are_refused() -> None:
    """They would be silently wrong."""
    wanted = arguments(2)
    found, _ = gated_convolution(*wanted, 1)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        torch.autograd.grad(found.sum(), wanted, create_graph=True)
