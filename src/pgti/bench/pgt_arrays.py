"""A series as the files of METR-LA that PGT reads."""

from pathlib import Path

import numpy as np

from pgti.store import SeriesStore, calendar_features, default_calendar

__all__ = ["COPIES_HELD", "num_readings", "write_for_pgt"]

COPIES_HELD = 3
"""Copies of the series that PGT's loader holds at once, while it standardises."""

_CHUNK_READINGS = 1 << 22


def num_readings(store: SeriesStore) -> int:
    """Numbers in the files: the readings, and the calendar in every sensor."""
    meta = store.meta
    features = meta.num_channels + len(default_calendar(store.time_axis))
    return meta.num_steps * meta.num_nodes * features


def write_for_pgt(store: SeriesStore, directory: Path) -> None:
    """The files of PGT's METR-LA: readings [T, N, F] with the calendar in every sensor, a matrix.

    A missing reading is 0 there. An empty archive keeps PGT from looking for one elsewhere.
    """
    directory.mkdir()
    meta = store.meta
    calendar = default_calendar(store.time_axis)
    shape = (meta.num_steps, meta.num_nodes, meta.num_channels + len(calendar))
    path = directory / "node_values.npy"
    values = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    rows = max(1, _CHUNK_READINGS // (shape[1] * shape[2]))
    for first in range(0, meta.num_steps, rows):
        numbers = np.arange(first, min(first + rows, meta.num_steps))
        read = store.read(first, first + len(numbers))
        values[numbers, :, : meta.num_channels] = np.nan_to_num(read)
        features = calendar_features(store.time_axis, calendar, numbers)
        values[numbers, :, meta.num_channels :] = features[:, None, :]
    values.flush()
    np.save(directory / "adj_mat.npy", store.graph.adjacency.toarray())
    (directory / "METR-LA.zip").touch()
