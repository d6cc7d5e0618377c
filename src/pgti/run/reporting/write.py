"""Writes the report of one run or several as one HTML file."""

import shlex
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pgti.errors import ConfigError, RunError
from pgti.figures import graph_objects
from pgti.options import require_path
from pgti.report import Missing, Page, Section, render_page
from pgti.run.reporting.compared import ComparedRun, Group, compare_runs
from pgti.run.reporting.curves import CurvesOptions, curves_panel
from pgti.run.reporting.data import configuration_section, data_section, training_section
from pgti.run.reporting.errors import error_sections, in_unit, number_text, worst_tables
from pgti.run.reporting.learned import learned_section
from pgti.run.reporting.sensors import map_panel
from pgti.run.run import Run
from pgti.storage import write_atomically

__all__ = ["CURVES_BYTES", "build_page", "write_report"]

_MAX_TARGETS = 4
CURVES_BYTES = 1_200_000  # of 8 MB, of which plotly takes 4.8 and a map of 11,160 sensors 1


def write_report(
    runs: "Run | str | Path | Sequence[Run | str | Path]",
    out: str | Path,
    *,
    intervals: Sequence[float] = (),
) -> Path:
    """Write one HTML file that shows where and when the runs are wrong; it opens offline.

    It is written from the errors that `pgti train` or `pgti evaluate` stored in the runs'
    directories; only the curves of single sensors are forecast anew. A run without stored errors,
    such as one that Python trained, is evaluated on its test windows first. Runs whose options
    differ in the seed alone are shown as one, with median and range.

    Args:
        runs: a run or its directory, or several, of the same sensors, targets and horizon.
        out: the file, which is replaced; its suffix is .html.
        intervals: probabilities of conformal intervals to draw; by default those that the run was
            calibrated for before, or the quantiles that it forecasts.

    Returns:
        The file.

    Raises:
        ConfigError: if the runs cannot be compared, or there is none.
        MissingExtraError: if plotly (the extra `report`) is not installed.
        RunError: if a run cannot be opened, or the file cannot be written.
    """
    graph_objects()  # a missing library is known before the work
    path = require_path("out", out)
    if path.suffix not in (".html", ".htm"):
        raise ConfigError(f"out is {path}: a report is one HTML file, so it must end in .html")
    if not path.parent.is_dir():
        raise ConfigError(f"out is {path}: the directory {path.parent} does not exist")
    listed = [runs] if isinstance(runs, (Run, str, Path)) else list(runs)
    if not listed:
        raise ConfigError("there is no run to report: give one or more run directories")
    opened = [each if isinstance(each, Run) else Run.open(each) for each in listed]
    for run in opened:
        _store_missing_errors(run)
    write_atomically(path, render_page(build_page(opened, intervals=intervals)).encode())
    return path


def _store_missing_errors(run: Run) -> None:
    """Evaluate a run that has no stored errors of its test windows, and store them if it can."""
    if run.problem is None and len(run.splits.test) and run.read_test() is None:
        run.require_all_sensors()
        with suppress(RunError, OSError):
            run.directory.write_test(run.evaluate("test").to_dict()["test"])


def build_page(runs: Sequence[Run], *, intervals: Sequence[float] = ()) -> Page:
    """The content of a report."""
    for run in runs:
        run.require_all_sensors()
    groups = compare_runs(runs)
    members = [each for group in groups for each in group.members]
    evaluated = tuple(
        Group(label=group.label, members=group.evaluated) for group in groups if group.evaluated
    )
    targets = members[0].run.source.target_names[:_MAX_TARGETS]
    sections: list[Section] = []
    curves = None
    if evaluated:
        where, curves = _where_section(evaluated, targets, intervals)
        sections += [where, *error_sections(evaluated, targets)]
    else:
        sections.append(Section(heading="Errors", missing=[_no_errors(members[0])]))
    sections += [data_section(members[0]), training_section(members)]
    learned = learned_section(members[0].run)
    sections += [*([learned] if learned else []), configuration_section(members)]
    *most, last = (group.label for group in groups)
    names = f"{', '.join(most)} and {last}" if most else last
    store = members[0].run.store.path.name
    return Page(
        title=f"{names} on {store}",
        lead=_lead(groups, evaluated, targets),
        sections=sections,
        ids=members[0].run.store.meta.node_ids,
        curves=curves,
        written=f"Written by pgti {version('pgti')} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
    )


def _where_section(
    groups: Sequence[Group], targets: Sequence[str], intervals: Sequence[float]
) -> tuple[Section, dict[str, Any] | None]:
    """The map beside the curves of a sensor, and the tables of the worst sensors and hours."""
    first = groups[0].evaluated[0]
    if not first.has("sensor", targets[0]):
        return Section(heading="Where and when", missing=[_no_errors(first, "by sensor")]), None
    errors = first.by("sensor", "model", targets[0])
    panels, missing, curves = [], [], None
    if first.run.problem is None and len(first.run.splits.test):
        options = CurvesOptions(budget_bytes=CURVES_BYTES, intervals=tuple(intervals))
        worst = int(np.nanargmax(errors)) if np.isfinite(errors).any() else 0
        shown = [group.evaluated[0] for group in groups]
        shown = [each for each in shown if each.run.problem is None]
        panel, curves = curves_panel(shown, worst, options)
        panels.append(panel)
    else:
        place = shlex.quote(str(first.run.directory.path))
        missing.append(
            Missing(
                text=f"Forecasts of single sensors are not shown: {first.run.problem}.",
                command=f"pgti report {place} --store STORE",
            )
        )
    panels.insert(0, map_panel(groups, targets, clickable=curves is not None))
    texts: tuple[str, ...] = ()
    if sum(len(group.members) for group in groups) > 1:
        texts = (f"The tables are those of {first.label} ({first.name}).",)
    return (
        Section(
            heading="Where and when it is wrong",
            texts=texts,
            panels=panels,
            tables=worst_tables(first, targets),
            missing=missing,
        ),
        curves,
    )


def _no_errors(run: ComparedRun, what: str = "of the test windows") -> Missing:
    place = shlex.quote(str(run.run.directory.path))
    has_windows = run.run.problem is not None or len(run.run.splits.test)
    if not has_windows:
        return Missing(text="There are no errors: the run has no test windows to evaluate.")
    return Missing(
        text=f"There are no stored errors {what}, so map, errors and tables are left out.",
        command=f"pgti evaluate {place}",
    )


def _lead(groups: Sequence[Group], evaluated: Sequence[Group], targets: Sequence[str]) -> list[str]:
    """The main numbers in words."""
    lines = []
    for group in evaluated:
        first = group.evaluated[0]
        for target in targets:
            lines.append(_finding(group, first, target))
    if not evaluated:
        return ["The run has no stored errors of test windows."]
    first = evaluated[0].evaluated[0]
    content = first.content
    period = f", {content['from']} to {content['to']}" if "from" in content else ""
    lines.append(
        f"Evaluated on {content['windows']:,} test windows of "
        f"{len(first.run.store.meta.node_ids):,} sensors{period}."
    )
    extents = {
        (each.content.get("windows"), each.content.get("from"), each.run.fingerprint)
        for group in evaluated for each in group.members
    }  # fmt: skip
    if len(extents) > 1:
        lines.append("The runs were evaluated on different windows or rows: differences mix both.")
    absent = [each.name for group in groups for each in group.members if each.report is None]
    if absent:
        lines.append(f"Without stored errors, and left out of comparisons: {', '.join(absent)}.")
    return lines


def _finding(group: Group, first: ComparedRun, target: str) -> str:
    """MAE at a few horizons beside the best baseline there."""
    assert first.report is not None
    parts = []
    steps = {key: text for key, text in first.report.shown_steps().items() if key.isdigit()}
    for key, heading in steps.items():
        values = [each.of_target("model", target)["mae"][key] for each in group.evaluated]
        known = [each for each in values if each is not None]
        if not known:
            continue
        text = f"{number_text(float(np.median(known)))} at {heading}"
        baselines = {
            name: first.of_target(name, target)["mae"][key] for name in first.forecasters[1:]
        }
        found = {name: error for name, error in baselines.items() if error is not None}
        if found:
            best = min(found, key=lambda name: found[name])
            text += f" ({best} {number_text(found[best])})"
        parts.append(text)
    seeds = f", median of {len(group.evaluated)} runs" if len(group.evaluated) > 1 else ""
    beside = "; in brackets the best baseline" if first.forecasters[1:] else ""
    return f"{group.label}: {in_unit(first, target)} is {', '.join(parts)}{seeds}{beside}."
