"""Errors broken down by sensor, hour, weekday and range: tables and a file."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from pgti.cli.error_tables import IN_UNITS, format_error
from pgti.cli.output import build_table
from pgti.display import csv_text
from pgti.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from pgti.forecasting import RangeEdges, Report

__all__ = [
    "breakdown_tables",
    "check_out",
    "hardest_tables",
    "parse_ranges",
    "write_breakdowns",
]

_NUM_HARDEST = 3  # sensors and hours
_MAX_CHANNELS = 3


def parse_ranges(texts: Sequence[str]) -> "RangeEdges | None":
    """Edges from the parts of `30,50` or `speed=30,50,flow=100`.

    Raises:
        ConfigError: if a part is no number.
    """
    if not texts:
        return None
    edges: dict[str, list[float]] = {}
    name = ""
    for text in texts:
        before, equals, number = text.rpartition("=")
        name = before if equals else name
        try:
            edges.setdefault(name, []).append(float(number))
        except ValueError:
            raise ConfigError(
                f"--ranges has {text!r}: it takes numbers, such as 30,50, or speed=30,50 for one "
                "of several targets"
            ) from None
    return edges[""] if list(edges) == [""] else edges


def check_out(path: Path) -> None:
    """Refuse a file that cannot be written, before the work.

    Raises:
        ConfigError: if the suffix names no format, or the directory does not exist.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise ConfigError(
            f"--out is {path}: it must end in .csv or .parquet, which names the format"
        )
    if not path.parent.is_dir():
        raise ConfigError(f"--out is {path}: the directory {path.parent} does not exist")


def write_breakdowns(report: "Report", names: Sequence[str], path: Path) -> int:
    """Write breakdowns as one table, a row for each forecaster and group; returns its length.

    The columns are those of `Report.by`, with `by` and `group` in place of the breakdown's name.

    Raises:
        RunError: if the file cannot be written.
    """
    import pandas as pd

    from pgti.storage import replace_atomically

    frames = [report.by(name).rename(columns={name: "group"}) for name in names]
    for name, frame in zip(names, frames, strict=True):
        frame.insert(3, "by", name)
    whole = pd.concat([frame.astype({"group": "str"}) for frame in frames], ignore_index=True)
    with replace_atomically(path) as partial:
        if path.suffix == ".csv":
            whole.map(_csv_cell).to_csv(partial, index=False)
        else:
            whole.to_parquet(partial, index=False)
    return len(whole)


def _csv_cell(value: object) -> object:
    return csv_text(value) if isinstance(value, str) else value


def hardest_tables(report: "Report") -> Iterator[Table]:
    """A short table for each split and target: the sensors and hours with the largest errors.

    The ranges of the target follow. Of many targets, the first few have a table.
    """
    shown = [name for name in report.breakdowns if name in ("sensor", "hour", "range")]
    for split in report.splits:
        frames = {name: report[split].by(name) for name in shown}
        for channel in list(report.units)[:_MAX_CHANNELS]:
            rows: list[tuple[str, ...]] = []
            for name, frame in frames.items():
                of_one = frame[(frame["channel"] == channel) & (frame["count"] > 0)]
                groups = _rows(report, name, of_one)
                if name != "range":
                    groups = sorted(groups, key=lambda row: -row[1])[:_NUM_HARDEST]
                rows += [(name, *_texts(row)) for row in groups]
            if rows:
                title = (
                    f"where {report.model} errs most, {report.name(split)}{_of(report, channel)}"
                )
                yield build_table(
                    title, ["by", "group", *_columns(report, channel)], rows, num_texts=2
                )


def breakdown_tables(report: "Report", names: Sequence[str]) -> Iterator[Table]:
    """A table for each split, breakdown and target: the errors of every group.

    Raises:
        ConfigError: if the report has no such breakdown.
    """
    for name in names:
        frame = report.by(name)
        for split in report.splits:
            for channel in report.units:
                of_one = frame[(frame["split"] == split) & (frame["channel"] == channel)]
                if len(of_one):
                    rows = [_texts(row) for row in _rows(report, name, of_one)]
                    title = f"{report.model} by {name}, {report.name(split)}{_of(report, channel)}"
                    yield build_table(title, [name, *_columns(report, channel)], rows)


def _columns(report: "Report", channel: str) -> list[str]:
    unit = report.units[channel]
    metrics = (f"{label} {unit}".rstrip() for label in IN_UNITS)
    return [*metrics, *(f"MAE of\n{name}" for name in report.baselines), "targets"]


def _rows(report: "Report", name: str, frame: "pd.DataFrame") -> list[tuple[Any, ...]]:
    """Group, MAE and RMSE of the model, MAE of the baselines, targets; in the report's order."""
    model = frame[frame["forecaster"] == report.model]
    columns: list[Iterable[Any]] = [model[name], model["mae"], model["rmse"]]
    for baseline in report.baselines:
        columns.append(frame.loc[frame["forecaster"] == baseline, "mae"])
    return list(zip(*columns, model["count"], strict=True))


def _texts(row: tuple[Any, ...]) -> tuple[str, ...]:
    group, *errors, count = row
    label = group if isinstance(group, str) else f"{group:02d}:00"
    return (label, *map(format_error, errors), f"{count:,}")


def _of(report: "Report", channel: str) -> str:
    return f", {channel}" if len(report.units) > 1 else ""
