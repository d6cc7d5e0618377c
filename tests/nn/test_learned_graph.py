"""Neighbours that are chosen, and products with learned values, against dense matrices."""

import pytest
import torch
from torch import Tensor

from pgti.memory import LiveBytes
from pgti.nn import ChunkLimits, Neighbours, nearest

from ..models.dense_reference import assert_same

FLOAT64 = torch.float64
FEATURES = 5
IN_PARTS = ChunkLimits(graph_features=2)
"""Every product takes several parts of the features."""

# Four of 6 columns are multiplied as a dense matrix, three of 40 as a sparse one.
sizes = pytest.mark.parametrize(("num_nodes", "per_row"), [(6, 4), (40, 3)])


def draw(*shape: int) -> Tensor:
    """Normal numbers with a gradient."""
    return torch.randn(*shape, dtype=FLOAT64, requires_grad=True)


def pattern(num_nodes: int, per_row: int) -> Tensor:
    """Random columns; row 0 names one column again and again, the last column is in no row."""
    torch.manual_seed(2)
    index_NK = torch.randint(num_nodes - 1, (num_nodes, per_row))
    index_NK[0] = 1
    return index_NK


def dense(values_NK: Tensor, index_NK: Tensor) -> Tensor:
    """S(v), entry by entry."""
    matrix = torch.zeros(len(values_NK), len(values_NK), dtype=values_NK.dtype)
    for row, columns in enumerate(index_NK.tolist()):
        for place, column in enumerate(columns):
            unit = torch.zeros_like(matrix)
            unit[row, column] = 1
            matrix = matrix + unit * values_NK[row, place]
    return matrix


@pytest.mark.usefixtures("_both_ways")
@sizes
def test_products_and_gradients_equal_the_dense_matrix(num_nodes: int, per_row: int) -> None:
    """With the matrix and with its transpose; columns named twice count twice."""
    index_NK = pattern(num_nodes, per_row)
    neighbours = Neighbours(index_NK, IN_PARTS)
    assert neighbours.is_dense == (num_nodes == 6)
    values, x, seed = draw(num_nodes, per_row), draw(num_nodes, FEATURES), draw(num_nodes, FEATURES)
    matrix = dense(values, index_NK)
    for transposed, operator in ((False, matrix), (True, matrix.t())):
        found = neighbours.multiply(values, x, transposed=transposed)
        torch.testing.assert_close(found, operator @ x, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(
            torch.autograd.grad(found, (values, x), seed),
            torch.autograd.grad(operator @ x, (values, x), seed, retain_graph=True),
            rtol=1e-12,
            atol=1e-13,
        )


@pytest.mark.usefixtures("_both_ways")
@sizes
def test_samples_and_gradients_equal_the_dense_product(num_nodes: int, per_row: int) -> None:
    """p_i . q_j at the places of the values."""
    index_NK = pattern(num_nodes, per_row)
    p, q = draw(num_nodes, FEATURES), draw(num_nodes, FEATURES)
    found = Neighbours(index_NK, IN_PARTS).sample(p, q)
    expected = (p @ q.t()).gather(1, index_NK)
    assert_same(found, expected, (p, q), rtol=1e-12, atol=1e-13, looser=1)


@pytest.mark.parametrize(("num_nodes", "per_row"), [(4, 2), (14, 2)])
def test_products_pass_gradcheck_twice(num_nodes: int, per_row: int) -> None:
    """First and second derivatives agree with finite differences, dense and sparse."""
    neighbours = Neighbours(pattern(num_nodes, per_row), IN_PARTS)
    assert neighbours.is_dense == (num_nodes == 4)
    values, x, q = draw(num_nodes, per_row), draw(num_nodes, 3), draw(num_nodes, 3)
    for function, operands in (
        (neighbours.multiply, (values, x)),
        (lambda v, x: neighbours.multiply(v, x, transposed=True), (values, x)),
        (neighbours.sample, (x, q)),
    ):
        assert torch.autograd.gradcheck(function, operands)
        assert torch.autograd.gradgradcheck(function, operands)


def test_products_keep_the_precision_of_the_values() -> None:
    """Under autocast and for bfloat16 features too."""
    neighbours = Neighbours(pattern(40, 3), IN_PARTS)
    values, x = torch.randn(40, 3), torch.randn(40, FEATURES).bfloat16()
    exact = neighbours.multiply(values, x.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = neighbours.multiply(values, x)
    assert found.dtype == torch.float32
    assert torch.equal(found, exact)


def test_products_are_never_as_large_as_their_terms() -> None:
    """Forward and backward take a few [N, F], where [N, K, F] would be 20 of them."""
    num_nodes, per_row, features = 400, 20, 256
    index_NK = torch.randint(num_nodes, (num_nodes, per_row))
    neighbours = Neighbours(index_NK, ChunkLimits(graph_features=64))
    values = torch.randn(num_nodes, per_row, requires_grad=True)
    x = torch.randn(num_nodes, features, requires_grad=True)
    with LiveBytes() as memory:
        neighbours.multiply(values, x).sum().backward()
    assert memory.peak_bytes < 4 * num_nodes * features * 4


@pytest.mark.parametrize("limit", [1 << 24, 100])
def test_the_nearest_have_the_largest_scores(limit: int) -> None:
    """In one part and in many, in ascending order; all nodes if there are fewer."""
    limits = ChunkLimits(scores=limit)
    p, q = torch.randn(40, 3), torch.randn(40, 3)
    found = nearest(p, q, 7, limits)
    assert not found.requires_grad
    for row, scores in zip(found.tolist(), (p @ q.t()).tolist(), strict=True):
        ranked = sorted(range(40), key=lambda column, scores=scores: -scores[column])
        assert row == sorted(ranked[:7])
    assert nearest(p[:4], q[:4], 7, limits).tolist() == [[0, 1, 2, 3]] * 4


def test_no_matrix_of_scores_is_alive() -> None:
    """Choosing among N nodes takes a fraction of N x N numbers."""
    num_nodes = 800
    p, q = torch.randn(num_nodes, 8), torch.randn(num_nodes, 8)
    with LiveBytes() as memory:
        nearest(p, q, 5, ChunkLimits(scores=20 * num_nodes))
    assert memory.peak_bytes < 4 * num_nodes**2 / 4
