"""`pgti predict`: forecasts of a trained run as a file."""

import tempfile
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from pgti.cli.output import print_json, say
from pgti.errors import ConfigError
from pgti.ingest import IngestOptions, ingest
from pgti.run import Run
from pgti.series import SeriesStore
from pgti.training import RichObserver

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
    start: str | None = None,
    values: tuple[str, ...] = (),
    scale: tuple[float, ...] = (),
    missing: tuple[float, ...] = (),
    store: Path | None = None,
    checkpoint: Literal["best", "last"] = "best",
    device: str | None = None,
    json: bool = False,
) -> None:
    """Write forecasts: of the steps after the end of the series, of a split or of a time range.

    Args:
        run: Directory of the run.
        out: File to write: .csv, .parquet or .npz.
        split: Forecast every window of this split.
        first: Forecast windows whose first forecast step is not before this time.
        last: Forecast windows whose first forecast step is not after this time.
        readings: Recent readings of the same sensors to forecast from: a store, or a file that
            `pgti ingest` reads.
        start: Time of the first of those readings, where the file has no times.
        values: Arrays of that file, as in `pgti ingest`.
        scale: Scale of that file's values, as in `pgti ingest`.
        missing: Raw values that mean missing in that file.
        store: The run's store, if it has moved.
        checkpoint: Which parameters: the best by validation MAE, or the last.
        device: Compute device, if not the run's.
        json: Print one JSON object as the last line of standard output.
    """
    if (first is None) != (last is None):
        raise ConfigError("--from and --to go together: give both ends of the time range")
    between = None if first is None or last is None else (first, last)
    trained = Run.open(run, store=store, checkpoint=checkpoint, device=device)
    observer = RichObserver()
    with tempfile.TemporaryDirectory(prefix="pgti-") as scratch:
        recent: SeriesStore | None = None
        if readings is not None and readings.is_dir():
            recent = SeriesStore.open(readings)
        elif readings is not None:
            options = IngestOptions(
                values=values,
                scale=scale,
                missing=missing,
                start=start,
                interval=None if start is None else f"{trained.store.meta.interval_seconds}s",
                channels=trained.store.meta.channels,
            )
            ingest(readings, Path(scratch) / "recent", options, graph=trained.store.graph)
            recent = SeriesStore.open(Path(scratch) / "recent")
        try:
            windows = trained.predict(
                out, split=split, between=between, readings=recent, observers=(observer,)
            )
        finally:
            observer.close()
    say(f"{windows} forecasts of {trained.config.windows.horizon} steps are in {out}")
    if json:
        print_json({"run": str(run), "out": str(out), "windows": windows})
