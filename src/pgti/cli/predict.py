"""`pgti predict`: forecasts of a trained run as a file."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from pgti.cli.output import log, print_json
from pgti.errors import ConfigError
from pgti.forecasting import RichObserver
from pgti.ingest import IngestOptions, ingest
from pgti.run import Run
from pgti.store import SeriesStore

__all__ = ["predict_command"]


def predict_command(
    run: Path,
    /,
    *,
    out: Path,
    split: Literal["train", "val", "test"] | None = None,
    first: Annotated[str | None, Parameter(name="--from")] = None,
    last: Annotated[str | None, Parameter(name="--to")] = None,
    readings: Path | None = None,
    ingest_options: Annotated[IngestOptions, Parameter(name="*")] = IngestOptions(),
    store: Path | None = None,
    checkpoint: Literal["best", "last"] = "best",
    device: str | None = None,
    json: bool = False,
) -> None:
    """Forecast with a trained run: past the end of the series, over a split or a time range.

    Args:
        run: Directory of the run.
        out: File to write: .csv, .parquet or .npz.
        split: Forecast every window of this split.
        first: Forecast windows whose first forecast step is not before this time.
        last: Forecast windows whose first forecast step is not after this time.
        readings: Newer readings of the same sensors to forecast from: a store, or a file that
            `pgti ingest` can read.
        ingest_options: How to read the file of readings, as in `pgti ingest`.
        store: Path of the run's store, if it has moved.
        checkpoint: Parameters to load: the best by validation MAE, or the last.
        device: Compute device. By default the run's.
        json: Print one JSON object as the last line of standard output.
    """
    if (first is None) != (last is None):
        raise ConfigError("--from and --to go together: give both ends of the time range")
    between = None if first is None or last is None else (first, last)
    is_file = readings is not None and not readings.is_dir()
    if not is_file and ingest_options != IngestOptions():
        raise ConfigError("options of ingest require --readings with a file: leave them out")
    trained = Run.open(run, store=store, checkpoint=checkpoint, device=device)
    observer = RichObserver()
    with tempfile.TemporaryDirectory(prefix="pgti-") as scratch:
        recent: SeriesStore | None = None
        if readings is not None and is_file:
            recent = _ingest(readings, Path(scratch) / "recent", ingest_options, trained.store)
        elif readings is not None:
            recent = SeriesStore.open(readings)
        try:
            windows = trained.predict(
                out, split=split, between=between, readings=recent, observers=(observer,)
            )
        finally:
            observer.close()
    log(f"{windows} forecasts of {trained.config.windows.horizon} steps are in {out}")
    if json:
        print_json({"run": str(run), "out": str(out), "windows": windows})


def _ingest(
    readings: Path, target: Path, options: IngestOptions, known: SeriesStore
) -> SeriesStore:
    """Ingest the file of readings; options that are not given come from the run's store."""
    interval = options.interval
    if interval is None and options.start is not None and known.meta.interval_seconds is not None:
        interval = f"{known.meta.interval_seconds}s"
    channels = options.channels or known.meta.channels
    options = replace(options, interval=interval, channels=channels)
    ingest(readings, target, options, graph=known.graph, node_ids=known.meta.node_ids)
    return SeriesStore.open(target)
