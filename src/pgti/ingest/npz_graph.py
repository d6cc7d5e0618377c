"""Edges, matrices and coordinates in an `.npz` archive."""

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pgti.errors import DataError
from pgti.ingest.options import EdgeValues, IngestOptions
from pgti.ingest.raw_graph import DISTANCE_NAMES, RawCoordinates, RawEdges, RawGraph, RawMatrix
from pgti.ingest.readings import ID_NAMES, choose, reading, text_ids

__all__ = ["coordinates_in", "raw_edges_in", "read_npz_graph"]

_COORDINATE_NAMES = (("lat", "lon"), ("latitude", "longitude"))
_CSR = ("indptr", "indices", "data")

Arrays = Any  # numpy's NpzFile, or a dict of arrays
Shapes = dict[str, tuple[int, ...]]


def read_npz_graph(path: Path, options: IngestOptions) -> RawGraph:
    """A graph in an `.npz`: edge arrays if named, CSR arrays, a square matrix or coordinates.

    Raises:
        DataError: if the archive is damaged or holds none of them, or several matrices.
    """
    name = path.name
    with reading(name, "an npz archive"), np.load(path, allow_pickle=False) as archive:
        shapes = {key: archive[key].shape for key in archive.files}
        if options.edges:
            latlon = coordinates_in(archive, shapes, None, options, name)
            return raw_edges_in(archive, shapes, options, name, latlon)
        if options.graph_kind == "coordinates":
            return _coordinates(archive, shapes, options, name)
        if all(key in shapes for key in _CSR) and options.graph_values is None:
            return _csr(path, archive, shapes, options)
        square = {k: str(s) for k, s in shapes.items() if len(s) == 2 and s[0] == s[1]}
        if not square and options.graph_values is None and options.neighbours is not None:
            return _coordinates(archive, shapes, options, name)
        wanted = () if options.graph_values is None else (options.graph_values,)
        (key,) = choose(name, square, wanted, "square matrix")
        return RawMatrix(
            name=f"{key} of {name}",
            matrix=archive[key],
            node_ids=_ids(archive, shapes, shapes[key][0], options),
            values=options.edge_values or "weight",
            coordinates=coordinates_in(archive, shapes, shapes[key][0], options, name),
        )


def coordinates_in(
    arrays: Arrays, shapes: Shapes, num_nodes: int | None, options: IngestOptions, name: str
) -> NDArray[np.float64] | None:
    """Latitude and longitude [N, 2] under the named or the customary keys; None if absent.

    Raises:
        DataError: if named arrays are missing or have another length.
    """
    if not options.coordinates and shapes.get("coordinates") == (num_nodes, 2):
        return np.asarray(arrays["coordinates"], dtype=np.float64)  # as SensorGraph.save writes it
    pairs = (options.coordinates,) if options.coordinates else _COORDINATE_NAMES
    for latitude, longitude in pairs:
        found = [key for key in (latitude, longitude) if key in shapes]
        if len(found) == 2:
            fits = shapes[latitude] == shapes[longitude] and len(shapes[latitude]) == 1
            if fits and num_nodes in (None, shapes[latitude][0]):
                both = [np.asarray(arrays[key], dtype=np.float64) for key in found]
                return np.stack(both, axis=1)
            if options.coordinates:
                raise DataError(
                    f"{latitude} and {longitude} of {name} have shapes {shapes[latitude]} and "
                    f"{shapes[longitude]}: the rule is one number for each of {num_nodes} sensors"
                )
        elif options.coordinates:
            absent = latitude if latitude not in shapes else longitude
            raise DataError(f"{name} has no array {absent!r}; it has {', '.join(shapes)}")
    return None


def raw_edges_in(
    arrays: Arrays,
    shapes: Shapes,
    options: IngestOptions,
    name: str,
    latlon: NDArray[np.float64] | None,
) -> RawEdges:
    """The edge list under the keys `options.edges`: two of [E], or one of [E, 2]; then values [E].

    Raises:
        DataError: if a key is unknown or a shape does not fit.
    """
    for key in options.edges:
        if key not in shapes:
            raise DataError(f"{name} has no array {key!r}; it has {', '.join(shapes)}")
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
        sizes = ", ".join(str(shapes[key]) for key in options.edges)
        raise DataError(f"the edge arrays of {name} have shapes {sizes}: they must be one length")
    return RawEdges(
        name=name,
        source=text_ids(source),
        target=text_ids(target),
        value=np.asarray(others[0], dtype=np.float64) if others else None,
        values=options.edge_values or _called(options.edges[-1], bool(others)),
        coordinates=latlon,
        is_topology=True,
    )


def _called(key: str, has_values: bool) -> EdgeValues:
    """Distances if the array's name ends as one: edge_miles, cost."""
    is_distance = has_values and key.lower().rpartition("_")[2] in DISTANCE_NAMES
    return "distance" if is_distance else "weight"


def _coordinates(
    arrays: Arrays, shapes: Shapes, options: IngestOptions, name: str
) -> RawCoordinates:
    latlon = coordinates_in(arrays, shapes, None, options, name)
    if latlon is None:
        raise DataError(
            f"{name} has no coordinates: name the arrays, such as coordinates lat,lon; it has "
            + ", ".join(shapes)
        )
    ids = _ids(arrays, shapes, len(latlon), options)
    return RawCoordinates(name=name, latlon=latlon, node_ids=ids)


def _csr(path: Path, arrays: Arrays, shapes: Shapes, options: IngestOptions) -> RawMatrix:
    name = path.name
    if "format" in shapes:  # scipy.sparse.save_npz writes other layouts under the same keys
        matrix = sp.csr_array(sp.load_npz(path))
    else:
        size = len(arrays["indptr"]) - 1
        indptr, indices, data = (arrays[key] for key in _CSR)
        _check_csr(name, indptr, indices, data)
        matrix = sp.csr_array((data, indices, indptr), shape=(size, size))
    return RawMatrix(
        name=name,
        matrix=matrix,
        node_ids=_ids(arrays, shapes, matrix.shape[0], options),
        values=options.edge_values or "weight",
        coordinates=coordinates_in(arrays, shapes, matrix.shape[0], options, name),
    )


def _check_csr(name: str, indptr: NDArray[Any], indices: NDArray[Any], data: NDArray[Any]) -> None:
    size = len(indptr) - 1
    rises = indptr.ndim == 1 and size >= 0 and indptr[0] == 0 and bool((np.diff(indptr) >= 0).all())
    if not rises or indptr[-1] != len(indices) or len(indices) != len(data):
        raise DataError(
            f"the CSR arrays of {name} do not fit: indptr must rise from 0 to the number of "
            f"indices ({len(indices)}) and of data ({len(data)})"
        )
    outside = np.flatnonzero((indices < 0) | (indices >= size))
    if len(outside):
        raise DataError(
            f"entry {outside[0]} of indices of {name} is {indices[outside[0]]}: an edge to no "
            f"node, for the nodes are 0..{size - 1}"
        )


def _ids(
    arrays: Arrays, shapes: Shapes, num_nodes: int, options: IngestOptions
) -> tuple[str, ...] | None:
    for key in (options.ids, *ID_NAMES):
        if key is not None and shapes.get(key) == (num_nodes,):
            return text_ids(arrays[key])
    return None
