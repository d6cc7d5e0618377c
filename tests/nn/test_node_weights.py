"""Weights of every node: made once or some at a time, they are the same."""

import pytest
import torch
from torch import Tensor

from pgti.memory import LiveBytes
from pgti.nn import ChunkLimits
from pgti.nn.node_weights import NodeWeights

from ..models.dense_reference import assert_same

FLOAT64 = torch.float64
NUM_NODES, RANK, TERMS, CHANNELS, OUTPUTS = 7, 3, 2, 5, 6


def arguments(rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Embeddings, pool, base and terms of some rows per node."""
    torch.manual_seed(0)
    sizes = (
        (NUM_NODES, RANK),
        (RANK, TERMS, CHANNELS, OUTPUTS),
        (NUM_NODES, rows, OUTPUTS),
        (TERMS, NUM_NODES, rows, CHANNELS),
    )
    made = [torch.randn(*size, dtype=FLOAT64).requires_grad_() for size in sizes]
    return made[0], made[1], made[2], made[3]


def reference(embedding: Tensor, pool: Tensor, base: Tensor, terms: Tensor) -> Tensor:
    """Node by node."""
    nodes = []
    for node in range(NUM_NODES):
        weight = sum(embedding[node, r] * pool[r] for r in range(RANK))
        products = [terms[k, node] @ weight[k] for k in range(TERMS)]
        nodes.append(base[node] + sum(products))
    return torch.stack(nodes)


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("stored", [0, 1 << 24])
@pytest.mark.parametrize("at_a_time", [1, 130, 1 << 20])
@pytest.mark.parametrize("rows", [1, RANK])
@pytest.mark.parametrize("broadcast", [False, True])
def test_products_and_gradients_equal_the_reference(
    stored: int, at_a_time: int, rows: int, broadcast: bool
) -> None:
    """All weights at once, one node's at a time, two nodes', and few rows without any."""
    limits = ChunkLimits(stored_weights=stored, node_weights=at_a_time)
    embedding, pool, base, terms = wanted = arguments(rows)
    if broadcast:
        base = base[:, :1]
    found = NodeWeights(embedding, pool, limits).add_products(base, terms.unbind())
    expected = reference(embedding, pool, base, terms)
    assert_same(found, expected, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("stored", [0, 1 << 24])
@pytest.mark.parametrize("rows", [1, RANK])
def test_autocast_is_accurate(stored: int, rows: int) -> None:
    """Rounded products, float32 results and gradients."""
    limits = ChunkLimits(stored_weights=stored)
    wanted = tuple(each.detach().float().requires_grad_() for each in arguments(rows))
    embedding, pool, base, terms = wanted
    exact = NodeWeights(embedding, pool, limits).add_products(base, terms.unbind())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = NodeWeights(embedding, pool, limits).add_products(base, terms.unbind())
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.05 * exact.abs().max()
    gradients = torch.autograd.grad(rounded.sum(), wanted)
    assert all(each.dtype == torch.float32 for each in gradients)


@pytest.mark.parametrize("rows", [1, 4])
def test_many_weights_are_never_held_at_once(rows: int) -> None:
    """Forward and backward take a third of the weights of all nodes."""
    limits = ChunkLimits(stored_weights=1 << 20, node_weights=1 << 15)
    embedding = torch.randn(2000, 4, requires_grad=True)
    pool = torch.randn(4, 2, 32, 32, requires_grad=True)
    terms = torch.randn(2, 2000, rows, 32, requires_grad=True)
    with LiveBytes() as memory:
        weights = NodeWeights(embedding, pool, limits)
        weights.add_products(torch.zeros(2000, 1, 32), terms.unbind()).sum().backward()
    assert memory.peak_bytes < 2000 * pool[0].numel() * 4 / 3, memory.peak_bytes
