"""`pgti evaluate`: metrics of a trained run beside those of baselines."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from pgti.cli.breakdowns import (
    breakdown_tables,
    check_out,
    hardest_tables,
    parse_ranges,
    write_breakdowns,
)
from pgti.cli.error_tables import error_tables, note_better_baselines
from pgti.cli.flags import JsonFlag, heading
from pgti.cli.ingest_options import ReadingsFlags
from pgti.cli.output import error_console, log, print_results
from pgti.cli.recipe_tables import compare_run
from pgti.display import count_of
from pgti.distributed import TIMEOUT_SECONDS
from pgti.errors import ConfigError
from pgti.windows import SPLIT_NAMES, SplitName

if TYPE_CHECKING:
    from pgti.forecasting import Report
    from pgti.run import Run

__all__ = ["evaluate_command"]

_MAPE_THRESHOLD = 1e-3

Breakdown = Literal["sensor", "hour", "weekday", "hour-of-week", "range"]


def evaluate_command(
    run: Path,
    /,
    *,
    split: Literal["train", "val", "test", "all"] | None = None,
    first: Annotated[str | None, Parameter(name="--from")] = None,
    last: Annotated[str | None, Parameter(name="--to")] = None,
    windows: int | None = None,
    by: Annotated[tuple[Breakdown, ...], Parameter(negative_iterable=())] = (),
    ranges: Annotated[tuple[str, ...], Parameter(negative_iterable=())] = (),
    intervals: Annotated[tuple[float, ...], Parameter(negative_iterable=())] = (),
    adaptive: Annotated[bool, Parameter(negative=())] = False,
    mape_threshold: float = _MAPE_THRESHOLD,
    baselines: Annotated[tuple[str, ...], Parameter(negative_iterable=())] = (),
    out: Path | None = None,
    readings: Annotated[tuple[Path, ...] | None, Parameter(group=heading("Readings"))] = None,
    options: Annotated[ReadingsFlags | None, Parameter(name="*")] = None,
    store: Path | None = None,
    model: str | None = None,
    checkpoint: Literal["best", "last"] = "best",
    device: Annotated[str | None, Parameter(group=heading("Machine"))] = None,
    batch_size: Annotated[int | None, Parameter(group=heading("Machine"))] = None,
    peer_timeout: Annotated[float, Parameter(group=heading("Machine"))] = TIMEOUT_SECONDS,
    json: JsonFlag = False,
) -> None:
    """Evaluate a trained run: MAE, RMSE and MAPE in original units.

    Metrics are over observed targets, at every horizon step and over all of them, beside those of
    baselines: persistence, the historical average and the seasonal naive forecast. A second table
    has the sensors and hours with the largest errors, and ranges of the target. Several ranks
    (torchrun) divide the windows among them.

    Args:
        run: Directory of the run.
        split: Windows to evaluate: those of a split, by default test.
        first: Evaluate windows whose first forecast step is not before this time.
        last: Evaluate windows whose first forecast step is not after this time.
        windows: Evaluate at most this many windows, spread evenly.
        by: Print the errors of every sensor, hour, weekday, hour-of-week or range of the target;
            several are separated by commas.
        ranges: Values at which one range of the target ends and the next begins, such as 30,50; of
            several targets, speed=30,50,flow=100. By default a tenth, half and nine tenths of the
            training readings lie below them.
        intervals: Score conformal intervals, calibrated on the validation windows, that cover these
            shares of the targets, such as 0.8,0.95.
        adaptive: Let the intervals follow the outcomes that each forecast knows.
        mape_threshold: MAPE leaves out targets up to this magnitude, in their unit.
        baselines: Baselines, separated by commas: persistence, historical-average and
            seasonal-naive (the reading at the same time last week) by default; ridge and lightgbm
            (extra boosting) are fitted on the training windows; chronos:PATH forecasts with the
            weights of Chronos-2 in that directory (extra chronos).
        out: Write the errors by sensor, hour, weekday, both together and range, or those chosen by
            --by, to this file: .csv or .parquet.
        readings: Store or file of newer readings of the run's sensors to evaluate on, or a pattern
            ('new/*.csv'); give the option again for another file.
        options: How to read the file of readings, where that is not as in training.
        store: Path of the run's store, if it has moved or grown; or of a store of newer readings,
            all windows of which are evaluated.
        model: Your own network, MODULE:CLASS, if its module is in the current directory or has
            moved. By default pgti finds the run's network among installed modules.
        checkpoint: Parameters to load: the best by validation MAE, or the last.
        device: Compute device. By default the run's.
        batch_size: Windows per batch, over all ranks together. By default that of the run's
            validation.
        peer_timeout: Seconds after which a rank that does not answer ends the job.
    """
    if out is not None:
        check_out(out)
    from pgti.cli.job import open_job
    from pgti.cli.run_options import allow_own_module
    from pgti.forecasting import RichObserver
    from pgti.run import Run, RunConfig
    from pgti.training import RunDirectory

    allow_own_module(model)
    chosen = device or RunConfig.from_toml(RunDirectory.open(run).config_file).device
    with open_job(chosen, peer_timeout) as communicator:
        with communicator.raise_together():
            trained = Run.open(
                run,
                store=store,
                model=model,
                checkpoint=checkpoint,
                device=device,
                communicator=communicator,
            )
        if split is not None and (readings is not None or trained.newer is not None):
            raise ConfigError("newer readings have no splits: leave --split out")
        names: list[SplitName] = []
        if split == "all":  # a split without windows is not an error here
            names = [name for name in SPLIT_NAMES if len(trained.splits.starts(name))]
        elif split is not None:
            names = [split]
        observer = RichObserver(error_console())
        watching = (observer,) if communicator.is_main else ()
        try:
            report = trained.evaluate(
                names or (None if readings is None else list(readings)),
                between=None if first is None and last is None else (first, last),
                options=options,
                max_windows=windows,
                batch_size=batch_size,
                mape_threshold=mape_threshold,
                ranges=parse_ranges(ranges),
                intervals=intervals,
                adaptive=adaptive,
                baselines=baselines or None,
                observers=watching,
            )
        finally:
            observer.close()
    if not communicator.is_main:
        return
    hardest = () if by else hardest_tables(report)
    tables = [*error_tables(report), *breakdown_tables(report, by or ()), *hardest]
    for line in (*report.notes, *note_better_baselines(report)):
        log(line)
    if out is not None:
        log(f"{count_of(write_breakdowns(report, by or report.breakdowns, out), 'row')} in {out}")
    content: dict[str, object] = {
        "run": str(run),
        "checkpoint": checkpoint,
        "notes": list(report.notes),
    }
    content |= {"peak_device_bytes": report.peak_device_bytes, **report.to_dict()}
    is_whole = windows is None and first is None and last is None
    _store_errors(trained, report if is_whole and not readings and checkpoint == "best" else None)
    published, more = compare_run(trained, report.to_dict().get("test") if is_whole else None)
    print_results(content | published, *tables, *more, as_json=json)


def _store_errors(run: "Run", report: "Report | None") -> None:
    """Keep the errors of the run's own test windows with it, for reports, if it can be written."""
    from contextlib import suppress

    from pgti.errors import RunError
    from pgti.forecasting import BASELINES

    if report is None:
        return
    content = report.to_dict().get("test", {})
    is_own = run.newer is None and run.problem is None and set(BASELINES) <= set(report.baselines)
    if is_own and content and content["mape_threshold"] == _MAPE_THRESHOLD:
        with suppress(RunError, OSError):
            run.directory.write_test(content)
