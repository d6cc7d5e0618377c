"""The typical day of every sensor."""

from pathlib import Path

import numpy as np
import pytest

from pgti.errors import ConfigError
from pgti.graph import SensorGraph
from pgti.store import Profile, SeriesStore, StoreWriter

MONDAY = np.datetime64("2025-10-06T00:00")


def make_store(target: Path, values: np.ndarray, interval: int | None = 3600) -> SeriesStore:
    with StoreWriter(
        target,
        node_ids=tuple(str(i) for i in range(values.shape[1])),
        channels=tuple("ab"[: values.shape[2]]),
        graph=SensorGraph.empty(values.shape[1]),
    ) as writer:
        writer.append(values)
        writer.finish(start=MONDAY if interval else None, interval_seconds=interval)
    return SeriesStore.open(target)


def test_means_by_time_of_day_and_kind_of_day(tmp_path: Path) -> None:
    """Entries are the means of the observed training readings, weekends apart."""
    values = np.random.default_rng(0).integers(0, 900, (24 * 21, 3, 2)) / 10
    values[5::24, 1] = np.nan
    store = make_store(tmp_path / "s", values)
    rows = range(24 * 14 + 7)
    profile = Profile.fit(store, rows, (1,))
    assert profile.table.shape == (48, 3, 1)
    chosen = values[: rows.stop, :, 1]
    hours = np.arange(rows.stop) % 24
    weekend = np.arange(rows.stop) // 24 % 7 >= 5
    for kind in (0, 1):
        for hour in (0, 6, 7, 23):
            expected = chosen[(hours == hour) & (weekend == kind)].mean(axis=0)
            np.testing.assert_allclose(profile.table[kind * 24 + hour, :, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(profile.table[5, 1, 0], np.nanmean(chosen[:, 1]), rtol=1e-6)


def test_rows_outside_the_training_rows_do_not_count(tmp_path: Path) -> None:
    """Changing later readings changes nothing."""
    values = np.random.default_rng(0).integers(0, 900, (24 * 21, 2, 1)) / 10
    first = Profile.fit(make_store(tmp_path / "a", values), range(300), (0,))
    values[300:] = 7 / 3
    second = Profile.fit(make_store(tmp_path / "b", values), range(300), (0,))
    np.testing.assert_array_equal(first.table, second.table)


def test_week_bins_follow_the_calendar(tmp_path: Path) -> None:
    """Working days use the first half of the table, Saturday and Sunday the second."""
    store = make_store(tmp_path / "s", np.ones((48, 1, 1)))
    profile = Profile.fit(store, range(48), (0,))
    rows = np.array([0, 23, 24 * 4 + 3, 24 * 5, 24 * 6 + 23, 24 * 7])
    assert profile.week_bins(store.time_axis, rows).tolist() == [0, 23, 3, 24, 47, 0]


@pytest.mark.parametrize("interval", [None, 86_400])
def test_needs_several_readings_a_day(tmp_path: Path, interval: int | None) -> None:
    """Without times of day there is no profile."""
    store = make_store(tmp_path / "s", np.ones((48, 1, 1)), interval)
    with pytest.raises(ConfigError, match="leave the profile out"):
        Profile.fit(store, range(48), (0,))
