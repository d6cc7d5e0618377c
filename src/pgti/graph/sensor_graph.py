"""`SensorGraph`: a weighted, directed graph of sensors, validated once."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from pgti.errors import DataError

__all__ = ["CsrMatrix", "SensorGraph", "merge_duplicate_edges"]

# A string, because scipy's classes take type arguments in the stubs but not at run time.
CsrMatrix: TypeAlias = "sparse.csr_array[Any, tuple[int, int]]"

_ARRAYS_IN_FILE = ("indptr", "indices", "data", "shape")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SensorGraph:
    """A weighted, directed graph of N sensors; `adjacency[i, j]` is the weight of the edge i -> j.

    Whatever sparse format, dtype or order comes in, what is kept is canonical: CSR, float32, int32
    indices in ascending order within a row, no explicit zeros, and arrays that cannot be written.
    A self-loop is an edge like any other. A sensor without edges is allowed.

    Attributes:
        adjacency: [N, N], weights finite and not negative.
        coordinates: [N, 2], latitude and longitude in degrees (float64), or None.

    Raises:
        DataError: the matrix is not square or has no rows, a weight is negative, NaN or infinite,
            or the coordinates do not fit.
    """

    adjacency: CsrMatrix
    coordinates: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        """Validate, then replace both fields by their canonical form."""
        adjacency = _canonical_adjacency(self.adjacency)
        object.__setattr__(self, "adjacency", adjacency)
        if self.coordinates is not None:
            coordinates = _canonical_coordinates(self.coordinates, adjacency.shape[0])
            object.__setattr__(self, "coordinates", coordinates)

    @classmethod
    def from_edges(
        cls,
        num_nodes: int,
        source: npt.ArrayLike,
        target: npt.ArrayLike,
        weight: npt.ArrayLike | None = None,
        coordinates: npt.NDArray[np.float64] | None = None,
    ) -> Self:
        """The graph with an edge `source[e] -> target[e]` of `weight[e]` for every e.

        Args:
            num_nodes: number of sensors N; edges name them 0 .. N-1.
            source: [E] integers.
            target: [E] integers.
            weight: [E] finite, not negative; None gives every edge the weight 1. An edge of
                weight 0 is no edge.
            coordinates: [N, 2] latitude and longitude in degrees, or None.

        Raises:
            DataError: an edge to no node, the same edge twice with different weights, a weight
                that breaks the rules, or arrays that do not fit together.
        """
        values = np.ones(np.size(source)) if weight is None else weight
        rows, columns, data = merge_duplicate_edges(num_nodes, source, target, values, "weight")
        _refuse_bad_weights(rows, columns, data)
        adjacency: CsrMatrix = sparse.csr_array(
            (data, (rows, columns)), shape=(num_nodes, num_nodes)
        )
        return cls(adjacency=adjacency, coordinates=coordinates)

    @classmethod
    def empty(cls, num_nodes: int) -> Self:
        """The graph of `num_nodes` sensors and no edge."""
        return cls.from_edges(num_nodes, [], [])

    @property
    def num_nodes(self) -> int:
        """Number of sensors N."""
        return int(self.adjacency.shape[0])

    @property
    def num_edges(self) -> int:
        """Number of edges E, self-loops included."""
        return int(self.adjacency.nnz)

    @property
    def edge_index(self) -> npt.NDArray[np.int64]:
        """[2, E]: sources and targets, ordered by source, then target."""
        sources = np.repeat(np.arange(self.num_nodes), np.diff(self.adjacency.indptr))
        return np.stack([sources, self.adjacency.indices]).astype(np.int64, copy=False)

    @property
    def edge_weight(self) -> npt.NDArray[np.float32]:
        """[E]: the weights, in the order of `edge_index`; cannot be written."""
        return np.asarray(self.adjacency.data)

    def save(self, path: Path) -> None:
        """Write the graph to `path` as an .npz of CSR arrays (and coordinates, where known)."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "indptr": self.adjacency.indptr,
            "indices": self.adjacency.indices,
            "data": self.adjacency.data,
            "shape": np.asarray(self.adjacency.shape, dtype=np.int64),
        }
        if self.coordinates is not None:
            arrays["coordinates"] = self.coordinates
        # An open file keeps numpy from appending a suffix to the name.
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """The graph that `save` wrote to `path`; nothing in the file is unpickled.

        Raises:
            DataError: the file cannot be read, is no such graph, or breaks a rule of the class.
        """
        rule = f"a graph file is an .npz with {', '.join(_ARRAYS_IN_FILE)}; write it again"
        try:
            # numpy leaves a file that it opened itself open where the archive is broken.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            rows, columns = (int(size) for size in arrays["shape"])
            adjacency = sparse.csr_array(
                (arrays["data"], arrays["indices"], arrays["indptr"]), shape=(rows, columns)
            )
            adjacency.check_format(full_check=True)
        except KeyError as error:
            raise DataError(f"{path} has no array {error}: {rule}") from error
        # TypeError: a file that holds one array instead of an archive, or text where numbers go.
        except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} cannot be read as a graph ({error}): {rule}") from error
        return cls(adjacency=adjacency, coordinates=arrays.get("coordinates"))


def merge_duplicate_edges(
    num_nodes: int,
    source: npt.ArrayLike,
    target: npt.ArrayLike,
    value: npt.ArrayLike,
    value_name: str,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Edges in row-major order, each once.

    Args:
        num_nodes: number of nodes N.
        source: [E] integers in 0 .. N-1.
        target: [E] integers in 0 .. N-1.
        value: [E] a number per edge.
        value_name: what to call the number in an error.

    Returns:
        Sources, targets and values of the distinct edges.

    Raises:
        DataError: an edge to no node, or an edge given twice with different values.
    """
    if num_nodes < 1:
        raise DataError(f"num_nodes is {num_nodes}: a graph has at least one node")
    sources, targets = _node_numbers(source, "source"), _node_numbers(target, "target")
    values = np.asarray(value, dtype=np.float64)
    if not sources.shape == targets.shape == values.shape or sources.ndim != 1:
        raise DataError(
            f"source, target and {value_name} have shapes {sources.shape}, {targets.shape} and "
            f"{values.shape}: each holds one entry per edge; give arrays of one length"
        )
    outside = (sources < 0) | (sources >= num_nodes) | (targets < 0) | (targets >= num_nodes)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise DataError(
            f"edge {sources[first]} -> {targets[first]} (number {first}) leads to no node: nodes "
            f"are numbered 0 to {num_nodes - 1}; correct the edge or the number of nodes"
        )
    keys = sources * num_nodes + targets
    unique_keys, first_of_key, group = np.unique(keys, return_index=True, return_inverse=True)
    merged = values[first_of_key]
    # NaN differs from itself; a repeated NaN is left to the check of the value.
    conflicting = (values != merged[group]) & ~(np.isnan(values) & np.isnan(merged[group]))
    if conflicting.any():
        second = int(np.flatnonzero(conflicting)[0])
        raise DataError(
            f"edge {sources[second]} -> {targets[second]} is given twice, with {value_name} "
            f"{merged[group][second]} and {values[second]}: an edge has one {value_name}; keep one"
        )
    return unique_keys // num_nodes, unique_keys % num_nodes, merged


def _node_numbers(numbers: npt.ArrayLike, name: str) -> npt.NDArray[np.int64]:
    """Node numbers as int64; refuses anything that is not a whole number."""
    array = np.asarray(numbers)
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if array.dtype.kind == "f" and bool(np.all(array == np.floor(array))):
        return array.astype(np.int64)
    raise DataError(
        f"{name} holds {array.dtype} values such as {array.flat[0]!r}: nodes are named by whole "
        "numbers; map the sensor ids to their positions first"
    )


def _refuse_bad_weights(
    rows: npt.NDArray[np.integer], columns: npt.NDArray[np.integer], weights: npt.NDArray[Any]
) -> None:
    """Raise for the first weight that is not a finite, non-negative float32."""
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(weights.astype(np.float32)) | (weights < 0)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"edge {rows[first]} -> {columns[first]} has weight {weights[first]}: weights are "
            "finite float32 numbers and not negative; correct or remove the edge"
        )


def _canonical_adjacency(matrix: Any) -> CsrMatrix:
    """`matrix`, of any sparse format, as validated CSR in float32 that shares no memory with it."""
    is_sparse: bool = sparse.issparse(matrix)  # stored, so that mypy keeps the type
    if not is_sparse or matrix.dtype.kind not in "fiub":
        raise DataError(
            f"adjacency is a {type(matrix).__name__}: it must be a scipy sparse matrix of real "
            "numbers; build the graph with from_edges or from_dense"
        )
    if len(matrix.shape) != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] < 1:
        raise DataError(
            f"adjacency has shape {matrix.shape}: it must be [N, N] with one row and one column "
            "per sensor"
        )
    _refuse_bad_entries(matrix)
    adjacency: CsrMatrix = sparse.csr_array(matrix.tocsr().astype(np.float32, copy=True))
    # This also sorts. A sum of parts can overflow, hence the second look.
    adjacency.sum_duplicates()
    adjacency.eliminate_zeros()
    _refuse_bad_entries(adjacency)
    adjacency.indptr = adjacency.indptr.astype(np.int32)
    adjacency.indices = adjacency.indices.astype(np.int32)
    for array in (adjacency.indptr, adjacency.indices, adjacency.data):
        array.flags.writeable = False
    return adjacency


def _refuse_bad_entries(matrix: CsrMatrix) -> None:
    """Raise for the first stored entry that cannot be a weight."""
    entries = sparse.coo_array(matrix)
    _refuse_bad_weights(entries.row, entries.col, entries.data)


def _canonical_coordinates(coordinates: npt.ArrayLike, num_nodes: int) -> npt.NDArray[np.float64]:
    """Coordinates as a validated [N, 2] float64 array that cannot be written."""
    array = np.array(coordinates, dtype=np.float64)
    if array.shape != (num_nodes, 2):
        raise DataError(
            f"coordinates have shape {array.shape}: they must be [{num_nodes}, 2], a latitude and "
            "a longitude per sensor"
        )
    bad = ~((np.abs(array[:, 0]) <= 90) & (np.abs(array[:, 1]) <= 180))
    if bad.any():
        node = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"node {node} has coordinates {tuple(array[node].tolist())}: latitude lies in "
            "-90 .. 90 and longitude in -180 .. 180 degrees; are the columns swapped?"
        )
    array.flags.writeable = False
    return array
