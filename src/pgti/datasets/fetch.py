"""`fetch`: from the name of a data set to a store."""

from dataclasses import replace
from pathlib import Path

from pgti.datasets.catalogue import find_dataset
from pgti.datasets.dataset import Dataset, Request
from pgti.datasets.files import FetchCallbacks, advise_manual_download, cached_files, files_in
from pgti.datasets.options import FetchOptions, Zeros
from pgti.errors import ConfigError, FetchError, option
from pgti.ingestion import ingest, open_readings
from pgti.store import SeriesStore, check_target

__all__ = ["fetch", "fetch_dataset"]


def fetch(
    name: str,
    out: Path | str,
    *,
    source: Path | str | None = None,
    cache: Path | str | None = None,
    zeros: Zeros | None = None,
    years: tuple[int, ...] = (),
    interval: str | None = None,
    overwrite: bool = False,
) -> SeriesStore:
    """Write a published data set to a store; its files are downloaded or read from a folder.

    Downloads are cached, and resumed after an interruption. A file's SHA-256 is recorded when it
    is first used and checked from then on, as is the MD5 that its publisher states.

    Args:
        name: name of a data set, as in `DATASETS`, in upper or lower case.
        out: the store to create.
        source: a folder that already holds the files; nothing is downloaded then.
        cache: folder for downloads; None takes the user's cache directory.
        zeros: see `FetchOptions`.
        years: see `FetchOptions`.
        interval: see `FetchOptions`.
        overwrite: see `FetchOptions`.

    Returns:
        The new store, opened; its `notes` say what a user should know, one line each.

    Raises:
        ConfigError: if the name is not known, or an option is not for this data set.
        DataError: if a file is missing, damaged or has changed.
        FetchError: if a file cannot be downloaded.
        StoreError: if the target exists or cannot be written.
        MissingExtraError: if downloading or reading needs a library that is not installed.
    """
    options = FetchOptions(zeros=zeros, years=years, interval=interval, overwrite=overwrite)
    return fetch_dataset(
        name,
        Path(out),
        options,
        source=None if source is None else Path(source),
        cache=None if cache is None else Path(cache),
    )


def fetch_dataset(
    name: str,
    out: Path,
    options: FetchOptions,
    *,
    source: Path | None = None,
    cache: Path | None = None,
    callbacks: FetchCallbacks | None = None,
) -> SeriesStore:
    """The same as `fetch`, with options as one object and callbacks."""
    dataset = find_dataset(name)
    callbacks = callbacks or FetchCallbacks()
    years = _years(dataset, options.years)
    interval = _interval(dataset, options.interval)
    check_target(out, overwrite=options.overwrite)
    if source is not None:
        opened = files_in(source, dataset, years, out)
    elif dataset.downloads:
        opened = cached_files(dataset, cache, out, callbacks)
    else:
        advice = advise_manual_download(dataset, years)
        raise FetchError(f"{dataset.name} cannot be downloaded: {advice}")
    with opened as (form, paths):
        request = Request(
            dataset=dataset,
            paths=paths,
            zeros_missing=(options.zeros or dataset.zeros) == "missing",
            years=years,
            interval=interval,
            overwrite=options.overwrite,
        )
        prepared = form.recipe(request)
        readings = open_readings(
            prepared.readings, prepared.options, has_graph=prepared.graph is not None
        )
        store = ingest(
            replace(readings, dataset=dataset.name),
            out,
            prepared.options,
            graph=prepared.graph,
            progress=callbacks.row_progress,
        )
    zeros_note = dataset.zeros_note if options.zeros is None else ""
    protocol: tuple[str, ...] = ()
    if dataset.protocol is not None:
        protocol = (
            f"published protocol ({dataset.protocol.source}): {dataset.protocol.summary}; "
            f"{option('protocol', 'published')} trains by it",
            *dataset.protocol.notes,
        )
    notes = [note for note in (zeros_note, *dataset.notes, *store.notes, *protocol) if note]
    return replace(store, notes=tuple(notes))


def _years(dataset: Dataset, years: tuple[int, ...]) -> tuple[int, ...]:
    """The years wanted, in order."""
    if not years:
        return dataset.default_years
    shown = ", ".join(map(str, years))
    if not dataset.years:
        raise ConfigError(
            f"years is {shown} and {dataset.name} is not by year: leave {option('years')} out"
        )
    wanted = tuple(sorted(set(years)))
    if not set(wanted) <= set(dataset.years) or wanted[-1] - wanted[0] != len(wanted) - 1:
        raise ConfigError(
            f"years is {shown}: they must be consecutive, from {dataset.years[0]} to "
            f"{dataset.years[-1]}"
        )
    return wanted


def _interval(dataset: Dataset, interval: str | None) -> str:
    if interval is None:
        return dataset.interval
    choices = (dataset.interval, "5min") if dataset.years else (dataset.interval,)
    if interval not in choices:
        raise ConfigError(
            f"interval is {interval}: for {dataset.name} it is {' or '.join(choices)}"
        )
    return interval
