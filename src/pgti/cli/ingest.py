"""`pgti ingest`: create a store from a file of readings."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pgti.cli.info import store_summary
from pgti.cli.output import log, print_json
from pgti.cli.progress import progress_bars
from pgti.ingestion import IngestOptions, ingest

__all__ = ["ingest_command"]


def ingest_command(
    readings: Path,
    /,
    *,
    out: Path,
    graph: Path | None = None,
    options: Annotated[IngestOptions, Parameter(name="*")] = IngestOptions(),
    json: bool = False,
) -> None:
    """Create a store from a file of readings and a graph.

    Readings: CSV or TSV, .npy, .npz, HDF5 (as DCRNN, PGT and LargeST write it), Parquet, or PGT's
    JSON. Graph: a matrix, an edge list, a table of distances or coordinates, CSR arrays, DCRNN's
    adj_mx.pkl, or arrays in the file of readings (--edges, --coordinates).

    Args:
        readings: File of readings.
        out: The store to create.
        graph: File of the graph.
        options: How to read the files.
        json: Print one JSON object as the last line of standard output.
    """
    with progress_bars("ingest") as callbacks:
        result = ingest(readings, out, options, graph=graph, progress=callbacks.row_progress)
    for note in result.notes:
        log(note)
    summary = store_summary(result)
    log(
        f"{summary['steps']:,} steps of {summary['sensors']:,} sensors, "
        f"{', '.join(summary['channels'])}, {summary['edges']:,} edges, as {summary['dtype']} "
        f"({summary['bytes'] / 1e6:,.1f} MB), {100 * summary['missing_fraction']:.2f} % missing, "
        f"are in {out}"
    )
    if json:
        print_json(summary)
