"""Snapshots as PGT's `StaticGraphTemporalSignal` gives them, as views of one series.

PGT holds a list of windows and copies features, targets, edges and weights for each snapshot. Here
a snapshot is a view of the series where that is in memory, and all share one edge index.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import ConfigError
from pgti.interop.pgt.data.compat import standardize_as_pgt
from pgti.interop.pgt.data.data_sets import default_directory, find_data_set
from pgti.interop.pgt.data.sources import Source, StoreSource
from pgti.interop.pgt.data.standardize import Standardized, standardize
from pgti.interop.pgt.edges import Edges
from pgti.interop.pgt.package import import_pyg
from pgti.store import SeriesStore
from pgti.windows import WindowSpec

__all__ = ["Snapshots", "published_snapshots", "snapshots"]

Snapshot = Any
"""`torch_geometric.data.Data` with x, edge_index, edge_attr and y."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which rows and features of a window are x and y, and the order of their axes.

    Attributes:
        input_steps: rows of x.
        horizon: rows of y; None where x is [N, L] of the one feature and y [N], a row later.
        targets: features of y.
    """

    input_steps: int
    horizon: int | None
    targets: tuple[int, ...] = ()

    @property
    def spec(self) -> WindowSpec:
        """The shape of the windows."""
        horizon = 1 if self.horizon is None else self.horizon
        return WindowSpec(input_steps=self.input_steps, horizon=horizon)

    def x(self, series: Any, start: int) -> NDArray[Any]:
        """[N, L] or [N, F, L]."""
        rows = np.asarray(series[start : start + self.input_steps])
        return rows[..., 0].T if self.horizon is None else rows.transpose(1, 2, 0)

    def y(self, series: Any, start: int) -> NDArray[Any]:
        """[N], [N, H] of one feature or [N, F', H] of several."""
        rows = np.asarray(series[start + self.input_steps : start + self.spec.span])
        if self.horizon is None:
            return rows[0, :, 0]
        if len(self.targets) == 1:
            return rows[..., self.targets[0]].T
        if self.targets == tuple(range(rows.shape[2])):
            return rows.transpose(1, 2, 0)
        return rows[..., list(self.targets)].transpose(1, 2, 0)


class Snapshots(Sequence[Snapshot]):
    """A sequence of snapshots; slices of it are snapshots too.

    It has what PGT's `temporal_signal_split` and training loops use of a signal.

    Args:
        series: [T, N, F], an array or a lazy series, and the statistics of its standardisation.
        edges: the graph.
        starts: first row of each snapshot.
        layout: what of a window is x and y.

    Attributes:
        edge_index: int64 [2, E].
        edge_weight: float32 [E].
        snapshot_count: how many snapshots there are.
        means: mean of each feature [F], or of each sensor [N, 1]; None in original units.
        stds: of the same shape; `y * stds + means` is in original units where its axes fit.
    """

    def __init__(self, series: Standardized, edges: Edges, starts: range, layout: _Layout) -> None:
        self._standardized, self._series = series, series.data
        self._edges, self._starts, self._layout = edges, starts, layout
        self.means, self.stds = series.mean, series.std
        self.edge_index = edges.index.numpy()
        self.edge_weight = edges.weight.numpy()
        self.snapshot_count = len(starts)

    @property
    def features(self) -> Sequence[NDArray[Any]]:
        """Features of each snapshot, x, computed when they are read."""
        return _Views(self._starts, partial(self._layout.x, self._series))

    @property
    def targets(self) -> Sequence[NDArray[Any]]:
        """Targets of each snapshot, y, computed when they are read."""
        return _Views(self._starts, partial(self._layout.y, self._series))

    def __len__(self) -> int:
        return self.snapshot_count

    def __getitem__(self, place: Any) -> Any:
        """One snapshot, or the snapshots of a slice.

        Raises:
            MissingExtraError: if PyTorch Geometric is not installed.
        """
        if isinstance(place, slice):
            return Snapshots(self._standardized, self._edges, self._starts[place], self._layout)
        return import_pyg("data").Data(
            x=torch.from_numpy(self.features[place]),
            edge_index=self._edges.index,
            edge_attr=self._edges.weight,
            y=torch.from_numpy(self.targets[place]),
        )


class _Views(Sequence[NDArray[Any]]):
    """An array of each window, computed when it is read."""

    def __init__(self, starts: range, compute: Callable[[int], NDArray[Any]]) -> None:
        self._starts, self._compute = starts, compute

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, place: Any) -> Any:
        starts = self._starts[place]
        if isinstance(starts, range):
            return [self._compute(each) for each in starts]
        return self._compute(starts)


def snapshots(
    store: str | Path | SeriesStore,
    lags: int,
    horizon: int | None = None,
    *,
    targets: tuple[str, ...] = (),
    train_ratio: float | None = 0.8,
    lazy: bool = False,
) -> Snapshots:
    """The series of a store as PGT's signals have it.

    Args:
        store: a store, or its path.
        lags: steps of x.
        horizon: steps of y: x is then [N, F, lags], the readings and, where a day has several rows,
            the time of day; y [N, horizon], or [N, C, horizon] of several channels, as in PGT's
            METR-LA and PEMS-BAY. None gives x [N, lags] and y [N], the step after, as in PGT's
            Chickenpox and windmills; for stores with one channel.
        targets: channels of y; all if not given.
        train_ratio: as in PGT's `temporal_signal_split`: readings are standardised by those of the
            inputs of this share of the snapshots, the first; None leaves original units, in which a
            missing reading is 0.
        lazy: read each snapshot from the store and hold nothing in memory.

    Raises:
        ConfigError: if an argument breaks its rule, the series has no snapshot, or memory does not
            hold it.
        DataError: if there is no such channel.
        StoreError: if the store is missing or damaged.
    """
    opened = store if isinstance(store, SeriesStore) else SeriesStore.open(store)
    source = StoreSource(opened)
    if horizon is None and (source.num_readings != 1 or targets):
        raise ConfigError(
            f"horizon is not given, and {source.name} has "
            f"{count_of(source.num_readings, 'channel')}: without horizon x is [N, lags] of the "
            "only channel; give horizon=1 for x [N, F, lags]"
        )
    layout = _Layout(lags, horizon, opened.channel_indices(targets or opened.meta.channels))
    rows = _training_rows(layout.spec, source.num_steps, train_ratio)
    series = standardize(source, rows, lazy=lazy)
    return _cut(series, source, Edges.from_graph(opened.graph), layout)


def published_snapshots(
    name: str,
    directory: str | Path | None,
    lags: int,
    horizon: int | None,
    *,
    train_ratio: float | None = 0.8,
    pgt_compat: bool = False,
) -> Snapshots:
    """The snapshots of PGT's `get_dataset` for one of its data sets.

    Args:
        name: METR-LA, PEMS-BAY, WindmillLarge or Chickenpox.
        directory: where its files are; `data` in the working directory if not given.
        lags: steps of x.
        horizon: steps of y for METR-LA, y [N, horizon] of speeds, and PEMS-BAY, y [N, 2, horizon];
            None for the others, y [N] a step later.
        train_ratio: see `snapshots`; Chickenpox is left as its file has it.
        pgt_compat: standardise by the whole series, test rows included, as PGT does.

    Raises:
        ConfigError: if an argument breaks its rule, or memory does not hold the series.
        DataError: if a file is missing, saying where to get it, or damaged.
    """
    data_set = find_data_set(name)
    if data_set is None:
        raise ConfigError(f"there is no data set {name!r}")
    source, edges = data_set.open(default_directory(directory), pgt_compat=pgt_compat)
    targets = (0,) if data_set.name == "METR-LA" else tuple(range(source.shape[2]))
    layout = _Layout(lags, horizon, targets)
    if pgt_compat:
        series = standardize_as_pgt(source, data_set.scaling, None)
        series = replace(series, data=series.data.astype(np.float32, copy=False))
        return _cut(series, source, Edges(edges.index, edges.weight.to(torch.float32)), layout)
    train_ratio = None if data_set.scaling == "none" else train_ratio
    rows = _training_rows(layout.spec, source.num_steps, train_ratio)
    series = standardize(source, rows, per_node=data_set.scaling == "per-sensor")
    return _cut(series, source, edges.in_order(), layout)


def _cut(series: Standardized, source: Source, edges: Edges, layout: _Layout) -> Snapshots:
    starts = layout.spec.starts(source.num_steps)
    if not starts:
        raise ConfigError(
            f"{source.name} has {count_of(source.num_steps, 'step')}, and a snapshot takes "
            f"{layout.spec.span}: give fewer lags"
        )
    return Snapshots(series, edges, starts, layout)


def _training_rows(spec: WindowSpec, num_steps: int, train_ratio: float | None) -> range | None:
    """Rows of the inputs of the snapshots that `temporal_signal_split` puts into training."""
    if train_ratio is None:
        return None
    if not 0 < train_ratio <= 1:
        raise ConfigError(f"train_ratio is {train_ratio}: it must be above 0 and at most 1")
    count = int(train_ratio * spec.num_windows(num_steps))
    if not count:
        raise ConfigError(
            f"train_ratio is {train_ratio} and there are {spec.num_windows(num_steps)} snapshots: "
            "none is left for training"
        )
    return range(count - 1 + spec.input_steps)
