"""STRecall against a reference written sensor by sensor; what it copies, which days it finds."""

from itertools import product

import pytest
import torch
from torch import Tensor

from pgti.errors import ConfigError
from pgti.models import STRecall, STRecallConfig

from .dense_reference import affine, assert_same, calendar_vectors, dense_walks, powers
from .history import DAYS, SPAN, history_inputs, history_shape
from .small_models import (
    BATCH,
    FLOAT64,
    HORIZON,
    INPUT_STEPS,
    NUM_NODES,
    STEPS_PER_DAY,
    asymmetric_graph,
    build,
    inputs,
    shape,
    supports_of,
)

CLOSEST = 0.003


def day_first(model: STRecall, day: int) -> int | None:
    """Where in the history the rows of a day begin; None if one of them is not there."""
    rows = [row for each in model.shape.history for row in each]
    wanted = range(-day * STEPS_PER_DAY, -day * STEPS_PER_DAY + INPUT_STEPS + model.shape.horizon)
    return rows.index(wanted.start) if set(wanted) <= set(rows) else None


class Sample:
    """One sample: its tensors, and its days, which are found by looking for each of their rows."""

    def __init__(
        self, model: STRecall, index: int, x: Tensor, history: Tensor | None, mask: Tensor | None
    ) -> None:
        self.x, self.index = x[index], index
        self.history = None if history is None else history[index]
        self.mask = None if mask is None else mask[index]
        self.firsts = [row for day in range(1, 9) if (row := day_first(model, day)) is not None]

    def then(self, day: int, node: int, channel: int) -> Tensor:
        """The readings of a day, those of the window first."""
        assert self.history is not None
        first = self.firsts[day]
        return self.history[first : first + INPUT_STEPS + HORIZON, node, channel]

    def close(self, day: int, node: int, channel: int) -> Tensor:
        """How close a day is to the window."""
        differences = self.x[:, node, channel] - self.then(day, node, channel)[:INPUT_STEPS]
        return -torch.log(differences.abs().sum() / INPUT_STEPS + CLOSEST)

    def observed(self, day: int, node: int, channel: int) -> Tensor:
        """The fraction of a day that was."""
        first = self.firsts[day]
        rows = INPUT_STEPS + HORIZON
        if self.mask is None:
            return torch.ones((), dtype=FLOAT64)
        return self.mask[first : first + rows, node, channel].double().sum() / rows


def vector_of(model: STRecall, sample: Sample, node: int) -> Tensor:
    """What is known of a sensor, side by side."""
    p, days = dict(model.named_parameters()), range(len(sample.firsts))
    channels = tuple(dict.fromkeys(model.shape.target_indices))
    parts = [affine(model.window_embedding, sample.x[:, node].flatten())]
    parts.append(p["node_embedding"][node])
    parts += calendar_vectors(model, 31 * sample.index + INPUT_STEPS - 1)
    if sample.history is not None:
        if model.config.history_embedding:
            readings = torch.cat([sample.history[:, node, c] for c in channels])
            parts.append(affine(model.get_submodule("history_embedding"), readings))
        facts = [sample.close(day, node, c) for c in channels for day in days]
        facts += [sample.observed(day, node, c) for c in channels for day in days]
        if facts:
            parts.append(affine(model.get_submodule("day_embedding"), torch.stack(facts)))
    return torch.cat(parts)


def layers_of(model: STRecall, h_ND: Tensor) -> Tensor:
    """All residual layers, with dense powers of the walks."""
    p = dict(model.named_parameters())
    walks = powers(dense_walks(asymmetric_graph()), model.config.hops)
    for layer in range(model.config.layers):
        units = affine(model.get_submodule(f"layers.{layer}.first"), h_ND)
        if model.config.hops:
            narrow = h_ND @ p[f"layers.{layer}.narrow.weight"].T
            for walk, weight in zip(walks, p[f"layers.{layer}.walks"], strict=True):
                units = units + walk @ narrow @ weight
        h_ND = h_ND + affine(model.get_submodule(f"layers.{layer}.second"), units.clamp(min=0))
    return h_ND


def recalled(
    model: STRecall, sample: Sample, node: int, scores_K: Tensor, step: int, target: int
) -> Tensor:
    """The weighted mean of the last reading and of the days' readings at a step."""
    channel = model.shape.target_indices[target]
    weights = [torch.exp(scores_K[0])]
    values = [sample.x[-1, node, channel]]
    for day in range(len(sample.firsts)):
        gain = model.closeness_gain[target, day]
        weights.append(torch.exp(scores_K[1 + day] + gain * sample.close(day, node, channel)))
        values.append(sample.then(day, node, channel)[INPUT_STEPS + step])
    return torch.stack(weights) @ torch.stack(values) / torch.stack(weights).sum()


def reference(
    model: STRecall, x: Tensor, history: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """The whole model."""
    num_targets = model.shape.target_channels
    forecast = x.new_empty(BATCH, HORIZON, NUM_NODES, num_targets)
    for index in range(BATCH):
        sample = Sample(model, index, x, history, mask)
        vectors = [vector_of(model, sample, node) for node in range(NUM_NODES)]
        states_ND = layers_of(model, torch.stack(vectors))
        numbers = affine(model.regression, states_ND).view(NUM_NODES, HORIZON, -1, num_targets)
        for node, step, target in product(range(NUM_NODES), range(HORIZON), range(num_targets)):
            correction, scores_K = numbers[node, step, 0, target], numbers[node, step, 1:, target]
            mean = recalled(model, sample, node, scores_K, step, target)
            forecast[index, step, node, target] = correction + mean
    return forecast


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        ((), {"hops": 2}),
        (DAYS, {"layers": 2, "hops": 2}),
        (DAYS, {"history_embedding": 0}),
        ((range(-60, 0),), {"hops": 0}),
        ((DAYS[0], range(-40, 0)), {}),
    ],
    ids=["no history", "days", "copies alone", "span", "both"],
)
@pytest.mark.parametrize("targets", [(1, 0), (1, 1)])
def test_forecasts_and_gradients_equal_the_reference(
    rows: tuple[range, ...], options: dict[str, object], targets: tuple[int, ...]
) -> None:
    """In float64, with a fifth of the history missing."""
    sizes = shape(target_indices=targets)
    if rows:
        sizes = history_shape(rows, target_indices=targets)
    model = build("st-recall", sizes, **options).double()
    assert isinstance(model, STRecall)
    x = inputs(FLOAT64, sizes).requires_grad_()
    history, mask = None, None
    if rows:
        history = history_inputs(sizes).requires_grad_()
        mask = torch.rand(history.shape, generator=torch.Generator().manual_seed(1)) > 0.2
    found = model(x, supports_of(model).double(), history=history, history_mask=mask)
    wanted = (x, *(() if history is None else (history,)), *model.parameters())
    assert_same(found, reference(model, x, history, mask), wanted, atol=1e-11)


def test_what_repeats_is_copied() -> None:
    """A day that equals today decides, before anything is learned: the readings after it follow."""
    sizes = history_shape(DAYS)
    torch.manual_seed(0)
    model = STRecall(STRecallConfig(), sizes).eval()
    with torch.no_grad():
        model.closeness_gain.fill_(2.0)
        model.regression.weight.zero_()
        model.regression.bias.zero_()
    x, history = inputs(sizes=sizes), history_inputs(sizes, torch.float32)
    first = day_first(model, 2)
    assert first is not None
    readings = sizes.history_channels
    history[:, first : first + INPUT_STEPS] = x[..., :readings]
    forecast = model(x, supports_of(model), history=history)
    then = history[:, first + INPUT_STEPS : first + INPUT_STEPS + HORIZON]
    expected = torch.stack([then[..., index] for index in sizes.target_indices], dim=3)
    torch.testing.assert_close(forecast, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("rows", "num_days"),
    [
        (DAYS, 3),
        (SPAN, 1),
        ((range(-72, 0),), 3),
        ((range(-71, 0),), 2),
        ((range(-72, -72 + INPUT_STEPS + HORIZON - 1), range(-24, -24 + INPUT_STEPS + HORIZON)), 1),
    ],
)
def test_days_are_those_whose_rows_are_all_there(rows: tuple[range, ...], num_days: int) -> None:
    """Of `1d..7d`, of a span, and of rows of which one is missing."""
    model = STRecall(STRecallConfig(), history_shape(rows))
    assert model.closeness_gain.shape[1] == num_days


def test_without_whole_days_there_is_history_alone() -> None:
    """A day of broken rows has no calendar embedding either; the history is mapped as in STID."""
    sizes = history_shape(SPAN, steps_per_day=None, calendar=("day-of-week",), input_channels=4)
    model = STRecall(STRecallConfig(), sizes)
    assert model.day_embedding is None
    forecast = model(
        inputs(sizes=sizes), supports_of(model), history=history_inputs(sizes, torch.float32)
    )
    assert torch.isfinite(forecast).all()


def test_a_history_of_no_use_is_refused() -> None:
    """Without a vector of its own, and with less than a day."""
    sizes = history_shape((range(-20, 0),))
    with pytest.raises(ConfigError, match="no whole earlier day to copy from"):
        STRecall(STRecallConfig(history_embedding=0), sizes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hops": -1}, "hops is -1: it must be at least 0"),
        ({"layers": 0}, "layers is 0"),
        ({"dropout": 1.0}, r"dropout is 1\.0: it must be below 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        STRecallConfig(**options)  # type: ignore[arg-type]
