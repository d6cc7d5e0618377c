"""The head that gives a network what is known of the steps to forecast, and of the sensors."""

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pgti.batching import Batch
from pgti.errors import ConfigError
from pgti.forecasting import NetworkForecaster
from pgti.models import MODELS, CovariateHead, add_heads, num_parameters
from pgti.nn.numerics import float32_products
from pgti.store import Scaler
from pgti.training.compilation import compile_network

from .dense_reference import assert_same
from .small_models import (
    BATCH,
    FLOAT64,
    HORIZON,
    INPUT_STEPS,
    NUM_NODES,
    TARGETS,
    build,
    inputs,
    shape,
    supports_of,
)

NAMES = [name for name, entry in MODELS.items() if not entry.library]
CPU = torch.device("cpu")
NEEDS_GPU = (
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
)
FUTURE, STATIC = 2, 3
GIVEN: dict[str, object] = {
    "future_channels": FUTURE,
    "static_channels": STATIC,
    "static_categories": (2,),
    "calendar": ("time-of-day", "holiday:US"),
}
SIZES = shape(**GIVEN)


def head_of(width: int = 64) -> CovariateHead:
    """A head away from its initial weights."""
    torch.manual_seed(1)
    head = CovariateHead(SIZES, width)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return head


def covariates(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=FLOAT64).to(dtype)

    return {
        "x": draw(BATCH, INPUT_STEPS, NUM_NODES, SIZES.input_channels),
        "calendar": draw(BATCH, INPUT_STEPS + HORIZON, 2),
        "future": draw(BATCH, HORIZON, NUM_NODES, FUTURE),
        "static": draw(NUM_NODES, STATIC),
    }


def forecast_of(dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    size = (BATCH, HORIZON, NUM_NODES, TARGETS)
    return torch.randn(*size, generator=generator, dtype=FLOAT64).to(dtype)


def by_definition(head: CovariateHead, forecast: Tensor, known: dict[str, Tensor]) -> Tensor:
    """Window by window and sensor by sensor."""
    rows = []
    for window in range(BATCH):
        for sensor in range(NUM_NODES):
            steps = [
                torch.cat(
                    [
                        forecast[window, step, sensor],
                        known["future"][window, step, sensor],
                        known["calendar"][window, INPUT_STEPS + step],
                    ]
                )
                for step in range(HORIZON)
            ]
            units = torch.cat([*steps, known["x"][window, -1, sensor], known["static"][sensor]])
            for layer in (head.first, head.second):
                units = (layer.weight @ units + layer.bias).clamp(min=0)
            correction = (head.last.weight @ units + head.last.bias).reshape(HORIZON, TARGETS)
            rows.append(forecast[window, :, sensor] + correction)
    return torch.stack(rows).reshape(BATCH, NUM_NODES, HORIZON, TARGETS).transpose(1, 2)


def test_it_equals_its_definition() -> None:
    """Forecasts, and gradients of parameters, of the network's forecast and of what is known."""
    head, known = head_of(width=7).double(), covariates(FLOAT64)
    forecast = forecast_of(FLOAT64).requires_grad_()
    for each in known.values():
        each.requires_grad_()
    wanted = (forecast, *known.values(), *head.parameters())
    found = head(forecast, **known)
    assert found.is_contiguous()
    assert_same(found, by_definition(head, forecast, known), wanted)


@pytest.mark.parametrize("device", [CPU, pytest.param(torch.device("cuda", 0), marks=NEEDS_GPU)])
def test_a_device_computes_the_same(device: torch.device) -> None:
    """Forecasts and gradients, in float32."""
    head, known, forecast = head_of(), covariates(), forecast_of()
    expected = head(forecast, **known)
    wanted = torch.autograd.grad(expected.square().sum(), list(head.parameters()))
    head.to(device)
    with float32_products(device):
        found = head(forecast.to(device), **{name: each.to(device) for name, each in known.items()})
        gradients = torch.autograd.grad(found.square().sum(), list(head.parameters()))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-5)
    for one, two in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one.cpu(), two, rtol=1e-4, atol=1e-4)


def test_it_adds_nothing_at_first() -> None:
    forecast = forecast_of()
    assert torch.equal(CovariateHead(SIZES)(forecast, **covariates()), forecast)


def test_it_computes_in_float32_under_autocast() -> None:
    head, known, forecast = head_of(), covariates(), forecast_of()
    expected = head(forecast, **known)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(forecast, **known)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("sizes", "reads"),
    [
        ({"calendar": ("time-of-day",)}, None),
        ({"calendar": ("day-of-week", "day-of-year")}, None),
        ({"calendar": ("holiday:US",)}, ("calendar",)),
        ({"calendar": (), "future_channels": 2}, ("future",)),
        ({"calendar": ("time-of-day",), "static_channels": 1}, ("calendar", "static")),
    ],
)
def test_it_is_there_for_what_the_past_does_not_show(
    sizes: dict[str, object], reads: tuple[str, ...] | None
) -> None:
    """The time of the steps to forecast follows from that of the inputs, a holiday does not."""
    network = nn.Linear(2, 2)
    heads = add_heads(network, shape(input_channels=5, **sizes))
    assert [head.reads for head in heads] == ([] if reads is None else [reads])
    assert ("covariate_head.last.bias" in network.state_dict()) == (reads is not None)


class Named(nn.Module):
    """Reads the features of the sensors itself."""

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        """Anything."""
        return x + static.sum()


class Owner(nn.Module):
    """Uses the head itself, under the same name."""

    def __init__(self) -> None:
        super().__init__()
        self.covariate_head = head_of()

    def forward(self, x: Tensor, calendar: Tensor, future: Tensor, static: Tensor) -> Tensor:
        """[B, L, N, C_in] -> [B, H, N, C_out]."""
        newest = x[:, -1:, :, :TARGETS].expand(-1, HORIZON, -1, -1)
        return self.covariate_head(newest, x, calendar, future, static)


class Unnamed(nn.Module):
    """Does not say what it reads."""

    def forward(self, *given: object, **others: object) -> object:
        """Anything."""
        return given, others


def test_a_network_that_reads_them_itself_has_none() -> None:
    assert not add_heads(Named(), SIZES)
    network = Owner()
    own = network.covariate_head
    assert not add_heads(network, SIZES)
    assert network.covariate_head is own
    assert network(**covariates()).shape == (BATCH, HORIZON, NUM_NODES, TARGETS)
    assert add_heads(Unnamed(), SIZES)


def test_a_network_that_cannot_own_it_is_refused() -> None:
    """In one line; a network that is built again gets a new one."""
    network = Unnamed()
    (first,) = add_heads(network, SIZES)
    (second,) = add_heads(network, SIZES)
    assert second is network.covariate_head is not first
    network.covariate_head = nn.Linear(1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(nn.Linear(2, 2))
    for each, why in ((network, "has an attribute covariate_head"), (scripted, "is TorchScript")):
        with pytest.raises(ConfigError, match=rf"{why}.*name future.*windows\.covariates=False"):
            add_heads(each, SIZES)


def test_its_parameters_are_counted() -> None:
    sizes = shape(static_channels=1)
    head = sum(each.numel() for each in CovariateHead(sizes).parameters())
    assert num_parameters("gru", {}, sizes) - num_parameters("gru", {}, shape()) == head > 1000


@pytest.mark.parametrize("name", ["linear", "dcrnn", "stid"])
def test_a_model_learns_from_it(name: str) -> None:
    """A model begins as it is without; then each value that is known matters, to its sensor."""
    model = build(name, SIZES)
    known = {**covariates(), "x": inputs(sizes=SIZES)}
    scaler = Scaler(mean=(3.0,) * 3, std=(2.0,) * 3)
    supports = supports_of(model)
    plain = NetworkForecaster(model, supports, scaler, SIZES.target_indices).eval()
    batch = Batch(
        x_mask=known["x"][..., :3] != 0,
        y=None,
        y_mask=None,
        starts=np.arange(BATCH),
        **known,
    )
    with torch.no_grad():
        expected = plain(batch)
        heads = add_heads(model, SIZES)
        forecaster = NetworkForecaster(model, supports, scaler, SIZES.target_indices, heads=heads)
        forecaster.eval()
        assert not plain.uses_future
        assert forecaster.uses_future
        assert torch.equal(forecaster(batch), expected)
        nn.init.normal_(heads[0].last.weight)
        one = forecaster(batch)
        assert (one != expected).any()
        batch.future[1, 2, 3, 0] += 1  # type: ignore[index]
        differs = forecaster(batch) != one
    assert differs[1, :, 3].any()
    differs[1, :, 3] = False
    assert not differs.any()


def test_it_is_compiled_for_batches_of_all_sizes() -> None:
    head, known, forecast = head_of(), covariates(), forecast_of()
    expected = head(forecast, **known)
    compile_network(head, backend="eager", fullgraph=True)
    for size in (BATCH, 2):
        some = {name: each if name == "static" else each[:size] for name, each in known.items()}
        found = head(forecast[:size], some.pop("x"), **some)
        assert torch.equal(found, expected[:size])


@pytest.mark.parametrize("name", NAMES)
def test_every_input_channel_matters(name: str) -> None:
    """Other channels, their masks and holidays; but to a model that reads its targets alone."""
    sizes = shape(input_channels=6, calendar=("time-of-day", "day-of-week", "holiday:US"))
    model = build(name, sizes).double()
    x, supports = inputs(FLOAT64, sizes), supports_of(model).double()
    with torch.no_grad():
        expected = model(x, supports)
        seen = set()
        for channel in range(sizes.input_channels):
            other = x.clone()
            other[..., channel] = (other[..., channel] + 3 / 7) % 1
            if not torch.equal(model(other, supports), expected):
                seen.add(channel)
    expected_channels = set(range(sizes.input_channels - model.has_calendar_tables_alone))
    if model.reads_targets_alone:
        expected_channels = set(sizes.target_indices)
    assert seen == expected_channels
