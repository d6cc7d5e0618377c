"""Graphs as arrays: matrices in memory, in `.npy` and in pickles; what an `.npz` archive holds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pgti.errors import ConfigError, DataError, option
from pgti.ingestion.arrays.npy import (
    Arrays,
    Headers,
    npz_headers,
    open_members,
    read_coordinates,
    read_edges,
    read_header,
)
from pgti.ingestion.keys import choose_keys
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.raw_graphs import RawCoordinates, RawEdges, RawGraph, RawMatrix
from pgti.ingestion.readings import find_ids, ids_to_text, reraise_read_errors
from pgti.ingestion.safe_pickle import load_pickle, plain_labels

__all__ = [
    "could_be_edge_index",
    "edge_index_graph",
    "matrix_graph",
    "read_npy_graph",
    "read_npz_graph",
    "read_pickled_graph",
]

_CSR = ("indptr", "indices", "data")
_EDGE_INDEX, _EDGE_VALUES = "edge_index", ("edge_weight", "edge_weights", "edge_attr")
_COO = ("row", "col", "data", "shape", "format")


def matrix_graph(matrix: Any, name: str, node_ids: tuple[str, ...] | None = None) -> RawMatrix:
    """A dense or sparse adjacency (or distance) matrix [N, N].

    Raises:
        DataError: if it is not square, or not numbers.
    """
    matrix = np.asarray(matrix) if isinstance(matrix, np.matrix) else matrix
    if len(matrix.shape) != 2 or matrix.shape[0] != matrix.shape[1]:
        raise DataError(f"{name} has shape {matrix.shape}: an adjacency matrix must be square")
    if matrix.dtype.kind not in "biuf":
        raise DataError(f"{name} holds {matrix.dtype}: an adjacency matrix holds numbers")
    if sp.issparse(matrix):
        sparse: Any = matrix
        matrix = _merged(matrix, name) if sparse.format == "coo" else sp.csr_array(sparse)
    return RawMatrix(name=name, matrix=matrix, node_ids=node_ids)


def could_be_edge_index(array: NDArray[Any]) -> bool:
    """Whether an array is positions of edges, [2, E] or [E, 2], and no matrix."""
    if array.ndim != 2:
        return False
    return array.dtype.kind in "iu" and 2 in array.shape and array.shape[0] != array.shape[1]


def edge_index_graph(index: Any, weight: Any = None, name: str = "edge_index") -> RawEdges:
    """Edges between positions [2, E], or [E, 2], with values [E] or [E, 1].

    Raises:
        DataError: if they have other shapes, or could be meant either way.
    """
    edges = np.asarray(index)
    if edges.ndim != 2 or 2 not in edges.shape or edges.dtype.kind not in "iu":
        raise DataError(
            f"{name} is {edges.dtype} {edges.shape}: the rule is whole numbers [2, E], the "
            "positions of sources and of targets"
        )
    if edges.shape == (2, 2) and (edges != edges.T).any():
        raise DataError(
            f"{name} has shape (2, 2), which could be [2, E] or [E, 2]: add an edge of your graph "
            "to it, or give a matrix"
        )
    source, target = edges if edges.shape[0] == 2 else edges.T
    value = None
    if weight is not None:
        value = np.asarray(weight, dtype=np.float64)
        if value.shape not in ((len(source),), (len(source), 1)):
            raise DataError(
                f"the values of the edges have shape {value.shape}, and {name} has "
                f"{len(source)} edges: give one number each"
            )
        value = value.reshape(-1)
    return RawEdges(
        name=name,
        source=tuple(map(str, source.tolist())),
        target=tuple(map(str, target.tolist())),
        value=value,
        is_topology=True,
        by_position=True,
    )


def read_npy_graph(path: Path) -> RawGraph:
    """A matrix, or positions of edges, in an `.npy` file.

    Raises:
        DataError: if the file is damaged, or its array is neither.
    """
    with reraise_read_errors(path.name, "a NumPy array"):
        with path.open("rb") as file:
            header = read_header(file)
        header.check_size(path.name, path.stat().st_size)
        header.check_whole(path.name)
        array = np.load(path, allow_pickle=False)
    if could_be_edge_index(array):
        return edge_index_graph(array, name=path.name)
    return matrix_graph(array, path.name)


def _merged(matrix: Any, name: str) -> Any:
    """A matrix with each of its entries once; SciPy would add up those of the same place."""
    rows, columns = matrix.row, matrix.col
    places = rows.astype(np.int64) * matrix.shape[1] + columns
    found, counts = np.unique(places, return_counts=True)
    if len(found) != len(places):
        row, column = divmod(int(found[np.argmax(counts)]), matrix.shape[1])
        raise DataError(
            f"the entry ({row}, {column}) of {name} appears {counts.max()} times: leave one of them"
        )
    return sp.csr_array(matrix)


def read_pickled_graph(path: Path) -> RawMatrix:
    """DCRNN's `adj_mx.pkl`: (sensor ids, position of each id, matrix); or the matrix alone.

    Raises:
        DataError: if the file is damaged, holds something else, or its ids are inconsistent.
    """
    rule = "the rule is (sensor ids, position of each id, matrix), or a matrix"
    with reraise_read_errors(path.name, "a pickled matrix"):
        content = load_pickle(path)
        ids: tuple[str, ...] | None = None
        if isinstance(content, list | tuple) and len(content) == 3:
            labels, places, content = content
            if not isinstance(labels, list | tuple | np.ndarray) or not isinstance(places, dict):
                kinds = ", ".join(type(each).__name__ for each in (labels, places, content))
                raise DataError(f"{path.name} holds {kinds}: {rule}")
            labels = plain_labels(labels, path.name)
            ids = ids_to_text(labels)
            if any(places.get(label) != place for place, label in enumerate(labels)):
                raise DataError(
                    f"the ids and the positions of ids in {path.name} contradict each other"
                )
        if not isinstance(content, np.ndarray):
            raise DataError(f"{path.name} holds a {type(content).__name__}: {rule}")
        return matrix_graph(content, path.name, ids)


def read_npz_graph(path: Path, options: IngestOptions, ids_elsewhere: bool) -> RawGraph:
    """A graph in an `.npz`: edges if named or called so, CSR, a square matrix or coordinates.

    The arguments are those of `read_raw_graph`.

    Raises:
        ConfigError: if the array of ids that the user names does not fit.
        DataError: if the archive is damaged or holds none of them, or several matrices.
    """
    name = path.name
    with reraise_read_errors(name, "an npz archive"):
        headers = npz_headers(path)  # first: np.load leaves a file open that is no archive
    with open_members(path, headers) as archive:
        if ids_elsewhere and options.ids not in headers:
            options = replace(options, ids=None)
        if options.edges:
            latlon = read_coordinates(archive, headers, None, options, name)
            return read_edges(archive, headers, options, name, latlon)
        if options.graph_kind == "edges":
            raise ConfigError(
                f"{option('graph_kind')} is edges and {name} has many arrays: name those of the "
                f"edges with "
                f"{option('edges', ('source', 'target', 'weight'))}"
            )
        plain = options.graph_kind is options.graph_values is None and options.neighbours is None
        if _EDGE_INDEX in headers and plain:
            key = next((key for key in _EDGE_VALUES if key in headers), None)
            edges = edge_index_graph(
                archive[_EDGE_INDEX],
                None if key is None else archive[key],
                f"{_EDGE_INDEX} of {name}",
            )
            latlon = read_coordinates(archive, headers, None, options, name)
            value_name = key if key != "edge_attr" else None
            return replace(edges, value_name=value_name, coordinates=latlon)
        square = {
            key: str(header.shape)
            for key, header in headers.items()
            if len(header.shape) == 2
            and header.shape[0] == header.shape[1]
            and header.dtype.kind in "biuf"
        }
        is_compressed = all(key in headers for key in _CSR)
        if all(key in headers for key in _COO) and options.graph_values is None:
            return matrix_graph(_coordinate_list(archive, headers, name), name)
        is_unnamed = options.graph_values is None
        has_matrix = is_compressed or bool(square) or not is_unnamed
        if options.graph_kind == "coordinates" or (
            options.neighbours is not None and not has_matrix
        ):
            return _coordinates(archive, headers, options, name)
        if is_compressed and is_unnamed:
            matrix = _compressed(archive, headers, name)
        else:
            wanted = () if options.graph_values is None else (options.graph_values,)
            several = ("square matrix", "square matrices")
            (key,) = choose_keys(name, square, wanted, *several, chosen_by="graph_values")
            matrix = archive[key]
            name = f"{key} of {name}"
        size = matrix.shape[0]
        return RawMatrix(
            name=name,
            matrix=matrix,
            node_ids=find_ids(headers, archive.__getitem__, size, options.ids, path.name),
            coordinates=read_coordinates(archive, headers, size, options, path.name),
        )


def _coordinates(
    arrays: Arrays, headers: Headers, options: IngestOptions, name: str
) -> RawCoordinates:
    latlon = read_coordinates(arrays, headers, None, options, name)
    if latlon is None:
        raise DataError(
            f"{name} has no coordinates; it has {', '.join(headers)}: name two with "
            f"{option('coordinates')}"
        )
    ids = find_ids(headers, arrays.__getitem__, len(latlon), options.ids, name)
    return RawCoordinates(name=name, latlon=latlon, node_ids=ids)


def _coordinate_list(arrays: Arrays, headers: Headers, name: str) -> "sp.coo_array[Any]":
    """A matrix as SciPy writes one in the layout "coo"."""
    rows, columns, data = (arrays[key] for key in _COO[:3])
    shape = tuple(arrays["shape"].tolist())
    fits = rows.ndim == 1 and rows.shape == columns.shape == data.shape and len(shape) == 2
    whole = rows.dtype.kind in "iu" and columns.dtype.kind in "iu"
    if not fits or not whole or shape[0] != shape[1] or data.dtype.kind not in "biuf":
        sizes = ", ".join(f"{key} {headers[key].dtype} {headers[key].shape}" for key in _COO[:3])
        raise DataError(f"{name} has {sizes} for a matrix {shape}: the rule is square, and numbers")
    if (
        len(rows)
        and not 0 <= min(rows.min(), columns.min()) <= max(rows.max(), columns.max()) < shape[0]
    ):
        raise DataError(f"an edge of {name} leads to no node, for the nodes are 0..{shape[0] - 1}")
    return sp.coo_array((data, (rows, columns)), shape=shape)


def _compressed(arrays: Arrays, headers: Headers, name: str) -> "sp.csr_array[Any]":
    """A matrix whose rows (or columns) are compressed, as SciPy and `SensorGraph.save` write it."""
    indptr, indices, data = (arrays[key] for key in _CSR)
    layout = "csr"
    if "format" in headers:
        scalar = arrays["format"].tolist()
        layout = scalar.decode("latin1") if isinstance(scalar, bytes) else str(scalar)
    size = len(indptr) - 1 if indptr.ndim == 1 else -1
    shape = tuple(arrays["shape"].tolist()) if "shape" in headers else (size, size)
    if layout not in ("csr", "csc"):
        raise DataError(
            f"{name} holds a SciPy matrix in the layout {layout!r}: save it as matrix.tocsr()"
        )
    if shape != (size, size) or data.dtype.kind not in "biuf":
        raise DataError(
            f"{name} has a sparse matrix of {data.dtype} and shape {shape} with {len(indptr)} row "
            "pointers: an adjacency matrix is numbers [N, N] with N + 1 pointers"
        )
    _check_compressed(name, indptr, indices, data)
    kind = sp.csr_array if layout == "csr" else sp.csc_array
    matrix = kind((data, indices, indptr), shape=shape)
    matrix.check_format(full_check=True)  # SciPy follows wrong indices out of its memory
    return sp.csr_array(matrix)


def _check_compressed(
    name: str, indptr: NDArray[Any], indices: NDArray[Any], data: NDArray[Any]
) -> None:
    whole = indptr.dtype.kind in "iu" and indices.dtype.kind in "iu"
    flat = indptr.ndim == indices.ndim == data.ndim == 1 and len(indptr) > 0
    # Unsigned numbers would fall without a negative difference.
    rises = whole and flat and indptr[0] == 0 and bool((indptr[1:] >= indptr[:-1]).all())
    if not rises or indptr[-1] != len(indices) or len(indices) != len(data):
        raise DataError(
            f"the CSR arrays of {name} do not fit: indptr must rise from 0 to the number of "
            f"indices ({indices.size}) and of data ({data.size})"
        )
    size = len(indptr) - 1
    outside = np.flatnonzero((indices < 0) | (indices >= size))
    if len(outside):
        raise DataError(
            f"entry {outside[0]} of indices of {name} is {indices[outside[0]]}: an edge to no "
            f"node, for the nodes are 0..{size - 1}"
        )
