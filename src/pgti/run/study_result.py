"""What a study found: figures over seeds, and one table of them for a screen, a page or a paper."""

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, Self

import pandas as pd

from pgti.display import count_of, csv_text
from pgti.errors import ConfigError
from pgti.forecasting import step_heading
from pgti.run.results import Machine
from pgti.storage import write_atomically

__all__ = [
    "METRICS",
    "OverSeeds",
    "StudiedModel",
    "StudyResult",
    "StudyTable",
    "check_table_suffix",
]

METRICS = ("mae", "rmse", "mape")
_GROUPS = {"mae": "MAE", "rmse": "RMSE", "mape": "MAPE %"}
_PUBLISHED_STEPS = ("3", "6", "12")  # of the field's tables: 15, 30, 60 minutes of five-minute data
_MEBIBYTE = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class OverSeeds:
    """A quantity over the seeds of a model.

    Attributes:
        mean: of the values.
        std: their sample standard deviation (n - 1); None for a single value.
        values: one for each seed, in the order of the seeds.
    """

    mean: float
    std: float | None
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of at least one value."""
        std = statistics.stdev(values) if len(values) > 1 else None
        return cls(mean=statistics.fmean(values), std=std, values=tuple(values))

    def format(self, digits: int) -> str:
        """Mean and standard deviation."""
        if self.std is None:
            return f"{self.mean:,.{digits}f}"
        return f"{self.mean:,.{digits}f} ± {self.std:,.{digits}f}"


@dataclass(frozen=True, kw_only=True, slots=True)
class StudiedModel:
    """A row of the table.

    Attributes:
        name: of the row: the model's, or that of its configuration where a model occurs twice.
        model: its name.
        seeds: of the finished trainings.
        parameters: number of trainable parameters; 0 for a baseline.
        errors: test metrics by metric and horizon step ("1", "2", .., "mean" and "average"); MAE
            and RMSE in the target's unit, MAPE in per cent.
        recipe: published recipe of its trainings, if they have one.
        notes: why its errors do not compare with those of its recipe, one line each.
        epochs: trained; None for a baseline.
        best_epoch: whose parameters were tested; None for a baseline.
        seconds_per_epoch: of training and validation; None for a baseline.
        peak_pss_bytes: of the process; None for a baseline, or where it is not reported.
    """

    name: str
    model: str
    seeds: tuple[int, ...]
    parameters: int
    errors: Mapping[str, Mapping[str, OverSeeds]]
    recipe: str | None = None
    notes: tuple[str, ...] = ()
    epochs: OverSeeds | None = None
    best_epoch: OverSeeds | None = None
    seconds_per_epoch: OverSeeds | None = None
    peak_pss_bytes: OverSeeds | None = None


class Column(NamedTuple):
    """A column of the table.

    Attributes:
        name: in a CSV file.
        group: heading of this column and its neighbours; empty for what a training took.
        title: of the column.
        figure: of a row.
        digits: after the decimal point; None for a count, which is one number.
    """

    name: str
    group: str
    title: str
    figure: Callable[[StudiedModel], OverSeeds | int | None]
    digits: int | None

    def text(self, row: StudiedModel) -> str:
        """What a table shows."""
        figure = self.figure(row)
        if isinstance(figure, OverSeeds):
            return figure.format(self.digits or 0)
        return "-" if figure is None else f"{figure:,}"

    def numbers(self, row: StudiedModel) -> dict[str, float | None]:
        """What a CSV file has, by name."""
        figure = self.figure(row)
        if self.digits is None:
            return {self.name: None if isinstance(figure, OverSeeds) else figure}
        mean, std = (figure.mean, figure.std) if isinstance(figure, OverSeeds) else (None, None)
        return {f"{self.name}_mean": mean, f"{self.name}_std": std}


class StudyTable(NamedTuple):
    """A table as text, a row per model.

    Attributes:
        groups: heading of each column but the first, which has the names of the rows; empty for
            what a training took.
        titles: of each column but the first.
        rows: name and cells.
    """

    groups: tuple[str, ...]
    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def to_markdown(self) -> str:
        """With a heading of one line."""
        pairs = zip(self.groups, self.titles, strict=True)
        titles = (f"{group} {title}".strip() for group, title in pairs)
        lines = [("model", *titles), ("---",) + ("---:",) * len(self.titles), *self.rows]
        return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

    def to_latex(self) -> str:
        """With headings of two lines and the rules of `booktabs`."""
        spans = [(group, len(list(columns))) for group, columns in groupby(self.groups)]
        above = [rf"\multicolumn{{{width}}}{{c}}{{{_escape(group)}}}" for group, width in spans]
        lines = [("", *above), ("model", *map(_escape, self.titles))]
        lines += [tuple(map(_escape, row)) for row in self.rows]
        first, second, *body = (" & ".join(cells) + r" \\" for cells in lines)
        return "\n".join(
            [
                r"% \usepackage{booktabs}",
                rf"\begin{{tabular}}{{l{'r' * len(self.titles)}}}",
                *(r"\toprule", first, second, r"\midrule", *body, r"\bottomrule"),
                "\\end{tabular}\n",
            ]
        )


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class StudyResult:
    """The result of `study`.

    Attributes:
        store: the store.
        interval_seconds: seconds between two horizon steps; None where unknown.
        models: the rows of the table, the baselines first.
        test_windows: number of test windows.
        threads: of each training.
        jobs: trainings at the same time, which shared the machine.
        machine: where they ran.
        left_out: what is missing, and why.
    """

    store: str
    interval_seconds: int | None
    models: tuple[StudiedModel, ...]
    test_windows: int
    threads: int
    jobs: int
    machine: Machine
    left_out: tuple[str, ...]

    def to_table(self) -> StudyTable:
        """The table, by mean MAE: mean and standard deviation of errors and costs."""
        columns = self._columns()
        return StudyTable(
            groups=tuple(column.group for column in columns),
            titles=tuple(column.title for column in columns),
            rows=tuple(
                (row.name, *(column.text(row) for column in columns)) for row in self._ranking()
            ),
        )

    def to_frame(self) -> pd.DataFrame:
        """The same figures unrounded: columns `model`, then `mae_3_mean`, `mae_3_std` and so on."""
        columns = self._columns()
        rows = [
            {"model": row.name} | {k: v for each in columns for k, v in each.numbers(row).items()}
            for row in self._ranking()
        ]
        counts = [each.name for each in columns if each.digits is None]
        return pd.DataFrame(rows).astype(dict.fromkeys(counts, "Int64"))

    def __repr__(self) -> str:
        table = self.to_table()
        shown = [i for i, group in enumerate(table.groups) if group == _GROUPS["mae"]]
        frame = pd.DataFrame(
            [[row[i + 1] for i in shown] for row in table.rows],
            index=[row[0] for row in table.rows],
            columns=[table.titles[i] for i in shown],
        )
        title = f"study of {self.store}, {count_of(self.test_windows, 'test window')}: MAE"
        return f"{title}\n{frame.to_string(max_rows=12)}"

    def write_table(self, path: Path) -> None:
        """Write the table in the format that the suffix of a path names.

        Raises:
            ConfigError: another suffix than .md, .csv or .tex.
        """
        check_table_suffix(path)
        texts: dict[str, Callable[[], str]] = {
            ".md": self.to_table().to_markdown,
            ".tex": self.to_table().to_latex,
            ".csv": self._to_csv,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, texts[path.suffix]().encode())

    def _to_csv(self) -> str:
        frame = self.to_frame()
        return frame.assign(model=frame["model"].map(csv_text)).to_csv(index=False)

    def _ranking(self) -> list[StudiedModel]:
        return sorted(self.models, key=lambda row: row.errors["mae"]["mean"].mean)

    def _columns(self) -> list[Column]:
        errors = self.models[0].errors["mae"]
        steps = [key for key in errors if key.isdigit()]
        totals = [(key, key) for key in errors if not key.isdigit()]
        shown = [step for step in steps if step in _PUBLISHED_STEPS or step == steps[-1]]
        headings = {step: step_heading(int(step), self.interval_seconds) for step in shown}
        return [
            *(
                Column(f"{metric}_{step}", group, heading, _error(metric, step), 3)
                for metric, group in _GROUPS.items()
                for step, heading in (*headings.items(), *totals)
            ),
            Column("seeds", "", "seeds", lambda row: len(row.seeds) or None, None),
            Column("epochs", "", "epochs", lambda row: row.epochs, 0),
            Column("best_epoch", "", "best epoch", lambda row: row.best_epoch, 0),
            Column("seconds_per_epoch", "", "s/epoch", lambda row: row.seconds_per_epoch, 0),
            Column("peak_mebibytes", "", "peak MiB", _peak_mebibytes, 0),
            Column("parameters", "", "parameters", lambda row: row.parameters or None, None),
        ]


def check_table_suffix(path: Path) -> None:
    """Refuse a path whose suffix names no format.

    Raises:
        ConfigError: naming the formats.
    """
    if path.suffix not in (".md", ".csv", ".tex"):
        raise ConfigError(f"the table {path} must end in .md, .csv or .tex, which names the format")


def _error(metric: str, step: str) -> Callable[[StudiedModel], OverSeeds | None]:
    return lambda row: row.errors[metric].get(step)


def _peak_mebibytes(row: StudiedModel) -> OverSeeds | None:
    peaks = row.peak_pss_bytes
    return None if peaks is None else OverSeeds.of([each / _MEBIBYTE for each in peaks.values])


def _escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return re.sub(r"([%&_#])", r"\\\1", text).replace("±", r"$\pm$")
