"""PGT's signals as stores, and its loaders as `IndexDataset`s."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pgti.display import count_of
from pgti.errors import ConfigError, DataError
from pgti.graph import SensorGraph
from pgti.ingestion import IngestOptions, ingest
from pgti.ingestion.cleaning import numeric_codes
from pgti.interop.pgt.data.index_dataset import IndexDataset
from pgti.store import SeriesStore

__all__ = ["Layout", "from_loader", "to_store"]

Layout = Literal["windows", "steps"]

Values = NDArray[Any]

# Of a standard deviation: far more than float32 loses on the way to z and back.
_NEAR = 1e-4


def from_loader(loader: Any) -> IndexDataset:
    """The windows of a PGT loader, on the array or tensor that it holds, without a copy.

    `DataLoader(from_loader(loader), batch_size=64, collate_fn=collate_windows)` gives the loader's
    batches, each in one gather.

    Args:
        loader: a `DataLoader` over an `IndexDataset`, PGT's or ours, or such a dataset.

    Raises:
        ConfigError: if it lacks starts, series or horizon.
    """
    dataset = getattr(loader, "dataset", loader)
    for name in ("indices", "data", "horizon"):
        if not hasattr(dataset, name):
            raise ConfigError(
                f"a {type(dataset).__name__} has no {name}: give the DataLoader that PGT's "
                "get_index_dataset returned"
            )
    return IndexDataset(
        dataset.indices,
        dataset.data,
        dataset.horizon,
        lazy=getattr(dataset, "lazy", False),
        gpu=getattr(dataset, "gpu", False),
        input_steps=getattr(dataset, "input_steps", None),
        mask=getattr(dataset, "mask", None),
    )


def to_store(
    signal: Any,
    path: str | Path,
    options: IngestOptions | None = None,
    *,
    layout: Layout = "windows",
    node_ids: tuple[str, ...] | None = None,
    means: ArrayLike | None = None,
    stds: ArrayLike | None = None,
) -> SeriesStore:
    """Write a signal of PGT as a store: the series once, in place of its windows.

    A signal has `features` and `targets`, one array for each snapshot; `edge_index` [2, E] and
    `edge_weight` [E], or the lists `edge_indices` and `edge_weights` whose entries are all equal.

    Args:
        signal: a `StaticGraphTemporalSignal`, a `DynamicGraphTemporalSignal` whose graph does not
            change, or `Snapshots`.
        path: the store to write.
        options: names of channels, start, interval, missing values and the like; PGT's signals
            have no times.
        layout: what consecutive snapshots are. "windows": each is the one before, one step later,
            features [N, L] or [N, F, L] and targets the steps that follow: [N] or [N, H] of
            one feature, or [N, F, H]. The store has the S + L - 1 + H steps of S snapshots; the
            last H of features that are not targets are missing. "steps": each is one step,
            features [N] or [N, F], and targets [N] or [N, K], which become channels after the
            features.
        node_ids: ids of the sensors; "0", "1", ... if not given.
        means: mean of each channel [F], or of each sensor [N, 1], or anything else that fits
            [T, N, F], by which the signal was standardised: readings are `value * stds + means`,
            and a value of `options.missing` is recognised within rounding. Of steps the channels
            are F features and K targets; give mean 0 and deviation 1 for one that was not
            standardised.
        stds: standard deviations, given with `means`.

    Returns:
        The summary of `pgti.ingest`.

    Raises:
        DataError: if snapshots have no features, contradict the layout (naming the first that
            does), or the graph changes from one to another.
        ConfigError: if only one of `means` and `stds` is given, or they do not fit; or an option
            cannot be used.
        StoreError: if the store exists or cannot be written.
    """
    options = options or IngestOptions()
    if (means is None) != (stds is None):
        raise ConfigError("only one of means and stds is given: give both, or neither")
    features = _arrays(signal, "features")
    if layout == "windows":
        values = _join_windows(features, _arrays(signal, "targets"))
    elif layout == "steps":
        targets = getattr(signal, "targets", None)
        has_targets = targets is not None and any(each is not None for each in targets)
        values, names = _join_steps(features, _arrays(signal, "targets") if has_targets else [])
        if not options.channels:
            options = replace(options, channels=names)
    else:
        raise ConfigError(f"layout is {layout!r}: it must be windows or steps")
    if means is not None and stds is not None:
        values = _to_readings(
            values, np.asarray(means), np.asarray(stds), numeric_codes(options.missing)
        )
    graph = _graph(signal, values.shape[1])
    return ingest(values, path, options, graph=graph, node_ids=node_ids)


def _arrays(signal: Any, name: str) -> list[Values]:
    """An array of each snapshot, all of one shape."""
    entries: Sequence[Any] | None = getattr(signal, name, None)
    if entries is None or not len(entries):
        raise DataError(f"a {type(signal).__name__} without {name} cannot be stored as a signal")
    arrays: list[Values] = []
    for place, entry in enumerate(entries):
        if entry is None:
            raise DataError(f"snapshot {place} of the signal has no {name}")
        array = np.asarray(entry)
        if arrays and array.shape != arrays[0].shape:
            raise DataError(
                f"snapshot {place} of the signal has {name} of shape {array.shape} and snapshot 0 "
                f"of {arrays[0].shape}: a series has one shape"
            )
        arrays.append(array)
    return arrays


def _join_windows(features: list[Values], targets: list[Values]) -> Values:
    """The series [T, N, F] of windows and the steps after them."""
    windows = [_with_features(each) for each in features]
    num_nodes, num_features, steps = windows[0].shape
    for place, (before, window) in enumerate(pairwise(windows), 1):
        if not np.array_equal(before[..., 1:], window[..., :-1], equal_nan=True):
            raise DataError(
                f"the features of snapshot {place} are not those of snapshot {place - 1} one step "
                'later: pass layout="steps" if each snapshot is a single step'
            )
    ahead = [_as_steps_ahead(each, num_features) for each in targets]
    known = len(windows) + steps - 1
    horizon = ahead[0].shape[-1]
    # Whole numbers have no NaN; float64 holds those of counts.
    dtype = windows[0].dtype if windows[0].dtype.kind == "f" else np.float64
    series = np.full((known + horizon, num_nodes, num_features), np.nan, dtype)
    series[:steps] = windows[0].transpose(2, 0, 1)
    for row, window in enumerate(windows[1:], steps):
        series[row] = window[..., -1]
    channels = _find_channels(series[:known], ahead, steps)
    series[known:, :, channels] = ahead[-1].transpose(2, 0, 1)
    return series


def _with_features(window: Values) -> Values:
    """[N, F, L] of features [N, L] or [N, F, L]."""
    if window.ndim not in (2, 3) or not window.size:
        raise DataError(
            f"features have shape {window.shape}: the rule is [N, L] or [N, F, L], the last axis "
            'being time; pass layout="steps" for [N] or [N, F]'
        )
    return window[:, None] if window.ndim == 2 else window


def _as_steps_ahead(target: Values, num_features: int) -> Values:
    """[N, F, H] of targets of every feature, or [N, 1, H] of targets [N] or [N, H] of one."""
    if target.ndim == 3 and target.shape[1] == num_features:
        return target
    if target.ndim in (1, 2):
        return target.reshape(len(target), 1, -1)
    raise DataError(
        f"targets have shape {target.shape} and there are {count_of(num_features, 'feature')}: the "
        "rule is [N], [N, H] or [N, F, H]"
    )


def _find_channels(series: Values, ahead: list[Values], steps: int) -> slice:
    """The features whose next steps the targets are."""
    width = ahead[0].shape[1]
    for first in range(series.shape[2] - width + 1):
        channels = slice(first, first + width)
        rows = series[steps:, :, channels]
        if all(_continues(rows[place:], each) for place, each in enumerate(ahead)):
            return channels
    raise DataError(
        "the targets are not the steps that follow the features: a store holds one series; write "
        "the target's own readings with pgti.ingest"
    )


def _continues(rows: Values, target: Values) -> bool:
    """Whether the rows that are known after a window are the first of its target [N, F', H]."""
    count = min(len(rows), target.shape[-1])
    return np.array_equal(rows[:count].transpose(1, 2, 0), target[..., :count], equal_nan=True)


def _join_steps(features: list[Values], targets: list[Values]) -> tuple[Values, tuple[str, ...]]:
    """Each snapshot as one row [N, F + K], and names of the channels."""
    columns = [_as_columns(np.stack(features), "features")]
    names = [f"feature{place}" for place in range(columns[0].shape[2])]
    if targets:
        column = _as_columns(np.stack(targets), "targets")
        if column.shape[:2] != columns[0].shape[:2]:
            raise DataError(
                f"targets have shape {column.shape[1:]} and features {columns[0].shape[1:]}: they "
                "must be of the same nodes"
            )
        columns.append(column)
        width = column.shape[2]
        names += ["target"] if width == 1 else [f"target{place}" for place in range(width)]
    return np.concatenate(columns, axis=2), tuple(names)


def _as_columns(rows: Values, what: str) -> Values:
    if rows.ndim not in (2, 3):
        raise DataError(f"{what} have shape {rows.shape[1:]}: the rule is [N] or [N, F] for steps")
    return rows[..., None] if rows.ndim == 2 else rows


def _check_fits(name: str, shape: tuple[int, ...], values: tuple[int, ...]) -> None:
    """Refuse a statistic that does not broadcast to the series, or broadcasts the series."""
    try:
        fits = np.broadcast_shapes(shape, values) == values
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(
            f"{name} has shape {shape} and the series {values}, steps, sensors and channels: "
            f"give [{values[2]}] for channels or [{values[1]}, 1] for sensors, for example "
            f"{name}.reshape(-1, 1)"
        )


def _to_readings(values: Values, means: Values, stds: Values, missing: tuple[float, ...]) -> Values:
    """Readings in original units; those that are nearly a missing value are exactly that."""
    _check_fits("means", means.shape, values.shape)
    _check_fits("stds", stds.shape, values.shape)
    readings = np.asarray(values * stds.astype(np.float64) + means.astype(np.float64))
    for value in missing:
        readings[np.abs(readings - value) <= _NEAR * np.broadcast_to(stds, readings.shape)] = value
    return readings.astype(np.float32)


def _graph(signal: Any, num_nodes: int) -> SensorGraph:
    index = _constant(signal, "edge_index", "edge_indices")
    weight = _constant(signal, "edge_weight", "edge_weights")
    if index is None:
        return SensorGraph.empty(num_nodes)
    if index.ndim != 2 or len(index) != 2:
        raise DataError(f"the edge index has shape {index.shape}: the rule is [2, E]")
    return SensorGraph.from_edges(num_nodes, index[0], index[1], weight)


def _constant(signal: Any, name: str, plural: str) -> Values | None:
    """An attribute of a static signal, or the value of all snapshots of a dynamic one."""
    entries = getattr(signal, plural) if hasattr(signal, plural) else [getattr(signal, name, None)]
    value: Any = entries[0]
    for place, entry in enumerate(entries):
        if entry is not value and not np.array_equal(entry, value):
            raise DataError(
                f"{plural} of snapshot {place} are not those of snapshot 0: a store has one "
                "graph, and this signal's changes"
            )
    return None if value is None else np.asarray(value)
