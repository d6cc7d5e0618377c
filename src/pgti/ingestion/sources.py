"""The right reader for a source of readings."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.errors import DataError
from pgti.ingestion.arrays.hdf5 import is_netcdf, open_hdf5
from pgti.ingestion.arrays.json import open_json
from pgti.ingestion.arrays.matlab import open_matlab
from pgti.ingestion.arrays.memory import open_array
from pgti.ingestion.arrays.npy import open_npy
from pgti.ingestion.arrays.prewindowed import are_windows, open_archive, open_windows
from pgti.ingestion.arrays.window_pairs import window_files
from pgti.ingestion.contents import check_contents
from pgti.ingestion.files.basicts import find_basicts, open_basicts
from pgti.ingestion.files.files import open_files
from pgti.ingestion.files.sets import SourceSet, find_sources
from pgti.ingestion.formats import (
    ARROW_SUFFIXES,
    HDF5_SUFFIXES,
    MATLAB_SUFFIXES,
    NETCDF_SUFFIXES,
    PARQUET_SUFFIXES,
    TEXT_SUFFIXES,
)
from pgti.ingestion.labelled.files import is_zarr, open_netcdf, open_zarr
from pgti.ingestion.labelled.labelled import XarrayObject, open_xarray
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import Readings, as_floats
from pgti.ingestion.remote import as_url, name_of
from pgti.ingestion.tables.frame_tables import ArrowFrame, LazyFrame, pandas_table, stream_table
from pgti.ingestion.tables.frames import open_frame
from pgti.ingestion.tables.parquet import open_arrow_file, open_parquet
from pgti.ingestion.tables.shape import open_table
from pgti.ingestion.tables.table import Table
from pgti.ingestion.tables.text_files import COMPRESSED_SUFFIXES, last_suffixes
from pgti.ingestion.tables.text_table import open_text_table
from pgti.options import require_type
from pgti.storage import check_is_file

__all__ = [
    "ReadingsSource",
    "TableSource",
    "find_source",
    "open_any_table",
    "open_readings",
    "readings_suffix",
]

_OneSource: TypeAlias = (
    Path | str | pd.DataFrame | ArrowFrame | LazyFrame | NDArray[Any] | XarrayObject | Readings
)
ReadingsSource: TypeAlias = (
    _OneSource | Sequence[_OneSource] | Mapping[str, _OneSource] | SourceSet[Any]
)
TableSource: TypeAlias = Path | str | pd.DataFrame | ArrowFrame | LazyFrame

_READERS: dict[str, Callable[[Path, IngestOptions], Readings]] = {
    ".npy": open_npy,
    **dict.fromkeys(HDF5_SUFFIXES, open_hdf5),
    **dict.fromkeys(MATLAB_SUFFIXES, open_matlab),
    **dict.fromkeys(NETCDF_SUFFIXES, open_netcdf),
}
_TABLES: dict[str, Callable[[Path, IngestOptions], Table]] = {
    **dict.fromkeys(TEXT_SUFFIXES, open_text_table),
    **dict.fromkeys(PARQUET_SUFFIXES, lambda path, _: open_parquet(path)),
    **dict.fromkeys(ARROW_SUFFIXES, lambda path, _: open_arrow_file(path)),
}


def open_readings(
    source: ReadingsSource, options: IngestOptions, *, has_graph: bool = False
) -> Readings:
    """Open a source of readings by its suffix or its type.

    Only its beginning is read; of a long table, the times and sensors of all rows.

    Args:
        source: a file; a DataFrame, wide or long, of pandas, polars or pyarrow, or any other frame
            with Arrow's PyCapsule interface; an array [T, N] or [T, N, C]; a Dataset or DataArray
            of xarray; opened `Readings`; or several of a kind, see `find_source`.
        options: see `IngestOptions`.
        has_graph: whether the user gives a graph, so that the source needs none.

    Raises:
        ConfigError: if an option names what the source does not have.
        DataError: if the source cannot be read.
        MissingExtraError: if the format needs a library that is not installed.
    """
    source = find_source(source)
    if isinstance(source, SourceSet):
        paths = tuple(source.sources.values())
        if are_windows(paths, options):
            return open_windows(paths, options)
        return open_files(source, options, lambda each: _open_one(each, options, has_graph))
    if options.files in ("sensors", "channels") and isinstance(source, str | Path):
        single = SourceSet(Path(source).name, {Path(source).name: Path(source)})
        return open_files(single, options, lambda each: _open_one(each, options, has_graph))
    return _open_one(source, options, has_graph)


def find_source(source: Any) -> Any:
    """The one source that a user gives, or a `SourceSet` of several; see `find_sources`.

    Raises:
        ConfigError: if it is something else.
        DataError: if a pattern, a directory or an archive has no files of readings.
        StoreError: if the files of an archive find no room.
    """
    if isinstance(source, pd.Series):
        source = source.to_frame("value" if source.name is None else source.name)
    found = find_sources(source)
    kinds = (str, Path, pd.DataFrame, ArrowFrame, LazyFrame, np.ndarray, XarrayObject, Readings)
    what = "the path of a file, a DataFrame (pandas, polars, pyarrow), a Dataset or an array"
    for each in found.sources.values() if isinstance(found, SourceSet) else [found]:
        require_type("source", each, kinds, what)
    return found


def _open_one(source: Any, options: IngestOptions, has_graph: bool) -> Readings:
    if not isinstance(source, Path | str):
        return _open_object(source, options)
    url = as_url(source)
    if url is not None:
        return open_zarr(url, options, name_of(url))
    path = Path(source)
    described = find_basicts(path)
    if described is not None:
        return open_basicts(described, options, has_graph)
    if is_zarr(path):
        return open_zarr(path, options, path.name)
    if path.is_dir() and window_files(path):
        return open_windows(window_files(path), options)
    return _open_file(path, options, has_graph)


def _open_file(path: Path, options: IngestOptions, has_graph: bool) -> Readings:
    """Readings in a file, by its suffix."""
    check_is_file(path, f"the source {path}", DataError)
    check_contents(path)
    suffix = readings_suffix(path)
    if suffix == ".json":
        return open_json(path, has_graph)
    if suffix == ".npz":
        return open_archive(path, options, has_graph)
    if suffix in (".xls", ".xlsx", ".xlsm", ".ods"):
        raise DataError(
            f"{path.name} is a workbook of a spreadsheet program: save the sheet of readings as "
            "CSV UTF-8, and give that file"
        )
    if suffix in HDF5_SUFFIXES and is_netcdf(path):
        return open_netcdf(path, options)
    if suffix in _TABLES:
        return open_table(_TABLES[suffix](path, options), options)
    if suffix not in _READERS:
        raise DataError(
            f"the source {path.name} has the suffix {suffix!r}: known are "
            f"{', '.join(sorted([*_READERS, *_TABLES]))}, .npz, .json (text also with "
            f"{', '.join(COMPRESSED_SUFFIXES)})"
        )
    return _READERS[suffix](path, options)


def _open_object(
    source: pd.DataFrame | ArrowFrame | LazyFrame | NDArray[Any] | XarrayObject | Readings,
    options: IngestOptions,
) -> Readings:
    if isinstance(source, Readings):
        return source
    if isinstance(source, XarrayObject):
        return open_xarray(source, options)
    if isinstance(source, pd.DataFrame):
        return open_frame(source, options)
    if isinstance(source, np.ma.MaskedArray):
        masked, source = np.ma.getmaskarray(source), np.array(as_floats(source.data))
        source[masked] = np.nan
    if isinstance(source, np.ndarray):
        return open_array(source, options=options)
    return open_table(stream_table(source), options)


def open_any_table(source: TableSource, options: IngestOptions) -> Table:
    """Open a table of any shape by its suffix or its type.

    Args:
        source: a file of text, Parquet or Arrow, or a frame.
        options: see `IngestOptions`.

    Raises:
        DataError: if it is none of these, or cannot be read.
    """
    if isinstance(source, pd.DataFrame):
        return pandas_table(source)
    if isinstance(source, ArrowFrame | LazyFrame):
        return stream_table(source)
    if not isinstance(source, Path | str):
        raise DataError(
            f"a table is given as {type(source).__name__}: give a file, or a frame of pandas, "
            "polars or Arrow"
        )
    path = Path(source)
    check_is_file(path, f"the table {path}", DataError)
    check_contents(path)
    suffix = readings_suffix(path)
    if suffix not in _TABLES:
        raise DataError(
            f"the table {path.name} has the suffix {suffix!r}: known are {', '.join(_TABLES)}"
        )
    return _TABLES[suffix](path, options)


def readings_suffix(source: ReadingsSource) -> str:
    """The suffix of a file of readings, without compression; empty for an object in memory."""
    if isinstance(source, SourceSet):
        suffixes = {readings_suffix(each): name for name, each in source.sources.items()}
        if len(suffixes) > 1:
            one, two = list(suffixes.values())[:2]
            raise DataError(f"{one} and {two} are files of two formats: give files of one")
        return next(iter(suffixes))
    if not isinstance(source, Path | str):
        return "xarray" if isinstance(source, XarrayObject) else ""
    if as_url(source) or is_zarr(Path(source)):
        return ".zarr"
    inner, last = last_suffixes(source)
    if last not in COMPRESSED_SUFFIXES:
        return last or "none"
    return inner if inner in (*TEXT_SUFFIXES, ".json") else f"{inner}{last}"
