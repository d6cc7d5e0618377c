"""The formats of files by suffix, and the options that each has a use for."""

from pgti.errors import ConfigError
from pgti.ingestion.options import IngestOptions

__all__ = [
    "ARROW_SUFFIXES",
    "GRAPH_TEXT_SUFFIXES",
    "HDF5_SUFFIXES",
    "IDS_IN_READINGS",
    "MATLAB_SUFFIXES",
    "NETCDF_SUFFIXES",
    "NETWORK_SUFFIXES",
    "PARQUET_SUFFIXES",
    "TEXT_SUFFIXES",
    "check_options_used",
    "suits_readings",
]

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".asc", ".dat", ".dyna")
PARQUET_SUFFIXES = (".parquet", ".pq")
ARROW_SUFFIXES = (".feather", ".arrow", ".arrows", ".ipc")
_TABLES = (*TEXT_SUFFIXES, *PARQUET_SUFFIXES, *ARROW_SUFFIXES)
HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
MATLAB_SUFFIXES = (".mat",)
NETCDF_SUFFIXES = (".nc", ".nc4", ".cdf", ".netcdf")
_LABELLED = (*NETCDF_SUFFIXES, ".zarr", "xarray")
NETWORK_SUFFIXES = (".graphml", ".gml")
GRAPH_TEXT_SUFFIXES = (*TEXT_SUFFIXES, ".rel", ".geo")
_GRAPH_TABLES = (*GRAPH_TEXT_SUFFIXES, *PARQUET_SUFFIXES, ".geojson", ".json", "")
_KNOWN = (
    *(*_TABLES, *HDF5_SUFFIXES, *MATLAB_SUFFIXES, *_LABELLED),
    *(".npy", ".npz", ".json", ".pkl", ".pickle"),
    *(*NETWORK_SUFFIXES, *_GRAPH_TABLES, ".mtx"),
)
_ARRAY_FILES = (*HDF5_SUFFIXES, *MATLAB_SUFFIXES, ".npy", ".npz")
_GRAPHS = (".npz", *_GRAPH_TABLES)

IDS_IN_READINGS = (".npz", *HDF5_SUFFIXES, *MATLAB_SUFFIXES, *_LABELLED)

# Formats of readings, and of graphs, that each option is for.
_USES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "values": ((".npz", *HDF5_SUFFIXES, *MATLAB_SUFFIXES, *_LABELLED), ()),
    "header": (TEXT_SUFFIXES, ()),
    "timestamps": ((*_TABLES, *_ARRAY_FILES, *_LABELLED, ""), ()),
    "time_format": ((*_TABLES, *_ARRAY_FILES, *_LABELLED, ""), ()),
    "delimiter": (TEXT_SUFFIXES, ()),
    "graph_delimiter": ((), GRAPH_TEXT_SUFFIXES),
    "encoding": (TEXT_SUFFIXES, GRAPH_TEXT_SUFFIXES),
    "decimal": (TEXT_SUFFIXES, GRAPH_TEXT_SUFFIXES),
    "time_columns": ((*_TABLES, ""), ()),
    "long": ((*_TABLES, ""), ()),
    "ignore": ((*_TABLES, ""), ()),
    "axes": ((*_TABLES, *_ARRAY_FILES, *_LABELLED, ""), ()),
    "transpose": ((*_TABLES, *_ARRAY_FILES, ""), ()),
    "ids": (IDS_IN_READINGS, _GRAPHS),
    "edges": ((".npz",), (*_GRAPHS, *NETWORK_SUFFIXES)),
    "coordinates": ((".npz",), (*_GRAPHS, *NETWORK_SUFFIXES)),
    "neighbours": (
        (".npz", *HDF5_SUFFIXES, *MATLAB_SUFFIXES, *_LABELLED),
        (*_GRAPHS, *NETWORK_SUFFIXES),
    ),
    "graph_kind": ((), _GRAPHS),
    "graph_values": ((), (".npz",)),
}


_DEFAULT = IngestOptions()


def suits_readings(name: str, suffix: str) -> bool:
    """Whether readings of a format have a use for an option; its suffix is "" in memory."""
    return name not in _USES or suffix in _USES[name][0]


def check_options_used(readings: str | None, graph: str | None, options: IngestOptions) -> None:
    """Refuse options that neither the readings nor the graph have a use for.

    Args:
        readings: suffix of the file of readings, "" for an object in memory, None for none.
        graph: the same for the graph.
        options: what the user said.

    Raises:
        ConfigError: naming the option, its value and what it is for.
    """
    if any(suffix not in (None, *_KNOWN) for suffix in (readings, graph)):
        return  # the reader refuses the format
    for option, (for_readings, for_graphs) in _USES.items():
        value = getattr(options, option)
        if option in ("ids", "neighbours") and options.transpose and readings in _TABLES:
            continue  # columns describe its sensors
        if value == getattr(_DEFAULT, option) or readings in for_readings or graph in for_graphs:
            continue
        suffixes = dict.fromkeys(suffix for suffix in (readings, graph) if suffix is not None)
        given = [suffix or "an object in memory" for suffix in suffixes]
        uses = [
            f"{what} in {', '.join(each or 'memory' for each in formats)}"
            for what, formats in (("readings", for_readings), ("a graph", for_graphs))
            if formats
        ]
        raise ConfigError(
            f"{option} is {value!r}, which {' and '.join(given)} cannot use: leave it out, it is "
            f"for {' and '.join(uses)}"
        )
