"""A pandas table in an HDF5 file, as PGT's large PeMS data sets are kept, read row by row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import DataError, MissingExtraError
from pgti.ingest.hdf5 import PandasTable, is_pandas_table, open_fixed_table, open_flexible_table
from pgti.ingest.readings import check_series_shape, numbered_row, reraise_read_errors
from pgti.ingest.times import epoch_seconds_of_numbers
from pgti.interop.pgt.data.sources import Rows, Source, runs_of
from pgti.store import SECONDS_PER_DAY

__all__ = ["TableSource"]


class TableSource(Source):
    """Readings of a pandas table, and the time of day of its index as a second feature.

    The file is opened anew for each read: several processes may read it, and nothing of it is kept
    but the times. A zone of the index is not looked at, as in PGT: the time of day is that of the
    stored times.

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
        with reraise_read_errors(path.name, "HDF5"), _open(path) as file:
            if key not in file or not is_pandas_table(file[key]):
                raise DataError(f"{path.name} has no table {key!r} that pandas wrote")
            group = file[key]
            table = (open_flexible_table if "table" in group else open_fixed_table)(group, name)
            self._table: PandasTable = table
            if table.time_unit is None:
                raise DataError(f"{name} has no times: its index must be dates")
            shape = (table.num_rows, len(table.node_ids))
            check_series_shape(name, shape, np.dtype(np.float64))
            self.is_by_sensor = "table" not in group
            self._time_of_day = _times_of_day(group, table, name)
        self.node_ids = table.node_ids
        super().__init__(
            name,
            num_steps=shape[0],
            num_nodes=shape[1],
            num_readings=1,
            num_calendar=1,
            dtype=np.dtype(np.float64),
            zero_is_missing=True,
        )

    def __reduce__(self) -> tuple[Callable[[Path, str], "TableSource"], tuple[Path, str]]:
        """Another process opens the file itself: data never travels, only the path."""
        return TableSource, (self._path.resolve(), self._key)

    def read(self, rows: NDArray[np.int64]) -> Rows:
        """Rows of the table, float64; a missing reading is NaN or 0."""
        values = np.empty((len(rows), self.num_nodes, 2))
        place = 0
        with reraise_read_errors(self._path.name, "HDF5"), _open(self._path) as file:
            for first, stop in runs_of(rows):
                count = stop - first
                values[place : place + count, :, 0], _ = self._table.read(
                    file[self._key], first, stop
                )
                place += count
        values[..., 1] = self._time_of_day[rows, None]
        return values


def _open(path: Path) -> Any:
    try:
        import h5py  # noqa: PLC0415 - an optional library
    except ImportError:
        raise MissingExtraError("h5py", "hdf5") from None
    return h5py.File(path, "r")


def _times_of_day(group: Any, table: PandasTable, name: str) -> NDArray[np.float64]:
    """Sharding of the day that has passed at each row, in [0, 1), float64 [T]."""
    # The index alone: the table's own reader would read all readings with it.
    index = group["table"].fields("index") if "table" in group else group["axis1"]
    unit = table.time_unit or "ns"
    seconds = epoch_seconds_of_numbers(np.asarray(index[:]), unit, 0, name, numbered_row)
    return np.asarray(seconds % SECONDS_PER_DAY) / SECONDS_PER_DAY
