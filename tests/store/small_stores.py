"""Small stores for the tests of this package."""

import hashlib
import json
from pathlib import Path

import numpy as np

from pgti.graph import SensorGraph
from pgti.store import SeriesStore, StoreMeta, StoreWriter

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


def make_format_1(path: Path) -> str:
    """Turn a store into one of format 1; returns its fingerprint."""
    store = SeriesStore.open(path)
    size, steps = store.meta.block_rows, store.meta.num_steps
    blocks = [store.moments(range(i, min(i + size, steps))) for i in range(0, steps, size)]
    np.save(path / "moments.npy", np.stack([block.to_array() for block in blocks]))
    (path / "digests.npy").unlink()
    content = json.loads((path / "meta.json").read_text())
    new = ("generation", "read_options", "time_rule", "max_codes", "open_moments", "digest")
    entries = {name: value for name, value in content.items() if name not in new}
    names = ("graph.npz", "moments.npy", "series.npy")
    parts = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in names}
    entries |= {"format_version": 1, "parts": parts}
    digest = hashlib.sha256((json.dumps(entries, indent=1) + "\n").encode()).hexdigest()
    text = json.dumps(entries | {"digest": digest}, indent=1) + "\n"
    (path / "meta.json").write_text(text)
    return digest
