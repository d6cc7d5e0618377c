"""Data sets of PyTorch Geometric Temporal in JSON."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from pgti.errors import DataError
from pgti.ingestion import IngestOptions, ingest
from pgti.store import SeriesStore

ROWS = [[1.0, 2.5, 3.0], [4.0, 5.5, 6.0]]


def written(path: Path, content: object) -> Path:
    """The content as a JSON file."""
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_chickenpox(tmp_path: Path) -> None:
    """Names of columns, edges without weights, and rows FX."""
    content = {"edges": [[0, 1], [1, 2], [2, 2]], "node_ids": {"B": 1, "A": 0, "C": 2}, "FX": ROWS}
    ingest(written(tmp_path / "a.json", content), tmp_path / "s")
    store = SeriesStore.open(tmp_path / "s")
    assert store.meta.node_ids == ("A", "B", "C")
    np.testing.assert_array_equal(store.read(0, 2)[..., 0], ROWS)
    np.testing.assert_array_equal(store.graph.edge_index, [[0, 1, 2], [1, 2, 2]])


@pytest.mark.parametrize("key", ["block", "X"])
def test_windmill_and_pedalme(tmp_path: Path, key: str) -> None:
    """Edges with weights, and rows under either key, from a gzipped file."""
    content = {"edges": [[0, 1], [2, 0]], "weights": [0.5, 2.0], key: ROWS}
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps(content).encode()))
    ingest(tmp_path / "a.json.gz", tmp_path / "s")
    store = SeriesStore.open(tmp_path / "s")
    np.testing.assert_array_equal(store.read(0, 2)[..., 0], ROWS)
    np.testing.assert_array_equal(store.graph.edge_weight, [0.5, 2.0])


def test_montevideo(tmp_path: Path) -> None:
    """A node-link file: a series in each node, links by the names of nodes."""
    content = {
        "nodes": [{"bus_stop": 70, "y": [1, 2, 3]}, {"bus_stop": 60, "y": [4, 5, 6]}],
        "links": [{"source": 60, "target": 70, "weight": 172.5}],
    }
    ingest(written(tmp_path / "a.json", content), tmp_path / "s")
    store = SeriesStore.open(tmp_path / "s")
    assert store.meta.node_ids == ("70", "60")
    np.testing.assert_array_equal(store.read(0, 3)[..., 0], [[1, 4], [2, 5], [3, 6]])
    np.testing.assert_array_equal(store.graph.adjacency.toarray(), [[0, 0], [172.5, 0]])


def test_a_changing_graph_needs_one_that_stays(tmp_path: Path) -> None:
    """A graph that changes with time is refused; its readings go with a graph of the user's."""
    edges = {"0": [[0, 1]], "1": [[1, 2]]}
    content = {"edge_mapping": {"edge_index": edges}, "time_periods": 2, "y": ROWS}
    path = written(tmp_path / "a.json", content)
    with pytest.raises(DataError, match=r"changes with time \(2 edge lists\).*graph"):
        ingest(path, tmp_path / "s")
    ingest(path, tmp_path / "s", IngestOptions(), graph=np.eye(3))
    assert SeriesStore.open(tmp_path / "s").graph.num_edges == 3


def periods(dates: list[tuple[int, int, int]], **more: object) -> dict[str, object]:
    """WikiMaths' schema: an object for each period."""
    named = [dict(zip(("year", "month", "day"), date, strict=True)) for date in dates]
    content = {
        str(row): {"index": row, **date, "y": ROWS[row % 2]} for row, date in enumerate(named)
    }
    return {"time_periods": len(dates), "node_ids": {"A": 0, "C": 2, "B": 1}, **content, **more}


def test_wikimaths(tmp_path: Path) -> None:
    """An object for each period has the readings and the date; edges and ids stand beside."""
    days = [(2019, 3, day) for day in (30, 31)] + [(2019, 4, 1)]
    content = periods(days, edges=[[0, 1], [2, 0]], weights=[1, 3])
    store = ingest(written(tmp_path / "a.json", content), tmp_path / "s")
    assert store.meta.node_ids == ("A", "B", "C")
    assert (store.meta.start, store.meta.interval_seconds) == ("2019-03-30T00:00:00", 86_400)
    np.testing.assert_array_equal(store.read(0, 3)[..., 0], [ROWS[0], ROWS[1], ROWS[0]])
    np.testing.assert_array_equal(
        store.graph.adjacency.toarray(), [[0, 1, 0], [0, 0, 0], [3, 0, 0]]
    )


def test_dates_that_do_not_rise_are_left_out_with_a_note(tmp_path: Path) -> None:
    """Rows are then numbered, and take the start and interval of the user."""
    days = [(2019, 3, 16), (2019, 3, 17), (2019, 3, 16)]
    path = written(tmp_path / "a.json", periods(days, edges=[[0, 1]]))
    store = ingest(path, tmp_path / "s")
    assert "2019-03-16 in period 2 follows 2019-03-17" in "".join(store.notes)
    assert store.meta.start is None
    dated = ingest(path, tmp_path / "d", start="2019-03-16", interval="1d")
    assert dated.meta.start == "2019-03-16T00:00:00"


def test_twitter_tennis(tmp_path: Path) -> None:
    """Edges in every period are a graph that changes; its readings go with one of the user's."""
    content = {
        str(row): {"edges": [[0, 1]], "weights": [1], "X": [[1, 0]] * 3, "y": ROWS[row]}
        for row in range(2)
    }
    path = written(tmp_path / "a.json", {"time_periods": 2, **content})
    with pytest.raises(DataError, match=r"changes with time \(2 edge lists\).*graph"):
        ingest(path, tmp_path / "s")
    store = ingest(path, tmp_path / "s", graph=np.eye(3))
    np.testing.assert_array_equal(store.read(0, 2)[..., 0], ROWS)
    assert any("X of a.json" in note for note in store.notes)
    assert any("2 edge lists" in note for note in store.notes)


def test_mtm(tmp_path: Path) -> None:
    """Joints have a point as text in every frame; classes of frames are no readings."""
    joints = {
        str(node): {str(row): f"({node}.5, {row}, -1e-1)" for row in range(4)} for node in range(3)
    }
    content = {**joints, "LABEL": {str(row): 2 for row in range(4)}, "edges": [[0, 1], [1, 2]]}
    store = ingest(written(tmp_path / "a.json", content), tmp_path / "s")
    assert store.meta.channels == ("x", "y", "z")
    np.testing.assert_array_equal(store.read(3, 4)[0, :, :2], [[0.5, 3], [1.5, 3], [2.5, 3]])
    np.testing.assert_array_equal(store.read(0, 4)[..., 2], np.full((4, 3), np.float32(-0.1)))
    assert any("LABEL" in note for note in store.notes)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"time_periods": 9, "0": {"y": [1]}, "edges": []}, "time_periods of a.json is 9"),
        ({"time_periods": 1, "0": {"x": [1]}, "edges": []}, "entry 0 of periods"),
        ({"LABEL": {}, "0": {"0": "1,2,3"}, "edges": [[0, 0]]}, "node 0 of a.json has '1,2,3'"),
        ({"LABEL": {}, "0": {"0": "(1,2,b)"}, "edges": [[0, 0]]}, "cannot be read as JSON"),
        (
            periods([(2019, 13, 1)], edges=[[0, 1]]),
            "cannot be read as JSON: month must be",
        ),
    ],
)
def test_damaged_schemas(tmp_path: Path, content: object, match: str) -> None:
    """One line says what is wrong."""
    with pytest.raises(DataError, match=match):
        ingest(written(tmp_path / "a.json", content), tmp_path / "s")
