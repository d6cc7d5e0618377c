"""Whether the numbers of edges are weights or distances: large is near, or large is far."""

import re
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pgti.errors import DataError, option
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.raw_graphs import RawEdges, RawMatrix

__all__ = ["are_edge_distances", "are_matrix_distances", "is_distance_name"]

_DISTANCE_NAMES = (
    *("cost", "distance", "distances", "dist", "length", "miles", "km", "meters", "metres"),
    *("kilometers", "kilometres"),
)
_WEIGHT_NAMES = (
    *("weight", "weights", "w", "adj", "adjacency", "similarity", "correlation", "affinity"),
    "probability",
)
_LARGEST_PLAIN_WEIGHT = 1.0


def is_distance_name(name: str | None) -> bool:
    """Whether the last word of a name means a distance, as in edge_miles."""
    return _last_word(name) in _DISTANCE_NAMES


def are_edge_distances(raw: RawEdges, options: IngestOptions) -> tuple[bool, tuple[str, ...]]:
    """Whether the values of a list of edges are distances, and what to say about that.

    The options say it, else the name of the values. Values without a name that says it are weights
    up to 1. Larger ones are distances where that from a sensor to itself is 0, and those to others
    are not; a weight of 0 would be no edge.

    Raises:
        DataError: if larger values could be either.
    """
    if options.edge_values is not None or raw.value is None or not len(raw.value):
        return options.edge_values == "distance", ()
    if is_distance_name(raw.value_name):
        return True, (_note(raw.name, "by their name"),)
    largest = float(np.max(raw.value, initial=0.0, where=~np.isnan(raw.value)))
    if _last_word(raw.value_name) in _WEIGHT_NAMES or largest <= _LARGEST_PLAIN_WEIGHT:
        return False, ()
    to_itself = np.array([a == b for a, b in zip(raw.source, raw.target, strict=True)])
    zero = raw.value == 0
    if to_itself.any() and bool((zero == to_itself).all()):
        return True, (_note(raw.name, "because that from a sensor to itself is 0"),)
    called = "have no name" if raw.value_name is None else f"are called {raw.value_name!r}"
    raise _ambiguous(raw.name, f"the values {called} and reach {largest:g}")


def are_matrix_distances(raw: RawMatrix, options: IngestOptions) -> tuple[bool, tuple[str, ...]]:
    """Whether the entries of a matrix are distances, and what to say about that.

    Raises:
        DataError: if they exceed 1, are 0 on the diagonal and are above 0 everywhere else: as
            distances between all sensors are, and weights could be.
    """
    if raw.are_weights:
        return False, ()
    if options.edge_values is not None:
        return options.edge_values == "distance", ()
    largest, is_complete = _survey(raw.matrix)
    if largest <= _LARGEST_PLAIN_WEIGHT:
        return False, ()
    if is_complete:
        raise _ambiguous(
            raw.name, f"entries reach {largest:g}, are 0 on the diagonal and nowhere else"
        )
    return False, (
        f"entries of {raw.name} reach {largest:g} and are weights, the largest joins the nearest; "
        f"if they are distances, pass {option('edge_values', 'distance')}",
    )


def _survey(matrix: "sp.csr_array[Any] | NDArray[Any]") -> tuple[float, bool]:
    """The largest number, and whether the diagonal holds the only zeros."""
    if isinstance(matrix, np.ndarray):
        largest = float(np.nanmax(matrix, initial=0.0))
        num_nonzero, diagonal = int(np.count_nonzero(matrix)), matrix.diagonal()
    else:
        largest = float(np.nanmax(matrix.data, initial=0.0)) if matrix.nnz else 0.0
        num_nonzero, diagonal = int(np.count_nonzero(matrix.data)), matrix.diagonal()
    size = len(diagonal)
    return largest, size > 1 and not diagonal.any() and num_nonzero == size * (size - 1)


def _ambiguous(name: str, why: str) -> DataError:
    return DataError(
        f"{name} could hold weights or distances, for {why}: pass "
        f"{option('edge_values', 'distance')} (a Gaussian kernel makes near sensors heavy) or "
        f"{option('edge_values', 'weight')} (large values are near), whichever they are"
    )


def _note(name: str, why: str) -> str:
    return (
        f"the edge values of {name} are distances {why}, and the Gaussian kernel turns them into "
        f"weights; {option('edge_values', 'weight')} takes them as they are"
    )


def _last_word(name: str | None) -> str:
    words = re.findall("[a-z]+", (name or "").lower())
    return words[-1] if words else ""
