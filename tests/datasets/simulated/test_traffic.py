"""The simulated series: what it depends on, and what it looks like."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from pgti.datasets.simulated import SimulationOptions, road_graph, simulated_chunks
from pgti.errors import ConfigError
from pgti.graph import SensorGraph

DAY = 288
WEEK = 7 * DAY


def _speeds(graph: SensorGraph | None = None, **options: Any) -> NDArray[np.float32]:
    """The whole series, [T, N]."""
    chunks = list(simulated_chunks(SimulationOptions(**options), graph))
    return np.concatenate(chunks)[..., 0]


def _slowness(speeds: NDArray[np.float32]) -> NDArray[np.float64]:
    """How much slower than usual at the time of day, standardised, 0 where missing: [T, N]."""
    days = speeds.reshape(-1, DAY, speeds.shape[1]).astype(np.float64)
    slower = np.nan_to_num(np.nanmean(days, axis=0) - days).reshape(speeds.shape)
    return (slower - slower.mean(axis=0)) / slower.std(axis=0)


def test_same_seed_same_series() -> None:
    """A seed gives one series; another seed another."""
    first = _speeds(sensors=20, steps=400, seed=5)
    np.testing.assert_array_equal(first, _speeds(sensors=20, steps=400, seed=5))
    other = _speeds(sensors=20, steps=400, seed=6)
    assert np.mean(first != other) > 0.5


def test_does_not_depend_on_the_chunk() -> None:
    """The budget sets how many steps are made at a time, not which."""
    options = {"sensors": 50, "steps": 700, "seed": 2}
    small = {**options, "budget_bytes": 40_000}
    assert SimulationOptions(**small).chunk_steps < 60
    np.testing.assert_array_equal(_speeds(**options), _speeds(**small))


@pytest.mark.parametrize("steps", [1, 11, 12, 13, 288, 599])
def test_fewer_steps_are_a_prefix(steps: int) -> None:
    """A shorter simulation is the beginning of a longer one."""
    long = _speeds(sensors=20, steps=600, outage_fraction=0.1)
    short = _speeds(sensors=20, steps=steps, outage_fraction=0.1)
    np.testing.assert_array_equal(short, long[:steps])


def test_golden_speeds() -> None:
    """NumPy does not promise its streams across versions: a change must be noticed."""
    speeds = _speeds(sensors=8, steps=200, seed=1, outage_fraction=0.0)
    np.testing.assert_allclose(speeds[199, :4], GOLDEN, atol=0.15)


def test_readings_lie_on_a_grid() -> None:
    """Every reading is the float32 nearest to a tenth of a mile per hour, from 3 to 85."""
    speeds = _speeds(sensors=30, steps=WEEK)
    observed = speeds[~np.isnan(speeds)]
    tenths = np.rint(observed.astype(np.float64) * 10)
    np.testing.assert_array_equal(observed, (tenths / 10).astype(np.float32))
    assert observed.min() >= 3
    assert observed.max() <= 85


@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.3])
def test_outages_cover_what_is_asked_for(fraction: float) -> None:
    """The share of missing readings is near the option, from the first day on."""
    speeds = _speeds(sensors=300, steps=WEEK, outage_fraction=fraction)
    assert np.isnan(speeds).mean() == pytest.approx(fraction, rel=0.15)
    assert np.isnan(speeds[:DAY]).mean() == pytest.approx(fraction, rel=0.5)


def test_outages_are_spans() -> None:
    """Where a reading is missing the next one mostly is, too."""
    missing = np.isnan(_speeds(sensors=200, steps=WEEK))
    assert (missing[1:] & missing[:-1]).sum() / missing[:-1].sum() > 0.8


def test_graph_must_fit() -> None:
    """A graph of another size is refused with both numbers."""
    with pytest.raises(ConfigError, match="graph has 9 nodes and sensors is 10"):
        _speeds(road_graph(9, seed=1), sensors=10, steps=5)


def test_graph_that_is_given_is_used() -> None:
    """Turning every edge around changes the series of the same seed."""
    graph = road_graph(30, seed=1)
    turned = SensorGraph(adjacency=graph.adjacency.T)
    options = {"sensors": 30, "steps": 2 * DAY}
    given = _speeds(graph, **options)
    np.testing.assert_array_equal(given, _speeds(**options))
    assert np.mean(given != _speeds(turned, **options)) > 0.2


@pytest.mark.parametrize("graph", [SensorGraph.empty(6), SensorGraph.from_edges(6, [2, 2], [2, 3])])
def test_sensors_without_edges_have_speeds(graph: SensorGraph) -> None:
    """Isolated sensors and self-loops are fine."""
    speeds = _speeds(graph, sensors=6, steps=DAY, outage_fraction=0.0)
    assert (speeds.std(axis=0) > 0).all()


def test_self_loops_do_not_matter() -> None:
    """A sensor is not downstream of itself, whatever the diagonal says."""
    graph = road_graph(30, seed=1)
    looped = SensorGraph(adjacency=graph.adjacency + sparse.eye_array(30, format="csr"))
    options = {"sensors": 30, "steps": 2 * DAY}
    np.testing.assert_array_equal(_speeds(graph, **options), _speeds(looped, **options))


@pytest.mark.parametrize("interval_seconds", [60, 300, 900, 3600])
def test_clock_of_any_interval(interval_seconds: int) -> None:
    """Rush hours come at the same time of day whatever the interval."""
    per_day = 86_400 // interval_seconds
    speeds = _speeds(sensors=64, steps=5 * per_day, interval_seconds=interval_seconds)
    profile = np.nanmean(speeds.reshape(5, 24, -1), axis=(0, 2))  # one number an hour
    assert profile[2:5].mean() - profile[16:18].mean() > 4


def test_start_sets_the_clock() -> None:
    """Starting on a Saturday afternoon there is a weekend first and a rush hour on Monday."""
    start = np.datetime64("2025-01-11T12:00", "s")
    speeds = _speeds(sensors=64, steps=3 * DAY, start=start)
    mean = np.nanmean(speeds, axis=1)
    sunday_17h, monday_17h = 29 * 12, 53 * 12
    assert mean[sunday_17h : sunday_17h + 12].mean() - mean[monday_17h : monday_17h + 12].mean() > 4


def test_rhythm_of_days_and_weeks() -> None:
    """Days are alike, working days more than the weekend, and sensors differ."""
    speeds = _speeds()  # the example: 64 sensors, four weeks
    mean = np.nanmean(speeds, axis=1)
    profile = mean.reshape(4, 7, DAY)
    working = profile[:, :5].reshape(-1, DAY)
    assert np.corrcoef(working).mean() > 0.7
    assert np.corrcoef(mean[WEEK:], mean[:-WEEK])[0, 1] > 0.7
    assert np.corrcoef(mean[DAY // 2 :], mean[: -DAY // 2])[0, 1] < 0
    assert profile[:, 5:].min() > working.min() + 5
    busiest = np.nanmean(speeds.reshape(-1, DAY, 64), axis=0).argmin(axis=0)
    assert np.ptp(busiest) > 2 * 12  # some are slowest in the morning, some in the evening


def test_forecasting_is_worth_it() -> None:
    """Speeds change enough within the hour that repeating the last one is a poor forecast."""
    speeds = _speeds()
    observed = ~np.isnan(speeds)
    assert 0.01 < (speeds[observed] < 45).mean() < 0.10
    error_5, error_60 = (np.nanmean(np.abs(speeds[lag:] - speeds[:-lag])) for lag in (1, 12))
    assert 0.7 < error_5 < 1.5
    assert 2.0 < error_60 < 3.6


def test_congestion_travels_against_the_edges() -> None:
    """A sensor follows those downstream: more than those upstream, far more than any sensor."""
    graph = road_graph(64, seed=1)
    slowness = _slowness(_speeds(graph))
    lag = 4
    # earlier[i, j]: correlation of sensor i with sensor j twenty minutes before
    earlier = slowness[lag:].T @ slowness[:-lag] / (len(slowness) - lag)
    source, target = graph.edge_index
    downstream = earlier[source, target].mean()
    upstream = earlier[target, source].mean()
    anywhere = earlier[~np.eye(64, dtype=bool)].mean()
    assert downstream > upstream + 0.03
    assert downstream > anywhere + 0.2


GOLDEN = [27.1, 56.7, 58.4, 56.2]
