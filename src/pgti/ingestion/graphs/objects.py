"""Graphs that are in memory already, of the libraries in which people have them."""

import sys
from typing import Any

import numpy as np
import scipy.sparse as sp

from pgti.errors import ConfigError, DataError, option
from pgti.graph import SensorGraph
from pgti.ingestion.graphs.arrays import could_be_edge_index, edge_index_graph, matrix_graph
from pgti.ingestion.graphs.geojson import geo_frame_graph
from pgti.ingestion.graphs.networks import network_graph
from pgti.ingestion.graphs.rows import arrow_rows, frame_rows
from pgti.ingestion.graphs.tables import table_graph
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.raw_graphs import RawEdges, RawGraph, RawMatrix
from pgti.ingestion.readings import Readings

__all__ = ["object_graph"]

_FRAME = "the frame of the graph"


def object_graph(
    source: Any, options: IngestOptions, readings: Readings | None, ids_elsewhere: bool
) -> RawGraph:
    """The graph of an object; the other arguments are those of `read_raw_graph`.

    Raises:
        ConfigError: if it is of no kind that is known.
        DataError: if it does not hold a graph.
    """
    raw: RawGraph | None = None
    if isinstance(source, SensorGraph):
        raw = RawMatrix(
            name="the graph",
            matrix=source.adjacency,
            coordinates=source.coordinates,
            are_weights=True,
        )
    elif _is_of(source, "networkx", "Graph"):
        raw = network_graph(source, "the network", options)
    elif _is_of(source, "geopandas", "GeoDataFrame"):
        raw = geo_frame_graph(source, _FRAME, options)
    elif _is_of(source, "pandas", "DataFrame") or hasattr(source, "__arrow_c_stream__"):
        read_rows = frame_rows if _is_of(source, "pandas", "DataFrame") else arrow_rows
        raw = table_graph(read_rows(source, _FRAME), options, readings, ids_elsewhere)
    elif getattr(source, "edge_index", None) is not None:
        raw = _data_graph(source, readings)
    elif isinstance(source, tuple | list) and len(source) in (1, 2):
        raw = edge_index_graph(*map(_array, source))
    else:
        raw = _array_graph(_array(source))
    if raw is not None:
        return raw
    raise ConfigError(
        f"the graph is a {type(source).__module__}.{type(source).__qualname__}: the rule is a "
        "file, a SensorGraph, a matrix (NumPy, SciPy, torch), (edge_index, edge_weight), a graph "
        "of NetworkX, Data of PyTorch Geometric, or a frame of edges or places"
    )


def _is_of(source: Any, module: str, name: str) -> bool:
    """Whether an object is of a class of a library, which is not imported for that."""
    library = sys.modules.get(module)
    return library is not None and isinstance(source, getattr(library, name))


def _array(source: Any) -> Any:
    """A tensor as an array, or as a sparse one; anything else as it is."""
    if not _is_of(source, "torch", "Tensor"):
        return source
    tensor = source.detach().cpu()
    if str(tensor.layout) == "torch.strided":
        return tensor.numpy()
    entries = tensor.to_sparse_coo().coalesce()
    values, (rows, columns) = entries.values().numpy(), entries.indices().numpy()
    return sp.csr_array((values, (rows, columns)), shape=tuple(entries.shape))


def _array_graph(array: Any) -> RawGraph | None:
    """The graph of a matrix, or of positions of edges; None for anything else."""
    if isinstance(array, np.ndarray) and could_be_edge_index(array):
        return edge_index_graph(array)
    return matrix_graph(array, "the matrix") if _is_matrix(array) else None


def _is_matrix(array: Any) -> bool:
    return isinstance(array, np.ndarray) or sp.issparse(array)


def _data_graph(data: Any, readings: Readings | None) -> RawEdges:
    """The graph of PyTorch Geometric's `Data`: edge_index, and edge_weight or edge_attr."""
    features = getattr(data, "x", None)
    size = None if features is None else len(features)
    if readings is not None and size not in (None, readings.num_nodes):
        raise DataError(
            f"the Data of the graph has {size} nodes, and {readings.name} has "
            f"{readings.num_nodes} sensors: give as many"
        )
    weight, called = getattr(data, "edge_weight", None), "edge_weight"
    if weight is None:
        weight, called = getattr(data, "edge_attr", None), "edge_attr"
    if weight is not None and weight.ndim == 2 and weight.shape[1] > 1:
        raise DataError(
            f"edge_attr of the Data of the graph has {weight.shape[1]} columns: set edge_weight to "
            "the one that holds weights or distances"
        )
    raw = edge_index_graph(_array(data.edge_index), _array(weight), "edge_index of the Data")
    notes: tuple[str, ...] = ()
    if getattr(data, "pos", None) is not None:
        notes = (
            "pos of the Data was not read, for it does not say what it measures; a frame or a file "
            f"with latitude and longitude and {option('neighbours')} makes a graph of places",
        )
    return RawEdges(
        name=raw.name,
        source=raw.source,
        target=raw.target,
        value=raw.value,
        value_name=called if called == "edge_weight" and weight is not None else None,
        is_topology=True,
        by_position=True,
        notes=notes,
    )
