"""The windows of the scaling study, and a batcher of windows that were written to a file once."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pgti.batching import (
    PREFETCH_DEPTH,
    Batch,
    Batcher,
    BatchRequest,
    WindowSource,
    build_batcher,
)
from pgti.store import Scaler, SeriesStore, default_calendar
from pgti.windows import WindowSpec, split_by_fractions
from pgti_bench.paper_datasets import SPLIT_FRACTIONS

__all__ = ["MaterializedBatcher", "batch_of", "window_source", "write_windows"]

_WINDOWS_PER_WRITE = 256
_X_FILE, _Y_FILE = "x.npy", "y.npy"


def window_source(store: SeriesStore, spec: WindowSpec) -> tuple[WindowSource, range]:
    """What the windows contain, the first channel being the target, and the training starts.

    Raises:
        ConfigError: if the series has no training window.
    """
    splits = split_by_fractions(store.meta.num_steps, spec, SPLIT_FRACTIONS)
    source = WindowSource(
        store=store,
        spec=spec,
        scaler=Scaler.fit(store, splits.train_rows(spec)),
        target_indices=(0,),
        calendar=default_calendar(store.time_axis),
    )
    assert isinstance(splits.train, range)  # no window of a whole series is left out
    return source, splits.train


def write_windows(source: WindowSource, starts: range, directory: Path) -> int:
    """Write every training window in float32, for `MaterializedBatcher`.

    Args:
        source: what the windows contain.
        starts: the training starts.
        directory: receives two files, inputs [S, L, N, C_in] and targets [S, H, N, C_out].

    Returns:
        Their bytes.
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
    for first in range(0, len(starts), _WINDOWS_PER_WRITE):
        piece = starts[first : first + _WINDOWS_PER_WRITE]
        batch = batcher.gather(np.asarray(piece, dtype=np.int64))
        assert batch.y is not None
        assert batch.y_mask is not None
        x[first : first + len(piece)] = batch.x.numpy()
        y[first : first + len(piece)] = torch.where(batch.y_mask, batch.y, torch.nan).numpy()
    for array in (x, y):
        array.flush()
    return x.nbytes + y.nbytes


class MaterializedBatcher(Batcher[Batch]):
    """Gathers batches of windows that were written once: standard batching done well.

    The file is mapped, so that the ranks of a machine share one copy through the page cache; a
    loader's threads fetch ahead.

    Args:
        source: what the windows contain.
        starts: the training starts.
        directory: of the files of `write_windows`.
        prefetch_depth: batches that a loader has in flight.
    """

    def __init__(
        self,
        source: WindowSource,
        starts: range,
        directory: Path,
        prefetch_depth: int = PREFETCH_DEPTH,
    ) -> None:
        super().__init__(source, torch.device("cpu"), prefetch_depth)
        self._starts = starts
        # Copy on write: torch refuses read-only memory, and nothing is written.
        self._x, self._y = (
            torch.from_numpy(np.lib.format.open_memmap(directory / name, mode="c"))
            for name in (_X_FILE, _Y_FILE)
        )

    def fetch(self, request: BatchRequest) -> Batch:
        """Copy the windows; a missing target becomes 0."""
        starts = request.starts
        chosen = torch.from_numpy((starts - self._starts.start) // self._starts.step)
        copies = []
        for name, windows in (("x", self._x), ("y", self._y)):
            shape = (len(starts), *windows.shape[1:])
            out = torch.from_numpy(request.scratch.array(name, shape, np.float32))
            copies.append(torch.index_select(windows, 0, chosen, out=out))
        return batch_of(self.source, copies[0], copies[1], starts)

    def assemble(self, fetched: Batch) -> Batch:
        """The batch itself."""
        return fetched


def batch_of(
    source: WindowSource, x: torch.Tensor, y: torch.Tensor, starts: NDArray[np.int64]
) -> Batch:
    """A batch of inputs and targets in float32; a missing target is NaN in `y`.

    The mask of the inputs and the separate calendar, which the study's model does not use, are
    expanded from one element, so that no baseline pays for them.
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
