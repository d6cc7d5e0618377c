"""The right reader for a source of a graph."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import scipy.sparse as sp
from numpy.typing import NDArray

from pgti.errors import DataError
from pgti.graph import SensorGraph
from pgti.ingestion.contents import check_contents
from pgti.ingestion.formats import GRAPH_TEXT_SUFFIXES, NETWORK_SUFFIXES, PARQUET_SUFFIXES
from pgti.ingestion.graphs.arrays import (
    read_npy_graph,
    read_npz_graph,
    read_pickled_graph,
)
from pgti.ingestion.graphs.geojson import read_geojson_graph
from pgti.ingestion.graphs.market import read_market_graph
from pgti.ingestion.graphs.networks import read_network_file
from pgti.ingestion.graphs.objects import object_graph
from pgti.ingestion.graphs.tables import read_table_graph
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.raw_graphs import RawGraph
from pgti.ingestion.readings import Readings
from pgti.ingestion.tables.text_files import COMPRESSED_SUFFIXES, last_suffixes
from pgti.storage import check_is_file

__all__ = ["GraphSource", "graph_suffix", "read_raw_graph"]

GraphSource: TypeAlias = Path | str | SensorGraph | NDArray[Any] | sp.sparray | Any
"""A file, or an object in memory: see `read_raw_graph`."""

_Reader: TypeAlias = Callable[[Path, IngestOptions], RawGraph]
_READERS: dict[str, _Reader] = {
    ".npy": lambda path, _: read_npy_graph(path),
    ".mtx": lambda path, _: read_market_graph(path),
    **dict.fromkeys((".pkl", ".pickle"), lambda path, _: read_pickled_graph(path)),
    **dict.fromkeys(NETWORK_SUFFIXES, read_network_file),
    **dict.fromkeys((".geojson", ".json"), read_geojson_graph),
}


def graph_suffix(source: GraphSource) -> str:
    """The suffix of a graph file, without compression; empty for an object in memory."""
    if not isinstance(source, Path | str):
        return ""
    inner, last = last_suffixes(source)
    return (inner if last in COMPRESSED_SUFFIXES else last) or "none"


def read_raw_graph(
    source: GraphSource,
    options: IngestOptions,
    readings: Readings | None = None,
    *,
    ids_elsewhere: bool = False,
) -> RawGraph:
    """Read a graph, without matching its nodes with the sensors of the readings.

    Args:
        source: a file; a SensorGraph; a matrix [N, N] of NumPy, SciPy or torch; `edge_index`
            [2, E], alone or as (edge_index, edge_weight); a graph of NetworkX; `Data` of PyTorch
            Geometric; or a frame (pandas, polars, Arrow, GeoPandas) of edges, places or a matrix.
        options: see `IngestOptions`.
        readings: the readings, if any; their sensors help to recognize what a table holds.
        ids_elsewhere: whether `options.ids` may be an array of the readings' file alone.

    Raises:
        ConfigError: if options name what cannot be used.
        DataError: if the source is damaged or does not hold a graph.
    """
    if not isinstance(source, Path | str):
        return object_graph(source, options, readings, ids_elsewhere)
    path = Path(source)
    suffix = graph_suffix(path)
    check_is_file(path, f"the graph file {path}", DataError)
    check_contents(path)
    if suffix in _READERS:
        return _READERS[suffix](path, options)
    if suffix == ".npz":
        return read_npz_graph(path, options, ids_elsewhere)
    if suffix in (*GRAPH_TEXT_SUFFIXES, *PARQUET_SUFFIXES):
        return read_table_graph(path, options, readings, ids_elsewhere)
    raise DataError(
        f"the graph file {path.name} has the suffix {suffix!r}: known are .npy, .npz, .mtx, .pkl, "
        f"{', '.join(GRAPH_TEXT_SUFFIXES)} (also compressed), "
        f"{', '.join((*PARQUET_SUFFIXES, '.geojson', *NETWORK_SUFFIXES))}"
    )
