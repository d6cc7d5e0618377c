"""A network gets what its `forward` names, and nothing else."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.models import TeacherForcing, requested_inputs
from pgti.nn import Supports

from ..training.tiny_training import SPEC, make_series, make_store
from .test_forecasters import first_batch, network_forecaster


class Zeros(nn.Module):
    """Keeps what it was given, and forecasts zero."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Any] = []

    def keep(self, x: Tensor, *given: object) -> Tensor:
        """Zeros, [B, H, N, 1]."""
        self.given.append(given)
        return torch.zeros(len(x), SPEC.horizon, x.shape[2], 1)


class OnlyX(Zeros):
    """Under any name."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Zeros."""
        return self.keep(inputs)


class EverythingByName(Zeros):
    """In another order than that of the old call, with arguments of its own."""

    def forward(
        self,
        x: Tensor,
        x_mask: Tensor,
        own: int = 3,
        supports: Supports | None = None,
        *,
        calendar: Tensor,
        edge_weight: Tensor,
        edge_index: Tensor,
        teacher: TeacherForcing | None = None,
        **others: object,
    ) -> Tensor:
        """Zeros."""
        assert own == 3
        assert not others
        return self.keep(x, x_mask, supports, calendar, edge_index, edge_weight, teacher)


class Hidden(Zeros):
    """Takes whatever comes, as wrappers of networks do."""

    def forward(self, *arguments: Any) -> Tensor:
        """Zeros."""
        return self.keep(*arguments)


class Adjacency(Zeros):
    """Requires something of another name."""

    def forward(self, x: Tensor, supprts: object) -> Tensor:
        """Zeros."""
        return self.keep(x, supprts)


class GraphFirst(Zeros):
    """Has no place for x."""

    def forward(self, supports: Supports, x: Tensor) -> Tensor:
        """Zeros."""
        return self.keep(x, supports)


def test_a_network_of_x_alone(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", make_series())
    forecaster = network_forecaster(store, OnlyX())
    assert forecaster(first_batch(store)).shape == (6, SPEC.horizon, 3, 1)
    assert forecaster.network.given == [()]


def test_everything_by_name(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", make_series())
    forecaster, batch = network_forecaster(store, EverythingByName()), first_batch(store)
    forecaster(batch)
    forecaster(batch, step=4)
    for step, given in zip((None, 4), forecaster.network.given, strict=True):
        x_mask, supports, calendar, edge_index, edge_weight, teacher = given
        assert x_mask is batch.x_mask
        assert x_mask.shape == (*batch.x.shape[:3], 1)
        assert supports is forecaster.supports
        assert calendar is batch.calendar
        assert calendar.shape[:2] == (6, SPEC.input_steps + SPEC.horizon)
        assert edge_index.tolist() == store.graph.edge_index.tolist()
        assert edge_weight.shape == (store.meta.num_edges,)
        assert (None if teacher is None else teacher.step) == step


def test_a_network_that_hides_its_arguments_gets_x_and_supports(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", make_series())
    forecaster = network_forecaster(store, Hidden())
    forecaster(first_batch(store), step=1)
    assert forecaster.network.given == [(forecaster.supports,)]


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Adjacency(), "Adjacency.forward requires 'supprts', did you mean 'supports'.; after x"),
        (GraphFirst(), "GraphFirst.forward must take x as its first argument: after x it may name"),
    ],
)
def test_what_does_not_exist_is_refused(tmp_path: Path, network: nn.Module, words: str) -> None:
    store = make_store(tmp_path / "store", make_series())
    with pytest.raises(ConfigError, match=words):
        network_forecaster(store, network)


def test_a_network_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in every step."""
    store = make_store(tmp_path / "store", make_series())
    forecaster, batch = network_forecaster(store, OnlyX()), first_batch(store)

    looked: list[object] = []
    monkeypatch.setattr(inspect, "signature", looked.append)
    forecast = forecaster(batch)
    assert torch.isfinite(forecast).all()
    assert looked == []


def test_compiled_networks_are_seen_through() -> None:
    expected = ("x_mask", "supports", "calendar", "edge_weight", "edge_index", "teacher")
    network = EverythingByName()
    assert requested_inputs(torch.compile(network, backend="eager")) == expected
    network.compile(backend="eager")
    assert requested_inputs(network) == expected
