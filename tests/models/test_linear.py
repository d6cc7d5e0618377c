"""DLinear against its definition: sample by sample, sensor by sensor, window by window."""

from itertools import product

import pytest
import torch
from torch import Tensor

from pgti.errors import ConfigError
from pgti.models import DLinear, DLinearConfig, build_config

from .dense_reference import assert_equals_reference, assert_same
from .history import DAYS, SPAN, history_inputs, history_shape
from .small_models import (
    BATCH,
    FLOAT64,
    HORIZON,
    INPUT_STEPS,
    NUM_NODES,
    build,
    count_parameters,
    inputs,
    metr_la_shape,
    shape,
    supports_of,
)


def moving_average(series_L: Tensor, kernel: int) -> Tensor:
    """Of one series, its first and last step repeated on either side."""
    half = (kernel - 1) // 2
    padded = torch.cat([series_L[:1].repeat(half), series_L, series_L[-1:].repeat(half)])
    return torch.stack([padded[first : first + kernel].mean() for first in range(len(series_L))])


def reference(model: DLinear, x: Tensor) -> Tensor:
    """Decompose each series, map both parts, add up."""
    forecasts = x.new_zeros(BATCH, HORIZON, NUM_NODES, model.shape.target_channels)
    cells = product(range(BATCH), range(NUM_NODES), enumerate(model.shape.target_indices))
    for sample, node, (target, channel) in cells:
        series = x[sample, :, node, channel]
        trend = moving_average(series, model.config.kernel)
        owner = node if model.config.individual else 0
        forecasts[sample, :, node, target] = (
            model.trend_weight[owner, target] @ trend
            + model.trend_bias[owner, target]
            + model.remainder_weight[owner, target] @ (series - trend)
            + model.remainder_bias[owner, target]
        )
    return forecasts


@pytest.mark.parametrize("individual", [False, True])
@pytest.mark.parametrize("kernel", [3, 5, 25])
def test_forecasts_and_gradients_equal_the_definition(kernel: int, *, individual: bool) -> None:
    """A window may be longer than the input; gradients are those of two separate maps."""
    model = build("linear", kernel=kernel, individual=individual).double()
    assert isinstance(model, DLinear)
    assert_equals_reference(model, inputs(FLOAT64), reference)


@pytest.mark.parametrize("individual", [False, True])
@pytest.mark.parametrize("rows", [SPAN, DAYS, (*DAYS[:1], range(-20, 0))])
@pytest.mark.parametrize("targets", [(1, 0), (1, 1, 0)])
def test_history_is_mapped_with_the_window(
    rows: tuple[range, ...], targets: tuple[int, ...], *, individual: bool
) -> None:
    """Each run of rows without a gap is decomposed by itself; a span is one with the window."""
    sizes = history_shape(rows, target_indices=targets, target_channels=len(targets))
    model = build("linear", sizes, kernel=5, individual=individual).double()
    assert isinstance(model, DLinear)
    x, history = inputs(FLOAT64, sizes), history_inputs(sizes).requires_grad_()
    found = model(x, supports_of(model), history=history)
    expected = torch.zeros_like(found)
    lengths = [len(each) for each in rows] + [INPUT_STEPS]
    if rows[-1].stop == 0:
        lengths[-2:] = [sum(lengths[-2:])]
    for sample, node, (target, channel) in product(
        range(BATCH), range(NUM_NODES), enumerate(targets)
    ):
        past = torch.cat([history[sample, :, node, channel], x[sample, :, node, channel]])
        trend = torch.cat([moving_average(each, 5) for each in past.split(lengths)])
        owner = node if individual else 0
        expected[sample, :, node, target] = (
            model.trend_weight[owner, target] @ trend
            + model.trend_bias[owner, target]
            + model.remainder_weight[owner, target] @ (past - trend)
            + model.remainder_bias[owner, target]
        )
    assert_same(found, expected, (history, *model.parameters()), atol=1e-11)


def test_a_network_for_history_asks_for_it() -> None:
    """One line, not a failure of a product of matrices."""
    model = build("linear", history_shape(SPAN))
    with pytest.raises(ConfigError, match="built for 36 rows of history and got none"):
        model(inputs(), supports_of(model))


def test_parameters_are_as_many_as_published() -> None:
    """139.7 thousand for 720 steps from 96, as the paper's table of costs says; N times as many."""
    sizes = metr_la_shape(input_steps=96, horizon=720, num_nodes=3, input_channels=1, calendar=())
    models = [DLinear(DLinearConfig(individual=individual), sizes) for individual in (False, True)]
    assert [count_parameters(model) for model in models] == [139_680, 3 * 139_680]


def test_sensors_and_other_channels_stay_apart() -> None:
    """A forecast depends on its own sensor's target and on nothing else."""
    model = build("linear")
    x = inputs().requires_grad_()
    forecast = model(x, supports_of(model))
    (gradient,) = torch.autograd.grad(forecast[:, :, 2, 0].sum(), x)
    used = gradient.abs().sum(dim=(0, 1)) > 0
    expected = torch.zeros_like(used)
    expected[2, shape().target_indices[0]] = True
    assert torch.equal(used, expected)


def test_a_constant_has_no_remainder() -> None:
    """Of a constant series the remainder's map sees nothing: the average repeats the ends."""
    model = build("linear", kernel=INPUT_STEPS + 1).double()
    assert isinstance(model, DLinear)
    with torch.no_grad():
        model.trend_weight.zero_()
    forecast = model(torch.full_like(inputs(FLOAT64), 3.0), supports_of(model))
    bias = (model.trend_bias + model.remainder_bias)[0].t()
    torch.testing.assert_close(forecast, bias[:, None].expand_as(forecast), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "words"), [(1, "kernel is 1: it must be at least 3"), (4, "kernel is 4: .* odd")]
)
def test_wrong_kernels_are_named(kernel: int, words: str) -> None:
    """One line: what, the value, the rule."""
    with pytest.raises(ConfigError, match=words):
        build_config("linear", {"kernel": kernel})
