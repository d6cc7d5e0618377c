"""What the readings of a store are like: how many are missing, and their range."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.store.codec import Values
from pgti.store.store import SeriesStore

__all__ = ["ReadingsSummary", "summarize"]

_PIECE_READINGS = 1 << 20
_MAX_ROWS = 255  # whose missing readings a byte can count


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ReadingsSummary:
    """Missing readings and range of each sensor and channel.

    Attributes:
        num_missing: missing readings, int64 [N, C].
        minimum: smallest observed reading in original units, [N, C]; NaN where none was observed.
        maximum: the largest.
    """

    num_missing: NDArray[np.int64]
    minimum: Values
    maximum: Values


def summarize(
    store: SeriesStore, progress: Callable[[int, int | None], None] = lambda *_: None
) -> ReadingsSummary:
    """Pass over the whole series, in bounded memory.

    Args:
        store: the store.
        progress: called with the number of rows read and their total.
    """
    num_steps, *sizes = store.meta.shape
    dtype: Any = store.raw.dtype
    missing_code = store.codec.missing_code
    is_coded = missing_code is not None
    # The code of a missing reading is the smallest of all. Less one, it wraps around.
    shift = dtype.type(is_coded)
    lowest = np.full(sizes, np.iinfo(dtype).max if is_coded else np.nan, dtype)
    highest = np.full(sizes, missing_code if is_coded else np.nan, dtype)
    num_missing = np.zeros(sizes, dtype=np.int64)
    rows = max(1, min(_MAX_ROWS, _PIECE_READINGS // (sizes[0] * sizes[1])))
    for first in range(0, num_steps, rows):
        raw: NDArray[Any] = np.asarray(store.raw[first : first + rows])
        missing = raw == missing_code if is_coded else np.isnan(raw)
        num_missing += np.add.reduce(missing.view(np.uint8), axis=0, dtype=np.uint8)
        lowest = np.fmin(lowest, np.fmin.reduce(raw - shift, axis=0))
        highest = np.fmax(highest, np.fmax.reduce(raw, axis=0))
        store.release()
        progress(first + len(raw), num_steps)
    return ReadingsSummary(
        num_missing=num_missing,
        minimum=store.codec.decode((lowest + shift)[None])[0],
        maximum=store.codec.decode(highest[None])[0],
    )
