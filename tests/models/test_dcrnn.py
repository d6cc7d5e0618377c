"""DCRNN against a dense float64 reference, and the rules of its decoder."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.graph import SensorGraph
from pgti.models import DCRNN, DCRNNConfig, TeacherForcing
from pgti.models.scheduled_sampling import scheduled_sampling_coins, teaching_probability
from pgti.nn import Supports

from . import small_models
from .dense_reference import (
    affine,
    assert_equals_reference,
    assert_same,
    dense_walks,
    powers,
    sigmoid,
)
from .small_models import (
    BATCH,
    FLOAT64,
    HORIZON,
    NUM_NODES,
    TARGETS,
    asymmetric_graph,
    count_parameters,
    measure_memory,
    metr_la_shape,
    shape,
)

SIZES = shape(input_steps=4)


def build(seed: int = 0, **options: object) -> DCRNN:
    """A small model, by default with scheduled sampling."""
    model = small_models.build("dcrnn", SIZES, seed, **{"scheduled_sampling": True, **options})
    assert isinstance(model, DCRNN)
    return model


def inputs(dtype: torch.dtype = torch.float32) -> Tensor:
    """A batch of inputs."""
    return small_models.inputs(dtype, SIZES)


def teacher(step: int = 0, seed: int = 0, dtype: torch.dtype = torch.float32) -> TeacherForcing:
    """Random truth at a step of training."""
    generator = torch.Generator().manual_seed(6)
    shape = (BATCH, HORIZON, NUM_NODES, TARGETS)
    return TeacherForcing(
        targets_BHNC=torch.randn(*shape, generator=generator, dtype=FLOAT64).to(dtype),
        calendar_BHF=torch.zeros(BATCH, HORIZON, 1, dtype=dtype),
        step=step,
        seed=seed,
    )


def reference_cell(cell: nn.Module, x: Tensor, h: Tensor, walks: list[Tensor]) -> Tensor:
    """One step of one layer for one sample: x [N, C], h [N, D]."""
    weights = dict(cell.named_parameters())
    terms, size = weights["weight_input"].shape[0], h.shape[1]
    hops = powers(walks, (terms - 1) // 2)

    def convolve(state: Tensor, weight: Tensor, gate: int) -> Tensor:
        columns = slice(gate * size, (gate + 1) * size)
        output = weights["bias"][columns].expand(len(x), -1)
        for term, power in enumerate(hops):
            output = output + power @ x @ weights["weight_input"][term][:, columns]
            output = output + power @ state @ weight[term]
        return output

    gates = weights["weight_gates"]
    r = sigmoid(convolve(h, gates[..., :size], 0))
    u = sigmoid(convolve(h, gates[..., size:], 1))
    c = torch.tanh(convolve(r * h, weights["weight_candidate"], 2))
    return u * h + (1 - u) * c


def reference(
    model: DCRNN, x: Tensor, truth: Tensor | None = None, taught: list[bool] | None = None
) -> Tensor:
    """The whole model on dense matrices: sample by sample, step by step, layer by layer."""
    walks = dense_walks(asymmetric_graph())
    samples = []
    for index, sample in enumerate(x):
        states = [x.new_zeros(NUM_NODES, model.config.hidden) for _ in model.encoder]
        for signal in sample:
            below = signal
            for layer, cell in enumerate(model.encoder):
                states[layer] = below = reference_cell(cell, below, states[layer], walks)
        fed, outputs = x.new_zeros(NUM_NODES, TARGETS), []
        for step in range(HORIZON):
            below = fed
            for layer, cell in enumerate(model.decoder):
                states[layer] = below = reference_cell(cell, below, states[layer], walks)
            outputs.append(affine(model.projection, below))
            fed = outputs[-1]
            if truth is not None and taught is not None and taught[step]:
                fed = truth[index, step]
        samples.append(torch.stack(outputs))
    return torch.stack(samples)


@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize("layers", [1, 2])
def test_forecasts_and_gradients_equal_the_dense_reference(hops: int, layers: int) -> None:
    """Free-running: outputs and the gradients of all parameters and inputs, in float64."""
    model = build(hops=hops, layers=layers).double()
    assert_equals_reference(model, inputs(FLOAT64), reference)


def test_float32_stays_near_the_float64_reference() -> None:
    """Single precision costs no more than 1e-5."""
    model, x = build(layers=2, hops=3), inputs()
    found = model(x, Supports.from_graph(asymmetric_graph()))
    expected = reference(copy.deepcopy(model).double(), x.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_wide_inputs_and_layers_equal_the_reference() -> None:
    """More channels than the narrow path takes give the same forecasts."""
    sizes = shape(input_steps=4, input_channels=20, target_indices=(3, 1))
    model = DCRNN(DCRNNConfig(hidden=6), sizes).double()
    assert_equals_reference(model, small_models.inputs(FLOAT64, sizes), reference)


def test_a_batch_equals_its_samples() -> None:
    """f(batch)[i] == f(batch[i])."""
    model = build().double()
    supports = Supports.from_graph(asymmetric_graph()).double()
    x = inputs(FLOAT64)
    together = model(x, supports)
    assert together.shape == (BATCH, HORIZON, NUM_NODES, TARGETS)
    for index in range(BATCH):
        alone = model(x[index : index + 1], supports)[0]
        torch.testing.assert_close(together[index], alone, rtol=1e-12, atol=1e-13)


def test_scheduled_sampling_equals_the_reference() -> None:
    """Where coins mix truth and forecast, outputs and gradients follow the same mixture."""
    model = build(sampling_decay=3.0).double()
    supports = Supports.from_graph(asymmetric_graph()).double()
    given_truth = teacher(step=4, seed=2, dtype=FLOAT64)
    taught = scheduled_sampling_coins(2, 4, HORIZON, 3.0)
    assert 0 < sum(taught[:-1]) < HORIZON - 1
    x = inputs(FLOAT64)
    found = model(x, supports, given_truth)
    expected = reference(model, x, given_truth.targets_BHNC, taught)
    assert_same(found, expected, list(model.parameters()))


def test_scheduled_sampling_depends_on_seed_and_step_alone() -> None:
    """The same (seed, step) repeats bit for bit whatever torch's generator does; others differ."""
    model, supports, x = (
        build(sampling_decay=5.0),
        Supports.from_graph(asymmetric_graph()),
        inputs(),
    )
    first = model(x, supports, teacher(step=7, seed=1))
    torch.manual_seed(999)
    state = torch.random.get_rng_state()
    assert torch.equal(model(x, supports, teacher(step=7, seed=1)), first)
    assert torch.equal(torch.random.get_rng_state(), state)
    others = [model(x, supports, teacher(step=7, seed=seed)) for seed in range(2, 8)]
    others += [model(x, supports, teacher(step=step, seed=1)) for step in range(8, 14)]
    assert any(not torch.equal(other, first) for other in others)


def test_the_truth_is_seen_early_and_not_late() -> None:
    """At step 0 of a slow decay every step is taught; after a long time, or switched off, none."""
    supports, x = Supports.from_graph(asymmetric_graph()), inputs()
    model = build(sampling_decay=1e6)
    free = model(x, supports)
    taught = model(x, supports, teacher(step=0))
    assert torch.equal(taught[:, 0], free[:, 0])
    assert not torch.isclose(taught[:, 1:], free[:, 1:]).all(dim=(0, 2, 3)).any()
    late = build(sampling_decay=10.0)
    assert torch.equal(late(x, supports, teacher(step=10_000)), late(x, supports))
    off = build(scheduled_sampling=False)
    assert torch.equal(off(x, supports, teacher(step=0)), off(x, supports))


def test_teaching_probability_is_the_inverse_sigmoid() -> None:
    """It is tau / (tau + exp(step / tau)), without overflow."""
    assert teaching_probability(0, 2000) == 2000 / 2001
    assert math.isclose(teaching_probability(6000, 2000), 2000 / (2000 + math.exp(3)))
    assert teaching_probability(10**9, 1.0) < 1e-300


@settings(deadline=None)
@given(seed=st.integers(0, 2**63 - 1), step=st.integers(0, 2**40), decay=st.floats(1.0, 1e5))
def test_coins_are_pure(seed: int, step: int, decay: float) -> None:
    """One function value per argument; a longer horizon only adds coins."""
    coins = scheduled_sampling_coins(seed, step, 12, decay)
    assert coins == scheduled_sampling_coins(seed, step, 12, decay)
    assert coins == scheduled_sampling_coins(seed, step, 20, decay)[:12]


def test_coins_fall_at_the_stated_rate() -> None:
    """Over many steps at probability one half, about half are taught."""
    decay = 2000.0
    step = int(decay * math.log(decay))
    coins = [
        coin for seed in range(200) for coin in scheduled_sampling_coins(seed, step, 12, decay)
    ]
    assert abs(np.mean(coins) - 0.5) < 0.05


def test_isolated_nodes_forecast_by_themselves() -> None:
    """Other sensors do not reach an isolated node, and nothing is NaN."""
    model, supports, x = build(), Supports.from_graph(asymmetric_graph()), inputs()
    disturbed = x.clone()
    disturbed[:, :, :-1] += 1
    before, after = model(x, supports), model(disturbed, supports)
    assert torch.isfinite(before).all()
    torch.testing.assert_close(before[:, :, -1], after[:, :, -1], rtol=1e-5, atol=1e-6)
    assert not torch.isclose(before[:, :, :-1], after[:, :, :-1]).all()


def test_a_graph_without_edges_works() -> None:
    """Every sensor on its own is a graph too."""
    forecast = build()(inputs(), Supports.from_graph(SensorGraph.empty(NUM_NODES)))
    assert torch.isfinite(forecast).all()


def test_state_dicts_round_trip() -> None:
    """Another instance with the loaded state gives the same bits; the graph is not in it."""
    model, supports, x = build(seed=0), Supports.from_graph(asymmetric_graph()), inputs()
    other = build(seed=1)
    assert not torch.equal(other(x, supports), model(x, supports))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x, supports), model(x, supports))
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def test_parameters_are_as_many_as_published() -> None:
    """Weights of the paper's METR-LA model: (H (C + D) + 1) 3 D per layer, and the projection."""
    model = DCRNN(DCRNNConfig(hidden=64), metr_la_shape())
    layers = [(2, 64), (64, 64), (1, 64), (64, 64)]
    expected = sum((5 * (c + d) + 1) * 3 * d for c, d in layers) + 64 + 1
    assert count_parameters(model) == expected == 372_353
    for name, parameter in model.named_parameters():
        if name.endswith(".bias") and "projection" not in name:
            assert parameter.tolist() == [1.0] * 128 + [0.0] * 64


def test_autocast_is_accurate() -> None:
    """Forecasts in bfloat16 products stay within 0.02 standard deviations of the float32 ones."""
    model, supports, x = build(), Supports.from_graph(asymmetric_graph()), inputs()
    exact = model(x, supports)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(x, supports)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 0.02
    rounded.square().sum().backward()
    assert all(
        parameter.grad is not None and torch.isfinite(parameter.grad).all()
        for parameter in model.parameters()
    )


@pytest.mark.parametrize("scheduled_sampling", [False, True])
def test_recomputed_activations_change_nothing(*, scheduled_sampling: bool) -> None:
    """Forecasts are the same; gradients too, but for the order of their sums."""
    model = build(scheduled_sampling=scheduled_sampling).double()
    supports = Supports.from_graph(asymmetric_graph()).double()
    x, truth = inputs(FLOAT64), teacher(dtype=FLOAT64)
    parameters = list(model.parameters())
    expected = model(x, supports, truth)
    model.activation_checkpointing = True
    found = model(x, supports, truth)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(found.square().sum(), parameters),
        torch.autograd.grad(expected.square().sum(), parameters),
        rtol=1e-10,
        atol=1e-12,
    )


def test_recomputation_takes_a_fraction_of_the_memory() -> None:
    """Over 24 steps, a quarter stays alive between the passes, and the peak falls to a half."""
    sizes = shape(horizon=12)
    model, x = DCRNN(DCRNNConfig(hidden=32), sizes), small_models.inputs(sizes=sizes, batch=64)
    stored, peak = measure_memory(model, x)
    model.activation_checkpointing = True
    fewer, lower = measure_memory(model, x)
    assert fewer < stored / 4, (fewer, stored, lower, peak)
    assert lower < peak / 2, (fewer, stored, lower, peak)


def test_wrong_supports_are_refused() -> None:
    """One walk, or another graph's walks, are an error and not a broadcast."""
    model, graph = build(), asymmetric_graph()
    with pytest.raises(ConfigError, match="7 nodes got random_walk supports on 7 nodes"):
        model(inputs(), Supports.from_graph(graph, "random_walk"))
    with pytest.raises(ConfigError, match="got dual_random_walk supports on 3 nodes"):
        model(inputs(), Supports.from_graph(SensorGraph.empty(3)))


# The compiler itself looks at the gradients of whatever crosses a break of its graph.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_compiled_model_is_taught_as_the_model_is() -> None:
    """The coins are tossed outside of what is compiled, anew at every step."""
    torch.compiler.reset()
    model, x = build(sampling_decay=1.0).train(), inputs()
    supports = Supports.from_graph(asymmetric_graph())
    compiled = torch.compile(model, backend="eager")
    tosses = {tuple(scheduled_sampling_coins(3, step, HORIZON, 1.0)) for step in range(3)}
    assert len(tosses) == 3
    for step in range(3):
        truth = teacher(step, seed=3)
        torch.testing.assert_close(compiled(x, supports, truth), model(x, supports, truth))
