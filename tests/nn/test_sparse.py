"""Products with the operators of a graph, wherever the module goes."""

import copy
import io
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pgti.errors import ConfigError
from pgti.graph import SensorGraph, dual_random_walk
from pgti.nn import Supports

from .random_graphs import asymmetric_graph

FLOAT64 = torch.float64


def dense_supports(graph: SensorGraph) -> list[Tensor]:
    """The operators as dense float64 matrices, rounded to float32 as stored."""
    return [torch.tensor(support.toarray()).to(FLOAT64) for support in dual_random_walk(graph)]


def is_dense(supports: Supports) -> bool:
    """Whether products are made with a dense matrix."""
    supports.multiply(0, torch.ones(supports.num_nodes, 1, dtype=supports.dtype))
    return all(matrix.layout == torch.strided for matrix in supports._matrices.values())


@settings(deadline=None)
@given(
    num_nodes=st.integers(1, 40),
    width=st.integers(1, 9),
    density=st.sampled_from([0.0, 0.05, 0.4]),
    seed=st.integers(0, 99),
)
def test_products_equal_dense_ones(num_nodes: int, width: int, density: float, seed: int) -> None:
    """Sparse or dense inside, forward or transposed, fresh or accumulated: one result."""
    graph = asymmetric_graph(num_nodes, density, seed)
    supports = Supports.from_graph(graph).double()
    x = torch.randn(num_nodes, width, dtype=FLOAT64, generator=torch.Generator().manual_seed(seed))
    for index, dense in enumerate(dense_supports(graph)):
        torch.testing.assert_close(supports.multiply(index, x), dense @ x)
        torch.testing.assert_close(supports.product(index, x, transposed=True), dense.T @ x)
        total = torch.ones_like(x)
        supports.product(index, x, out=total, accumulate=True)
        torch.testing.assert_close(total, dense @ x + 1)


@pytest.mark.parametrize("density", [0.05, 0.9])
def test_rows_without_edges_are_zero_whatever_the_buffer_held(density: float) -> None:
    """A product overwrites NaN left in its output, for isolated nodes too."""
    supports = Supports.from_graph(asymmetric_graph(20, density))
    out = torch.full((20, 3), torch.nan)
    supports.product(0, torch.ones(20, 3), out=out)
    assert torch.isfinite(out).all()
    assert (out[-1] == 0).all()


def test_dense_products_serve_dense_graphs_only() -> None:
    """From 15 % of non-zeros on, the operator is dense inside."""
    assert is_dense(Supports.from_graph(asymmetric_graph(20, 0.5)))
    assert not is_dense(Supports.from_graph(asymmetric_graph(20, 0.1)))
    assert not is_dense(Supports.from_graph(SensorGraph.empty(20)))


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("density", [0.1, 0.9])
def test_gradients_of_products(density: float) -> None:
    """First and second derivatives agree with finite differences."""
    supports = Supports.from_graph(asymmetric_graph(9, density)).double()
    x = torch.randn(9, 4, dtype=FLOAT64, requires_grad=True)
    for index in range(len(supports)):
        assert torch.autograd.gradcheck(lambda x, i=index: supports.multiply(i, x), x)
        assert torch.autograd.gradgradcheck(lambda x, i=index: supports.multiply(i, x) ** 2, x)


def test_kinds_of_supports() -> None:
    """The dual walk has two operators, the walk its first one; another name is an error."""
    graph = asymmetric_graph(6)
    dual, single = Supports.from_graph(graph), Supports.from_graph(graph, "random_walk")
    assert (len(dual), len(single)) == (2, 1)
    x = torch.randn(6, 2)
    torch.testing.assert_close(single.multiply(0, x), dual.multiply(0, x))
    with pytest.raises(ConfigError, match="'laplacian' do not exist"):
        Supports.from_graph(graph, "laplacian")  # type: ignore[arg-type]


def test_edges_travel_with_the_operators() -> None:
    """Layers that work on edges find them, in the graph's order."""
    graph = asymmetric_graph(6)
    supports = Supports.from_graph(graph).double()
    np.testing.assert_array_equal(supports.edge_index.numpy(), graph.edge_index)
    np.testing.assert_array_equal(supports.edge_weight.numpy(), graph.edge_weight)
    assert supports.edge_weight.dtype == FLOAT64


def test_a_module_can_move_after_use() -> None:
    """Precision follows the module even though products were made before; nothing is saved."""
    supports = Supports.from_graph(asymmetric_graph(6))
    x = torch.randn(6, 2)
    single = supports.multiply(0, x)
    supports.double()
    double = supports.multiply(0, x.double())
    assert (single.dtype, double.dtype) == (torch.float32, FLOAT64)
    torch.testing.assert_close(single.double(), double, rtol=1e-6, atol=1e-6)
    supports.float()
    assert torch.equal(supports.multiply(0, x), single)
    assert len(supports.state_dict()) == 0


def test_copies_stand_alone() -> None:
    """Deep copies and pickles work after use and share nothing with the original."""
    supports = Supports.from_graph(asymmetric_graph(20, 0.1))
    x = torch.randn(20, 2)
    expected = supports.multiply(0, x)
    copied = copy.deepcopy(supports)
    file = io.BytesIO()
    torch.save(supports, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for buffer in supports.buffers():
        buffer.zero_()
    assert torch.equal(copied.multiply(0, x), expected)
    assert torch.equal(loaded.multiply(0, x), expected)


def test_use_in_inference_mode_does_not_spoil_training() -> None:
    """Operators first used under inference mode can be differentiated through later."""
    supports = Supports.from_graph(asymmetric_graph(20, 0.1))
    x = torch.randn(20, 2, requires_grad=True)
    with torch.inference_mode():
        supports.multiply(0, x)
    supports.multiply(0, x).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("density", [0.1, 0.9])
def test_low_precision_is_multiplied_in_float32(density: float) -> None:
    """bfloat16 operands, and autocast, give the float32 product and a bfloat16 gradient."""
    supports = Supports.from_graph(asymmetric_graph(20, density))
    x = torch.randn(20, 2).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        product = supports.multiply(0, x)
    assert torch.equal(product, supports.multiply(0, x.float()))
    product.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16


def test_scratch_memory_is_reused_and_stays_behind() -> None:
    """One tensor of a name, large enough for what was asked; copies and threads have their own."""
    supports = Supports.from_graph(SensorGraph.empty(3))
    with torch.inference_mode():
        first = supports.scratch("a", (4, 5), torch.float32)
    assert supports.scratch("a", (2, 3), torch.float32).data_ptr() == first.data_ptr()
    assert supports.scratch("b", (4, 5), torch.float32).data_ptr() != first.data_ptr()
    assert supports.scratch("a", (4, 5), torch.bfloat16).dtype == torch.bfloat16
    assert supports.scratch("a", (6, 5), torch.float32).shape == (6, 5)
    supports.scratch("a", (1,), torch.float32).requires_grad_()  # no inference tensor

    kept = weakref.ref(supports.scratch("c", (1,), torch.float32).untyped_storage())
    supports.free_memory()
    assert kept() is None
    here = supports.scratch("a", (1,), torch.float32)
    with ThreadPoolExecutor(1) as thread:
        there = thread.submit(supports.scratch, "a", (1,), torch.float32).result()
    copied = copy.deepcopy(supports).scratch("a", (1,), torch.float32)
    assert len({here.data_ptr(), there.data_ptr(), copied.data_ptr()}) == 3
