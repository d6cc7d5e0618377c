"""Readings from `.npy` and `.npz` files."""

from pathlib import Path

import numpy as np
import pytest

from pgti.errors import DataError
from pgti.ingestion import IngestOptions, ingest, open_readings
from pgti.store import SeriesStore


def some_readings(*shape: int) -> np.ndarray:
    """Readings off any grid, with a missing one."""
    values = np.random.default_rng(7).normal(50, 9, size=shape).astype(np.float32)
    values[1, 2] = np.nan
    return values


def stored(path: Path) -> np.ndarray:
    """All readings of a store."""
    store = SeriesStore.open(path)
    return store.read(0, store.meta.num_steps)


@pytest.mark.parametrize("shape", [(11, 4), (11, 4, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("budget_bytes", [1, 300, 1 << 20])
def test_npy_round_trip(
    tmp_path: Path, shape: tuple[int, ...], order: str, budget_bytes: int
) -> None:
    """What is in an `.npy` is in the store, for both orders and any budget."""
    values = some_readings(*shape)
    np.save(tmp_path / "a.npy", np.asarray(values, order=order))
    ingest(tmp_path / "a.npy", tmp_path / "s", IngestOptions(budget_bytes=budget_bytes))
    np.testing.assert_array_equal(stored(tmp_path / "s"), values.reshape(11, 4, -1))


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "float16", "float64", ">f4"])
def test_dtypes_keep_their_values(tmp_path: Path, dtype: str) -> None:
    """Every number dtype and byte order comes through."""
    values = (np.arange(24).reshape(6, 4) % 7).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    ingest(tmp_path / "a.npy", tmp_path / "s")
    np.testing.assert_array_equal(stored(tmp_path / "s")[..., 0], values.astype(np.float32))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_streams_one_array(tmp_path: Path, save: object, order: str) -> None:
    """One array of an archive is read by its key, compressed or not; its key names the channel."""
    values = some_readings(50, 4)
    save(tmp_path / "a.npz", speed=np.asarray(values, order=order), other=np.zeros((3, 3)))
    options = IngestOptions(values=("speed",), budget_bytes=500)
    summary = ingest(tmp_path / "a.npz", tmp_path / "s", options)
    np.testing.assert_array_equal(stored(tmp_path / "s")[..., 0], values)
    assert summary.meta.channels == ("speed",)


def test_npz_arrays_become_channels(tmp_path: Path) -> None:
    """Arrays of different dtypes are read in step and become channels in the order named."""
    flow = np.arange(120, dtype=np.int16).reshape(30, 4)
    speed = some_readings(30, 4)
    np.savez(tmp_path / "a.npz", flow=flow, speed=speed)
    options = IngestOptions(values=("speed", "flow"), budget_bytes=700)
    summary = ingest(tmp_path / "a.npz", tmp_path / "s", options)
    assert summary.meta.channels == ("speed", "flow")
    np.testing.assert_array_equal(stored(tmp_path / "s"), np.stack([speed, flow], axis=-1))


def test_npz_brings_ids_edges_and_coordinates(tmp_path: Path) -> None:
    """Ids, edges and positions of the same archive are taken along."""
    np.savez(
        tmp_path / "a.npz",
        speed=some_readings(9, 3),
        station=np.array([401, 402, 403]),
        lat=np.array([34.0, 34.1, 34.2]),
        lon=np.array([-118.0, -118.1, -118.2]),
        src=np.array([401, 402]),
        dst=np.array([402, 403]),
        w=np.array([0.5, 0.25]),
    )
    options = IngestOptions(edges=("src", "dst", "w"))
    ingest(tmp_path / "a.npz", tmp_path / "s", options)
    store = SeriesStore.open(tmp_path / "s")
    assert store.meta.node_ids == ("401", "402", "403")
    np.testing.assert_array_equal(store.graph.edge_index, [[0, 1], [1, 2]])
    np.testing.assert_array_equal(store.graph.edge_weight, [0.5, 0.25])
    assert store.graph.coordinates is not None
    np.testing.assert_allclose(store.graph.coordinates[:, 0], [34.0, 34.1, 34.2])


def test_edge_arrays_called_distances_are_weighed_and_all_kept(tmp_path: Path) -> None:
    """Edges whose values are miles get kernel weights: nearer is stronger, and none is lost."""
    miles = np.array([0.0, 1.0, 2.0, 50.0])
    np.savez(
        tmp_path / "a.npz",
        speed=some_readings(9, 5),
        src=np.arange(4),
        dst=np.arange(1, 5),
        edge_miles=miles,
    )
    options = IngestOptions(edges=("src", "dst", "edge_miles"), sigma=2.0)
    ingest(tmp_path / "a.npz", tmp_path / "s", options)
    weights = SeriesStore.open(tmp_path / "s").graph.edge_weight
    expected = [1.0, np.exp(-0.25), np.exp(-1.0), 0.1]
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_several_candidates_are_listed(tmp_path: Path) -> None:
    """Where several arrays could be meant, the message lists them with their shapes."""
    np.savez(tmp_path / "a.npz", speed=np.ones((5, 3)), flow=np.ones((5, 3)), year=np.arange(5))
    with pytest.raises(DataError, match=r"2 arrays.*speed \(5, 3\), flow \(5, 3\)$"):
        open_readings(tmp_path / "a.npz", IngestOptions())


def test_no_time_is_made_up(tmp_path: Path) -> None:
    """Without start and interval the store has no times; with them it has."""
    np.save(tmp_path / "a.npy", some_readings(5, 3))
    ingest(tmp_path / "a.npy", tmp_path / "plain")
    assert not SeriesStore.open(tmp_path / "plain").time_axis.is_dated
    options = IngestOptions(start="2025-10-01T00:00", interval="7d")
    ingest(tmp_path / "a.npy", tmp_path / "dated", options)
    axis = SeriesStore.open(tmp_path / "dated").time_axis
    assert str(axis.at(np.array([1]))[0]) == "2025-10-08T00:00:00"
