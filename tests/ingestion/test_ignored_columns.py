"""Columns of a table that hold no readings: found, said, and left out on request."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pgti.errors import DataError
from pgti.ingestion import append, ingest

TIMES = pd.date_range("2024-01-01", periods=30, freq="h", name="time")
READINGS = np.arange(60, dtype=np.float64).reshape(30, 2) / 4
WIDE = pd.DataFrame(READINGS, TIMES, columns=["a", "b"])


def written(directory: Path, text: str) -> Path:
    """A text file."""
    (directory / "a.csv").write_text(text)
    return directory / "a.csv"


def lines(first: Callable[[int], Any], title: str = "date") -> str:
    """A table whose first column is made row by row."""
    body = (f"{first(row)},{row},{row / 2}\n" for row in range(24))
    return f"{title},a,b\n" + "".join(body)


@pytest.mark.parametrize("kind", ["csv", "parquet", "frame"])
def test_columns_are_left_out(tmp_path: Path, kind: str) -> None:
    """The store is that of the table without them, and so are newer rows, with them or without."""
    full = WIDE.assign(wind="NW", weekday=TIMES.day_of_week)[["wind", "a", "weekday", "b"]]
    sources: list[Any] = [full.iloc[:24], full.iloc[24:27], WIDE.iloc[27:]]
    if kind != "frame":
        for place, table in enumerate(sources):
            path = tmp_path / f"{place}.{kind}"
            table.to_csv(path) if kind == "csv" else table.to_parquet(path)
            sources[place] = path
    store = ingest(sources[0], tmp_path / "s", ignore=("wind", "weekday"))
    for newer in sources[1:]:
        store = append(store, newer)
    assert store.meta.node_ids == ("a", "b")
    np.testing.assert_array_equal(store.read(0, 30)[..., 0], READINGS)
    with pytest.raises(DataError, match="no column 'wnd'; it has time, wind, a, weekday, b"):
        ingest(written(tmp_path, full.to_csv()), tmp_path / "t", ignore=("wnd",))


def test_columns_without_titles(tmp_path: Path) -> None:
    """All columns keep their numbers, whatever is left out, and no row is taken for titles."""
    rows = [f"53974 202001{1 + h // 24:02d} {h % 24:02d}00 3 {h}.5 {-h}.25" for h in range(30)]
    (tmp_path / "a.txt").write_text("\n".join(rows) + "\n")
    with pytest.raises(DataError, match=r"column 2 of a.txt holds 20200101.*time_columns='2'"):
        ingest(tmp_path / "a.txt", tmp_path / "s")
    said: dict[str, Any] = {"time_columns": ("2", "3"), "time_format": "%Y%m%d %H%M"}
    store = ingest(tmp_path / "a.txt", tmp_path / "s", ignore=("1", "4"), **said)
    assert (store.meta.num_steps, store.meta.node_ids) == (30, ("5", "6"))
    assert (store.meta.start, store.meta.interval_seconds) == ("2020-01-01T00:00:00", 3600)
    assert store.read(29, 30).ravel().tolist() == [29.5, -29.25]


@pytest.mark.parametrize("time_format", ["%Y%m%d%H", "%Y%m%d%H%M", "%y%m%d%H%M", "%y%m%d%H%M%S"])
@pytest.mark.parametrize("is_long", [False, True])
def test_dates_without_signs_are_no_epoch_times(
    tmp_path: Path, time_format: str, is_long: bool
) -> None:
    """2024010100 is the first hour of 2024, not a second of 2034."""
    text = lines(lambda row: TIMES[row].strftime(time_format))
    if is_long:
        text = WIDE.set_axis(TIMES.strftime(time_format)).rename_axis("time").to_csv()
        rows = [line.split(",") for line in text.splitlines()[1:]]
        text = "time,sensor,value\n" + "".join(
            f"{t},{s},{v}\n" for t, *values in rows for s, v in zip("ab", values, strict=True)
        )
    with pytest.raises(DataError, match=rf"reads as a date.*time_format='{time_format}'"):
        ingest(written(tmp_path, text), tmp_path / "s")
    store = ingest(written(tmp_path, text), tmp_path / "s", time_format=time_format)
    assert (store.meta.start, store.meta.interval_seconds) == ("2024-01-01T00:00:00", 3600)


@pytest.mark.parametrize(("title", "step"), [("t", 5), ("day", 1), ("Hour", 1), ("seconds", 60)])
def test_columns_that_count_steps_are_no_sensors(tmp_path: Path, title: str, step: int) -> None:
    """What rises evenly under such a title is refused, with both ways to settle it."""
    source = written(tmp_path, lines(lambda row: 2 + row * step, title))
    with pytest.raises(DataError, match=rf"{title}.*ignore='{title}'.*timestamps=False"):
        ingest(source, tmp_path / "s")
    store = ingest(source, tmp_path / "s", ignore=(title,), start="2024-01-01", interval="1h")
    assert (store.meta.node_ids, store.meta.start) == (("a", "b"), "2024-01-01T00:00:00")
    store = ingest(source, tmp_path / "t", timestamps=False)
    assert store.meta.node_ids == (title, "a", "b")


def test_columns_called_like_descriptions_are_said(tmp_path: Path) -> None:
    """Weekdays, flags, places and sums are readings only if the user does not object."""
    names = ("weekday", "a_flag", "Lat", "total", "QC", "is_holiday")
    table = WIDE.assign(**{name: 1 + place for place, name in enumerate(names)})
    store = ingest(written(tmp_path, table.to_csv()), tmp_path / "s")
    note = next(note for note in store.notes if "read as sensors" in note)
    assert f"ignore={names}" in note
    store = ingest(written(tmp_path, WIDE.to_csv()), tmp_path / "t")
    assert not any("read as sensors" in note for note in store.notes)


def test_other_times_and_row_numbers_are_said(tmp_path: Path) -> None:
    """Epoch times, compact dates and numbers of rows beside the times are shown by their cells."""
    table = WIDE.reset_index().assign(
        epoch=[int(time.timestamp()) for time in TIMES], compact=TIMES.strftime("%Y%m%d")
    )
    table.insert(0, "Nummer", range(7, 37))
    store = ingest(written(tmp_path, table.to_csv(index=False)), tmp_path / "s")
    names = ("Nummer", "epoch", "compact")
    assert any(f"ignore={names}" in note for note in store.notes)
    counts = WIDE.assign(a=range(30), b=range(10_000_000, 10_000_030))
    store = ingest(written(tmp_path, counts.to_csv()), tmp_path / "t")
    assert not any("read as sensors" in note for note in store.notes)


def test_words_are_refused_with_what_to_do(tmp_path: Path) -> None:
    """A column of words is never advised to be missing alone, which would make a sensor of it."""
    texts = WIDE.assign(Country=["Italy", "Spain"] * 15, kind="x")
    with pytest.raises(DataError, match=r"'Italy'.*ignore=\('Country', 'kind'\).*long=\('time'"):
        ingest(written(tmp_path, texts.to_csv()), tmp_path / "s")
    with pytest.raises(DataError, match=r"'M'.*ignore=\('c',\).*missing='M'"):
        ingest(written(tmp_path, WIDE.assign(c="M").to_csv()), tmp_path / "s")
    rows = '"V1","V2","V3"\n"Y1",5172.1,5133.5\n"Y2",2070,2104\n'
    with pytest.raises(DataError, match=r"'Y1'.*transpose=True"):
        ingest(written(tmp_path, rows), tmp_path / "s")
    store = ingest(written(tmp_path, rows), tmp_path / "s", transpose=True)
    assert store.meta.node_ids == ("Y1", "Y2")


@pytest.mark.parametrize("end", [",", ",,"])
def test_delimiters_at_the_end_of_lines(tmp_path: Path, end: str) -> None:
    """Columns without titles and cells are left out, and a cell that stands there is refused."""
    text = WIDE.to_csv().replace("\n", f"{end}\n")
    store = ingest(written(tmp_path, text), tmp_path / "s", budget_bytes=2000)
    assert store.meta.node_ids == ("a", "b")
    np.testing.assert_array_equal(store.read(0, 30)[..., 0], READINGS)
    assert any("without a title and without readings: left out" in note for note in store.notes)
    late = written(tmp_path, text.removesuffix("\n") + "9\n")
    with pytest.raises(DataError, match=f"line 31 of a.csv holds '9' in column {3 + len(end)}"):
        ingest(late, tmp_path / "t", budget_bytes=2000)


def test_rows_of_delimiters_have_no_time(tmp_path: Path) -> None:
    """The advice is not the format of an empty text."""
    with pytest.raises(DataError, match=r"line 32 of a.csv has no time: give it one, or remove it"):
        ingest(written(tmp_path, WIDE.to_csv() + ",,\n"), tmp_path / "s")


@pytest.mark.parametrize("said", [{}, {"time_columns": ("MTU (UTC)",)}])
def test_spans_of_time_are_their_beginnings(tmp_path: Path, said: dict[str, Any]) -> None:
    """As ENTSO-E writes them; the days are found as in any column."""
    times = [pd.Timestamp("2024-02-12") + pd.Timedelta(row, "h") for row in range(31)]
    spans = [f"{begin:%d.%m.%Y %H:%M} - {end:%d.%m.%Y %H:%M}" for begin, end in pairwise(times)]
    table = WIDE.set_axis(spans).rename_axis("MTU (UTC)")
    store = ingest(written(tmp_path, table.to_csv()), tmp_path / "s", **said)
    assert (store.meta.start, store.meta.interval_seconds) == ("2024-02-12T00:00:00", 3600)
    np.testing.assert_array_equal(store.read(0, 30)[..., 0], READINGS)
    if not said:
        assert any("are the beginnings of column 1 (MTU (UTC))" in note for note in store.notes)
