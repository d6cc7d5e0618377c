"""Output: text and tables on standard error, JSON on standard output."""

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["format_default", "log", "print_json", "show", "show_errors"]

_BASELINES = ("persistence", "historical-average")
_ERRORS = {"mae": "MAE", "rmse": "RMSE", "mape": "MAPE %"}
_SHOWN_STEPS = 6  # a table shows a few of more horizon steps than this


def log(message: str, rank: int = 0) -> None:
    """Print a line on standard error; it names the rank, unless that is 0."""
    prefix = f"pgti: rank {rank}" if rank else "pgti"
    print(f"{prefix}: {message}", file=sys.stderr)


def format_default(value: Any) -> Any:
    """A default value as the help shows it; None hides it."""
    if value is False or value in (None, ()):
        return None
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def show(table: Table) -> None:
    """Print a table on standard error; without a terminal it is 120 characters wide."""
    console = Console(stderr=True)
    if not console.is_terminal:
        console = Console(stderr=True, width=120)
    console.print(table)


def print_json(content: Mapping[str, Any]) -> None:
    """Print one JSON object as the last line of standard output."""
    print(json.dumps(content, allow_nan=False), flush=True)


def show_errors(split: str, report: Mapping[str, Any], forecaster: str) -> None:
    """Show the metrics of a forecaster and both baselines, also per channel if there are several.

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
    """A few horizon steps, of twelve those that papers show (3, 6, 9, 12), and the mean."""
    if len(steps) > _SHOWN_STEPS:
        stride = max(1, len(steps) // 4)
        steps = steps[stride - 1 :: stride]
    return [*steps, "mean"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
