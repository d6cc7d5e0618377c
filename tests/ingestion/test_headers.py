"""Telling headers and columns of times from readings in tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pgti.errors import DataError
from pgti.ingestion import IngestOptions, ingest
from pgti.store import SeriesStore

EPOCHS = [1_700_000_000, 1_700_000_300, 1_700_000_600]


def csv(folder: Path, text: str) -> Path:
    """A CSV file."""
    (folder / "a.csv").write_text(text)
    return folder / "a.csv"


def table(folder: Path, frame: pd.DataFrame) -> Path:
    """A Parquet file."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    frame.to_parquet(folder / "a.parquet")
    return folder / "a.parquet"


def ingested(source: Path, options: IngestOptions | None = None) -> SeriesStore:
    """The store of a file."""
    ingest(source, source.parent / "s", options)
    return SeriesStore.open(source.parent / "s")


@pytest.mark.parametrize(
    "text",
    [
        "1,2\n2,3\n5,1\n",
        "100,120\n90,80\n70,60\n80,75\n",
        "50\n40\n30\n",
        "0,1,2\n1,5,2\n3,4,5\n",
        "1500,1600\n160,170\n140,150\n",
        ",12,7\n3,11,8\n5,10,9\n",
    ],
)
def test_whole_numbers_are_not_taken_for_ids(tmp_path: Path, text: str) -> None:
    """A first line that could be readings is asked about, and comes back if it is said to be."""
    with pytest.raises(DataError, match="header=True or header=False"):
        ingested(csv(tmp_path, text))
    store = ingested(csv(tmp_path, text), IngestOptions(header=False))
    assert store.meta.num_steps == text.count("\n")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("3,7\n2.5,3\n5,1\n", ("3", "7")),
        ("400001,400002\n60,61\n62,63\n", ("400001", "400002")),
        ("0,1,2,3,4,5,6,7\n" + "5,5,5,5,5,5,5,5\n" * 2, tuple("01234567")),
        (",4,9\n0,1,2\n1,3,4\n", ("4", "9")),
    ],
)
def test_whole_numbers_that_are_ids(tmp_path: Path, text: str, ids: tuple[str, ...]) -> None:
    """Whole numbers over decimals, far above the readings, counted or over row numbers are ids."""
    assert ingested(csv(tmp_path, text)).meta.node_ids == ids


def test_said_times_in_the_first_line_are_no_header(tmp_path: Path) -> None:
    """Where the first column is said to hold times, a time in the first line is a row."""
    source = csv(tmp_path, "1700000000,5,7\n1700000300,6,8\n")
    store = ingested(source, IngestOptions(timestamps=True))
    assert store.read(0, 2)[..., 0].tolist() == [[5, 7], [6, 8]]
    compact = csv(tmp_path, "20240101,5,7\n20240102,6,8\n")
    options = IngestOptions(time_format="%Y%m%d", overwrite=True)
    assert ingested(compact, options).meta.num_steps == 2


@pytest.mark.parametrize("title", ["unixtime", "when"])
@pytest.mark.parametrize("times", [EPOCHS, [20240101, 20240102, 20240103]])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_likely_times_are_asked_about(
    tmp_path: Path, title: str, times: list[int], suffix: str
) -> None:
    """Rising whole numbers that could be times are refused unless the user says what they are."""
    frame = pd.DataFrame({title: times, "a": [1.5, 2.5, 3.5]})
    source = (
        csv(tmp_path, frame.to_csv(index=False)) if suffix == ".csv" else table(tmp_path, frame)
    )
    with pytest.raises(DataError, match=rf"{title}.*{times[0]}.*timestamps=True.*timestamps=False"):
        ingested(source)
    store = ingested(source, IngestOptions(timestamps=False))
    assert store.meta.node_ids == (title, "a")
    if times is EPOCHS:
        store = ingested(source, IngestOptions(timestamps=True, overwrite=True))
        assert (store.meta.node_ids, store.meta.interval_seconds) == (("a",), 300)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_dates_without_separators_are_no_epoch_times(tmp_path: Path, suffix: str) -> None:
    """202401010005 under "timestamp" is not a moment of 1976."""
    frame = pd.DataFrame({"timestamp": [202401010000, 202401010005], "a": [1.5, 2.5]})
    source = (
        csv(tmp_path, frame.to_csv(index=False)) if suffix == ".csv" else table(tmp_path, frame)
    )
    with pytest.raises(DataError, match=r"202401010000.*time_format"):
        ingested(source)


def test_epoch_times_in_parquet(tmp_path: Path) -> None:
    """A column of whole numbers that is called a time holds times, as in a CSV file."""
    store = ingested(table(tmp_path, pd.DataFrame({"timestamp": EPOCHS, "a": [1.5, 2.5, 3.5]})))
    assert store.meta.node_ids == ("a",)
    assert (store.meta.start, store.meta.time_zone) == ("2023-11-14T22:13:20", "UTC")


@pytest.mark.parametrize(
    "text", [",a,b\n5,1,2\n6,3,4\n", "time,a,\n2024-01-01,1,\n2024-01-02,2,7\n"]
)
def test_empty_ids_are_refused(tmp_path: Path, text: str) -> None:
    """A column without a title is not a sensor."""
    with pytest.raises(DataError, match="empty id"):
        ingested(csv(tmp_path, text))


def test_words_under_a_time_title_are_no_row_numbers(tmp_path: Path) -> None:
    """A time that is not understood in a later row is refused, not ignored."""
    with pytest.raises(DataError, match=r"line 3.*'10000-01-01'"):
        ingested(csv(tmp_path, "time,a\n9999-12-30,1\n10000-01-01,2\n"))


def test_ids_from_elsewhere(tmp_path: Path) -> None:
    """Readings without ids take those given; readings with ids keep their own."""
    values = np.ones((3, 2)) * [1.5, 2.5]
    meta = ingest(values, tmp_path / "s", node_ids=("x1", "x2")).meta
    assert meta.node_ids == ("x1", "x2")
    source = csv(tmp_path, "a,b\n1.5,2.5\n")
    assert ingest(source, tmp_path / "t", node_ids=("x1", "x2")).meta.node_ids == ("a", "b")
    with pytest.raises(DataError, match=r"2 sensors .* 3 ids .*x1, x2"):
        ingest(values, tmp_path / "u", node_ids=("x1", "x2", "x3"))
