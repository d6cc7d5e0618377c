"""Rows of a data set, [R, N, F] in original units, read when they are needed.

The features of a row are its readings, then its calendar (the time of day, the same at every
sensor), as in PGT's arrays. Rows come from a store, an array, an `.npy` file or a pandas table in
HDF5.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.batching.mapped_series import MappedSeries
from pgti.errors import DataError, option
from pgti.ingestion.arrays.hdf5_files import open_hdf5_file
from pgti.ingestion.arrays.npy import read_header
from pgti.ingestion.arrays.pandas_hdf5 import PandasTable, is_pandas_table, open_pandas_table
from pgti.ingestion.readings import check_series_shape, reraise_read_errors
from pgti.store import SECONDS_PER_DAY, Moments, SeriesStore, calendar_features, default_calendar
from pgti.store.codec import Float32Codec
from pgti.store.moments import moments_of_raw
from pgti.windows import RowRanges
from pgti.windows.row_plan import union_rows

__all__ = ["ArraySource", "NpySource", "Rows", "Source", "StoreSource", "TableSource"]

Rows = NDArray[np.floating[Any]]

_PIECE_BYTES = 32 << 20


class Source(ABC):
    """Rows of a data set: readings of C channels, then the calendar.

    Args:
        name: of the data set, for messages.
        shape: (T, N, F).
        num_calendar: features of the calendar, F - C.
        dtype: that `read` returns: float32 or float64.
        zero_is_missing: whether a reading of 0 is a missing one, as in the traffic files.

    Attributes:
        is_by_sensor: whether pandas holds the series sensor by sensor in memory. PGT sums it in
            that order then, which decides the last bits of its statistics.
    """

    is_by_sensor = False

    @property
    def holes(self) -> NDArray[np.int64]:
        """The rows that missing ones follow, int64; none where times are not looked at."""
        return np.empty(0, dtype=np.int64)

    def __init__(
        self,
        name: str,
        shape: tuple[int, int, int],
        *,
        num_calendar: int,
        dtype: type[np.floating[Any]],
        zero_is_missing: bool,
    ) -> None:
        self.name = name
        self.shape = shape
        self.num_steps, self.num_nodes, num_features = shape
        self.num_readings = num_features - num_calendar
        self.num_calendar = num_calendar
        self.dtype = np.dtype(dtype)
        self.zero_is_missing = zero_is_missing

    @abstractmethod
    def read(self, rows: NDArray[np.int64]) -> Rows:
        """Rows as the files have them, a new array [R, N, F]; a missing reading is NaN or 0.

        Args:
            rows: rising row numbers, int64 [R].
        """

    def observed(self, values: Rows) -> NDArray[np.bool_]:
        """Which readings of rows were observed, [R, N, F]; False for the calendar."""
        observed = ~np.isnan(values)
        if self.zero_is_missing:
            observed &= values != 0
        observed[..., self.num_readings :] = False
        return observed

    def pieces(self, rows: range) -> Iterator[tuple[slice, Rows]]:
        """Consecutive rows in pieces of bounded size, each with its place in the series."""
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
            readings[~self.observed(values)[..., : self.num_readings]] = np.nan
            if per_node:
                readings = readings.reshape(len(readings), 1, -1)
            parts.append(moments_of_raw(readings, Float32Codec()))
        return Moments.merge_all(parts, self.num_readings * (self.num_nodes if per_node else 1))


class StoreSource(Source):
    """A store: its channels, then the time of day if a day has several rows.

    Raises:
        DataError: if the store is exact, whose readings these batches would round.
    """

    def __init__(self, store: SeriesStore) -> None:
        meta = store.meta
        if meta.is_exact:
            raise DataError(
                f"{store.path} is an exact store, and batches for PyTorch Geometric Temporal are "
                "float32, which would round its readings: use pgti.WindowDataset, or ingest the "
                f"source again without {option('exact', value=True)}"
            )
        features = default_calendar(store.time_axis)
        super().__init__(
            store.path.name,
            (meta.num_steps, meta.num_nodes, meta.num_channels + len(features)),
            num_calendar=len(features),
            dtype=np.float32,
            zero_is_missing=False,
        )
        self._store = store
        self._rows = MappedSeries(store)
        self._calendar = calendar_features(store.time_axis, features, np.arange(meta.num_steps))

    def __reduce__(self) -> tuple[Callable[[SeriesStore], "StoreSource"], tuple[SeriesStore]]:
        """Another process opens the store again."""
        return StoreSource, (self._store,)

    @property
    def holes(self) -> NDArray[np.int64]:
        """The rows that missing ones follow, int64."""
        return self._store.time_axis.holes

    def read(self, rows: NDArray[np.int64]) -> Rows:
        """Rows of the memory-mapped series; a missing reading is NaN."""
        stored = np.empty((len(rows), self._rows.num_readings), dtype=self._rows.dtype)
        self._rows.copy_rows(_row_ranges(rows), stored)
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

    Raises:
        DataError: if the array is not numbers of such a shape.
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
            values.shape,
            num_calendar=num_calendar,
            dtype=np.float32 if values.dtype == np.float32 else np.float64,
            zero_is_missing=zero_is_missing,
        )
        self._values = values

    def read(self, rows: NDArray[np.int64]) -> Rows:
        """Rows of the array."""
        ranges = _row_ranges(rows)
        if len(ranges) == 1:
            return np.array(self._values[slice(*ranges[0])], dtype=self.dtype)
        return np.asarray(self._values[rows], dtype=self.dtype)


class NpySource(ArraySource):
    """An array [T, N, F] in an `.npy` file, which is memory-mapped.

    Raises:
        DataError: if the file is damaged, or its array is not numbers of such a shape.
    """

    def __init__(self, path: Path, num_calendar: int, zero_is_missing: bool) -> None:
        with reraise_read_errors(path.name, "a NumPy array"):
            with path.open("rb") as file:
                read_header(file).check_size(path.name, path.stat().st_size)
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        super().__init__(
            path.name, values, num_calendar=num_calendar, zero_is_missing=zero_is_missing
        )
        self._path = path

    def __reduce__(self) -> tuple[type["NpySource"], tuple[Path, int, bool]]:
        """Another process maps the file again: the path travels, the data do not."""
        return NpySource, (self._path.resolve(), self.num_calendar, self.zero_is_missing)


class TableSource(Source):
    """Readings of a pandas table in HDF5, and the time of day of its index as a second feature.

    Each read opens the file: several processes may read it, and only the times stay in memory. As
    in PGT, a time zone of the index is ignored: the time of day is that of the stored times.

    Args:
        path: the file.
        key: the table in it.

    Attributes:
        node_ids: columns of the table.

    Raises:
        DataError: if the file is damaged, has no such table, or the table's rows have no times.
        MissingExtraError: if h5py is not installed.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        name = f"{key} of {path.name}"
        with reraise_read_errors(path.name, "HDF5"), open_hdf5_file(path) as file:
            if key not in file or not is_pandas_table(file[key]):
                raise DataError(f"{path.name} has no table {key!r} that pandas wrote")
            group = file[key]
            is_flexible = "table" in group
            table = open_pandas_table(group, name)
            if table.time_unit is None:
                raise DataError(f"{name} has no times: its index must be dates")
            if table.channels is not None:
                raise DataError(f"{name} has several levels of columns: give it one")
            num_rows, num_nodes = table.num_rows, len(table.node_ids)
            check_series_shape(name, (num_rows, num_nodes), np.dtype(np.float64))
            # The index alone: the table's own reader would read all readings with it.
            index = np.asarray(
                (group["table"].fields("index") if is_flexible else group["axis1"])[:]
            )
        seconds = table.epoch_seconds(index, 0)
        self._table: PandasTable = table
        self._time_of_day = np.asarray(seconds % SECONDS_PER_DAY) / SECONDS_PER_DAY
        self.is_by_sensor = not is_flexible
        self.node_ids = table.node_ids
        super().__init__(
            name,
            (num_rows, num_nodes, 2),
            num_calendar=1,
            dtype=np.float64,
            zero_is_missing=True,
        )

    def __reduce__(self) -> tuple[type["TableSource"], tuple[Path, str]]:
        """Another process opens the file itself: the path travels, the data do not."""
        return TableSource, (self._path.resolve(), self._key)

    def read(self, rows: NDArray[np.int64]) -> Rows:
        """Rows of the table, float64; a missing reading is NaN or 0."""
        values = np.empty((len(rows), self.num_nodes, 2))
        place = 0
        with reraise_read_errors(self._path.name, "HDF5"), open_hdf5_file(self._path) as file:
            for first, stop in _row_ranges(rows):
                end = place + stop - first
                values[place:end, :, 0], _ = self._table.read(file[self._key], first, stop)
                place = end
        values[..., 1] = self._time_of_day[rows, None]
        return values


def _row_ranges(rows: NDArray[np.int64]) -> RowRanges:
    """Rising rows as ranges of consecutive ones: first row, and the row after the last.

    >>> _row_ranges(np.array([3, 4, 5, 9]))
    [(3, 6), (9, 10)]
    """
    return union_rows(rows, [range(1)]).ranges
