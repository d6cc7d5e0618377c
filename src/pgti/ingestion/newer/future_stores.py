"""Newer readings whose last rows hold values known in advance alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pgti.ingestion.later_rows import lay_over
from pgti.store import SeriesStore
from pgti.store.codec import Values
from pgti.store.layout import FUTURE_FILE
from pgti.store.statistics import digest_of

__all__ = ["last_observed_row", "split_later", "with_future"]

_ROWS = 64  # read at a time


def with_future(store: SeriesStore, known: tuple[str, ...], values: Values) -> SeriesStore:
    """A view of a store with other values after its last row, which its files lack.

    Args:
        store: the store.
        known: channels that are known in advance, F of them.
        values: [rows, N, F]; those that the store has stay where one is missing.
    """
    if store.meta.known_future == known:
        values = lay_over(store.future, values)
    meta = replace(
        store.meta,
        known_future=known,
        future_steps=len(values),
        parts={**store.meta.parts, FUTURE_FILE: digest_of(values)},
    )
    return replace(store, meta=meta, future=values)


def split_later(store: SeriesStore, known: tuple[str, ...]) -> SeriesStore:
    """A store whose last rows hold values of channels known in advance alone, without these rows.

    They are what is known after its last row. A store that knows of such channels is returned as it
    is, and so is one in which no other channel has a reading.

    Args:
        store: newer readings.
        known: channels of the series that are known in advance.
    """
    num_steps = store.meta.num_steps
    if not known or store.meta.known_future or not store.meta.missing_count:
        return store
    places = list(store.channel_indices(known))
    others = [place for place in range(store.meta.num_channels) if place not in places]
    last = last_observed_row(store, num_steps, others)
    if last is None or last == num_steps - 1:
        return store
    values = store.read(last + 1, num_steps)[..., places]
    used = np.flatnonzero(~np.isnan(values).all(axis=(1, 2)))
    values = values[: int(used[-1]) + 1 if len(used) else 0]
    return with_future(store.prefix(last + 1), known, values) if len(values) else store


def last_observed_row(
    store: SeriesStore, stop: int, channels: Sequence[int] | None = None
) -> int | None:
    """The last row before `stop` with a reading of some channels (or any); None without one."""
    if not store.meta.missing_count and stop:
        return stop - 1
    chosen: Any = slice(None) if channels is None else list(channels)
    size = stop if store.is_in_memory else _ROWS
    while stop > 0:
        first = max(0, stop - size)
        observed = ~np.isnan(store.read(first, stop)[..., chosen]).all(axis=(1, 2))
        if observed.any():
            return first + int(np.flatnonzero(observed)[-1])
        stop = first
    return None
