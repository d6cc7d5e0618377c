"""Forecast files read back as the forecasts that were made."""

import resource
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pgti.batching import WindowSource
from pgti.errors import ConfigError, RunError
from pgti.forecasting import (
    AbstractForecaster,
    ForecastLabels,
    InputSummary,
    NetworkForecaster,
    predict,
)
from pgti.nn import Supports
from pgti.store import TimeAxis

from ..training.tiny_training import (
    SPEC,
    Constant,
    LinearNet,
    make_loader,
    make_series,
    make_source,
    make_store,
)

STARTS = range(54, 75)


def two_targets(tmp_path: Path, *, dated: bool = True) -> WindowSource:
    """Windows of a series with two channels, both to be forecast."""
    store = make_store(tmp_path / "store", make_series(num_channels=2), dated=dated)
    return make_source(store, (0, 1))


def make_network(source: WindowSource) -> NetworkForecaster:
    """An untrained network for both channels."""
    torch.manual_seed(0)
    network = LinearNet(num_targets=2, num_channels=2)
    supports = Supports.from_graph(source.store.graph)
    return NetworkForecaster(network, supports, source.scaler, (0, 1))


def make_labels(source: WindowSource) -> ForecastLabels:
    """Names of the source's forecasts."""
    return ForecastLabels.of_source(source)


def write(
    source: WindowSource,
    path: Path,
    starts: range = STARTS,
    *,
    with_targets: bool = True,
    forecaster: AbstractForecaster | None = None,
    **options: int,
) -> int:
    """Forecast the windows into a file."""
    loader = make_loader(source, starts, 4, with_targets=with_targets)
    made = make_network(source) if forecaster is None else forecaster
    return predict(made, loader.epoch(0), make_labels(source), path, **options)


def direct(source: WindowSource, starts: range = STARTS) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts and readings, NaN where missing, [S, H, N, C], without any file."""
    loader = make_loader(source, starts, 4)
    forecasts, readings = [], []
    with torch.no_grad():
        for batch in loader.epoch(0):
            forecasts.append(make_network(source)(batch).numpy().copy())
            readings.append(np.where(batch.y_mask, batch.y, np.nan).astype(np.float32))
    return np.concatenate(forecasts), np.concatenate(readings)


def read_table(path: Path) -> pd.DataFrame:
    """The table of a CSV or Parquet file, with times as times."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.read_csv(path, parse_dates=["timestamp", "origin"])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_has_a_row_per_forecast(tmp_path: Path, suffix: str) -> None:
    """Times, names and numbers are those of the windows, in order, bit for bit."""
    source = two_targets(tmp_path)
    path = tmp_path / f"forecast{suffix}"

    assert write(source, path) == len(STARTS)

    table, (forecast, reading) = read_table(path), direct(source)
    assert list(table.columns) == [
        "timestamp",
        "origin",
        "horizon",
        "sensor",
        "channel",
        "forecast",
        "observed",
        "missing_inputs",
        "missing_newest",
    ]
    assert len(table) == forecast.size
    found = table["forecast"].to_numpy().astype(np.float32).reshape(forecast.shape)
    observed = table["observed"].to_numpy().astype(np.float32).reshape(forecast.shape)
    np.testing.assert_array_equal(found, forecast)
    np.testing.assert_array_equal(observed, reading)
    assert np.isnan(reading).any()

    # Window 2 starts at row 56; horizon 3 of sensor s1, channel c1.
    row = table[
        (table["origin"] == pd.Timestamp("2025-10-01") + pd.Timedelta(hours=56 + 3))
        & (table["horizon"] == 3)
        & (table["sensor"] == "s1")
        & (table["channel"] == "c1")
    ]
    assert len(row) == 1
    assert row["timestamp"].item() == pd.Timestamp("2025-10-01") + pd.Timedelta(hours=62)
    assert np.float32(row["forecast"].item()) == forecast[2, 2, 1, 1]


def test_csv_times_are_iso_8601(tmp_path: Path) -> None:
    """Midnight has its hours too."""
    source = two_targets(tmp_path)
    write(source, tmp_path / "forecast.csv", range(68, 69))

    lines = (tmp_path / "forecast.csv").read_text().splitlines()

    assert (
        lines[0]
        == "timestamp,origin,horizon,sensor,channel,forecast,observed,missing_inputs,missing_newest"
    )
    assert lines[1].startswith("2025-10-04T00:00:00,2025-10-03T23:00:00,1,s0,c0,")


def test_npz_arrays_have_the_shape_of_the_windows(tmp_path: Path) -> None:
    """Forecasts and readings [S, H, N, C] bit for bit, with their times and names."""
    source = two_targets(tmp_path)
    write(source, tmp_path / "forecast.npz")

    forecast, reading = direct(source)
    with np.load(tmp_path / "forecast.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {
            "forecast",
            "observed",
            "timestamps",
            "origins",
            "missing_inputs",
            "missing_newest",
            "horizon",
            "sensor_ids",
            "channels",
        }
        np.testing.assert_array_equal(arrays["forecast"], forecast)
        np.testing.assert_array_equal(arrays["observed"], reading)
        assert arrays["forecast"].dtype == np.float32
        start = np.datetime64("2025-10-01T00:00:00")
        rows = np.array(STARTS)[:, None] + SPEC.input_steps + np.arange(SPEC.horizon)
        np.testing.assert_array_equal(arrays["timestamps"], start + rows.astype("m8[h]"))
        np.testing.assert_array_equal(arrays["origins"], arrays["timestamps"][:, 0] - 3600)
        assert arrays["horizon"].tolist() == [1, 2, 3]
        assert arrays["sensor_ids"].tolist() == ["s0", "s1", "s2"]
        assert arrays["channels"].tolist() == ["c0", "c1"]


def expected_gaps(source: WindowSource) -> tuple[np.ndarray, np.ndarray]:
    """Missing inputs, and those after the last reading, of each window [S, N, C], one by one."""
    readings = source.store.read(0, source.store.meta.num_steps)
    shape = (len(STARTS), *readings.shape[1:])
    missing, newest = np.zeros(shape, dtype=int), np.zeros(shape, dtype=int)
    for position, start in enumerate(STARTS):
        for node, channel in np.ndindex(*shape[1:]):
            gaps = np.isnan(readings[start : start + SPEC.input_steps, node, channel]).tolist()
            missing[position, node, channel] = sum(gaps)
            newest[position, node, channel] = [*gaps[::-1], False].index(False)
    return missing, newest


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_forecasts_say_which_inputs_were_missing(tmp_path: Path, suffix: str) -> None:
    """How many of each sensor and channel in the window, and how many since its last reading."""
    source = two_targets(tmp_path)
    path = tmp_path / f"forecast{suffix}"
    write(source, path)
    expected = expected_gaps(source)
    assert all(set(gaps.ravel()) >= {0, 1, 2} for gaps in expected)
    for name, gaps in zip(("missing_inputs", "missing_newest"), expected, strict=True):
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                np.testing.assert_array_equal(arrays[name], gaps)
            continue
        shape = (len(STARTS), SPEC.horizon, *gaps.shape[1:])
        found = read_table(path)[name].to_numpy().reshape(shape)
        np.testing.assert_array_equal(found, np.broadcast_to(gaps[:, None], shape))


def test_a_summary_of_the_inputs(tmp_path: Path) -> None:
    """Of all windows, and of the newest one."""
    source, summary = two_targets(tmp_path), InputSummary()
    loader = make_loader(source, STARTS, 4)
    predict(
        make_network(source),
        loader.epoch(0),
        make_labels(source),
        tmp_path / "forecast.csv",
        inputs=summary,
    )
    missing, newest = expected_gaps(source)
    facts = summary.to_dict()
    assert facts["missing_inputs"] == missing.sum() / (missing.size * SPEC.input_steps)
    last = pd.Timestamp("2025-10-01") + pd.Timedelta(hours=STARTS[-1] + SPEC.input_steps - 1)
    never = (missing[-1] == SPEC.input_steps).all(axis=-1)
    assert summary.newest is not None
    assert summary.newest["origin"] == last.isoformat()
    late = pd.Timedelta(hours=int(newest[-1].min()))
    assert summary.newest["last_reading"] == (last - late).isoformat()
    assert facts["newest"] == {
        "missing_inputs": missing[-1].mean() / SPEC.input_steps,
        "never_observed": [source.store.meta.node_ids[node] for node in np.flatnonzero(never)],
    }


@pytest.mark.parametrize(
    ("missing", "newest", "line"),
    [
        ([0, 0], [0, 0], None),
        ([1, 0], [0, 0], "the forecast from row 9 lacks 12.5% of its inputs"),
        ([2, 3], [1, 2],
         "the forecast from row 9 lacks 62.5% of its inputs; the last reading is of row 8"),
        ([4, 0], [4, 0],
         "the forecast from row 9 lacks 50.0% of its inputs; never observed in the window: a"),
        ([4, 4], [4, 4], "the forecast from row 9 lacks 100.0% of its inputs; the window has no "
         "reading; never observed in the window: a, b"),
    ],
)  # fmt: skip
def test_the_line_about_the_newest_window(
    missing: list[int], newest: list[int], line: str | None
) -> None:
    labels = ForecastLabels(
        time_axis=TimeAxis(num_steps=10),
        input_steps=4,
        sensor_ids=("a", "b"),
        channels=("c",),
        target_indices=(0,),
    )
    summary = InputSummary()
    summary.add(
        labels,
        np.array([9]),
        np.array(missing, dtype=np.int32).reshape(1, 2, 1),
        np.array(newest, dtype=np.int32).reshape(1, 2, 1),
    )
    assert summary.describe() == line


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_the_future_has_no_readings(tmp_path: Path, suffix: str) -> None:
    """Forecasts past the end of the series continue its times, and have nothing beside them."""
    source = two_targets(tmp_path)
    path = tmp_path / f"future{suffix}"

    assert write(source, path, range(86, 87), with_targets=False) == 1

    first = np.datetime64("2025-10-01T00:00:00") + np.timedelta64(90, "h")
    if suffix == ".npz":
        with np.load(path) as arrays:
            assert np.isnan(arrays["observed"]).all()
            assert arrays["timestamps"][0, 0] == first
        return
    table = read_table(path)
    assert table["observed"].isna().all()
    assert table["timestamp"].iloc[0] == pd.Timestamp(first)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_a_series_without_times_has_row_numbers(tmp_path: Path, suffix: str) -> None:
    """Timestamp and origin are then rows of the series."""
    source = two_targets(tmp_path, dated=False)
    path = tmp_path / f"forecast{suffix}"
    write(source, path, range(10, 12))

    if suffix == ".npz":
        with np.load(path) as arrays:
            assert arrays["timestamps"].tolist() == [[14, 15, 16], [15, 16, 17]]
            assert arrays["origins"].tolist() == [13, 14]
        return
    table = pd.read_parquet(path) if suffix == ".parquet" else pd.read_csv(path)
    assert sorted(set(table["timestamp"])) == [14, 15, 16, 17]
    assert sorted(set(table["origin"])) == [13, 14]


def test_readings_end_where_the_series_does(tmp_path: Path) -> None:
    """Windows with targets followed by windows without leave the later readings empty."""
    source = two_targets(tmp_path)
    known = make_loader(source, range(83, 84), 4)
    future = make_loader(source, range(84, 87), 4, with_targets=False)
    batches = (batch for loader in (known, future) for batch in loader.epoch(0))

    predict(make_network(source), batches, make_labels(source), tmp_path / "forecast.parquet")

    table = pd.read_parquet(tmp_path / "forecast.parquet")
    per_window = len(table) // 4
    assert table["observed"].iloc[:per_window].notna().any()
    assert table["observed"].iloc[per_window:].isna().all()


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_a_batch_larger_than_a_block_is_the_same(tmp_path: Path, suffix: str) -> None:
    """However few windows are written at a time, the content does not change."""
    source = two_targets(tmp_path)
    whole, pieces = tmp_path / f"whole{suffix}", tmp_path / f"pieces{suffix}"
    write(source, whole)
    write(source, pieces, block_size=1)

    if suffix == ".npz":
        with np.load(whole) as expected, np.load(pieces) as found:
            for name in expected:
                np.testing.assert_array_equal(expected[name], found[name])
    elif suffix == ".parquet":
        pd.testing.assert_frame_equal(pd.read_parquet(whole), pd.read_parquet(pieces))
    else:
        assert whole.read_bytes() == pieces.read_bytes()


class Failing(Constant):
    """Fails at its third batch."""

    def forward(self, batch: object, *, step: int | None = None) -> torch.Tensor:
        """Two constants, then an error."""
        self.value += 1
        if self.value > 52:
            raise RuntimeError("the network failed")
        return super().forward(batch, step=step)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
@pytest.mark.parametrize("before", [None, b"an older forecast"])
def test_a_failure_leaves_what_was_there(tmp_path: Path, suffix: str, before: bytes | None) -> None:
    """Neither half a file nor a temporary one; an older forecast stays."""
    source = make_source(make_store(tmp_path / "store", make_series()))
    out = tmp_path / "out"
    out.mkdir()
    path = out / f"forecast{suffix}"
    if before is not None:
        path.write_bytes(before)

    with pytest.raises(RuntimeError, match="the network failed"):
        write(source, path, forecaster=Failing(50.0))

    assert [each.name for each in out.iterdir()] == ([] if before is None else [path.name])
    assert before is None or path.read_bytes() == before


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's refusal names the file."""
    source = two_targets(tmp_path)
    out = tmp_path / "out"
    out.mkdir()

    def full(descriptor: int) -> None:
        del descriptor
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="cannot be written: No space left on device"):
        write(source, out / f"forecast{suffix}")
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
@pytest.mark.parametrize("limit_bytes", [0, 3000])
def test_a_write_that_fails_midway_leaves_nothing(
    tmp_path: Path, suffix: str, limit_bytes: int
) -> None:
    """The system lets a file grow to the limit and no further, as on a disk that fills up."""
    source = two_targets(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, unlimited[1]))
        with pytest.raises(RunError, match="cannot be written: File too large"):
            write(source, out / f"forecast{suffix}", range(70))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("forecast.xlsx", r"suffix '\.xlsx': forecasts are written as \.csv, \.parquet, \.npz"),
        ("forecast", r"suffix ''"),
        ("nowhere/forecast.csv", "nowhere does not exist"),
        ("directory.csv", "it is a directory"),
    ],
)
def test_names_that_cannot_be_written_are_refused(tmp_path: Path, name: str, message: str) -> None:
    """Before anything is computed."""
    source = two_targets(tmp_path)
    (tmp_path / "directory.csv").mkdir()

    with pytest.raises(ConfigError, match=message):
        write(source, tmp_path / name, forecaster=Failing(99.0))


def test_no_window_is_an_error(tmp_path: Path) -> None:
    """An empty file would look like a result."""
    source = two_targets(tmp_path)

    with pytest.raises(ConfigError, match="no window to forecast"):
        write(source, tmp_path / "forecast.csv", range(0))
    assert not (tmp_path / "forecast.csv").exists()


# -- time zones -----------------------------------------------------------------------------------


def zoned(tmp_path: Path) -> WindowSource:
    """Hourly readings through the night in which Berlin's clocks go back, 2025-10-26 at 01:00 UTC.

    Row 4 is 2025-10-26T00:00 in UTC; the first forecast of window 0 is for row 4.
    """
    store = make_store(
        tmp_path / "store", make_series(), start="2025-10-25T20:00", time_zone="Europe/Berlin"
    )
    return make_source(store, (0,))


UTC_TIMES = np.datetime64("2025-10-26T00:00:00") + np.arange(SPEC.horizon).astype("m8[h]")


def test_csv_times_of_a_zone_are_unambiguous(tmp_path: Path) -> None:
    """Two o'clock is told from two o'clock, and reads back as the moments that were forecast."""
    path = tmp_path / "forecast.csv"
    write(zoned(tmp_path), path, range(1), forecaster=Constant(1.0))

    table = pd.read_csv(path)

    assert table["timestamp"].unique().tolist() == [
        "2025-10-26T02:00:00+02:00",
        "2025-10-26T02:00:00+01:00",
        "2025-10-26T03:00:00+01:00",
    ]
    assert table["origin"].unique().tolist() == ["2025-10-26T01:00:00+02:00"]
    found = pd.to_datetime(table["timestamp"], utc=True).unique()
    assert list(found) == list(pd.DatetimeIndex(UTC_TIMES, tz="UTC"))


def test_parquet_times_of_a_zone_know_it(tmp_path: Path) -> None:
    """The column has the zone, and no moment is there twice."""
    path = tmp_path / "forecast.parquet"
    write(zoned(tmp_path), path, range(1), forecaster=Constant(1.0))

    table = pd.read_parquet(path)

    for name in ("timestamp", "origin"):
        assert str(table[name].dt.tz) == "Europe/Berlin"
    found = table["timestamp"].drop_duplicates().dt.tz_convert("UTC")
    assert list(found) == list(pd.DatetimeIndex(UTC_TIMES, tz="UTC"))
    assert table["origin"].iloc[0].isoformat() == "2025-10-26T01:00:00+02:00"


def test_npz_times_of_a_zone_are_utc(tmp_path: Path) -> None:
    """The zone's name stands beside them."""
    path = tmp_path / "forecast.npz"
    write(zoned(tmp_path), path, range(2), forecaster=Constant(1.0))

    with np.load(path, allow_pickle=False) as arrays:
        assert str(arrays["time_zone"]) == "Europe/Berlin"
        np.testing.assert_array_equal(arrays["timestamps"][0], UTC_TIMES)
        assert arrays["origins"][1] == UTC_TIMES[0]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_two_forecasts_to_one_file_do_not_mix(tmp_path: Path, suffix: str) -> None:
    """Each writes a file of its own; the later one stays, whole."""
    source = make_source(make_store(tmp_path / "store", make_series()))
    out = tmp_path / "out"
    out.mkdir()
    shared, alone = out / f"forecast{suffix}", tmp_path / f"alone{suffix}"

    class Meddling(Constant):
        """Lets another forecast of the same file happen in between."""

        def forward(self, batch: object, *, step: int | None = None) -> torch.Tensor:
            """The constant."""
            write(source, shared, range(54, 60), forecaster=Constant(1.0))
            return super().forward(batch, step=step)

    write(source, shared, forecaster=Meddling(2.0))
    write(source, alone, forecaster=Constant(2.0))

    assert [path.name for path in out.iterdir()] == [shared.name]
    if suffix == ".npz":
        with np.load(shared) as found, np.load(alone) as expected:
            for name in expected:
                np.testing.assert_array_equal(found[name], expected[name])
    else:
        assert shared.read_bytes() == alone.read_bytes()
