"""HimNet against a reference that makes all weights from the paper's equations."""

import pytest
import torch
from torch import Tensor

from pgti.errors import ConfigError
from pgti.models import HimNet, HimNetConfig, TeacherForcing, build_config
from pgti.models.scheduled_sampling import scheduled_sampling_coins
from pgti.nn import ChunkLimits

from . import small_models
from .dense_reference import (
    adaptive_gru_step,
    affine,
    assert_same,
    calendar_vectors,
    chebyshev,
    dense_adjacency,
)
from .small_models import (
    BATCH,
    FLOAT64,
    NUM_NODES,
    STEPS_PER_DAY,
    TARGETS,
    count_parameters,
    inputs,
    measure_memory,
    metr_la_shape,
    supports_of,
)

STEPS, HORIZON = 3, 4


def build(calendar: tuple[str, ...] = ("time-of-day", "day-of-week"), **options: object) -> HimNet:
    """A small model away from its start, weights and embeddings large enough to matter."""
    sizes = small_models.shape(
        input_steps=STEPS,
        horizon=HORIZON,
        calendar=calendar,
        input_channels=3 + len(calendar),
    )
    model = small_models.build("himnet", sizes, **options)
    assert isinstance(model, HimNet)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model.double()


def calendar_of(model: HimNet, sample: int) -> Tensor:
    """[L + H, F]: of the rows that `small_models.inputs` has, and those that follow."""
    rows = sample * 31 + torch.arange(STEPS + HORIZON)
    features = {
        "time-of-day": rows % STEPS_PER_DAY / STEPS_PER_DAY,
        "day-of-week": rows // STEPS_PER_DAY % 7 / 7,
    }
    columns = [features[name].double() for name in model.shape.calendar]
    return torch.stack(columns, dim=1) if columns else torch.zeros(STEPS + HORIZON, 0).double()


def calendars(model: HimNet, batch: int = BATCH) -> Tensor:
    """[B, L + H, F]."""
    return torch.stack([calendar_of(model, sample) for sample in range(batch)])


def reference(model: HimNet, x: Tensor, truths: dict[int, Tensor] | None = None) -> Tensor:
    """The whole model: sample by sample, step by step; `truths` replace forecasts [B, N, C_out]."""
    config, forecasts = model.config, []
    graph = dense_adjacency(model.node_embedding, model.node_embedding, config.adjacency)
    terms = chebyshev(graph, config.order)
    for number, sample in enumerate(x):
        vectors = calendar_vectors(model, number * 31 + STEPS - 1)
        time = torch.cat(vectors) if vectors else x.new_ones(1)
        by_node = by_time = x.new_zeros(NUM_NODES, config.hidden)
        for row in sample:
            by_node = adaptive_gru_step(
                model.node_encoder, model.node_embedding, terms, row, by_node
            )
            by_time = adaptive_gru_step(
                model.time_encoder, time.expand(NUM_NODES, -1), terms, row, by_time
            )
        state = by_node + by_time
        vectors_NR = affine(model.window_embedding, state)
        own = chebyshev(dense_adjacency(vectors_NR, vectors_NR, config.adjacency), config.order)
        fed, steps = x.new_zeros(NUM_NODES, model.shape.target_channels), []
        for step, ahead in enumerate(calendar_of(model, number)[STEPS:]):
            row = torch.cat([fed, ahead.expand(NUM_NODES, -1)], dim=1)
            state = adaptive_gru_step(model.decoder, vectors_NR, own, row, state)
            fed = affine(model.projection, state)
            steps.append(fed)
            if truths and step in truths:
                fed = truths[step][number]
        forecasts.append(torch.stack(steps))
    return torch.stack(forecasts)


@pytest.mark.parametrize(
    ("adjacency", "order", "stored", "calendar"),
    [
        ("dense", 2, 1 << 24, ("time-of-day", "day-of-week")),
        ("dense", 3, 0, ("time-of-day",)),
        ("low-rank", 2, 0, ()),
    ],
)
def test_forecasts_and_gradients_equal_the_reference(
    adjacency: str, order: int, stored: int, calendar: tuple[str, ...]
) -> None:
    """With both forms of the graph, with weights stored or never made, and less of a calendar."""
    model = build(calendar, adjacency=adjacency, order=order)
    model.limits = ChunkLimits(stored_weights=stored, node_weights=100)
    x = inputs(FLOAT64, sizes=model.shape).requires_grad_()
    found = model(x, supports_of(model), calendar=calendars(model))
    assert_same(found, reference(model, x), (x, *model.parameters()), atol=1e-11)


def test_the_calendar_of_the_horizon_is_the_decoders_input() -> None:
    """Without it, that of x continues, over midnight too; another one gives other forecasts."""
    model, supports = build(), supports_of(build())
    x, calendar = inputs(FLOAT64, sizes=model.shape, batch=4), calendars(model, 4)
    assert (calendar[:, -1] != calendar[:, 0]).all(dim=1).any(), "a window passes midnight"
    continued = model(x, supports)
    given = model(x, supports, calendar=calendar)
    torch.testing.assert_close(given, continued, rtol=1e-5, atol=1e-6)  # x has it in float32
    calendar[:, STEPS] += 0.1
    assert not torch.isclose(model(x, supports, calendar=calendar), continued).any()


def test_scheduled_sampling_feeds_the_truth_where_the_coin_falls() -> None:
    """As the reference does with those steps; in evaluation never."""
    model = build(scheduled_sampling=True, sampling_decay=2.0)
    x = inputs(FLOAT64, sizes=model.shape)
    targets = torch.randn(BATCH, HORIZON, NUM_NODES, TARGETS, dtype=FLOAT64)
    step = 1
    coins = scheduled_sampling_coins(4, step, HORIZON, 2.0)
    assert set(coins[:-1]) == {True, False}
    teacher = TeacherForcing(
        targets_BHNC=targets, calendar_BHF=x.new_zeros(BATCH, HORIZON, 2), step=step, seed=4
    )
    truths = {index: targets[:, index] for index, coin in enumerate(coins) if coin}
    found = model(x, supports_of(model), teacher, calendars(model))
    assert_same(found, reference(model, x, truths), list(model.parameters()), atol=1e-11)
    assert torch.equal(
        model(x, supports_of(model)), build(adjacency="dense")(x, supports_of(model))
    )


def test_parameters_are_as_many_as_in_the_released_code() -> None:
    """1,250,937 on METR-LA: three pools, the tables, the maps."""
    calendar = ("time-of-day", "day-of-week")
    sizes = metr_la_shape(input_channels=3, calendar=calendar, steps_per_day=288)
    model = HimNet(HimNetConfig(), sizes)
    pools = 3 * 16 * (2 * (3 + 64) + 1) * 3 * 64
    tables = 207 * 16 + 288 * 8 + 7 * 8
    assert count_parameters(model) == pools + tables + 64 * 16 + 16 + 65 == 1_250_937


def test_weights_of_sensors_in_windows_are_never_made() -> None:
    """Which would be 7 x 16 x 2 x 8 x 3 x 4 numbers for the decoder's state alone."""
    model = HimNet(HimNetConfig(hidden=8, node_embedding=2, window_embedding=16), build().shape)
    model.limits = ChunkLimits(stored_weights=0, node_weights=1 << 12)
    x = inputs(sizes=model.shape, batch=16)
    weights_bytes = 4 * 7 * 16 * 2 * 8 * 3 * 8
    model.activation_checkpointing = True
    stored, peak = measure_memory(model, x)
    assert stored < weights_bytes / 2, (stored, weights_bytes)
    assert peak < 2 * weights_bytes, (peak, weights_bytes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"order": 1}, "order is 1: it must be at least 2"),
        ({"window_embedding": 0}, "window_embedding is 0"),
        ({"sampling_decay": float("inf")}, "sampling_decay is inf: it must be finite"),
        ({"adjacency": "none"}, "adjacency is 'none': choose one of auto, dense, low-rank"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], words: str) -> None:
    """One line: what, the value, the rule."""
    with pytest.raises(ConfigError, match=words):
        build_config("himnet", options)
