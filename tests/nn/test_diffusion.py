"""Diffusion and diffusion convolution against dense formulas."""

import pytest
import torch
from torch import Tensor

from pgti.graph import SensorGraph, dual_random_walk
from pgti.nn import Supports, diffuse, diffusion_convolution

from ..models.dense_reference import assert_same, powers
from .random_graphs import asymmetric_graph

FLOAT64 = torch.float64


def dense_hops(graph: SensorGraph, hops: int) -> list[Tensor]:
    """I, S1, S1^2, .., S2, S2^2, .. as dense float64 matrices."""
    return powers([torch.tensor(each.toarray()).double() for each in dual_random_walk(graph)], hops)


def dense_convolution(x: Tensor, weight: Tensor, bias: Tensor, hops: list[Tensor]) -> Tensor:
    """The formula, term by term."""
    return bias + sum(
        torch.einsum("nm,lmbc,co->lnbo", power, x, matrix)
        for power, matrix in zip(hops, weight, strict=True)
    )


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_diffusion_is_the_powers_of_each_walk(hops: int) -> None:
    """One identity term, then K powers per direction, in that order."""
    graph = asymmetric_graph(6)
    supports = Supports.from_graph(graph).double()
    x = torch.randn(6, 5, dtype=FLOAT64)
    diffused = diffuse(x, supports, hops)
    expected = dense_hops(graph, hops)
    assert diffused[0] is x
    assert len(diffused) == len(expected) == 1 + 2 * hops
    for found, power in zip(diffused, expected, strict=True):
        torch.testing.assert_close(found, power @ x)
    for found in diffused[1:]:
        assert (found[-1] == 0).all()


@pytest.mark.usefixtures("_both_ways")
def test_gradient_of_diffusion() -> None:
    """It agrees with finite differences."""
    supports = Supports.from_graph(asymmetric_graph(6)).double()
    x = torch.randn(6, 3, dtype=FLOAT64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: tuple(diffuse(x, supports, 3)[1:]), x)


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("channels", [1, 3, 16, 17, 24])
@pytest.mark.parametrize("hops", [1, 2, 3])
def test_convolution_and_gradients_equal_the_dense_formula(channels: int, hops: int) -> None:
    """Narrow and wide inputs, which take different paths, give one result and one gradient."""
    graph = asymmetric_graph(6)
    supports = Supports.from_graph(graph).double()
    torch.manual_seed(channels)
    x = torch.randn(2, 6, 3, channels, dtype=FLOAT64, requires_grad=True)
    weight = torch.randn(1 + 2 * hops, channels, 4, dtype=FLOAT64, requires_grad=True)
    bias = torch.randn(4, dtype=FLOAT64, requires_grad=True)
    found = diffusion_convolution(x, weight, bias, supports)
    expected = dense_convolution(x, weight, bias, dense_hops(graph, hops))
    assert_same(found, expected, (x, weight, bias), looser=1)


@pytest.mark.parametrize("channels", [3, 17])
def test_convolution_passes_gradcheck(channels: int) -> None:
    """Both paths agree with finite differences, for strided inputs too."""
    supports = Supports.from_graph(asymmetric_graph(6)).double()
    x = torch.randn(2, 2, 6, channels, dtype=FLOAT64).requires_grad_()
    weight = torch.randn(5, channels, 2, dtype=FLOAT64, requires_grad=True)
    bias = torch.randn(2, dtype=FLOAT64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, w, b: diffusion_convolution(x.permute(1, 2, 0, 3), w, b, supports),
        (x, weight, bias),
    )


def test_second_derivatives_of_wide_convolutions_are_refused() -> None:
    """The hand-written backward pass says so, even under a constant gradient."""
    supports = Supports.from_graph(asymmetric_graph(6))
    x = torch.randn(1, 6, 2, 17, requires_grad=True)
    output = diffusion_convolution(x, torch.randn(3, 17, 2), torch.zeros(2), supports)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        torch.autograd.grad(output.sum(), x, create_graph=True)


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("channels", [3, 32])
def test_autocast_rounds_operands_once(channels: int) -> None:
    """Under bfloat16 the result and gradients stay within its rounding of the float32 ones."""
    supports = Supports.from_graph(asymmetric_graph(30, 0.1))
    torch.manual_seed(0)
    x = torch.randn(2, 30, 4, channels, requires_grad=True)
    weight = torch.randn(5, channels, 8, requires_grad=True)
    bias = torch.randn(8, requires_grad=True)
    exact = diffusion_convolution(x, weight, bias, supports)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = diffusion_convolution(x, weight, bias, supports)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    seed = torch.randn_like(exact)
    pairs = [(rounded, exact)]
    pairs += zip(
        torch.autograd.grad(rounded, (x, weight, bias), seed),
        torch.autograd.grad(exact, (x, weight, bias), seed),
        strict=True,
    )
    for one, other in pairs:
        assert (one - other).norm() <= 0.008 * other.norm()
