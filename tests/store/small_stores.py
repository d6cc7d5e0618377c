"""Small stores for the tests of this package."""

from pathlib import Path

import numpy as np

from pgti.graph import SensorGraph
from pgti.store import StoreMeta, StoreWriter

START = np.datetime64("2025-10-01T00:00")


def write_store(
    target: Path, values: np.ndarray, chunks: tuple[int, ...] = (), **options: object
) -> StoreMeta:
    nodes, channels = values.shape[1:]
    graph = SensorGraph.from_edges(nodes, np.arange(nodes - 1), np.arange(1, nodes))
    with StoreWriter(
        target,
        node_ids=tuple(f"s{i}" for i in range(nodes)),
        channels=tuple(f"c{i}" for i in range(channels)),
        graph=graph,
        **options,  # type: ignore[arg-type]
    ) as writer:
        for piece in np.split(values, list(chunks)):
            writer.append(piece)
        return writer.finish(start=START, interval_seconds=300)


def sample_readings(steps: int = 50, nodes: int = 4, channels: int = 2) -> np.ndarray:
    values = np.random.default_rng(3).integers(-300, 900, (steps, nodes, channels)) / 10
    values[5:9, 1] = np.nan
    return values.astype(np.float32)
