"""Edges, matrices and coordinates in an `.npz` archive."""

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pgti.errors import ConfigError, DataError
from pgti.ingest.npy_stream import NpyHeader, npz_headers
from pgti.ingest.options import IngestOptions
from pgti.ingest.raw_graph import (
    RawCoordinates,
    RawEdges,
    RawGraph,
    RawMatrix,
    is_distance_name,
)
from pgti.ingest.readings import choose, reading
from pgti.ingest.sensor_ids import find_ids, text_ids

__all__ = ["coordinates_in", "raw_edges_in", "read_npz_graph"]

_COORDINATE_NAMES = (("lat", "lon"), ("latitude", "longitude"))
_CSR = ("indptr", "indices", "data")

Arrays = Any  # numpy's NpzFile, or a dict of arrays
Headers = dict[str, NpyHeader]


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
    with reading(name, "an npz archive"), np.load(path, allow_pickle=False) as archive:
        headers = npz_headers(path)
        if options.edges:
            latlon = coordinates_in(archive, headers, None, options, name)
            return raw_edges_in(archive, headers, options, name, latlon)
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
        (key,) = choose(name, square, wanted, "square matrix", "square matrices")
        size = headers[key].shape[0]
        return RawMatrix(
            name=f"{key} of {name}",
            matrix=archive[key],
            node_ids=_ids(archive, headers, size, options, name, ids_elsewhere),
            values=options.edge_values or "weight",
            coordinates=coordinates_in(archive, headers, size, options, name),
        )


def coordinates_in(
    arrays: Arrays, headers: Headers, num_nodes: int | None, options: IngestOptions, name: str
) -> NDArray[np.float64] | None:
    """Latitude and longitude [N, 2] under the named or the customary keys; None if absent.

    Raises:
        DataError: if named arrays are missing or have another length.
    """
    if not options.coordinates and _shape(headers, "coordinates") == (num_nodes, 2):
        return np.asarray(arrays["coordinates"], dtype=np.float64)  # as SensorGraph.save writes it
    pairs = (options.coordinates,) if options.coordinates else _COORDINATE_NAMES
    for latitude, longitude in pairs:
        found = [key for key in (latitude, longitude) if key in headers]
        if len(found) == 2:
            fits = (
                headers[latitude].shape == headers[longitude].shape
                and len(headers[latitude].shape) == 1
            )
            if fits and num_nodes in (None, headers[latitude].shape[0]):
                both = [np.asarray(arrays[key], dtype=np.float64) for key in found]
                return np.stack(both, axis=1)
            if options.coordinates:
                raise DataError(
                    f"{latitude} and {longitude} of {name} have shapes {headers[latitude].shape} "
                    f"and {headers[longitude].shape}: the rule is one number for each of "
                    f"{num_nodes} sensors"
                )
        elif options.coordinates:
            absent = latitude if latitude not in headers else longitude
            raise DataError(f"{name} has no array {absent!r}; it has {', '.join(headers)}")
    return None


def raw_edges_in(
    arrays: Arrays,
    headers: Headers,
    options: IngestOptions,
    name: str,
    latlon: NDArray[np.float64] | None,
) -> RawEdges:
    """The edge list under the keys `options.edges`: two of [E], or one of [E, 2]; then values [E].

    Raises:
        DataError: if a key is unknown or a shape does not fit.
    """
    for key in options.edges:
        if key not in headers:
            raise DataError(f"{name} has no array {key!r}; it has {', '.join(headers)}")
    first, *others = [arrays[key] for key in options.edges]
    if first.ndim == 2 and first.shape[1] == 2:
        source, target = first[:, 0], first[:, 1]
    elif first.ndim == 1 and others:
        source, target = first, others.pop(0)
    else:
        raise DataError(
            f"{options.edges[0]} of {name} has shape {first.shape}: edges are two arrays [E] "
            "(source, target) or one of [E, 2]"
        )
    ends = (source, target, *others)
    if any(array.shape != source.shape for array in ends) or len(others) > 1:
        sizes = ", ".join(str(headers[key].shape) for key in options.edges)
        raise DataError(f"the edge arrays of {name} have shapes {sizes}: they must be one length")
    is_distance = bool(others) and is_distance_name(options.edges[-1])
    return RawEdges(
        name=name,
        source=text_ids(source),
        target=text_ids(target),
        value=np.asarray(others[0], dtype=np.float64) if others else None,
        values=options.edge_values or ("distance" if is_distance else "weight"),
        coordinates=latlon,
        is_topology=True,
    )


def _coordinates(
    arrays: Arrays, headers: Headers, options: IngestOptions, name: str, ids_elsewhere: bool
) -> RawCoordinates:
    latlon = coordinates_in(arrays, headers, None, options, name)
    if latlon is None:
        raise DataError(
            f"{name} has no coordinates: name the arrays, such as --coordinates lat,lon; it has "
            + ", ".join(headers)
        )
    ids = _ids(arrays, headers, len(latlon), options, name, ids_elsewhere)
    return RawCoordinates(name=name, latlon=latlon, node_ids=ids)


def _shape(headers: Headers, key: str) -> tuple[int, ...] | None:
    return headers[key].shape if key in headers else None


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
        coordinates=coordinates_in(arrays, headers, size, options, name),
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
