"""Refusing options that would be passed over in silence."""

from pgti.errors import ConfigError
from pgti.ingest.options import IngestOptions

__all__ = ["IDS_IN_READINGS", "check_use"]

_TEXT = (".csv", ".tsv", ".txt")
_TABLES = (*_TEXT, ".parquet", ".pq")
_HDF5 = (".h5", ".hdf5", ".hdf")
_KNOWN = (*_TABLES, *_HDF5, ".npy", ".npz", ".json", ".pkl", ".pickle", "")
_GRAPHS = (".npz", *_TEXT)

IDS_IN_READINGS = (".npz", *_HDF5)

# Formats of readings, and of graphs, that each option is for.
_USES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "values": ((".npz", *_HDF5), ()),
    "header": (_TEXT, ()),
    "timestamps": (_TABLES, ()),
    "time_format": (_TABLES, ()),
    "delimiter": (_TEXT, _TEXT),
    "ids": (IDS_IN_READINGS, _GRAPHS),
    "edges": ((".npz",), _GRAPHS),
    "coordinates": ((".npz",), _GRAPHS),
    "neighbours": ((".npz",), _GRAPHS),
    "graph_kind": ((), _GRAPHS),
    "graph_values": ((), (".npz",)),
}


def check_use(readings: str | None, graph: str | None, options: IngestOptions) -> None:
    """Refuse options that neither the readings nor the graph have a use for.

    Args:
        readings: suffix of the file of readings, "" for an object in memory, None for none.
        graph: the same for the graph.
        options: what the user said.

    Raises:
        ConfigError: naming the option, its value and what it is for.
    """
    if any(suffix not in (None, *_KNOWN) for suffix in (readings, graph)):
        return  # the reader says that it does not know the format
    for option, (for_readings, for_graphs) in _USES.items():
        value = getattr(options, option)
        if value in ((), None) or readings in for_readings or graph in for_graphs:
            continue
        given = {_called(suffix): None for suffix in (readings, graph) if suffix is not None}
        uses = [
            f"{what} in {', '.join(suffixes)}"
            for what, suffixes in (("readings", for_readings), ("a graph", for_graphs))
            if suffixes
        ]
        raise ConfigError(
            f"{option} is {value!r}, which {' and '.join(given)} can make no use of: leave it out, "
            f"it is for {' and '.join(uses)}"
        )


def _called(suffix: str) -> str:
    return suffix or "an object in memory"
