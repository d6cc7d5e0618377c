"""`pgti study`: the test metrics of several models over seeds, beside the baselines."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from pgti.cli.flags import JsonFlag
from pgti.cli.output import build_table, log, print_results
from pgti.cli.recipe_tables import compare_study
from pgti.display import count_of

if TYPE_CHECKING:
    from pgti.run.study_result import StudyResult

__all__ = ["study_command"]


def study_command(
    store: Path,
    /,
    *configs: Path,
    recipes: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (0, 1, 2),
    jobs: int = 1,
    test_windows: int | None = None,
    workdir: Path = Path("build/study"),
    table: Path | None = None,
    track: tuple[str, ...] = (),
    json: JsonFlag = False,
) -> None:
    """Train several configurations with several seeds, and compare their test metrics.

    Each training is `pgti train STORE --config CONFIG --seed SEED`, run as a separate process. Runs
    and results stay in the working directory: an interrupted study resumes where it stopped.

    Args:
        store: The store to train on.
        configs: TOML files, each a row of the table: its name is that of the model, or of the file
            where a model occurs twice.
        recipes: Comma-separated published recipes, or data sets whose recipes are meant, to train
            besides and to compare with published errors.
        seeds: Comma-separated seeds.
        jobs: Trainings at the same time, which share the cores, or take OMP_NUM_THREADS each.
        test_windows: Maximum number of test windows; all if not given.
        workdir: Directory of the runs and their results.
        table: Write the table to this file: .md for Markdown, .csv, or .tex for LaTeX.
        track: Show each run in these trackers, grouped, as `pgti train --track`.
    """
    from pgti.run.model_study import study
    from pgti.run.results import to_json
    from pgti.run.study_result import check_table_suffix
    from pgti.store import SeriesStore

    if table is not None:
        check_table_suffix(table)
    result = study(
        SeriesStore.open(store),
        configs,
        workdir=workdir,
        recipes=recipes,
        seeds=seeds,
        jobs=jobs,
        test_windows=test_windows,
        track=track,
        log=log,
    )
    if table is not None:
        result.write_table(table)
        log(f"the table is in {table}")
    log(result.machine.summary)
    for line in result.left_out:
        log(f"left out: {line}")
    published, more = ({}, []) if test_windows is not None else compare_study(result)
    print_results(to_json(result) | published, *_tables(result), *more, as_json=json)


def _tables(result: "StudyResult") -> Iterator[Table]:
    """The table in parts that a screen has room for: each metric, and what the trainings took."""
    table = result.to_table()
    windows = count_of(result.test_windows, "test window")
    for group in dict.fromkeys(table.groups):
        title = f"{group} over {windows}: mean ± standard deviation over seeds"
        columns = [i for i, each in enumerate(table.groups) if each == group]
        headings = ("model", *(table.titles[column] for column in columns))
        rows = [(name, *(cells[column] for column in columns)) for name, *cells in table.rows]
        yield build_table(title if group else "trainings", headings, rows)
