"""Device-resident batching: the series lives on the compute device (PGT-I's GPU-index-batching).

The series moves there once, in its stored dtype, with the calendar of every row. From then on only
window starts cross from the host: gathering, decoding, standardising and masking happen on the
device.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from pgti.batching.assemble import Assembler
from pgti.batching.base import Batcher, Fetched, WindowSource
from pgti.batching.batch import Batch
from pgti.batching.memory import available_bytes
from pgti.errors import ConfigError
from pgti.series import calendar_features

__all__ = ["DeviceBatcher", "resident_bytes"]

_COPY_BYTES = 1 << 26  # the series moves in pieces of 64 MiB: no second copy of it on the host


def resident_bytes(source: WindowSource) -> int:
    """Bytes that the series and its calendar take on the compute device."""
    rows = source.store.meta.num_steps + source.spec.horizon
    return source.store.num_bytes + 4 * rows * len(source.calendar)


class DeviceBatcher(Batcher):
    """Holds the whole series on the compute device.

    Args:
        source: what the windows hold.
        device: where the series lives and batches are made.
        num_slots: has no effect; there are no host buffers.
        budget_bytes: the most memory that the series may take on the device; what is free there
            if not given.

    Raises:
        ConfigError: if it does not fit.
    """

    def __init__(
        self,
        source: WindowSource,
        device: torch.device,
        num_slots: int = 1,
        budget_bytes: int | None = None,
    ) -> None:
        super().__init__(source, device, num_slots)
        budget = available_bytes(device) if budget_bytes is None else budget_bytes
        needed = resident_bytes(source)
        if needed > budget:
            raise ConfigError(
                f"device batching needs {needed / 2**30:.2f} GiB for the series on {device} and "
                f"{budget / 2**30:.2f} GiB are free: use --batching index"
            )
        self._series = _moved(source.store.raw, device)
        rows = np.arange(source.store.meta.num_steps + source.spec.horizon)
        features = calendar_features(source.store.time_axis, source.calendar, rows)
        self._calendar = torch.from_numpy(features).to(device)
        self._span = torch.arange(source.spec.span, device=device)
        self._assembler = Assembler(source, device)

    def fetch(
        self, starts: NDArray[np.int64], *, with_targets: bool = True, slot: int = 0
    ) -> Fetched:
        """Nothing but the starts."""
        self.source.check_starts(starts, with_targets=with_targets)
        moving = torch.from_numpy(starts)
        if self.device.type == "cuda":
            moving = moving.pin_memory()
        return Fetched(tensors=(moving,), starts=starts, with_targets=with_targets, slot=slot)

    def assemble(self, fetched: Fetched) -> Batch:
        """Gather the rows where they are and make the batch there."""
        (starts,) = fetched.tensors
        rows_BR = starts.to(self.device, non_blocking=True).unsqueeze(1) + self._span
        calendar = self._calendar[rows_BR]
        if not fetched.with_targets:
            rows_BR = rows_BR[:, : self.source.spec.input_steps]
        return self._assembler(self._series[rows_BR], calendar, fetched)


def _moved(raw: NDArray[np.int16] | NDArray[np.float32], device: torch.device) -> torch.Tensor:
    """The series as a tensor on the device, copied in pieces."""
    dtype = torch.int16 if raw.dtype == np.int16 else torch.float32
    series = torch.empty(raw.shape, dtype=dtype, device=device)
    rows = max(1, _COPY_BYTES // raw[0].nbytes)
    for first in range(0, len(raw), rows):
        piece = np.array(raw[first : first + rows])
        series[first : first + len(piece)].copy_(torch.from_numpy(piece))
    return series
