"""The matrix products of a step: all of them found, and repeated as they were."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from pgti.errors import ConfigError
from pgti.graph import SensorGraph
from pgti.nn import Supports
from pgti_bench.errors import BenchError
from pgti_bench.step.network import RandomBatchStep, StepSpec
from pgti_bench.step.options import nearest_graph
from pgti_bench.step.products import ProductCount, StepProducts

torch.set_num_threads(1)


def recorded(step: Callable[[], object]) -> ProductCount:
    return StepProducts.record(step).count


def test_products_of_matrices_are_counted() -> None:
    a, b, c = torch.ones(3, 4), torch.ones(4, 5), torch.ones(3, 5)
    assert recorded(lambda: a @ b) == ProductCount(dense=1, sparse=0, dense_flop=120, sparse_flop=0)
    assert recorded(lambda: torch.addmm(c, a, b)).dense_flop == 120
    assert recorded(lambda: c.addmm_(a, b)).dense_flop == 120
    assert recorded(lambda: torch.mm(a, b, out=c)).dense_flop == 120
    stack = torch.ones(7, 3, 4), torch.ones(7, 4, 5)
    assert recorded(lambda: torch.bmm(*stack)).dense_flop == 7 * 120
    assert recorded(lambda: torch.einsum("sij,sjk->sik", *stack)).dense_flop == 7 * 120
    assert recorded(lambda: a * 2 + 1) == ProductCount(
        dense=0, sparse=0, dense_flop=0, sparse_flop=0
    )


def test_both_passes_of_a_linear_map_are_counted() -> None:
    """Forward M K N; the gradients of weight and input as much each."""
    layer = nn.Linear(4, 5)
    x = torch.ones(2, 3, 4, requires_grad=True)
    assert recorded(lambda: layer(x).sum().backward()).dense_flop == 3 * (2 * 6 * 4 * 5)


def test_sparse_products_are_counted_by_their_entries() -> None:
    """Both ways: the gradient is a product with the transpose, of as many entries."""
    graph = nearest_graph(40, degree=3)
    supports = Supports.from_graph(graph)
    x = torch.ones(40, 6, requires_grad=True)
    count = recorded(lambda: supports.multiply(0, x).sum().backward())
    assert count == ProductCount(
        dense=0, sparse=2, dense_flop=0, sparse_flop=2 * 2 * graph.num_edges * 6
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_dense_arithmetic_of_the_layer_is_that_of_its_formula(precision: str) -> None:
    nodes, batch, steps, hidden, inputs, terms = 40, 3, 4, 32, 2, 5
    count = recorded(make_step("layer", {"hidden": hidden}, precision=precision).take)
    rows = 2 * nodes * batch
    # Inputs are diffused once for all steps and need no gradient; the first state is zero.
    of_inputs = 2 * steps * terms * inputs * 3 * hidden
    of_states = 3 * (steps - 1) * terms * hidden * 3 * hidden
    head = 3 * steps * hidden
    assert count.dense_flop == rows * (of_inputs + of_states + head)
    assert count.sparse > 0


def make_step(
    model: str,
    options: dict[str, object],
    precision: str = "float32",
    activation_checkpointing: bool = False,
) -> RandomBatchStep:
    spec = StepSpec(
        model=model,
        options=options,
        steps=4,
        batch_size=3,
        precision=precision,  # type: ignore[arg-type]
        activation_checkpointing=activation_checkpointing,
    )
    return RandomBatchStep(nearest_graph(40, degree=3), spec, torch.device("cpu"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_running_the_products_alone_repeats_them(precision: str) -> None:
    """Recorded while they run alone, they are the same again: number, kind and arithmetic."""
    options = {"hidden": 20, "layers": 2}
    products = StepProducts.record(make_step("dcrnn", options, precision).take)
    again = recorded(lambda: (products.dense_seconds(), products.sparse_seconds()))
    assert again == products.count
    assert products.count.dense > 100
    assert products.dense_seconds() > 0
    assert products.sparse_seconds() > 0


def test_a_product_alone_is_that_product() -> None:
    """Same shapes, strides, precision and factors: on the same numbers, the same result."""
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(4, 3, generator=generator).t()
    right, base = torch.randn(4, 5, generator=generator), torch.randn(3, 5, generator=generator)
    out = torch.empty(3, 5)
    products = StepProducts.record(
        lambda: torch.addmm(base, left, right, beta=0.5, alpha=2, out=out)
    )
    (alone,) = products._dense
    assert alone.left.stride() == left.stride()
    alone.left.copy_(left)
    alone.right.copy_(right)
    assert alone.addend is not None
    alone.addend.copy_(base)
    alone.run()
    assert torch.equal(alone.out, out)


def test_a_product_that_adds_in_place_does_so_alone() -> None:
    total = torch.zeros(3, 5)
    left, right = torch.ones(3, 4), torch.ones(4, 5)
    products = StepProducts.record(lambda: total.addmm_(left, right))
    (alone,) = products._dense
    assert alone.addend is alone.out
    before = alone.out.clone()
    alone.run()
    assert torch.allclose(alone.out - before, alone.left @ alone.right)


def test_recording_leaves_the_step_as_it_is() -> None:
    one, other = (make_step("layer", {"hidden": 4}) for _ in range(2))
    one.take()
    StepProducts.record(other.take)
    parameters = (step.forecaster.network.parameters() for step in (one, other))
    for mine, its in zip(*parameters, strict=True):
        assert torch.equal(mine, its)


def test_recomputed_activations_are_products_too() -> None:
    options = {"hidden": 20, "layers": 1}
    stored, recomputed = (
        recorded(
            make_step("dcrnn", options, activation_checkpointing=activation_checkpointing).take
        )
        for activation_checkpointing in (False, True)
    )
    assert recomputed.dense_flop > stored.dense_flop


def test_products_of_an_unknown_kind_are_refused() -> None:
    with pytest.raises(BenchError, match=r"cannot be run alone: aten\.convolution"):
        recorded(lambda: nn.functional.conv1d(torch.ones(1, 1, 5), torch.ones(1, 1, 3)))


def test_the_random_graph_has_the_degree_asked_for() -> None:
    graph = nearest_graph(30, degree=4, seed=1)
    assert graph.num_edges == 120
    assert np.array_equal(np.diff(graph.adjacency.indptr), np.full(30, 4))
    assert (graph.adjacency.diagonal() == 1).all()
    same, other = nearest_graph(30, degree=4, seed=1), nearest_graph(30, degree=4, seed=2)
    assert np.array_equal(graph.edge_index, same.edge_index)
    assert not np.array_equal(graph.edge_index, other.edge_index)
    assert nearest_graph(3).num_edges == 9
    assert isinstance(nearest_graph(1), SensorGraph)
    with pytest.raises(ConfigError, match="nodes is 0"):
        nearest_graph(0)
