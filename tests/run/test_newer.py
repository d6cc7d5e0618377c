"""Forecasts from newer readings: what they mean is what it meant in training."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import pgti
from pgti import ConfigError, DataError, SensorGraph
from pgti.errors import name_flags
from pgti.run import Run

from .small_runs import make_series

IDS = ("a", "b", "c")
ROAD = SensorGraph.from_edges(3, np.array([0, 1]), np.array([1, 2]))
TINY = {"epochs": 1, "batch_size": 16, "seed": 3, "progress": False}
WINDOWS = {"input_steps": 3, "horizon": 2}


def frame_of(start: str, num_steps: int, zone: str | None = None, seed: int = 0) -> pd.DataFrame:
    """Hourly readings around 50 of a, b and c."""
    index = pd.date_range(start, periods=num_steps, freq="h", tz=zone)
    values = make_series(num_steps=num_steps, seed=seed)[..., 0] + np.arange(3, dtype=np.float32)
    return pd.DataFrame(values.round(1), index=index, columns=list(IDS))


def train(source: Any, path: Path, model: str = "stid", **options: Any) -> Run:
    pgti.ingest(source, path / "store", graph=ROAD, **options)
    return pgti.train(path / "store", path / "run", model=model, windows=WINDOWS, **TINY)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Of wall-clock times."""
    return train(frame_of("2025-10-01", 80), tmp_path_factory.mktemp("newer"))


def test_axes_and_columns_of_newer_readings_are_those_of_training(tmp_path: Path) -> None:
    """An array with the sensors first, and a frame of the same readings, give one forecast."""
    names = {"interval": "1h", "start": "2025-10-01", "node_ids": IDS}
    np.save(tmp_path / "old.npy", frame_of("2025-10-01", 80).to_numpy().T)
    np.save(tmp_path / "new.npy", NEWER.to_numpy().T)
    run = train(tmp_path / "old.npy", tmp_path, axes=("sensor", "time"), **names)
    found, lines = forecast(run, tmp_path / "new.npy", options={"start": "2025-10-06T08:00"})
    assert "read as in training: axes sensor,time" in lines[0]
    expected, _ = forecast(run, NEWER, options={"axes": ()})
    pd.testing.assert_frame_equal(found, expected)


@pytest.fixture(scope="module")
def berlin(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Of the clock of Berlin, in a CSV file of wall-clock times."""
    path = tmp_path_factory.mktemp("berlin")
    frame_of("2025-10-01", 80).to_csv(path / "train.csv")
    return train(path / "train.csv", path, time_zone="Europe/Berlin")


def forecast(run: Run, readings: Any, **options: Any) -> tuple[pd.DataFrame, list[str]]:
    """The forecasts, and the lines of the log."""
    lines: list[str] = []
    return run.forecast(readings, log=lines.append, **options), lines


def assert_same(run: Run, found: pd.DataFrame, newer: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found, forecast(run, newer)[0])


NEWER = frame_of("2025-10-06T08:00", 5, seed=7)


# -- sensors ---------------------------------------------------------------------------------------


def test_sensors_in_another_order_are_put_right(run: Run) -> None:
    found, lines = forecast(run, NEWER[["c", "a", "b"]])
    assert_same(run, found, NEWER)
    assert lines == [
        "the DataFrame has its sensors in another order (c, a, b): they were put in that of the run"
    ]


def test_an_absent_sensor_is_missing_and_an_extra_one_is_left_out(run: Run) -> None:
    found, lines = forecast(run, NEWER[["a", "c"]].assign(d=np.inf))
    assert_same(run, found, NEWER.assign(b=np.nan))
    assert lines == [
        "the DataFrame lacks the sensor b: all readings of it are missing",
        "the DataFrame has the sensor d, which the run does not know: left out",
    ]
    assert set(found[found["sensor"] == "b"]["missing_inputs"]) == {3}


def test_columns_without_names_are_taken_in_order(run: Run) -> None:
    unnamed = pd.DataFrame(NEWER.to_numpy(), index=NEWER.index)
    assert_same(run, forecast(run, unnamed)[0], NEWER)
    with pytest.raises(DataError, match="has 2 sensors without ids and the run has 3: give as"):
        run.forecast(unnamed[[0, 1]])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["x", "y", "z"], r"has none of the run's sensors: it has x, y, z, and they are called a,"),
        (["a", "b", "a"], r"'a' (occurs )?twice"),
    ],
)
def test_other_sensors_are_refused(run: Run, columns: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        run.forecast(NEWER.set_axis(columns, axis=1))


def test_an_id_that_is_written_otherwise_is_said(tmp_path: Path) -> None:
    ids = ["001", "002", "003"]
    run = train(frame_of("2025-10-01", 80).set_axis(ids, axis=1), tmp_path)
    _, lines = forecast(run, NEWER.set_axis(["001", "002", "3"], axis=1))
    assert "(it has '3', and the run's sensor is called '003')" in lines[0]


# -- channels --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Of the arrays flow and speed_x10 of an archive; the second is the channel speed."""
    path = tmp_path_factory.mktemp("traffic")
    save_archive(path / "train.npz", 80)
    return train(
        path / "train.npz",
        path,
        values=("flow", "speed_x10"),
        channels=("flow", "speed"),
        scale=(1.0, 0.1),
        start="2025-10-01",
        interval="1h",
    )


def save_archive(path: Path, num_steps: int, seed: int = 0, **more: Any) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    arrays: dict[str, Any] = {
        "speed_x10": random.integers(400, 700, (num_steps, 3), dtype=np.int16),
        "flow": random.integers(100, 600, (num_steps, 3), dtype=np.int16),
        "ids": np.array(IDS),
        **more,
    }
    np.savez(path, allow_pickle=False, **arrays)
    return arrays


def test_channels_are_matched_by_name(traffic: Run, tmp_path: Path) -> None:
    arrays = save_archive(tmp_path / "new.npz", 5, seed=2)
    start = {"start": "2025-10-06"}
    expected, lines = forecast(traffic, tmp_path / "new.npz", options=start)
    assert lines == [
        "new.npz is read as in training: values flow,speed_x10, scale 1,0.1",
    ]
    for values in (("speed_x10", "flow"), ("flow", "speed_x10")):
        found, _ = forecast(traffic, tmp_path / "new.npz", options={**start, "values": values})
        pd.testing.assert_frame_equal(found, expected)
    # The same readings in their own units, by the names of the run, in another order.
    both = {"speed": arrays["speed_x10"] / 10, "flow": arrays["flow"]}
    columns = pd.MultiIndex.from_product([IDS, ["speed", "flow"]], names=["sensor", "channel"])
    index = pd.date_range("2025-10-06", periods=5, freq="h")
    values = np.stack([both["speed"], both["flow"]], axis=2).reshape(5, 6)
    frame = pd.DataFrame(values, index=index, columns=columns)
    found, _ = forecast(traffic, frame, options={"scale": (1.0,)})
    pd.testing.assert_frame_equal(found, expected)


def test_channels_of_datasets_are_matched_by_name(traffic: Run, tmp_path: Path) -> None:
    """An HDF5 file with the same names, and a store of the same readings in another order."""
    h5py = pytest.importorskip("h5py", reason="the extra hdf5 is not installed")
    arrays = save_archive(tmp_path / "new.npz", 5, seed=2)
    start = {"start": "2025-10-06"}
    expected, _ = forecast(traffic, tmp_path / "new.npz", options=start)
    with h5py.File(tmp_path / "new.h5", "w") as file:
        for name, values in arrays.items():
            file[name] = values.tolist() if name == "ids" else values
    found, lines = forecast(traffic, tmp_path / "new.h5", options=start)
    assert lines == ["new.h5 is read as in training: values flow,speed_x10, scale 1,0.1"]
    pd.testing.assert_frame_equal(found, expected)
    store = pgti.ingest(
        tmp_path / "new.npz",
        tmp_path / "new-store",
        values=("speed_x10", "flow"),
        channels=("speed", "flow"),
        scale=(0.1, 1.0),
        interval="1h",
        **start,
    )
    pd.testing.assert_frame_equal(forecast(traffic, store)[0], expected)


def test_channels_that_cannot_be_told_are_refused(traffic: Run, tmp_path: Path) -> None:
    save_archive(tmp_path / "new.npz", 5, occupancy=np.zeros((5, 3)))
    for values, message in (
        (
            ("flow",),
            r"has the channel flow and the run needs flow, speed_x10 \(speed\): speed is m",
        ),
        (("flow", "occupancy"), "speed is missing; name the channels of the source with channels"),
    ):
        options = {"start": "2025-10-06", "values": values}
        with pytest.raises(DataError, match=message):
            traffic.forecast(tmp_path / "new.npz", options=options)
    with pytest.raises(DataError, match=r"has 2 channels without names and the run has flow, spee"):
        traffic.forecast(np.ones((5, 3, 2)), options={"start": "2025-10-06"})
    options = {"start": "2025-10-06", "values": ("flow", "speed_x10", "occupancy")}
    _, lines = forecast(traffic, tmp_path / "new.npz", options=options)
    assert "new.npz has the channel occupancy, which the run does not use: left out" in lines


def test_unnamed_channels_are_those_of_an_unnamed_source(tmp_path: Path) -> None:
    values = make_series(2)
    run = train(values, tmp_path, start="2025-10-01", interval="1h")
    newer = make_series(2, num_steps=5, seed=3)
    found, _ = forecast(run, newer, options={"start": "2025-10-06"})
    assert list(found["channel"].unique()) == ["channel0", "channel1"]
    with pytest.raises(DataError, match="has 3 channels without names and the run has channel0"):
        run.forecast(make_series(3, num_steps=5), options={"start": "2025-10-06"})


# -- missing codes, scales, units ------------------------------------------------------------------


def test_a_missing_code_is_remembered(tmp_path: Path) -> None:
    frame = frame_of("2025-10-01", 80)
    frame.iloc[::7, 1] = 0.0
    run = train(frame, tmp_path, missing=(0.0,))
    newer = NEWER.copy()
    newer.iloc[-1, :2] = 0.0
    found, lines = forecast(run, newer)
    assert_same(run, found, newer.replace(0.0, np.nan))
    assert lines == ["the DataFrame is read as in training: missing 0"]
    newer.iloc[-3:, :2] = 0.0
    _, lines = forecast(run, newer, options={"missing": ()})
    assert "6 of 9 readings of value are 0, outside those of training" in lines[0]
    assert "pass options={'missing': (0,)}" in lines[0]
    newer.iloc[-3:, :2] = -1.0
    _, lines = forecast(run, newer)
    assert "pass options={'missing': (0, -1)}" in lines[1]
    again, _ = forecast(run, newer, options={"missing": (0, -1)})
    assert_same(run, again, newer.replace(-1.0, np.nan))
    with name_flags():
        _, lines = forecast(run, newer + 0.0)
    assert "pass --missing 0,-1" in lines[-1]
    store = pgti.ingest(newer, tmp_path / "newer", graph=ROAD)
    _, lines = forecast(run, store)
    assert "ingest the store again with missing=(-1,)" in lines[-1]


@pytest.mark.parametrize("value", [9999.0, -999.0, 999.5])
def test_one_absurd_reading_is_said(run: Run, value: float) -> None:
    newer = NEWER.copy()
    newer.iloc[-2, 1] = value
    _, lines = forecast(run, newer)
    assert len(lines) == 1
    assert f"value of sensor b is {value:g}, far outside those of training (" in lines[0]
    assert (f"pass options={{'missing': ({value:.0f},)}}" in lines[0]) == value.is_integer()
    newer.iloc[-3:, 0] = newer.iloc[-1, 2] = -1.0
    _, lines = forecast(run, newer)
    assert "4 of 9 readings of value are -1, outside those of training (" in lines[0]
    assert f"; value of sensor b is {value:g}" in lines[0]


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda x: x * 10, "about 10 times what is usual at their times"),
        (lambda x: x / 10, "about 1/10 of what is usual at their times"),
        (lambda x: 1.8 * x + 32, "100% of the readings of value lie far outside those of training"),
    ],
)
def test_readings_in_another_unit_are_said(run: Run, convert: Any, message: str) -> None:
    _, lines = forecast(run, convert(NEWER))
    assert len(lines) == 1
    assert message in lines[0]


# -- times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["naive", "offset", "utc", "other zone", "epoch", "csv offset"])
def test_times_are_those_of_the_clock_of_the_run(berlin: Run, tmp_path: Path, form: str) -> None:
    """Across the hour that the clocks show twice on October 26."""
    true = frame_of("2025-10-26T00:00", 6, "Europe/Berlin", seed=7)
    expected, lines = forecast(berlin, true)
    assert lines == []
    readings: Any = true
    if form == "naive":
        readings = true.tz_localize(None)
    elif form == "offset":
        readings = true.tz_convert("Etc/GMT-5")
    elif form == "utc":
        readings = tmp_path / "new.parquet"
        true.tz_convert("UTC").to_parquet(readings)
    elif form == "other zone":
        readings = true.tz_convert("America/Los_Angeles")
    elif form == "epoch":
        readings = tmp_path / "new.csv"
        true.set_axis(true.index.as_unit("s").asi8).rename_axis("time").to_csv(readings)
    else:
        readings = tmp_path / "new.csv"
        true.to_csv(readings, date_format="%Y-%m-%dT%H:%M:%S%z")
    found, lines = forecast(berlin, readings)
    pd.testing.assert_frame_equal(found, expected)
    assert lines == (
        ["the DataFrame is read as in training: time zone Europe/Berlin"] if form == "naive" else []
    )
    assert str(found["origin"].iloc[0]) == "2025-10-26 04:00:00+01:00"


def test_a_clock_that_the_user_names_comes_first(berlin: Run) -> None:
    tokyo = frame_of("2025-11-03T08:00", 5, "Asia/Tokyo", seed=7)
    found, _ = forecast(berlin, tokyo.tz_localize(None), options={"time_zone": "Asia/Tokyo"})
    assert_same(berlin, found, tokyo)


def test_a_run_without_a_zone_refuses_times_with_an_offset(run: Run) -> None:
    aware = frame_of("2025-10-06T08:00", 5, "UTC", seed=7)
    with pytest.raises(
        DataError, match=r"times with an offset .*name the zone of its clock with ti"
    ):
        run.forecast(aware)
    options = {"time_zone": "Europe/Berlin"}
    found, _ = forecast(run, aware, options=options)
    assert_same(run, found, aware.tz_convert("Europe/Berlin").tz_localize(None))


def test_a_store_of_another_zone_has_the_same_instants(berlin: Run, tmp_path: Path) -> None:
    true = frame_of("2025-11-03T00:00", 6, "Asia/Kolkata", seed=7)
    pgti.ingest(true.tz_convert("UTC"), tmp_path / "utc")
    assert_same(berlin, forecast(berlin, tmp_path / "utc")[0], true)
    naive = frame_of("2025-11-03T00:00", 6, seed=7)
    pgti.ingest(naive, tmp_path / "naive")
    assert_same(berlin, forecast(berlin, tmp_path / "naive")[0], naive)


def test_a_lost_row_is_filled(run: Run) -> None:
    found, lines = forecast(run, NEWER.drop(NEWER.index[3]))
    expected = NEWER.copy()
    expected.iloc[3] = np.nan
    assert_same(run, found, expected)
    assert lines == [
        "the DataFrame lacks 1 row between others: it was filled with missing readings"
    ]
    with pytest.raises(DataError, match="the source lacks 1 row between them"):
        run.forecast(NEWER.drop(NEWER.index[3]), options={"gaps": "error"})


def test_empty_newest_rows_are_said(run: Run) -> None:
    newer = NEWER.copy()
    newer.iloc[-2:] = np.nan
    found, lines = forecast(run, newer)
    assert lines == [
        "the newest 2 rows have no reading in the DataFrame: forecasts begin after the last row "
        "(2025-10-06 12:00:00)"
    ]
    assert set(found["origin"]) == {NEWER.index[-1]}


def test_rows_between_those_of_the_run_are_said(run: Run) -> None:
    shifted = NEWER.set_axis(NEWER.index + pd.Timedelta(minutes=7))
    found, lines = forecast(run, shifted)
    assert set(found["origin"]) == {shifted.index[-1]}
    assert lines == [
        "the rows of the DataFrame are 7min after those of the run: forecasts have the times of "
        "the newer rows"
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.iloc[::-1], "have the times .*: sort the rows by time"),
        (
            lambda x: pd.concat([x, x.iloc[-1:]]),
            "have the same time 2025-10-06T12:00:00: each time",
        ),
        (
            lambda x: x.resample("30min").ffill(),
            "are 30min apart and those of the run 1h: they mus",
        ),
        (
            lambda x: x * np.nan,
            "every reading of the DataFrame is missing: there is nothing to fore",
        ),
        (lambda x: x.reset_index(drop=True), "has no times and the run has them: add start"),
        (lambda x: x.iloc[-2:], "too few to forecast from: the model needs the last 3"),
    ],
)
def test_readings_that_break_a_rule_are_refused(run: Run, change: Any, message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        run.forecast(change(NEWER))


def test_options_of_a_store_are_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match="options of ingest say how newer readings are read"):
        run.forecast(options={"missing": (0.0,)})


def test_newest_rows_of_the_hour_that_is_there_twice(tmp_path: Path) -> None:
    """Rows after it tell which of the two they are of; where nothing does, it is said."""
    index = pd.date_range("2024-10-26T20:00", periods=100, freq="5min", tz="Europe/Berlin")
    values = make_series(num_steps=100, seed=0)[..., 0]
    frame = pd.DataFrame(values, index=index, columns=list(IDS))
    fall_back = int(index.get_indexer([pd.Timestamp("2024-10-27T00:00", tz="UTC")])[0])
    run = train(frame[:fall_back], tmp_path)
    clock = frame.tz_localize(None)
    second = slice(fall_back + 20, fall_back + 26)
    found, lines = forecast(run, clock[second])
    assert len(lines) == 1
    assert "time zone Europe/Berlin" in lines[0]
    assert_same(run, found, frame[second])
    first = slice(fall_back + 2, fall_back + 8)
    found, lines = forecast(run, clock[first])
    assert "show the times of the DataFrame twice: they are taken for the earlier" in lines[-1]
    assert_same(run, found, frame[first])


def test_readings_that_are_scaled_already(tmp_path: Path) -> None:
    """The line says how to take them as they are; doing so gives the right forecasts."""
    raw = (frame_of("2025-10-01", 80) * 10).round()
    run = train(raw, tmp_path, scale=0.1)
    newer = (frame_of("2025-10-06T08:00", 5, seed=7) * 10).round()
    found, lines = forecast(run, newer)
    assert lines == ["the DataFrame is read as in training: scale 0.1"]
    _, lines = forecast(run, newer / 10)
    assert "scale=1 if they are in that of training already" in lines[-1]
    again, lines = forecast(run, newer / 10, options={"scale": 1})
    assert lines == []
    np.testing.assert_allclose(again["forecast"], found["forecast"], rtol=1e-6)


def test_several_newer_files_are_one_series(run: Run, tmp_path: Path) -> None:
    """Lists, patterns and directories, for forecasts and for errors."""
    newer = frame_of("2025-10-06T08:00", 12, seed=7)
    (tmp_path / "new").mkdir()
    newer[:7].to_csv(tmp_path / "new" / "b.csv")
    newer[7:].to_csv(tmp_path / "new" / "a.csv")
    expected = forecast(run, newer)[0]
    several: Any
    for several in (
        [tmp_path / "new" / "a.csv", tmp_path / "new" / "b.csv"],
        str(tmp_path / "new" / "*.csv"),
        tmp_path / "new",
        [newer[:7], newer[7:]],
    ):
        found, lines = forecast(run, several)
        pd.testing.assert_frame_equal(found, expected)
        assert any("joined by their times" in line for line in lines)
        report = run.evaluate(several)
        assert report.to_dict() == run.evaluate(newer).to_dict()


def test_a_start_that_contradicts_the_times_is_refused(run: Run) -> None:
    with pytest.raises(DataError, match=r"and start is 2025-01-01T00:00:00: leave start"):
        run.forecast(NEWER, options={"start": "2025-01-01"})
