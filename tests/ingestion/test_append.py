"""Appending newer readings: read as the store's source was, checked, and equal to one ingest."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgti.errors import ConfigError, DataError, PgtiError
from pgti.ingestion import IngestOptions, ingest
from pgti.store import SeriesStore

IDS = ["a", "b", "c"]


def readings(
    rows: int = 40, *, start: str = "2025-03-01", every: str = "5min", zone: str | None = None
) -> pd.DataFrame:
    values = np.random.default_rng(rows).integers(10, 900, (rows, 3)) / 10
    return pd.DataFrame(
        values, index=pd.date_range(start, periods=rows, freq=every, tz=zone), columns=IDS
    )


def assert_same(grown: SeriesStore, whole: SeriesStore) -> None:
    """The store is the one that one ingest of all rows makes, but for its generation."""
    assert replace(grown.meta, generation=0) == whole.meta
    rows = whole.meta.num_steps
    np.testing.assert_array_equal(grown.read(0, rows), whole.read(0, rows))
    np.testing.assert_array_equal(grown.block_moments, whole.block_moments)
    assert grown.fingerprint == whole.fingerprint
    assert grown.time_axis.describe() == whole.time_axis.describe()
    grown.verify()


def refused(store: SeriesStore, source: Any, **options: Any) -> str:
    """The message of an append that is refused and leaves nothing."""
    before = {path.name: path.read_bytes() for path in store.path.iterdir()}
    with pytest.raises(PgtiError) as caught:
        store.append(source, **options)
    assert {path.name: path.read_bytes() for path in store.path.iterdir()} == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_any_cut_equals_one_ingest(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """With missing readings, changing grids, irregular times, zones and changes of the clock."""
    rows = data.draw(st.integers(3, 60))
    generator = np.random.default_rng(data.draw(st.integers(0, 999)))
    zone = data.draw(st.sampled_from([None, "Europe/Berlin"]))
    every = data.draw(st.sampled_from(["5min", "1h", "24h"]))
    frame = readings(rows, start="2025-03-28", every=every, zone=zone)
    frame.iloc[data.draw(st.integers(0, rows)) :] *= data.draw(st.sampled_from([1, 0.5, 1 / 3]))
    frame = frame.mask(generator.random(frame.shape) < 0.2)
    frame.iloc[0, 0] = 1.0
    gaps = data.draw(st.sampled_from(["error", "fill", "keep"]))
    if gaps != "error":
        kept = generator.random(rows) < 0.8
        kept[[0, 1]] = True
        frame = frame[kept]
    path = tmp_path_factory.mktemp("stores")
    whole = ingest(frame, path / "whole", gaps=gaps)
    cuts = sorted(data.draw(st.sets(st.integers(2, len(frame)), max_size=5)) | {2})
    pieces = np.split(np.arange(len(frame)), cuts)
    store = ingest(frame.iloc[pieces[0]], path / "grown", gaps=gaps)
    for piece in pieces[1:]:
        if len(piece):
            store = store.append(frame.iloc[piece])
    assert_same(store, whole)


@pytest.mark.parametrize(
    ("every", "zone"), [("MS", None), ("B", None), ("D", "Europe/Berlin"), ("W-MON", None)]
)
def test_times_of_a_rule_continue(tmp_path: Path, every: str, zone: str | None) -> None:
    """Months, working days and days of a zone go on by their rule, without an option."""
    frame = readings(60, every=every, zone=zone)
    whole = ingest(frame, tmp_path / "whole")
    store = ingest(frame.iloc[:40], tmp_path / "grown")
    for first in range(40, 60, 7):
        store = store.append(frame.iloc[first : first + 7])
    assert_same(store, whole)


def test_a_file_is_read_as_the_source_was(tmp_path: Path) -> None:
    """Missing codes, scale, format of the times and delimiter are remembered, and it is said."""
    frame = readings() * 10
    frame.iloc[[3, 35], 1] = -1
    frame.index = frame.index.strftime("%d.%m.%Y %H:%M")
    for name, rows in (("whole", slice(None)), ("old", slice(30)), ("new", slice(30, None))):
        frame.iloc[rows].to_csv(tmp_path / f"{name}.csv", sep=";")
    how: dict[str, Any] = {"missing": (-1,), "scale": (0.1,), "time_format": "%d.%m.%Y %H:%M"}
    whole = ingest(tmp_path / "whole.csv", tmp_path / "whole", **how, delimiter=";")
    store = ingest(tmp_path / "old.csv", tmp_path / "grown", **how, delimiter=";")
    grown = store.append(tmp_path / "new.csv")
    assert_same(grown, whole)
    assert np.isnan(grown.read(35, 36)[0, 1, 0])
    assert grown.notes[0].startswith("new.csv is read as the store's source was: missing -1")
    assert store.meta.num_steps == 30  # who has it open keeps the rows that it had


def test_sensors_are_matched_by_id_and_channels_by_name(tmp_path: Path) -> None:
    """Another order is put right; absent sensors are missing; others are left out; each is said."""
    columns = pd.MultiIndex.from_product([IDS, ["flow", "speed"]], names=["sensor", "channel"])
    values = np.random.default_rng(0).integers(0, 90, (20, 6)).astype(float)
    frame = pd.DataFrame(
        values, index=pd.date_range("2025-01-01", periods=20, freq="h"), columns=columns
    )
    whole = ingest(frame, tmp_path / "whole")
    store = ingest(frame.iloc[:10], tmp_path / "s")
    shuffled = frame.iloc[10:15, ::-1]
    store = store.append(shuffled)
    assert "another order" in " ".join(store.notes)
    without = frame.iloc[15:].drop(columns="b", level=0)
    without[("z", "flow")] = 1.0
    without[("z", "speed")] = 1.0
    store = store.append(without)
    notes = " ".join(store.notes)
    assert "lacks the sensor b" in notes
    assert "has the sensor z, which the store does not know: left out" in notes
    found, wanted = store.read(0, 20), whole.read(0, 20)
    assert np.isnan(found[15:, 1]).all()
    found[15:, 1] = wanted[15:, 1]
    np.testing.assert_array_equal(found, wanted)
    renamed = frame.iloc[:1].rename(columns={"speed": "pace"})
    assert "has the channels flow, pace" in refused(store, renamed)


def test_files_that_overlap_are_appended_once(tmp_path: Path) -> None:
    """As a cron job sends them; a second time changes nothing, not even a file."""
    frame = readings()
    store = ingest(frame.iloc[:30], tmp_path / "s")
    grown = store.append(frame.iloc[20:35])
    assert "the DataFrame has 10 rows that the store has already: they were skipped" in grown.notes
    before = (tmp_path / "s" / "meta.json").stat().st_mtime_ns
    again = store.append(frame.iloc[20:35])
    assert again.notes[-1] == "the DataFrame has no newer row"
    assert (tmp_path / "s" / "meta.json").stat().st_mtime_ns == before
    assert_same(again.append(frame.iloc[20:]), ingest(frame, tmp_path / "whole"))
    # A sensor that the file lacks is not compared.
    assert again.append(frame.iloc[20:35][["a", "c"]]).meta.num_steps == 40


def test_rows_that_differ_need_correct(tmp_path: Path) -> None:
    """They are refused with the place and both readings, or corrected from there on."""
    frame = readings()
    wrong = frame.iloc[:38].copy()
    wrong.iloc[33, 1], wrong.iloc[34, 2] = 1 / 3, np.nan
    store = ingest(wrong, tmp_path / "s")
    message = refused(store, frame.iloc[30:])
    assert "row 3 of the DataFrame has" in message
    assert "for sensor 'b', channel 'value', at 2025-03-01 02:45:00, and the store has" in message
    assert "correct=True" in message
    assert "and the store has no reading: pass" in refused(store, frame.iloc[34:])
    grown = store.append(frame.iloc[30:], correct=True)
    assert "2 rows of the store were corrected" in grown.notes
    assert grown.meta.generation == 1
    assert_same(grown, ingest(frame, tmp_path / "whole"))
    assert grown.fingerprint_at(33) == store.fingerprint_at(33)
    assert grown.fingerprint_at(34) != store.fingerprint_at(34)
    # One sensor corrected: of the others the store keeps what it has.
    again = grown.append(frame[["c"]].iloc[-2:] + 1, correct=True)
    np.testing.assert_array_equal(again.read(39, 40)[0, :2], grown.read(39, 40)[0, :2])
    assert again.read(39, 40)[0, 2, 0] == np.float32(frame.iloc[-1, 2] + 1)


def test_gaps_follow_the_store(tmp_path: Path) -> None:
    """As its source was read, or as the user says now."""
    frame = readings()
    store = ingest(frame.iloc[:10], tmp_path / "s")
    message = refused(store, frame.iloc[12:])
    assert "row 0 of the DataFrame has the time 2025-03-01T01:00:00 and the row before" in message
    assert "at an interval of 5min the source lacks 2 rows" in message
    assert "gaps='fill'" in message
    grown = store.append(frame.iloc[12:20], gaps="fill")
    assert "2 rows of missing readings were inserted into gaps" in grown.notes
    assert np.isnan(grown.read(10, 12)).all()
    assert "not a whole number of intervals" in refused(grown, frame.iloc[25:].shift(freq="1min"))
    kept = grown.append(frame.iloc[25:], gaps="keep")
    assert kept.time_axis.holes.tolist() == [19]


def test_clocks(tmp_path: Path) -> None:
    """A naive time is the store's clock, an offset is converted; without a zone it is refused."""
    frame = readings(zone="Europe/Berlin", start="2025-03-30")
    whole = ingest(frame, tmp_path / "whole")
    store = ingest(frame.iloc[:10], tmp_path / "s")
    store = store.append(frame.iloc[10:20].tz_convert("UTC"))
    store = store.append(frame.iloc[20:].tz_localize(None))
    assert_same(store, whole)
    plain = ingest(frame.iloc[:10].tz_localize(None), tmp_path / "plain")
    assert "has times with an offset from UTC" in refused(plain, frame.iloc[10:])


def test_arrays_follow_the_last_row(tmp_path: Path) -> None:
    """[rows, N] and [rows, N, C]; a file without times needs the first one."""
    frame = readings()
    whole = ingest(frame, tmp_path / "whole")
    store = ingest(frame.iloc[:30], tmp_path / "s")
    store = store.append(frame.iloc[30:35].to_numpy())
    np.save(tmp_path / "new.npy", frame.iloc[33:].to_numpy())
    assert "add start" in refused(store, tmp_path / "new.npy")
    grown = store.append(tmp_path / "new.npy", start=str(frame.index[33]))
    assert_same(grown, whole)
    undated = ingest(frame.to_numpy()[:30], tmp_path / "undated", node_ids=tuple(IDS))
    undated = undated.append(frame.to_numpy()[30:, :, None])
    assert undated.meta.num_steps == 40
    assert "has times and" in refused(undated, frame)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (readings(40), {"overwrite": True}, "overwrite is an option of pgti.ingest"),
        (readings(40), {"gap": "fill"}, "did you mean 'gaps'"),
        (readings(40).iloc[::-1], {}, "sorted by time"),
        (readings(40).rename(columns=str.upper), {}, "has none of the store's sensors"),
        (readings(1, start="2024-01-01"), {}, "no row of the store has it"),
        (readings(1, start="2025-03-01T00:02"), {}, "no row of the store has it"),
        (readings(20, start="2025-03-01T02:30") * np.inf, {}, "infinite readings"),
        (np.ones((3, 7)), {}, "7 sensors without ids"),
        ("nowhere.csv", {}, "does not exist"),
        (3, {}, "must be the path of a file"),
    ],
)
def test_what_cannot_be_appended(
    tmp_path: Path, source: Any, options: dict[str, Any], message: str
) -> None:
    """One line, and the store is what it was."""
    store = ingest(readings(30), tmp_path / "s")
    assert message in refused(store, source, **options)


def test_a_store_in_memory_cannot_grow(tmp_path: Path) -> None:
    store = ingest(readings(30), tmp_path / "s")
    inside = SeriesStore.in_memory(
        store.read(0, 30),
        store.graph,
        store.time_axis,
        node_ids=store.meta.node_ids,
        channels=store.meta.channels,
    )
    with pytest.raises(ConfigError, match="only one on disk can grow"):
        inside.append(readings(40))


def test_an_empty_row_is_a_row(tmp_path: Path) -> None:
    """Nothing arrived: the row is there, and missing."""
    frame = readings()
    frame.iloc[30:] = np.nan
    store = ingest(frame.iloc[:30], tmp_path / "s").append(frame.iloc[30:])
    assert store.meta.missing_count == 30
    with pytest.raises(DataError):
        ingest(frame.iloc[30:], tmp_path / "other", IngestOptions())


FALL_BACK = pd.date_range("2024-10-27T01:30", periods=42, freq="5min", tz="Europe/Berlin")


def clock_rows() -> pd.DataFrame:
    """Every five minutes from 01:30 to 03:55 of a day that has 02:00 to 02:55 twice."""
    values = np.random.default_rng(2).integers(0, 90, size=(len(FALL_BACK), 2))
    return pd.DataFrame(values.astype(np.float64), index=FALL_BACK, columns=["a", "b"])


@pytest.mark.parametrize("rows_at_once", [1, 4, 6, 12])
@pytest.mark.parametrize("correct", [False, True])
def test_rows_of_the_hour_that_is_there_twice_follow_the_store(
    tmp_path: Path, rows_at_once: int, correct: bool
) -> None:
    """Appended on the clock, a few at a time, as a logger does; each file may come again."""
    frame = clock_rows()
    frame.iloc[18] = np.nan
    store = ingest(frame[:6], tmp_path / "grown")
    clock = frame.tz_localize(None)
    for first in range(6, len(frame), rows_at_once):
        rows = clock[first : first + rows_at_once]
        store = store.append(rows, correct=correct)
        if rows.notna().any(axis=None):
            store = store.append(rows, correct=correct)
    whole = ingest(frame, tmp_path / "whole")
    assert store.fingerprint == whole.fingerprint


def test_corrections_of_the_hour_that_is_there_twice_need_offsets(tmp_path: Path) -> None:
    frame = clock_rows()
    store = ingest(frame, tmp_path / "store")
    wrong = frame[20:22] + 1
    with pytest.raises(DataError, match="02:10:00, which the clocks of Europe/Berlin show twice"):
        store.append(wrong.tz_localize(None), correct=True)
    with pytest.raises(DataError, match="the store has"):
        store.append(wrong.tz_localize(None))
    corrected = store.append(wrong, correct=True)
    np.testing.assert_array_equal(corrected.read(20, 22)[..., 0], wrong)
    np.testing.assert_array_equal(corrected.read(6, 18), store.read(6, 18))
    same = corrected.append(wrong.tz_localize(None))
    assert same.fingerprint == corrected.fingerprint


def test_readings_in_another_unit_are_said(tmp_path: Path) -> None:
    """They are appended as they are: a scale that was applied twice, or forgotten."""
    frame = (readings() * 10).round()
    store = ingest(frame[:30], tmp_path / "store", scale=0.1)
    assert not any("outside" in note for note in store.append(frame[30:35]).notes)
    scaled = frame[35:36] * 0 + 50
    assert "scale 0.1" in store.append(scaled).notes[0]
    assert "nearly all readings of value in the DataFrame (5 to 5) lie outside" in " ".join(
        ingest(frame[:30] + 1000, tmp_path / "far", scale=0.1)
        .append(scaled.shift(freq="-25min"))
        .notes
    )


def test_a_start_that_contradicts_the_times_is_refused(tmp_path: Path) -> None:
    store = ingest(readings(40), tmp_path / "store")
    newer = readings(60).iloc[40:]
    message = refused(store, newer, start="2025-10-31T00:00")
    assert "starts at 2025-03-01T03:20:00 and start is 2025-10-31T00:00:00: leave start" in message
    assert store.append(newer, start="2025-03-01T03:20").meta.num_steps == 60
