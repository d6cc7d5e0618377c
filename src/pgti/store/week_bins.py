"""Sums of readings by slot of the day or the week, in one pass over the series."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pgti.store.store import SeriesStore

__all__ = ["slot_sums"]

_CHUNK_READINGS = 1 << 22  # readings that are decoded at a time: 16 MiB of float32


def slot_sums(
    store: SeriesStore,
    rows: range,
    channels: tuple[int, ...],
    bins_of: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    num_bins: int,
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Sum and number of the observed readings in each slot, a chunk of rows at a time.

    Args:
        store: the series.
        rows: consecutive rows to read.
        channels: positions of the channels, C of them.
        bins_of: the slot of each row, 0..num_bins-1.
        num_bins: how many there are.

    Returns:
        Two arrays [num_bins, N, C].
    """
    shape = (num_bins, store.meta.num_nodes, len(channels))
    sums, counts = np.zeros(shape), np.zeros(shape, dtype=np.int32)
    size = max(1, _CHUNK_READINGS // (store.meta.num_nodes * store.meta.num_channels))
    for first in range(rows.start, rows.stop, size):
        last = min(first + size, rows.stop)
        readings = store.read(first, last)[..., list(channels)]
        for slot, reading in zip(bins_of(np.arange(first, last)), readings, strict=True):
            observed = ~np.isnan(reading)
            np.add(sums[slot], reading, out=sums[slot], where=observed)
            counts[slot] += observed
        store.release()
    return sums, counts
