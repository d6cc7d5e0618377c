"""`pgti study`: the test metrics of several models over seeds, beside the baselines."""

from pathlib import Path

from rich.table import Table

from pgti.cli.output import log, print_json, show
from pgti.run.model_study import METRICS, StudyResult, study
from pgti.run.results import Spread, to_json
from pgti.store import SeriesStore

__all__ = ["study_command"]


def study_command(
    store: Path,
    /,
    *configs: Path,
    seeds: tuple[int, ...] = (0, 1, 2),
    jobs: int = 1,
    test_windows: int | None = None,
    workdir: Path = Path("build/study"),
    table: Path | None = None,
    json: bool = False,
) -> None:
    """Train several configurations with several seeds, and compare their test metrics.

    Each training is `pgti train STORE --config CONFIG --seed SEED`, run as a separate process. Runs
    and results stay in the working directory: an interrupted study resumes where it stopped.

    Args:
        store: The store to train on.
        configs: TOML files, each of another model.
        seeds: Comma-separated seeds.
        jobs: Trainings at the same time, which share the cores.
        test_windows: Maximum number of test windows; all if not given.
        workdir: Directory of the runs and their results.
        table: Write the table to this file, in Markdown.
        json: Print one JSON object on standard output.
    """
    result = study(
        SeriesStore.open(store),
        configs,
        workdir=workdir,
        seeds=seeds,
        jobs=jobs,
        test_windows=test_windows,
        log=log,
    )
    show(_table(result))
    if table is not None:
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(result.to_markdown(), encoding="utf-8")
        log(f"the table is in {table}")
    log(result.machine.summary)
    for line in result.left_out:
        log(f"left out: {line}")
    if json:
        print_json(to_json(result))


def _table(result: StudyResult) -> Table:
    steps = result.shown_steps
    table = Table(
        title=f"{result.test_windows:,} test windows; median over seeds of MAE/RMSE/MAPE %",
        title_justify="left",
    )
    table.add_column("model", no_wrap=True)
    for title in ("seeds", "parameters", *(f"step {each}" for each in steps), "s/epoch", "MiB"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in result.models:
        errors = ("/".join(_format(row.errors[m].get(step), 3) for m in METRICS) for step in steps)
        table.add_row(
            row.model,
            str(len(row.seeds)) if row.seeds else "-",
            f"{row.parameters:,}" if row.parameters else "-",
            *errors,
            _format(row.seconds_per_epoch, 0),
            _format(row.peak_pss_bytes, 0, 2**20),
        )
    return table


def _format(spread: Spread | None, digits: int, unit: float = 1.0) -> str:
    return "-" if spread is None else f"{spread.median / unit:,.{digits}f}"
