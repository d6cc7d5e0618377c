"""Rows that live on the compute device (PGT-I's GPU-index-batching).

The series moves there once, in its stored dtype, with the calendar of every row. From then on only
row numbers cross from the host: gathering, decoding, standardising and masking happen on the
device.
"""

from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.assembler import StoredRows
from pgti.batching.batcher import BatchRequest, RowSource
from pgti.batching.source import WindowSource
from pgti.errors import ConfigError, option
from pgti.memory import available_bytes
from pgti.store import SeriesStore, calendar_features
from pgti.windows import RowPlan

__all__ = ["DeviceRows", "RowNumbers", "device_bytes"]

_COPY_BYTES = 1 << 26  # the series moves in pieces of 64 MiB: no second copy of it on the host


def device_bytes(source: WindowSource) -> int:
    """Bytes that the series, its calendar and the typical readings take on the compute device."""
    rows = source.store.meta.num_steps + source.spec.horizon
    return source.store.num_bytes + rows * (4 * len(source.calendar) + 8) + source.typical_bytes


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RowNumbers:
    """Which rows a batch gathers on the device.

    Attributes:
        rows: row numbers [K, R], as in `RowPlan`.
        window_index: as in `RowPlan`.
        window_starts: first row of each window [B].
        starts: the same, on the host.
        with_targets: as in `BatchRequest`.
    """

    rows: Tensor
    window_index: Tensor | None
    window_starts: Tensor
    starts: NDArray[np.int64]
    with_targets: bool


class DeviceRows(RowSource[RowNumbers]):
    """Holds the whole series on the compute device, from the first batch on.

    Args:
        source: what the windows hold.
        device: where the series lives and batches are made.
        budget_bytes: the most memory that the series may take on the device; what is free there
            if not given.

    Raises:
        ConfigError: if it does not fit.
    """

    def __init__(
        self, source: WindowSource, device: torch.device, budget_bytes: int | None = None
    ) -> None:
        budget = available_bytes(device) if budget_bytes is None else budget_bytes
        needed = device_bytes(source)
        if needed > budget:
            raise ConfigError(
                f"device batching needs {needed / 2**30:.2f} GiB for the series on {device} and "
                f"{budget / 2**30:.2f} GiB are free: use "
                f"{option('batching', 'index')}"
            )
        self._source = source
        self._device = device
        self._resident: tuple[Tensor, Tensor, Tensor] | None = None
        self._moving = Lock()
        self._span = torch.arange(source.spec.span, device=device)
        self._rows: Tensor | None = None

    def fetch(self, plan: RowPlan, request: BatchRequest) -> RowNumbers:
        """Row numbers alone, in memory from which a GPU copies them without waiting."""

        def as_tensor(array: NDArray[np.int64]) -> Tensor:
            tensor = torch.from_numpy(array)
            return tensor.pin_memory() if self._device.type == "cuda" else tensor

        return RowNumbers(
            rows=as_tensor(plan.rows),
            window_index=None if plan.window_index is None else as_tensor(plan.window_index),
            window_starts=as_tensor(request.starts),
            starts=request.starts,
            with_targets=request.with_targets,
        )

    def collect(self, fetched: RowNumbers) -> StoredRows:
        """Gather the rows where they are."""
        rows_KR, starts_B = self._moved(fetched.rows), self._moved(fetched.window_starts)
        index = fetched.window_index
        series, features, bins = self._on_device()
        raw = self._gather(series, rows_KR.flatten())
        ahead = [rows_KR + offset for offset in self._source.typical_offsets]
        return StoredRows(
            raw=raw.view(*rows_KR.shape, *raw.shape[1:]),
            calendar=features[rows_KR],
            bins=bins[torch.stack(ahead, dim=-1)]
            if ahead
            else rows_KR.new_empty(*rows_KR.shape, 0),
            window_index=None if index is None else self._moved(index),
            window_calendar=features[starts_B.unsqueeze(1) + self._span],
            starts=fetched.starts,
            with_targets=fetched.with_targets,
        )

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=True)

    def _gather(self, series: Tensor, rows: Tensor) -> Tensor:
        """Rows of the series [rows, N, C], in a reused buffer."""
        if self._rows is None or len(self._rows) < len(rows):
            self._rows = series.new_empty(len(rows), *series.shape[1:])
        gathered = self._rows[: len(rows)]
        if self._device.type == "cpu":
            # Torch would wake its threads for a copy; where cores are shared, they wait in turn.
            # Without a mode numpy copies through a second buffer, in case a row is outside.
            np.take(series.numpy(), rows.numpy(), axis=0, out=gathered.numpy(), mode="clip")
        else:
            torch.index_select(series, 0, rows, out=gathered)
        return gathered

    def _on_device(self) -> tuple[Tensor, Tensor, Tensor]:
        """The series, and calendar [T + H, F] and typical time [T + H] of every row.

        They move there when they are first needed.
        """
        with self._moving:
            if self._resident is None:
                store, spec = self._source.store, self._source.spec
                rows = np.arange(store.meta.num_steps + spec.horizon)
                features = calendar_features(store.time_axis, self._source.calendar, rows)
                bins = np.zeros(len(rows), dtype=np.int64)
                if self._source.typical is not None:
                    bins = self._source.typical.bins(store.time_axis, rows)
                self._resident = (
                    _copy_series(store, self._device),
                    torch.from_numpy(features).to(self._device),
                    torch.from_numpy(bins).to(self._device),
                )
            return self._resident


def _copy_series(store: SeriesStore, device: torch.device) -> Tensor:
    """The series as a tensor on the device, copied in pieces."""
    dtype = torch.int16 if store.meta.dtype == "int16" else torch.float32
    series = torch.empty(store.raw.shape, dtype=dtype, device=device)
    rows = max(1, _COPY_BYTES // store.raw[0].nbytes)
    for first in range(0, len(series), rows):
        piece = np.array(store.raw[first : first + rows])
        series[first : first + len(piece)].copy_(torch.from_numpy(piece))
        store.release()
    return series
