"""`pgti predict`: forecasts of a trained run as a file."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from pgti.cli.output import log, print_json
from pgti.cli.run_options import allow_own_module
from pgti.errors import ConfigError
from pgti.forecasting import RichObserver
from pgti.ingestion import IngestOptions
from pgti.run import Run

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
    model: str | None = None,
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
        model: Your own network, MODULE:CLASS, if its module is in the current directory or has
            moved. By default pgti finds the run's network among installed modules.
        checkpoint: Parameters to load: the best by validation MAE, or the last.
        device: Compute device. By default the run's.
        json: Print one JSON object as the last line of standard output.
    """
    if (first is None) != (last is None):
        raise ConfigError("--from and --to go together: give both ends of the time range")
    between = None if first is None or last is None else (first, last)
    if readings is None and ingest_options != IngestOptions():
        raise ConfigError("options of ingest require --readings with a file: leave them out")
    allow_own_module(model)
    trained = Run.open(run, store=store, model=model, checkpoint=checkpoint, device=device)
    observer = RichObserver()
    try:
        windows = trained.predict(
            out,
            readings,
            split=split,
            between=between,
            options=ingest_options,
            observers=(observer,),
        )
    finally:
        observer.close()
    log(f"{windows} forecasts of {trained.config.windows.horizon} steps are in {out}")
    if json:
        print_json({"run": str(run), "out": str(out), "windows": windows})
