"""Tables whose rows are sensors, and signs that axes are others than they were taken for."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pgti
from pgti.errors import DataError, name_flags
from pgti.ingestion import IngestOptions, open_readings

DAYS = pd.date_range("2020-01-22", periods=20)
VALUES = np.random.default_rng(0).integers(0, 9000, (5, 20)).astype(float)


def table(columns: object = None, **about: object) -> pd.DataFrame:
    """Rows of sensors, behind columns that describe them."""
    frame = pd.DataFrame(VALUES, columns=DAYS.strftime("%Y-%m-%d") if columns is None else columns)
    for place, (title, cells) in enumerate(about.items()):
        frame.insert(place, title, cells)
    return frame


def written(path: Path, frame: pd.DataFrame, **how: object) -> Path:
    """The table as a file of text, by default without row numbers."""
    frame.to_csv(path / "a.csv", **{"index": False, **how})
    return path / "a.csv"


def refusal(source: object, target: Path, **options: object) -> str:
    """The one line that refuses a source; nothing is written."""
    with pytest.raises(pgti.PgtiError) as caught, name_flags():
        pgti.ingest(source, target, **options)
    assert not target.exists()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("columns", ["%Y-%m-%d", "%m/%d/%y", "%d.%m.%Y", "%Y/%m/%d", "%m/%d/%Y"])
@pytest.mark.parametrize("budget_bytes", [1, 1 << 14, 1 << 20])
def test_dates_as_titles(tmp_path: Path, columns: str, budget_bytes: int) -> None:
    """Refused without the option; with it rows are sensors and titles are times."""
    path = written(tmp_path, table(DAYS.strftime(columns), page=list("abcde")))
    message = refusal(path, tmp_path / "s")
    assert message.startswith("the header of a.csv holds dates (")
    assert "--transpose" in message
    options = IngestOptions(transpose=True, budget_bytes=budget_bytes)
    store = pgti.ingest(path, tmp_path / "s", options)
    assert store.meta.node_ids == tuple("abcde")
    assert (store.meta.start, store.meta.interval_seconds) == ("2020-01-22T00:00:00", 86400)
    np.testing.assert_array_equal(store.read(0, 20)[..., 0], VALUES.T)


def test_dates_that_could_be_two(tmp_path: Path) -> None:
    """Titles that fit two formats are refused, naming both."""
    days = [f"{month}/1/2020" for month in range(1, 13)]
    path = written(tmp_path, pd.DataFrame(VALUES[:, :12], columns=days))
    message = refusal(path, tmp_path / "s", transpose=True)
    assert "--time-format %m/%d/%Y or --time-format %d/%m/%Y" in message
    store = pgti.ingest(path, tmp_path / "s", transpose=True, time_format="%d/%m/%Y")
    assert store.meta.start == "2020-01-01T00:00:00"
    assert store.meta.interval_seconds == 86400


def test_epidemic_table(tmp_path: Path) -> None:
    """Ids are joined where no column alone has them; places become coordinates; others are said."""
    about = {
        "Province/State": ["", "", "Hubei", "Gansu", ""],
        "Country/Region": ["Italy", "Chad", "China", "China", "China"],
        "Lat": [41.9, 15.5, 31.0, 35.8, 30.6],
        "Long": [12.6, 18.7, 112.3, 104.3, 117.9],
        "Population": [6, 1, 5, 2, 9],
    }
    path = written(tmp_path, table([f"{d.month}/{d.day}/{d:%y}" for d in DAYS], **about))
    store = pgti.ingest(path, tmp_path / "s", transpose=True)
    assert store.meta.node_ids == ("Italy", "Chad", "Hubei, China", "Gansu, China", "China")
    np.testing.assert_array_equal(store.graph.coordinates[:, 1], about["Long"])
    notes = " ".join(store.notes)
    assert "the ids of a.csv are its columns Province/State, Country/Region, joined" in notes
    assert "other things than readings, left out: Population" in notes
    near = pgti.ingest(path, tmp_path / "near", transpose=True, neighbours=1)
    assert near.graph.adjacency.nnz > 0


def test_an_id_column_is_found_or_named(tmp_path: Path) -> None:
    """A column called so comes first, numbers too; the user may name another."""
    path = written(tmp_path, table(UID=[84001, 84002, 84003, 84004, 84005], key=list("abcde")))
    assert open_readings(path, IngestOptions(transpose=True)).node_ids is not None
    store = pgti.ingest(path, tmp_path / "s", transpose=True)
    assert store.meta.node_ids == ("84001", "84002", "84003", "84004", "84005")
    assert "left out: key" in " ".join(store.notes)
    named = pgti.ingest(path, tmp_path / "s2", transpose=True, ids="key")
    assert named.meta.node_ids == tuple("abcde")
    assert "no column 'code'" in refusal(path, tmp_path / "s3", transpose=True, ids="code")
    assert "cannot use" in refusal(path, tmp_path / "s3", ids="key")


def test_titles_that_are_no_dates(tmp_path: Path) -> None:
    """Columns that only count the steps give no times; row numbers of pandas are ids."""
    path = written(tmp_path, table([f"V{i}" for i in range(1, 21)], series=list("abcde")))
    store = pgti.ingest(path, tmp_path / "s", transpose=True, start="2020-01-01", interval="1d")
    assert store.meta.node_ids == tuple("abcde")
    assert store.meta.start == "2020-01-01T00:00:00"
    np.testing.assert_array_equal(store.read(0, 20)[..., 0], VALUES.T)
    counted = written(tmp_path, table(), index=True)
    assert pgti.ingest(counted, tmp_path / "s2", transpose=True).meta.node_ids == tuple("01234")


def test_frames(tmp_path: Path) -> None:
    """A DataFrame whose columns are dates, with the sensors in its index or in a column."""
    frame = pd.DataFrame(VALUES, columns=DAYS)
    for given in (frame, frame.set_axis(list("abcde")), table(page=list("abcde"))):
        assert "--transpose" in refusal(given, tmp_path / "s")
        store = pgti.ingest(given, tmp_path / "s", transpose=True, overwrite=True)
        np.testing.assert_array_equal(store.read(0, 20)[..., 0], VALUES.T)
        assert store.meta.start == "2020-01-22T00:00:00"
        assert store.meta.node_ids == tuple("01234" if given is frame else "abcde")
        shutil.rmtree(tmp_path / "s")
    wide = frame.T.set_axis(DAYS[:5].astype(str), axis=1)  # sensors that are called as days
    assert pgti.ingest(wide, tmp_path / "s").meta.num_steps == 20


def test_years_behind_text_are_times(tmp_path: Path) -> None:
    """The layout of development indicators."""
    years = [str(year) for year in range(2000, 2020)]
    path = written(tmp_path, table(years, **{"Country Name": list("abcde")}))
    assert "--transpose" in refusal(path, tmp_path / "s")
    store = pgti.ingest(path, tmp_path / "s", transpose=True, gaps="keep")
    assert store.meta.node_ids == tuple("abcde")
    assert store.meta.start == "2000-01-01T00:00:00"


def test_names_of_sensors_are_no_dates(tmp_path: Path) -> None:
    """Titles of sensors may look like dates where rows have times, or where they do not rise."""
    frame = pd.DataFrame(VALUES.T, index=DAYS, columns=["1-1-1", "1-1-2", "2001-05", "a", "b"])
    assert pgti.ingest(written(tmp_path, frame, index=True), tmp_path / "s").meta.num_nodes == 5
    dated = frame.set_axis(DAYS[:5].strftime("%Y-%m-%d"), axis=1)
    assert pgti.ingest(written(tmp_path, dated, index=True), tmp_path / "s2").meta.num_nodes == 5


def test_a_matrix_without_a_header(tmp_path: Path) -> None:
    """With as many rows as the graph has nodes it is refused; the option reads it."""
    path = written(tmp_path, pd.DataFrame(VALUES), header=False)
    graph = np.eye(5)
    message = refusal(path, tmp_path / "s", graph=graph)
    assert "has 5 nodes, as many as a.csv has rows" in message
    assert "--transpose" in message
    store = pgti.ingest(path, tmp_path / "s", graph=graph, transpose=True)
    np.testing.assert_array_equal(store.read(0, 20)[..., 0], VALUES.T)
    (note,) = pgti.ingest(path, tmp_path / "s2").notes[1:]
    assert "5 steps of 20 sensors, more sensors than steps" in note


@pytest.mark.parametrize(
    ("shape", "nodes", "words"),
    [
        ((5, 20), 5, "--transpose"),
        ((5, 20, 3), 5, "--axes sensor,time,channel"),
        ((20, 3, 5), 5, "--axes time,channel,sensor"),
    ],
)
def test_a_graph_of_another_axis(
    tmp_path: Path, shape: tuple[int, ...], nodes: int, words: str
) -> None:
    """The refusal names the option; so does one of an archive's ids."""
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=shape))
    assert words in refusal(tmp_path / "a.npy", tmp_path / "s", graph=np.eye(nodes))
    np.savez(tmp_path / "a.npz", a=np.ones(shape), node_ids=np.arange(nodes) + 100)
    message = refusal(tmp_path / "a.npz", tmp_path / "s")
    assert f"has {nodes} ids in node_ids" in message
    assert words in message


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((5, 20), "more sensors than steps"),
        ((5, 5), "as many sensors as steps"),
        ((50, 3, 20), "3 sensors with 20 channels each"),
    ],
)
def test_axes_without_proof_are_said(tmp_path: Path, shape: tuple[int, ...], words: str) -> None:
    """An array that could be meant otherwise is read, with a note; ids or a graph are proof."""
    array = np.random.default_rng(0).normal(size=shape)
    assert words in " ".join(pgti.ingest(array, tmp_path / "s").notes)
    names = tuple(map(str, range(100, 100 + shape[1])))
    known = pgti.ingest(array, tmp_path / "s2", node_ids=names)
    assert words not in " ".join(known.notes)
    said = ("time", "sensor", "channel")[: len(shape)]
    assert words not in " ".join(pgti.ingest(array, tmp_path / "s3", axes=said).notes)


def test_usual_arrays_get_no_note(tmp_path: Path) -> None:
    """More steps than sensors, and more sensors than channels, are as they should be."""
    store = pgti.ingest(np.random.default_rng(0).normal(size=(30, 5, 2)), tmp_path / "s")
    assert len(store.notes) == 1  # there is no graph


def test_newer_arrays(tmp_path: Path) -> None:
    """They are read with the axes of the first; another order is refused with the option."""
    array = np.random.default_rng(0).normal(size=(3, 60)).astype(np.float32)
    np.save(tmp_path / "old.npy", array[:, :40])
    np.save(tmp_path / "new.npy", array[:, 40:])
    np.save(tmp_path / "turned.npy", array[:, 40:].T)
    store = pgti.ingest(tmp_path / "old.npy", tmp_path / "s", transpose=True)
    with pytest.raises(DataError, match=r"20 sensors without ids .* axes are taken as"):
        store.append(tmp_path / "turned.npy")
    grown = store.append(tmp_path / "new.npy")
    np.testing.assert_array_equal(grown.read(0, 60)[..., 0], array.T)
    plain = pgti.ingest(array[:, :40].T.copy(), tmp_path / "s2")
    with pytest.raises(DataError, match=r"if its rows are sensors, read it with transpose=True"):
        plain.append(array[:, 40:])
    assert plain.append(array[:, 40:], transpose=True).meta.num_steps == 60
    square = plain.append(array[:, 40:43])
    assert "the array has as many rows as sensors, 3" in " ".join(square.notes)


def test_a_newer_transposed_table(tmp_path: Path) -> None:
    """The file of the next day has a column more, and its rows in another order."""
    whole = table(page=list("abcde"))
    store = pgti.ingest(written(tmp_path, whole.iloc[:, :11]), tmp_path / "s", transpose=True)
    grown = store.append(written(tmp_path, whole.iloc[::-1]))
    assert grown.meta.num_steps == 20
    np.testing.assert_array_equal(grown.read(0, 20)[..., 0], VALUES.T)
