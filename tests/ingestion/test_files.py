"""Several files as one series: stretches of time, sensors or channels."""

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import pgti
from pgti.errors import ConfigError, DataError, PgtiError, name_flags
from pgti.ingestion.newer.newer import open_newer_series
from pgti.store import SeriesStore

TIMES = pd.date_range("2024-03-01", periods=96, freq="1h")
VALUES = np.round(np.random.default_rng(0).normal(50, 9, (96, 3)), 2)
FRAME = pd.DataFrame(VALUES, index=TIMES, columns=["400001", "400002", "400003"])
DAYS = {f"{name}.csv": FRAME.iloc[24 * i : 24 * i + 24] for i, name in enumerate("dbca")}
"""Four days, whose names are in another order than their times."""


def write(directory: Path, tables: dict[str, pd.DataFrame]) -> list[Path]:
    directory.mkdir(exist_ok=True)
    for name, table in tables.items():
        if name.endswith(".parquet"):
            table.to_parquet(directory / name)
        else:
            table.to_csv(directory / name)
    return [directory / name for name in tables]


def num_open() -> int:
    """Open files of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def read(store: SeriesStore) -> np.ndarray:
    return store.read(0, store.meta.num_steps)


def zipped(directory: Path) -> Path:
    with zipfile.ZipFile(directory / "days.zip", "w") as archive:
        for name, table in DAYS.items():
            archive.writestr(f"2024/{name}", table.to_csv())
        archive.writestr("__MACOSX/._a.csv", "x")
        archive.writestr("README.md", "x")
    return directory / "days.zip"


def packed(directory: Path) -> str:
    for name, table in DAYS.items():
        (directory / f"{name}.gz").write_bytes(gzip.compress(table.to_csv().encode()))
    return str(directory / "*.csv.gz")


WAYS: dict[str, Callable[[Path], Any]] = {
    "paths": lambda d: write(d, DAYS),
    "paths as text": lambda d: tuple(map(str, write(d, DAYS))),
    "a pattern": lambda d: str(write(d, DAYS)[0].parent / "*.csv"),
    "a pattern below": lambda d: (write(d / "x", DAYS), str(d / "**" / "*.csv"))[1],
    "a directory": lambda d: write(d / "x", DAYS)[0].parent,
    "a zip": zipped,
    "gz": packed,
    "Parquet": lambda d: write(d, {n.replace("csv", "parquet"): t for n, t in DAYS.items()}),
    "frames": lambda _: list(DAYS.values()),
    "frames by name": lambda _: dict(DAYS),
}


@pytest.mark.parametrize("way", WAYS)
def test_files_in_the_order_of_their_times_are_one_series(tmp_path: Path, way: str) -> None:
    whole = pgti.ingest(FRAME, tmp_path / "whole")
    (tmp_path / "files").mkdir()
    store = pgti.ingest(WAYS[way](tmp_path / "files"), tmp_path / "store")
    assert store.fingerprint == whole.fingerprint
    assert any("files are joined by their times" in note for note in store.notes)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["files", "store", "whole"]


@pytest.mark.parametrize("budget", [1, 700, 1 << 20])
def test_sensors_are_matched_by_name_and_may_appear_later(tmp_path: Path, budget: int) -> None:
    later = FRAME.iloc[48:, [2, 0, 1]].assign(new=7.25)
    files = write(tmp_path, {"b.csv": later, "a.csv": FRAME.iloc[:48, :2]})
    store = pgti.ingest(files, tmp_path / "s", budget_bytes=budget)
    expected = pd.concat([FRAME.iloc[:48, :2], later])
    assert store.meta.node_ids == ("400001", "400002", "400003", "new")
    np.testing.assert_array_equal(
        read(store)[..., 0], expected[list(store.meta.node_ids)].to_numpy(np.float32)
    )
    notes = " ".join(store.notes)
    assert "1 of 2 files lack sensors that others have, the first a.csv (400003, new)" in notes
    assert "b.csv has its sensors in another order: they are matched by name" in notes


def test_files_that_overlap_must_agree(tmp_path: Path) -> None:
    files = write(tmp_path, {"a.csv": FRAME[:50], "b.csv": FRAME[40:]})
    store = pgti.ingest(files, tmp_path / "agree")
    np.testing.assert_array_equal(read(store)[..., 0], VALUES.astype(np.float32))
    assert any("30 readings stand in several files: they agree" in note for note in store.notes)

    other = FRAME[40:].copy()
    other.iloc[3, 1] += 1
    write(tmp_path, {"b.csv": other})
    with pytest.raises(DataError, match=r"line 5 of b.csv has .* and line 45 of a.csv .*400002"):
        pgti.ingest(files, tmp_path / "s")
    assert not (tmp_path / "s").exists()
    for rule, expected in (
        ("first", VALUES[43, 1]),
        ("last", VALUES[43, 1] + 1),
        ("mean", VALUES[43, 1] + 0.5),
    ):
        store = pgti.ingest(files, tmp_path / rule, duplicates=rule)
        assert read(store)[43, 1, 0] == pytest.approx(expected, abs=1e-5)


def test_a_code_of_missing_readings_never_counts_in_a_mean(tmp_path: Path) -> None:
    one, two = FRAME[:50].copy(), FRAME[40:].copy()
    one.iloc[45, 0], two.iloc[5, 0] = -1, 10
    files = write(tmp_path, {"a.csv": one, "b.csv": two})
    for rule in ("mean", "first", "last", "error"):
        store = pgti.ingest(files, tmp_path / rule, duplicates=rule, missing=(-1,))
        assert read(store)[45, 0, 0] == 10


def stations(columns: tuple[str, ...], rows: int = 96) -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(1)
    return {
        f"{name}.csv": pd.DataFrame(
            np.round(rng.normal(20, 4, (rows, len(columns))), 1),
            index=TIMES[:rows],
            columns=list(columns),
        )
        for name in ("Aotizhongxin", "Changping", "Dingling")
    }


def test_a_file_each_sensor(tmp_path: Path) -> None:
    tables = stations(("PM2.5", "TEMP", "WSPM"))
    tables["Changping.csv"] = tables["Changping.csv"].drop(TIMES[7])
    tables["Dingling.csv"] = tables["Dingling.csv"].drop(columns="TEMP")
    store = pgti.ingest(write(tmp_path, tables), tmp_path / "s")
    assert store.meta.node_ids == ("Aotizhongxin", "Changping", "Dingling")
    assert store.meta.channels == ("PM2.5", "TEMP", "WSPM")
    for node, table in enumerate(tables.values()):
        expected = table.reindex(index=TIMES, columns=list(store.meta.channels))
        np.testing.assert_array_equal(read(store)[:, node], expected.to_numpy(np.float32))
    notes = " ".join(store.notes)
    assert "each of 3 files is a sensor (Aotizhongxin, Changping, Dingling)" in notes
    assert "1 of 3 files lack channels that others have, the first Dingling.csv (TEMP)" in notes
    assert "1 of 3 files lack rows that others have, the first Changping.csv (95 of 96)" in notes


def test_a_column_may_hold_the_name_of_the_station(tmp_path: Path) -> None:
    """As those of Beijing, with row numbers and the parts of a time in columns of their own."""
    tables = {}
    for name, table in stations(("PM2.5", "TEMP")).items():
        index = table.index
        parts = {each: getattr(index, each) for each in ("year", "month", "day", "hour")}
        leading = pd.DataFrame({"No": range(1, len(table) + 1), **parts}, index=index)
        station = f"{name.removesuffix('.csv')}"
        tables[f"PRSA_Data_{name}"] = leading.join(table).assign(wd="NW", station=station)
    for name, table in tables.items():
        table.to_csv(tmp_path / name, index=False)
    store = pgti.ingest(
        str(tmp_path / "PRSA*.csv"),
        tmp_path / "s",
        long=("year month day hour", "station", "PM2.5", "TEMP"),
    )
    assert store.meta.node_ids == ("Aotizhongxin", "Changping", "Dingling")
    assert store.meta.channels == ("PM2.5", "TEMP")
    for node, table in enumerate(tables.values()):
        expected = table[["PM2.5", "TEMP"]].to_numpy(np.float32)
        np.testing.assert_array_equal(read(store)[:, node], expected)
    assert "each file has sensors of its own" in store.notes


def test_sensors_whose_times_begin_apart(tmp_path: Path) -> None:
    tables = {name: t[i * 5 :] for i, (name, t) in enumerate(stations(("pm25", "temp")).items())}
    store = pgti.ingest(write(tmp_path, tables), tmp_path / "s")
    assert store.meta.channels == ("pm25", "temp")
    for node, table in enumerate(tables.values()):
        expected = table.reindex(TIMES).to_numpy(np.float32)
        np.testing.assert_array_equal(read(store)[:, node], expected)


def test_a_file_each_channel(tmp_path: Path) -> None:
    for suffix in ("csv", "parquet"):
        tables = {f"speed.{suffix}": FRAME, f"flow.{suffix}": FRAME[["400003", "400001"]] + 200}
        store = pgti.ingest(write(tmp_path, tables), tmp_path / suffix)
        assert store.meta.channels == ("speed", "flow")
        assert store.meta.node_ids == tuple(FRAME.columns)
        np.testing.assert_array_equal(read(store)[..., 0], VALUES.astype(np.float32))
        expected = (FRAME + 200)[["400001", "400003"]].to_numpy(np.float32)
        np.testing.assert_array_equal(read(store)[:, [0, 2], 1], expected)
        assert np.isnan(read(store)[:, 1, 1]).all()


def test_arrays_without_times(tmp_path: Path) -> None:
    np.save(tmp_path / "speed.npy", VALUES)
    np.save(tmp_path / "flow.npy", VALUES + 200)
    both = [tmp_path / "speed.npy", tmp_path / "flow.npy"]
    store = pgti.ingest(both, tmp_path / "channels")
    assert store.meta.channels == ("speed", "flow")
    np.testing.assert_array_equal(read(store), np.stack([VALUES, VALUES + 200], -1, dtype="f4"))
    store = pgti.ingest(both, tmp_path / "times", files="times", budget_bytes=300)
    np.testing.assert_array_equal(
        read(store)[..., 0], np.concatenate([VALUES, VALUES + 200]).astype(np.float32)
    )
    np.save(tmp_path / "flow.npy", VALUES[:90])
    with pytest.raises(DataError, match=r"speed.npy has 96 rows and flow.npy has 90"):
        pgti.ingest(both, tmp_path / "s")
    both = [tmp_path / "speed.npy", tmp_path / "part2.npy"]
    np.save(both[1], VALUES)
    with pytest.raises(DataError, match="no times, so that it is not certain"):
        pgti.ingest(both, tmp_path / "s")


def test_what_could_be_two_things_is_refused(tmp_path: Path) -> None:
    files = write(tmp_path, {"x.csv": FRAME, "y.csv": FRAME + 1})
    with pytest.raises(DataError) as caught, name_flags():
        pgti.ingest(files, tmp_path / "s")
    for word in ("x.csv and y.csv", "400001", "--files sensors", "--files channels"):
        assert word in str(caught.value)
    sensors = pgti.ingest(files, tmp_path / "sensors", files="sensors")
    channels = pgti.ingest(files, tmp_path / "channels", files="channels")
    assert (sensors.meta.node_ids, sensors.meta.channels) == (("x", "y"), tuple(FRAME.columns))
    assert (channels.meta.node_ids, channels.meta.channels) == (tuple(FRAME.columns), ("x", "y"))
    np.testing.assert_array_equal(read(sensors), read(channels).transpose(0, 2, 1))


def test_more_files_than_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, tables = np.random.default_rng(2), {}
    for number in range(150):
        first, last = sorted(rng.choice(97, 2, replace=False))
        tables[f"s{number}.csv"] = pd.DataFrame(
            {f"{number}": rng.integers(0, 99, last - first).astype(float)},
            index=TIMES[first:last],
        )
    write(tmp_path, tables)
    monkeypatch.setattr("pgti.ingestion.files.merging._MAX_OPEN", 8)
    most = 0
    times = pgti.ingestion.files.merging.read_times

    def counted(*args: Any) -> Any:
        nonlocal most
        most = max(most, num_open())
        return times(*args)

    before = num_open()
    monkeypatch.setattr("pgti.ingestion.files.merging.read_times", counted)
    store = pgti.ingest(str(tmp_path / "*.csv"), tmp_path / "s", gaps="keep", budget_bytes=4000)
    assert most - before < 40
    expected = pd.concat(list(tables.values()), axis=1, sort=True)[list(store.meta.node_ids)]
    assert store.meta.node_ids == tuple(map(str, range(150)))
    np.testing.assert_array_equal(read(store)[..., 0], expected.to_numpy(np.float32))
    assert sorted(each.name for each in tmp_path.iterdir() if "csv" not in each.name) == ["s"]


def test_each_file_is_read_on_the_clock_of_the_zone(tmp_path: Path) -> None:
    """The hour that the clock shows twice is in the middle of a file, and times rise."""
    times = pd.date_range("2025-10-25", "2025-10-27 23:55", freq="5min", tz="Europe/Rome")
    frame = pd.DataFrame({"a": np.arange(len(times), dtype=float)}, index=times)
    frame.index = frame.index.tz_localize(None)
    days = {f"{day:%d}.csv": part for day, part in frame.groupby(frame.index.date)}
    store = pgti.ingest(write(tmp_path, days), tmp_path / "s", time_zone="Europe/Rome")
    np.testing.assert_array_equal(read(store)[:, 0, 0], np.arange(len(times), dtype=np.float32))
    assert store.meta.interval_seconds == 300


def test_messages_name_the_file_and_its_line(tmp_path: Path) -> None:
    files = write(tmp_path, {"a.csv": FRAME[:40], "b.csv": FRAME[50:]})
    with pytest.raises(DataError, match=r"line 41 of a.csv .* line 2 of b.csv .* lacks 10 rows"):
        pgti.ingest(files, tmp_path / "s")
    swapped = FRAME.iloc[[*range(50, 60), 70, 60]]
    write(tmp_path, {"b.csv": swapped})
    with pytest.raises(DataError, match=r"line 12 and line 13 of b.csv have the times"):
        pgti.ingest(files, tmp_path / "s")
    text = FRAME[50:].astype(object)
    text.iloc[3, 2] = "broken"
    write(tmp_path, {"b.csv": text})
    with pytest.raises(DataError, match=r"line 5.* of b.csv holds 'broken'"):
        pgti.ingest(files, tmp_path / "s")
    one, two = write(tmp_path / "x", {"r.csv": FRAME[:40]}), write(tmp_path / "y", {"r.csv": text})
    with pytest.raises(DataError, match=r"^y.r.csv: .*broken"):
        pgti.ingest([*one, *two], tmp_path / "s")
    infinite = FRAME[40:].copy()
    infinite.iloc[6, 1] = np.inf
    write(tmp_path, {"b.csv": infinite})
    with pytest.raises(DataError, match=r"1 infinite readings.*line 8 of b.csv, sensor '400002'"):
        pgti.ingest(files, tmp_path / "s")
    assert not (tmp_path / "s").exists()


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no file of a pattern": (lambda d: str(d / "*.csv"), r"no file is called .*\*.csv"),
    "an empty list": (lambda _: [], "the source is empty"),
    "an empty mapping": (lambda _: {}, "the source is empty"),
    "a number": (lambda _: [1, 2], "it must be the path"),
    "a file and a frame": (lambda d: [*write(d, {"a.csv": FRAME}), FRAME], "give one kind"),
    "a file twice": (lambda d: write(d, {"a.csv": FRAME}) * 2, "given twice"),
    "a file that is not there": (
        lambda d: [*write(d, {"a.csv": FRAME}), d / "b.csv"],
        r"b.csv does not exist",
    ),
    "two formats": (
        lambda d: write(d, {"a.csv": FRAME[:9], "b.parquet": FRAME[9:]}),
        "two formats",
    ),
    "two formats in a directory": (
        lambda d: write(d / "x", {"a.csv": FRAME[:9], "b.parquet": FRAME[9:]})[0].parent,
        r"several formats \(.csv, .parquet\)",
    ),
    "text under two suffixes in a directory": (
        lambda d: write(d / "x", {"a.csv": FRAME[:9], "b.dat": FRAME[9:]})[0].parent,
        r"several formats \(.csv, .dat\)",
    ),
    "a store": (
        lambda d: pgti.ingest(FRAME, d / "store").path,
        "is a store already",
    ),
    "one without times": (
        lambda d: write(d, {"a.csv": FRAME[:9], "b.csv": FRAME[9:].reset_index(drop=True)}),
        "a.csv has times and b.csv has none",
    ),
    "one with an offset": (
        lambda d: write(d, {"a.csv": FRAME[:9], "b.csv": FRAME[9:].tz_localize("UTC")}),
        "b.csv has times with an offset from UTC and a.csv has none",
    ),
    "an archive that is none": (
        lambda d: (d / "a.zip").write_text("x") and d / "a.zip",
        "a.zip",
    ),
    "an archive of nothing": (lambda d: zipped_of(d, {"README.md": "x"}), "a.zip"),
    "a damaged file in an archive": (
        lambda d: zipped_of(d, {"a.csv": FRAME.to_csv() + "x", "b.csv": FRAME.to_csv()}),
        "a.csv",
    ),
    "files without rows": (
        lambda d: write(d, dict.fromkeys(["a.csv", "b.csv"], FRAME.add_prefix("s")[:0])),
        "a.csv has a header and no rows",
    ),
}


def test_files_without_rows_are_left_out(tmp_path: Path) -> None:
    frame = FRAME.add_prefix("s")
    files = write(tmp_path, {"a.csv": frame[:40], "b.csv": frame[:0], "c.csv": frame[40:]})
    store = pgti.ingest(files, tmp_path / "s")
    np.testing.assert_array_equal(read(store)[..., 0], VALUES.astype(np.float32))
    assert "1 file without rows: left out (b.csv)" in store.notes


def zipped_of(directory: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(directory / "a.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return directory / "a.zip"


@pytest.mark.parametrize("case", BAD)
def test_bad_sources_are_refused_in_one_line(tmp_path: Path, case: str) -> None:
    (tmp_path / "files").mkdir()
    source, message = BAD[case][0](tmp_path / "files"), BAD[case][1]
    with pytest.raises(PgtiError, match=message) as caught:
        pgti.ingest(source, tmp_path / "s")
    assert "\n" not in str(caught.value)
    assert [each.name for each in tmp_path.iterdir()] == ["files"]


def test_kinds_need_names_and_one_channel(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give them by name"):
        pgti.ingest([FRAME, FRAME + 1], tmp_path / "s", files="channels")
    store = pgti.ingest({"speed": FRAME, "flow": FRAME + 1}, tmp_path / "s")
    assert store.meta.channels == ("speed", "flow")
    np.savez(tmp_path / "a.npz", data=np.ones((9, 2, 3)))
    np.savez(tmp_path / "b.npz", data=np.ones((9, 2, 3)))
    with pytest.raises(ConfigError, match=r"a.npz has 3 channels"):
        pgti.ingest(str(tmp_path / "*.npz"), tmp_path / "t", files="channels")


def test_newer_files_are_read_as_those_of_the_store(tmp_path: Path) -> None:
    tables = stations(("pm25", "temp"))
    old = {name: table[:60] for name, table in tables.items()}
    new = {name: table[60:] for name, table in tables.items()}
    whole = pgti.ingest(write(tmp_path / "all", tables), tmp_path / "whole")
    store = pgti.ingest(write(tmp_path / "old", old), tmp_path / "store")
    write(tmp_path / "new", new)
    with open_newer_series(str(tmp_path / "new" / "*.csv"), store) as newer:
        np.testing.assert_array_equal(read(newer.store), read(whole)[60:])
    # One sensor alone is a sensor, too.
    with open_newer_series(tmp_path / "new" / "Changping.csv", store) as newer:
        np.testing.assert_array_equal(read(newer.store)[:, 1], read(whole)[60:, 1])
        assert newer.absent == ("Aotizhongxin", "Dingling")
    grown = store.append(tmp_path / "new")
    assert grown.fingerprint == whole.fingerprint
    assert any("files sensors" in note for note in grown.notes)


def test_newer_days_are_joined(tmp_path: Path) -> None:
    files = write(tmp_path / "days", DAYS)
    whole = pgti.ingest(files, tmp_path / "whole")
    store = pgti.ingest(files[:2], tmp_path / "store")
    with open_newer_series(files[2:], store) as newer:
        np.testing.assert_array_equal(read(newer.store), read(whole)[48:])
    assert store.append([*files[1:]]).fingerprint == whole.fingerprint
    assert sorted(each.name for each in tmp_path.iterdir()) == ["days", "store", "whole"]


@pytest.mark.parametrize("seed", range(8))
def test_random_pieces_are_joined_as_pandas_joins_them(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of any rows and columns, which overlap, in any order of names."""
    rng = np.random.default_rng(seed)
    monkeypatch.setattr("pgti.ingestion.files.merging._MAX_OPEN", int(rng.integers(2, 9)))
    frame = FRAME.add_prefix("s").mask(rng.random(FRAME.shape) < 0.1)
    pieces = []
    for _ in range(rng.integers(3, 12)):
        first, last = sorted(rng.choice(len(frame) + 1, 2, replace=False))
        columns = rng.permutation(3)[: rng.integers(1, 4)]
        pieces.append(frame.iloc[first:last, columns])
    write(tmp_path, {f"{number}.csv": piece for number, piece in enumerate(pieces)})
    expected = pieces[0]
    for piece in pieces[1:]:
        expected = expected.combine_first(piece)
    store = pgti.ingest(
        str(tmp_path / "*.csv"),
        tmp_path / "s",
        files="times",
        gaps="keep",
        budget_bytes=int(rng.choice([1, 200, 5000, 1 << 20])),
    )
    times = store.time_axis.at(np.arange(store.meta.num_steps))
    assert (times == expected.sort_index().index.to_numpy()).all()
    values = expected.sort_index()[list(store.meta.node_ids)].to_numpy(np.float32)
    np.testing.assert_array_equal(read(store)[..., 0], values)
