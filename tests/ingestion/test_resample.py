"""Rows at any times, aggregated onto a grid of times."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pgti
from pgti.errors import ConfigError, DataError
from pgti.ingestion.appending import append
from pgti.ingestion.newer.newer import open_newer_series
from pgti.store import SeriesStore


def irregular_frame(seed: int = 0, rows: int = 3000) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    steps = pd.to_timedelta(np.cumsum(rng.integers(20, 100, rows)), unit="s")
    values = rng.normal(50, 5, (rows, 3))
    values[rng.random(values.shape) < 0.5] = np.nan
    return pd.DataFrame(values, index=pd.Timestamp("2024-03-01") + steps, columns=list("abc"))


def frame_of(store: SeriesStore) -> pd.DataFrame:
    """The first channel of a store as a DataFrame on its wall clock."""
    rows = np.arange(store.meta.num_steps)
    values = store.read(0, len(rows))[..., 0]
    return pd.DataFrame(values, index=store.time_axis.at(rows), columns=store.meta.node_ids)


@pytest.mark.parametrize("how", ["mean", "sum", "last"])
@pytest.mark.parametrize("budget", [1, 5000, 32 << 20])
def test_a_grid_is_that_of_pandas(tmp_path: Path, how: str, budget: int) -> None:
    frame = irregular_frame()
    frame = frame.drop(frame.index[1200:1300])  # bins without a row
    store = pgti.ingest(frame, tmp_path / "s", resample="5min", aggregate=how, budget_bytes=budget)
    grid = frame.resample("5min")
    expected = {
        "mean": grid.mean,
        "sum": lambda: grid.sum(min_count=1),
        "last": grid.last,
    }[how]()
    result = frame_of(store)
    expected = expected.loc[result.index[0] : result.index[-1]]
    np.testing.assert_array_equal(result.to_numpy(), expected.to_numpy(np.float32))
    assert (result.index == expected.index).all()
    empty = int((grid.size().loc[result.index[0] : result.index[-1]] == 0).sum())
    assert empty > 5
    assert any(f"{empty} of them hold no row" in note for note in store.notes)
    assert any("2,900 rows of the DataFrame became" in note for note in store.notes)


def test_codes_are_missing_before_they_could_be_aggregated(tmp_path: Path) -> None:
    times = pd.date_range("2024-01-01", periods=8, freq="1min")
    frame = pd.DataFrame({"a": [-1.0, 5, 7, -1, -5, 5, 2, 2]}, index=times)
    store = pgti.ingest(frame, tmp_path / "s", resample="2min", aggregate="mean", missing=(-1, 0))
    # The mean of -5 and 5 is 0, which is a code of raw values and not of means.
    np.testing.assert_array_equal(store.read(0, 4)[:, 0, 0], np.float32([5, 7, 0, 2]))


def test_each_channel_has_its_own_aggregate(tmp_path: Path) -> None:
    times = pd.date_range("2024-01-01", periods=4, freq="5min")
    columns = pd.MultiIndex.from_product([["a"], ["speed", "flow"]], names=["sensor", "channel"])
    frame = pd.DataFrame([[60.0, 1], [50, 2], [40, 3], [20, 4]], index=times, columns=columns)
    store = pgti.ingest(frame, tmp_path / "s", resample="10min", aggregate=("mean", "sum"))
    np.testing.assert_array_equal(store.read(0, 2)[:, 0], np.float32([[55, 3], [30, 7]]))
    newer = frame.set_index(frame.index + pd.Timedelta("20min"))[[("a", "flow"), ("a", "speed")]]
    with open_newer_series(newer, store) as found:
        np.testing.assert_array_equal(found.store.read(0, 2)[:, 0], np.float32([[55, 3], [30, 7]]))


@pytest.mark.parametrize(
    ("month", "step", "expected"),
    [
        ("2025-10-26", "1h", ["00:00+02:00", "01:00+02:00", "02:00+02:00", "02:00+01:00"]),
        ("2025-03-30", "1h", ["00:00+01:00", "01:00+01:00", "03:00+02:00", "04:00+02:00"]),
        ("2025-10-26", "6h", ["00:00+02:00", "06:00+01:00", "12:00+01:00", "18:00+01:00"]),
    ],
)
def test_bins_follow_the_clock_of_the_zone(
    tmp_path: Path, month: str, step: str, expected: list[str]
) -> None:
    times = pd.date_range(month, periods=24 * 12, freq="5min", tz="Europe/Rome")
    frame = pd.DataFrame({"a": np.arange(len(times), dtype=float)}, index=times)
    store = pgti.ingest(
        frame, tmp_path / "s", resample=step, aggregate="mean", time_zone="Europe/Rome", gaps="keep"
    )
    shown = [store.time_axis.isoformat(row).replace(f"{month} ", "") for row in range(4)]
    assert shown == [each.replace("+", ":00+", 1) for each in expected]
    grid = frame.set_index(times.tz_convert(None)).resample("1h").mean() if step == "1h" else None
    if grid is not None:
        rows = min(len(grid), store.meta.num_steps)
        np.testing.assert_array_equal(
            store.read(0, rows)[:, 0, 0], grid["a"].to_numpy(np.float32)[:rows]
        )


def test_days_have_23_and_25_hours(tmp_path: Path) -> None:
    times = pd.date_range("2025-03-01", "2025-11-30 23:00", freq="1h", tz="Europe/Berlin")
    frame = pd.DataFrame({"a": np.ones(len(times))}, index=times)
    for source in (frame, frame.tz_convert("UTC")):
        store = pgti.ingest(
            source,
            tmp_path / "s",
            resample="1d",
            aggregate="sum",
            time_zone="Europe/Berlin",
            overwrite=True,
        )
        result = frame_of(store)["a"]
        assert result.index.equals(pd.date_range("2025-03-01", "2025-11-30", unit="s"))
        odd = result[result != 24]
        assert odd.to_dict() == {pd.Timestamp("2025-03-30"): 23, pd.Timestamp("2025-10-26"): 25}


@pytest.mark.parametrize("first", ["2024-03-30", "2024-03-31", "2024-10-27"])
@pytest.mark.parametrize("days", [2, 3])
def test_a_few_days_around_a_clock_change(tmp_path: Path, first: str, days: int) -> None:
    """Where half of the days have 23 or 25 hours, they are days all the same."""
    begin = pd.Timestamp(first, tz="Europe/Berlin")
    times = pd.date_range(begin, begin + pd.DateOffset(days=days), freq="h", inclusive="left")
    frame = pd.DataFrame({"a": np.arange(float(len(times)))}, index=times)
    store = pgti.ingest(frame, tmp_path / "s", resample="1D", aggregate="mean")
    daily = frame["a"].resample("1D").mean().to_numpy(np.float32)
    np.testing.assert_array_equal(store.read(0, days).ravel(), daily)
    (after,) = store.time_axis.at([days])
    assert after == begin.tz_localize(None) + pd.DateOffset(days=days)


def test_a_grid_finer_than_the_rows_is_refused(tmp_path: Path) -> None:
    times = pd.date_range("2024-01-01", periods=8, freq="1h")
    frame = pd.DataFrame({"a": np.arange(8.0)}, index=times)
    with pytest.raises(DataError, match=r"1h apart and resample is 5min.*finer"):
        pgti.ingest(frame, tmp_path / "s", resample="5min", aggregate="mean")
    assert not (tmp_path / "s").exists()


def test_what_resampling_cannot_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="go together"):
        pgti.IngestOptions(resample="5min")
    with pytest.raises(ConfigError, match="go together"):
        pgti.IngestOptions(aggregate=("mean",))
    with pytest.raises(ConfigError, match="not valid"):
        pgti.IngestOptions(resample="often", aggregate=("mean",))
    with pytest.raises(DataError, match="no times, and resample needs them"):
        pgti.ingest(np.ones((9, 2)), tmp_path / "s", resample="5min", aggregate="mean")
    frame = irregular_frame()
    with pytest.raises(ConfigError, match="aggregate has 2 values"):
        pgti.ingest(frame, tmp_path / "s", resample="5min", aggregate=("mean", "sum"))
    frame.iloc[7, 1] = np.inf
    with pytest.raises(DataError, match=r"infinite readings.*row 7, sensor 'b'"):
        pgti.ingest(frame, tmp_path / "s", resample="5min", aggregate="mean")
    mixed = irregular_frame().iloc[[*range(9), 5, *range(9, 40)]]
    with pytest.raises(DataError, match=r"row 8 and row 9 .* sort the rows"):
        pgti.ingest(mixed, tmp_path / "s", resample="1min", aggregate="mean")
    with pytest.raises(DataError, match="has no whole 1d: its 20 rows"):
        pgti.ingest(irregular_frame(rows=20), tmp_path / "s", resample="1d", aggregate="mean")
    far = irregular_frame(rows=60)
    far.index = [*far.index[:-2], *pd.to_datetime(["2099-01-01", "2099-01-02"])]
    with pytest.raises(DataError, match="would be empty"):
        pgti.ingest(far, tmp_path / "s", resample="5min", aggregate="mean")
    assert not (tmp_path / "s").exists()


def test_a_store_grows_by_whole_bins(tmp_path: Path) -> None:
    times = pd.date_range("2024-01-01", periods=3000, freq="1min")
    frame = pd.DataFrame({"a": np.arange(3000.0), "b": np.sin(np.arange(3000))}, index=times)
    whole = pgti.ingest(frame, tmp_path / "whole", resample="5min", aggregate="mean")
    frame[:1003].to_csv(tmp_path / "first.csv")
    frame[1000:].to_csv(tmp_path / "second.csv")
    store = pgti.ingest(
        tmp_path / "first.csv", tmp_path / "grown", resample="5min", aggregate="mean"
    )
    assert store.meta.num_steps == 200
    assert any("begins at 2024-01-01T16:40:00: it was left out" in note for note in store.notes)
    store = append(store, tmp_path / "second.csv")
    assert store.meta.num_steps == whole.meta.num_steps == 600
    assert store.fingerprint == whole.fingerprint
    assert any("resample 5min, aggregate mean" in note for note in store.notes)


def test_newer_readings_are_resampled_as_in_training(tmp_path: Path) -> None:
    frame = irregular_frame(rows=4000)
    store = pgti.ingest(frame[:2000], tmp_path / "s", resample="5min", aggregate="mean")
    expected = frame.resample("5min").mean()
    with open_newer_series(frame[2000:], store) as newer:
        result = frame_of(newer.store)
        assert any("rows of the DataFrame became" in note for note in newer.notes)
    expected = expected.loc[result.index[0] : result.index[-1]]
    np.testing.assert_array_equal(result.to_numpy(), expected.to_numpy(np.float32))
