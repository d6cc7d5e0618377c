"""The description of the first rows of a series, and of a series in memory."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import StoreError
from pgti.graph import SensorGraph
from pgti.store.codec import Values
from pgti.store.meta import (
    DIGESTS_FILE,
    FORMAT_VERSION,
    FUTURE_FILE,
    GRAPH_FILE,
    MOMENTS_FILE,
    SERIES_FILE,
    STATIC_FILE,
    TIME_FILE,
    StoreMeta,
    is_constant_part,
)
from pgti.store.static_features import StaticFeatures
from pgti.store.statistics import ReadingsDigest, Sizes, digest_of
from pgti.store.time_axis import TimeAxis
from pgti.store.time_rule import CycleRule

if TYPE_CHECKING:
    from pgti.store.store import SeriesStore

__all__ = ["cut_meta", "describe_memory", "most_common_step", "open_prefix"]

_MAX_CODE = 32767


def cut_meta(store: "SeriesStore", num_steps: int) -> tuple[StoreMeta, TimeAxis]:
    """Description and times of the first `num_steps` rows of a store.

    They are those that the store had, or would have had, with these rows alone: its fingerprint
    too. The rows of the last block and group are read; of a store of format 1 all are hashed.
    """
    meta, links = store.meta, store.links
    group_rows = meta.sizes.group_rows
    whole = 0 if links is None else num_steps // group_rows
    digest = ReadingsDigest(group_rows)
    if links is not None and whole:
        digest = ReadingsDigest(group_rows, links[whole - 1].tobytes(), whole * group_rows)
    for first in range(whole * group_rows, num_steps, group_rows):
        digest.update(store.read(first, min(num_steps, first + group_rows)))
    links = digest.links_array() if links is None else links[:whole]
    blocks = store.block_moments[: num_steps // meta.block_rows]
    time_axis = _cut_times(store.time_axis, num_steps)
    constant = {part: each for part, each in meta.parts.items() if is_constant_part(part)}
    parts = constant | {
        SERIES_FILE: digest.hexdigest(),
        MOMENTS_FILE: digest_of(blocks),
        DIGESTS_FILE: digest_of(links),
    }
    if time_axis.seconds is not None:
        parts[TIME_FILE] = digest_of(time_axis.seconds)
    observed = store.moments(range(num_steps)).count.sum() if num_steps else 0
    cut = replace(
        meta,
        num_steps=num_steps,
        missing_count=num_steps * meta.num_nodes * meta.num_channels - int(observed),
        interval_seconds=time_axis.interval_seconds,
        is_regular=time_axis.seconds is None,
        time_rule=None if time_axis.rule is None else time_axis.rule.to_plain(),
        parts=dict(sorted(parts.items())),
        max_codes=None
        if meta.divisors is None
        else meta.max_codes or (_MAX_CODE,) * len(meta.units),
        open_moments=((0.0, 0.0, 0.0),) * meta.num_channels,
        future_steps=0,
    )
    return cut.in_lowest_format(), time_axis


def open_prefix(
    open_store: Callable[[Path], "SeriesStore"], path: Path, num_steps: int, fingerprint: str
) -> "SeriesStore":
    """The first rows of the store at a path, which may have grown but not have been corrected.

    Raises:
        StoreError: if it has other rows.
    """
    store = open_store(path)
    if num_steps <= store.meta.num_steps:
        store = store.prefix(num_steps)
        if store.fingerprint == fingerprint:
            return store
    raise StoreError(
        f"the store {path} has been corrected or written anew since it was opened: open it again"
    )


def _cut_times(time_axis: TimeAxis, num_steps: int) -> TimeAxis:
    """The times of the first rows: regular where those are, or else with their own interval."""
    if time_axis.seconds is None:
        return replace(time_axis, num_steps=num_steps)
    seconds, interval = time_axis.seconds[:num_steps], time_axis.interval_seconds
    if not isinstance(time_axis.rule, CycleRule):  # which has an interval of its own
        interval = most_common_step(seconds) or interval
    is_regular = bool((np.diff(seconds) == interval).all())
    return replace(
        time_axis,
        num_steps=num_steps,
        interval_seconds=interval,
        seconds=None if is_regular else seconds,
    )


def most_common_step(seconds: NDArray[np.int64]) -> int | None:
    """The most common distance between two rows, the smallest of several; None below two rows."""
    steps, counts = np.unique(np.diff(seconds), return_counts=True)
    return int(steps[counts.argmax()]) if len(steps) else None


def describe_memory(
    readings: Values,
    graph: SensorGraph,
    time_axis: TimeAxis,
    *,
    future: Values,
    static: StaticFeatures | None,
    **described: Any,
) -> StoreMeta:
    """The description of readings [T, N, C] in memory, canonical.

    Args:
        readings: the readings.
        graph: of the sensors.
        time_axis: of the rows.
        future: values of the channels known in advance after the last row.
        static: features of the sensors.
        **described: entries of the description that these do not tell.
    """
    num_steps, num_nodes, num_channels = readings.shape
    sizes = Sizes(num_nodes=num_nodes, num_channels=num_channels, block_rows=num_steps + 1)
    digest = ReadingsDigest(sizes.group_rows)
    digest.update(readings)
    start, seconds = time_axis.start_seconds, time_axis.seconds
    parts = {
        DIGESTS_FILE: digest_of(digest.links_array()),
        GRAPH_FILE: hashlib.sha256(graph.to_bytes()).hexdigest(),
        MOMENTS_FILE: digest_of(np.empty(0)),
        SERIES_FILE: digest.hexdigest(),
    }
    if seconds is not None:
        parts[TIME_FILE] = digest_of(seconds)
    if static is not None:
        parts[STATIC_FILE] = hashlib.sha256(static.to_bytes()).hexdigest()
    if len(future):
        parts[FUTURE_FILE] = digest_of(future)
    meta = StoreMeta(
        format_version=FORMAT_VERSION,
        num_steps=num_steps,
        num_nodes=num_nodes,
        num_channels=num_channels,
        num_edges=graph.num_edges,
        dtype=readings.dtype.name,
        divisors=None,
        missing_code=None,
        missing_count=int(np.isnan(readings).sum()),
        start=None if start is None else str(np.datetime64(start, "s")),
        interval_seconds=time_axis.interval_seconds,
        is_regular=seconds is None,
        time_rule=None if time_axis.rule is None else time_axis.rule.to_plain(),
        time_zone=time_axis.time_zone,
        block_rows=sizes.block_rows,
        parts=parts,
        open_moments=((0.0, 0.0, 0.0),) * num_channels,
        future_steps=len(future),
        **described,
    )
    return meta.in_lowest_format()
