"""Operators of the compiler: `torch.library.opcheck` of all, and graphs by their handles.

Their results and gradients are compared with dense references in the tests of their layers, which
run `_both_ways`.
"""

import copy
import functools
import pickle

import pytest
import torch
from torch import Tensor

from pgti.models import TeacherForcing
from pgti.nn import ChunkLimits, Supports
from pgti.nn.diffusion import diffusion_convolution
from pgti.nn.limits import DenseLimits
from pgti.nn.operator_arguments import object_of

from ..models import small_models
from .compiler_calls import Call, compiler_calls
from .random_graphs import asymmetric_graph

NUM_NODES, BATCH, WIDE, HORIZON = 6, 3, 17, 2
MODELS = ("a3tgcn", "agcrn", "dcrnn", "graph-wavenet", "mtgnn")
STACKED = ("dcrnn", "graph-wavenet")
"""Models that together use all operators, these on stacked powers too."""

OPERATORS = sorted(
    name for name in torch._C._dispatch_get_all_op_names() if name.startswith("pgti::")
)


def supports() -> Supports:
    """Of a random graph."""
    return Supports.from_graph(asymmetric_graph(NUM_NODES))


@functools.cache
def first_calls() -> tuple[dict[str, Call], list[Supports]]:
    """The first call of each operator by its name, and the graphs, which must live."""
    sizes = small_models.shape(input_steps=3, horizon=HORIZON)
    graphs = [supports()]
    teacher = TeacherForcing(
        targets_BHNC=torch.ones(BATCH, HORIZON, small_models.NUM_NODES, small_models.TARGETS),
        calendar_BHF=torch.zeros(BATCH, HORIZON, 2),
        step=0,
        seed=1,
    )
    with compiler_calls() as calls:
        for name in (*MODELS, *STACKED):
            options = {"scheduled_sampling": True} if name == "dcrnn" else {}
            model = small_models.build(name, sizes, **options).train()
            model.limits = ChunkLimits(stored_weights=0)
            graphs.append(small_models.supports_of(model))
            is_stacked = len(graphs) > len(MODELS) + 1
            graphs[-1].dense = DenseLimits(stacked=(1 << 20) * is_stacked)
            x = small_models.inputs(sizes=sizes, batch=BATCH)
            forecast: Tensor = model(x, graphs[-1], None if is_stacked else teacher)
            forecast.square().sum().backward()
        x_LNBC = torch.randn(2, NUM_NODES, BATCH, WIDE, requires_grad=True)
        weights = torch.randn(5, WIDE, 4, requires_grad=True), torch.zeros(4, requires_grad=True)
        diffusion_convolution(x_LNBC, *weights, graphs[0]).sum().backward()
    return calls.first, graphs


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_what_they_say(name: str) -> None:
    """Schemas, shapes for the compiler, and gradients, also where all sizes are symbolic."""
    operator, args = first_calls()[0][name]
    with torch.set_grad_enabled(not name.endswith("_backward")):  # which is not differentiated
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
