"""`pgti fetch`: create a store from a published data set."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pgti.cli.info import store_summary
from pgti.cli.output import log, print_json
from pgti.cli.progress import progress_bars
from pgti.datasets import FetchOptions, fetch_dataset, find_dataset

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
    """Create a store from a published data set; `pgti datasets` lists them.

    The files are downloaded, or read from a directory. Interrupted downloads resume; files are
    cached, and verified against the checksums recorded when they were first used.

    Args:
        name: Name of the data set.
        out: The store to create. By default the data set's name in lower case, in the current
            directory.
        source: Directory that already has the files, unpacked or in zip archives.
        cache: Directory of the download cache. By default the user's cache directory.
        options: Options of the data set.
        json: Print one JSON object as the last line of standard output.
    """
    dataset = find_dataset(name)
    store = Path(dataset.name.lower()) if out is None else out
    with progress_bars("ingest") as callbacks:
        result = fetch_dataset(
            dataset.name, store, options, source=source, cache=cache, callbacks=callbacks
        )
    for note in result.notes:
        log(note)
    summary = store_summary(result)
    log(
        f"{dataset.name}: {summary['steps']:,} steps of {summary['sensors']:,} sensors, "
        f"{', '.join(summary['channels'])}, {summary['edges']:,} edges, as {summary['dtype']} "
        f"({summary['bytes'] / 1e6:,.1f} MB), {100 * summary['missing_fraction']:.2f} % missing, "
        f"are in {store}"
    )
    if json:
        print_json({"dataset": dataset.name, "store": str(store), **summary})
