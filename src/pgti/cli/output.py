"""What people read on standard error and programs on standard output."""

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["log", "print_json", "show", "show_errors"]

_BASELINES = ("persistence", "historical-average")
_ERRORS = {"mae": "MAE", "rmse": "RMSE", "mape": "MAPE %"}
_SHOWN_STEPS = 6  # more horizon steps than this are thinned in a table


def log(message: str, rank: int = 0) -> None:
    """One line on standard error, which names the rank of a job that says it, if it is not 0."""
    speaker = f"pgti: rank {rank}" if rank else "pgti"
    print(f"{speaker}: {message}", file=sys.stderr)


def show(table: Table) -> None:
    """A table on standard error, as wide as it needs to be where nobody's terminal limits it."""
    console = Console(stderr=True)
    if not console.is_terminal:
        console = Console(stderr=True, width=120)
    console.print(table)


def print_json(content: Mapping[str, Any]) -> None:
    """One JSON object as the last line of standard output."""
    print(json.dumps(content, allow_nan=False), flush=True)


def show_errors(split: str, report: Mapping[str, Any], forecaster: str) -> None:
    """Show the errors of a forecaster and both baselines, of each channel where there are several.

    Args:
        split: name of the split, for the title.
        report: as `Run.evaluate` gives it for the split.
        forecaster: name of the trained model.
    """
    rows = {forecaster: report} | {name: report[name] for name in _BASELINES if name in report}
    windows = f"{report['windows']:,} of {report['split_windows']:,} windows"
    if report["windows"] == report["split_windows"]:
        windows = f"{report['windows']:,} windows"
    show(_error_table(f"{split}, {windows}", rows))
    for channel in report.get("channels", {}):
        of_channel = {name: errors["channels"][channel] for name, errors in rows.items()}
        show(_error_table(f"{split}, {channel}", of_channel))


def _error_table(title: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """MAE, RMSE and MAPE of each forecaster at some horizon steps."""
    first = next(iter(rows.values()))
    steps = _shown_steps([key for key in first["mae"] if key != "mean"])
    table = Table(title=f"{title}: {first['count']:,} targets", title_justify="left")
    table.add_column("forecaster")
    table.add_column("error")
    for step in steps:
        table.add_column("mean" if step == "mean" else f"step {step}", justify="right")
    for name, errors in rows.items():
        for kind, label in _ERRORS.items():
            cells = (_number(errors[kind][step]) for step in steps)
            table.add_row(name if kind == "mae" else "", label, *cells, end_section=kind == "mape")
    return table


def _shown_steps(steps: list[str]) -> list[str]:
    """The steps that papers show where there are twelve, else a few spread evenly; and the mean."""
    if len(steps) > _SHOWN_STEPS:
        stride = max(1, len(steps) // 4)
        steps = steps[stride - 1 :: stride]
    return [*steps, "mean"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
