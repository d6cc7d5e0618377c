"""`SensorGraph`: a weighted, directed graph of sensors, validated once."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from pgti.errors import PARSER_ERRORS, DataError, machine_fault

__all__ = ["CsrMatrix", "SensorGraph", "merge_duplicate_edges"]

# A string, because scipy's classes take type arguments only in the stubs.
CsrMatrix: TypeAlias = "sparse.csr_array[Any, tuple[int, int]]"

_ARRAYS_IN_FILE = ("indptr", "indices", "data", "shape")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SensorGraph:
    """A weighted, directed graph of N sensors; `adjacency[i, j]` is the weight of the edge i -> j.

    Any sparse format, dtype and order is converted to the canonical form: read-only CSR, float32,
    int32 indices in ascending order within a row, without explicit zeros. Self-loops, and sensors
    without edges, are allowed.

    Attributes:
        adjacency: [N, N], weights finite and not negative.
        coordinates: [N, 2], latitude and longitude in degrees (float64), or None.

    Raises:
        DataError: the matrix is not square or is empty, a weight is negative, NaN or infinite, or
            the coordinates do not match.
    """

    adjacency: CsrMatrix
    coordinates: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
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
            weight: [E] finite, not negative; edges of weight 0 are dropped. None gives every edge
                the weight 1.
            coordinates: [N, 2] latitude and longitude in degrees, or None.

        Raises:
            DataError: an edge has an unknown node, two weights, or one that is not allowed, or
                arrays differ in length.
        """
        values = np.ones(np.size(source)) if weight is None else weight
        rows, columns, data = merge_duplicate_edges(num_nodes, source, target, values, "weight")
        adjacency: CsrMatrix = sparse.csr_array(
            (data, (rows, columns)), shape=(num_nodes, num_nodes)
        )
        return cls(adjacency=adjacency, coordinates=coordinates)

    @classmethod
    def empty(cls, num_nodes: int) -> Self:
        """The graph of `num_nodes` sensors without edges."""
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
        """[E]: the weights, in the order of `edge_index`; read-only."""
        return np.asarray(self.adjacency.data)

    def save(self, path: Path) -> None:
        """Write the graph to `path` as an .npz of CSR arrays (and coordinates, if any)."""
        path.write_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """What `save` writes."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "indptr": self.adjacency.indptr,
            "indices": self.adjacency.indices,
            "data": self.adjacency.data,
            "shape": np.asarray(self.adjacency.shape, dtype=np.int64),
        }
        if self.coordinates is not None:
            arrays["coordinates"] = self.coordinates
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **arrays)
        return file.getvalue()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the graph that `save` wrote to `path`, without unpickling.

        Raises:
            DataError: the file cannot be read, or is not a valid graph.
        """
        rule = f"a graph file is an .npz with {', '.join(_ARRAYS_IN_FILE)}; write it again"
        try:
            # numpy does not close a file that it opened itself if the archive is broken.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            rows, columns = (int(size) for size in arrays["shape"])
            adjacency = sparse.csr_array(
                (arrays["data"], arrays["indices"], arrays["indptr"]), shape=(rows, columns)
            )
            adjacency.check_format(full_check=True)
        except KeyError as error:
            raise DataError(f"{path} lacks the array {error}: {rule}") from error
        except PARSER_ERRORS as error:
            if fault := machine_fault(error):
                raise DataError(f"{path} cannot be read: {fault}") from error
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
        value_name: name of the number in errors.

    Returns:
        Sources, targets and values of the distinct edges.

    Raises:
        DataError: an edge has an unknown node, or two values.
    """
    if num_nodes < 1:
        raise DataError(f"num_nodes is {num_nodes}: a graph has at least one node")
    sources, targets = _node_numbers(source, "source"), _node_numbers(target, "target")
    values = np.asarray(value, dtype=np.float64)
    if not sources.shape == targets.shape == values.shape or sources.ndim != 1:
        raise DataError(
            f"source, target and {value_name} have shapes {sources.shape}, {targets.shape} and "
            f"{values.shape}: they must have one entry per edge, and so the same length"
        )
    outside = (sources < 0) | (sources >= num_nodes) | (targets < 0) | (targets >= num_nodes)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise DataError(
            f"edge {sources[first]} -> {targets[first]} (number {first}) has an unknown node: they "
            f"are numbered 0 to {num_nodes - 1}; correct the edge or the number of nodes"
        )
    keys = sources * num_nodes + targets
    unique_keys, first_of_key, group = np.unique(keys, return_index=True, return_inverse=True)
    merged = values[first_of_key]
    # NaN differs from itself; the check of the value refuses a repeated NaN.
    conflicting = (values != merged[group]) & ~(np.isnan(values) & np.isnan(merged[group]))
    if conflicting.any():
        second = int(np.flatnonzero(conflicting)[0])
        raise DataError(
            f"edge {sources[second]} -> {targets[second]} appears twice, with {value_name} "
            f"{merged[group][second]} and {values[second]}: remove one of them"
        )
    return unique_keys // num_nodes, unique_keys % num_nodes, merged


def _node_numbers(numbers: npt.ArrayLike, name: str) -> npt.NDArray[np.int64]:
    """Node numbers as int64; raises DataError unless all are whole numbers."""
    array = np.asarray(numbers)
    is_whole = array.dtype.kind == "f" and bool(np.all(array == np.floor(array)))
    if array.size == 0 or array.dtype.kind in "iu" or is_whole:
        return array.astype(np.int64)
    raise DataError(
        f"{name} has {array.dtype} values such as {array.flat[0]!r}: nodes must be whole numbers; "
        "map the sensor ids to their positions first"
    )


def _canonical_adjacency(matrix: Any) -> CsrMatrix:
    """A validated copy of `matrix`, of any sparse format, as CSR in float32."""
    is_sparse: bool = sparse.issparse(matrix)  # a variable, so that mypy does not narrow the type
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
    # This also sorts. A sum of duplicates can overflow, hence the second check.
    adjacency.sum_duplicates()
    adjacency.eliminate_zeros()
    _refuse_bad_entries(adjacency)
    adjacency.indptr = adjacency.indptr.astype(np.int32)
    adjacency.indices = adjacency.indices.astype(np.int32)
    for array in (adjacency.indptr, adjacency.indices, adjacency.data):
        array.flags.writeable = False
    return adjacency


def _refuse_bad_entries(matrix: CsrMatrix) -> None:
    """Raise DataError for the first entry that is not a finite float32 of at least 0."""
    entries = sparse.coo_array(matrix)
    weights = entries.data
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(weights.astype(np.float32)) | (weights < 0)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"edge {entries.row[first]} -> {entries.col[first]} has weight {weights[first]}: "
            "weights must be finite float32 numbers of at least 0; correct or remove the edge"
        )


def _canonical_coordinates(coordinates: npt.ArrayLike, num_nodes: int) -> npt.NDArray[np.float64]:
    """Coordinates as a validated, read-only [N, 2] float64 array."""
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
            f"node {node} has coordinates {tuple(array[node].tolist())}: latitude must be in "
            "-90 .. 90 and longitude in -180 .. 180 degrees; are the columns swapped?"
        )
    array.flags.writeable = False
    return array
