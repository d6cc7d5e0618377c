"""Rows of a run's own series before newer readings, which the history of windows reaches into."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pgti.display import size_text
from pgti.errors import PgtiError
from pgti.ingestion.newer.newer import NewerSeries
from pgti.memory import available_bytes
from pgti.run.loaded import LoadedRun
from pgti.store import SeriesStore

__all__ = ["with_earlier_rows"]

_MEMORY_FRACTION = 0.25  # of what is available, for the rows of both


def with_earlier_rows(run: LoadedRun, newer: NewerSeries, num_rows: int | None) -> NewerSeries:
    """Newer readings behind those rows of the run's own series that history needs.

    Where the run's series has no row at such a time, and where it is gone, readings are missing.

    Args:
        run: whose windows may have history.
        newer: the newer readings.
        num_rows: newest rows that are needed, history included; None where all windows of the
            newer readings are.

    Returns:
        The readings with `num_earlier` rows before them, and a note if history lacks rows.
    """
    reach = -run.source.spec.reach.start
    needed = reach if num_rows is None else min(reach, num_rows - newer.store.meta.num_steps)
    if needed <= 0:
        return newer
    row_bytes = newer.store.raw[:1].nbytes // newer.store.raw.dtype.itemsize * 8
    size = (needed + newer.store.meta.num_steps) * row_bytes
    if size > _MEMORY_FRACTION * available_bytes():
        return _with_note(newer, needed, f"with them the readings take {size_text(size)} of memory")
    own = _own_series(run)
    if own is None:
        return _with_note(newer, needed, str(run.problem or "its store cannot be opened"))
    places = _rows_at(own, newer.store, needed)
    found = np.flatnonzero(places >= 0)
    if not len(found):
        return _with_note(newer, needed, f"{own.path} has no rows at these times")
    joined = _join(own, newer.store, places[found[0] :])
    lacking = needed - len(found)
    newer = replace(newer, store=joined, num_earlier=needed - int(found[0]))
    return _with_note(newer, needed, f"{own.path} lacks them", lacking) if lacking else newer


def _own_series(run: LoadedRun) -> SeriesStore | None:
    """The rows of the run's own store as it is now; None if it is gone."""
    try:
        store, _ = run.newest_store()
    except PgtiError:
        return None
    return store


def _with_note(
    newer: NewerSeries, needed: int, reason: str, lacking: int | None = None
) -> NewerSeries:
    share = 1.0 if lacking is None else lacking / needed
    note = (
        f"{share:.0%} of the {needed:,} rows of history before the readings are missing, because "
        f"{reason}: what is typical stands in for them"
    )
    return replace(newer, notes=(*newer.notes, note))


def _rows_at(own: SeriesStore, store: SeriesStore, count: int) -> NDArray[np.int64]:
    """The run's rows at the `count` times before a store's first row, int64; -1 for none."""
    none = np.full(count, -1, dtype=np.int64)
    axis, times = own.time_axis, store.time_axis.before(0, count)
    if not axis.is_dated or not times.is_dated:
        return none
    wanted = times.seconds_at(np.arange(count))
    known = axis.seconds_at(np.arange(own.meta.num_steps))
    rows = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[rows] == wanted, rows, none)


def _join(own: SeriesStore, store: SeriesStore, places: NDArray[np.int64]) -> SeriesStore:
    """A store in memory: the run's rows at `places`, -1 for missing ones, then those of another."""
    meta, dtype = store.meta, store.codec.reading_dtype
    earlier = np.full((len(places), *store.raw.shape[1:]), np.nan, dtype=dtype)
    earlier[places >= 0] = own.codec.decode(own.raw[places[places >= 0]], dtype)
    axis, before = store.time_axis, store.time_axis.before(0, len(places))
    seconds = None
    if axis.seconds is not None:
        seconds = np.append(before.seconds_at(np.arange(len(places))), axis.seconds)
    num_steps = len(places) + meta.num_steps
    return SeriesStore.in_memory(
        np.concatenate([earlier, store.read(0, meta.num_steps).astype(dtype, copy=False)]),
        store.graph,
        replace(before, num_steps=num_steps, seconds=seconds),
        node_ids=meta.node_ids,
        channels=meta.channels,
        units=meta.units,
        read_options=meta.read_options,
        known_future=meta.known_future,
        future=store.future,
        static=store.static_features,
        name=str(store.path),
        exact=meta.is_exact,
    )
