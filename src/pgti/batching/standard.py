"""Standard batching: every window materialised, as the field's preprocessing does it.

Kept as the measured baseline and as the oracle of the other strategies: the whole series is
decoded and standardised first, in numpy, and then cut into windows.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.base import Batcher, Fetched, WindowSource
from pgti.batching.batch import Batch
from pgti.batching.memory import available_bytes
from pgti.errors import ConfigError
from pgti.series import calendar_features

__all__ = ["StandardBatcher", "standard_bytes"]


def standard_bytes(source: WindowSource) -> int:
    """Bytes that the materialised windows of the whole series take, inputs, targets and masks."""
    meta, spec = source.store.meta, source.spec
    windows = spec.num_windows(meta.num_steps)
    inputs = spec.input_steps * meta.num_nodes * (4 * source.num_input_channels + meta.num_channels)
    targets = spec.horizon * meta.num_nodes * len(source.target_indices) * (4 + 1)
    return windows * (inputs + targets)


class StandardBatcher(Batcher):
    """Holds all windows in memory.

    Args:
        source: what the windows hold.
        device: where batches are made.
        num_slots: has no effect; a batch is a fresh copy.
        budget_bytes: the most memory that the windows may take; what the machine or its control
            group has available if not given.

    Raises:
        ConfigError: if the windows do not fit.
    """

    def __init__(
        self,
        source: WindowSource,
        device: torch.device,
        num_slots: int = 1,
        budget_bytes: int | None = None,
    ) -> None:
        super().__init__(source, device, num_slots)
        budget = available_bytes() if budget_bytes is None else budget_bytes
        needed = standard_bytes(source)
        if needed > budget:
            raise ConfigError(
                f"standard batching needs {needed / 2**30:.2f} GiB for its windows and "
                f"{budget / 2**30:.2f} GiB are available: use --batching index"
            )
        self._windows = _materialise(source)

    def fetch(
        self, starts: NDArray[np.int64], *, with_targets: bool = True, slot: int = 0
    ) -> Fetched:
        """Pick the windows that start at `starts`."""
        self.source.check_starts(starts, with_targets=with_targets)
        stride = self.source.spec.stride
        count = len(self._windows[0])
        if not with_targets or (starts % stride).any() or (starts // stride >= count).any():
            raise ConfigError(
                "standard batching holds only whole windows at multiples of the stride "
                f"({stride}): use --batching index for others"
            )
        chosen = torch.from_numpy(starts // stride)
        return Fetched(
            tensors=(
                *(windows[chosen] for windows in self._windows),
                self.source.calendar_of(starts),
            ),
            starts=starts,
            with_targets=True,
            slot=slot,
        )

    def assemble(self, fetched: Fetched) -> Batch:
        """Move the windows to the compute device."""
        x, x_mask, y, y_mask, calendar = (tensor.to(self.device) for tensor in fetched.tensors)
        return Batch(
            x=x, x_mask=x_mask, y=y, y_mask=y_mask, calendar=calendar, starts=fetched.starts
        )


def _materialise(source: WindowSource) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs, their mask, targets and their mask of every window: [W, ...] each."""
    store, spec = source.store, source.spec
    values = store.read(0, store.meta.num_steps)
    observed = ~np.isnan(values)
    mean = np.asarray(source.scaler.mean, dtype=np.float32)
    std = np.asarray(source.scaler.std, dtype=np.float32)
    scaled = np.where(observed, (values - mean) / std, np.float32(0))
    if source.calendar:
        rows = np.arange(store.meta.num_steps)
        features = calendar_features(store.time_axis, source.calendar, rows)
        tiled = np.broadcast_to(features[:, None, :], (*scaled.shape[:2], features.shape[-1]))
        scaled = np.concatenate([scaled, tiled], axis=-1)
    targets = np.asarray(source.target_indices)
    y = np.where(observed, values, np.float32(0))[..., targets]
    y_mask = observed[..., targets]

    starts = spec.starts(store.meta.num_steps)

    def windows(series: NDArray[np.float32] | NDArray[np.bool_], offset: int, rows: int) -> Tensor:
        return torch.from_numpy(
            np.stack([series[start + offset : start + offset + rows] for start in starts])
        )

    return (
        windows(scaled, 0, spec.input_steps),
        windows(observed, 0, spec.input_steps),
        windows(y, spec.input_steps, spec.horizon),
        windows(y_mask, spec.input_steps, spec.horizon),
    )
