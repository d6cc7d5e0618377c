"""What people read on standard error and programs on standard output."""

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["error_table", "print_json", "say", "show"]

_BASELINES = ("persistence", "historical-average")
_ERRORS = {"mae": "MAE", "rmse": "RMSE", "mape": "MAPE %"}
_SHOWN_STEPS = 6  # more horizon steps than this are thinned in a table


def say(message: str) -> None:
    """One line on standard error."""
    print(f"pgti: {message}", file=sys.stderr)


def show(table: Table) -> None:
    """A table on standard error, as wide as it needs to be where nobody's terminal limits it."""
    console = Console(stderr=True)
    if not console.is_terminal:
        console = Console(stderr=True, width=120)
    console.print(table)


def print_json(content: Mapping[str, Any]) -> None:
    """One JSON object as the last line of standard output."""
    print(json.dumps(content, allow_nan=False), flush=True)


def error_table(split: str, report: Mapping[str, Any], forecaster: str) -> Table:
    """MAE, RMSE and MAPE of a forecaster and both baselines at some horizon steps.

    Args:
        split: name of the split, for the title.
        report: as `Run.evaluate` gives it for the split.
        forecaster: name of the trained model.
    """
    steps = _shown_steps([key for key in report["mae"] if key != "mean"])
    table = Table(title=f"{split}, {report['count']:,} targets", title_justify="left")
    table.add_column("forecaster")
    table.add_column("error")
    for step in steps:
        table.add_column("mean" if step == "mean" else f"step {step}", justify="right")
    rows = {forecaster: report} | {name: report[name] for name in _BASELINES if name in report}
    for name, errors in rows.items():
        for kind, label in _ERRORS.items():
            cells = (_number(errors[kind][step]) for step in steps)
            first = kind == "mae"
            table.add_row(name if first else "", label, *cells, end_section=kind == "mape")
    return table


def _shown_steps(steps: list[str]) -> list[str]:
    """The steps that papers show where there are twelve, else a few spread evenly; and the mean."""
    if len(steps) > _SHOWN_STEPS:
        stride = max(1, len(steps) // 4)
        steps = steps[stride - 1 :: stride]
    return [*steps, "mean"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
