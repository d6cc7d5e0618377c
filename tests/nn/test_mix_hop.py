"""Mix-hop propagation against the recursion of its paper on dense matrices."""

import pytest
import torch
from torch import Tensor

from pgti.memory import LiveBytes
from pgti.nn import ChunkLimits, Neighbours, mix_hop_convolution

from ..models.dense_reference import assert_same

FLOAT64 = torch.float64
BATCH, STEPS, CHANNELS, WIDTH, BETA = 3, 2, 4, 5, 0.2


def draw(*shape: int) -> Tensor:
    """Normal numbers with a gradient."""
    return torch.randn(*shape, dtype=FLOAT64, requires_grad=True)


def reference(
    x_NBLC: Tensor, weight_DKCO: Tensor, bias_O: Tensor, operators: list[Tensor]
) -> Tensor:
    """H_k = beta x + (1 - beta) P H_{k-1} and the sum of H_k W_k, batch entry by entry."""
    output_NBLO = bias_O.expand(*x_NBLC.shape[:3], -1)
    for operator, weight_KCO in zip(operators, weight_DKCO, strict=True):
        state_NBLC = x_NBLC
        output_NBLO = output_NBLO + state_NBLC @ weight_KCO[0]
        for weight_CO in weight_KCO[1:]:
            moved = [
                torch.stack([operator @ entry for entry in part.unbind(1)], 1)
                for part in state_NBLC.unbind(1)
            ]
            state_NBLC = BETA * x_NBLC + (1 - BETA) * torch.stack(moved, 1)
            output_NBLO = output_NBLO + state_NBLC @ weight_CO
    return output_NBLO


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize(("num_nodes", "per_row"), [(6, 3), (30, 3)])
@pytest.mark.parametrize("features", [1024, 8])
def test_convolution_and_gradients_equal_the_recursion(
    hops: int, num_nodes: int, per_row: int, features: int
) -> None:
    """Dense and sparse operators, all entries at once and two at a time; values get gradients."""
    torch.manual_seed(hops)
    index_NK = torch.randint(num_nodes, (num_nodes, per_row))
    x, weight, bias = (
        draw(num_nodes, BATCH, STEPS, CHANNELS),
        draw(2, 1 + hops, CHANNELS, WIDTH),
        draw(WIDTH),
    )
    along, against = draw(num_nodes, per_row), draw(num_nodes, per_row)
    neighbours = Neighbours(index_NK, ChunkLimits(mix_hop_features=features))
    found = mix_hop_convolution(x, weight, bias, neighbours, (along, against), BETA)
    zeros = torch.zeros(num_nodes, num_nodes, dtype=FLOAT64)
    operators = [
        zeros.scatter_add(1, index_NK, along),
        zeros.scatter_add(1, index_NK, against).t(),
    ]
    expected = reference(x, weight, bias, operators)
    assert found.is_contiguous()
    assert_same(found, expected, (x, weight, bias, along, against), rtol=1e-11, atol=1e-12)


def test_only_the_input_is_kept() -> None:
    """Between the passes nothing is alive beside the output but what was given."""
    num_nodes, per_row, channels = 60, 3, 16
    neighbours = Neighbours(torch.randint(num_nodes, (num_nodes, per_row)))
    x = torch.randn(num_nodes, 8, 4, channels, requires_grad=True)
    weight = torch.randn(2, 3, channels, channels, requires_grad=True)
    values = [torch.rand(num_nodes, per_row, requires_grad=True) for _ in range(2)]
    with LiveBytes() as memory:
        y = mix_hop_convolution(
            x, weight, torch.zeros(channels), neighbours, (values[0], values[1]), BETA
        )
        assert memory.alive_bytes < 1.2 * 4 * y.numel()


def test_second_derivatives_are_refused() -> None:
    """Instead of being silently wrong."""
    values = torch.rand(6, 3)
    x = torch.randn(6, 1, 1, 2, requires_grad=True)
    y = mix_hop_convolution(
        x,
        torch.randn(2, 2, 2, 2),
        torch.zeros(2),
        Neighbours(torch.randint(6, (6, 3))),
        (values, values),
        BETA,
    )
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        torch.autograd.grad(y.sum(), x, create_graph=True)
