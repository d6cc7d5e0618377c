"""Readings far from those of training are said, and ordinary months and hours are not."""

from pathlib import Path

import numpy as np
import pytest

from pgti import SensorGraph, SeriesStore
from pgti.run.ranges import compare_ranges
from pgti.store import TimeAxis, TypicalReadings

DATA = Path(__file__).parents[3] / "shared" / "data"


def store_of(values: np.ndarray, start: str, interval_seconds: int) -> SeriesStore:
    """A series [T, N, C] in memory."""
    num_steps, num_nodes, num_channels = values.shape
    axis = TimeAxis(
        num_steps=num_steps,
        start_seconds=int(np.datetime64(start, "s").astype(np.int64)),
        interval_seconds=interval_seconds,
    )
    return SeriesStore.in_memory(
        values.astype(np.float32),
        SensorGraph.empty(num_nodes),
        axis,
        node_ids=tuple(map(str, range(num_nodes))),
        channels=tuple(f"c{each}" for each in range(num_channels)),
    )


def read(name: str) -> tuple[np.ndarray, str, int]:
    """Readings in their units, the time of the first, the interval in seconds."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"there is no {path}")
    with np.load(path, allow_pickle=False) as arrays:
        start, seconds = str(arrays["start"]), 60 * int(arrays["interval_minutes"])
        if "x_scaled" in arrays:
            values = arrays["x_scaled"].astype(np.float32)
            values[values == -32768] = np.nan
            return values / arrays["scale"], start, seconds
        parts = (arrays["flow"], arrays["occ_x1e4"] / 1e4, arrays["speed_x10"] / 10)
        return np.stack(parts, axis=-1), start, seconds


@pytest.mark.parametrize("name", ["pems_i5nb_oct2025.npz", "beijing_prsa.npz"])
def test_ordinary_readings_are_no_news(name: str) -> None:
    """The second half beside the first: as a whole, by month or by week, and hour by hour."""
    values, start, seconds = read(name)
    half = len(values) // 2
    series = store_of(values, start, seconds)
    typical = TypicalReadings.fit(series, range(half))
    month = min(half // 2, 30 * 86_400 // seconds)
    assert compare_ranges(series, typical, half) == ()
    lines = [
        compare_ranges(series.prefix(stop), typical, month)
        for stop in range(half + month, len(values), month)
    ]
    assert not any(lines), lines
    hours = range(half + 12, len(values), half // 150)
    reported = sum(bool(compare_ranges(series.prefix(stop), typical, 12)) for stop in hours)
    assert reported == 0


@pytest.mark.parametrize("factor", [10, 0.1])
def test_a_forgotten_scale_is_said_within_an_hour(factor: float) -> None:
    values, start, seconds = read("pems_i5nb_oct2025.npz")
    half = len(values) // 2
    typical = TypicalReadings.fit(store_of(values, start, seconds), range(half))
    newer = store_of(values * factor, start, seconds)
    for stop in range(half + 12, len(values), half // 20):
        assert any("c2" in line for line in compare_ranges(newer.prefix(stop), typical, 12))
