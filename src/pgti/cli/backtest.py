"""`pgti backtest`: a model forecasts stretch after stretch, each from what lies before it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.table import Table

from pgti.cli.error_tables import format_error
from pgti.cli.flags import JsonFlag, heading
from pgti.cli.output import build_table, error_console, log, print_results
from pgti.cli.run_options import RunFlags, run_config
from pgti.distributed import TIMEOUT_SECONDS

if TYPE_CHECKING:
    from pgti.run.backtest_result import BacktestResult

__all__ = ["backtest_command"]


def backtest_command(
    store: Path,
    /,
    *,
    out: Path,
    folds: int = 6,
    refit: Literal["every", "never", "warm"] = "every",
    fold_steps: int | None = None,
    first_from: str | None = None,
    warm_epochs: int | None = None,
    options: Annotated[RunFlags | None, Parameter(name="*")] = None,
    peer_timeout: Annotated[float, Parameter(group=heading("Machine"))] = TIMEOUT_SECONDS,
    track: Annotated[tuple[str, ...], Parameter(group=heading("Output"))] = (),
    json: JsonFlag = False,
) -> None:
    """Backtest a model: forecast stretch after stretch, each from what came before.

    Each fold is trained, validated and scaled on what lies before it alone. Finished folds stay in
    the directory: started again, an interrupted backtest resumes from them.

    Args:
        store: The store.
        out: Directory of the backtest; each fold in it is a run.
        folds: Stretches that are forecast, one after the other.
        refit: Models of the folds: every (a new one before each fold), never (one before the
            first), or warm (that of the fold before, trained further).
        fold_steps: Time steps of a fold. By default the folds divide what lies after --first-from.
        first_from: Time of the first fold's first target, ISO 8601. By default half the series lies
            before it.
        warm_epochs: Epochs of a model that is trained further. By default --epochs.
        options: Options of the runs.
        peer_timeout: Seconds after which a rank that does not answer ends the job.
        track: Show each fold's run in these trackers, grouped, as `pgti train --track`.
    """
    from pgti.cli.job import open_job
    from pgti.forecasting import RichObserver
    from pgti.run.rolling import BacktestOptions, run_backtest
    from pgti.run.tracking import Tracking

    chosen = BacktestOptions(
        folds=folds,
        refit=refit,
        fold_steps=fold_steps,
        first_from=first_from,
        warm_epochs=warm_epochs,
    )
    config = run_config(store, options or {})
    tracking = Tracking(track, log=log, group=out.absolute().name)
    with open_job(config.device, peer_timeout) as communicator, tracking:
        tracking.check(communicator)
        result = run_backtest(
            config,
            out,
            chosen,
            log=log,
            observers=tracking.observers([RichObserver(error_console())]),
            communicator=communicator,
        )
    if communicator.is_main:
        content = {"out": str(out), **result.to_dict()}
        print_results(content, _table(result), as_json=json)


def _table(result: "BacktestResult") -> Table:
    summary = result.summary()
    rows = [
        (str(name), *(format_error(x) if isinstance(x, float) else str(x) for x in values))
        for name, values in zip(summary.index, summary.to_numpy(), strict=True)
    ]
    columns = ("fold", *summary.columns)
    num_texts = columns.index("MAE") if "target" in columns else 2
    return build_table(result.title, columns, rows, num_texts=num_texts)
