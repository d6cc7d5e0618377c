"""The right reader for a source of readings."""

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.errors import ConfigError, DataError
from pgti.ingest.delimited_readings import open_delimited
from pgti.ingest.frame_readings import open_array, open_frame
from pgti.ingest.hdf5_readings import open_hdf5
from pgti.ingest.json_readings import open_json
from pgti.ingest.numpy_readings import open_npy, open_npz
from pgti.ingest.options import IngestOptions
from pgti.ingest.parquet_readings import open_parquet
from pgti.ingest.readings import Readings

__all__ = ["ReadingsSource", "open_readings"]

ReadingsSource: TypeAlias = Path | str | pd.DataFrame | NDArray[Any]

_READERS = {
    ".csv": open_delimited,
    ".tsv": open_delimited,
    ".txt": open_delimited,
    ".npy": open_npy,
    ".npz": open_npz,
    ".h5": open_hdf5,
    ".hdf5": open_hdf5,
    ".hdf": open_hdf5,
    ".parquet": open_parquet,
    ".pq": open_parquet,
}
_TEXT = (".csv", ".tsv", ".txt")
_TABLES = (*_TEXT, ".parquet", ".pq")
_ONLY_FOR = {
    "values": (".npz", ".h5", ".hdf5", ".hdf"),
    "header": _TEXT,
    "timestamps": _TABLES,
    "time_format": _TABLES,
}
_COMPRESSED = (*_TEXT, ".json")


def open_readings(
    source: ReadingsSource, options: IngestOptions, *, has_graph: bool = False
) -> Readings:
    """Open a source of readings by its suffix or its type; nothing but its head is read yet.

    Args:
        source: a file, a DataFrame [T, N], or an array [T, N] or [T, N, C].
        options: see `IngestOptions`.
        has_graph: whether the user gives a graph, so that the source needs none.

    Raises:
        ConfigError: if an option says something that the format of the source has no use for.
        DataError: if the source cannot be read.
        MissingExtraError: if the format needs a library that is not installed.
    """
    if isinstance(source, pd.DataFrame | np.ndarray):
        _check_use("", options)
    if isinstance(source, pd.DataFrame):
        return open_frame(source)
    if isinstance(source, np.ndarray):
        return open_array(source)
    path = Path(source)
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise DataError(f"the source {path} {what}: give a file of readings")
    suffix = _suffix(path)
    if suffix == ".json" or suffix in _READERS:
        _check_use(suffix, options)
    if suffix == ".json":
        return open_json(path, options, has_graph)
    if suffix not in _READERS:
        raise DataError(
            f"the source {path.name} has the suffix {suffix!r}: known are "
            f"{', '.join(sorted(_READERS))}, .json (text also with .gz)"
        )
    return _READERS[suffix](path, options)


def _check_use(suffix: str, options: IngestOptions) -> None:
    """Refuse options that would be passed over in silence."""
    for option, suffixes in _ONLY_FOR.items():
        value = getattr(options, option)
        if value not in ((), None) and suffix not in suffixes:
            raise ConfigError(
                f"{option} is {value!r}, which {suffix or 'an object in memory'} has no use for: "
                f"leave it out, it is for {', '.join(suffixes)}"
            )


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        inner = suffixes[-2] if len(suffixes) > 1 else ""
        return inner if inner in _COMPRESSED else f"{inner}.gz"
    return suffixes[-1] if suffixes else ""
