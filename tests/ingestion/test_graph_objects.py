"""Graphs of the libraries in which people have them, and the files that they write."""

import json
import warnings
from pathlib import Path
from typing import Any

import geopandas
import networkx as nx
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.io
import scipy.sparse as sp
import torch

from pgti.errors import ConfigError, DataError
from pgti.ingestion import IngestOptions, ingest, read_graph
from pgti.store import SeriesStore

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # importing it warns about torch's compiler
    from torch_geometric.data import Data

IDS = ("400", "7", "55", "9")
# Directed, weighted, with a self-loop and an isolated node: no symmetry hides a transposition.
MATRIX = np.array([[0.5, 0.25, 0, 0], [0, 0, 0.75, 0], [1.0, 0, 0, 0], [0, 0, 0, 0]])
SOURCE, TARGET = np.nonzero(MATRIX)
WEIGHT = MATRIX[SOURCE, TARGET]
EDGES = np.stack([SOURCE, TARGET])


def stored(tmp_path: Path, graph: Any, **options: Any) -> SeriesStore:
    readings = tmp_path / "readings.csv"
    readings.write_text(",".join(IDS) + "\n" + "1.5,2.5,3.5,4.5\n" * 3)
    options = {"overwrite": True, **options}
    return ingest(readings, tmp_path / "store", IngestOptions(**options), graph=graph)


def matrix_of(store: SeriesStore) -> np.ndarray:
    return store.graph.adjacency.toarray()


def network(labels: tuple[Any, ...] = IDS, attribute: str = "weight") -> nx.DiGraph:
    """`MATRIX` with some labels; nodes are added backwards, so that order alone is wrong."""
    graph = nx.DiGraph()
    graph.add_nodes_from(reversed(labels))
    for source, target, weight in zip(SOURCE, TARGET, WEIGHT, strict=True):
        graph.add_edge(labels[source], labels[target], **{attribute: float(weight)})
    return graph


def edge_frame() -> pd.DataFrame:
    names = np.array(IDS).astype(int)
    return pd.DataFrame({"from": names[SOURCE], "to": names[TARGET], "weight": WEIGHT})


OBJECTS = {
    "edge_index and weights": lambda: (EDGES, WEIGHT),
    "edges by rows": lambda: (EDGES.T, WEIGHT),
    "edge_index of torch": lambda: (torch.from_numpy(EDGES), torch.from_numpy(WEIGHT)),
    "weights in a column": lambda: [torch.from_numpy(EDGES), torch.from_numpy(WEIGHT)[:, None]],
    "matrix of torch": lambda: torch.from_numpy(MATRIX),
    "sparse matrix of torch": lambda: torch.from_numpy(MATRIX).to_sparse(),
    "CSR of torch": lambda: torch.from_numpy(MATRIX).to_sparse_csr(),
    "np.matrix": lambda: np.asmatrix(MATRIX),
    "network": network,
    "network of numbers": lambda: network(tuple(map(int, IDS))),
    "network of positions": lambda: network((0, 1, 2, 3)),
    "Data with edge_weight": lambda: Data(
        edge_index=torch.from_numpy(EDGES), edge_weight=torch.from_numpy(WEIGHT), num_nodes=4
    ),
    "Data with edge_attr": lambda: Data(
        edge_index=torch.from_numpy(EDGES), edge_attr=torch.from_numpy(WEIGHT)[:, None], num_nodes=4
    ),
    "pandas": edge_frame,
    "polars": lambda: pl.from_pandas(edge_frame()),
    "Arrow": lambda: pa.Table.from_pandas(edge_frame()),
    "pandas matrix": lambda: pd.DataFrame(MATRIX, index=list(IDS), columns=list(IDS)),
    **{
        f"scipy {kind} {layout}": lambda kind=kind, layout=layout: getattr(sp, f"{layout}_{kind}")(
            MATRIX
        )
        for kind in ("array", "matrix")
        for layout in ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")
    },
}


@pytest.mark.parametrize("name", OBJECTS)
def test_objects(tmp_path: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of np.matrix, and of torch's CSR
        graph = OBJECTS[name]()
    np.testing.assert_array_equal(matrix_of(stored(tmp_path, graph)), MATRIX.astype(np.float32))
    ids = read_graph(graph)[1]
    assert set(ids) in (set(IDS), set("0123"), {"0", "1", "2"}, set(IDS[:3]))


def test_edges_without_weights(tmp_path: Path) -> None:
    ones = (MATRIX > 0).astype(np.float32)
    for graph in (EDGES, EDGES.T, (EDGES, None), Data(edge_index=torch.from_numpy(EDGES))):
        np.testing.assert_array_equal(matrix_of(stored(tmp_path, graph)), ones)


def test_edges_in_files_of_numpy(tmp_path: Path) -> None:
    """Positions of edges are read from files as from arrays."""
    np.save(tmp_path / "edges.npy", EDGES)
    ones = (MATRIX > 0).astype(np.float32)
    np.testing.assert_array_equal(matrix_of(stored(tmp_path, tmp_path / "edges.npy")), ones)
    for key in ("edge_weight", "edge_attr"):
        np.savez(tmp_path / "edges.npz", edge_index=EDGES, **{key: WEIGHT})
        graph = matrix_of(stored(tmp_path, tmp_path / "edges.npz"))
        np.testing.assert_array_equal(graph, MATRIX.astype(np.float32))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ((np.array([[0, 1], [2, 0]]), None), r"shape \(2, 2\), which could be \[2, E\] or"),
        ((EDGES.astype(float), WEIGHT), r"float64 \(2, 4\): the rule is whole numbers \[2, E\]"),
        ((EDGES, WEIGHT[:3]), r"values of the edges have shape \(3,\), and edge_index has 4 edges"),
        ((EDGES, WEIGHT * 90), "edge_index could hold weights or distances"),
        ((EDGES + 9, WEIGHT), "leads to no node"),
        (Data(x=torch.ones(5, 1), edge_index=torch.from_numpy(EDGES)), "5 nodes, and .* 4 sensors"),
        (
            Data(edge_index=torch.from_numpy(EDGES), edge_attr=torch.ones(4, 2)),
            "edge_attr .* has 2 columns: set edge_weight",
        ),
        (nx.DiGraph(), "the network has no nodes"),
        (sp.coo_array(([1.0, 2.0], ([0, 0], [1, 1])), shape=(4, 4)), r"\(0, 1\).* appears 2 times"),
        (np.ones((4, 5)), "must be square"),
    ],
)
def test_objects_that_are_refused(tmp_path: Path, graph: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        stored(tmp_path, graph)
    with pytest.raises(ConfigError, match=r"the graph is a builtins.dict: the rule is a file"):
        stored(tmp_path, {"a": 1})


def test_networks(tmp_path: Path) -> None:
    """Edges of an undirected graph go both ways; distances are those of an attribute."""
    graph = nx.Graph()
    graph.add_edge("400", "7", length=100.0, lanes=3)
    graph.add_edge("7", "55", length=200.0, lanes=2)
    graph.add_edge("7", "elsewhere", length=250.0, lanes=2)
    store = stored(tmp_path, graph, sigma=150.0)
    near, far = np.exp(-((np.array([100.0, 200.0]) / 150) ** 2))
    expected = np.zeros((4, 4))
    expected[0, 1] = expected[1, 0] = near
    expected[1, 2] = expected[2, 1] = far
    np.testing.assert_allclose(matrix_of(store), expected, rtol=1e-6)
    assert [note.split(":")[0] for note in store.notes] == [
        "the edge values of the network are distances by their name, and the Gaussian kernel turns "
        "them into weights; edge_values='weight' takes them as they are",
        "2 of 6 edges of the network were left out",
        "1 of 4 sensors has no edge to another in the network",
    ]
    edges = ("source", "target", "lanes")
    store = stored(tmp_path, graph, edges=edges, edge_values="weight")
    assert matrix_of(store)[0, 1] == 3
    with pytest.raises(DataError, match="the network could hold weights or distances"):
        stored(tmp_path, graph, edges=edges)
    with pytest.raises(DataError, match=r"no edge of the network has 'x'; they have length, lanes"):
        stored(tmp_path, graph, edges=("source", "target", "x"))
    graph.edges["400", "7"]["cost"] = 1.0
    with pytest.raises(DataError, match=r"have length, cost: name one with edges="):
        stored(tmp_path, graph)
    with pytest.raises(DataError, match=r"7 -> 55 of the network has the cost none"):
        stored(tmp_path, graph, edges=("source", "target", "cost"))


def test_places_of_a_network(tmp_path: Path) -> None:
    graph = network()
    for place, label in enumerate(IDS):
        graph.nodes[label].update(lat=50.0 + place**2, lon=8.0)
    store = stored(tmp_path, graph)
    np.testing.assert_array_equal(matrix_of(store), MATRIX.astype(np.float32))
    assert store.graph.coordinates[:, 0].tolist() == [50.0, 51.0, 54.0, 59.0]
    nearest = stored(tmp_path, graph, neighbours=1)
    assert np.count_nonzero(matrix_of(nearest)) == 6


def test_nodes_give_ids_to_readings_without(tmp_path: Path) -> None:
    store = ingest(np.ones((3, 4)), tmp_path / "store", graph=network(("a", "b", "c", "d")))
    assert store.meta.node_ids == ("d", "c", "b", "a")
    backwards = MATRIX[::-1, ::-1].astype(np.float32)
    np.testing.assert_array_equal(matrix_of(store), backwards)
    store = ingest(np.ones((3, 4)), tmp_path / "numbers", graph=network((0, 1, 2, 3)))
    assert store.meta.node_ids == ("0", "1", "2", "3")
    np.testing.assert_array_equal(matrix_of(store), MATRIX.astype(np.float32))


def graphml(path: Path) -> Path:
    nx.write_graphml(network(), path)
    return path


def gml(path: Path) -> Path:
    nx.write_gml(network(), path)
    return path


def market(path: Path) -> Path:
    scipy.io.mmwrite(path, sp.coo_array(MATRIX) if "coo" in path.name else MATRIX)
    return path


def npz(path: Path) -> Path:
    sp.save_npz(path, getattr(sp, f"{path.stem}_array")(MATRIX))
    return path


def parquet(path: Path) -> Path:
    edge_frame().to_parquet(path)
    return path


def rel(path: Path) -> Path:
    """LibCity's table of relations, with weights here."""
    frame = edge_frame().set_axis(["origin_id", "destination_id", "link_weight"], axis=1)
    frame.insert(0, "type", "geo")
    frame.to_csv(path, index_label="rel_id")
    return path


FILES = {
    "g.graphml": graphml,
    "g.gml": gml,
    "coo.mtx": market,
    "dense.mtx": market,
    "csr.npz": npz,
    "csc.npz": npz,
    "coo.npz": npz,
    "g.parquet": parquet,
    "g.rel": rel,
}


@pytest.mark.parametrize("name", FILES)
def test_files(tmp_path: Path, name: str) -> None:
    graph = FILES[name](tmp_path / name)
    np.testing.assert_array_equal(matrix_of(stored(tmp_path, graph)), MATRIX.astype(np.float32))
    whole = graph.read_bytes()
    graph.write_bytes(whole[: len(whole) // 2])
    if not name.endswith((".rel", ".gml")):  # their half is a shorter list
        with pytest.raises(DataError, match=graph.name):
            stored(tmp_path, graph)


def test_a_matrix_file_that_promises_too_much(tmp_path: Path) -> None:
    head = "%%MatrixMarket matrix array real general\n100000 100000\n1\n"
    (tmp_path / "g.mtx").write_text(head)
    with pytest.raises(DataError, match=r"g.mtx promises 100,000 nodes"):
        stored(tmp_path, tmp_path / "g.mtx")


PLACES = {label: (place / 10, 50.0 - place) for place, label in enumerate(IDS)}


def geojson(properties: str | None = "station") -> dict[str, Any]:
    features = []
    for label, (longitude, latitude) in PLACES.items():
        feature = {"type": "Feature", "geometry": {"type": "Point"}, "properties": {"lanes": 2}}
        feature["geometry"]["coordinates"] = [longitude, latitude, 12.0]
        if properties is None:
            feature["id"] = int(label)
        else:
            feature["properties"][properties] = label
        features.append(feature)
    return {"type": "FeatureCollection", "features": features[::-1]}


@pytest.mark.parametrize("key", ["station", None, "Sensor_ID", "detector"])
@pytest.mark.parametrize("suffix", [".geojson", ".json"])
def test_geojson(tmp_path: Path, key: str | None, suffix: str) -> None:
    graph = tmp_path / f"stations{suffix}"
    graph.write_text(json.dumps(geojson(key)))
    options = {"ids": key} if key == "detector" and suffix == ".geojson" else {}
    if key == "detector" and not options:
        graph.write_text(json.dumps(geojson("id")))
    store = stored(tmp_path, graph, neighbours=1, **options)
    expected = [[latitude, longitude] for longitude, latitude in PLACES.values()]
    assert store.graph.coordinates.tolist() == expected
    assert store.meta.num_edges == 6


def test_lines_are_refused(tmp_path: Path) -> None:
    content = geojson()
    content["features"][1]["geometry"] = {"type": "LineString", "coordinates": [[0, 1], [1, 1]]}
    (tmp_path / "roads.geojson").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"feature 1 of roads.geojson is a LineString: a sensor is"):
        stored(tmp_path, tmp_path / "roads.geojson", neighbours=1)
    (tmp_path / "s.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(DataError, match="not a GeoJSON FeatureCollection"):
        stored(tmp_path, tmp_path / "s.geojson", neighbours=1)


def test_libcity_places(tmp_path: Path) -> None:
    rows = [f'{label},Point,"[{lon}, {lat}]"' for label, (lon, lat) in PLACES.items()]
    (tmp_path / "LA.geo").write_text("\n".join(["geo_id,type,coordinates", *rows]))
    store = stored(tmp_path, tmp_path / "LA.geo", neighbours=1)
    assert store.graph.coordinates[:, 0].tolist() == [lat for _, lat in PLACES.values()]
    road = (tmp_path / "LA.geo").read_text().replace("[0.1, 49.0]", "[[0.1, 49.0], [1, 2]]")
    (tmp_path / "roads.geo").write_text(road)
    with pytest.raises(DataError, match=r"line 3 of roads.geo .* a sensor is a point"):
        stored(tmp_path, tmp_path / "roads.geo", neighbours=1)


def test_libcity_costs_are_distances(tmp_path: Path) -> None:
    text = "rel_id,type,origin_id,destination_id,cost\n0,geo,400,7,12.5\n1,geo,7,55,30\n"
    (tmp_path / "LA.rel").write_text(text)
    store = stored(tmp_path, tmp_path / "LA.rel", sigma=20.0)
    assert matrix_of(store)[0, 1] == np.float32(np.exp(-((12.5 / 20) ** 2)))
    assert "are distances by their name" in store.notes[0]


def test_geo_frames(tmp_path: Path) -> None:
    longitudes, latitudes = zip(*PLACES.values(), strict=True)
    points = geopandas.points_from_xy(longitudes, latitudes, crs=4326)
    frame = geopandas.GeoDataFrame({"station": IDS, "lanes": 2}, geometry=points)
    expected = [[latitude, longitude] for longitude, latitude in PLACES.values()]
    store = stored(tmp_path, frame, neighbours=1)
    assert store.graph.coordinates.tolist() == expected
    metric = frame.to_crs(3857).set_index("station").iloc[::-1]
    store = stored(tmp_path, metric, neighbours=1)
    np.testing.assert_allclose(store.graph.coordinates, expected, rtol=0, atol=1e-9)
    with pytest.raises(DataError, match="does not say its coordinate reference system"):
        stored(tmp_path, frame.set_crs(None, allow_override=True), neighbours=1)
    lines = frame.to_crs(3857)
    lines = lines.set_geometry(lines.geometry.buffer(1).boundary)
    with pytest.raises(DataError, match="row 0 of the frame of the graph is a Line"):
        stored(tmp_path, lines, neighbours=1)
