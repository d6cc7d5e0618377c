"""Errors by sensor, hour, weekday and range of the target."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pgti.errors import ConfigError
from pgti.forecasting import (
    Breakdowns,
    ForecastMetrics,
    PersistenceForecaster,
    breakdown_bytes,
    check_ranges,
    choose_edges,
    evaluate,
    evaluation_report,
    num_scores,
)
from pgti.memory import LiveBytes
from pgti.store import SeriesStore, TimeAxis

from ..training.tiny_training import SPEC, make_loader, make_series, make_source, make_store

STARTS = range(20, 80)
EDGES = ((45.0, 52.5), (), (50.0,))


def close(prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> Any:
    """Share of forecasts within 3, which torch can map over sensors."""
    return (((prediction - target).abs() < 3) & mask).sum(), mask.sum()


def stubborn(prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> Any:
    """The same in a way that torch cannot map."""
    near = (prediction[mask] - target[mask]).abs() < 3
    return torch.tensor(int(near.sum())), torch.tensor(int(mask.sum()))


def breakdowns_of(
    store: SeriesStore, edges: tuple[tuple[float, ...], ...] = EDGES[:1], time_axis: Any = None
) -> Breakdowns:
    return Breakdowns(
        node_ids=store.meta.node_ids,
        time_axis=store.time_axis if time_axis is None else time_axis,
        input_steps=SPEC.input_steps,
        channels=store.meta.channels[: len(edges)],
        units=("mph",) * len(edges),
        edges=edges,
    )


def windows_of(values: np.ndarray, starts: range) -> np.ndarray:
    return np.stack([values[start + SPEC.input_steps :][: SPEC.horizon] for start in starts])


def naive(forecast: np.ndarray, target: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
    """The errors of some targets of one channel, [S, H, N], as anybody would compute them."""
    chosen = chosen & ~np.isnan(target)
    truth, error = target[chosen].astype(float), np.abs(forecast - target.astype(float))[chosen]
    if not len(truth):
        return {"mae": None, "rmse": None, "mape": None, "close": None, "count": 0}
    return {
        "mae": error.mean(),
        "rmse": np.sqrt((error**2).mean()),
        "mape": 100 * (error / truth).mean(),
        "close": (error < 3).mean(),
        "count": len(truth),
    }


@pytest.mark.parametrize("time_zone", [None, "Europe/Rome"])
@pytest.mark.parametrize(("batch_size", "steps"), [(1, 1), (7, 1), (64, 1), (7, 2)])
def test_every_group_agrees_with_numpy(
    tmp_path: Path,
    batch_size: int,
    steps: int,
    time_zone: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three targets, missing readings, own metrics; half-hourly through a change of the clock.

    One step at a time, as on a CPU, and several, as on a GPU.
    """
    monkeypatch.setattr(ForecastMetrics, "_steps_at_once", lambda *_: steps)
    values = make_series(num_channels=3)
    store = make_store(
        tmp_path / "s", values, interval_seconds=1800, time_zone=time_zone,
        start="2025-10-25T08:00",
    )  # fmt: skip
    source = make_source(store, (0, 1, 2))
    persistence = PersistenceForecaster(source.scaler, (0, 1, 2), SPEC.horizon)
    groups = breakdowns_of(store, EDGES)
    loader = make_loader(source, STARTS, batch_size)
    found = evaluate(
        {"model": persistence, "rule": persistence},
        loader,
        own_metrics={"close": close, "stubborn": stubborn},
        breakdowns=groups,
    )
    assert found["model"]._without_vmap == {"stubborn"}
    content = evaluation_report(found, "model", store.meta.channels, groups)["by"]

    forecast = np.concatenate([persistence(batch).numpy().copy() for batch in loader.epoch(0)])
    target = windows_of(values, STARTS)
    times = store.time_axis.at(np.array(STARTS)[:, None] + SPEC.input_steps + np.arange(3))
    hours = times.astype("datetime64[h]").astype(int) % 24
    weekdays = (times.astype("datetime64[D]").astype(int) + 3) % 7
    nodes = np.broadcast_to(np.arange(3), target.shape[:3])
    assert list(content) == ["sensor", "hour", "weekday", "hour-of-week", "range"]
    for c, channel in enumerate(store.meta.channels):
        of_range = np.searchsorted(EDGES[c], target[..., c], side="right")
        keys = {
            "sensor": nodes,
            "hour": np.broadcast_to(hours[..., None], nodes.shape),
            "weekday": np.broadcast_to(weekdays[..., None], nodes.shape),
            "hour-of-week": np.broadcast_to((24 * weekdays + hours)[..., None], nodes.shape),
            **({"range": of_range} if EDGES[c] else {}),
        }
        assert ("range" in keys) == (channel in content["range"])
        for name, key in keys.items():
            table = content[name][channel]
            assert table["model"] == table["rule"]
            for group in range(len(table["names"])):
                expected = naive(forecast[..., c], target[..., c], key == group)
                errors = {each: values[group] for each, values in table["model"].items()}
                assert errors.pop("stubborn") == errors["close"]
                wanted: Any = pytest.approx(expected, rel=1e-12) if expected["count"] else expected
                assert errors == wanted, (name, group)
        assert sum(content["hour"][channel]["model"]["count"]) == int(
            (~np.isnan(target[..., c])).sum()
        )
    assert content["weekday"]["c0"]["names"][5] == "Saturday"
    assert content["weekday"]["c0"]["model"]["count"][2] == 0
    assert content["hour-of-week"]["c0"]["names"][5 * 24 + 7] == "Saturday 07:00"
    assert content["range"]["c0"]["names"] == [
        "under 45 mph", "45 to 52.5 mph", "52.5 mph and over",
    ]  # fmt: skip


def test_groups_add_up_to_the_whole_in_float64(tmp_path: Path) -> None:
    """The sums of every breakdown are those of all targets, to the last digits."""
    source = make_source(make_store(tmp_path / "s", make_series()))
    rule = PersistenceForecaster(source.scaler, (0,), SPEC.horizon)
    groups = breakdowns_of(source.store)
    loader = make_loader(source, STARTS, 8)
    found = evaluate({"model": rule}, loader, own_metrics={"close": close}, breakdowns=groups)
    plain = evaluate({"model": rule}, loader, own_metrics={"close": close})
    assert torch.equal(found["model"].sums, plain["model"].sums)
    whole = found["model"].sums.sum(dim=1)
    for name, sums in found["model"].group_sums.items():
        torch.testing.assert_close(sums.sum(dim=1), whole, rtol=1e-13, atol=0, msg=name)


@pytest.mark.parametrize(
    ("axis", "names"),
    [
        ({}, ("sensor", "range")),
        (
            {"start_seconds": 0, "interval_seconds": 300},
            ("sensor", "hour", "weekday", "hour-of-week", "range"),
        ),
        ({"start_seconds": 0, "interval_seconds": 86_400}, ("sensor", "weekday", "range")),
        ({"start_seconds": 0, "interval_seconds": 7 * 86_400}, ("sensor", "range")),
    ],
)
def test_times_decide_what_there_is(
    tmp_path: Path, axis: dict[str, int], names: tuple[str, ...]
) -> None:
    """No hours without times or of days, no weekdays of weeks."""
    store = make_store(tmp_path / "s", make_series())
    groups = breakdowns_of(store, time_axis=TimeAxis(num_steps=90, **axis))
    assert groups.names == names
    of_batch = groups.of_batch(np.arange(4), torch.zeros(4, 3, 3, 1))
    expected = {"hour-of-week"} if "hour" in names else {"weekday"} & set(names)
    assert set(of_batch.members) == expected
    without = breakdowns_of(store, ((),), TimeAxis(num_steps=90, **axis))
    assert "range" not in without.names


def test_a_metric_that_fails_says_so_with_breakdowns(tmp_path: Path) -> None:
    """The attempt to map it over sensors hides nothing."""
    source = make_source(make_store(tmp_path / "s", make_series()))

    def broken(prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> Any:
        if prediction.shape[1] == 1:
            raise ValueError("one sensor alone")
        return close(prediction, target, mask)

    rule = PersistenceForecaster(source.scaler, (0,), SPEC.horizon)
    loader = make_loader(source, STARTS, 8)
    evaluate({"model": rule}, loader, own_metrics={"broken": broken})
    with pytest.raises(ConfigError, match="metric broken failed: ValueError: one sensor alone"):
        evaluate(
            {"model": rule},
            loader,
            own_metrics={"broken": broken},
            breakdowns=breakdowns_of(source.store),
        )


def test_validation_has_no_group_sums() -> None:
    """What nobody asks for is not accumulated."""
    metrics = ForecastMetrics(horizon=2)
    assert metrics.group_sums == {}
    assert metrics.all_sums == [metrics.sums]


# -- ranges ---------------------------------------------------------------------------------------


def test_edges_leave_a_tenth_on_either_side() -> None:
    readings = np.random.default_rng(0).normal(60, 10, 100_000)
    quantiles = np.quantile(readings, np.linspace(0, 1, 101)).astype(np.float32)
    low, middle, high = choose_edges(quantiles)
    assert (readings < low).mean() == pytest.approx(0.1, abs=0.01)
    assert (readings < middle).mean() == pytest.approx(0.5, abs=0.02)
    assert (readings < high).mean() == pytest.approx(0.9, abs=0.01)
    assert all(edge == round(edge) for edge in (low, middle, high))


@pytest.mark.parametrize(
    ("readings", "edges"),
    [
        ([0.0] * 70 + [1.0, 2.0, 3.0] * 10, (2.1,)),  # most are zero: no range below it
        ([5.0] * 100, ()),
        ([np.nan] * 3, ()),
        ([0.001, 0.002, 0.003, 0.004, 0.005], (0.0014, 0.003, 0.0046)),
        ([1013.1, 1013.2, 1013.4, 1013.9, 1014.0], (1013.14, 1013.4, 1013.96)),
    ],
)
def test_edges_of_unusual_readings(readings: list[float], edges: tuple[float, ...]) -> None:
    quantiles = np.quantile(readings, np.linspace(0, 1, 101)).astype(np.float32)
    assert choose_edges(quantiles) == pytest.approx(edges)


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40))
def test_edges_always_increase_and_lie_among_the_readings(readings: list[float]) -> None:
    quantiles = np.quantile(np.array(readings, dtype=np.float32), np.linspace(0, 1, 101))
    edges = choose_edges(quantiles.astype(np.float32))
    assert list(edges) == sorted(set(edges))
    span = max(readings) - min(readings)
    assert all(min(readings) < edge <= max(readings) + span for edge in edges)


def test_given_ranges_are_checked() -> None:
    assert check_ranges((30, 50), ["speed"]) == ((30.0, 50.0),)
    assert check_ranges({"flow": [9]}, ["speed", "flow"]) == ((), (9.0,))
    for ranges, channels, message in (
        ((30, 50), ["speed", "flow"], "there are 2 targets"),
        ({"occ": (1,)}, ["speed"], "name 'occ': the targets of this run are speed"),
        ((50, 30), ["speed"], r"ranges of speed are \(50, 30\): they must be finite numbers that"),
        ((30, float("nan")), ["speed"], "finite numbers"),
        ("30", ["speed"], "finite numbers"),
        (3, ["speed"], "ranges of speed are 3"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_ranges(ranges, channels)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("horizon", "num_targets", "levels"),
    [(3, 1, ()), (12, 1, ()), (12, 3, ()), (12, 1, (0.1, 0.5, 0.9))],
)
def test_bytes_of_a_breakdown(horizon: int, num_targets: int, levels: tuple[float, ...]) -> None:
    """What a plan counts covers the tensors of an update, and less than twice as much."""
    nodes, windows = 500, 16
    breakdowns = Breakdowns(
        node_ids=tuple(map(str, range(nodes))),
        time_axis=TimeAxis(num_steps=1000, start_seconds=0, interval_seconds=300),
        input_steps=12,
        channels=("a", "b", "c")[:num_targets],
        units=("",) * num_targets,
        edges=((1.0, 2.0, 3.0),) * num_targets,
    )
    values = torch.rand(windows, horizon, nodes, num_targets)
    metrics = ForecastMetrics(horizon, num_targets, breakdowns=breakdowns, levels=levels)
    quantiles = torch.stack([values] * len(levels), dim=-1) if levels else None
    with LiveBytes() as memory:
        groups = breakdowns.of_batch(np.arange(windows), values)
        mask = torch.ones_like(values, dtype=torch.bool)
        metrics.update(values, values, mask, groups, quantiles)
    estimate = breakdown_bytes(horizon, num_scores(levels)) * windows * nodes * num_targets
    assert memory.peak_bytes < estimate < 2 * memory.peak_bytes
