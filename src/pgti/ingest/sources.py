"""The right reader for a source of readings."""

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.errors import DataError
from pgti.ingest.delimited_readings import open_delimited
from pgti.ingest.frame_readings import open_array, open_frame
from pgti.ingest.hdf5_readings import open_hdf5
from pgti.ingest.json_readings import open_json
from pgti.ingest.numpy_readings import open_npy, open_npz
from pgti.ingest.options import IngestOptions
from pgti.ingest.parquet_readings import open_parquet
from pgti.ingest.readings import Readings

__all__ = ["ReadingsSource", "open_readings", "readings_suffix"]

ReadingsSource: TypeAlias = Path | str | pd.DataFrame | NDArray[Any] | Readings

_READERS = {
    ".csv": open_delimited,
    ".tsv": open_delimited,
    ".txt": open_delimited,
    ".npy": open_npy,
    ".h5": open_hdf5,
    ".hdf5": open_hdf5,
    ".hdf": open_hdf5,
    ".parquet": open_parquet,
    ".pq": open_parquet,
}
_COMPRESSED = (".csv", ".tsv", ".txt", ".json")


def open_readings(
    source: ReadingsSource, options: IngestOptions, *, has_graph: bool = False
) -> Readings:
    """Open a source of readings by its suffix or its type; nothing but its head is read yet.

    Args:
        source: a file, a DataFrame [T, N], an array [T, N] or [T, N, C], or what is open already.
        options: see `IngestOptions`.
        has_graph: whether the user gives a graph, so that the source needs none.

    Raises:
        ConfigError: if an option names what the source does not have.
        DataError: if the source cannot be read.
        MissingExtraError: if the format needs a library that is not installed.
    """
    if isinstance(source, Readings):
        return source
    if isinstance(source, pd.DataFrame):
        return open_frame(source, options)
    if isinstance(source, np.ndarray):
        return open_array(source)
    path = Path(source)
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise DataError(f"the source {path} {what}: give a file of readings")
    suffix = readings_suffix(path)
    if suffix == ".json":
        return open_json(path, options, has_graph)
    if suffix == ".npz":
        return open_npz(path, options, has_graph)
    if suffix not in _READERS:
        raise DataError(
            f"the source {path.name} has the suffix {suffix!r}: known are "
            f"{', '.join(sorted(_READERS))}, .npz, .json (text also with .gz)"
        )
    return _READERS[suffix](path, options)


def readings_suffix(source: ReadingsSource) -> str:
    """The suffix of a file of readings, without compression; empty for an object in memory."""
    if not isinstance(source, Path | str):
        return ""
    suffixes = [suffix.lower() for suffix in Path(source).suffixes]
    if suffixes[-1:] == [".gz"]:
        inner = suffixes[-2] if len(suffixes) > 1 else ""
        return inner if inner in _COMPRESSED else f"{inner}.gz"
    return suffixes[-1] if suffixes else "none"
