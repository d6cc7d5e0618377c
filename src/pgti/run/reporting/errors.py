"""The errors of a report: by horizon, hour, weekday and range, and where they are largest."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pgti.figures import bars, error_by_horizon, heat_map
from pgti.report import Panel, Section, Table
from pgti.run.reporting.compared import ComparedRun, Group

__all__ = ["NUM_WORST", "error_sections", "worst_tables"]

NUM_WORST = 10
_TOTALS = (
    "“mean” is the error over all observed targets of all steps together; “average” is the mean of "
    "the steps' errors, as many published tables have it."
)
_BASELINES = {
    "persistence": "“persistence” repeats the last observed value",
    "historical-average": "“historical-average” is the mean training value of the sensor at the "
    "same time of the week (of the year, where rows are a week or more apart)",
    "seasonal-naive": "“seasonal-naive” is the reading a week before (a year, likewise), and "
    "persistence where the series does not reach back so far",
}
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def error_sections(groups: Sequence[Group], targets: Sequence[str]) -> list[Section]:
    """A section for each target: errors by horizon, hour and weekday, range; the worst hours."""
    return [_section(groups, target, several=len(targets) > 1) for target in targets]


def _section(groups: Sequence[Group], target: str, *, several: bool) -> Section:
    first = groups[0].evaluated[0]
    suffix = f"-{first.run.source.target_names.index(target)}" if several else ""
    panels = [_horizon_panel(groups, target, f"horizon{suffix}")]
    panels += _hour_panels(groups, target, suffix)
    if first.has("range", target):
        panels.append(_range_panel(groups, target, f"range{suffix}"))
    return Section(
        heading=f"Errors of {target}" if several else "Errors by horizon, hour and range",
        panels=panels,
        tables=[_horizon_table(groups, target)],
    )


def in_unit(run: ComparedRun, target: str, metric: str = "MAE") -> str:
    """A metric with the unit of the target, such as "MAE in mph"."""
    unit = run.run.source.target_units[target]
    return f"{metric} in {unit}" if unit else f"{metric} of {target}"


def _horizon_panel(groups: Sequence[Group], target: str, name: str) -> Panel:
    first = groups[0].evaluated[0]
    errors: dict[str, Any] = {}
    spreads: dict[str, Any] = {}
    for group in groups:
        steps = group.stacked(lambda each: each.by_horizon("model", target))
        errors[group.label] = np.median(steps, axis=0)
        if len(steps) > 1:
            spreads[group.label] = steps.min(axis=0), steps.max(axis=0)
    for baseline in first.forecasters[1:]:
        errors[baseline] = first.by_horizon(baseline, target)
    main = groups[0].label
    figure = error_by_horizon(
        first.headings(), errors, label=in_unit(first, target), spreads=spreads, first=main
    )
    over = " Lines are medians over seeds, bands their range." if spreads else ""
    return Panel(
        name=name,
        figure=figure,
        caption=f"Mean absolute error of {target} at each forecast horizon, of the model and the "
        f"baselines on the test windows.{over}",
    )


def _hour_panels(groups: Sequence[Group], target: str, suffix: str) -> list[Panel]:
    first = groups[0].evaluated[0]
    label = in_unit(first, target)
    if not all(each.has("hour-of-week", target) for group in groups for each in group.evaluated):
        return [
            _bar_panel(groups, target, breakdown, f"{breakdown}{suffix}")
            for breakdown in ("hour", "weekday")
            if all(each.has(breakdown, target) for group in groups for each in group.evaluated)
        ]
    weeks = [_week(group, target) for group in groups]
    hours = list(range(24))
    of_first = f" of {groups[0].label}" if len(groups) > 1 else ""
    panels = [
        Panel(
            name=f"week{suffix}",
            figure=heat_map(weeks[0], x=hours, y=_DAYS, label=label, x_title="hour of the day"),
            caption=f"Mean absolute error{of_first} by weekday and hour of the forecast time, on "
            "the clock of the series, over all horizon steps. Empty fields have no test reading.",
        )
    ]
    if len(groups) > 1:
        panels.append(
            Panel(
                name=f"week-difference{suffix}",
                figure=heat_map(
                    weeks[0] - weeks[1],
                    x=hours,
                    y=_DAYS,
                    label=label,
                    x_title="hour of the day",
                    is_difference=True,
                ),
                caption=f"Difference of the mean absolute errors, {groups[0].label} minus "
                f"{groups[1].label}: blue where {groups[0].label} is better.",
            )
        )
    return panels


def _week(group: Group, target: str) -> Any:
    errors = group.stacked(lambda each: each.by("hour-of-week", "model", target))
    return np.median(errors, axis=0).reshape(7, 24)


def _bar_panel(groups: Sequence[Group], target: str, breakdown: str, name: str) -> Panel:
    first = groups[0].evaluated[0]
    values = {
        group.label: np.median(
            group.stacked(lambda each: each.by(breakdown, "model", target)), axis=0
        )
        for group in groups
    }
    figure = bars(
        [str(each)[:3] for each in first.groups(breakdown, target)],
        values,
        label=in_unit(first, target),
        x="hour of the day" if breakdown == "hour" else "",
        first=groups[0].label,
    )
    return Panel(
        name=name,
        figure=figure,
        caption=f"Mean absolute error by {breakdown} of the forecast time. The run was evaluated "
        "by an earlier version: pgti evaluate gives hours and weekdays together.",
    )


def _range_panel(groups: Sequence[Group], target: str, name: str) -> Panel:
    first = groups[0].evaluated[0]
    names = first.groups("range", target)
    values: dict[str, Any] = {}
    for group in groups:
        same = [each for each in group.evaluated if each.has("range", target)]
        if all(each.groups("range", target) == names for each in same) and same:
            errors = [each.by("range", "model", target) for each in same]
            values[group.label] = np.median(errors, axis=0)
    for baseline in first.forecasters[1:]:
        values[baseline] = first.by("range", baseline, target)
    return Panel(
        name=name,
        figure=bars(
            names,
            values,
            label=in_unit(first, target),
            x=f"observed {target}",
            first=groups[0].label,
        ),
        caption="Mean absolute error by range of the observed value. The edges are those of the "
        "training readings: a tenth of them, half and nine tenths lie below.",
    )


def _horizon_table(groups: Sequence[Group], target: str) -> Table:
    """Errors at a few steps; of several seeds their median and range."""
    first = groups[0].evaluated[0]
    assert first.report is not None
    steps = first.report.shown_steps()
    if any(len(group.evaluated) > 1 for group in groups):
        del steps["average"]  # spreads take the room
    rows = []
    for metric, label in (("mae", "MAE"), ("rmse", "RMSE"), ("mape", "MAPE, %")):
        for group in groups:
            tables = [each.of_target("model", target)[metric] for each in group.evaluated]
            numbers = [[table[step] for table in tables] for step in steps]
            rows.append((group.label, label, *map(_spread, numbers)))
        for name in first.forecasters[1:]:
            table = first.of_target(name, target)[metric]
            rows.append((name, label, *(_spread([table[step]]) for step in steps)))
    unit = first.run.source.target_units[target]
    return Table(
        caption=f"Errors of {target}{f' in {unit}' if unit else ''} on the test windows",
        columns=("forecaster", "metric", *steps.values()),
        rows=rows,
        num_texts=2,
        note=_note(first, has_average="average" in steps),
    )


def _note(run: ComparedRun, *, has_average: bool) -> str:
    """What the columns and the baselines of the table mean."""
    totals = _TOTALS if has_average else f"{_TOTALS.partition(';')[0]}."
    known = [_BASELINES[name] for name in run.forecasters[1:] if name in _BASELINES]
    return f"{totals} {'; '.join(known)}." if known else totals


def _spread(values: Sequence[float | None]) -> str:
    known = [each for each in values if each is not None]
    if not known:
        return "-"
    middle = number_text(float(np.median(known)))
    if len(known) == 1:
        return middle
    return f"{middle} ({number_text(min(known))} to {number_text(max(known))})"


def number_text(value: float) -> str:
    """An error to read: three decimals, or four digits of a large number."""
    return "-" if not np.isfinite(value) else f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"


def worst_tables(run: ComparedRun, targets: Sequence[str]) -> list[Table]:
    """The sensors and the hours with the largest mean absolute errors, of each target."""
    tables = []
    for target in targets:
        for breakdown in ("sensor", "hour-of-week"):
            chosen = breakdown
            if breakdown == "hour-of-week" and not run.has(breakdown, target):
                chosen = "hour"  # of a run that was evaluated by an earlier version
            if run.has(chosen, target):
                tables.append(_worst(run, chosen, target, several=len(targets) > 1))
    return tables


def _worst(run: ComparedRun, breakdown: str, target: str, *, several: bool) -> Table:
    errors = run.by(breakdown, "model", target)
    known = np.flatnonzero(np.isfinite(errors))
    worst = known[np.argsort(-errors[known], kind="stable")][:NUM_WORST]
    names = run.groups(breakdown, target)
    baselines = [(name, run.by(breakdown, name, target)) for name in run.forecasters[1:]]
    rmse, counts = (run.by(breakdown, "model", target, each) for each in ("rmse", "count"))
    rows = [
        (
            f"{names[i]:02d}:00" if breakdown == "hour" else str(names[i]),
            number_text(errors[i]),
            number_text(rmse[i]),
            *(number_text(each[i]) for _, each in baselines),
            f"{int(counts[i]):,}",
        )
        for i in worst.tolist()
    ]
    what = "sensors" if breakdown == "sensor" else "hours"
    return Table(
        caption=f"The {_count(len(rows))} worst {what}{f', {target}' if several else ''}",
        columns=(
            "sensor" if breakdown == "sensor" else "hour",
            in_unit(run, target),
            "RMSE",
            *(f"MAE of {name}" for name, _ in baselines),
            "targets",
        ),
        rows=rows,
        sensors=worst.tolist() if breakdown == "sensor" else (),
    )


def _count(number: int) -> str:
    return {NUM_WORST: "ten"}.get(number, str(number))
