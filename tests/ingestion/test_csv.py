"""Readings from CSV and TSV files."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pgti.errors import DataError
from pgti.ingestion import IngestOptions, ingest
from pgti.store import SeriesStore

VALUES = np.array([[64.375, 12.5, np.nan], [1.25, 0.0, 3.5], [7.75, 8.5, 9.25], [0.5, 1.5, 2.5]])
TIMES = pd.date_range("2012-03-01", periods=4, freq="5min")


def stored(path: Path) -> np.ndarray:
    """All readings of a one-channel store."""
    store = SeriesStore.open(path)
    return store.read(0, store.meta.num_steps)[..., 0]


def frame(ids: list[object], times: pd.Index | None = None) -> pd.DataFrame:
    """The readings as a table."""
    return pd.DataFrame(VALUES, columns=ids, index=times)


@pytest.mark.parametrize("separator", [",", "\t", ";"])
@pytest.mark.parametrize("ids", [[773869, 767541, 400001], ["a", "b", "c"], [0, 1, 2]])
@pytest.mark.parametrize("budget_bytes", [1, 1 << 20])
def test_header_without_times(
    tmp_path: Path, separator: str, ids: list[object], budget_bytes: int
) -> None:
    """A first line of ids is recognised, whether they are words or numbers."""
    frame(ids).to_csv(tmp_path / "a.csv", index=False, sep=separator)
    ingest(tmp_path / "a.csv", tmp_path / "s", IngestOptions(budget_bytes=budget_bytes))
    np.testing.assert_array_equal(stored(tmp_path / "s"), VALUES.astype(np.float32))
    assert SeriesStore.open(tmp_path / "s").meta.node_ids == tuple(map(str, ids))


def test_no_header(tmp_path: Path) -> None:
    """A file of numbers alone has no ids, and loses no line."""
    frame([0, 1, 2]).to_csv(tmp_path / "a.csv", index=False, header=False)
    ingest(tmp_path / "a.csv", tmp_path / "s")
    np.testing.assert_array_equal(stored(tmp_path / "s"), VALUES.astype(np.float32))


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_times_in_the_first_column(tmp_path: Path, header: bool, suffix: str) -> None:
    """A first column of times is recognised and gives start and interval."""
    path = tmp_path / f"a{suffix}"
    frame(["a", "b", "c"], TIMES).to_csv(path, header=header)
    summary = ingest(path, tmp_path / "s", IngestOptions(budget_bytes=1))
    np.testing.assert_array_equal(stored(tmp_path / "s"), VALUES.astype(np.float32))
    assert (summary.meta.start, summary.meta.interval_seconds) == ("2012-03-01T00:00:00", 300)


def test_row_numbers_are_left_out(tmp_path: Path) -> None:
    """The row numbers that pandas writes in front are not a sensor."""
    frame(["a", "b", "c"]).to_csv(tmp_path / "a.csv")
    ingest(tmp_path / "a.csv", tmp_path / "s")
    np.testing.assert_array_equal(stored(tmp_path / "s"), VALUES.astype(np.float32))


def test_epoch_times(tmp_path: Path) -> None:
    """Milliseconds since 1970 under a title that says time are true times."""
    epochs = pd.Index(TIMES.as_unit("ms").asi8, name="timestamp")
    frame(["a", "b", "c"], epochs).to_csv(tmp_path / "a.csv")
    summary = ingest(tmp_path / "a.csv", tmp_path / "s")
    assert summary.meta.start == "2012-03-01T00:00:00"
    assert (summary.meta.interval_seconds, summary.meta.time_zone) == (300, "UTC")


def test_time_format(tmp_path: Path) -> None:
    """Times that are not ISO 8601 are read when their format is named, and refused otherwise."""
    texts = pd.Index(TIMES.strftime("%d.%m.%Y %H:%M"), name="t")
    frame(["a", "b", "c"], texts).to_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"line 2 .*'01.03.2012 00:00'.*time_format"):
        ingest(tmp_path / "a.csv", tmp_path / "s")
    summary = ingest(
        tmp_path / "a.csv", tmp_path / "s", IngestOptions(time_format="%d.%m.%Y %H:%M")
    )
    assert summary.meta.start == "2012-03-01T00:00:00"


def test_times_with_an_offset_are_true_times(tmp_path: Path) -> None:
    """Offsets are honoured: the wall clock of their zone comes back."""
    frame(["a", "b", "c"], TIMES.tz_localize("+08:00")).to_csv(tmp_path / "a.csv")
    ingest(tmp_path / "a.csv", tmp_path / "s")
    store = SeriesStore.open(tmp_path / "s")
    assert store.meta.start == "2012-02-29T16:00:00"
    assert str(store.time_axis.at(np.array([0]))[0]) == "2012-03-01T00:00:00"


def test_quotes_blanks_bom_and_carriage_returns(tmp_path: Path) -> None:
    """What spreadsheets add around cells does no harm."""
    text = '\ufeff"a,1"," b","c"\r\n64.375, 12.5,\r\n1.25,0.0,"3.5"\r\n'
    text += "7.75,8.5,9.25\r\n0.5,1.5,2.5\r\n\r\n"
    (tmp_path / "a.csv").write_text(text, encoding="utf-8", newline="")
    ingest(tmp_path / "a.csv", tmp_path / "s")
    np.testing.assert_array_equal(stored(tmp_path / "s"), VALUES.astype(np.float32))
    assert SeriesStore.open(tmp_path / "s").meta.node_ids == ("a,1", "b", "c")


def test_header_that_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    """Whole numbers over whole numbers of the same size could be either: the user says which."""
    (tmp_path / "a.csv").write_text("5,9,7\n6,8,12\n")
    with pytest.raises(DataError, match=r"5, 9, 7.*pass header=True or header=False"):
        ingest(tmp_path / "a.csv", tmp_path / "s")
    ingest(tmp_path / "a.csv", tmp_path / "two", IngestOptions(header=False))
    assert stored(tmp_path / "two").tolist() == [[5, 9, 7], [6, 8, 12]]
    ingest(tmp_path / "a.csv", tmp_path / "one", IngestOptions(header=True))
    assert stored(tmp_path / "one").tolist() == [[6, 8, 12]]


def test_many_lines_keep_their_numbers(tmp_path: Path) -> None:
    """Line numbers in messages stay right across the blocks in which a file is read."""
    lines = ["a,b"] + ["1.5,2.5"] * 400_000
    lines[300_001] = "1.5"
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode(), compresslevel=1))
    with pytest.raises(DataError, match=r"line 300002 of a.csv.gz has 1 cell .* has 2"):
        ingest(path, tmp_path / "s")
