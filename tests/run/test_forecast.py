"""Forecasts as tables: of splits, times and newer readings, and the same in files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pgti
from pgti import ConfigError, IngestOptions, SensorGraph, SeriesStore
from pgti.forecasting import prediction
from pgti.run import Run, train_run

from .small_runs import make_config, make_series, make_store

COLUMNS = [
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


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("forecast")


@pytest.fixture(scope="module")
def run(directory: Path) -> Run:
    """A trained run of hourly readings of the sensors a, b and c."""
    store = make_store(directory / "store", make_series())
    return train_run(make_config(store, epochs=1), directory / "run")[0]


def newer_frame(num_steps: int = 5, columns: tuple[str, ...] = ("a", "b", "c")) -> pd.DataFrame:
    """Readings after the end of the run's series."""
    index = pd.date_range("2025-10-06T08:00", periods=num_steps, freq="h")
    values = 50 + np.random.default_rng(7).normal(size=(num_steps, len(columns)))
    return pd.DataFrame(values.astype(np.float32), index=index, columns=list(columns))


def test_the_future_follows_the_series(run: Run) -> None:
    frame = run.forecast()
    assert list(frame.columns) == COLUMNS
    assert len(frame) == 2 * 3
    last = pd.Timestamp("2025-10-04T07:00")
    assert set(frame["origin"]) == {last}
    assert list(frame["timestamp"].unique()) == [last + pd.Timedelta(hours=h) for h in (1, 2)]
    assert list(frame["horizon"]) == [1, 1, 1, 2, 2, 2]
    assert list(frame["sensor"]) == ["a", "b", "c"] * 2
    assert set(frame["channel"]) == {"c0"}
    assert frame["observed"].isna().all()
    assert np.isfinite(frame["forecast"]).all()


def test_a_split_has_what_was_observed(run: Run) -> None:
    frame = run.forecast(split="test")
    assert len(frame) == len(run.splits.test) * 2 * 3
    error = (frame["forecast"] - frame["observed"]).abs().mean()
    assert error == pytest.approx(run.evaluate("test").mae, rel=1e-6)


def test_two_times_choose_the_windows_between_them(run: Run) -> None:
    first, last = pd.Timestamp("2025-10-04T00:00"), "2025-10-04T08:00"
    frame = run.forecast(between=(first, last))
    firsts = frame[frame["horizon"] == 1]["timestamp"].unique()
    assert list(firsts) == list(pd.date_range(first, last, freq="h"))
    # Of the last two windows, the end of the horizon lies beyond the series.
    assert frame["observed"].isna().sum() == 2 * 2 * 3


@pytest.mark.parametrize("form", ["frame", "csv", "parquet", "store", "store path", "array"])
def test_newer_readings_come_in_every_form(run: Run, tmp_path: Path, form: str) -> None:
    frame = newer_frame()
    options = None
    readings: object = frame
    if form == "csv":
        readings = tmp_path / "newer.csv"
        frame.rename_axis("time").to_csv(readings)
    elif form == "parquet":
        readings = str(tmp_path / "newer.parquet")
        frame.to_parquet(readings)
    elif form in ("store", "store path"):
        pgti.ingest(frame, tmp_path / "s", IngestOptions(channels=("c0",)), graph=run.store.graph)
        readings = SeriesStore.open(tmp_path / "s") if form == "store" else tmp_path / "s"
    elif form == "array":
        readings = frame.to_numpy()
        options = IngestOptions(start="2025-10-06T08:00")
    found = run.forecast(readings, options=options)  # type: ignore[arg-type]
    expected = run.forecast(frame)
    pd.testing.assert_frame_equal(found, expected)
    assert expected["origin"].iloc[0] == frame.index[-1]


def test_files_hold_the_same(run: Run, tmp_path: Path) -> None:
    assert run.predict(tmp_path / "f.parquet", split="val").windows == len(run.splits.val)
    found = pd.read_parquet(tmp_path / "f.parquet")
    expected = run.forecast(split="val")
    # Parquet has no times in whole seconds.
    times = dict.fromkeys(("timestamp", "origin"), "datetime64[s]")
    pd.testing.assert_frame_equal(found.astype(times), expected)
    run.predict(tmp_path / "f.csv", newer_frame())
    assert list(pd.read_csv(tmp_path / "f.csv").columns) == COLUMNS


def test_times_of_a_zone_are_unambiguous(tmp_path: Path) -> None:
    """Through the hour that Rome's clocks show twice."""
    index = pd.date_range("2025-10-24", periods=60, freq="h", tz="Europe/Rome")
    values = 50 + np.random.default_rng(1).normal(size=(60, 3))
    frame = pd.DataFrame(values, index=index, columns=["a", "b", "c"])
    road = SensorGraph.from_edges(3, np.array([0, 1]), np.array([1, 2]))
    pgti.ingest(frame, tmp_path / "store", graph=road)
    store = SeriesStore.open(tmp_path / "store")
    run = train_run(make_config(store, epochs=1), tmp_path / "run")[0]
    frame = run.forecast(split="test")
    again = run.forecast(between=(frame["timestamp"].iloc[0], frame["timestamp"].iloc[-1]))
    assert again["origin"].iloc[0] == frame["origin"].iloc[0]
    times = frame["timestamp"]
    assert str(times.dtype) == "datetime64[s, Europe/Rome]"
    assert set(times.dt.tz_convert("UTC")) <= set(index.tz_convert("UTC"))


def test_columns_as_neuralforecast_names_them(run: Run) -> None:
    ours, theirs = run.forecast(split="val"), run.forecast(split="val", names="neuralforecast")
    assert list(theirs.columns) == ["unique_id", "ds", "cutoff", "dcrnn", "y"]
    np.testing.assert_array_equal(theirs["dcrnn"], ours["forecast"])
    assert set(theirs["unique_id"]) == {"a", "b", "c"}


def test_what_cannot_be_forecast_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="either a split or the windows between two times"):
        run.forecast(split="val", between=("2025-10-04", "2025-10-05"))
    with pytest.raises(ConfigError, match="newer readings have no splits: leave split out"):
        run.forecast(newer_frame(), split="val")
    with pytest.raises(ConfigError, match="too few to forecast from: the model needs the last 3"):
        run.forecast(newer_frame(2))
    with pytest.raises(ConfigError, match="names is 'darts': it must be one of pgti, neuralfor"):
        run.forecast(names="darts")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the readings are a store: leave them out"):
        run.forecast(run.store, options=IngestOptions(missing=(0.0,)))
    monkeypatch.setattr(prediction, "available_bytes", lambda: 1000)
    with pytest.raises(ConfigError, match=r"make a table of .* write them to a file with Run.pred"):
        run.forecast(split="train")
    assert run.predict(tmp_path / "f.csv", split="train").windows


def test_a_service_reads_each_line_once(
    directory: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that forecasts again and again; the table has every line, and so has a log."""
    fresh = Run.open(run.directory.path)
    newer = newer_frame(columns=("c", "b", "a"))
    frames = [fresh.forecast(newer) for _ in range(3)]
    fresh.predict(directory / "service.csv", newer)
    (line,) = frames[0].attrs["notes"]
    assert "in another order (c, b, a)" in line
    assert all(frame.attrs["notes"] == [line] for frame in frames)
    assert capsys.readouterr().err == f"pgti: {line}\n"
    fresh.forecast(newer_frame(columns=("a", "b")))
    assert "lacks the sensor c" in capsys.readouterr().err
    lines: list[str] = []
    for _ in range(2):
        fresh.forecast(newer, log=lines.append)
    assert lines == [line, line]
    Run.open(run.directory.path).forecast(newer)
    assert line in capsys.readouterr().err
    assert fresh.forecast().attrs["notes"] == []


def test_forecasts_without_times_say_so(tmp_path: Path) -> None:
    """Rows without times are not called irregular."""
    store = pgti.ingest(make_series()[..., 0], tmp_path / "store")
    windows = {"input_steps": 3, "horizon": 2}
    run = pgti.train(
        store, tmp_path / "run", model="gru", windows=windows, epochs=1, progress=False
    )
    lines: list[str] = []
    frame = run.forecast(log=lines.append)
    assert lines == [
        "the readings have no times: forecasts have the numbers of their rows in place of times"
    ]
    assert frame["timestamp"].unique().tolist() == [80, 81]


def test_the_last_reading_of_a_series_that_ends_in_empty_rows(tmp_path: Path) -> None:
    """Of the run's own series as of newer readings; the window may be older than it."""
    values = make_series()[..., 0].copy()
    values[-4:] = np.nan
    index = pd.date_range("2025-10-01", periods=80, freq="h")
    frame = pd.DataFrame(values, index, columns=list("abc"))
    store = pgti.ingest(frame, tmp_path / "store")
    windows = {"input_steps": 3, "horizon": 2}
    run = pgti.train(
        store, tmp_path / "run", model="gru", windows=windows, epochs=1, progress=False
    )
    for readings in (None, frame[-10:]):
        summary = run.predict(tmp_path / "f.csv", readings)
        assert summary.origin == "2025-10-04T07:00:00"
        assert summary.last_reading == "2025-10-04T03:00:00"
    between = ("2025-10-02T00:00", "2025-10-02T05:00")
    summary = run.predict(tmp_path / "f.csv", between=between)
    assert summary.origin == summary.last_reading == "2025-10-02T04:00:00"
