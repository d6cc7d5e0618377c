"""`pgti fetch`: create a store from a published data set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from cyclopts import Parameter

from pgti.cli.flags import JsonFlag, flags_of, heading
from pgti.cli.info import log_store, store_facts
from pgti.cli.output import print_results
from pgti.datasets.options import FetchOptions

__all__ = ["fetch_command"]

if TYPE_CHECKING:
    FetchFlags = dict[str, Any]
else:
    _FLAGS = dict(flags_of(FetchOptions, "Options", groups={"overwrite": "Output"}))
    FetchFlags = TypedDict("FetchFlags", _FLAGS, total=False)


def fetch_command(
    name: str,
    /,
    *,
    out: Annotated[Path | None, Parameter(group=heading("Output"))] = None,
    source: Annotated[Path | None, Parameter(name="--from")] = None,
    cache: Path | None = None,
    options: Annotated[FetchFlags | None, Parameter(name="*")] = None,
    json: JsonFlag = False,
) -> None:
    """Create a store from a published data set; `pgti datasets` lists them.

    The files are downloaded, or read from a directory. Interrupted downloads resume; files are
    cached, and verified against the checksums recorded when they were first used.

    Args:
        name: Name of the data set.
        out: The store to create. By default the name in lower case, in the current directory.
        source: Directory that already has the files, unpacked or in zip archives.
        cache: Directory of the download cache. By default the user's cache directory.
        options: Options of the data set.
    """
    from pgti.cli.progress import progress_bars
    from pgti.datasets import FetchCallbacks, fetch_dataset, find_dataset

    chosen = FetchOptions(**(options or {}))
    dataset = find_dataset(name)
    target = Path(dataset.name.lower()) if out is None else out
    with progress_bars("ingest") as bars:
        callbacks = FetchCallbacks(
            log=bars.log, download_progress=bars.download, row_progress=bars.rows
        )
        store = fetch_dataset(
            dataset.name, target, chosen, source=source, cache=cache, callbacks=callbacks
        )
    log_store(store)
    content = {"dataset": dataset.name, "store": str(target), **store_facts(store)}
    print_results(content, as_json=json)
