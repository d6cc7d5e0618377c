"""Channels known in advance, values after the last reading, and features of sensors: ingest."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pgti.errors import ConfigError, DataError
from pgti.ingestion import append, ingest
from pgti.ingestion.later_rows import WaitingRows
from pgti.store import SeriesStore

STEPS, LATER = 40, 5
START = "2025-03-01T00:00"


def values(steps: int = STEPS + LATER, nodes: int = 3) -> np.ndarray:
    """Flow and rain; rain alone in the last rows."""
    random = np.random.default_rng(2)
    readings = random.integers(0, 900, (steps, nodes, 2)) / 10
    readings[STEPS:, :, 0] = np.nan
    if steps > STEPS:
        readings[STEPS + 1, 1, 1] = np.nan
    return readings


def long_table(readings: np.ndarray, path: Path, freq: str = "h") -> Path:
    times = pd.date_range(START, periods=len(readings), freq=freq)
    frame = pd.DataFrame(
        {
            "time": np.repeat(times, readings.shape[1]),
            "sensor": [f"s{i}" for i in range(readings.shape[1])] * len(readings),
            "flow": readings[..., 0].ravel(),
            "rain": readings[..., 1].ravel(),
        }
    )
    frame.to_csv(path, index=False)
    return path


def check(store: SeriesStore, readings: np.ndarray) -> None:
    assert store.meta.num_steps == STEPS
    np.testing.assert_array_equal(store.read(0, STEPS), readings[:STEPS].astype("f4"))
    np.testing.assert_array_equal(store.future, readings[STEPS:, :, 1:].astype("f4"))
    assert store.meta.known_future == ("rain",)


def test_rows_after_the_last_reading_are_known_in_advance(tmp_path: Path) -> None:
    path = long_table(values(), tmp_path / "r.csv")
    store = ingest(path, tmp_path / "s", known_future=("rain",))
    check(store, values())
    assert (
        "r.csv has 5 rows of rain after the last reading (to 2025-03-02 20:00:00): they are known "
        "in advance" in store.notes
    )
    plain = ingest(path, tmp_path / "plain")
    assert plain.meta.num_steps == STEPS + LATER
    assert plain.meta.format_version == 2


@pytest.mark.parametrize("budget_bytes", [1, 200, 1 << 20])
def test_an_outage_in_between_is_part_of_the_series(tmp_path: Path, budget_bytes: int) -> None:
    """Whatever the size of the chunks; rows that wait may lie on the disk."""
    readings = values()
    readings[7:21, :, 0] = np.nan
    readings[9, :, 1] = np.nan
    np.save(tmp_path / "r.npy", readings)
    options = {"channels": ("flow", "rain"), "start": START, "interval": "1h"}
    store = ingest(
        tmp_path / "r.npy",
        tmp_path / "s",
        known_future=("rain",),
        budget_bytes=budget_bytes,
        **options,  # type: ignore[arg-type]
    )
    check(store, readings)
    plain = ingest(readings[:STEPS], tmp_path / "t", **options)  # type: ignore[arg-type]
    names = ("series.npy", "moments.npy", "digests.npy")
    for name in names:
        assert (tmp_path / "s" / name).read_bytes() == (tmp_path / "t" / name).read_bytes()
    assert plain.meta.parts["series.npy"] == store.meta.parts["series.npy"]
    assert not list(tmp_path.glob("pgti-*"))


def test_many_rows_that_wait_are_mapped(tmp_path: Path) -> None:
    readings = np.concatenate([values(STEPS), np.full((3000, 3, 2), np.nan)])
    readings[STEPS:-7, :, 1] = np.arange(3000 - 7)[:, None]
    store = ingest(
        readings, tmp_path / "s", channels=("flow", "rain"), known_future=("rain",), budget_bytes=99
    )
    assert store.meta.num_steps == STEPS
    np.testing.assert_array_equal(store.future[:, 1, 0], np.arange(3000 - 7))


def test_rows_that_wait_come_back() -> None:
    random = np.random.default_rng(0)
    waiting = WaitingRows((3, 2), np.dtype(np.float64), 128)
    rows = random.random((40, 3, 2))
    for piece in np.split(rows, [3, 4, 30]):
        waiting.add(piece)
    np.testing.assert_array_equal(np.concatenate(list(waiting.pieces())), rows)


def test_missing_rows_and_irregular_times(tmp_path: Path) -> None:
    """Future rows lie at the times that follow; those between are missing."""
    readings = values()
    kept = np.r_[0:STEPS, STEPS + 1, STEPS + 4]
    times = pd.date_range(START, periods=STEPS + LATER, freq="h")[kept]
    columns = {"time": times, "sensor": "a"}
    columns |= {"flow": readings[kept, 0, 0], "rain": readings[kept, 0, 1]}
    frame = pd.DataFrame(columns)
    expected = readings[STEPS:, :1, 1:].astype("f4")
    expected[[0, 2, 3]] = np.nan
    for gaps in ("keep", "fill"):
        store = ingest(frame, tmp_path / gaps, gaps=gaps, known_future=("rain",))
        assert store.meta.num_steps == STEPS
        assert store.time_axis.seconds is None
        np.testing.assert_array_equal(store.future, expected)
    frame["time"] = [*times[:-1], times[-1] + pd.Timedelta("7min")]
    with pytest.raises(DataError, match="none of the times that follow the last reading"):
        ingest(frame, tmp_path / "x", gaps="keep", known_future=("rain",))
    assert not (tmp_path / "x").exists()


def test_rows_without_any_value_at_the_end_are_left_out_and_said(tmp_path: Path) -> None:
    readings = values()
    readings[STEPS + 3 :] = np.nan
    store = ingest(long_table(readings, tmp_path / "r.csv"), tmp_path / "s", known_future=("rain",))
    check(store, readings[: STEPS + 3])
    note = "the last 2 rows of r.csv have no value of any channel: left out"
    assert note in store.notes
    grown = append(store, long_table(readings[:-1], tmp_path / "r.csv"))
    assert any("the last 1 row of r.csv has no value" in each for each in grown.notes)


@pytest.mark.parametrize("is_apart", [False, True])
def test_digits_that_known_values_lose_are_said(tmp_path: Path, is_apart: bool) -> None:
    """In rows after the last reading, from a file of their own or not, and appended."""
    readings = values()
    readings[STEPS + 2, 1, 1] = 33_554_433
    path = long_table(readings, tmp_path / "r.csv")
    options = {"known_future": ("rain",), "overwrite": True}
    if is_apart:
        options["future"] = path
        path = long_table(readings[:STEPS], tmp_path / "past.csv")
    lost = f"1 reading has more digits.*row {STEPS + 2}, sensor 's1'.*33554433 became 33554432"
    store = ingest(path, tmp_path / "s", **options)
    assert any(re.match(lost, note) for note in store.notes)
    exact = ingest(path, tmp_path / "exact", exact=True, **options)
    assert exact.future[2, 1, 0] == 33_554_433
    assert not any("digits" in note for note in exact.notes)
    early = ingest(readings[:STEPS], tmp_path / "s", channels=("flow", "rain"), start=START,
                   interval="1h", node_ids=("s0", "s1", "s2"), known_future=("rain",),
                   overwrite=True)  # fmt: skip
    later = {"future": tmp_path / "r.csv"} if is_apart else {"source": tmp_path / "r.csv"}
    grown = append(early, **later)
    assert any(re.match(lost, note) for note in grown.notes)
    again = append(grown, future=tmp_path / "r.csv")
    assert any("has these values already: nothing was changed" in note for note in again.notes)


def test_months_and_time_zones(tmp_path: Path) -> None:
    path = long_table(values(), tmp_path / "r.csv", freq="MS")
    store = ingest(path, tmp_path / "s", known_future=("rain",))
    check(store, values())
    assert store.time_axis.isoformat(STEPS) == "2028-07-01 00:00:00"
    path = long_table(values(), tmp_path / "z.csv", freq="h")
    check(ingest(path, tmp_path / "z", known_future=("rain",), time_zone="Europe/Rome"), values())


def test_a_source_of_their_own(tmp_path: Path) -> None:
    """Its sensors are matched by id; what it has wins over what the readings have."""
    readings = values()
    path = long_table(readings, tmp_path / "r.csv")
    times = pd.date_range("2025-03-02T10:00", periods=12, freq="h")
    frame = pd.DataFrame({"time": times, "s2": np.arange(12.0), "s1": np.arange(12.0) + 100})
    frame.to_csv(tmp_path / "f.csv", index=False)
    store = ingest(path, tmp_path / "s", known_future=("rain",), future=tmp_path / "f.csv")
    expected = np.full((6, 3, 1), np.nan, dtype=np.float32)
    expected[:5] = readings[STEPS:, :, 1:]
    expected[:, 2, 0], expected[:, 1, 0] = np.arange(6, 12), np.arange(106, 112)
    np.testing.assert_array_equal(store.future, expected)
    assert any(
        "f.csv has 6 rows that are not after the last one: skipped" in n for n in store.notes
    )
    assert any("f.csv lacks the sensor s0" in note for note in store.notes)


def test_a_source_of_their_own_with_all_channels(tmp_path: Path) -> None:
    path = long_table(values()[:STEPS], tmp_path / "r.csv")
    long_table(values(), tmp_path / "f.csv")
    store = ingest(path, tmp_path / "s", known_future=("rain",), future=tmp_path / "f.csv")
    check(store, values())
    later = values()
    later[-1, 0, 0] = 7
    long_table(later, tmp_path / "f.csv")
    with pytest.raises(DataError, match=r"f.csv has readings of flow after the last row"):
        ingest(path, tmp_path / "t", known_future=("rain",), future=tmp_path / "f.csv")


def test_arrays_follow_the_last_row(tmp_path: Path) -> None:
    readings = values()
    store = ingest(
        readings[:STEPS],
        tmp_path / "s",
        channels=("flow", "rain"),
        known_future=("rain",),
        future=readings[STEPS:, :, 1],
    )
    check(store, readings)


def test_exact_stores_keep_every_digit(tmp_path: Path) -> None:
    readings = values() + 123_456_789
    store = ingest(
        readings, tmp_path / "s", channels=("flow", "rain"), known_future=("rain",), exact=True
    )
    np.testing.assert_array_equal(store.future, readings[STEPS:, :, 1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"known_future": ("snow",)}, "names the channel 'snow', and the series has flow, rain"),
        ({"known_future": ("flow", "rain")}, "names every channel"),
        ({"future": np.zeros((2, 3))}, "no channel is: name the channels with .*known_future"),
        ({"categorical": ("lanes",)}, "give their table with static"),
        (
            {"known_future": ("rain",), "future": np.full((2, 3), np.nan)},
            "no value of rain after the last row",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        ingest(values(), tmp_path / "s", channels=("flow", "rain"), **options)  # type: ignore[arg-type]
    assert not (tmp_path / "s").exists()


def test_features_of_the_sensors(tmp_path: Path) -> None:
    path = long_table(values(), tmp_path / "r.csv")
    (tmp_path / "stations.csv").write_text("id,lanes,kind\ns2,3,main\ns0,2,ramp\n")
    store = ingest(path, tmp_path / "s", static=tmp_path / "stations.csv")
    frame = store.static
    assert frame is not None
    assert frame.index.tolist() == ["s0", "s1", "s2"]
    np.testing.assert_array_equal(frame["lanes"], [2, np.nan, 3])
    assert any("stations.csv lacks 1 sensor (s1)" in note for note in store.notes)
    again = ingest(path, tmp_path / "t", static=frame.assign(lanes=[2.0, np.nan, 3]))
    assert again.fingerprint == store.fingerprint


def grown(path: Path, source: object, **options: object) -> SeriesStore:
    return append(SeriesStore.open(path), source, **options)  # type: ignore[arg-type]


def store_of(readings: np.ndarray, tmp_path: Path, name: str = "s") -> SeriesStore:
    path = long_table(readings, tmp_path / f"{name}.csv")
    return ingest(path, tmp_path / name, known_future=("rain",))


def part_of(first: int, readings: np.ndarray, path: Path, columns: tuple[str, ...] = ()) -> Path:
    """A file with the rows from `first` on."""
    long_table(readings, path)
    frame = pd.read_csv(path)
    frame = frame.iloc[first * readings.shape[1] :]
    frame[list(columns) or list(frame)].to_csv(path, index=False)
    return path


def test_an_append_moves_what_was_known(tmp_path: Path) -> None:
    """A store that grew equals one that was ingested at once, byte for byte."""
    readings = values()
    early = readings.copy()
    early[30:, :, 0] = np.nan
    store_of(early[:38], tmp_path)
    store = grown(tmp_path / "s", part_of(30, readings, tmp_path / "new.csv"))
    check(store, readings)
    whole = store_of(readings, tmp_path, "whole")
    for part in set(whole.meta.parts) | {"meta.json"}:
        name = part if part == "meta.json" else whole.meta.file_of(part)
        one, two = ((path / name).read_bytes() for path in (tmp_path / "s", tmp_path / "whole"))
        assert one == two, name


def test_new_rows_without_a_known_channel_take_what_was_known(tmp_path: Path) -> None:
    readings = values()
    early = readings.copy()
    early[30:, :, 0] = np.nan
    store_of(early, tmp_path)
    new = part_of(28, readings[:33], tmp_path / "new.csv", ("time", "sensor", "flow"))
    store = grown(tmp_path / "s", new)
    assert store.meta.num_steps == 33
    np.testing.assert_array_equal(store.read(0, 33), readings[:33].astype("f4"))
    np.testing.assert_array_equal(store.future, readings[33:, :, 1:].astype("f4"))
    assert any("9 values were known in advance, and new.csv lacks them" in n for n in store.notes)
    assert any("2 rows that the store has already" in note for note in store.notes)
    readings[33:] = np.nan
    store = grown(tmp_path / "s", part_of(33, readings[:36], tmp_path / "new.csv"))
    assert store.meta.num_steps == 33
    assert not any("are now readings" in note for note in store.notes)


def test_newer_forecasts_replace_older_ones(tmp_path: Path) -> None:
    """Those that the new ones lack stay; readings and statistics are the same."""
    readings = values()
    before = store_of(readings, tmp_path)
    newer = readings.copy()
    newer[STEPS:, :, 1] += 1
    newer[STEPS + 2, 0, 1] = np.nan
    store = grown(tmp_path / "s", part_of(38, newer[:-1], tmp_path / "new.csv"))
    expected = readings[STEPS:, :, 1:].copy()
    expected[:-1] += 1
    expected[2, 0] -= 1
    np.testing.assert_array_equal(store.future, expected.astype("f4"))
    assert store.meta.num_steps == STEPS
    assert store.fingerprint == before.fingerprint
    np.testing.assert_array_equal(before.future, readings[STEPS:, :, 1:].astype("f4"))
    again = grown(tmp_path / "s", tmp_path / "new.csv")
    assert again.meta == store.meta
    assert any("has no newer row" in note for note in again.notes)


def test_forecasts_of_their_own_alone(tmp_path: Path) -> None:
    readings = values()
    store_of(readings[:STEPS], tmp_path)
    new = part_of(36, readings, tmp_path / "f.csv", ("time", "sensor", "rain"))
    store = grown(tmp_path / "s", None, future=new)
    check(store, readings)
    plain = ingest(readings[:STEPS], tmp_path / "plain", channels=("flow", "rain"))
    with pytest.raises(ConfigError, match="has no channel that is known in advance"):
        append(plain, None, future=new)


def test_a_revised_value_of_a_past_row_is_a_correction(tmp_path: Path) -> None:
    readings = values()
    store_of(readings, tmp_path)
    newer = readings.copy()
    newer[35, 1, 1] += 1
    path = part_of(30, newer, tmp_path / "new.csv")
    with pytest.raises(DataError, match=r"channel 'rain'.*correct"):
        grown(tmp_path / "s", path)
    store = grown(tmp_path / "s", path, correct=True)
    check(store, newer)
    assert store.meta.generation == 1


def test_an_append_has_no_options_of_ingest(tmp_path: Path) -> None:
    store = store_of(values(), tmp_path)
    with pytest.raises(ConfigError, match=r"known_future is an option of pgti\.ingest"):
        append(store, values(), known_future=("rain",))
