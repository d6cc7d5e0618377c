"""STID against a reference written sensor by sensor, and its published sizes."""

import pytest
import torch
from torch import Tensor

from pgti.errors import ConfigError
from pgti.models import STID, AbstractModel, STIDConfig, num_parameters
from pgti.nn import dropout

from .dense_reference import assert_equals_reference, assert_same, calendar_vectors
from .history import DAYS, SPAN, history_inputs, history_shape
from .small_models import (
    BATCH,
    CHANNELS,
    FLOAT64,
    HORIZON,
    INPUT_STEPS,
    NUM_NODES,
    build,
    inputs,
    metr_la_shape,
    shape,
    supports_of,
)

CALENDARS = [("time-of-day", "day-of-week"), ("day-of-week",), ("time-of-day",), ()]


def reference(
    model: AbstractModel,
    x: Tensor,
    kept: list[Tensor] | None = None,
    history: Tensor | None = None,
) -> Tensor:
    """The whole model, one sensor of one sample at a time.

    Args:
        model: whose parameters, by name, and calendar features are used.
        x: [B, L, N, C].
        kept: of each layer, [B, N, D], what its units are multiplied by in training.
        history: [B, R, N, C], of a model that has history.
    """
    p = dict(model.named_parameters())
    targets = model.shape.target_indices
    forecast = x.new_empty(BATCH, HORIZON, NUM_NODES, len(targets))
    for sample in range(BATCH):
        row = 31 * sample + INPUT_STEPS - 1  # the last row, as `small_models.inputs` counts them
        for node in range(NUM_NODES):
            window = torch.stack(
                [x[sample, step, node, c] for step in range(INPUT_STEPS) for c in range(x.shape[3])]
            )
            parts = [p["window_embedding.weight"] @ window + p["window_embedding.bias"]]
            parts.append(p["node_embedding"][node])
            parts += calendar_vectors(model, row)
            if history is not None:
                readings = [history[sample, :, node, c] for c in dict.fromkeys(targets)]
                weight = p["history_embedding.weight"]
                parts.append(weight @ torch.cat(readings) + p["history_embedding.bias"])
            h = torch.cat(parts)
            for layer in range(model.config.layers):  # type: ignore[attr-defined]
                units = p[f"layers.{layer}.first.weight"] @ h + p[f"layers.{layer}.first.bias"]
                units = units.clamp(min=0)
                if kept is not None:
                    units = units * kept[layer][sample, node]
                h = h + p[f"layers.{layer}.second.weight"] @ units
                h = h + p[f"layers.{layer}.second.bias"]
            numbers = p["regression.weight"] @ h + p["regression.bias"]
            forecast[sample, :, node] = numbers.reshape(HORIZON, len(targets))
    return forecast


@pytest.mark.parametrize("calendar", CALENDARS)
def test_forecasts_and_gradients_equal_the_reference(calendar: tuple[str, ...]) -> None:
    """Outputs and the gradients of all parameters, in float64, whatever the calendar."""
    sizes = shape(calendar=calendar, input_channels=CHANNELS - 2 + len(calendar))
    model = build("stid", sizes).double()
    assert_equals_reference(model, inputs(FLOAT64, sizes), reference, atol=1e-11)


@pytest.mark.parametrize("rows", [SPAN, DAYS])
@pytest.mark.parametrize("targets", [(1, 0), (1, 1)])
def test_history_is_one_more_vector(rows: tuple[range, ...], targets: tuple[int, ...]) -> None:
    """Of the targets alone, each channel once, forecasts and gradients as the reference."""
    sizes = history_shape(rows, target_indices=targets)
    model = build("stid", sizes, history_embedding=5).double()
    x, history = inputs(FLOAT64, sizes).requires_grad_(), history_inputs(sizes).requires_grad_()
    found = model(x, supports_of(model), history=history)
    expected = reference(model, x, history=history)
    assert_same(found, expected, (x, history, *model.parameters()), atol=1e-11)


def test_units_are_dropped_after_the_relu() -> None:
    """In training, with the masks of `pgti.nn.dropout`, layer by layer."""
    model = build("stid", dropout=0.4).double().train()
    x = inputs(FLOAT64)
    torch.manual_seed(8)
    found = model(x, supports_of(model))
    torch.manual_seed(8)
    ones = torch.ones(BATCH, NUM_NODES, 4 * 32, dtype=FLOAT64)
    kept = [dropout(ones, 0.4) for _ in range(2)]
    torch.testing.assert_close(found, reference(model, x, kept), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    ("num_nodes", "published"), [(207, 117_868), (325, 121_644), (307, 121_068), (170, 116_684)]
)
def test_parameters_are_those_published(num_nodes: int, published: int) -> None:
    """METR-LA, PEMS-BAY, PEMS04 and PEMS08, as Torch-MTS logs them: 3 channels, 5 minutes."""
    sizes = metr_la_shape(
        num_nodes=num_nodes,
        input_channels=3,
        calendar=("time-of-day", "day-of-week"),
        steps_per_day=288,
    )
    assert num_parameters("stid", {}, sizes) == published


def test_a_day_of_broken_rows_is_refused() -> None:
    """The time of day has no table then; without it the model can be built."""
    with pytest.raises(ConfigError, match="a day is not a whole number of rows"):
        STID(STIDConfig(), shape(steps_per_day=None))
    STID(STIDConfig(), shape(steps_per_day=None, calendar=("day-of-week",), input_channels=4))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": 0}, "layers is 0: it must be at least 1"),
        ({"node_embedding": 0}, "node_embedding is 0"),
        ({"dropout": 1.0}, r"dropout is 1\.0: it must be below 1"),
        ({"dropout": float("nan")}, "dropout is nan"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        STIDConfig(**options)  # type: ignore[arg-type]
