"""The right reader for a source of readings."""

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from pgti.errors import DataError
from pgti.graph import SensorGraph
from pgti.ingest.csv import open_csv
from pgti.ingest.frames import open_array, open_frame
from pgti.ingest.graph_arrays import read_npz_graph
from pgti.ingest.graph_tables import read_table_graph
from pgti.ingest.hdf5 import open_hdf5
from pgti.ingest.json import open_json
from pgti.ingest.node_matching import RawGraph, RawMatrix
from pgti.ingest.npy import open_npy, open_npz, read_header
from pgti.ingest.options import IngestOptions
from pgti.ingest.parquet import open_parquet
from pgti.ingest.readings import Readings, ids_to_text, reraise_read_errors
from pgti.ingest.safe_pickle import load_pickle

__all__ = [
    "GraphSource",
    "ReadingsSource",
    "graph_suffix",
    "open_readings",
    "read_raw_graph",
    "readings_suffix",
]

ReadingsSource: TypeAlias = Path | str | pd.DataFrame | NDArray[Any] | Readings

_READERS = {
    ".csv": open_csv,
    ".tsv": open_csv,
    ".txt": open_csv,
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


GraphSource: TypeAlias = Path | str | SensorGraph | NDArray[Any] | sp.sparray

_SUFFIXES = ".npy, .npz, .csv, .tsv, .txt (also .gz), .pkl"


def read_raw_graph(
    source: GraphSource,
    options: IngestOptions,
    *,
    num_nodes: int | None = None,
    node_ids: tuple[str, ...] | None = None,
    ids_elsewhere: bool = False,
) -> RawGraph:
    """Read a graph, without matching its nodes with any readings.

    Args:
        source: a file; or a SensorGraph, a dense or a sparse matrix.
        options: see `IngestOptions`.
        num_nodes: sensors of the readings, where there are any: they help to tell what it holds.
        node_ids: their ids, where known.
        ids_elsewhere: whether `options.ids` may be an array of the readings' file alone.

    Raises:
        ConfigError: if options name what cannot be used.
        DataError: if the source is damaged or holds no graph.
    """
    if isinstance(source, SensorGraph):
        return RawMatrix(name="the graph", matrix=source.adjacency, coordinates=source.coordinates)
    values = options.edge_values or "weight"
    if isinstance(source, np.ndarray) or sp.issparse(source):
        return RawMatrix(name="the matrix", matrix=_matrix(source, "the matrix"), values=values)
    path = Path(str(source))
    last = graph_suffix(path)
    if not path.is_file():
        raise DataError(f"the graph file {path} does not exist or is no file: check the path")
    if last in (".pkl", ".pickle"):
        with reraise_read_errors(path.name, "a pickled matrix"):
            return _pickled(path, options)
    if last == ".npz":
        return read_npz_graph(path, options, ids_elsewhere)
    if last == ".npy":
        with reraise_read_errors(path.name, "a NumPy array"):
            with path.open("rb") as file:
                read_header(file).check_size(path.name, path.stat().st_size)
            matrix = np.load(path, allow_pickle=False)
        return RawMatrix(name=path.name, matrix=_matrix(matrix, path.name), values=values)
    if last in (".csv", ".tsv", ".txt"):
        return read_table_graph(
            path, options, num_nodes=num_nodes, node_ids=node_ids, ids_elsewhere=ids_elsewhere
        )
    raise DataError(f"the graph file {path.name} has the suffix {last!r}: known are {_SUFFIXES}")


def graph_suffix(source: GraphSource) -> str:
    """The suffix of a graph file, without compression; empty for an object in memory."""
    if not isinstance(source, Path | str):
        return ""
    suffixes = [suffix.lower() for suffix in Path(source).suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    return suffixes[-1] if suffixes else "none"


def _pickled(path: Path, options: IngestOptions) -> RawMatrix:
    """DCRNN's `adj_mx.pkl`: (sensor ids, position of each id, matrix); or the matrix alone."""
    content = load_pickle(path)
    ids: tuple[str, ...] | None = None
    if isinstance(content, list | tuple) and len(content) == 3:
        labels, places, content = content
        if not isinstance(labels, list | tuple | np.ndarray) or not isinstance(places, dict):
            raise DataError(
                f"{path.name} holds {type(labels).__name__}, {type(places).__name__}, "
                f"{type(content).__name__}: the rule is (sensor ids, position of each id, matrix)"
            )
        ids = ids_to_text(labels if isinstance(labels, np.ndarray) else list(labels))
        if any(places.get(label) != place for place, label in enumerate(labels)):
            raise DataError(
                f"the ids and the positions of ids in {path.name} contradict each other"
            )
    if not isinstance(content, np.ndarray):
        raise DataError(
            f"{path.name} holds a {type(content).__name__}: the rule is (sensor ids, position of "
            "each id, matrix), or a matrix"
        )
    return RawMatrix(
        name=path.name,
        matrix=_matrix(content, path.name),
        node_ids=ids,
        values=options.edge_values or "weight",
    )


def _matrix(content: Any, name: str) -> Any:
    if len(content.shape) != 2 or content.shape[0] != content.shape[1]:
        raise DataError(f"{name} has shape {content.shape}: an adjacency matrix must be square")
    if content.dtype.kind not in "biuf":
        raise DataError(f"{name} holds {content.dtype}: an adjacency matrix holds numbers")
    return content
