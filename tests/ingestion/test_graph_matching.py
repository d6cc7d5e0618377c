"""What the numbers of edges mean, which nodes are left out, and what is said about it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pgti.errors import DataError
from pgti.ingestion import IngestOptions, ingest, read_graph
from pgti.store import SeriesStore

IDS = ("400", "7", "55")


def stored(tmp_path: Path, graph: object, **options: object) -> SeriesStore:
    """The store of some readings of `IDS` with a graph, which may be the text of a CSV file."""
    readings = tmp_path / "readings.csv"
    readings.write_text(",".join(IDS) + "\n" + "1.5,2.5,3.5\n" * 3)
    if isinstance(graph, str):
        (tmp_path / "g.csv").write_text(graph)
        graph = tmp_path / "g.csv"
    options = {"overwrite": True, **options}
    return ingest(readings, tmp_path / "store", IngestOptions(**options), graph=graph)


def weights(store: SeriesStore) -> dict[tuple[str, str], float]:
    source, target = store.graph.edge_index
    ids = store.meta.node_ids
    values = store.graph.edge_weight.tolist()
    return {(ids[a], ids[b]): v for a, b, v in zip(source, target, values, strict=True)}


def kernel(distance: float, sigma: float) -> float:
    return pytest.approx(np.exp(-((distance / sigma) ** 2)), rel=1e-6)


def test_a_distance_of_0_to_itself_makes_distances(tmp_path: Path) -> None:
    """DCRNN's list without a header: from,to,metres; a weight of 0 would be no edge."""
    metres = {("400", "400"): 0.0, ("400", "7"): 500.0, ("7", "7"): 0.0, ("7", "55"): 900.0}
    text = "".join(f"{a},{b},{d}\n" for (a, b), d in metres.items())
    store = stored(tmp_path, text)
    sigma = np.std(list(metres.values()))
    assert weights(store) == {
        pair: kernel(d, sigma) for pair, d in metres.items() if kernel(d, sigma).expected >= 0.1
    }
    assert "are distances because that from a sensor to itself is 0" in store.notes[0]
    assert store.notes == stored(tmp_path, text).notes


@pytest.mark.parametrize("text", ["400,7,500\n7,55,900.5\n", "from,to,value\n400,7,2\n7,55,3\n"])
def test_values_that_could_be_either_are_asked_about(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"g.csv could hold weights or distances.*edge_values="):
        stored(tmp_path, text)
    as_weights = weights(stored(tmp_path, text, edge_values="weight"))
    values = [float(line.split(",")[2]) for line in text.splitlines() if line[0].isdecimal()]
    assert list(as_weights.values()) == values
    sigma = np.std(values)
    as_distances = weights(stored(tmp_path, text, edge_values="distance", threshold=0.0))
    expected = [kernel(value, sigma) for value in values]
    assert [as_distances[pair] for pair in as_weights] == expected


@pytest.mark.parametrize(
    "text", ["400,7,0.5\n7,55,1\n", "from,to,weight\n400,7,7\n7,55,3\n", "a,b,edge_weight\n"]
)
def test_weights_that_are_certain_are_taken(tmp_path: Path, text: str) -> None:
    options = {}
    if text.startswith("a,b"):
        text, options = text + "400,7,12\n", {"edges": ("a", "b", "edge_weight")}
    found = weights(stored(tmp_path, text, **options))
    assert max(found.values()) in (1.0, 7.0, 12.0)


def test_a_matrix_of_distances_between_all_is_asked_about(tmp_path: Path) -> None:
    distances = np.array([[0, 2.0, 9], [2, 0, 4], [9, 4, 0]])
    with pytest.raises(DataError, match=r"reach 9, are 0 on the diagonal and nowhere else: pass"):
        stored(tmp_path, distances)
    assert weights(stored(tmp_path, distances, edge_values="weight"))["400", "55"] == 9
    few = np.array([[0, 2.0, 0], [2, 0, 4], [0, 4, 0]])
    store = stored(tmp_path, few)
    assert weights(store)["7", "55"] == 4
    assert "entries of the matrix reach 4 and are weights" in store.notes[0]
    assert not stored(tmp_path, few / 4).notes


def test_edges_of_other_sensors_are_left_out(tmp_path: Path) -> None:
    text = "from,to,weight\n400,7,0.5\n7,9,0.25\n8,10,0.5\n11,12,1\n13,7,1\n"
    store = stored(tmp_path, text)
    assert weights(store) == {("400", "7"): 0.5}
    assert store.notes == (
        "4 of 5 edges of g.csv were left out: they name 6 sensors that the readings lack: "
        "'9', '8', '10' and 3 more",
        "1 of 3 sensors has no edge to another in g.csv: '55'",
    )
    with pytest.raises(DataError, match="leads to no node: '8'"):
        stored(tmp_path, "from,to,weight\n8,9,0.5\n9,8,0.25\n")


def test_nodes_of_a_matrix_that_the_readings_lack(tmp_path: Path) -> None:
    titled = ",55,9,400,7\n55,0,1,.5,0\n9,1,0,0,1\n400,0,0,0,.25\n7,0,1,0,0\n"
    store = stored(tmp_path, titled)
    assert weights(store) == {("55", "400"): 0.5, ("400", "7"): 0.25}
    assert store.notes == ("1 node of g.csv that the readings lack was left out: '9'",)
    with pytest.raises(DataError, match="only in the readings '7'"):
        stored(tmp_path, titled.replace("7", "8"))


def test_every_sensor_has_its_neighbours(tmp_path: Path) -> None:
    """A remote sensor has as many edges as the others, with the smallest weight, and a note."""
    latitude = [34.0, 34.01, 34.02, 34.03, 34.04, 44.0]
    rows = [f"{place},{each},-118.0" for place, each in enumerate(latitude)]
    (tmp_path / "pos.csv").write_text("\n".join(["id,latitude,longitude", *rows]))
    store = ingest(
        np.ones((3, 6)),
        tmp_path / "store",
        IngestOptions(neighbours=2),
        graph=tmp_path / "pos.csv",
    )
    matrix = store.graph.adjacency.toarray()
    assert (np.count_nonzero(matrix, axis=1) >= 2).all()
    km = 6371.0088 * np.radians(44.0 - 34.03)
    assert matrix[5, 4] == np.float32(0.1)
    (note,) = store.notes
    assert f"the longest, '3' to '5', has {km:,.4g} km (median 1.668 km)" in note
    even = ingest(
        np.ones((3, 5)),
        tmp_path / "even",
        IngestOptions(neighbours=2),
        graph=_first_lines(tmp_path / "pos.csv", 6),
    )
    assert even.notes == ()


def _first_lines(path: Path, count: int) -> Path:
    shorter = path.with_name("first.csv")
    shorter.write_text("\n".join(path.read_text().splitlines()[:count]))
    return shorter


def test_longitudes_from_0_to_360(tmp_path: Path) -> None:
    places = "id,latitude,longitude\n400,-5,0\n7,-5,180\n55,-5,350.5\n"
    store = stored(tmp_path, places, neighbours=1)
    assert store.graph.coordinates is not None
    assert store.graph.coordinates.tolist() == [[-5, 0], [-5, 180], [-5, -9.5]]
    assert "longitudes of g.csv run from 0 to 360" in store.notes[0]
    for wrong in ("350.5,-5", "-5,361", "-91,200"):
        with pytest.raises(DataError, match="are the columns swapped"):
            stored(tmp_path, places.replace("-5,350.5", wrong), neighbours=1)
    with pytest.raises(DataError, match="are the columns swapped"):  # neither rule fits both
        stored(tmp_path, places.replace("-5,0", "-5,-1"), neighbours=1)


def test_names_with_blanks_between_tabs(tmp_path: Path) -> None:
    """The Census lists a county once, with all its neighbours: name, code, name, code."""
    (tmp_path / "adjacency.txt").write_text(
        '"A B, C D"\t400\t"E F, G H"\t7\n\t\t"I J, K"\t55\n"E F, G H"\t7\t"A B, C D"\t400\n'
    )
    graph = tmp_path / "adjacency.txt"
    with pytest.raises(DataError, match=r"4 columns without a header.*by number from 1"):
        stored(tmp_path, graph)
    store = stored(tmp_path, graph, edges=("2", "4"))
    assert sorted(weights(store)) == [("400", "55"), ("400", "7"), ("7", "400")]
    assert store.notes == ("1 line of adjacency.txt without a source belongs to the one above",)
    with pytest.raises(DataError, match=r"no column '5'; it has no header, and columns 1 to 4"):
        stored(tmp_path, graph, edges=("2", "5"))


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|", " "])
def test_ends_that_are_names(tmp_path: Path, delimiter: str) -> None:
    """A first line that names sensors, or holds a number, is no header."""
    names = ("Main St N", "Elm Rd", "A-9")
    readings = tmp_path / "r.csv"
    readings.write_text(",".join(names) + "\n" + "1.5,2.5,3.5\n" * 3)
    quote = '"' if delimiter == " " else ""
    rows = [(names[0], names[1], "0.5"), (names[1], names[2], "0.25")]
    given = {"graph_delimiter": "|"} if delimiter == "|" else {}
    for columns in (3, 2):
        text = "\n".join(
            delimiter.join([f"{quote}{cell}{quote}" for cell in row[:2]] + list(row[2:columns]))
            for row in rows
        )
        (tmp_path / "e.txt").write_text(text + "\n")
        options = IngestOptions(overwrite=True, **given)
        store = ingest(readings, tmp_path / "store", options, graph=tmp_path / "e.txt")
        expected = [0.5, 0.25] if columns == 3 else [1.0, 1.0]
        assert weights(store) == dict(zip([row[:2] for row in rows], expected, strict=True))


def test_decimal_commas_of_weights(tmp_path: Path) -> None:
    assert weights(stored(tmp_path, "400;7;0,5\n7;55;0,25\n")) == {
        ("400", "7"): 0.5,
        ("7", "55"): 0.25,
    }
    thousands = "from;to;length\n400;7;1,500\n7;55;2,250\n"
    with pytest.raises(DataError, match=r"holds '1,500'.*decimal=',' reads decimal commas"):
        stored(tmp_path, thousands)
    graph, _ = read_graph(tmp_path / "g.csv", IngestOptions(decimal=",", edge_values="weight"))
    assert sorted(graph.edge_weight.tolist()) == [1.5, 2.25]


def test_encodings_of_a_list(tmp_path: Path) -> None:
    """Another encoding than UTF-8 is refused with candidates, and read once it is named."""
    readings = pd.DataFrame({"\u5317\u4eac": [1.5, 2.5], "\u4e0a\u6d77": [3.5, 4.5]})
    (tmp_path / "e.csv").write_bytes("\u5317\u4eac,\u4e0a\u6d77,0.5\n".encode("gb18030"))
    with pytest.raises(DataError, match=r"e.csv is not UTF-8 .* gb18030 reads"):
        ingest(readings, tmp_path / "store", graph=tmp_path / "e.csv")
    options = IngestOptions(encoding="gb18030")
    store = ingest(readings, tmp_path / "store", options, graph=tmp_path / "e.csv")
    assert weights(store) == {("\u5317\u4eac", "\u4e0a\u6d77"): 0.5}
