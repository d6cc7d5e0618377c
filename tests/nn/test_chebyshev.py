"""Chebyshev filters against polynomials of the dense operator."""

import numpy as np
import pytest
import torch

from pgti.graph import from_dense, scaled_laplacian
from pgti.nn import Supports, chebyshev_convolution

from ..models.dense_reference import assert_same

FLOAT64 = torch.float64
NODES, BATCH, STEPS, CHANNELS, WIDTH = 6, 2, 3, 4, 5


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("num_terms", [1, 2, 3, 5])
def test_filters_and_gradients_equal_the_polynomials(num_terms: int) -> None:
    """Sum of T_k(S) x W_k with T_k(S) = cos(k arccos S), by the eigenvalues of S."""
    generator = np.random.default_rng(1)
    graph = from_dense(generator.random((NODES, NODES)) * (generator.random((NODES, NODES)) < 0.4))
    supports = Supports.from_graph(graph, "scaled_laplacian").double()
    torch.manual_seed(num_terms)
    x, weight, bias = (
        torch.randn(*shape, dtype=FLOAT64, requires_grad=True)
        for shape in ((NODES, BATCH, STEPS, CHANNELS), (num_terms, CHANNELS, WIDTH), (WIDTH,))
    )
    found = chebyshev_convolution(x, weight, bias, supports)

    dense = torch.tensor(scaled_laplacian(graph).toarray(), dtype=FLOAT64)
    eigenvalues, vectors = torch.linalg.eigh(dense)
    angles = torch.arccos(eigenvalues.clamp(-1, 1))
    expected = bias.expand(NODES, BATCH, STEPS, -1)
    for order in range(num_terms):
        polynomial = vectors @ torch.diag(torch.cos(order * angles)) @ vectors.t()
        expected = expected + torch.einsum("nm,mblc,co->nblo", polynomial, x, weight[order])
    # Rounded to float32, S is not quite symmetric and its eigenvalues may pass 1 by as much.
    assert_same(found, expected, (x, weight, bias), rtol=1e-5, atol=1e-5, looser=1)


def test_filters_pass_gradcheck() -> None:
    """For an input whose memory lies otherwise too."""
    graph = from_dense(np.triu(np.ones((3, 3)), 1))
    supports = Supports.from_graph(graph, "scaled_laplacian").double()
    operands = [
        torch.randn(*shape, dtype=FLOAT64, requires_grad=True)
        for shape in ((2, 3, 2, 2), (3, 2, 2), (2,))
    ]
    assert torch.autograd.gradcheck(
        lambda x, w, b: chebyshev_convolution(x.transpose(0, 1), w, b, supports), operands
    )
