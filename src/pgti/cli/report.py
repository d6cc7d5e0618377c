"""`pgti report`: one HTML file that shows where and when runs are wrong."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pgti.cli.flags import JsonFlag
from pgti.cli.output import log, print_results
from pgti.display import size_text
from pgti.errors import ConfigError

__all__ = ["report_command"]


def report_command(
    *runs: Path,
    out: Path = Path("report.html"),
    intervals: Annotated[tuple[float, ...], Parameter(negative_iterable=())] = (),
    store: Path | None = None,
    model: str | None = None,
    device: str | None = None,
    json: JsonFlag = False,
) -> None:
    """Write a report of runs: one HTML file that opens offline.

    It shows where and when the model is wrong, from the errors that training or evaluation stored.
    Several runs stand side by side; those whose options differ in the seed alone are one.

    Args:
        runs: Directories of the runs.
        out: The file, which is replaced.
        intervals: Draw conformal intervals that cover these shares of the targets, such as 0.8, in
            place of those that the run was calibrated for.
        store: Path of the runs' store, if it has moved.
        model: Your own network, MODULE:CLASS, if its module is in the current directory or has
            moved.
        device: Compute device, in place of the run's.
    """
    from pgti.cli.run_options import allow_own_module
    from pgti.run.reporting.write import write_report
    from pgti.run.run import Run

    if not runs:
        raise ConfigError("there is no run to report: give one or more run directories")
    allow_own_module(model)
    opened = [Run.open(run, store=store, model=model, device=device) for run in runs]
    path = write_report(opened, out, intervals=intervals)
    size = path.stat().st_size
    log(f"{size_text(size)} in {path}")
    print_results({"out": str(path), "bytes": size}, as_json=json)
