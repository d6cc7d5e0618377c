"""Edges, matrices and coordinates in an `.npz` archive."""

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pgti.errors import ConfigError, DataError
from pgti.ingest.node_matching import (
    RawCoordinates,
    RawGraph,
    RawMatrix,
)
from pgti.ingest.npy import Arrays, Headers, npz_headers, read_coordinates, read_edges
from pgti.ingest.options import IngestOptions
from pgti.ingest.readings import choose_keys, find_ids, reraise_read_errors

__all__ = ["read_npz_graph"]

_CSR = ("indptr", "indices", "data")


def read_npz_graph(path: Path, options: IngestOptions, ids_elsewhere: bool = False) -> RawGraph:
    """A graph in an `.npz`: edge arrays if named, CSR arrays, a square matrix or coordinates.

    Args:
        path: the archive.
        options: see `IngestOptions`.
        ids_elsewhere: whether `options.ids` may be an array of the readings' file alone.

    Raises:
        ConfigError: if the array of ids that the user names does not fit.
        DataError: if the archive is damaged or holds none of them, or several matrices.
    """
    name = path.name
    with reraise_read_errors(name, "an npz archive"), np.load(path, allow_pickle=False) as archive:
        headers = npz_headers(path)
        if options.edges:
            latlon = read_coordinates(archive, headers, None, options, name)
            return read_edges(archive, headers, options, name, latlon)
        if options.graph_kind == "edges":
            raise ConfigError(
                f"--graph-kind is edges and {name} has many arrays: name those of the edges with "
                "--edges source,target,weight"
            )
        if options.graph_kind == "coordinates":
            return _coordinates(archive, headers, options, name, ids_elsewhere)
        if all(key in headers for key in _CSR) and options.graph_values is None:
            return _compressed(archive, headers, options, name, ids_elsewhere)
        square = {
            key: str(header.shape)
            for key, header in headers.items()
            if len(header.shape) == 2
            and header.shape[0] == header.shape[1]
            and header.dtype.kind in "biuf"
        }
        if not square and options.graph_values is None and options.neighbours is not None:
            return _coordinates(archive, headers, options, name, ids_elsewhere)
        wanted = () if options.graph_values is None else (options.graph_values,)
        (key,) = choose_keys(name, square, wanted, "square matrix", "square matrices")
        size = headers[key].shape[0]
        return RawMatrix(
            name=f"{key} of {name}",
            matrix=archive[key],
            node_ids=_ids(archive, headers, size, options, name, ids_elsewhere),
            values=options.edge_values or "weight",
            coordinates=read_coordinates(archive, headers, size, options, name),
        )


def _coordinates(
    arrays: Arrays, headers: Headers, options: IngestOptions, name: str, ids_elsewhere: bool
) -> RawCoordinates:
    latlon = read_coordinates(arrays, headers, None, options, name)
    if latlon is None:
        raise DataError(
            f"{name} has no coordinates: name the arrays, such as --coordinates lat,lon; it has "
            + ", ".join(headers)
        )
    ids = _ids(arrays, headers, len(latlon), options, name, ids_elsewhere)
    return RawCoordinates(name=name, latlon=latlon, node_ids=ids)


def _compressed(
    arrays: Arrays, headers: Headers, options: IngestOptions, name: str, ids_elsewhere: bool
) -> RawMatrix:
    """A matrix whose rows (or columns) are compressed, as SciPy and `SensorGraph.save` write it."""
    indptr, indices, data = (arrays[key] for key in _CSR)
    layout = _text(arrays["format"]) if "format" in headers else "csr"
    size = len(indptr) - 1 if indptr.ndim == 1 else -1
    shape = tuple(arrays["shape"].tolist()) if "shape" in headers else (size, size)
    if layout not in ("csr", "csc"):
        raise DataError(
            f"{name} holds a SciPy matrix in the layout {layout!r}: save it with "
            "scipy.sparse.save_npz(file, matrix.tocsr())"
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
    return RawMatrix(
        name=name,
        matrix=sp.csr_array(matrix),
        node_ids=_ids(arrays, headers, size, options, name, ids_elsewhere),
        values=options.edge_values or "weight",
        coordinates=read_coordinates(arrays, headers, size, options, name),
    )


def _text(scalar: NDArray[Any]) -> str:
    value = scalar.tolist()
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


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


def _ids(
    arrays: Arrays,
    headers: Headers,
    num_nodes: int,
    options: IngestOptions,
    name: str,
    ids_elsewhere: bool,
) -> tuple[str, ...] | None:
    """Ids under the name that the user gives, unless that is a name in the readings' file."""
    is_there = options.ids in headers or not ids_elsewhere
    wanted = options.ids if is_there else None
    return find_ids(headers, arrays.__getitem__, num_nodes, wanted, name)
