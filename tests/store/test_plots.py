"""Figures of a store show the numbers of its series."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pgti
from pgti import ConfigError, DataError, SeriesStore
from pgti.graph import SensorGraph
from pgti.store.coverage import coverage
from pgti.store.gaps import GapFinder
from pgti.store.survey import survey_store
from pgti.store.time_axis import TimeAxis

pytest.importorskip("plotly")


def _store(
    values: np.ndarray,
    *,
    start: str | None = "2025-10-01T00:00",
    interval: int | None = 3600,
    times: np.ndarray | None = None,
    edges: bool = True,
    zone: str | None = None,
) -> SeriesStore:
    """A store in memory, of sensors 0, 1, ... and channels c0, c1, ..."""
    num_steps, num_nodes, num_channels = values.shape
    chain = (np.arange(num_nodes - 1), np.arange(1, num_nodes)) if edges else ([], [])
    first = None if start is None else int(np.datetime64(start, "s").astype(np.int64))
    return SeriesStore.in_memory(
        values.astype(np.float32),
        SensorGraph.from_edges(num_nodes, *chain),
        TimeAxis(
            num_steps=num_steps,
            start_seconds=first,
            interval_seconds=interval,
            seconds=times,
            time_zone=zone,
        ),
        node_ids=tuple(map(str, range(num_nodes))),
        channels=tuple(f"c{channel}" for channel in range(num_channels)),
        units=("mph", *[""] * (num_channels - 1)),
    )


def _readings(num_steps: int = 400, num_nodes: int = 5, num_channels: int = 1) -> np.ndarray:
    values = np.random.default_rng(0).normal(50, 5, (num_steps, num_nodes, num_channels))
    values[30:90, 1, 0] = np.nan
    values[100:120, :, 0] = np.nan
    values[390:, 2:4, 0] = np.nan
    return values


def test_a_store_at_a_glance_is_its_coverage_gaps_week_and_map() -> None:
    values = _readings()
    figure = _store(values).plot()
    heat, *gaps = figure.data[: 1 + 3]
    missing = np.isnan(values[..., 0])
    assert heat.z.mean() == pytest.approx(1 - missing.mean())
    assert list(heat.y) == list("01234")
    assert heat.x[0] == np.datetime64("2025-10-01T00:00")
    assert [each.y[0] for each in gaps] == ["1", "all sensors", "2 +1"]
    assert gaps[0].x.tolist() == [
        pd.Timestamp("2025-10-02T06:00"), pd.Timestamp("2025-10-04T18:00"),
    ]  # fmt: skip
    assert "60 rows, 60h, from 2025-10-02 06:00:00" in gaps[0].hovertemplate
    sensors = figure.data[-1]
    np.testing.assert_allclose(sensors.marker.color, np.nanmean(values[..., 0], axis=0), rtol=1e-5)
    assert sensors.marker.colorbar.title.text == "mean of c0 in mph"
    titles = [each.text for each in figure.layout.annotations]
    assert titles == [
        f"c0 in mph: {missing.mean():.2%} missing", "longest gaps", "typical week by hour",
        "5 sensors, 4 edges",
    ]  # fmt: skip


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_the_typical_week_is_the_mean_of_each_hour_over_sensors(zone: str | None) -> None:
    values = _readings()
    store = _store(values, zone=zone)
    low, high, inner_low, inner_high, median = store.plot.week().data
    times = pd.DatetimeIndex(store.time_axis.at(np.arange(len(values))))
    frame = pd.DataFrame(values[..., 0])
    means = frame.groupby([times.day_of_week, times.hour]).mean()
    assert len(median.y) == 168
    for trace, share in ((median, 0.5), (low, 0.05), (high, 0.95), (inner_low, 0.25)):
        np.testing.assert_allclose(trace.y, means.quantile(share, axis=1), rtol=1e-5)
    assert median.x[25] == "Tuesday 01:00"
    assert inner_high.name == "half of sensors"


def test_the_season_of_days_is_a_week_and_of_months_a_year(tmp_path: Path) -> None:
    daily = _store(_readings(60), interval=86_400).plot.week().data[-1]
    assert daily.x[0] == "Monday"
    assert len(daily.x) == 7
    dates = pd.date_range("2020-01-01", periods=30, freq="MS")
    table = pd.DataFrame({"a": np.arange(30.0)}, index=dates)
    (months,) = pgti.ingest(table, tmp_path / "months").plot.week().data
    assert (months.name, months.x[11]) == ("observed", "December")
    assert months.y.tolist() == table["a"].groupby(dates.month).mean().tolist()


def test_stores_without_times_sensors_or_graph_leave_panels_out() -> None:
    whole = np.ones((40, 1, 1))
    (heat,) = _store(whole, start=None, interval=None, edges=False).plot().data
    assert list(heat.x[:3]) == [0, 1, 2]
    undated = _store(_readings(), start=None, interval=None)
    assert "60 rows from 30 on" in undated.plot.gaps().data[0].hovertemplate
    with pytest.raises(ConfigError, match="has no typical week: the times of its rows are not"):
        undated.plot.week()
    assert not _store(whole).plot.gaps().data
    assert _store(whole).plot.gaps().layout.annotations[0].text == "no reading is missing"
    with pytest.raises(DataError, match="has no rows yet"):
        _store(np.ones((0, 1, 1))).plot()


def test_a_channel_is_chosen_by_name() -> None:
    values = _readings(num_channels=2)
    store = _store(values)
    assert store.plot.coverage("c1").layout.annotations[0].text == "c1: nothing missing"
    with pytest.raises(DataError, match="there is no channel 'c2': the store has c0, c1"):
        store.plot("c2")


def test_rows_at_irregular_times_keep_their_times() -> None:
    seconds = np.arange(50, dtype=np.int64) * 3600
    seconds[25:] += 86_400
    heat, *_ = _store(_readings(50), times=seconds).plot().data
    assert heat.x[25] - heat.x[24] == np.timedelta64(25, "h")


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_the_longest_gaps_are_found_across_chunks(size: int) -> None:
    random = np.random.default_rng(2)
    observed = random.random((300, 6)) > 0.5
    observed[40:95, 2:5] = False
    observed[[39, 95], 2:5] = True
    observed[280:, 0] = False
    expected: dict[tuple[int, int], list[int]] = {}
    for sensor in range(6):
        edges = np.flatnonzero(np.diff(np.r_[True, observed[:, sensor], True]))
        for first, stop in edges.reshape(-1, 2).tolist():
            expected.setdefault((first, stop), []).append(sensor)
    finder = GapFinder(6, limit=4)
    for first in range(0, 300, size):
        finder.add(observed[first : first + size])
    found = finder.longest()
    lengths = sorted((stop - first for first, stop in expected), reverse=True)[:4]
    assert [gap.stop - gap.first for gap in found] == lengths
    assert found[0] == (40, 95, 2, 3)
    for gap in found:
        sensors = expected[gap.first, gap.stop]
        assert (gap.sensor, gap.num_sensors) == (sensors[0], len(sensors))


@pytest.mark.parametrize("budget_bytes", [1, 200, 1 << 20])
def test_coverage_of_a_large_series_is_binned_in_bounded_memory(budget_bytes: int) -> None:
    values = np.random.default_rng(0).normal(size=(103, 11, 2)).astype(np.float32)
    values[np.random.default_rng(1).random(values.shape) < 0.3] = np.nan
    rows, sensors, shares = coverage(
        lambda first, stop: values[first:stop],
        values.shape,  # type: ignore[arg-type]
        max_times=10,
        max_sensors=4,
        budget_bytes=budget_bytes,
    )
    assert (len(rows), len(sensors)) == (10, 4)
    for i, row in enumerate(rows):
        for j, sensor in enumerate(sensors):
            block = values[row : (*rows[1:], 103)[i], sensor : (*sensors[1:], 11)[j]]
            assert shares[i, j] == pytest.approx(np.isfinite(block).mean())


def test_a_survey_reads_a_prefix_as_far_as_it_goes() -> None:
    values = _readings()
    found = survey_store(_store(values).prefix(95), 0)
    assert [(gap.first, gap.stop) for gap in found.gaps] == [(30, 90)]
    np.testing.assert_allclose(found.means, np.nanmean(values[:95, :, 0], axis=0), rtol=1e-5)
