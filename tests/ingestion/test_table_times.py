"""Times in any column of a table, in several, and in the formats that people use."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pgti.errors import ConfigError, DataError
from pgti.ingestion import IngestOptions, append, ingest
from pgti.store import SeriesStore

TIMES = pd.date_range("2021-03-04 22:00", periods=30, freq="h")
VALUES = np.arange(60, dtype=np.float32).reshape(30, 2) + 0.5


def table(folder: Path, before: dict[str, object], after: dict[str, object] | None = None) -> Path:
    """A file with columns before and after the readings of two sensors."""
    frame = pd.DataFrame({**before, "a": VALUES[:, 0], "b": VALUES[:, 1], **(after or {})})
    frame.to_csv(folder / "a.csv", index=False)
    return folder / "a.csv"


def check(store: SeriesStore, ids: tuple[str, ...] = ("a", "b")) -> None:
    """The store has the times and the readings."""
    assert store.meta.node_ids == ids
    assert (store.meta.start, store.meta.interval_seconds) == ("2021-03-04T22:00:00", 3600)
    np.testing.assert_array_equal(store.read(0, store.meta.num_steps)[..., 0], VALUES)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"": range(30), "date": TIMES}, {}),
        ({"Unnamed: 0": range(30), "Unnamed: 0.1": range(30), "date": TIMES}, {}),
        ({"No": range(1, 31), "date": TIMES}, {}),
        ({}, {"date": TIMES}),
        ({}, {"when it was": TIMES}),
        ({"date": TIMES.strftime("%Y-%m-%d"), "time": TIMES.strftime("%H:%M:%S")}, {}),
        ({"date": TIMES.strftime("%Y-%m-%d")}, {"hour": TIMES.hour}),
        ({"date": TIMES.strftime("%Y-%m-%d"), "time": TIMES.hour * 100}, {}),
        ({"Hour": TIMES.hour, "Date": TIMES.strftime("%d/%b/%Y")}, {}),
        ({"No": range(1, 31), **{u: getattr(TIMES, u) for u in ("year", "month", "day", "hour")}},
         {}),
        ({"yr": TIMES.year, "mo": TIMES.month, "dy": TIMES.day, "hr": TIMES.hour,
          "min": TIMES.minute}, {}),
        ({"time": TIMES.strftime("%Y-%m-%d %H:%M:%S.000")}, {}),
        ({"time": TIMES.strftime("%Y/%m/%d %H:%M")}, {}),
        ({"time": TIMES.strftime("%d-%b-%Y %H:%M")}, {}),
        ({"time": TIMES.strftime("%B %d, %Y %I:%M %p")}, {}),
        ({"time": TIMES.strftime("%Y-%m-%d %I:%M:%S %p")}, {}),
        ({"time": [str(time).replace("05 00:00", "04 24:00") for time in TIMES]}, {}),
        ({}, {"timestamp": TIMES.as_unit("s").asi8}),
    ],
)  # fmt: skip
def test_times_are_found(
    tmp_path: Path, before: dict[str, object], after: dict[str, object]
) -> None:
    """Times are found by titles and cells, wherever they stand."""
    check(ingest(table(tmp_path, before, after), tmp_path / "s"))


def test_years_and_months(tmp_path: Path) -> None:
    """Years alone, and months, are times and not a sensor."""
    years = pd.DataFrame({"year": range(2011, 2021), "a": np.arange(10) + 0.5})
    years.to_csv(tmp_path / "a.csv", index=False)
    store = ingest(tmp_path / "a.csv", tmp_path / "s")
    assert (store.meta.node_ids, store.meta.start) == (("a",), "2011-01-01T00:00:00")
    assert str(store.time_axis.at(np.array([9]))[0]) == "2020-01-01T00:00:00"
    months = pd.DataFrame({"a": np.arange(24) + 0.5, "year": np.repeat([2011, 2012], 12),
                           "month": np.tile(range(1, 13), 2)})  # fmt: skip
    months.to_csv(tmp_path / "b.csv", index=False)
    store = ingest(tmp_path / "b.csv", tmp_path / "t")
    assert str(store.time_axis.at(np.array([23]))[0]) == "2012-12-01T00:00:00"


def test_joined_columns_are_said(tmp_path: Path) -> None:
    """A note names the columns whose cells are joined."""
    parts = {"date": TIMES.strftime("%Y-%m-%d"), "time": TIMES.strftime("%H:%M")}
    notes = ingest(table(tmp_path, parts), tmp_path / "s").notes
    assert any("column 1 (date), column 2 (time)" in note for note in notes)


def test_hours_of_the_day_beside_times_are_readings(tmp_path: Path) -> None:
    """A calendar beside whole times is not joined with them."""
    source = table(tmp_path, {"time": TIMES, "month": TIMES.month, "hour": TIMES.hour})
    assert ingest(source, tmp_path / "s").meta.node_ids == ("month", "hour", "a", "b")


def test_time_columns_are_named(tmp_path: Path) -> None:
    """Columns are named by title, or by number where there is no header, and remembered."""
    parts = {"Tag": TIMES.strftime("%d.%m.%Y"), "Uhr": TIMES.strftime("%H.%M")}
    options = IngestOptions(time_columns=("tag", "Uhr"), time_format="%d.%m.%Y %H.%M")
    source = table(tmp_path, parts)
    store = ingest(source, tmp_path / "s", options)
    check(store)
    later = TIMES + pd.Timedelta(hours=30)
    newer = {"Tag": later.strftime("%d.%m.%Y"), "Uhr": later.strftime("%H.%M")}
    assert append(store, table(tmp_path, newer)).meta.num_steps == 60
    lines = table(tmp_path, parts).read_text().split("\n", 1)[1]
    (tmp_path / "b.csv").write_text(lines)
    by_number = IngestOptions(
        time_columns=("1", "2"), time_format="%d.%m.%Y %H.%M", header=False, overwrite=True
    )
    store = ingest(tmp_path / "b.csv", tmp_path / "s", by_number)
    check(store, ("0", "1"))
    with pytest.raises(DataError, match="no column 'day'; it has Tag, Uhr, a, b"):
        ingest(source, tmp_path / "t", IngestOptions(time_columns=("day",)))
    with pytest.raises(ConfigError, match="twice"):
        ingest(source, tmp_path / "t", IngestOptions(time_columns=("Tag", "tag")))


@pytest.mark.parametrize("sign", ["/", ".", "-"])
@pytest.mark.parametrize("first", ["d", "m"])
def test_a_day_above_12_decides(tmp_path: Path, sign: str, first: str) -> None:
    """The whole column is looked at, and the row that decided is said."""
    other = "m" if first == "d" else "d"
    times = pd.date_range("2021-03-02", periods=12 * 24, freq="h")
    texts = times.strftime(f"%{first}{sign}%{other}{sign}%Y %H:%M")
    pd.DataFrame({"a": np.arange(288) + 0.5}, index=pd.Index(texts, name="t")).to_csv(
        tmp_path / "a.csv"
    )
    store = ingest(tmp_path / "a.csv", tmp_path / "s", IngestOptions(budget_bytes=1))
    assert store.meta.start == "2021-03-02T00:00:00"
    assert any("13" in note and "before" in note for note in store.notes)


def test_days_that_could_be_months_are_asked_about(tmp_path: Path) -> None:
    """Without a day above 12 the user decides; the refusal names both formats."""
    source = table(tmp_path, {"t": TIMES.strftime("%d/%m/%Y %H:%M")})
    with pytest.raises(DataError, match=r"04/03/2021 22:00.*'%d/%m/%Y %H:%M'.*'%m/%d/%Y %H:%M'"):
        ingest(source, tmp_path / "s")
    check(ingest(source, tmp_path / "s", IngestOptions(time_format="%d/%m/%Y %H:%M")))


def test_dates_without_a_header(tmp_path: Path) -> None:
    """A date in the first line of any column makes it a row."""
    frame = pd.DataFrame({"a": range(30), "b": range(30), "t": TIMES})
    frame.to_csv(tmp_path / "a.csv", index=False, header=False)
    store = ingest(tmp_path / "a.csv", tmp_path / "s")
    assert (store.meta.num_steps, store.meta.start) == (30, "2021-03-04T22:00:00")
    text = "".join(f"{time:%Y-%m-%d %H:%M} 1.5 2.5\n" for time in TIMES)
    (tmp_path / "b.txt").write_text(text)
    store = ingest(tmp_path / "b.txt", tmp_path / "t")
    assert (store.meta.num_nodes, store.meta.start) == (2, "2021-03-04T22:00:00")


def test_calendar_columns_of_a_frame(tmp_path: Path) -> None:
    """A DataFrame whose times stand in columns is read as the file that it would be."""
    frame = pd.DataFrame({"a": VALUES[:, 0], "b": VALUES[:, 1]})
    units = {unit: getattr(TIMES, unit) for unit in ("year", "month", "day", "hour")}
    check(ingest(frame.assign(**units), tmp_path / "s"))
    indexed = frame.set_index(TIMES).assign(month=TIMES.month, hour=TIMES.hour)
    assert ingest(indexed, tmp_path / "t").meta.node_ids == ("a", "b", "month", "hour")


def test_several_columns_of_dates(tmp_path: Path) -> None:
    """Which of two columns is the time of a row is not guessed."""
    source = table(tmp_path, {"date": TIMES, "updated": TIMES})
    with pytest.raises(DataError, match=r"2 columns of times.*time_columns"):
        ingest(source, tmp_path / "s")


@pytest.mark.parametrize("wrong", ["n/a", "soon", "2021-02-30"])
def test_a_cell_that_is_no_time_is_named(tmp_path: Path, wrong: str) -> None:
    """One wrong cell among the first does not make a column of times one of readings."""
    times = [*TIMES.strftime("%Y-%m-%d %H:%M")]
    times[2] = wrong
    source = table(tmp_path, {"t": times})
    with pytest.raises(DataError, match=f"line 4 .*'{wrong}'"):
        ingest(source, tmp_path / "s")
