"""A data set as windows are made of it: rows [R, N, F] in original units, wherever they are kept.

The features of a row are its readings, then its calendar (the time of day, the same in every
sensor), as in PGT's arrays. Rows are read when they are asked for: from a store, an array, an
`.npy` file or a pandas table in HDF5.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.batching.mapped_series import MappedSeries
from pgti.errors import DataError
from pgti.ingest.npy import read_header
from pgti.ingest.readings import check_series_shape, reraise_read_errors
from pgti.store import Moments, SeriesStore, calendar_features, default_calendar
from pgti.store.codec import Float32Codec
from pgti.store.moments import moments_of_raw
from pgti.windows import RowRanges

__all__ = ["ArraySource", "NpySource", "Source", "StoreSource", "runs_of"]

Rows = NDArray[np.floating[Any]]

_PIECE_BYTES = 32 << 20


class Source(ABC):
    """Rows of a data set.

    Args:
        name: what messages call it.
        num_steps: rows, T.
        num_nodes: sensors, N.
        num_readings: features that are readings, C; they come first.
        num_calendar: features that are calendar, and come after them.
        dtype: what `read` gives: float32 or float64.
        zero_is_missing: whether a reading of 0 means that there is none, as in the traffic files.

    Attributes:
        is_by_sensor: whether pandas holds the series sensor by sensor in memory. PGT sums it in
            that order then, which decides the last bits of its statistics.
    """

    is_by_sensor = False

    def __init__(
        self,
        name: str,
        *,
        num_steps: int,
        num_nodes: int,
        num_readings: int,
        num_calendar: int,
        dtype: np.dtype[np.floating[Any]],
        zero_is_missing: bool,
    ) -> None:
        self.name = name
        self.num_steps = num_steps
        self.num_nodes = num_nodes
        self.num_readings = num_readings
        self.num_calendar = num_calendar
        self.dtype = dtype
        self.zero_is_missing = zero_is_missing

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, N, F)."""
        return self.num_steps, self.num_nodes, self.num_readings + self.num_calendar

    @abstractmethod
    def read(self, rows: NDArray[np.int64]) -> Rows:
        """Rows as the files have them, a new array [R, N, F]; a missing reading is NaN or 0.

        Args:
            rows: numbers of rows, rising, int64 [R].
        """

    def observed(self, values: Rows) -> NDArray[np.bool_]:
        """Which readings of rows [R, N, F] there are, [R, N, C]."""
        readings = values[..., : self.num_readings]
        observed = ~np.isnan(readings)
        if self.zero_is_missing:
            observed &= readings != 0
        return observed

    def pieces(self, rows: range) -> Iterator[tuple[slice, Rows]]:
        """Consecutive rows in pieces of bounded size: where each lies in the series, and itself."""
        row_bytes = self.shape[1] * self.shape[2] * self.dtype.itemsize
        size = max(1, _PIECE_BYTES // row_bytes)
        for first in range(rows.start, rows.stop, size):
            stop = min(first + size, rows.stop)
            yield slice(first, stop), self.read(np.arange(first, stop))

    def moments(self, rows: range, *, per_node: bool = False) -> Moments:
        """Statistics of the observed readings in `rows`, of each channel over all sensors.

        Args:
            rows: consecutive rows.
            per_node: of each channel of each sensor in place of that, [N * C].
        """
        parts = []
        for _, values in self.pieces(rows):
            readings = values[..., : self.num_readings].astype(np.float32)
            readings[~self.observed(values)] = np.nan
            if per_node:
                readings = readings.reshape(len(readings), 1, -1)
            parts.append(moments_of_raw(readings, Float32Codec()))
        return Moments.merge_all(parts, self.num_readings * (self.num_nodes if per_node else 1))


class StoreSource(Source):
    """A store of this library: its channels, then the time of day if it has several rows a day.

    Args:
        store: the store, of which nothing is read yet.
    """

    def __init__(self, store: SeriesStore) -> None:
        meta = store.meta
        features = default_calendar(store.time_axis)
        super().__init__(
            store.path.name,
            num_steps=meta.num_steps,
            num_nodes=meta.num_nodes,
            num_readings=meta.num_channels,
            num_calendar=len(features),
            dtype=np.dtype(np.float32),
            zero_is_missing=False,
        )
        self._store = store
        self._rows = MappedSeries(store)
        self._calendar = calendar_features(store.time_axis, features, np.arange(meta.num_steps))

    def __reduce__(self) -> tuple[Callable[[SeriesStore], "StoreSource"], tuple[SeriesStore]]:
        """Another process opens the store again."""
        return StoreSource, (self._store,)

    def read(self, rows: NDArray[np.int64]) -> Rows:
        """Rows from the memory-mapped series; a missing reading is NaN."""
        stored = np.empty((len(rows), self._rows.num_readings), dtype=self._rows.dtype)
        self._rows.copy_rows(runs_of(rows), stored)
        raw = stored.reshape(len(rows), self.num_nodes, self.num_readings)
        values = np.empty((len(rows), *self.shape[1:]), dtype=np.float32)
        values[..., : self.num_readings] = self._store.codec.decode(raw)
        values[..., self.num_readings :] = self._calendar[rows, None]
        return values

    def moments(self, rows: range, *, per_node: bool = False) -> Moments:
        """See the base class; the store's own summary of its blocks saves most of the reading."""
        return super().moments(rows, per_node=True) if per_node else self._store.moments(rows)


class ArraySource(Source):
    """An array [T, N, F] in memory.

    Args:
        name: what messages call it.
        values: readings and calendar.
        num_calendar: how many of the last features are calendar.
        zero_is_missing: see the base class.
    """

    def __init__(
        self, name: str, values: NDArray[Any], *, num_calendar: int = 0, zero_is_missing: bool
    ) -> None:
        if values.ndim != 3 or values.shape[2] <= num_calendar:
            raise DataError(
                f"{name} has shape {values.shape}: it must be [steps, sensors, features], with "
                f"at least {num_calendar + 1} features"
            )
        check_series_shape(name, values.shape, values.dtype)
        super().__init__(
            name,
            num_steps=values.shape[0],
            num_nodes=values.shape[1],
            num_readings=values.shape[2] - num_calendar,
            num_calendar=num_calendar,
            dtype=np.dtype(np.float32 if values.dtype == np.float32 else np.float64),
            zero_is_missing=zero_is_missing,
        )
        self._values = values

    def read(self, rows: NDArray[np.int64]) -> Rows:
        """Rows of the array."""
        runs = runs_of(rows)
        if len(runs) == 1:
            first, stop = runs[0]
            return np.array(self._values[first:stop], dtype=self.dtype)
        return np.asarray(self._values[rows], dtype=self.dtype)


class NpySource(ArraySource):
    """An array [T, N, F] in an `.npy` file that is mapped, never loaded whole.

    Args:
        path: the file.
        num_calendar: how many of the last features are calendar.
        zero_is_missing: see the base class.

    Raises:
        DataError: if the file is damaged, or its array is not numbers of such a shape.
    """

    def __init__(self, path: Path, *, num_calendar: int, zero_is_missing: bool) -> None:
        with reraise_read_errors(path.name, "a NumPy array"):
            with path.open("rb") as file:
                read_header(file).check_size(path.name, path.stat().st_size)
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        super().__init__(
            path.name, values, num_calendar=num_calendar, zero_is_missing=zero_is_missing
        )
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., "NpySource"], tuple[Path, int, bool]]:
        """Another process maps the file again: data never travels, only the path."""
        return _open_npy, (self._path.resolve(), self.num_calendar, self.zero_is_missing)


def _open_npy(path: Path, num_calendar: int, zero_is_missing: bool) -> NpySource:
    return NpySource(path, num_calendar=num_calendar, zero_is_missing=zero_is_missing)


def runs_of(rows: NDArray[np.int64]) -> RowRanges:
    """Rising rows as runs of consecutive ones: first row, and the row after the last.

    >>> runs_of(np.array([3, 4, 5, 9]))
    [(3, 6), (9, 10)]
    """
    if not len(rows):
        return []
    breaks = np.flatnonzero(np.diff(rows) != 1)
    firsts = rows[np.append(0, breaks + 1)]
    stops = rows[np.append(breaks, len(rows) - 1)] + 1
    return list(zip(firsts.tolist(), stops.tolist(), strict=True))
