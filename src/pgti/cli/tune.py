"""`pgti tune`: a search for the options of the lowest validation error."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.table import Table

from pgti.cli.flags import JsonFlag, heading
from pgti.cli.output import build_table, error_console, log, print_results
from pgti.cli.run_options import RunFlags, run_config

if TYPE_CHECKING:
    from pgti.run.search_result import TuneResult

__all__ = ["tune_command"]

_MOST_ROWS = 10


def tune_command(
    store: Path,
    /,
    *,
    space: Path,
    out: Path,
    trials: int = 50,
    pruner: Literal["median", "hyperband", "none"] = "median",
    options: Annotated[RunFlags | None, Parameter(name="*")] = None,
    track: Annotated[tuple[str, ...], Parameter(group=heading("Output"))] = (),
    json: JsonFlag = False,
) -> None:
    """Search for the options of the lowest validation error, with Optuna.

    Each trial is a run of its own. Started again, an interrupted search resumes; started several
    times at once, the processes share it. Test windows are never read.

    Args:
        store: The store.
        space: TOML file with a range or choices for each option to search, as docs/tuning.md shows.
        out: Directory of the search; each trial in it is a run.
        trials: Trials of all processes and starts together; those that fail count.
        pruner: What ends trials early by their validation MAE: median, hyperband or none.
        options: Options of the runs that are not searched.
        track: Show each run in these trackers, grouped, as `pgti train --track`.
    """
    from pgti.forecasting import RichObserver
    from pgti.run.search_space import SearchSpace
    from pgti.run.tune import run_search

    result = run_search(
        run_config(store, options or {}),
        SearchSpace.of(space),
        out,
        trials=trials,
        pruner=pruner,
        track=track,
        progress=[RichObserver(error_console())],
        log=log,
    )
    if result.report_file.exists():
        log(f"the report is {result.report_file}")
    log(f"the best options: pgti train {store} --config {result.best_config}")
    print_results(result.to_dict(), _table(result), as_json=json)


def _table(result: "TuneResult") -> Table:
    """The best trials, and how many of each kind there are."""
    ranked = sorted(
        result.trials, key=lambda each: (each.state != "complete", each.val_mae or float("inf"))
    )
    options = list(result.best.params)
    rows = [
        (
            str(each.number),
            each.state,
            "-" if each.val_mae is None else f"{each.val_mae:.4f}",
            str(len(each.curve)),
            *(_text(each.params.get(name, "-")) for name in options),
        )
        for each in ranked[:_MOST_ROWS]
    ]
    counts = ", ".join(f"{result.count(each)} {each}" for each in ("complete", "pruned", "failed"))
    title = f"{len(result.trials)} trials in {result.path}: {counts}"
    return build_table(title, ("trial", "state", "val MAE", "epochs", *options), rows, num_texts=2)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
