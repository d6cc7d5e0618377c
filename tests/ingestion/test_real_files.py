"""The commands of the documentation, from Python, on real files."""

from pathlib import Path

import numpy as np
import pytest

from pgti.ingestion import IngestOptions, ingest, read_graph
from pgti.store import SeriesStore

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def real(name: str) -> Path:
    """A file of the shared data, or a skip that names it."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"needs ../shared/data/{name}")
    return path


def test_interstate_5(tmp_path: Path) -> None:
    """303 stations of a month: speeds on a 0.1 grid, so int16, with all 302 edges."""
    source = real("pems_i5nb_oct2025.npz")
    options = IngestOptions(
        values=("speed_x10",),
        scale=(0.1,),
        channels=("speed",),
        edges=("edge_src", "edge_dst", "edge_miles"),
        start="2025-10-01T00:00",
        interval="5min",
    )
    meta = ingest(source, tmp_path / "i5", options).meta
    assert (meta.num_steps, meta.num_nodes, meta.num_channels) == (8928, 303, 1)
    assert (meta.num_edges, meta.dtype, meta.missing_count) == (302, "int16", 0)
    assert (meta.start, meta.interval_seconds) == ("2025-10-01T00:00:00", 300)
    with np.load(source) as arrays:
        raw = arrays["speed_x10"]
        assert meta.node_ids == tuple(map(str, arrays["station"]))
    store = SeriesStore.open(tmp_path / "i5")
    exact = (raw.astype(np.float64) / 10).astype(np.float32)
    np.testing.assert_array_equal(store.read(0, 8928)[..., 0], exact)
    assert store.graph.coordinates is not None


def test_metr_la_week(tmp_path: Path) -> None:
    """A CSV of readings beside DCRNN's pickle, matched by sensor id, zeros missing."""
    folder = "raw/metr-la-week"
    options = IngestOptions(start="2012-03-01T00:00", interval="5min", missing=(0.0,))
    graph = real(f"{folder}/adj_mx.pkl")
    meta = ingest(real(f"{folder}/los_speed.csv"), tmp_path / "la", options, graph=graph).meta
    assert (meta.num_steps, meta.num_nodes, meta.num_edges) == (2016, 207, 1722)
    with np.load(real("metr_la_week.npz")) as arrays:
        speed, adjacency, ids = arrays["speed"], arrays["adj"], arrays["sensor_id"]
    store = SeriesStore.open(tmp_path / "la")
    assert store.meta.node_ids == tuple(ids)
    expected = np.where(speed == 0, np.nan, speed)
    np.testing.assert_allclose(store.read(0, 2016)[..., 0], expected, rtol=1e-6)
    np.testing.assert_allclose(store.graph.adjacency.toarray(), adjacency, rtol=1e-6)


def test_chickenpox(tmp_path: Path) -> None:
    """PGT's chickenpox: 20 counties, 521 weeks, 102 edges."""
    meta = ingest(real("raw/chickenpox.json"), tmp_path / "pox").meta
    assert (meta.num_steps, meta.num_nodes, meta.num_edges) == (521, 20, 102)
    assert meta.node_ids[:2] == ("BACS", "BARANYA")


def test_full_pems_graph() -> None:
    """The CSR arrays of 11,160 sensors, with their ids and positions."""
    graph, ids = read_graph(real("pems_11k_graph.npz"))
    assert (graph.num_nodes, graph.num_edges) == (11_160, 198_258)
    assert ids[0] == "1221176"
    assert graph.coordinates is not None
