"""Standard batching: every window materialized, as the field's preprocessing does it.

Kept as the measured baseline and as the oracle of the other strategies: the whole series is
decoded and standardised first, in numpy, and then cut into windows.
"""

from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.batch import Batch
from pgti.batching.batcher import Batcher, BatchRequest
from pgti.batching.covariates import Covariates
from pgti.batching.filling import Filling, fill_missing
from pgti.batching.source import WindowSource, relative
from pgti.display import size_text
from pgti.errors import ConfigError, option
from pgti.memory import available_bytes
from pgti.store import calendar_features
from pgti.store.codec import Values

__all__ = ["StandardBatcher", "standard_bytes"]


def standard_bytes(source: WindowSource) -> int:
    """Peak bytes while all windows are materialized, reached with the last one.

    Those are the windows of the whole series (inputs, targets, masks) and the decoded and
    standardised series that they are cut from.
    """
    meta, spec = source.store.meta, source.spec
    cut_from = source.input_row_bytes + source.target_row_bytes
    # Before there is any window: the inputs once more, while channels are appended to them.
    channels = source.num_input_channels + meta.num_channels * (1 + 2 * source.is_exact)
    preparing = cut_from + 4 * source.num_nodes * channels
    rows = meta.num_steps
    windows = spec.num_windows(rows) * (source.window_bytes + source.history_bytes)
    return max(rows * cut_from + windows, rows * preparing) + source.typical_bytes


class StandardBatcher(Batcher[Batch]):
    """Holds all windows in memory, from the first batch on.

    Args:
        source: what the windows hold.
        device: where batches are made.
        prefetch_depth: batches that a loader has in progress.
        budget_bytes: the most memory that the windows may take; what the machine or its control
            group has available if not given.

    Raises:
        ConfigError: if the windows do not fit.
    """

    def __init__(
        self,
        source: WindowSource,
        device: torch.device,
        prefetch_depth: int = 1,
        budget_bytes: int | None = None,
    ) -> None:
        super().__init__(source, device, prefetch_depth)
        budget = available_bytes() if budget_bytes is None else budget_bytes
        needed = standard_bytes(source)
        if needed > budget:
            raise ConfigError(
                f"standard batching needs {size_text(needed)} for its windows and "
                f"{size_text(budget)} are available: use "
                f"{option('batching', 'index')}"
            )
        self._windows: dict[str, Tensor] | None = None
        self._covariates = Covariates(source, device)
        self._materialising = Lock()

    def fetch(self, request: BatchRequest) -> Batch:
        """Copy the windows that start at `starts`."""
        starts, stride = request.starts, self.source.spec.stride
        self.source.check_starts(starts, with_targets=request.with_targets)
        count = self.source.spec.num_windows(self.source.store.meta.num_steps)
        if not request.with_targets or (starts % stride).any() or (starts // stride >= count).any():
            raise ConfigError(
                "standard batching holds only whole windows at multiples of the stride "
                f"({stride}): use {option('batching', 'index')} for others"
            )
        chosen = torch.from_numpy(starts // stride)
        windows = {name: every[chosen] for name, every in self._materialized().items()}
        batch = Batch(**windows, calendar=self.source.calendar_of(starts), starts=starts)
        return batch.pin_memory() if self.device.type == "cuda" else batch

    def assemble(self, fetched: Batch) -> Batch:
        """Move the windows to the compute device."""
        batch = fetched.to(self.device, non_blocking=True)
        self._covariates.add_static(batch)
        return batch

    def _materialized(self) -> dict[str, Tensor]:
        with self._materialising:
            if self._windows is None:
                self._windows = _materialize(self.source)
            return self._windows


def _materialize(source: WindowSource) -> dict[str, Tensor]:
    """What a batch has of every window, by the name that it has there: [W, ...] each."""
    store, spec = source.store, source.spec
    dtype = np.float64 if source.is_exact else np.float32
    values = store.codec.decode(source.raw_rows(slice(store.meta.num_steps)), dtype)
    observed = ~np.isnan(values)
    targets = np.asarray(source.target_indices)
    y = values[..., targets]
    y_mask = observed[..., targets]
    y[~y_mask] = 0
    scaled = relative(values, source.offsets) - np.asarray(source.scaler.mean, dtype=np.float32)
    del values  # `standard_bytes` counts what is alive
    scaled /= np.asarray(source.scaler.std, dtype=np.float32)
    scaled[~observed] = 0
    rows = np.arange(store.meta.num_steps)
    if source.observed_mask:
        scaled = np.concatenate([scaled, observed.astype(np.float32)], axis=-1)
    table = source.scaled_typical() if source.climatology else None
    if source.typical is not None and table is not None:
        for ahead in source.typical_offsets:
            bins = source.typical.bins(store.time_axis, rows + ahead)
            scaled = np.concatenate([scaled, table[bins][..., targets]], axis=-1)
    del table
    if source.calendar:
        features = calendar_features(store.time_axis, source.calendar, rows)
        tiled = np.broadcast_to(features[:, None, :], (*scaled.shape[:2], features.shape[-1]))
        scaled = np.concatenate([scaled, tiled], axis=-1)

    starts = spec.starts(store.meta.num_steps)

    def windows(series: Values | NDArray[np.bool_], offset: int, rows: int) -> Tensor:
        return torch.from_numpy(
            np.stack([series[start + offset : start + offset + rows] for start in starts])
        )

    every = {
        "x": windows(scaled, 0, spec.input_steps),
        "x_mask": windows(observed, 0, spec.input_steps),
        "y": windows(y, spec.input_steps, spec.horizon),
        "y_mask": windows(y_mask, spec.input_steps, spec.horizon),
    }
    known = list(source.known_indices)
    if known:
        whole = (windows(each[..., known], 0, spec.span) for each in (scaled, observed))
        pair = zip(("future", "future_mask"), _filled(source, *whole), strict=True)
        every |= {name: each[:, spec.input_steps :] for name, each in pair}
    if spec.history:
        channels = store.meta.num_channels
        every |= _history(source, scaled[..., :channels], observed, starts)
    if source.fills and source.typical is not None:
        fill = Filling(source, torch.device("cpu"))
        times = torch.from_numpy(source.typical.bins(store.time_axis, rows))
        for start, each, mask in zip(starts, every["x"], every["x_mask"], strict=True):
            fill(each[None], mask[None], times[None, start : start + spec.input_steps, None])
    return every


def _history(
    source: WindowSource, scaled: Values, observed: NDArray[np.bool_], starts: range
) -> dict[str, Tensor]:
    """History of every window and its mask [W, R, N, C], reading after reading as defined."""
    axis, offsets, reach = source.store.time_axis, source.spec.history_offsets, source.spec.reach
    shape = (len(starts), len(offsets), *scaled.shape[1:])
    values, mask = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.bool_)
    table = source.scaled_typical() if source.fills_history else None
    for window, start in enumerate(starts):
        holes = axis.holes[axis.holes < start]
        begin = 0 if source.across_holes or not len(holes) else int(holes[-1]) + 1
        if table is not None and source.typical is not None:
            # What is typical of every time, those before the first row that is there included.
            earlier = source.typical.bins(axis.before(begin, -reach.start), np.arange(-reach.start))
            later = source.typical.bins(axis, np.arange(begin, len(scaled)))
            values[window] = table[np.append(earlier, later)[start + offsets - begin - reach.start]]
        there = start + offsets >= begin
        rows = start + offsets[there]
        mask[window, there] = observed[rows]
        values[window, there] = np.where(observed[rows], scaled[rows], values[window, there])
    return {"history": torch.from_numpy(values), "history_mask": torch.from_numpy(mask)}


def _filled(source: WindowSource, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Known values of inputs and horizon [W, L + H, N, F], filled as inputs are, and their mask."""
    store, table = source.store, source.scaled_typical()
    if not source.fills or source.typical is None or table is None:
        return values, mask
    typical = torch.from_numpy(table[..., list(source.known_indices)])
    bins = source.typical.bins(store.time_axis, np.arange(store.meta.num_steps))
    starts = source.spec.starts(store.meta.num_steps)
    for start, each, known in zip(starts, values, mask, strict=True):
        rows = torch.from_numpy(bins[start : start + source.spec.span])
        fill_missing(each[None], known[None], typical, rows[None])
    return values, mask
