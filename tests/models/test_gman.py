"""GMAN against a dense float64 reference after the released code, with one-hot times."""

import math

import pytest
import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.models import GMAN, GMANConfig, num_parameters
from pgti.models.layers import continued_calendar

from .dense_reference import affine, assert_same, sigmoid
from .small_models import (
    BATCH,
    FLOAT64,
    HORIZON,
    INPUT_STEPS,
    STEPS_PER_DAY,
    build,
    inputs,
    measure_memory,
    metr_la_shape,
    shape,
    supports_of,
)


def build_gman(**options: object) -> GMAN:
    """A small GMAN, with running statistics away from their first values."""
    model = build("gman", **options)
    assert isinstance(model, GMAN)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.add_(0.5 * torch.rand_like(buffer))
    return model.double()


class Reference:
    """The released network with a model's weights; [B, T, N, D] tokens, all pairs explicit."""

    def __init__(self, model: GMAN) -> None:
        self.model = model
        self.heads, self.width = model.config.heads, model.config.width

    def normalize(self, x: Tensor, norm: nn.Module, part: slice) -> Tensor:
        """Batch normalization and relu of some of a layer's channels."""
        mean, variance = norm.get_buffer("running_mean")[part], norm.get_buffer("running_var")[part]
        if self.model.training:
            dims = tuple(range(x.ndim - 1))
            mean, variance = x.mean(dims), x.var(dims, correction=0)
        scaled = (x - mean) / torch.sqrt(variance + 1e-3)
        gain, offset = norm.get_parameter("weight")[part], norm.get_parameter("bias")[part]
        return (scaled * gain + offset).clamp(min=0)

    def maps(self, layer: nn.Module, x: Tensor, number: int = 0) -> Tensor:
        """One of a layer's maps."""
        part = slice(number * self.width, (number + 1) * self.width)
        y = x @ layer.get_parameter("weight")[part].T
        return self.normalize(y, layer.get_submodule("norm"), part)

    def pair(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Two maps."""
        hidden = self.maps(layer.get_submodule("first"), x)
        return affine(layer.get_submodule("second"), hidden)

    def times(self, calendar: Tensor) -> Tensor:
        """[B, T, 1, D], from one-hot vectors of the day and the row of the day."""
        row = (calendar[..., 0] * STEPS_PER_DAY).round().long()
        day = (calendar[..., 1] * 7).round().long()
        tables = self.model.calendar
        assert tables.time_of_day is not None
        assert tables.day_of_week is not None
        weight = torch.cat([tables.day_of_week.weight, tables.time_of_day.weight])
        one_hot = [nn.functional.one_hot(day, 7), nn.functional.one_hot(row, STEPS_PER_DAY)]
        part = self.model.get_submodule("calendar_maps")
        y = torch.cat(one_hot, dim=-1).to(FLOAT64) @ weight
        hidden = self.normalize(y, part.get_submodule("norm"), slice(None))
        return affine(part.get_submodule("second"), hidden)[:, :, None]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, causal: bool = False) -> Tensor:
        """Over the last but one dimension, head by head."""
        size, read = self.width // self.heads, []
        for head in range(self.heads):
            q, k, v = (each[..., head * size :][..., :size] for each in (query, key, value))
            scores = q @ k.transpose(-1, -2) / math.sqrt(size)
            if causal:
                later = torch.ones_like(scores).triu(diagonal=1) > 0
                scores = scores.masked_fill(later, -(2**15) + 1)
            weights = torch.exp(scores - scores.amax(dim=-1, keepdim=True))
            read.append(weights / weights.sum(dim=-1, keepdim=True) @ v)
        return torch.cat(read, dim=-1)

    def attention(self, layer: nn.Module, h: Tensor, embedding: Tensor, *, time: bool) -> Tensor:
        """Over sensors or steps, from the concatenation of state and embedding."""
        joined = torch.cat([h, embedding], dim=-1)
        maps = layer.get_submodule("query_key_value")
        parts = [self.maps(maps, joined, number) for number in range(3)]
        if time:
            turned = [each.transpose(1, 2) for each in parts]
            read = self.attend(*turned, causal=self.model.config.causal).transpose(1, 2)
        else:
            read = self.attend(*parts)
        return self.pair(layer.get_submodule("attended"), read)

    def block(self, layer: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
        """Both attentions, fused."""
        part = layer.get_submodule
        spatial = self.attention(part("spatial"), h, embedding, time=False)
        temporal = self.attention(part("temporal"), h, embedding, time=True)
        fusion = part("fusion")
        of_spatial = spatial @ fusion.get_parameter("of_spatial.weight").T
        z = sigmoid(of_spatial + affine(fusion.get_submodule("of_temporal"), temporal))
        fused = z * spatial + (1 - z) * temporal
        return h + self.pair(fusion.get_submodule("fused"), fused)

    def __call__(self, x: Tensor, calendar: Tensor) -> Tensor:
        """[B, H, N, C_out]."""
        model = self.model
        embedding = self.pair(model.sensor_maps, model.sensor_embedding) + self.times(calendar)
        past, future = embedding[:, :INPUT_STEPS], embedding[:, INPUT_STEPS:]
        h = self.pair(model.entrance, x[..., :3])
        for layer in model.encoder:
            h = self.block(layer, h, past)
        transform = model.transform
        query, key = self.maps(transform.query, future), self.maps(transform.key, past)
        turned = [each.transpose(1, 2) for each in (query, key, self.maps(transform.value, h))]
        h = self.pair(transform.attended, self.attend(*turned).transpose(1, 2))
        for layer in model.decoder:
            h = self.block(layer, h, future)
        return affine(model.regression, self.maps(model.exit, h))


def calendar_of_rows() -> Tensor:
    """[B, L + H, 2], of the rows that `inputs` has and those after them."""
    rows = torch.arange(BATCH)[:, None] * 31 + torch.arange(INPUT_STEPS + HORIZON)
    features = [rows % STEPS_PER_DAY / STEPS_PER_DAY, rows // STEPS_PER_DAY % 7 / 7]
    return torch.stack(features, dim=2).to(FLOAT64)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_forecasts_and_gradients_equal_the_reference(training: bool, causal: bool) -> None:
    """With running statistics, and with those of the batch."""
    model = build_gman(causal=causal).train(training)
    x, calendar = inputs(FLOAT64).requires_grad_(), calendar_of_rows()
    found = model(x, supports_of(model), calendar=calendar)
    wanted = (x, *model.parameters())
    assert_same(found, Reference(model)(x, calendar), wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_running_statistics_move_once_a_pass(checkpointing: bool) -> None:
    """By a tenth towards those of the batch, also where activations are computed twice."""
    model = build_gman().train()
    model.activation_checkpointing = checkpointing
    norm, x = model.entrance.first.norm, inputs(FLOAT64)
    layer = model.entrance.first
    y = (x[..., :3] @ layer.weight.T).flatten(0, 2)
    expected = [
        0.9 * norm.get_buffer("running_mean") + 0.1 * y.mean(0),
        0.9 * norm.get_buffer("running_var") + 0.1 * y.var(0),
    ]
    model(x, supports_of(model)).sum().backward()
    found = [norm.get_buffer(name) for name in ("running_mean", "running_var")]
    torch.testing.assert_close(found, expected)


def test_the_calendar_of_the_horizon_continues_that_of_the_input() -> None:
    """Over midnight, and with hours alone."""
    sizes = shape()
    found = continued_calendar(inputs(FLOAT64), sizes)
    torch.testing.assert_close(found, calendar_of_rows(), rtol=1e-6, atol=1e-6)
    hours = shape(calendar=("time-of-day",), input_channels=4)
    found = continued_calendar(inputs(FLOAT64, hours), hours)
    torch.testing.assert_close(found, calendar_of_rows()[..., :1], rtol=1e-6, atol=1e-6)
    daily = shape(calendar=("day-of-week",), input_channels=4, steps_per_day=1)
    days = continued_calendar(inputs(FLOAT64, daily), daily)[0, :, 0] * 7
    assert days.round().tolist() == [step % 7 for step in range(INPUT_STEPS + HORIZON)]
    assert continued_calendar(inputs(), shape(calendar=(), input_channels=5)).shape[2] == 0


@pytest.mark.parametrize(("layers", "official"), [(5, 900_801), (1, 229_569)])
def test_parameters_are_those_of_the_released_code(layers: int, official: int) -> None:
    """Its variables for METR-LA and PEMS-BAY, by their shapes, but biases that a norm takes off."""

    def full(inputs: int, *, norm: bool = True, bias: bool = True) -> int:
        return inputs * 64 + 64 * bias + 2 * 64 * norm

    pair = full(64) + full(64, norm=False)
    attention = 3 * full(128) + pair
    fusion = full(64, norm=False, bias=False) + full(64, norm=False) + pair
    times = full(7 + 288) + full(64, norm=False)
    entrance = full(1) + full(64, norm=False)
    blocks = 2 * layers * (2 * attention + fusion)
    count = entrance + pair + times + blocks + 3 * full(64) + pair + full(64) + 65
    assert count == official
    num_norms = 8 + 18 * layers
    sizes = metr_la_shape(
        input_channels=3, calendar=("time-of-day", "day-of-week"), steps_per_day=288
    )
    assert num_parameters("gman", {"layers": layers}, sizes) == count - 64 * num_norms + 207 * 64


def test_a_pass_stores_no_pair_of_sensors() -> None:
    """Twice the sensors take twice the memory; recomputing activations saves most of it."""

    def peak(num_nodes: int, *, checkpointing: bool = False) -> int:
        sizes = shape(num_nodes=num_nodes, input_steps=2, horizon=2)
        model = build("gman", sizes, layers=2, heads=1).train()
        model.activation_checkpointing = checkpointing
        return measure_memory(model, inputs(sizes=sizes, batch=2), None)[1]

    assert peak(1024) < 2.1 * peak(512)
    assert peak(512, checkpointing=True) < 0.5 * peak(512)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": 0}, "layers is 0"),
        ({"heads": 0}, "heads is 0"),
        ({"dropout": 1}, "dropout is 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        GMANConfig(**options)  # type: ignore[arg-type]
