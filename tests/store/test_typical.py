"""What is typical of every sensor, and how it is stored."""

from pathlib import Path

import numpy as np
import pytest

from pgti.errors import StoreError
from pgti.graph import SensorGraph
from pgti.store import SeriesStore, StoreWriter, TypicalReadings, sum_by_bin

MONDAY = np.datetime64("2025-10-06T00:00")


def make_store(target: Path, values: np.ndarray, interval: int | None = 3600) -> SeriesStore:
    with StoreWriter(
        target,
        node_ids=tuple(str(i) for i in range(values.shape[1])),
        channels=tuple("abc"[: values.shape[2]]),
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
    typical = TypicalReadings.fit(store, rows)
    assert typical.table.shape == (48, 3, 2)
    assert typical.has_times_of_day
    chosen = values[: rows.stop]
    hours = np.arange(rows.stop) % 24
    weekend = np.arange(rows.stop) // 24 % 7 >= 5
    for kind in (0, 1):
        for hour in (0, 6, 7, 23):
            expected = chosen[(hours == hour) & (weekend == kind)].mean(axis=0)
            np.testing.assert_allclose(typical.table[kind * 24 + hour], expected, rtol=1e-6)
    np.testing.assert_allclose(typical.table[5, 1], np.nanmean(chosen[:, 1], axis=0), rtol=1e-6)


def test_what_was_never_observed_takes_the_next_wider_mean(tmp_path: Path) -> None:
    """The other kind of day, then the sensor, then all sensors, then 0."""
    values = np.random.default_rng(1).integers(1, 900, (24 * 7, 3, 3)) / 10
    values[24 * 5 + 8 :: 24, 0, 0] = np.nan  # 08:00 of no weekend
    values[7::24, 0, 0] = np.nan  # 07:00 of no day
    values[:, 1, 1] = np.nan  # a channel of one sensor
    values[:, :, 2] = np.nan  # a channel of all sensors
    typical = TypicalReadings.fit(make_store(tmp_path / "s", values), range(len(values)))
    working_days = values[8 : 24 * 5 : 24, 0, 0]
    np.testing.assert_allclose(typical.table[24 + 8, 0, 0], working_days.mean(), rtol=1e-6)
    for row in (7, 24 + 7):
        expected = np.nanmean(values[:, 0, 0])
        np.testing.assert_allclose(typical.table[row, 0, 0], expected, rtol=1e-6)
    expected = np.full(48, np.nanmean(values[..., 1]))
    np.testing.assert_allclose(typical.table[:, 1, 1], expected, rtol=1e-6)
    assert (typical.table[..., 2] == 0).all()
    assert np.isnan([typical.minimum[2], typical.maximum[2], *typical.quantiles[:, 2]]).all()


def test_rows_outside_the_training_rows_do_not_count(tmp_path: Path) -> None:
    """Changing later readings changes nothing."""
    values = np.random.default_rng(0).integers(0, 900, (24 * 21, 2, 1)) / 10
    first = TypicalReadings.fit(make_store(tmp_path / "a", values), range(300))
    values[300:] = 1e6 / 3
    second = TypicalReadings.fit(make_store(tmp_path / "b", values), range(300))
    assert first.to_bytes() == second.to_bytes()


def test_bins_follow_the_calendar(tmp_path: Path) -> None:
    """Working days use the first half of the table, Saturday and Sunday the second."""
    store = make_store(tmp_path / "s", np.ones((48, 1, 1)))
    typical = TypicalReadings.fit(store, range(48))
    rows = np.array([[0, 23, 24 * 4 + 3], [24 * 5, 24 * 6 + 23, 24 * 7]])
    assert typical.bins(store.time_axis, rows).tolist() == [[0, 23, 3], [24, 47, 0]]


@pytest.mark.parametrize(("interval", "bins"), [(86_400, 7), (3 * 86_400, 1), (None, 1)])
def test_days_of_the_week_or_one_bin(tmp_path: Path, interval: int | None, bins: int) -> None:
    """Daily readings have typical weekdays; rarer ones, or those without times, one mean."""
    values = np.random.default_rng(2).integers(0, 900, (60, 2, 1)) / 10
    store = make_store(tmp_path / "s", values, interval)
    typical = TypicalReadings.fit(store, range(50))
    assert not typical.has_times_of_day
    rows = np.arange(70)
    assert typical.bins(store.time_axis, rows).tolist() == (rows % bins).tolist()
    for row in range(bins):
        expected = values[row:50:bins].mean(axis=0)
        np.testing.assert_allclose(typical.table[row], expected, rtol=1e-6)


def test_a_bin_has_five_minutes_at_least(tmp_path: Path) -> None:
    """Memory does not grow with how often a sensor is read, unless every step is asked for."""
    values = np.arange(3000, dtype=float).reshape(-1, 1, 1)
    store = make_store(tmp_path / "s", values, 60)
    rows = np.array([0, 4, 5, 1439, 1440])
    typical = TypicalReadings.fit(store, range(1440))
    assert typical.bins(store.time_axis, rows).tolist() == [0, 0, 1, 287, 0]
    np.testing.assert_array_equal(typical.table[1, 0], values[5:10, 0].mean(axis=0))
    finest = TypicalReadings.fit(store, range(1440), every_step=True)
    assert finest.bins(store.time_axis, rows).tolist() == [0, 4, 5, 1439, 0]


def test_range_and_quantiles(tmp_path: Path) -> None:
    """Of the observed readings of each channel; of a long series, those of evenly spaced rows."""
    values = np.random.default_rng(3).integers(0, 900, (24 * 21, 3, 2)) / 10
    values[::7, 1, 0] = np.nan
    typical = TypicalReadings.fit(make_store(tmp_path / "s", values), range(200))
    chosen = values[:200].reshape(-1, 2).astype(np.float32)
    np.testing.assert_array_equal(typical.minimum, np.nanmin(chosen, axis=0))
    np.testing.assert_array_equal(typical.maximum, np.nanmax(chosen, axis=0))
    shares = 1 - np.isnan(values[:200]).mean(axis=0)
    np.testing.assert_allclose(typical.observed, shares, rtol=1e-6)
    expected = np.nanquantile(chosen, np.linspace(0, 1, 101), axis=0)
    np.testing.assert_allclose(typical.quantiles, expected, rtol=1e-6)


def test_file(tmp_path: Path) -> None:
    """A file gives back the same bits; anything else is refused in one line."""
    values = np.random.default_rng(4).integers(0, 900, (24 * 8, 2, 2)) / 10
    typical = TypicalReadings.fit(make_store(tmp_path / "s", values), range(100))
    path = tmp_path / "typical.npz"
    typical.save(path)
    for again in (TypicalReadings.load(path), TypicalReadings.from_bytes(typical.to_bytes())):
        assert again.to_bytes() == typical.to_bytes()
    with pytest.raises(StoreError, match=r"absent\.npz cannot be read: No such file"):
        TypicalReadings.load(tmp_path / "absent.npz")
    np.savez(path, table=typical.table)
    with pytest.raises(StoreError, match="cannot be read as typical readings: 'num_days"):
        TypicalReadings.load(path)
    path.write_bytes(typical.to_bytes()[:-40])
    with pytest.raises(StoreError, match="cannot be read as typical readings"):
        TypicalReadings.load(path)
    wrong = dict(typical._arrays(), minimum=np.zeros(3, dtype=np.float32))
    np.savez(path, **wrong)
    with pytest.raises(StoreError, match="contradict one another"):
        TypicalReadings.load(path)


@pytest.mark.parametrize("num_bins", [1, 7, 48, 500])
def test_sums_are_those_of_one_row_after_the_other(tmp_path: Path, num_bins: int) -> None:
    """Bit for bit, however many rows of a chunk share a bin."""
    values = np.random.default_rng(5).normal(1e4, 1e3, (300, 3, 2))
    values[np.random.default_rng(6).random(values.shape) < 0.2] = np.nan
    store = make_store(tmp_path / "s", values)
    random_bins = np.random.default_rng(7).integers(0, num_bins, 300)
    sums, counts = sum_by_bin(
        store, range(20, 300), (1, 0), lambda rows: random_bins[rows], num_bins, chunk_readings=600
    )
    expected, number = np.zeros_like(sums), np.zeros_like(counts)
    for row in range(20, 300):
        for (sensor, channel), value in np.ndenumerate(store.read(row, row + 1)[0, :, ::-1]):
            if not np.isnan(value):
                expected[random_bins[row], sensor, channel] += value
                number[random_bins[row], sensor, channel] += 1
    assert sums.tobytes() == expected.tobytes()
    np.testing.assert_array_equal(counts, number)


def test_rare_readings_have_typical_months(tmp_path: Path) -> None:
    """Readings of weeks have a mean for each month that was seen; others have the sensor's."""
    values = np.random.default_rng(3).integers(0, 900, (60, 2, 1)) / 10
    store = make_store(tmp_path / "s", values, 7 * 86_400)
    typical = TypicalReadings.fit(store, range(40))
    rows = np.arange(60)
    months = store.time_axis.at(rows).astype("datetime64[M]").astype(int) % 12
    assert typical.num_days == 12
    np.testing.assert_array_equal(typical.bins(store.time_axis, rows), months)
    for month in range(12):
        seen = np.flatnonzero(months[:40] == month)
        expected = values[seen if len(seen) else slice(40)].mean(axis=0)
        np.testing.assert_allclose(typical.table[month], expected, rtol=1e-6)
    again = TypicalReadings.from_bytes(typical.to_bytes())
    np.testing.assert_array_equal(again.table, typical.table)
