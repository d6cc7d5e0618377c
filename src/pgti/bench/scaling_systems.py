"""The systems of the scaling study, each as a loader of a rank's share of the global batches."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pgti import batching
from pgti.batching import Batch, Batcher, BatchLoader, BatchRequest, WindowSource, build_batcher
from pgti.bench.loader_options import TRAINED_FRACTIONS
from pgti.bench.scaling_options import DASK, EXCHANGE
from pgti.distributed import Communicator
from pgti.store import Scaler, SeriesStore, default_calendar
from pgti.windows import (
    GlobalShuffle,
    Order,
    PartitionShuffle,
    WindowSpec,
    split_by_fractions,
)

__all__ = ["MaterialisedBatcher", "build_loader", "study_source", "write_windows"]

_NUM_SLOTS = 3  # as in training: one batch in use, one ready, one being fetched
_BLOCK_SIZE = 8
_WRITTEN_AT_ONCE = 256
_X_FILE, _Y_FILE = "x.npy", "y.npy"


def study_source(store: SeriesStore, spec: WindowSpec) -> tuple[WindowSource, range]:
    """What the windows hold, the first channel being forecast, and the training starts.

    Raises:
        ConfigError: if the series has no training window.
    """
    splits = split_by_fractions(store.meta.num_steps, spec, TRAINED_FRACTIONS)
    source = WindowSource(
        store=store,
        spec=spec,
        scaler=Scaler.fit(store, splits.train_rows(spec)),
        target_indices=(0,),
        calendar=default_calendar(store.time_axis),
    )
    return source, splits.train


def write_windows(source: WindowSource, starts: range, directory: Path) -> int:
    """Write every training window, as batches hold it in float32, for `MaterialisedBatcher`.

    Args:
        source: what the windows hold.
        starts: the training starts.
        directory: where two files are made, inputs [S, L, N, C_in] and targets [S, H, N, C_out].

    Returns:
        Bytes that they take.
    """
    spec, num_nodes = source.spec, source.store.meta.num_nodes
    shapes = {
        _X_FILE: (spec.input_steps, num_nodes, source.num_input_channels),
        _Y_FILE: (spec.horizon, num_nodes, len(source.target_indices)),
    }
    x, y = (
        np.lib.format.open_memmap(
            directory / name, mode="w+", dtype=np.float32, shape=(len(starts), *shape)
        )
        for name, shape in shapes.items()
    )
    batcher = build_batcher("index", source, torch.device("cpu"))
    for first in range(0, len(starts), _WRITTEN_AT_ONCE):
        piece = starts[first : first + _WRITTEN_AT_ONCE]
        batch = batcher.gather(np.asarray(piece, dtype=np.int64))
        assert batch.y is not None
        assert batch.y_mask is not None
        x[first : first + len(piece)] = batch.x.numpy()
        y[first : first + len(piece)] = torch.where(batch.y_mask, batch.y, torch.nan).numpy()
    for array in (x, y):
        array.flush()
    return x.nbytes + y.nbytes


class MaterialisedBatcher(Batcher[Batch]):
    """Gathers batches of windows that were written out once: standard batching done well.

    The file is mapped, so that the ranks of a machine share one copy through the page cache; a
    loader's threads fetch ahead.

    Args:
        source: what the windows hold.
        starts: the training starts.
        directory: where `write_windows` wrote them.
        prefetch_depth: batches that a loader has under way.
    """

    def __init__(
        self, source: WindowSource, starts: range, directory: Path, prefetch_depth: int = _NUM_SLOTS
    ) -> None:
        super().__init__(source, torch.device("cpu"), prefetch_depth)
        self._starts = starts
        # Copy on write: torch refuses memory that it may not write to, and nothing is written.
        self._x, self._y = (
            torch.from_numpy(np.lib.format.open_memmap(directory / name, mode="c"))
            for name in (_X_FILE, _Y_FILE)
        )

    def fetch(
        self,
        request: BatchRequest,
    ) -> Batch:
        """Copy the windows; a missing target becomes 0."""
        starts = request.starts
        chosen = torch.from_numpy((starts - self._starts.start) // self._starts.step)
        tensors = []
        for name, windows in (("x", self._x), ("y", self._y)):
            shape = (len(starts), *windows.shape[1:])
            out = torch.from_numpy(request.scratch.array(name, shape, np.float32))
            tensors.append(torch.index_select(windows, 0, chosen, out=out))
        return batch_of(self.source, tensors[0], tensors[1], starts)

    def assemble(self, fetched: Batch) -> Batch:
        """The batch itself."""
        return fetched


def batch_of(
    source: WindowSource, x: torch.Tensor, y: torch.Tensor, starts: NDArray[np.int64]
) -> Batch:
    """A batch of inputs and targets in float32, a missing target being NaN.

    What no model of the study looks at (the mask of the inputs, the calendar beside them) is empty
    memory of one number, so that no baseline pays for it.
    """
    spec, num_channels = source.spec, source.store.meta.num_channels
    y_mask = ~torch.isnan(y)
    return Batch(
        x=x,
        x_mask=torch.ones(1, dtype=torch.bool).expand(*x.shape[:3], num_channels),
        y=y.nan_to_num_(0.0),
        y_mask=y_mask,
        calendar=torch.zeros(1).expand(len(x), spec.span, len(source.calendar)),
        starts=starts,
    )


def build_loader(
    system: str,
    source: WindowSource,
    starts: range,
    communicator: Communicator,
    *,
    batch_size: int,
    seed: int,
    place: str = "",
) -> BatchLoader:
    """A rank's loader, as training builds it where the system is one of ours.

    Args:
        system: a name out of `SYSTEMS`.
        source: what the windows hold.
        starts: the training starts.
        communicator: the ranks.
        batch_size: windows of one rank.
        seed: of the order.
        place: directory of the windows that were written out, or address of Dask's scheduler.

    Raises:
        MissingExtraError: Dask is wanted and not installed.
    """
    order: Order = GlobalShuffle(seed)
    batcher: Batcher[Any] | None = None
    if system == DASK:
        from pgti.bench.scaling_dask import connected_batcher  # noqa: PLC0415 - an extra

        batcher = connected_batcher(source, starts, place)
    elif system == "windows":
        batcher = MaterialisedBatcher(source, starts, Path(place))
    elif system == "partitioned":
        # As many partitions as ranks, each of which gives a rank's batch.
        order = PartitionShuffle(seed, communicator.world_size, _BLOCK_SIZE)
    return batching.build_loader(
        source,
        starts,
        batch_size * communicator.world_size,
        order,
        batching="device" if system == "device" else "index",
        placement="partitioned" if system in ("partitioned", EXCHANGE) else "replicated",
        communicator=communicator,
        batcher=batcher,
    )
