"""Simulated stores."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from pgti.datasets.simulated import SimulationOptions, road_graph, simulate, simulated_chunks
from pgti.errors import ConfigError, StoreError
from pgti.graph import SensorGraph
from pgti.store import SeriesStore


def test_store_holds_the_series(tmp_path: Path) -> None:
    """What is stored is what is simulated, as int16, with its clock, ids and graph."""
    options = SimulationOptions(sensors=20, steps=500, budget_bytes=20_000)
    written: list[int] = []
    store = simulate(tmp_path / "store", options, progress=written.append)
    meta = store.meta
    speeds = np.concatenate(list(simulated_chunks(options)))
    np.testing.assert_array_equal(store.read(0, 500), speeds)
    assert store.raw.dtype == np.int16
    assert (meta.channels, meta.units) == (("speed",), ("mph",))
    assert meta.missing_count == np.isnan(speeds).sum()
    assert (meta.start, meta.interval_seconds) == ("2025-01-06T00:00:00", 300)
    assert meta.node_ids[:2] == ("0", "1")
    np.testing.assert_array_equal(store.graph.edge_weight, road_graph(20, seed=1).edge_weight)
    assert len(written) > 3
    assert written[-1] == 500


def test_graph_and_ids_that_are_given_are_stored(tmp_path: Path) -> None:
    """A graph of the user's goes into the store as it is, self-loop and all."""
    graph = SensorGraph.from_edges(3, [0, 1, 2], [1, 2, 2], [0.5, 0.25, 1.0])
    options = SimulationOptions(sensors=3, steps=40)
    simulate(tmp_path / "store", options, graph, node_ids=("a", "b", "c"))
    store = SeriesStore.open(tmp_path / "store")
    np.testing.assert_array_equal(store.graph.adjacency.toarray(), graph.adjacency.toarray())
    assert store.meta.node_ids == ("a", "b", "c")


def test_options_are_keywords_too(tmp_path: Path) -> None:
    """They come before those of an object, and a graph says how many sensors there are."""
    graph = SensorGraph.from_edges(3, [0, 1], [1, 2])
    store = simulate(tmp_path / "a", graph=graph, steps=40, start="2025-10-01T12:00")
    assert store.meta.shape == (40, 3, 1)
    assert store.meta.start == "2025-10-01T12:00:00"
    options = SimulationOptions(sensors=5, steps=60)
    assert simulate(tmp_path / "b", options, steps=30).meta.shape == (30, 5, 1)
    with pytest.raises(ConfigError, match="step is not an option; did you mean 'steps'"):
        simulate(tmp_path / "c", step=30)


def test_ids_must_fit(tmp_path: Path) -> None:
    """Too few ids are refused with both numbers, and nothing is left behind."""
    options = SimulationOptions(sensors=3, steps=40)
    with pytest.raises(ConfigError, match="2 sensor ids for 3 sensors"):
        simulate(tmp_path / "store", options, node_ids=("a", "b"))
    assert not any(tmp_path.iterdir())


def test_existing_target_is_kept(tmp_path: Path) -> None:
    """A store is replaced only when asked for."""
    options = SimulationOptions(sensors=3, steps=40)
    simulate(tmp_path / "store", options)
    with pytest.raises(StoreError, match="exists already"):
        simulate(tmp_path / "store", options)
    simulate(tmp_path / "store", SimulationOptions(sensors=3, steps=30), overwrite=True)
    assert SeriesStore.open(tmp_path / "store").meta.num_steps == 30


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    """When a simulation is stopped between two chunks the target does not exist."""

    def stop(_steps: int) -> None:
        raise KeyboardInterrupt

    options = SimulationOptions(sensors=20, steps=500, budget_bytes=20_000)
    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "store", options, progress=stop)
    assert not any(tmp_path.iterdir())


def _peak_bytes(options: SimulationOptions) -> int:
    graph = road_graph(options.sensors, options.seed)
    tracemalloc.start()
    try:
        for _ in simulated_chunks(options, graph):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_keeps_to_the_budget() -> None:
    """Simulating takes no more than the budget, whatever the number of steps."""
    budget_bytes = 4 << 20
    short, long = (
        _peak_bytes(SimulationOptions(sensors=1000, steps=steps, budget_bytes=budget_bytes))
        for steps in (1000, 4000)
    )
    assert long < budget_bytes
    assert long < 1.05 * short
