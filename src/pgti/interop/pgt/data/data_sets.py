"""PGT's data sets with index-batching: what they are called, their files, and how to open them.

Nothing is downloaded: the files must lie in a directory, under the names that PGT gives them.
"""

import json
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pgti.datasets import Dataset
from pgti.datasets.archives import member_of, unpack_member
from pgti.errors import ConfigError, DataError
from pgti.ingest.readings import reraise_read_errors
from pgti.interop.pgt.data import published
from pgti.interop.pgt.data.compat import Recipe
from pgti.interop.pgt.data.edges import (
    Edges,
    aligned,
    dense_edges,
    listed_edges,
    load_matrix,
    load_pickled_matrix,
)
from pgti.interop.pgt.data.sources import ArraySource, NpySource, Source
from pgti.interop.pgt.data.table_source import TableSource

__all__ = ["DATA_SETS", "DataSet", "data_set_called", "default_directory"]

Opened = tuple[Source, Edges]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSet:
    """A data set of PGT with index-batching.

    Attributes:
        name: what PGT's documentation calls it.
        published: its files, the first set of which is read, and where they are.
        read: reads the files; as PGT does if the second argument is true.
        recipe: how PGT standardises it.
        lags: rows of x and of y, by default.
        batch_size: windows of a batch, by default.
    """

    name: str
    published: Dataset
    read: Callable[[Sequence[Path], bool], Opened]
    recipe: Recipe
    lags: int = 12
    batch_size: int = 64

    def open(self, directory: Path, *, pgt_compat: bool = False) -> Opened:
        """Readings and edges of the files in `directory`; readings are read when they are used.

        What is missing is unpacked from the data set's archive if that is there.

        Args:
            directory: where the files are.
            pgt_compat: join rows of a matrix with columns of readings by position, as PGT does,
                also where their ids say otherwise.

        Raises:
            DataError: if a file is missing, saying where to get it, or damaged.
        """
        names = self.published.file_sets[0].files
        for name in names:
            if not (directory / name).is_file():
                self._unpack(directory, name)
        return self.read([directory / name for name in names], pgt_compat)

    def _unpack(self, directory: Path, name: str) -> None:
        downloads = {each.name: each.url for each in self.published.downloads}
        for archive in downloads:
            path = directory / archive
            if archive.endswith(".zip") and path.is_file():
                _unpack(path, name)
                return
        wanted = name if name in downloads else next(iter(downloads))
        raise DataError(
            f"{self.name} needs the file {name}, and {directory} has none: download {wanted} from "
            f"{downloads[wanted]} and put it there under that name; or make a store with "
            f"`pgti fetch {self.published.name}` and give its path"
        )


def _unpack(archive: Path, name: str) -> None:
    """Take one file out of an archive, beside it: whole or not at all."""
    member = member_of(archive, name)
    if member is None:
        raise DataError(f"{archive} holds no {name}: it is another archive; download it again")
    try:
        # Moved as the last step, also where several ranks unpack at the same time.
        with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".unpacking-") as temporary:
            unpack_member(archive, member, Path(temporary) / name)
            (Path(temporary) / name).replace(archive.parent / name)
    except OSError as error:  # no permission, a system that is read-only, a disk that is full
        raise DataError(
            f"{name} cannot be unpacked to {archive.parent} ({error.strerror}): unpack "
            f"{archive.name} elsewhere and give that directory as data_dir"
        ) from error


def data_set_called(name: str) -> DataSet | None:
    """The data set of that name, however its letters and hyphens are written; a path is no name."""
    return None if {"/", os.sep} & set(name) else _BY_KEY.get(_key(name))


def default_directory(directory: Path | str | None) -> Path:
    """The directory of the files: `data` in the working directory, as in PGT, if not given.

    Raises:
        ConfigError: if it is there and is no directory.
    """
    path = Path.cwd() / "data" if directory is None else Path(directory)
    if path.exists() and not path.is_dir():
        raise ConfigError(f"data_dir is {path}, which is a file: give the directory of the files")
    return path


def _read_arrays(paths: Sequence[Path], pgt_compat: bool) -> Opened:  # noqa: ARG001 - no ids
    """Readings [T, N, 2] and a matrix [N, N] as .npy files: speed, 0 where missing; time of day."""
    values, matrix = paths
    source = NpySource(values, num_calendar=1, zero_is_missing=True)
    return source, dense_edges(load_matrix(matrix), source.num_nodes, matrix.name)


def _read_table(paths: Sequence[Path], pgt_compat: bool) -> Opened:
    """Speeds as a pandas table in HDF5, and DCRNN's pickle of ids, positions and a matrix."""
    values, matrix = paths
    source = TableSource(values, "df")
    ids, weights = load_pickled_matrix(matrix)
    if not pgt_compat:
        weights = aligned(weights, ids, source.node_ids)
    return source, dense_edges(weights, source.num_nodes, matrix.name)


def _read_json(key: str, paths: Sequence[Path], pgt_compat: bool) -> Opened:  # noqa: ARG001 - one file
    """Edges, perhaps their weights, and rows of readings in the entry `key`; a 0 is a reading."""
    (path,) = paths
    name = path.name
    with reraise_read_errors(name, "JSON"):
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or key not in content or "edges" not in content:
            keys = ", ".join(list(content)[:8]) if isinstance(content, dict) else "no entries"
            raise DataError(f"{name} has {keys}: the rule is edges, and rows called {key}")
        values = np.asarray(content[key], dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise DataError(f"{key} of {name} has shape {values.shape}: the rule is rows of numbers")
    edges = listed_edges(content["edges"], content.get("weights"), values.shape[1], name)
    return ArraySource(name, values[..., np.newaxis], zero_is_missing=False), edges


DATA_SETS = (
    DataSet(name="METR-LA", published=published.METR_LA, read=_read_arrays, recipe="centred"),
    DataSet(name="PEMS-BAY", published=published.PEMS_BAY, read=_read_arrays, recipe="centred"),
    DataSet(name="PeMS", published=published.PEMS, read=_read_table, recipe="together"),
    DataSet(
        name="PeMS-All-LA", published=published.PEMS_ALL_LA, read=_read_table, recipe="together"
    ),
    DataSet(
        name="WindmillLarge",
        published=published.WINDMILL,
        read=partial(_read_json, "block"),
        recipe="per-sensor",
        lags=8,
    ),
    DataSet(
        name="Chickenpox",
        published=published.CHICKENPOX,
        read=partial(_read_json, "FX"),
        recipe="none",
        lags=4,
        batch_size=4,
    ),
)


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_BY_KEY = {_key(name): each for each in DATA_SETS for name in (each.name, each.published.name)}
