"""Operators of the compiler: `torch.library.opcheck`, gradients, and graphs by their handles."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pgti.nn import Supports
from pgti.nn.operator_arguments import object_of

from .random_graphs import asymmetric_graph

NUM_NODES, BATCH, HIDDEN = 6, 3, 17


def supports() -> Supports:
    """Of a random graph."""
    return Supports.from_graph(asymmetric_graph(NUM_NODES))


def draw(*shape: int) -> Tensor:
    """A tensor that needs a gradient."""
    return torch.randn(*shape).requires_grad_()


def sparse_product() -> tuple[Supports, tuple[object, ...]]:
    graph = supports()
    return graph, (draw(NUM_NODES, 4), graph.handle, 1, False)


def diffusion_convolution() -> tuple[Supports, tuple[object, ...]]:
    graph = supports()
    x_LNBC = draw(2, NUM_NODES, BATCH, HIDDEN)
    return graph, (x_LNBC, draw(5, HIDDEN, 4), draw(4), graph.handle, None)


def diffusion_recurrence() -> tuple[Supports, tuple[object, ...]]:
    graph = supports()
    inputs_LNBG = draw(2, NUM_NODES, BATCH, 3 * HIDDEN)
    weights = (draw(5, HIDDEN, 2 * HIDDEN), draw(5, HIDDEN, HIDDEN))
    return graph, (inputs_LNBG, draw(NUM_NODES, BATCH, HIDDEN), *weights, graph.handle, None, True)


@pytest.mark.parametrize("sample", [sparse_product, diffusion_convolution, diffusion_recurrence])
def test_operators_are_what_they_say(
    sample: Callable[[], tuple[Supports, tuple[object, ...]]],
) -> None:
    """Schemas, shapes for the compiler, and gradients, also where the batch is symbolic."""
    torch.manual_seed(0)
    _owner, args = sample()
    operator = getattr(torch.ops.pgti, sample.__name__).default
    assert set(torch.library.opcheck(operator, args).values()) == {"SUCCESS"}


def test_a_copy_of_the_graph_has_its_own_handle() -> None:
    """Copies and pickles are other objects; one that was moved is the same."""
    original = supports()
    for other in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        assert other.handle != original.handle
        assert object_of(other.handle) is other
    assert object_of(original.double().handle) is original


def test_a_deleted_graph_is_an_error() -> None:
    """Of one line, that says what to do."""
    handle = supports().handle
    with pytest.raises(RuntimeError, match="hold its Supports until the backward pass is done"):
        object_of(handle)
