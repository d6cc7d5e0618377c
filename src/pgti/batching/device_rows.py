"""A series that lives on the compute device (PGT-I's GPU-index-batching).

The series moves there once, in its stored dtype, with the calendar of every row; the starts of an
epoch's windows move there when the epoch begins. From then on nothing crosses from the host: a
batch is a slice of the starts, and gathering, decoding, standardising and masking happen on the
device.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.assembler import StoredRows
from pgti.batching.batcher import BatchRequest, RowSource
from pgti.batching.copies import to_device
from pgti.batching.history import ResidentHistory, StoredHistory
from pgti.batching.source import WindowSource
from pgti.display import size_text
from pgti.errors import ConfigError, option
from pgti.memory import available_bytes
from pgti.store import calendar_features

__all__ = [
    "DeviceRows",
    "ResidentRows",
    "copy_rows_to",
    "device_bytes",
    "empty_rows",
    "feature_bytes",
    "take_rows",
]

_COPY_BYTES = 1 << 26  # the series moves in pieces of 64 MiB: no second copy of it on the host


def feature_bytes(source: WindowSource) -> int:
    """Bytes of the calendar and the typical times of every row on the compute device."""
    num_rows = source.store.meta.num_steps + source.spec.horizon
    return num_rows * (4 * len(source.calendar) + 8) + ResidentHistory.num_bytes(source)


def device_bytes(source: WindowSource) -> int:
    """Bytes that the series, its calendar and the typical readings take on the compute device."""
    return source.series_bytes + feature_bytes(source) + source.typical_bytes


class ResidentRows(RowSource[BatchRequest]):
    """Cuts windows from rows that are on the compute device.

    Args:
        source: what the windows hold.
        device: where the rows live and batches are made.
    """

    def __init__(self, source: WindowSource, device: torch.device) -> None:
        self._source = source
        self._device = device
        self._features: tuple[Tensor, Tensor] | None = None
        self._moving = Lock()
        self._span = torch.arange(source.spec.span, device=device)
        self._rows: Tensor | None = None
        self._history = ResidentHistory(source, device) if source.spec.history else None

    def send_starts(
        self, batches: Callable[[], Sequence[NDArray[np.int64]]], *, with_targets: bool
    ) -> Iterator[Tensor | None]:
        """Move the starts of the epoch at once."""
        starts = list(batches())
        if not starts:
            return iter(())
        every = np.concatenate(starts)
        self._source.check_starts(every, with_targets=with_targets)
        return iter(torch.split(to_device(every, self._device), [len(each) for each in starts]))

    def fetch(self, request: BatchRequest) -> BatchRequest:
        """Nothing: the rows are where they are needed."""
        return request

    def collect(self, fetched: BatchRequest) -> StoredRows:
        """Gather the rows where they are."""
        starts_B = fetched.sent
        if starts_B is None:
            starts_B = to_device(fetched.starts, self._device)
        calendar, bins = self._every_feature()
        every_BR = starts_B.unsqueeze(1) + self._span
        rows_BR = every_BR if fetched.with_targets else every_BR[:, : self._source.spec.input_steps]
        raw = self._gather(rows_BR, fetched)
        history: StoredHistory | None = None
        if self._history is not None:
            rows, is_there, times = self._history.find(starts_B, bins)
            resident, places = self._history_places(rows, fetched)
            history = StoredHistory(
                raw=resident,
                places=places,
                is_there=is_there,
                bins=times,
                num_missing=self._source.num_missing_history(fetched.starts).tolist(),
            )
        ahead = [rows_BR + offset for offset in self._source.typical_offsets]
        window_calendar = calendar[every_BR]
        return StoredRows(
            raw=raw.view(*rows_BR.shape, *raw.shape[1:]),
            calendar=window_calendar[:, : rows_BR.shape[1]],
            bins=bins[torch.stack(ahead, dim=-1)]
            if ahead
            else rows_BR.new_empty(*rows_BR.shape, 0),
            window_index=None,
            window_calendar=window_calendar,
            starts=fetched.starts,
            with_targets=fetched.with_targets,
            history=history,
        )

    @abstractmethod
    def _gather(self, rows_BR: Tensor, request: BatchRequest) -> Tensor:
        """Rows of the series, [B * R, N, C] in the stored dtype."""

    @abstractmethod
    def _history_places(self, rows_BR: Tensor, request: BatchRequest) -> tuple[Tensor, Tensor]:
        """Rows on the device [U, N, C], and where rows of history are among them [B, R]."""

    def _take(self, resident: Tensor, places: Tensor) -> Tensor:
        """Rows of a tensor [rows, N, C], in a reused buffer."""
        if self._rows is None or len(self._rows) < len(places):
            self._rows = resident.new_empty(len(places), *resident.shape[1:])
        gathered = self._rows[: len(places)]
        take_rows(resident, places, gathered)
        return gathered

    def _every_feature(self) -> tuple[Tensor, Tensor]:
        """Calendar [T + H, F] and typical time [T + H] of every row, moved when first needed."""
        with self._moving:
            if self._features is None:
                store, spec = self._source.store, self._source.spec
                rows = np.arange(store.meta.num_steps + spec.horizon)
                bins = np.zeros(len(rows), dtype=np.int64)
                if self._source.typical is not None:
                    bins = self._source.typical.bins(store.time_axis, rows)
                calendar = calendar_features(store.time_axis, self._source.calendar, rows)
                self._features = to_device(calendar, self._device), to_device(bins, self._device)
            return self._features


class DeviceRows(ResidentRows):
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
                f"device batching needs {size_text(needed)} for the series on {device} and "
                f"{size_text(budget)} are free: use "
                f"{option('batching', 'index')}"
            )
        super().__init__(source, device)
        self._series: Tensor | None = None
        self._loading = Lock()

    @property
    def owned_bytes(self) -> int:
        """Memory of the series and the features of its rows on the device."""
        return self._source.series_bytes + feature_bytes(self._source)

    def _gather(self, rows_BR: Tensor, request: BatchRequest) -> Tensor:
        return self._take(self._on_device(), rows_BR.flatten())

    def _history_places(self, rows_BR: Tensor, request: BatchRequest) -> tuple[Tensor, Tensor]:
        return self._on_device(), rows_BR

    def _on_device(self) -> Tensor:
        """The series, which moves to the device when it is first needed."""
        with self._loading:
            if self._series is None:
                self._series = _copy_series(self._source, self._device)
            return self._series


def take_rows(resident: Tensor, places: Tensor, out: Tensor) -> None:
    """Copy the rows of a tensor [rows, ...] at some places, int64 [n], to `out` [n, ...]."""
    if resident.device.type == "cpu":
        # Torch would wake its threads for a copy; where cores are shared, they wait in turn.
        # Without a mode numpy copies through a second buffer, in case a row is outside.
        np.take(resident.numpy(), places.numpy(), axis=0, out=out.numpy(), mode="clip")
    else:
        torch.index_select(resident, 0, places, out=out)


def empty_rows(source: WindowSource, num_rows: int, device: torch.device) -> Tensor:
    """Memory for rows in the stored dtype, [rows, N, C]."""
    meta = source.store.meta
    shape = num_rows, source.num_nodes, meta.num_channels
    return torch.empty(shape, dtype=getattr(torch, meta.dtype), device=device)


def copy_rows_to(series: Tensor, source: WindowSource, ranges: Sequence[range]) -> None:
    """Copy ranges of rows of a source to a tensor on the device, one after the other, in pieces."""
    rows, position = max(1, _COPY_BYTES // source.stored_row_bytes), 0
    for each in ranges:
        for first in range(each.start, each.stop, rows):
            piece = np.array(source.raw_rows(slice(first, min(first + rows, each.stop))))
            series[position : position + len(piece)].copy_(torch.from_numpy(piece))
            position += len(piece)
            source.store.release()


def _copy_series(source: WindowSource, device: torch.device) -> Tensor:
    """The series as a tensor on the device."""
    series = empty_rows(source, source.store.meta.num_steps, device)
    copy_rows_to(series, source, [range(len(series))])
    return series
