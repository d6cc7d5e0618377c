"""Whether newer readings seem to have other units than those of a store."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import option
from pgti.store import SeriesStore

__all__ = ["compare_units"]

_COMPARED = 1 << 18  # readings of the store that newer ones are compared with
_MARGIN, _FAR_SHARE = 0.05, 0.9  # of the range of the store's; of the newer readings


def compare_units(
    store: SeriesStore, values: NDArray[np.floating[Any]], name: str
) -> tuple[str, ...]:
    """A line for each channel with nearly all newer readings outside those of the newest rows.

    Args:
        store: before it grows; about 2^18 of its readings are read.
        values: the first newer readings [rows, N, C].
        name: of their source.
    """
    meta = store.meta
    num_rows = max(1, _COMPARED // (meta.num_nodes * meta.num_channels))
    stored = store.read(max(0, meta.num_steps - num_rows), meta.num_steps)
    lines = []
    for channel, label in enumerate(meta.channels):
        old, new = (each[..., channel] for each in (stored, values[:num_rows]))
        old, new = old[~np.isnan(old)], new[~np.isnan(new)]
        if not len(old) or not len(new):
            continue
        low, high = float(old.min()), float(old.max())
        margin = _MARGIN * (high - low)
        if ((new < low - margin) | (new > high + margin)).mean() >= _FAR_SHARE:
            lines.append(
                f"nearly all readings of {label} in {name} ({new.min():g} to {new.max():g}) lie "
                f"outside those that the store has ({low:g} to {high:g}): check their unit, "
                f"{option('scale')} and {option('missing')}"
            )
    return tuple(lines)
