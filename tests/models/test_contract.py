"""What every model owes its users, one test each, with the models of `small_models.SMALL`."""

import copy
import io
from dataclasses import fields

import pytest
import torch

from pgti.errors import ConfigError
from pgti.graph import SensorGraph
from pgti.models import MODELS, TeacherForcing, build_model
from pgti.nn import NUM_SUPPORTS, ChunkLimits, Supports
from pgti.nn.limits import DenseLimits

from .small_models import (
    BATCH,
    FLOAT64,
    HORIZON,
    NUM_NODES,
    SMALL,
    TARGETS,
    build,
    inputs,
    shape,
    supports_of,
)

NAMES = [name for name, entry in MODELS.items() if not entry.library]
SMALL_LIMITS = ChunkLimits(
    activations=1,
    tokens=4,
    gates=40,
    window=40,
    scores=20,
    graph_features=3,
    mix_hop_features=3,
    mix_hop_numbers=40,
    stored_weights=0,
    node_weights=130,
)
"""Limits with which the small models here compute in parts."""


def some_teacher() -> TeacherForcing:
    """What a model may see of the future at a step of training."""
    return TeacherForcing(
        targets_BHNC=torch.zeros(BATCH, HORIZON, NUM_NODES, TARGETS),
        calendar_BHF=torch.zeros(BATCH, HORIZON, 2),
        step=3,
        seed=1,
    )


@pytest.mark.parametrize("name", NAMES)
def test_gradients_share_no_memory(name: str) -> None:
    """Or a step in place would scale and clip them more than once."""
    model = build(name)
    model(inputs(), supports_of(model), some_teacher()).square().sum().backward()
    gradients = [each.grad for each in model.parameters() if each.grad is not None]
    addresses = {each.data_ptr() for each in gradients if each.numel()}
    assert len(addresses) == len([each for each in gradients if each.numel()])


def test_every_model_is_here() -> None:
    """A model that is added is tested."""
    assert sorted(SMALL) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_forecasts_have_the_shape_and_gradients_are_finite(name: str) -> None:
    """[B, H, N, C_out], contiguous; every trainable parameter has a finite gradient."""
    model = build(name)
    forecast = model(inputs(), supports_of(model))
    assert forecast.shape == (BATCH, HORIZON, NUM_NODES, TARGETS)
    assert forecast.is_contiguous()
    assert torch.isfinite(forecast).all()
    trained = [each for each in model.parameters() if each.requires_grad]
    for gradient in torch.autograd.grad(forecast.square().sum(), trained):
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_equals_its_samples(name: str) -> None:
    """f(batch)[i] == f(batch[i])."""
    model = build(name).double()
    supports, x = supports_of(model).double(), inputs(FLOAT64)
    together = model(x, supports)
    for index in range(BATCH):
        alone = model(x[index : index + 1], supports)[0]
        torch.testing.assert_close(together[index], alone, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_forecasts_repeat_bit_for_bit_and_draw_nothing(name: str) -> None:
    """In evaluation, and in training once the generator is seeded again."""
    model = build(name)
    supports, x = supports_of(model), inputs()
    state = torch.random.get_rng_state()
    first = model(x, supports)
    assert torch.equal(model(x, supports), first)
    assert torch.equal(torch.random.get_rng_state(), state)
    model.train()
    teacher = some_teacher()
    outputs = []
    for _ in range(2):
        torch.manual_seed(7)
        outputs.append(copy.deepcopy(model)(x, supports, teacher))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("name", NAMES)
def test_weights_may_be_tensors_that_a_caller_gives(name: str) -> None:
    """As `torch.func` does for ensembles and the sensitivity to weights, also on small graphs."""
    model, x = build(name), inputs()
    supports = supports_of(model)
    supports.dense = DenseLimits(stacked=1 << 20)
    weights = {key: each.detach() for key, each in model.named_parameters()}
    forecast = torch.func.functional_call(model, weights, (x, supports))
    torch.testing.assert_close(forecast, model(x, supports), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("input_steps", "horizon"), [(12, 12), (12, 1), (5, 12), (1, 3)])
def test_input_and_horizon_may_differ(name: str, input_steps: int, horizon: int) -> None:
    """Independent lengths, down to one row."""
    sizes = shape(input_steps=input_steps, horizon=horizon)
    model = build(name, sizes)
    forecast = model(inputs(sizes=sizes), supports_of(model))
    assert forecast.shape == (BATCH, horizon, NUM_NODES, TARGETS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("calendar", [(), ("time-of-day",), ("day-of-week",)])
def test_calendar_features_may_be_left_out(name: str, calendar: tuple[str, ...]) -> None:
    """Where the paper uses them, the model goes without."""
    sizes = shape(input_channels=3 + len(calendar), calendar=calendar)
    model = build(name, sizes)
    forecast = model(inputs(sizes=sizes), supports_of(model))
    assert torch.isfinite(forecast).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_past_and_the_readings_matter(name: str) -> None:
    """No reading of a target is without effect on its sensor's forecast, the oldest included."""
    model = build(name).double()
    supports, x = supports_of(model).double(), inputs(FLOAT64).requires_grad_()
    for node in range(NUM_NODES):
        (gradient,) = torch.autograd.grad(
            model(x, supports)[:, :, node].square().sum(), x, retain_graph=False
        )
        assert (gradient[:, :, node, :TARGETS].abs().sum(dim=(0, 2)) > 0).all(), node


@pytest.mark.parametrize("name", NAMES)
def test_state_dicts_round_trip(name: str) -> None:
    """Through a file, into another instance, to the same bits; the graph is not in it."""
    model, other, x = build(name, seed=0), build(name, seed=1), inputs()
    supports = supports_of(model)
    assert not torch.equal(other(x, supports), model(x, supports))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x, supports), model(x, supports))


@pytest.mark.parametrize("name", NAMES)
def test_models_move_between_devices(name: str) -> None:
    """Everything that a forward pass makes is made on the input's device: `meta` has no data."""
    model = build(name).to("meta")
    forecast = torch.empty(0)
    if model.support_kind == "none":  # sparse products do not run without data
        forecast = model(inputs().to("meta"), supports_of(model).to("meta"))
        assert forecast.device.type == "meta"
    tensors = [*model.parameters(), *model.buffers()]
    assert all(each.device.type == "meta" for each in tensors)
    hidden = [
        (key, value)
        for module in model.modules()
        for key, value in vars(module).items()
        if isinstance(value, torch.Tensor)
    ]
    assert not hidden, "a tensor that is neither a parameter nor a buffer does not move"


@pytest.mark.parametrize("name", NAMES)
def test_autocast_is_accurate(name: str) -> None:
    """Under bfloat16 forecasts stay near the float32 ones, and gradients are finite."""
    model, x = build(name), inputs()
    supports = supports_of(model)
    exact = model(x, supports)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(x, supports)
    assert rounded.dtype == torch.float32
    scale = exact.std().clamp(min=0.1)
    assert (rounded - exact).abs().max() < 0.1 * scale
    trained = [each for each in model.parameters() if each.requires_grad]
    for gradient in torch.autograd.grad(rounded.square().sum(), trained):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_recomputed_activations_change_nothing(name: str) -> None:
    """In training mode, dropout drawn again included: the same forecasts and gradients."""
    model = build(name).double()
    if not model.can_checkpoint_activations:
        pytest.skip(f"{name} keeps its activations")
    supports, x = supports_of(model).double(), inputs(FLOAT64)
    trained = [each for each in model.parameters() if each.requires_grad]
    model.train()
    results = []
    for checkpointing in (False, True):
        model.activation_checkpointing = checkpointing
        torch.manual_seed(3)
        forecast = model(x, supports)
        results.append((forecast, torch.autograd.grad(forecast.square().sum(), trained)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_large_graph_is_computed_in_parts_that_change_nothing(
    name: str, checkpointing: bool
) -> None:
    """In evaluation and differentiated: a few numbers at a time give the same to the last bits."""
    model = build(name).double()
    model.activation_checkpointing = checkpointing and model.can_checkpoint_activations
    x = inputs(FLOAT64)
    trained = [each for each in model.parameters() if each.requires_grad]

    def results(limits: ChunkLimits, dense: DenseLimits) -> list[torch.Tensor]:
        model.limits = limits
        supports = supports_of(model).double()
        supports.dense = dense
        with torch.no_grad():
            evaluated = model(x, supports)
        forecast = model(x, supports)
        gradients = torch.autograd.grad(forecast.square().sum(), trained)
        return [evaluated, forecast, *gradients]

    for field in fields(ChunkLimits):
        assert getattr(model.limits, field.name) > getattr(SMALL_LIMITS, field.name)
    together = results(model.limits, DenseLimits())
    torch.testing.assert_close(
        results(SMALL_LIMITS, DenseLimits(nodes=0)), together, rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_without_edges_works(name: str) -> None:
    """Every sensor on its own is a graph too."""
    model = build(name)
    forecast = model(inputs(), supports_of(model, SensorGraph.empty(NUM_NODES)))
    assert torch.isfinite(forecast).all()


@pytest.mark.parametrize("name", NAMES)
def test_other_supports_are_refused(name: str) -> None:
    """Another graph's operators, or others of this one, are an error and not other forecasts."""
    model = build(name)
    if model.support_kind == "none":
        pytest.skip(f"{name} has no use for the graph")
    with pytest.raises(ConfigError, match="on 3 nodes"):
        model(inputs(), model.build_supports(SensorGraph.empty(3)))
    for kind in NUM_SUPPORTS:
        if kind != model.support_kind:
            with pytest.raises(ConfigError, match=f"got {kind} supports"):
                model(inputs(), Supports.from_graph(SensorGraph.empty(NUM_NODES), kind))


@pytest.mark.parametrize("name", NAMES)
def test_initial_weights_come_from_the_generator(name: str) -> None:
    """The same seed gives the same parameters."""
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build_model(name, SMALL[name], shape()).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


@pytest.mark.parametrize("name", NAMES)
def test_quantiles_of_a_target_are_outputs_of_their_own(name: str) -> None:
    """Where a target is named several times, each output is learned and differs from the others."""
    model = build(name, shape(target_channels=4, target_indices=(1, 1, 0, 0)))
    forecast = model(inputs(), supports_of(model))
    assert forecast.shape == (BATCH, HORIZON, NUM_NODES, 4)
    for one, other in ((0, 1), (2, 3)):
        assert not torch.allclose(forecast[..., one], forecast[..., other])
