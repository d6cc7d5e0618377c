"""Stores with the channels, clock and sensors of a public data set, filled with drawn readings."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from pgti import ingest
from pgti.datasets import Dataset
from pgti.ingestion import IngestOptions, open_readings
from pgti.store import SeriesStore

__all__ = ["made_store"]


def made_store(
    path: Path, dataset: Dataset, *, num_steps: int, num_nodes: int | None = None
) -> SeriesStore:
    """Drawn readings of a data set; each sensor has edges from its two neighbours.

    Args:
        path: of the store.
        dataset: whose channels, interval and name it has.
        num_steps: rows.
        num_nodes: sensors; by default those of the data set.
    """
    count = dataset.num_nodes if num_nodes is None else num_nodes
    draws = np.random.default_rng(3).integers(1, 90, (num_steps, count, len(dataset.channels)))
    near = np.arange(count)
    edges = np.stack([np.concatenate([near, near]), np.concatenate([near + 1, near - 1]) % count])
    return ingest(
        replace(open_readings(draws, IngestOptions()), dataset=dataset.name),
        path,
        graph=(edges, np.full(2 * count, 0.5)),
        channels=dataset.channels,
        start="2018-01-01",
        interval=dataset.interval,
    )
