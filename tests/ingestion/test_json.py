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
