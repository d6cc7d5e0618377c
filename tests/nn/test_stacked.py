"""Recurrent layers on stacked powers equal those on sparse products."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from pgti.graph import SensorGraph
from pgti.memory import LiveBytes
from pgti.models import TeacherForcing, build_model
from pgti.nn import DiffusionGRU, Supports
from pgti.nn.limits import DenseLimits, chunk_limits, dense_limits
from pgti.nn.stacked import read_stacked
from pgti.nn.stacked_steps import GatedWeights

from ..models.small_models import (
    BATCH,
    HORIZON,
    NUM_NODES,
    TARGETS,
    build,
    inputs,
    shape,
    supports_of,
)

STACKED = DenseLimits(stacked=1 << 40)
NODES, SAMPLES, STEPS, CHANNELS, HIDDEN, HOPS = 9, 3, 5, 2, 4, 2
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}


def some_supports(dtype: torch.dtype = torch.float64, **options: DenseLimits) -> Supports:
    """Both walks of a small graph, one of whose nodes has no edges."""
    edges = np.random.default_rng(0).permutation((NODES - 1) ** 2)[:24]
    weights = np.linspace(0.1, 1, len(edges))
    graph = SensorGraph.from_edges(NODES, edges // (NODES - 1), edges % (NODES - 1), weights)
    supports = Supports.from_graph(graph).to(dtype)
    supports.dense = options.get("dense", STACKED)
    return supports


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    """Equal to rounding, relative to the largest number of each tensor if that exceeds 1."""
    for one, other in zip(found, expected, strict=True):
        scale = max(1.0, float(other.detach().abs().max()))
        tolerance = 3 * TOLERANCE[other.dtype] * scale
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


def test_stacked_powers_are_the_hops_of_every_node() -> None:
    """Row n * H + k is row n of power k: the identity, S1, S1^2, S2, S2^2."""
    supports = some_supports()
    powers_QN = supports.stacked_powers(HOPS)
    assert powers_QN is not None
    expected = [torch.eye(NODES, dtype=torch.float64)]
    for index in range(2):
        operator = supports.product(index, expected[0])
        expected += [operator, operator @ operator]
    torch.testing.assert_close(powers_QN.view(NODES, 5, NODES).unbind(1), tuple(expected))
    torch.testing.assert_close(supports.power_sums(HOPS), torch.stack(expected, 1).sum(2))
    assert supports.stacked_powers(HOPS) is powers_QN


def test_powers_are_stacked_on_gpus_if_they_are_few() -> None:
    """Never by default on a CPU; on other devices up to a number of nodes."""
    assert some_supports(dense=dense_limits(torch.device("cpu"))).stacked_powers(HOPS) is None
    powers = 5 * NODES**2
    assert some_supports(dense=DenseLimits(stacked=powers)).stacked_powers(HOPS) is not None
    assert some_supports(dense=DenseLimits(stacked=powers - 1)).stacked_powers(HOPS) is None
    gpu = dense_limits(torch.device("cuda", 0))
    assert 5 * 500**2 < gpu.stacked < 5 * 2000**2


def test_gpus_compute_in_larger_pieces() -> None:
    """Every limit of a GPU is above that of a CPU."""
    cpu, gpu = (chunk_limits(torch.device(name)) for name in ("cpu", "cuda"))
    for name in type(cpu).__dataclass_fields__:
        assert getattr(gpu, name) > getattr(cpu, name)


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("has_first", [False, True])
def test_a_wavefront_equals_one_layer_after_another(
    dtype: torch.dtype, depth: int, has_first: bool
) -> None:
    """States, and gradients of inputs, first states and parameters."""
    torch.manual_seed(0)
    supports = some_supports(dtype)
    powers_QN = supports.stacked_powers(HOPS)
    assert powers_QN is not None
    layers = [
        DiffusionGRU(HIDDEN if k else CHANNELS, HIDDEN, 2, HOPS).to(dtype) for k in range(depth)
    ]
    x_LNBC = torch.randn(STEPS, NODES, SAMPLES, CHANNELS, dtype=dtype, requires_grad=True)
    first = torch.randn(depth, NODES, SAMPLES, HIDDEN, dtype=dtype, requires_grad=has_first)
    wanted = [
        x_LNBC,
        *([first] if has_first else []),
        *(each for layer in layers for each in layer.parameters()),
    ]
    into_states = torch.randn(STEPS, NODES, SAMPLES, HIDDEN, dtype=dtype)
    into_last = torch.randn(depth, NODES, SAMPLES, HIDDEN, dtype=dtype)

    def results(states: Tensor, last: Tensor) -> list[Tensor]:
        total = (states * into_states).sum() + (last * into_last).sum()
        return [states, last, *torch.autograd.grad(total, wanted)]

    sequence, last = x_LNBC, []
    for layer, before in zip(layers, first if has_first else [None] * depth, strict=True):
        sequence, after = layer(sequence, before, supports)
        last.append(after)
    expected = results(sequence, torch.stack(last))
    first_NWB = first.permute(1, 0, 3, 2).flatten(1, 2) if has_first else None
    states_TNDB, last_NWB = read_stacked(
        x_LNBC.transpose(2, 3), first_NWB, [GatedWeights.of(layer) for layer in layers], powers_QN
    )
    last_LNBD = last_NWB.view(NODES, depth, HIDDEN, SAMPLES).permute(1, 0, 3, 2)
    assert_equal(results(states_TNDB.transpose(2, 3), last_LNBD), expected)


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layers": 1},
        {"layers": 3, "hops": 3},
        {"scheduled_sampling": True, "sampling_decay": 3.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_dcrnn_on_stacked_powers_equals_dcrnn(
    options: dict[str, float], checkpointing: bool, dtype: torch.dtype
) -> None:
    """Forecasts in training and evaluation, and gradients of all parameters."""
    torch.manual_seed(0)
    model = build_model("dcrnn", {"hidden": 8, **options}, shape()).to(dtype)
    model.activation_checkpointing = checkpointing
    x = inputs(dtype)
    teacher = TeacherForcing(
        targets_BHNC=torch.randn(BATCH, HORIZON, NUM_NODES, TARGETS, dtype=dtype),
        calendar_BHF=torch.zeros(BATCH, HORIZON, 2),
        step=3,
        seed=1,
    )

    def results(dense: DenseLimits) -> list[Tensor]:
        supports = supports_of(model).to(dtype)
        supports.dense = dense
        trained = model(x, supports, teacher)
        with torch.no_grad():
            evaluated = model(x, supports)
        gradients = torch.autograd.grad(trained.square().sum(), list(model.parameters()))
        return [trained, evaluated, *gradients]

    assert_equal(results(STACKED), results(DenseLimits()))


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("dtype", "input_steps"),
    [(torch.float64, 1), (torch.float64, 12), (torch.float64, 20), (torch.float32, 12)],
)
def test_graph_wavenet_on_stacked_powers_equals_graph_wavenet(
    checkpointing: bool, dtype: torch.dtype, input_steps: int
) -> None:
    """Forecasts in training and evaluation, and gradients of all parameters; without dropout."""
    torch.manual_seed(0)
    sizes = shape(input_steps=input_steps)
    model = build_model("graph-wavenet", {"dropout": 0.0}, sizes).to(dtype)
    model.activation_checkpointing = checkpointing
    x = torch.randn(BATCH, input_steps, NUM_NODES, sizes.input_channels, dtype=dtype)

    def results(dense: DenseLimits) -> list[Tensor]:
        supports = supports_of(model).to(dtype)
        supports.dense = dense
        trained = model.train()(x, supports)
        gradients = torch.autograd.grad(trained.square().sum(), list(model.parameters()))
        return [trained, *gradients]

    assert_equal(results(STACKED), results(DenseLimits()))


@pytest.mark.parametrize("name", ["tgcn", "a3tgcn", "pgt-dcrnn"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_models_of_one_layer_on_stacked_powers(
    name: str, checkpointing: bool, dtype: torch.dtype
) -> None:
    """Forecasts in training and evaluation, and gradients of all parameters."""
    model = build(name).to(dtype)
    model.activation_checkpointing = checkpointing
    x = inputs(dtype)

    def results(dense: DenseLimits) -> list[Tensor]:
        supports = supports_of(model).to(dtype)
        supports.dense = dense
        trained = model(x, supports)
        with torch.no_grad():
            evaluated = model(x, supports)
        gradients = torch.autograd.grad(trained.square().sum(), list(model.parameters()))
        return [trained, evaluated, *gradients]

    assert_equal(results(STACKED), results(DenseLimits()))


@pytest.mark.parametrize("name", ["dcrnn", "graph-wavenet", "tgcn"])
def test_models_on_stacked_powers_in_bfloat16(name: str) -> None:
    """Operands are rounded, as they are in sparse products; sums over time are not."""
    torch.manual_seed(0)
    model = build_model(name, {"hidden": 8}, shape()).eval()
    supports, x = supports_of(model), inputs()
    supports.dense = STACKED
    exact = model(x, supports)
    exact_gradients = torch.autograd.grad(exact.square().sum(), list(model.parameters()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(x, supports)
    gradients = torch.autograd.grad(rounded.square().sum(), list(model.parameters()))
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.03 * exact.abs().max()
    total = torch.stack([each.norm() for each in exact_gradients]).norm()
    for one, other in zip(gradients, exact_gradients, strict=True):
        assert (one - other).norm() < 0.03 * total


def test_stacked_layers_hold_hops_of_one_kind_at_a_time() -> None:
    """2.4 times what sparse products take at most, and less than them where checkpointed."""
    model = build_model("dcrnn", {"hidden": 16}, shape(input_steps=12))
    x = torch.randn(8, 12, NUM_NODES, shape().input_channels)

    def peak_bytes(dense: DenseLimits, *, checkpointing: bool = False) -> int:
        model.activation_checkpointing = checkpointing
        supports = supports_of(model)
        supports.dense = dense
        with LiveBytes() as memory:
            torch.autograd.grad(model(x, supports).sum(), list(model.parameters()))
        return memory.peak_bytes

    sparse = peak_bytes(DenseLimits())
    assert peak_bytes(STACKED) < 2.4 * sparse
    assert peak_bytes(STACKED, checkpointing=True) < sparse


def test_a_stacked_layer_is_not_differentiated_twice() -> None:
    """Its backward pass is written by hand, and says so."""
    layer = DiffusionGRU(CHANNELS, HIDDEN, 2, HOPS).double()
    powers_QN = some_supports().stacked_powers(HOPS)
    assert powers_QN is not None
    x = torch.randn(STEPS, NODES, CHANNELS, SAMPLES, dtype=torch.float64, requires_grad=True)
    _, last = read_stacked(x, None, [GatedWeights.of(layer)], powers_QN)
    with pytest.raises(RuntimeError, match="differentiated twice"):
        torch.autograd.grad(last.sum(), x, create_graph=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("name", ["dcrnn", "graph-wavenet", "tgcn"])
def test_models_on_stacked_powers_compile_whole(name: str) -> None:
    """One graph without a break, forward and backward, with the same results."""
    model = build(name).eval()
    supports, x = supports_of(model), inputs()
    supports.dense = STACKED

    def results(network: Callable[[Tensor, Supports], Tensor]) -> list[Tensor]:
        forecast = network(x, supports)
        return [
            forecast,
            *torch.autograd.grad(forecast.square().sum(), list(model.parameters())),
        ]

    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_equal(results(compiled), results(model))
