"""Graphs as users have them, and their match with the sensors of the readings."""

import gzip
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from pgti.errors import ConfigError, DataError
from pgti.graph import SensorGraph
from pgti.ingestion import IngestOptions, ingest, read_graph
from pgti.store import SeriesStore

IDS = ("400", "7", "55", "9")
# Directed, weighted, with a self-loop and an isolated node: no symmetry hides a transposition.
MATRIX = np.array(
    [[0.5, 0.25, 0, 0], [0, 0, 0.75, 0], [1.0, 0, 0, 0], [0, 0, 0, 0]], dtype=np.float32
)


def stored_matrix(
    tmp_path: Path, graph: object, options: IngestOptions | None = None
) -> np.ndarray:
    """The dense matrix of the store of some readings of the sensors `IDS` with the graph."""
    csv = tmp_path / "readings.csv"
    csv.write_text("400,7,55,9\n" + "1.5,2.5,3.5,4.5\n" * 3)
    ingest(csv, tmp_path / "store", options, graph=graph)
    return SeriesStore.open(tmp_path / "store").graph.adjacency.toarray()


def written_matrix(path: Path) -> Path:
    """`MATRIX` in the format of the path's suffix."""
    match path.name:
        case "dense.npy":
            np.save(path, MATRIX)
        case "dense.npz":
            np.savez(path, adj=MATRIX, other=np.ones(3))
        case "csr.npz":
            csr = sp.csr_array(MATRIX)
            ids = np.array([int(label) for label in IDS])
            np.savez(path, indptr=csr.indptr, indices=csr.indices, data=csr.data, sensor_id=ids)
        case "scipy.npz":
            sp.save_npz(path, sp.csc_array(MATRIX))
        case "pgti.npz":
            SensorGraph(adjacency=sp.csr_array(MATRIX)).save(path)
        case "plain.csv":
            np.savetxt(path, MATRIX, delimiter=",")
        case "titled.csv":
            rows = [",".join([IDS[i], *map(str, row)]) for i, row in enumerate(MATRIX)]
            path.write_text("\n".join([",".join(["", *IDS]), *rows]))
        case "matrix.pkl":
            path.write_bytes(pickle.dumps(MATRIX, protocol=5))
        case _:
            positions = {label: place for place, label in enumerate(IDS)}
            protocol = int(path.suffixes[0].removeprefix(".p"))
            path.write_bytes(pickle.dumps((list(IDS), positions, MATRIX), protocol=protocol))
    return path


@pytest.mark.parametrize(
    "name",
    [
        *("dense.npy", "dense.npz", "csr.npz", "scipy.npz", "pgti.npz", "plain.csv", "titled.csv"),
        *("matrix.pkl", "adj.p0.pkl", "adj.p2.pkl", "adj.p3.pkl", "adj.p4.pkl", "adj.p5.pkl"),
    ],
)
def test_matrices(tmp_path: Path, name: str) -> None:
    """Every format of a matrix gives the same graph, edge by edge."""
    path = written_matrix(tmp_path / name)
    np.testing.assert_array_equal(stored_matrix(tmp_path, path), MATRIX)


def test_matrices_in_memory(tmp_path: Path) -> None:
    """An array, a sparse matrix and a SensorGraph are taken as they are."""
    sparse = sp.csr_array(MATRIX)
    for number, graph in enumerate((MATRIX, sparse, SensorGraph(adjacency=sparse))):
        place = tmp_path / str(number)
        place.mkdir()
        np.testing.assert_array_equal(stored_matrix(place, graph), MATRIX)


def test_python_2_pickle(tmp_path: Path) -> None:
    """A pickle as Python 2 wrote it (bytes as text, `numpy.core`) is read with latin1."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I4\nI4\nt"
        b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS"
        + repr(MATRIX.tobytes())[1:].encode()
        + b"\ntb"
    )
    ids = b"(lp0\n" + b"".join(b"S'%s'\na" % label.encode() for label in IDS)
    places = b"(d" + b"".join(b"S'%s'\nI%d\ns" % (label.encode(), i) for i, label in enumerate(IDS))
    (tmp_path / "adj_mx.pkl").write_bytes(b"(" + ids + places + array + b"t.")
    np.testing.assert_array_equal(stored_matrix(tmp_path, tmp_path / "adj_mx.pkl"), MATRIX)


def test_nodes_are_reordered_by_id(tmp_path: Path) -> None:
    """The same sensors in another order are brought into the order of the readings."""
    order = [2, 0, 3, 1]
    shuffled = [IDS[place] for place in order]
    matrix = MATRIX[np.ix_(order, order)]
    content = (shuffled, {label: place for place, label in enumerate(shuffled)}, matrix)
    (tmp_path / "adj.pkl").write_bytes(pickle.dumps(content))
    np.testing.assert_array_equal(stored_matrix(tmp_path, tmp_path / "adj.pkl"), MATRIX)


def test_readings_without_ids_take_those_of_the_graph(tmp_path: Path) -> None:
    """DCRNN's arrays have no ids; the pickle beside them does."""
    path = written_matrix(tmp_path / "adj.p2.pkl")
    summary = ingest(np.ones((3, 4)), tmp_path / "s", graph=path)
    assert summary.meta.node_ids == IDS


@pytest.mark.parametrize(
    "text",
    [
        "from,to,weight\n400,400,0.5\n400,7,0.25\n7,55,0.75\n55,400,1\n",
        "source\ttarget\tweight\n0\t0\t0.5\n0\t1\t0.25\n1\t2\t0.75\n2\t0\t1\n",
        "400,400,0.5\n400,7,0.25\n7,55,0.75\n55,400,1\n400,7,0.25\n",
        "0 0 0.5\n0 1 0.25\n1 2 0.75\n2 0 1\n2 0 1.0\n",
    ],
)
def test_edge_lists(tmp_path: Path, text: str) -> None:
    """Edges by id or by position, with a header or without, repeated or not."""
    (tmp_path / "edges.csv").write_text(text)
    np.testing.assert_array_equal(stored_matrix(tmp_path, tmp_path / "edges.csv"), MATRIX)


def test_edge_columns_by_name(tmp_path: Path) -> None:
    """Columns of any name and place, from a compressed file."""
    text = "lanes,a,b,v\n3,400,400,.5\n2,400,7,.25\n1,7,55,.75\n9,55,400,1\n"
    (tmp_path / "edges.csv.gz").write_bytes(gzip.compress(text.encode()))
    options = IngestOptions(edges=("a", "b", "v"))
    matrix = stored_matrix(tmp_path, tmp_path / "edges.csv.gz", options)
    np.testing.assert_array_equal(matrix, MATRIX)


def test_distance_table(tmp_path: Path) -> None:
    """DCRNN's table: the thresholded kernel of the distances, other sensors left out."""
    distances = {("400", "7"): 10.0, ("7", "400"): 30.0, ("9", "55"): 400.0, ("9", "9"): 0.0}
    rows = [f"{a},{b},{d}" for (a, b), d in distances.items()]
    (tmp_path / "d.csv").write_text("\n".join(["from,to,cost", "1,2,5.0", *rows, "400,1,3.5"]))
    matrix = stored_matrix(tmp_path, tmp_path / "d.csv")
    sigma = np.std(list(distances.values()))
    expected = np.zeros((4, 4))
    for (a, b), distance in distances.items():
        weight = np.exp(-((distance / sigma) ** 2))
        expected[IDS.index(a), IDS.index(b)] = weight if weight >= 0.1 else 0
    np.testing.assert_allclose(matrix, expected, rtol=1e-6)
    assert matrix[3, 2] == 0
    summary = ingest(
        tmp_path / "readings.csv",
        tmp_path / "store",
        IngestOptions(overwrite=True),
        graph=tmp_path / "d.csv",
    )
    taken, left_out, dropped, alone = summary.notes
    assert left_out == (
        "2 of 6 edges of d.csv were left out: they name 2 sensors that the readings lack: '1', '2'"
    )
    assert alone == "2 of 4 sensors have no edge to another in d.csv: '55', '9'"
    assert "distances by their name" in taken
    named = IngestOptions(overwrite=True, edge_values="distance")
    summary = ingest(tmp_path / "readings.csv", tmp_path / "store", named, graph=tmp_path / "d.csv")
    assert summary.notes == (left_out, dropped, alone)
    assert dropped.startswith("1 of 4 edges of d.csv fell below the threshold and were left out")
    assert f"less than 0.1 at sigma {sigma:.4g}; threshold=0 takes all" in dropped
    everything = IngestOptions(overwrite=True, edge_values="distance", threshold=0.0)
    store = ingest(
        tmp_path / "readings.csv", tmp_path / "store", everything, graph=tmp_path / "d.csv"
    )
    assert (store.notes, store.meta.num_edges) == ((left_out,), 4)


def test_an_edge_to_no_node_names_the_file_once(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("from,to,weight\n401,7,1\n400,101,1\n")
    with pytest.raises(DataError, match=r"line 2 of e.csv, 401 -> 7, leads to no node: '401'"):
        stored_matrix(tmp_path, tmp_path / "e.csv")


def test_positions_outside_are_refused(tmp_path: Path) -> None:
    """Positions beyond the last sensor are no other sensors: the list may count from 1."""
    (tmp_path / "e.csv").write_text("1,2\n2,3\n3,4\n")
    message = r"'4' is not among the 4 sensors .*count from 0, and those of the list from 1"
    with pytest.raises(DataError, match=message):
        ingest(np.ones((3, 4)), tmp_path / "store", graph=tmp_path / "e.csv")


def test_distance_matrix(tmp_path: Path) -> None:
    """A dense matrix of distances is weighed entry by entry, its diagonal included."""
    distance = np.array([[0.0, 2, 9, 9], [2, 0, 9, 9], [1, 9, 0, 9], [9, 9, 9, 0]])
    np.save(tmp_path / "d.npy", distance)
    options = IngestOptions(edge_values="distance", sigma=2.0)
    matrix = stored_matrix(tmp_path, tmp_path / "d.npy", options)
    weights = np.exp(-((distance / 2) ** 2))
    np.testing.assert_allclose(matrix, np.where(weights >= 0.1, weights, 0), rtol=1e-6)


def test_coordinates(tmp_path: Path) -> None:
    """A table of locations, in another order and with more sensors, joins nearest neighbours."""
    text = "index,sensor_id,latitude,longitude\n0,9,34.0,-118.03\n1,55,34.0,-118.02\n"
    text += "2,400,34.0,-118.0\n3,7,34.0,-118.011\n4,1234,10.0,10.0\n"
    (tmp_path / "locations.csv").write_text(text)
    options = IngestOptions(neighbours=1, threshold=0.0)
    matrix = stored_matrix(tmp_path, tmp_path / "locations.csv", options)
    expected = np.zeros((4, 4), dtype=bool)
    for a, b in ((0, 1), (1, 2), (2, 3)):
        expected[a, b] = expected[b, a] = True
    np.testing.assert_array_equal(matrix > 0, expected)
    with pytest.raises(ConfigError, match=r"locations.csv holds coordinates.*neighbours"):
        stored_matrix(tmp_path, tmp_path / "locations.csv", IngestOptions(overwrite=True))


def test_coordinates_in_the_source_make_the_graph(tmp_path: Path) -> None:
    """Positions in the readings' archive are stored, and joined if neighbours are requested."""
    arrays = {"lat": np.array([34.0, 34.1, 34.3]), "lon": np.full(3, -118.0)}
    np.savez(tmp_path / "a.npz", values=np.ones((4, 3)), **arrays)
    alone = ingest(tmp_path / "a.npz", tmp_path / "alone")
    assert alone.meta.num_edges == 0
    assert "neighbours" in alone.notes[0]
    joined = ingest(tmp_path / "a.npz", tmp_path / "joined", IngestOptions(neighbours=1))
    assert joined.meta.num_edges == 4


def test_weights_of_zero_are_told(tmp_path: Path) -> None:
    """A listed edge of weight 0 is left out, with a note."""
    (tmp_path / "e.csv").write_text("from,to,weight\n400,7,0\n7,9,1\n")
    csv = tmp_path / "r.csv"
    csv.write_text("400,7,55,9\n1.5,2.5,3.5,4.5\n")
    summary = ingest(csv, tmp_path / "s", graph=tmp_path / "e.csv")
    assert summary.meta.num_edges == 1
    assert summary.notes[0].startswith("edges of weight 0 were left out of e.csv, 1 of 2;")


def test_read_graph_alone(tmp_path: Path) -> None:
    """A graph is read without readings, with the ids that it names."""
    graph, ids = read_graph(written_matrix(tmp_path / "csr.npz"))
    np.testing.assert_array_equal(graph.adjacency.toarray(), MATRIX)
    assert ids == IDS
    (tmp_path / "e.csv").write_text("from,to\nb,a\na,c\n")
    graph, ids = read_graph(tmp_path / "e.csv")
    assert ids == ("b", "a", "c")
    np.testing.assert_array_equal(graph.edge_index, [[0, 1], [1, 2]])


def test_sensors_that_do_not_match_are_named(tmp_path: Path) -> None:
    """The message shows examples from both sides."""
    others = ["400", "8", "55", "10"]
    content = (others, {label: place for place, label in enumerate(others)}, MATRIX)
    (tmp_path / "adj.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=r"only in the readings '7', '9'; only in the graph '8'"):
        stored_matrix(tmp_path, tmp_path / "adj.pkl")


@pytest.mark.parametrize("title", ["edge_miles", "Distance", "road length"])
def test_distances_are_told_by_name_in_tables_and_archives(tmp_path: Path, title: str) -> None:
    """A value called a distance is one, whether it is a column or an array."""
    (tmp_path / "e.csv").write_text(f"from,to,{title}\n400,7,1\n7,55,2\n55,9,3\n")
    ends = {"from": np.array([400, 7, 55]), "to": np.array([7, 55, 9])}
    np.savez(tmp_path / "e.npz", **ends, **{title: np.array([1.0, 2, 3])})
    options = IngestOptions(edges=("from", "to", title), sigma=3.0, overwrite=True)
    table = stored_matrix(tmp_path, tmp_path / "e.csv", options)
    archive = stored_matrix(tmp_path, tmp_path / "e.npz", options)
    np.testing.assert_allclose(table[0, 1], np.exp(-1 / 9), rtol=1e-6)
    np.testing.assert_array_equal(table, archive)
    unnamed = IngestOptions(sigma=3.0, overwrite=True)
    np.testing.assert_array_equal(stored_matrix(tmp_path, tmp_path / "e.csv", unnamed), table)


def test_square_edge_lists_are_no_matrices(tmp_path: Path) -> None:
    """As many edges as columns: edges if only they fit, asked about if both do."""
    (tmp_path / "e.csv").write_text("0,1,0.5\n1,2,0.5\n2,0,0.25\n")
    matrix = stored_matrix(tmp_path, tmp_path / "e.csv")
    assert matrix[[0, 1, 2], [1, 2, 0]].tolist() == [0.5, 0.5, 0.25]
    assert np.count_nonzero(matrix) == 3
    three = np.ones((4, 3))
    with pytest.raises(DataError, match=r"e.csv has 3 rows.*graph_kind='edges' or .*'matrix'"):
        ingest(three, tmp_path / "t", graph=tmp_path / "e.csv")
    edges = ingest(
        three, tmp_path / "u", IngestOptions(graph_kind="edges"), graph=tmp_path / "e.csv"
    )
    assert edges.meta.num_edges == 3
    whole = ingest(
        three, tmp_path / "v", IngestOptions(graph_kind="matrix"), graph=tmp_path / "e.csv"
    )
    assert whole.meta.num_edges == 7
    (tmp_path / "m.csv").write_text("0.5,1,0.5\n1,2,0.5\n2,0,0.25\n")
    assert ingest(three, tmp_path / "w", graph=tmp_path / "m.csv").meta.num_edges == 8


def test_other_arrays_of_an_archive_are_not_read(tmp_path: Path) -> None:
    """Beside a matrix there may be arrays of objects, and large ones that cost nothing."""
    large = np.zeros((200, 1000, 50))
    path = tmp_path / "g.npz"
    np.savez_compressed(path, adj=MATRIX, large=large, names=np.array([{}], dtype=object))
    tracemalloc.start()
    try:
        graph, _ = read_graph(path)
        assert tracemalloc.get_traced_memory()[1] < large.nbytes // 20
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(graph.adjacency.toarray(), MATRIX)


def test_ids_named_for_the_readings_do_not_disturb_the_graph(tmp_path: Path) -> None:
    """An array of ids in the readings' archive need not be in the graph's."""
    np.savez(tmp_path / "r.npz", v=np.ones((3, 4)), code=np.array([int(label) for label in IDS]))
    path = written_matrix(tmp_path / "dense.npz")
    summary = ingest(tmp_path / "r.npz", tmp_path / "s", IngestOptions(ids="code"), graph=path)
    assert summary.meta.node_ids == IDS
