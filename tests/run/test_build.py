"""From options to built objects."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pgti import models
from pgti.batching import build_batcher
from pgti.errors import ConfigError
from pgti.models import AbstractModel, ModelShape, TeacherForcing
from pgti.nn import Supports
from pgti.run import ModelConfig, RunConfig, resolve_device
from pgti.run.build import build_forecaster, try_network, window_source
from pgti.store import Scaler
from pgti.training import TrainingConfig
from pgti.training.orders import BlocksOrder, GlobalOrder, PartitionsOrder

from .small_runs import make_config, make_series, make_store


class OneWalk(AbstractModel):
    """Diffuses along the edges alone."""

    support_kind = "random_walk"

    def __init__(self, shape: ModelShape) -> None:
        super().__init__(models.ModelConfig(), shape)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(
        self, x: Tensor, supports: Supports, teacher: TeacherForcing | None = None
    ) -> Tensor:
        """The last input, at every step."""
        return (x[:, -1:, :, :1] * self.scale).expand(-1, self.shape.horizon, -1, -1)


def test_a_model_gets_the_supports_it_asks_for(tmp_path: Path) -> None:
    """One walk for a model that names one, two for DCRNN."""
    store = make_store(tmp_path / "store", make_series())
    config = make_config(store)
    source = window_source(config, store, Scaler.fit(store, range(50)))

    two = build_forecaster(config, source, None)
    own = replace(config, model=ModelConfig(name="custom"))
    one = build_forecaster(own, source, OneWalk)

    assert (len(one.supports), len(two.supports)) == (1, 2)
    expected = Supports.from_graph(store.graph, "random_walk")
    x = torch.randn(3, 2)
    assert torch.equal(one.supports.multiply(0, x), expected.multiply(0, x))


class Noisy(OneWalk):
    """Draws random numbers, in evaluation too."""

    def forward(
        self, x: Tensor, supports: Supports, teacher: TeacherForcing | None = None
    ) -> Tensor:
        """The last input with noise, at every step."""
        assert not self.training
        forecast = super().forward(x, supports, teacher)
        return forecast + torch.randn_like(forecast)


def test_trying_a_network_changes_nothing(tmp_path: Path) -> None:
    """Neither its parameters nor torch's generator; training mode comes back."""
    store = make_store(tmp_path / "store", make_series())
    config = make_config(store)
    source = window_source(config, store, Scaler.fit(store, range(50)))
    own = replace(config, model=ModelConfig(name="custom"))
    forecaster = build_forecaster(own, source, Noisy)
    before = torch.get_rng_state()

    try_network(forecaster, build_batcher("index", source, torch.device("cpu")), 7)

    assert torch.equal(torch.get_rng_state(), before)
    assert forecaster.training
    assert forecaster.network.training
    assert forecaster.network.scale.grad is None


@pytest.mark.parametrize(
    "name", ["gpu7", "mps", "cpu:1", "cuda:", "cuda:01", "cuda:-1", "meta", ""]
)
def test_devices_that_do_not_exist_are_refused(name: str) -> None:
    """Only the CPU and CUDA devices compute here; the error says what there is."""
    with pytest.raises(ConfigError, match=f"no device {name!r}: use auto, cpu, cuda or cuda:1"):
        resolve_device(name)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without any, and on one with two."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="no usable GPU"):
        resolve_device("cuda")
    assert resolve_device("auto") == torch.device("cpu")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"'cuda:2' and this machine has 2 GPUs: .* to cuda:1"):
        resolve_device("cuda:2")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    assert resolve_device("cuda") == torch.device("cuda", 0)
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("options", "order", "block_size"),
    [
        ({}, "global", None),
        ({"placement": "partitioned"}, "partitions", 4),
        ({"placement": "partitioned", "order": PartitionsOrder(partitions=100)}, "partitions", 1),
        ({"placement": "partitioned", "order": PartitionsOrder(block_size=5)}, "partitions", 5),
        ({"placement": "partitioned", "order": GlobalOrder()}, "global", None),
        ({"order": BlocksOrder()}, "blocks", 8),
    ],
)
def test_what_auto_stands_for(options: dict[str, Any], order: str, block_size: int | None) -> None:
    """A batch of 64 windows takes one block of each of 16 partitions."""
    training = {name: value for name, value in options.items() if name != "placement"}
    config = RunConfig(
        store=Path("s"),
        placement=options.get("placement", "replicated"),
        training=TrainingConfig(batch_size=64, **training),
    ).resolved()
    assert config.training.order.kind == order
    assert getattr(config.training.order, "block_size", None) == block_size
    assert config.resolved() == config
