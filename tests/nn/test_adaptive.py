"""Learned adjacencies and their convolutions against dense references."""

import pytest
import torch
from torch import Tensor

from pgti.errors import ConfigError
from pgti.memory import LiveBytes
from pgti.nn import AdaptiveAdjacency, adaptive_adjacency, adaptive_convolution
from pgti.nn.adaptive import DENSE_UP_TO_NODES

from ..models.dense_reference import assert_same

FLOAT64 = torch.float64
NUM_STEPS, NUM_NODES, BATCH, CHANNELS, OUTPUTS, RANK = 3, 6, 4, 5, 2, 3


def embeddings() -> tuple[Tensor, Tensor]:
    """Two embeddings with scores of both signs, so that the relu matters."""
    torch.manual_seed(0)
    source, target = torch.randn(2, NUM_NODES, RANK, dtype=FLOAT64).unbind()
    assert ((source @ target.T) < 0).any()
    return source.requires_grad_(), target.requires_grad_()


def reference(source: Tensor, target: Tensor, form: str) -> Tensor:
    """The N x N matrix, entry by entry from its definition."""
    rows = []
    for i in range(NUM_NODES):
        if form == "dense":
            weights = [torch.exp(torch.clamp(source[i] @ other, min=0)) for other in target]
            rows.append(torch.stack(weights) / sum(weights))
            continue
        reads = torch.exp(source[i]) / torch.exp(source[i]).sum()
        pools = [torch.exp(other) / torch.exp(target).sum(dim=0) for other in target]
        rows.append(torch.stack([reads @ pool for pool in pools]))
    return torch.stack(rows)


def multiplied_out(adjacency: AdaptiveAdjacency) -> Tensor:
    """The matrix as its products show it."""
    return adjacency.multiply(torch.eye(NUM_NODES, dtype=FLOAT64))


@pytest.mark.parametrize("form", ["dense", "low-rank"])
def test_matrices_equal_their_definition_and_average(form: str) -> None:
    """Every entry; all positive; rows that sum to 1; gradients to both embeddings."""
    source, target = embeddings()
    found = multiplied_out(adaptive_adjacency(source, target, form))
    expected = reference(source, target, form)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert (found > 0).all()
    torch.testing.assert_close(found.sum(dim=1), torch.ones(NUM_NODES, dtype=FLOAT64))
    seed = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, (source, target), seed),
        torch.autograd.grad(expected, (source, target), seed),
        rtol=1e-10,
        atol=1e-12,
    )


@pytest.mark.parametrize("form", ["dense", "low-rank"])
def test_powers_share_the_right_factor(form: str) -> None:
    """Side by side they are A, A^2 and A^3."""
    source, target = embeddings()
    adjacency, matrix = adaptive_adjacency(source, target, form), reference(source, target, form)
    powers = adjacency.powers(3).chunk(3, dim=1)
    for exponent, power in enumerate(powers, start=1):
        whole = AdaptiveAdjacency(power, adjacency.pool_RN)
        expected = torch.linalg.matrix_power(matrix, exponent)
        torch.testing.assert_close(multiplied_out(whole), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("form", ["dense", "low-rank"])
@pytest.mark.parametrize("hops", [1, 2, 3])
def test_convolutions_equal_the_dense_reference(form: str, hops: int) -> None:
    """sum_k A^k x W_k and its gradients to x, the weights and both embeddings."""
    source, target = embeddings()
    x = torch.randn(NUM_STEPS, NUM_NODES, BATCH, CHANNELS, dtype=FLOAT64).requires_grad_()
    weight = torch.randn(hops, CHANNELS, OUTPUTS, dtype=FLOAT64).requires_grad_()
    adjacency = adaptive_adjacency(source, target, form)
    found = adaptive_convolution(x, weight, adjacency, adjacency.powers(hops))
    matrix = reference(source, target, form)
    expected = torch.zeros_like(found)
    for k in range(hops):
        power = torch.linalg.matrix_power(matrix, k + 1)
        expected = expected + torch.einsum("ij,ljbc,co->libo", power, x, weight[k])
    assert_same(found, expected, (x, weight, source, target), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("form", ["dense", "low-rank"])
def test_autocast_rounds_products_and_not_sums(form: str) -> None:
    """Results stay within the rounding of bfloat16; gradients have the parameters' precision."""
    source, target = (each.detach().float().requires_grad_() for each in embeddings())
    x = torch.randn(NUM_STEPS, NUM_NODES, BATCH, CHANNELS).requires_grad_()
    weight = torch.randn(2, CHANNELS, OUTPUTS).requires_grad_()

    def run() -> tuple[Tensor, tuple[Tensor, ...]]:
        adjacency = adaptive_adjacency(source, target, form)
        output = adaptive_convolution(x, weight, adjacency, adjacency.powers(2))
        wanted = (x, weight, source, target)
        return output, torch.autograd.grad(output, wanted, torch.ones_like(output))

    exact, exact_gradients = run()
    with torch.autocast("cpu", torch.bfloat16):
        rounded, gradients = run()
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    for one, other in zip((rounded, *gradients), (exact, *exact_gradients), strict=True):
        assert one.dtype == torch.float32
        assert (one - other).abs().max() < 0.05 * other.abs().max()


def test_auto_is_dense_up_to_its_limit() -> None:
    """One node more is the low-rank form."""
    largest = torch.zeros(DENSE_UP_TO_NODES, 1, device="meta")
    assert adaptive_adjacency(largest, largest, "auto").pool_RN is None
    larger = torch.zeros(DENSE_UP_TO_NODES + 1, 1, device="meta")
    assert adaptive_adjacency(larger, larger, "auto").pool_RN is not None
    assert adaptive_adjacency(larger, larger, "dense").pool_RN is None


def test_the_low_rank_form_never_holds_n_by_n_numbers() -> None:
    """Forward and backward together take a twentieth of one such matrix."""
    num_nodes = 5000
    embedding = torch.randn(num_nodes, 4, requires_grad=True)
    x, weight = torch.randn(2, num_nodes, 2, 3), torch.randn(2, 3, 3, requires_grad=True)
    with LiveBytes() as memory:
        adjacency = adaptive_adjacency(embedding, embedding, "auto")
        output = adaptive_convolution(x, weight, adjacency, adjacency.powers(2))
        (output.sum() + adjacency.multiply(x[0].flatten(1)).sum()).backward()
    assert memory.peak_bytes < num_nodes**2 * 4 / 20, memory.peak_bytes


def test_other_forms_are_refused() -> None:
    """One line that names the forms."""
    source, target = embeddings()
    with pytest.raises(ConfigError, match="'sparse': choose one of auto, dense, low-rank"):
        adaptive_adjacency(source, target, "sparse")


def test_second_derivatives_are_refused() -> None:
    """They would be silently wrong."""
    source, target = embeddings()
    adjacency = adaptive_adjacency(source, target, "dense")
    x = torch.randn(NUM_STEPS, NUM_NODES, BATCH, CHANNELS, dtype=FLOAT64)
    weight = torch.randn(1, CHANNELS, OUTPUTS, dtype=FLOAT64)
    output = adaptive_convolution(x, weight, adjacency, adjacency.powers(1))
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        torch.autograd.grad(output.sum(), source, create_graph=True)
