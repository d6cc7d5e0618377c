"""`pgti bench models`: the test errors of several models, over seeds, beside the baselines."""

from pathlib import Path

from rich.table import Table

from pgti.bench import Spread, to_json
from pgti.bench.model_study import ERRORS, StudiedModel, StudyOptions, StudyResult, run_study
from pgti.bench.model_study_table import shown_steps, write_markdown
from pgti.cli.bench_output import finish
from pgti.cli.output import log, print_json, show
from pgti.errors import ConfigError
from pgti.store import SeriesStore

__all__ = ["bench_models_command"]


def bench_models_command(
    store: Path,
    /,
    *configs: Path,
    seeds: str = "0,1,2",
    jobs: int = 1,
    test_windows: int | None = None,
    workdir: Path = Path("build/models"),
    table: Path | None = None,
    json: bool = False,
) -> None:
    """Train configurations with several seeds, and compare their test errors.

    Each training is `pgti train STORE --config CONFIG --seed SEED`, a process of its own. What is
    trained stays in the working directory: a study that was stopped goes on where it was.

    Args:
        store: The store to learn from.
        configs: TOML files, each of another model.
        seeds: Seeds, with commas.
        jobs: Trainings at the same time, which share the cores.
        test_windows: Test windows of each at most; all if not given.
        workdir: Where the runs and their results stay.
        table: File for the table, in Markdown.
        json: Print one JSON object as the last line of standard output.
    """
    options = StudyOptions(
        configs=configs, seeds=_seeds(seeds), jobs=jobs, test_windows=test_windows
    )
    result = run_study(SeriesStore.open(store), options, workdir, log)
    show(_table(result))
    if table is not None:
        write_markdown(table, result)
        log(f"the table is in {table}")
    finish("Models", result.machine, result.left_out, None, ())
    if json:
        print_json(to_json(result))


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(each) for each in text.split(","))
    except ValueError:
        raise ConfigError(f"seeds is {text!r}: it must be whole numbers, such as 0,1,2") from None


def _table(result: StudyResult) -> Table:
    steps = shown_steps(result)
    table = Table(
        title=f"{result.test_windows:,} test windows; median over seeds of MAE/RMSE/MAPE %",
        title_justify="left",
    )
    table.add_column("model", no_wrap=True)
    for title in ("seeds", "parameters", *(f"step {each}" for each in steps), "s/epoch", "MiB"):
        table.add_column(title, justify="right", no_wrap=True)
    for each in result.models:
        table.add_row(
            each.model,
            str(len(each.seeds)) if each.seeds else "-",
            f"{each.parameters:,}" if each.parameters else "-",
            *(_errors(each, step) for step in steps),
            _number(each.seconds_per_epoch, 1, 0),
            _number(each.peak_pss_bytes, 2**20, 0),
        )
    return table


def _errors(model: StudiedModel, step: str) -> str:
    return "/".join(_number(model.errors[error].get(step), 1, 3) for error in ERRORS)


def _number(spread: Spread | None, unit: float, digits: int) -> str:
    return "-" if spread is None else f"{spread.median / unit:,.{digits}f}"
