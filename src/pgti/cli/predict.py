"""`pgti predict`: forecasts of a trained run as a file."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from pgti.cli.flags import JsonFlag, heading
from pgti.cli.ingest_options import ReadingsFlags
from pgti.cli.output import error_console, log, print_results
from pgti.display import count_of
from pgti.errors import ConfigError

__all__ = ["predict_command"]

_FEW_WINDOWS = 24  # a look at the present, not at a part of the past


def predict_command(
    run: Path,
    /,
    *,
    out: Path,
    split: Literal["train", "val", "test"] | None = None,
    first: Annotated[str | None, Parameter(name="--from")] = None,
    last: Annotated[str | None, Parameter(name="--to")] = None,
    intervals: Annotated[tuple[float, ...], Parameter(negative_iterable=())] = (),
    adaptive: Annotated[bool, Parameter(negative=())] = False,
    readings: Annotated[tuple[Path, ...] | None, Parameter(group=heading("Readings"))] = None,
    future: Annotated[Path | None, Parameter(group=heading("Covariates"))] = None,
    options: Annotated[ReadingsFlags | None, Parameter(name="*")] = None,
    store: Path | None = None,
    model: str | None = None,
    checkpoint: Literal["best", "last"] = "best",
    device: str | None = None,
    json: JsonFlag = False,
) -> None:
    """Forecast with a trained run: past the end of the series, or a part of it.

    Args:
        run: Directory of the run.
        out: File to write: .csv, .parquet or .npz.
        split: Forecast every window of this split.
        first: Forecast windows whose first forecast step is not before this time.
        last: Forecast windows whose first forecast step is not after this time.
        intervals: Add conformal intervals, calibrated on the validation windows, that cover these
            shares of the targets, such as 0.8,0.95.
        adaptive: Let the intervals follow the outcomes that each forecast knows.
        readings: Store or file of newer readings of the run's sensors to forecast from, or a
            pattern ('new/*.csv'); give the option again for another file.
        future: File of values known in advance after the last reading, such as a weather forecast.
        options: How to read the file of readings, where that is not as in training.
        store: Path of the run's store, if it has moved; or of a store of newer readings.
        model: Your own network, MODULE:CLASS, if its module is in the current directory or has
            moved. By default pgti finds the run's network among installed modules.
        checkpoint: Parameters to load: the best by validation MAE, or the last.
        device: Compute device. By default the run's.
    """
    from pgti.cli.run_options import allow_own_module
    from pgti.forecasting import InputSummary, RichObserver
    from pgti.run import Run

    if (first is None) != (last is None):
        raise ConfigError("--from and --to go together: give both ends of the time range")
    between = None if first is None or last is None else (first, last)
    allow_own_module(model)
    trained = Run.open(run, store=store, model=model, checkpoint=checkpoint, device=device)
    observer, inputs = RichObserver(error_console()), InputSummary()
    try:
        summary = trained.predict(
            out,
            None if readings is None else list(readings),
            split=split,
            between=between,
            options=options,
            future=future,
            intervals=intervals,
            adaptive=adaptive,
            inputs=inputs,
            log=log,
            observers=(observer,),
        )
    finally:
        observer.close()
    steps = count_of(trained.config.windows.horizon, "step")
    log(f"{count_of(summary.windows, 'forecast')} of {steps} in {out}")
    missing = inputs.describe() if summary.windows <= _FEW_WINDOWS else None
    if missing is not None:
        log(missing)
    content = {"run": str(run), "out": str(out), **asdict(summary), "inputs": inputs.to_dict()}
    print_results(content, as_json=json)
