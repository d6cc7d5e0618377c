"""Contenders in alternation, and what is made of their measures."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgti.errors import ConfigError
from pgti.run.results import Machine, Spread, to_json
from pgti_bench.errors import BenchError
from pgti_bench.interleave import interleave, interleave_dropping, spread_of_ratios
from pgti_bench.plot import scale_spread


def test_rounds_rotate_so_that_nobody_is_always_first() -> None:
    order: list[str] = []

    def contender(name: str) -> Callable[[], float]:
        def run() -> float:
            order.append(name)
            return float(len(order))

        return run

    done: list[int] = []
    contenders = {name: contender(name) for name in "abc"}
    measures = interleave(contenders, rounds=3, warmups=1, after_round=done.append)
    assert order == [*"abc", *"bca", *"cab", *"abc"]
    assert measures == {"a": [6.0, 8.0, 10.0], "b": [4.0, 9.0, 11.0], "c": [5.0, 7.0, 12.0]}
    assert done == [1, 2, 3]


@pytest.mark.parametrize(("rounds", "warmups", "message"), [(0, 0, "rounds is 0"), (1, -1, "-1")])
def test_senseless_numbers_of_rounds_are_refused(rounds: int, warmups: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        interleave({"a": lambda: 1.0}, rounds, warmups)


def test_those_that_may_fail_are_dropped() -> None:
    """The one that fails is not run again; the rest is measured to the end."""
    ran: list[str] = []

    def contender(name: str, fails_at: int = 0) -> Callable[[], float]:
        def run() -> float:
            ran.append(name)
            if ran.count(name) == fails_at:
                raise BenchError(f"{name} fell over")
            return float(ran.count(name))

        return run

    contenders = {"a": contender("a"), "b": contender("b", 2), "c": contender("c")}
    measures, failures = interleave_dropping(contenders, 3, may_fail={"b", "c"}, warmups=0)
    assert measures == {"a": [1.0, 2.0, 3.0], "c": [1.0, 2.0, 3.0]}
    assert failures == {"b": "b fell over"}
    assert ran.count("b") == 2
    with pytest.raises(BenchError, match="a fell over"):
        interleave_dropping({"a": contender("a", ran.count("a") + 1)}, 1, may_fail={"b"})


@given(st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_spread_is_the_median_and_the_extremes(values: list[float]) -> None:
    spread = Spread.of(values)
    assert spread.median == pytest.approx(float(np.median(values)))
    assert (spread.minimum, spread.maximum) == (min(values), max(values))
    assert spread.runs == len(values)


def test_spread_needs_a_value() -> None:
    with pytest.raises(ValueError, match="no measurement"):
        Spread.of([])


def test_ratios_are_of_neighbours() -> None:
    """A machine that slows down by half on the way changes no ratio."""
    ratios = spread_of_ratios([2.0, 2.0, 4.0, 4.0], [1.0, 1.0, 2.0, 2.0])
    assert (ratios.median, ratios.minimum, ratios.maximum) == (2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="shorter"):
        spread_of_ratios([1.0, 2.0], [1.0])


def test_spread_in_another_unit() -> None:
    assert scale_spread(Spread.of([1.0, 2.0, 4.0]), 1000) == Spread.of([1000.0, 2000.0, 4000.0])


@dataclass(frozen=True)
class Inner:
    """A part of a result."""

    path: Path


@dataclass(frozen=True)
class Outer:
    """A result."""

    parts: tuple[Inner, ...]
    by_name: dict[str, float]
    unknown: None = None


def test_results_become_json() -> None:
    result = Outer(parts=(Inner(Path("a/b")),), by_name={"x": 1.5})
    assert to_json(result) == {"parts": [{"path": "a/b"}], "by_name": {"x": 1.5}, "unknown": None}
    with pytest.raises(TypeError, match="no JSON form"):
        to_json({"array": np.zeros(1)})


def test_the_machine_is_told_with_its_versions() -> None:
    machine = to_json(Machine.here())
    assert machine["cores"] >= 1
    assert machine["threads"] >= 1
    assert {"python", "torch", "numpy", "pgti"} <= machine["versions"].keys()
