"""Snapshots as PGT's `StaticGraphTemporalSignal` gives them, as views of one series.

PGT keeps a list of windows and copies features, targets, edges and weights for each snapshot. Here
a snapshot is a view of the series where that is in memory, and all share one edge index.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.errors import ConfigError, MissingExtraError
from pgti.interop.pgt.data.compat import Recipe, Standardised, standardised_as_pgt
from pgti.interop.pgt.data.data_sets import data_set_called, default_directory
from pgti.interop.pgt.data.edges import Edges, graph_edges
from pgti.interop.pgt.data.sources import Source, StoreSource
from pgti.interop.pgt.data.standardise import (
    Standardisation,
    StandardisedSeries,
    fit,
    resident_array,
)
from pgti.store import SeriesStore
from pgti.windows import WindowSpec

__all__ = ["Snapshots", "published_snapshots", "snapshots"]

Snapshot = Any
"""`torch_geometric.data.Data` with x, edge_index, edge_attr and y."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """What of a window is x and y, and in which order of axes.

    Args:
        spec: rows of each.
        targets: features of y; None where x is [N, L] of the one feature and y [N], a row later.
    """

    spec: WindowSpec
    targets: tuple[int, ...] | None

    def x(self, series: Any, start: int) -> NDArray[Any]:
        """[N, L] or [N, F, L]."""
        rows = np.asarray(series[start : start + self.spec.input_steps])
        return rows[..., 0].T if self.targets is None else rows.transpose(1, 2, 0)

    def y(self, series: Any, start: int) -> NDArray[Any]:
        """[N], [N, H] of one feature or [N, F', H] of several."""
        first = start + self.spec.input_steps
        rows = np.asarray(series[first : first + self.spec.horizon])
        if self.targets is None:
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
        series: [T, N, F], an array or a lazy series.
        edges: the graph.
        starts: first row of each snapshot.
        layout: what of a window is x and y.
        statistics: mean and standard deviation, where the series was standardised.

    Attributes:
        edge_index: int64 [2, E].
        edge_weight: float32 [E].
        snapshot_count: how many snapshots there are.
        means: mean of each feature [F], or of each sensor [N, 1]; None in original units.
        stds: of the same shape; `y * stds + means` is in original units where its axes fit.
    """

    def __init__(
        self,
        series: Any,
        edges: Edges,
        starts: range,
        layout: _Layout,
        statistics: tuple[Tensor, Tensor] | None,
    ) -> None:
        self._series, self._edges, self._starts, self._layout = series, edges, starts, layout
        self._statistics = statistics
        self.means = None if statistics is None else statistics[0]
        self.stds = None if statistics is None else statistics[1]
        self.edge_index = edges.index.numpy()
        self.edge_weight = edges.weight.numpy()
        self.snapshot_count = len(starts)

    @property
    def features(self) -> Sequence[NDArray[Any]]:
        """Features of each snapshot, x, made when it is asked for."""
        return _Views(len(self), lambda place: self._layout.x(self._series, self._starts[place]))

    @property
    def targets(self) -> Sequence[NDArray[Any]]:
        """Targets of each snapshot, y, made when it is asked for."""
        return _Views(len(self), lambda place: self._layout.y(self._series, self._starts[place]))

    def __len__(self) -> int:
        return self.snapshot_count

    def __getitem__(self, place: Any) -> Any:
        """One snapshot, or the snapshots of a slice.

        Raises:
            MissingExtraError: if PyTorch Geometric is not installed.
        """
        if isinstance(place, slice):
            return Snapshots(
                self._series, self._edges, self._starts[place], self._layout, self._statistics
            )
        start = self._starts[place]
        return _data()(
            x=torch.from_numpy(self._layout.x(self._series, start)),
            edge_index=self._edges.index,
            edge_attr=self._edges.weight,
            y=torch.from_numpy(self._layout.y(self._series, start)),
        )

    def __iter__(self) -> Iterator[Snapshot]:
        return (self[place] for place in range(len(self)))


class _Views(Sequence[NDArray[Any]]):
    """Arrays that are made when they are asked for."""

    def __init__(self, length: int, made: Callable[[int], NDArray[Any]]) -> None:
        self._length, self._made = length, made

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: Any) -> Any:
        places = range(self._length)[place]
        if isinstance(places, range):
            return [self._made(each) for each in places]
        return self._made(places)


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
    if horizon is None:
        if source.num_readings != 1 or targets:
            raise ConfigError(
                f"horizon is not given, and {source.name} has {source.num_readings} channels: "
                "without horizon x is [N, lags] of the only channel; give horizon=1 for x "
                "[N, F, lags]"
            )
        layout = _lagged(lags)
    else:
        chosen = opened.channel_indices(targets or opened.meta.channels)
        layout = _windowed(lags, horizon, chosen)
    edges = graph_edges(opened.graph)
    return _made(source, edges, layout, recipe="centred", train_ratio=train_ratio, lazy=lazy)


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
    data_set = data_set_called(name)
    if data_set is None:
        raise ConfigError(f"there is no data set {name!r}")
    source, edges = data_set.open(default_directory(directory), pgt_compat=pgt_compat)
    if horizon is None:
        layout = _lagged(lags)
    else:
        every = tuple(range(source.shape[2]))
        layout = _windowed(lags, horizon, (0,) if data_set.name == "METR-LA" else every)
    if pgt_compat:
        held = standardised_as_pgt(source, data_set.recipe, None)
        float32 = Edges(index=edges.index, weight=edges.weight.to(torch.float32))
        series = Standardised(
            data=held.data.astype(np.float32, copy=False), mean=held.mean, std=held.std
        )
        return _of(series, source, float32, layout)
    return _made(
        source,
        edges.in_order(),
        layout,
        recipe=data_set.recipe,
        train_ratio=train_ratio,
        lazy=False,
    )


def _lagged(lags: int) -> _Layout:
    return _Layout(spec=WindowSpec(input_steps=lags, horizon=1), targets=None)


def _windowed(lags: int, horizon: int, targets: tuple[int, ...]) -> _Layout:
    return _Layout(spec=WindowSpec(input_steps=lags, horizon=horizon), targets=targets)


def _made(
    source: Source,
    edges: Edges,
    layout: _Layout,
    *,
    recipe: Recipe,
    train_ratio: float | None,
    lazy: bool,
) -> Snapshots:
    """Snapshots of a source, standardised by its training rows."""
    standardisation = Standardisation(mean=np.zeros(1, np.float32), std=np.ones(1, np.float32))
    statistics = None
    if train_ratio is not None and recipe != "none":
        rows = _training_rows(layout.spec, source.num_steps, train_ratio)
        standardisation = fit(source, rows, per_node=recipe == "per-sensor")
        statistics = standardisation.mean, standardisation.std
    series = StandardisedSeries(source, standardisation)
    mean, std = (None, None) if statistics is None else map(torch.from_numpy, statistics)
    data = series if lazy else resident_array(series)
    return _of(Standardised(data=data, mean=mean, std=std), source, edges, layout)


def _of(series: Standardised, source: Source, edges: Edges, layout: _Layout) -> Snapshots:
    starts = layout.spec.starts(source.num_steps)
    if not starts:
        raise ConfigError(
            f"{source.name} has {source.num_steps} steps, and a snapshot takes {layout.spec.span}: "
            "give fewer lags"
        )
    statistics = None
    if series.mean is not None and series.std is not None:
        statistics = series.mean, series.std
    return Snapshots(series.data, edges, starts, layout, statistics)


def _training_rows(spec: WindowSpec, num_steps: int, train_ratio: float) -> range:
    """Rows of the inputs of the snapshots that `temporal_signal_split` puts into training."""
    if not 0 < train_ratio <= 1:
        raise ConfigError(f"train_ratio is {train_ratio}: it must be above 0 and at most 1")
    count = int(train_ratio * spec.num_windows(num_steps))
    if not count:
        raise ConfigError(
            f"train_ratio is {train_ratio} and there are {spec.num_windows(num_steps)} snapshots: "
            "none is left for training"
        )
    return range(count - 1 + spec.input_steps)


def _data() -> Callable[..., Snapshot]:
    try:
        with warnings.catch_warnings():
            # PyG's own modules are scripted, which torch advises against since 2.9.
            warnings.filterwarnings(
                "ignore", message="`torch.jit.script` is deprecated", category=DeprecationWarning
            )
            from torch_geometric.data import Data  # noqa: PLC0415 - an optional library
    except ImportError:
        raise MissingExtraError("PyTorch Geometric", "pgt") from None
    made: Callable[..., Snapshot] = Data
    return made
