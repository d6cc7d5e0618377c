"""`pgti ingest`: create a store from a file of readings."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pgti.cli.flags import JsonFlag, heading
from pgti.cli.info import log_store, store_facts
from pgti.cli.ingest_options import IngestFlags
from pgti.cli.output import log, print_results

__all__ = ["ingest_command"]


def ingest_command(
    readings: tuple[Path, ...],
    /,
    *,
    out: Path,
    graph: Annotated[Path | None, Parameter(group=heading("Graph"))] = None,
    static: Annotated[Path | None, Parameter(group=heading("Covariates"))] = None,
    future: Annotated[Path | None, Parameter(group=heading("Covariates"))] = None,
    options: Annotated[IngestFlags | None, Parameter(name="*")] = None,
    json: JsonFlag = False,
) -> None:
    """Create a store from a file of readings and a graph.

    Readings: a table, wide or long (CSV, TSV, Parquet, Feather), an array (.npy, .npz, MATLAB,
    HDF5 as DCRNN, PGT and LargeST write it), NetCDF, Zarr, or PGT's JSON, here or by URL. Several
    files, a pattern ('daily/*.csv'), a directory or a zip of files make one series.
    Graph: a matrix, an edge list, a table of distances or coordinates, DCRNN's adj_mx.pkl, or
    arrays in the file of readings (--edges, --coordinates).
    docs/data.md says what to type for what you have. Several values of an option are joined by
    commas (--missing=0,-1).

    Args:
        readings: File of readings, or several.
        out: The store to create.
        graph: File of the graph.
        static: Table of features and coordinates of the sensors, a row for each, with its id.
        future: File of values known in advance after the last reading, such as a weather forecast.
        options: How to read the files.
    """
    from pgti.cli.progress import progress_bars
    from pgti.ingestion import IngestOptions, ingest

    chosen = IngestOptions(**(options or {}))
    with progress_bars("ingest") as bars:
        store = ingest(
            list(readings),
            out,
            chosen,
            graph=graph,
            static=static,
            future=future,
            progress=bars.rows,
        )
    if not store.time_axis.is_dated:
        log("the store has no times: --start and --interval give them")
    log_store(store)
    print_results(store_facts(store), as_json=json)
