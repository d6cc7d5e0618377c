"""Device-resident batching: the series lives on the compute device (PGT-I's GPU-index-batching).

The series moves there once, in its stored dtype, with the calendar of every row. From then on only
window starts cross from the host: gathering, decoding, standardising and masking happen on the
device.
"""

from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

from pgti.batching.assemble import Assembler, StoredRows, TorchAssembler
from pgti.batching.base import Batcher, Fetched, RowSource, WindowSource
from pgti.batching.batch import Batch
from pgti.batching.buffers import Buffers
from pgti.batching.host import NumpyAssembler
from pgti.batching.rows import rows_of
from pgti.errors import ConfigError
from pgti.memory.available import available_bytes
from pgti.store import SeriesStore, calendar_features

__all__ = ["DeviceBatcher", "resident_bytes"]

_COPY_BYTES = 1 << 26  # the series moves in pieces of 64 MiB: no second copy of it on the host


def resident_bytes(source: WindowSource) -> int:
    """Bytes that the series, its calendar and the profile take on the compute device."""
    rows = source.store.meta.num_steps + source.spec.horizon
    table = 0 if source.profile is None else source.profile.table.nbytes
    return source.store.num_bytes + rows * (4 * len(source.calendar) + 8) + table


class DeviceBatcher(Batcher):
    """Holds the whole series on the compute device, from the first batch on.

    Args:
        source: what the windows hold.
        device: where the series lives and batches are made.
        prefetch_depth: has no effect: nothing is read on the host that would be worth a thread.
        budget_bytes: the most memory that the series may take on the device; what is free there
            if not given.

    Raises:
        ConfigError: if it does not fit.
    """

    def __init__(
        self,
        source: WindowSource,
        device: torch.device,
        prefetch_depth: int = 1,
        budget_bytes: int | None = None,
    ) -> None:
        super().__init__(source, device)
        del prefetch_depth
        budget = available_bytes(device) if budget_bytes is None else budget_bytes
        needed = resident_bytes(source)
        if needed > budget:
            raise ConfigError(
                f"device batching needs {needed / 2**30:.2f} GiB for the series on {device} and "
                f"{budget / 2**30:.2f} GiB are free: use --batching index"
            )
        self._resident: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        self._moving = Lock()
        self._span = torch.arange(source.spec.span, device=device)
        self._rows: torch.Tensor | None = None
        self._assembler: Assembler = (
            NumpyAssembler(source) if device.type == "cpu" else TorchAssembler(source, device)
        )

    def fetch(
        self,
        starts: NDArray[np.int64],
        *,
        with_targets: bool = True,
        buffers: Buffers | None = None,
        rows: RowSource | None = None,
    ) -> Fetched:
        """Nothing but row numbers, for which no buffer is needed."""
        spec = self.source.spec
        self.source.check_starts(starts, with_targets=with_targets)
        read = rows_of(starts, spec.span if with_targets else spec.input_steps)
        window_index = (
            np.empty(0, dtype=np.int64) if read.window_index is None else read.window_index
        )
        numbers = (torch.from_numpy(array) for array in (starts, read.rows, window_index))
        return Fetched(tensors=self._pinned(*numbers), starts=starts, with_targets=with_targets)

    def assemble(self, fetched: Fetched) -> Batch:
        """Gather the rows where they are and make the batch there."""
        starts, rows_KR, window_index = (
            tensor.to(self.device, non_blocking=True) for tensor in fetched.tensors
        )
        series, features, all_slots = self._on_device()
        raw = self._taken(series, rows_KR.flatten())
        week_bins = rows_KR.new_empty(*rows_KR.shape, 0)
        if self.source.profile is not None:
            ahead = rows_KR + self.source.spec.horizon
            week_bins = all_slots[torch.stack((rows_KR, ahead), dim=-1)]
        rows = StoredRows(
            raw=raw.view(*rows_KR.shape, *raw.shape[1:]),
            calendar=features[rows_KR],
            week_bins=week_bins,
            window_index=window_index if window_index.numel() else None,
            window_calendar=features[starts.unsqueeze(1) + self._span],
        )
        return self._assembler(rows, fetched)

    def _taken(self, series: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Rows of the series [rows, N, C], in a reused buffer."""
        if self._rows is None or len(self._rows) < len(rows):
            self._rows = series.new_empty(len(rows), *series.shape[1:])
        taken = self._rows[: len(rows)]
        if self.device.type == "cpu":
            # Torch would wake its threads for a copy; where cores are shared, they wait in turn.
            # Without a mode numpy copies through a second buffer, in case a row is outside.
            np.take(series.numpy(), rows.numpy(), axis=0, out=taken.numpy(), mode="clip")
        else:
            torch.index_select(series, 0, rows, out=taken)
        return taken

    def _on_device(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The series, and calendar [T + H, F] and profile slot [T + H] of every row.

        They are moved when they are first needed.
        """
        with self._moving:
            if self._resident is None:
                store, spec = self.source.store, self.source.spec
                rows = np.arange(store.meta.num_steps + spec.horizon)
                features = calendar_features(store.time_axis, self.source.calendar, rows)
                week_bins = np.zeros(len(rows), dtype=np.int64)
                if self.source.profile is not None:
                    week_bins = self.source.profile.week_bins(store.time_axis, rows)
                self._resident = (
                    _moved(store, self.device),
                    torch.from_numpy(features).to(self.device),
                    torch.from_numpy(week_bins).to(self.device),
                )
            return self._resident


def _moved(store: SeriesStore, device: torch.device) -> torch.Tensor:
    """The series as a tensor on the device, copied in pieces."""
    dtype = torch.int16 if store.meta.dtype == "int16" else torch.float32
    series = torch.empty(store.raw.shape, dtype=dtype, device=device)
    rows = max(1, _COPY_BYTES // store.raw[0].nbytes)
    for first in range(0, len(series), rows):
        piece = np.array(store.raw[first : first + rows])
        series[first : first + len(piece)].copy_(torch.from_numpy(piece))
        store.release()
    return series
