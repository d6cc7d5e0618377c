"""Operators of the compiler: `torch.library.opcheck`, gradients, and graphs by their handles."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import pgti.models  # noqa: F401 - its layers define all operators
from pgti.nn import Supports
from pgti.nn.limits import DenseLimits
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


def stacked(*inputs: int) -> tuple[Supports, Tensor, list[Tensor]]:
    """A graph, the powers of its operators, and parameters of layers by their numbers of inputs."""
    graph = supports()
    graph.dense = DenseLimits(stacked=1 << 20)
    powers_QN = graph.stacked_powers(2)
    assert powers_QN is not None
    layers = [
        (draw(5, each, 3 * HIDDEN), draw(5, HIDDEN, 2 * HIDDEN), draw(5, HIDDEN, HIDDEN))
        for each in inputs
    ]
    return graph, powers_QN, [part for each in layers for part in (*each, draw(3 * HIDDEN))]


def stacked_wavefront() -> tuple[Supports, tuple[object, ...]]:
    graph, powers_QN, weights = stacked(2, HIDDEN)
    x_TNCB, first_NWB = draw(4, NUM_NODES, 2, BATCH), draw(NUM_NODES, 2 * HIDDEN, BATCH)
    return graph, (x_TNCB, first_NWB, powers_QN, weights)


def stacked_wavefront_from_zero() -> tuple[Supports, tuple[object, ...]]:
    graph, powers_QN, weights = stacked(2)
    return graph, (draw(4, NUM_NODES, 2, BATCH), None, powers_QN, weights)


def stacked_decoder() -> tuple[Supports, tuple[object, ...]]:
    graph, powers_QN, weights = stacked(1, HIDDEN)
    first_NWB, truths_TNCB = draw(NUM_NODES, 2 * HIDDEN, BATCH), torch.randn(3, NUM_NODES, 1, BATCH)
    folded = draw(5, HIDDEN, 3 * HIDDEN), draw(NUM_NODES, 3 * HIDDEN)
    return graph, (first_NWB, truths_TNCB, [False, True, False], powers_QN, *folded, weights)


def stacked_decoder_without_truths() -> tuple[Supports, tuple[object, ...]]:
    graph, (first_NWB, _, _, *rest) = stacked_decoder()
    return graph, (first_NWB, None, [False, True], *rest)


def stacked_gated_convolution() -> tuple[Supports, tuple[object, ...]]:
    graph = supports()
    x_NLBC, weight_KCG = draw(NUM_NODES, 5, BATCH, 4), draw(2, 4, 2 * HIDDEN)
    return graph, (x_NLBC, weight_KCG, draw(2 * HIDDEN), 2, torch.float32)


def stacked_graph_convolution() -> tuple[Supports, tuple[object, ...]]:
    graph, powers_QN, _ = stacked()
    powers_NQ, learned_NP = powers_QN.view(NUM_NODES, -1), draw(NUM_NODES, 2 * NUM_NODES)
    x_NLBC = draw(NUM_NODES, 3, BATCH, 4)
    return graph, (x_NLBC, draw(5, 4, HIDDEN), draw(HIDDEN), powers_NQ, learned_NP)


SAMPLES = {
    "sparse_product": [sparse_product],
    "diffusion_convolution": [diffusion_convolution],
    "diffusion_recurrence": [diffusion_recurrence],
    "stacked_wavefront": [stacked_wavefront, stacked_wavefront_from_zero],
    "stacked_decoder": [stacked_decoder, stacked_decoder_without_truths],
    "stacked_gated_convolution": [stacked_gated_convolution],
    "stacked_graph_convolution": [stacked_graph_convolution],
}


@pytest.mark.parametrize(
    ("name", "sample"), [(name, each) for name, some in SAMPLES.items() for each in some]
)
def test_operators_are_what_they_say(
    name: str,
    sample: Callable[[], tuple[Supports, tuple[object, ...]]],
) -> None:
    """Schemas, shapes for the compiler, and gradients, also where the batch is symbolic."""
    torch.manual_seed(0)
    _owner, args = sample()
    operator = getattr(torch.ops.pgti, name).default
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
