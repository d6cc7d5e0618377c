"""PGT's data sets with index-batching: what they are called, their files, and how to open them.

Nothing is downloaded: the files must lie in a directory, under the names that PGT gives them.
"""

import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pgti.datasets.archives import member_of, unpack_member
from pgti.datasets.catalogue import DATASETS
from pgti.errors import ConfigError, DataError
from pgti.interop.pgt.data.compat import Recipe
from pgti.interop.pgt.data.edges import (
    Edges,
    aligned,
    dense_edges,
    load_matrix,
    load_pickled_matrix,
)
from pgti.interop.pgt.data.json_files import read_json
from pgti.interop.pgt.data.sources import ArraySource, NpySource, Source
from pgti.interop.pgt.data.table_source import TableSource

__all__ = ["DATA_SETS", "DataSet", "data_set_called", "default_directory"]

Opened = tuple[Source, Edges]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSet:
    """A data set of PGT.

    Args:
        name: what PGT's documentation calls it.
        published: what `pgti.datasets` calls it, which knows where its files are.
        files: files that are read.
        open: opens them, once they are known to be in the directory; as PGT does if the second
            argument is true.
        recipe: how PGT standardises it.
        lags: rows of x and of y, by default.
        batch_size: windows of a batch, by default.
    """

    name: str
    published: str
    files: tuple[str, ...]
    open: Callable[[Path, bool], Opened]
    recipe: Recipe
    lags: int = 12
    batch_size: int = 64

    def opened(self, directory: Path, *, pgt_compat: bool = False) -> Opened:
        """Readings and edges of the files in `directory`; readings are read when they are used.

        What is missing is unpacked from the data set's archive if that is there.

        Args:
            directory: where the files are.
            pgt_compat: join rows of a matrix with columns of readings by position, as PGT does,
                also where their ids say otherwise.

        Raises:
            DataError: if a file is missing, saying where to get it, or damaged.
        """
        for name in self.files:
            if not (directory / name).is_file():
                self._find(directory, name)
        return self.open(directory, pgt_compat)

    def _find(self, directory: Path, name: str) -> None:
        downloads = {each.name: each.url for each in DATASETS[self.published].downloads}
        for archive in downloads:
            path = directory / archive
            if archive.endswith(".zip") and path.is_file():
                _unpack(path, name)
                return
        wanted = name if name in downloads else next(iter(downloads))
        raise DataError(
            f"{self.name} needs the file {name}, and {directory} has none: download {wanted} from "
            f"{downloads[wanted]} and put it there under that name; or make a store with "
            f"`pgti fetch {self.published}` and give its path"
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


def _open_arrays(values: str, matrix: str) -> Callable[[Path, bool], Opened]:
    """Readings [T, N, 2] and a matrix [N, N] as .npy files: speed, 0 where missing; time of day."""

    def opened(directory: Path, pgt_compat: bool) -> Opened:
        del pgt_compat  # there are no ids
        source = NpySource(directory / values, num_calendar=1, zero_is_missing=True)
        edges = dense_edges(load_matrix(directory / matrix), source.num_nodes, matrix)
        return source, edges

    return opened


def _open_table(values: str, matrix: str) -> Callable[[Path, bool], Opened]:
    """Speeds as a pandas table in HDF5, and DCRNN's pickle of ids, positions and a matrix."""

    def opened(directory: Path, pgt_compat: bool) -> Opened:
        source = TableSource(directory / values, "df")
        ids, weights = load_pickled_matrix(directory / matrix)
        if not pgt_compat:
            weights = aligned(weights, ids, source.node_ids)
        return source, dense_edges(weights, source.num_nodes, matrix)

    return opened


def _open_json(name: str, key: str) -> Callable[[Path, bool], Opened]:
    """Edges and rows of readings as JSON; a 0 is a reading."""

    def opened(directory: Path, pgt_compat: bool) -> Opened:
        del pgt_compat  # one file holds both
        values, edges = read_json(directory / name, key)
        return ArraySource(name, values[..., np.newaxis], zero_is_missing=False), edges

    return opened


DATA_SETS = (
    DataSet(
        name="METR-LA",
        published="METR-LA",
        files=("node_values.npy", "adj_mat.npy"),
        open=_open_arrays("node_values.npy", "adj_mat.npy"),
        recipe="centred",
    ),
    DataSet(
        name="PEMS-BAY",
        published="PEMS-BAY",
        files=("pems_node_values.npy", "pems_adj_mat.npy"),
        open=_open_arrays("pems_node_values.npy", "pems_adj_mat.npy"),
        recipe="centred",
    ),
    DataSet(
        name="PeMS",
        published="PeMS",
        files=("pems_cali_speed.h5", "pems_cali_adj_mat.pkl"),
        open=_open_table("pems_cali_speed.h5", "pems_cali_adj_mat.pkl"),
        recipe="together",
    ),
    DataSet(
        name="PeMS-All-LA",
        published="PeMS-All-LA",
        files=("pems_AllLA_speed.h5", "pems_AllLA_adj_mat.pkl"),
        open=_open_table("pems_AllLA_speed.h5", "pems_AllLA_adj_mat.pkl"),
        recipe="together",
    ),
    DataSet(
        name="WindmillLarge",
        published="Windmill-Large",
        files=("windmill_output.json",),
        open=_open_json("windmill_output.json", "block"),
        recipe="per-sensor",
        lags=8,
    ),
    DataSet(
        name="Chickenpox",
        published="Chickenpox-Hungary",
        files=("chickenpox.json",),
        open=_open_json("chickenpox.json", "FX"),
        recipe="none",
        lags=4,
        batch_size=4,
    ),
)


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_BY_KEY = {_key(name): each for each in DATA_SETS for name in (each.name, each.published)}
