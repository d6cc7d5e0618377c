"""`IndexDataset`: PGT's class of that name, which gathers a batch in one operation.

A window is its start s: the input is `data[s : s + L]`, and `data[s + L : s + L + H]` is to be
forecast. `DataLoader` calls `__getitems__` for a whole batch, and one indexing operation gathers
all rows of all its windows, into memory [2, B, L, N, F] where L = H: x and y are its halves.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from pgti.display import count_of
from pgti.errors import ConfigError, require_whole_number
from pgti.windows import WindowSpec

__all__ = ["IndexDataset", "Window", "WindowBatch", "collate_windows"]

Window = tuple[Tensor, ...]
"""x [L, N, F] and y [H, N, F], and the mask of y where a dataset has one."""

Series = Any
"""[T, N, F] with `shape` and rows by slices or numbers: array, tensor, dask array, LazySeries."""


class IndexDataset(Dataset[Window]):
    """Windows of one series, each known by its start.

    The constructor, the attributes and the items are those of PyTorch Geometric Temporal's
    `IndexDataset`. Items of an array that may be written, and of a tensor, are views; those of a
    read-only array (a memory map) and of a lazy series are copies.

    Args:
        indices: start of each window, whole numbers [S].
        data: the series [T, N, F]: an array, a tensor on any device, or an object whose rows are
            read when they are needed (a dask array, an HDF5 dataset).
        horizon: rows of x and rows of y, L = H.
        lazy: whether `data` is read only when a batch is built. A piece of it that has `compute()`
            is computed; anything else, such as a plain array, is used as it is.
        gpu: whether `data` is a tensor on a GPU; only checked, since a tensor is recognised.
        input_steps: rows of x, if not as many as those of y.
        mask: which readings were observed, bool [T, N, F]; a window's third part is its rows of
            the horizon.

    Attributes: the arguments, `indices` as int64 [S].

    Raises:
        ConfigError: if the starts are not whole numbers, a window reaches outside the series,
            `gpu` is true and `data` not a tensor, or `data` has no rows of the kind above.
    """

    def __init__(
        self,
        indices: ArrayLike,
        data: Series,
        horizon: int,
        lazy: bool = False,
        gpu: bool = False,
        *,
        input_steps: int | None = None,
        mask: Series | None = None,
    ) -> None:
        require_whole_number("horizon", horizon, 1)
        steps = horizon if input_steps is None else input_steps
        self._spec = WindowSpec(input_steps=steps, horizon=horizon)
        self.indices = _starts(indices)
        self.data = data
        self.horizon = horizon
        self.lazy = lazy
        self.gpu = gpu
        self.input_steps = steps
        self.mask = mask
        self._check()

    def _check(self) -> None:
        shape = getattr(self.data, "shape", None)
        if shape is None:
            raise ConfigError(
                f"data is a {type(self.data).__name__}: it must have a shape and rows, like an "
                "array [steps, sensors, features]"
            )
        if self.gpu and not isinstance(self.data, Tensor):
            raise ConfigError(
                f"gpu is True and data is a {type(self.data).__name__}: give a tensor that is on "
                "the GPU"
            )
        if self.mask is not None and tuple(self.mask.shape) != tuple(shape):
            raise ConfigError(
                f"mask has shape {tuple(self.mask.shape)} and data {tuple(shape)}: they must agree"
            )
        last = shape[0] - self._spec.span
        outside = (self.indices < 0) | (self.indices > last)
        if outside.any():
            raise ConfigError(
                f"index {int(self.indices[outside][0])} is not the start of a window: the rule is "
                f"0 <= start <= {last} ({count_of(shape[0], 'step')}, "
                f"{count_of(self._spec.span, 'row')} a window)"
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Window:
        """The window at position `index` of the starts."""
        first = int(self.indices[index])
        middle = first + self.input_steps
        stop = middle + self.horizon
        window = (_rows(self.data, slice(first, middle)), _rows(self.data, slice(middle, stop)))
        if self.mask is None:
            return window
        return (*window, _rows(self.mask, slice(middle, stop)))

    def __getitems__(self, positions: list[int]) -> "WindowBatch":
        """The windows at several positions of the starts, gathered in one operation."""
        starts = self.indices[np.asarray(positions, dtype=np.int64)]
        past = starts[:, None] + np.arange(self.input_steps)
        future = starts[:, None] + np.arange(self.input_steps, self.input_steps + self.horizon)
        gathered = _gather_rows(self.data, np.concatenate((past.ravel(), future.ravel())))
        x, y = gathered[: past.size], gathered[past.size :]
        batch = [x.view(*past.shape, *x.shape[1:]), y.view(*future.shape, *y.shape[1:])]
        if self.mask is not None:
            mask = _gather_rows(self.mask, future.ravel())
            batch.append(mask.view(*future.shape, *mask.shape[1:]))
        return WindowBatch(batch)


class WindowBatch(Sequence[Window]):
    """B windows that are a batch already.

    `collate_windows` returns the batch as it is. To other functions this is a sequence of windows,
    so that `default_collate`, which stacks them again, gives the same numbers.

    Args:
        tensors: x [B, L, N, F], y [B, H, N, F] and perhaps the mask of y.
    """

    def __init__(self, tensors: list[Tensor]) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: Any) -> Any:
        """The window at a position."""
        if isinstance(index, slice):
            return WindowBatch([tensor[index] for tensor in self.tensors])
        return tuple(tensor[index] for tensor in self.tensors)


def collate_windows(windows: Sequence[Window]) -> list[Tensor]:
    """[x, y] or [x, y, mask] of a batch: for `DataLoader(dataset, collate_fn=collate_windows)`."""
    if isinstance(windows, WindowBatch):
        return windows.tensors
    stacked: list[Tensor] = default_collate(list(windows))
    return stacked


def _starts(indices: ArrayLike) -> NDArray[np.int64]:
    starts = np.asarray(indices)
    if starts.ndim != 1 or (starts.size and starts.dtype.kind not in "iu"):
        raise ConfigError(
            f"indices is an array of {starts.dtype} {starts.shape}: it must be one row of whole "
            "numbers, the starts of windows"
        )
    return starts.astype(np.int64, copy=False)


def _gather_rows(data: Series, rows: NDArray[np.int64]) -> Tensor:
    """Rows of the series in the order given, repeated ones included, contiguous."""
    if isinstance(data, Tensor):
        return data.index_select(0, torch.from_numpy(rows).to(data.device))
    if isinstance(data, np.ndarray):
        # Not torch's index_select: it wakes a pool of threads for a single copy, and on shared
        # cores they wait for one another. numpy's take copies an array of another order whole.
        if data.flags.c_contiguous:
            return torch.from_numpy(np.take(data, rows, axis=0, mode="clip"))
        return torch.from_numpy(np.asarray(data[rows]))
    # Each row is read once, in rising order: h5py requires it, and windows overlap.
    once, places = np.unique(rows, return_inverse=True)
    return torch.from_numpy(np.take(np.asarray(_compute(data[once])), places, axis=0, mode="clip"))


def _compute(piece: Any) -> Any:
    compute = getattr(piece, "compute", None)
    return compute() if callable(compute) else piece


def _rows(data: Series, rows: slice) -> Tensor:
    piece = _compute(data[rows])
    if isinstance(piece, Tensor):
        return piece
    array = np.asarray(piece)
    # A tensor cannot be a view of read-only memory, nor have negative strides.
    can_view = array.flags.writeable and all(step >= 0 for step in array.strides)
    return torch.from_numpy(array if can_view else array.copy())
