"""Dropout of a branch: what is zeroed, what is scaled, and what is drawn."""

import math

import pytest
import torch

from pgti.nn import dropout, dropout_add


@pytest.mark.parametrize("probability", [0.1, 0.3, 0.5, 0.9])
def test_the_stated_share_is_zeroed_and_the_rest_scaled(probability: float) -> None:
    """Of a million units; the mean of the branch stays as it is."""
    torch.manual_seed(0)
    count = 1_000_003
    dropped = dropout_add(torch.zeros(count), torch.ones(count), probability)
    zeroed = (dropped == 0).float().mean().item()
    deviation = math.sqrt(probability * (1 - probability) / count)
    assert abs(zeroed - probability) < 5 * deviation + 1 / 65_536
    kept = dropped[dropped != 0]
    torch.testing.assert_close(
        kept, torch.full_like(kept, 1 / (1 - probability)), rtol=2e-4, atol=0
    )
    assert abs(dropped.mean().item() - 1) < 5 * deviation / (1 - probability)


def test_units_are_independent() -> None:
    """Of the four units of a draw, any two are zeroed together as often as by chance."""
    torch.manual_seed(0)
    zeroed = dropout_add(torch.zeros(250_000, 4), torch.ones(250_000, 4), 0.3) == 0
    together = zeroed.float().T @ zeroed.float() / len(zeroed)
    expected = torch.full((4, 4), 0.09).fill_diagonal_(0.3)
    assert (together - expected).abs().max() < 0.005


def test_gradients_are_those_of_the_mask() -> None:
    """Of x everything; of the branch what was kept, scaled as it was."""
    torch.manual_seed(0)
    x, branch = (torch.randn(7, 5, dtype=torch.float64).requires_grad_() for _ in range(2))
    output = dropout_add(x, branch, 0.4)
    factor = ((output - x) / branch).detach()
    assert 0 < (factor == 0).sum() < factor.numel()
    seed = torch.randn_like(output)
    grad_x, grad_branch = torch.autograd.grad(output, (x, branch), seed)
    assert torch.equal(grad_x, seed)
    torch.testing.assert_close(grad_branch, seed * factor)


def test_draws_repeat_with_the_generator_and_none_is_made_for_nothing() -> None:
    """A seed gives the same mask; with probability 0 the generator stays as it is."""
    x, branch = torch.randn(3, 11), torch.randn(3, 11)
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(dropout_add(x, branch, 0.5))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    state = torch.random.get_rng_state()
    assert torch.equal(dropout_add(x, branch, 0.0), x + branch)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("probability", [1e-9, 1 - 1e-9])
def test_the_extremes_stay_finite(probability: float) -> None:
    """Rounded to a multiple of 1 / 65,536 that is neither 0 nor 1."""
    output = dropout_add(torch.zeros(100), torch.ones(100), probability)
    assert torch.isfinite(output).all()


def test_dropout_alone_is_that_of_a_branch() -> None:
    """The same mask from the same generator, the same gradient; without a probability, x itself."""
    x = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    seed, results = torch.randn(7, 5, dtype=torch.float64), []
    for function in (
        lambda: dropout(x, 0.4),
        lambda: dropout_add(torch.zeros_like(x), x, 0.4),
    ):
        torch.manual_seed(0)
        output = function()
        results.append((output, *torch.autograd.grad(output, x, seed)))
    assert 0 < (results[0][0] == 0).sum() < x.numel()
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    assert dropout(x, 0.0) is x
