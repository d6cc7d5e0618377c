"""`pgti fetch`: a published data set becomes a store."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pgti.cli.fetch_progress import fetch_callbacks
from pgti.cli.info import store_summary
from pgti.cli.output import log, print_json
from pgti.datasets import FetchOptions, fetch_dataset, find_dataset
from pgti.store import SeriesStore

__all__ = ["fetch_command"]


def fetch_command(
    name: str,
    /,
    *,
    out: Path | None = None,
    source: Annotated[Path | None, Parameter(name="--from")] = None,
    cache: Path | None = None,
    options: Annotated[FetchOptions, Parameter(name="*")] = FetchOptions(),
    json: bool = False,
) -> None:
    """Turn a published data set into a store; `pgti datasets` lists them.

    Its files are downloaded, or taken from a folder. Downloads go on where they stopped, are kept
    in a cache, and are checked against checksums that are written down when they are first used.

    Args:
        name: The data set.
        out: The store to make; the data set's name in small letters, in the present folder, if
            not given.
        source: A folder that holds the files already, also in zip archives.
        cache: Where downloads are kept; the customary place of the system if not given.
        options: What can be chosen of it.
        json: Print one JSON object as the last line of standard output.
    """
    dataset = find_dataset(name)
    store = Path(dataset.name.lower()) if out is None else out
    with fetch_callbacks() as callbacks:
        result = fetch_dataset(
            dataset.name, store, options, source=source, cache=cache, callbacks=callbacks
        )
    zeros_note = dataset.zeros_note if options.zeros is None else ""
    for note in (zeros_note, *dataset.notes, *result.notes):
        if note:
            log(note)
    if result.num_filled_rows:
        log(f"{result.num_filled_rows:,} rows of missing readings were inserted into gaps")
    summary = store_summary(SeriesStore.open(store))
    log(
        f"{dataset.name}: {summary['steps']:,} steps of {summary['sensors']:,} sensors, "
        f"{', '.join(summary['channels'])}, {summary['edges']:,} edges, as {summary['dtype']} "
        f"({summary['bytes'] / 1e6:,.1f} MB), {100 * summary['missing_fraction']:.2f} % missing, "
        f"are in {store}"
    )
    if json:
        print_json({"dataset": dataset.name, "store": str(store), **summary})
