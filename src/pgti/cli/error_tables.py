"""Tables of the errors of an evaluation."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

from pgti.cli.output import build_table

if TYPE_CHECKING:
    from pgti.forecasting import Report

__all__ = ["IN_UNITS", "error_tables", "format_error", "note_better_baselines"]

IN_UNITS = ("MAE", "RMSE")
"""Errors in the unit of the target."""


def error_tables(report: "Report") -> Iterator[Table]:
    """A table for each split: errors of the model and the baselines, at some steps and on average.

    Errors are in the units of the channels; where channels have different units, those over all of
    them have none.
    """
    texts = [*(["channel"] if len(report.units) > 1 else []), "forecaster", "error"]
    steps = [_heading(key, time) for key, time in report.shown_steps().items()]
    units = set(report.units.values())
    common = units.pop() if len(units) == 1 else ""
    for split in report.splits:
        one, rows = report[split], []
        errors = one.summary()
        for labels, values in zip(errors.index, errors.to_numpy(), strict=True):
            *channel, forecaster, metric = labels
            unit = report.units.get(channel[0], common) if channel else common
            is_in_units = metric in (*IN_UNITS, "CRPS") or metric.startswith("width")
            shown = f"{metric} {unit}".rstrip() if is_in_units else metric
            rows.append((*channel, forecaster, shown, *map(format_error, values)))
        yield build_table(one.title, [*texts, *steps], rows, num_texts=len(texts))


def note_better_baselines(report: "Report") -> Iterator[str]:
    """A line for each split in which the model errs more than a baseline."""
    for split in report.splits:
        one = report[split]
        if better := one.better_baselines:
            best = min(better, key=better.__getitem__)
            errors = f"{format_error(better[best])} beside {format_error(one.mae or 0)}"
            yield (
                f"{report.name(split)}: {best} forecasts better than {report.model}, with an MAE "
                f"of {errors}: train longer, or choose other options"
            )


def _heading(key: str, time: str) -> str:
    """A step and the time from the last input to it, where that is known: "step 12 (60 min)"."""
    return time if not key.isdigit() or time.startswith("step") else f"step {key}\n({time})"


def format_error(value: float) -> str:
    """An error as a table shows it."""
    return "-" if math.isnan(value) else f"{value:.3f}"
