"""PGT's data sets with index-batching: their names, and how to open their files.

Nothing is downloaded: the files must be in a directory, under the names that PGT gives them.
"""

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.datasets import Dataset
from pgti.datasets.archives import find_member, unpack_member
from pgti.errors import ConfigError, DataError
from pgti.ingestion import IngestOptions
from pgti.ingestion.graphs.sources import read_raw_graph
from pgti.ingestion.raw_graphs import RawMatrix
from pgti.ingestion.readings import reraise_read_errors
from pgti.interop.pgt import published
from pgti.interop.pgt.data.compat import Scaling
from pgti.interop.pgt.data.sources import ArraySource, NpySource, Source, TableSource
from pgti.interop.pgt.edges import Edges
from pgti.storage import StagedDirectory

__all__ = ["DATA_SETS", "DataSet", "default_directory", "find_data_set"]

Opened = tuple[Source, Edges]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSet:
    """A data set of PGT with index-batching.

    Attributes:
        name: what PGT's documentation calls it.
        published: its files, the first set of which is read, and where they are.
        read: reads the files; as PGT does if the second argument is true.
        scaling: how PGT standardises it.
        lags: rows of x and of y, by default.
        batch_size: windows of a batch, by default.
    """

    name: str
    published: Dataset
    read: Callable[[Sequence[Path], bool], Opened]
    scaling: Scaling
    lags: int = 12
    batch_size: int = 64

    def open(self, directory: Path, *, pgt_compat: bool = False) -> Opened:
        """Readings and edges of the files in `directory`; readings are read when they are used.

        What is missing is unpacked from the data set's archive if that is there. With `pgt_compat`
        rows of a matrix and columns of readings are joined by position, as PGT does, also where
        their ids say otherwise.

        Raises:
            DataError: if a file is missing, saying where to get it, or damaged.
        """
        files = self.published.file_sets[0]
        archives = [each for each in files.archives if (directory / each).is_file()]
        downloads = {each.name: each.url for each in self.published.downloads}
        for name in files.files:
            if (directory / name).is_file():
                continue
            if archives:
                _unpack(directory / archives[0], name)
                continue
            wanted = name if name in downloads else next(iter(downloads))
            raise DataError(
                f"{self.name} needs the file {name}, and {directory} has none: download {wanted} "
                f"from {downloads[wanted]} and put it there under that name; or make a store with "
                f"`pgti fetch {self.published.name}` and give its path"
            )
        return self.read([directory / name for name in files.files], pgt_compat)


def _unpack(archive: Path, name: str) -> None:
    """Take one file out of an archive, beside it: whole or not at all."""
    member = find_member(archive, name)
    if member is None:
        raise DataError(f"{archive} holds no {name}: it is another archive; download it again")
    try:
        # Moved as the last step, also where several ranks unpack at the same time.
        target = archive.with_name(f"{name}.unpacking")
        with StagedDirectory(target, check_target=lambda _: None) as staged:
            unpack_member(archive, member, staged.path / name)
            (staged.path / name).replace(archive.parent / name)
    except OSError as error:  # no permission, a system that is read-only, a disk that is full
        raise DataError(
            f"{name} cannot be unpacked to {archive.parent} ({error.strerror}): unpack "
            f"{archive.name} elsewhere and give that directory as data_dir"
        ) from error


def find_data_set(name: str) -> DataSet | None:
    """The data set of a name, whatever its capitals and hyphens; None for other names and paths."""
    return None if {"/", os.sep} & set(name) else _BY_KEY.get(_key(name))


def default_directory(directory: Path | str | None) -> Path:
    """The directory of the files: `data` in the working directory, as in PGT, if not given.

    Raises:
        ConfigError: if it exists and is not a directory.
    """
    path = Path.cwd() / "data" if directory is None else Path(directory)
    if path.exists() and not path.is_dir():
        raise ConfigError(f"data_dir is {path}, which is a file: give the directory of the files")
    return path


def _read_arrays(paths: Sequence[Path], _: bool) -> Opened:
    """Readings [T, N, 2] and a matrix [N, N] as .npy files: speed, 0 where missing; time of day."""
    values, matrix = paths
    source = NpySource(values, num_calendar=1, zero_is_missing=True)
    return source, Edges.from_matrix(_read_matrix(matrix)[0], source.num_nodes, matrix.name)


def _read_table(paths: Sequence[Path], pgt_compat: bool) -> Opened:
    """Speeds as a pandas table in HDF5, and DCRNN's pickle of ids, positions and a matrix."""
    values, pickled = paths
    source = TableSource(values, "df")
    matrix, ids = _read_matrix(pickled)
    if not pgt_compat:
        matrix = _align(matrix, ids, source.node_ids)
    return source, Edges.from_matrix(matrix, source.num_nodes, pickled.name)


def _read_matrix(path: Path) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    """A matrix in an .npy file, or a pickled one, and its ids if it has them."""
    raw = read_raw_graph(path, IngestOptions())
    assert isinstance(raw, RawMatrix)  # what these files hold
    return np.asarray(raw.matrix), raw.node_ids


def _align(
    matrix: NDArray[Any], ids: tuple[str, ...] | None, wanted: tuple[str, ...]
) -> NDArray[Any]:
    """The matrix with rows and columns in the order of the wanted ids.

    PGT takes for granted that both files have one order. Where they hold the same ids in different
    orders, the ids decide; where they hold different ids, positions do.
    """
    if ids is None or ids == wanted or sorted(ids) != sorted(wanted):
        return matrix
    place = {label: position for position, label in enumerate(ids)}
    order = [place[label] for label in wanted]
    return matrix[np.ix_(order, order)]


def _read_json(key: str, paths: Sequence[Path], _: bool) -> Opened:
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
    edges = Edges.from_pairs(content["edges"], content.get("weights"), values.shape[1], name)
    return ArraySource(name, values[..., np.newaxis], zero_is_missing=False), edges


DATA_SETS = (
    DataSet(name="METR-LA", published=published.METR_LA, read=_read_arrays, scaling="centred"),
    DataSet(name="PEMS-BAY", published=published.PEMS_BAY, read=_read_arrays, scaling="centred"),
    DataSet(name="PeMS", published=published.PEMS, read=_read_table, scaling="together"),
    DataSet(
        name="PeMS-All-LA", published=published.PEMS_ALL_LA, read=_read_table, scaling="together"
    ),
    DataSet(
        name="WindmillLarge",
        published=published.WINDMILL,
        read=partial(_read_json, "block"),
        scaling="per-sensor",
        lags=8,
    ),
    DataSet(
        name="Chickenpox",
        published=published.CHICKENPOX,
        read=partial(_read_json, "FX"),
        scaling="none",
        lags=4,
        batch_size=4,
    ),
)


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_BY_KEY = {_key(name): each for each in DATA_SETS for name in (each.name, each.published.name)}
