"""What a backtest found: errors of every fold and over all of them, beside the baselines."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pgti.display import count_of
from pgti.forecasting import Report

__all__ = ["ALL_FOLDS", "BacktestResult", "FoldResult"]

ALL_FOLDS = "all"
"""What tables call all folds together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldResult:
    """A fold: what its model was trained on, and its errors.

    Attributes:
        number: counted from 1.
        begins: time of its first target, ISO 8601; its row where the series has no times.
        ends: time of its last target.
        first_row: row of its first target; the model and the baselines know the rows before it.
        windows: windows of the fold.
        train_windows: that its model was trained on; of the first fold where models stay.
        epochs: trained; 0 where the model is that of the fold before.
        best_epoch: whose parameters forecast.
        seconds: of training and validation; 0 where the model is that of the fold before.
        errors: as `evaluation_report` gives them.
    """

    number: int
    begins: str
    ends: str
    first_row: int
    windows: int
    train_windows: int
    epochs: int
    best_epoch: int
    seconds: float
    errors: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class BacktestResult:
    """The result of `backtest`.

    Attributes:
        store: path of the store.
        model: name of the model.
        refit: how the folds got their models.
        folds: in time order.
        errors: over all folds: sums over their windows, and not means of their errors.
        units: unit of each target channel by name.
        interval_seconds: seconds between two horizon steps; None where unknown.
        metrics: names of the metrics.
    """

    store: str
    model: str
    refit: str
    folds: tuple[FoldResult, ...]
    errors: Mapping[str, Any]
    units: Mapping[str, str]
    interval_seconds: int | None
    metrics: Sequence[str]

    @property
    def num_windows(self) -> int:
        """Windows of all folds."""
        return sum(fold.windows for fold in self.folds)

    @property
    def mae(self) -> float | None:
        """Mean absolute error of the model over all folds, in the target's unit."""
        return self.report[ALL_FOLDS].mae

    @property
    def report(self) -> Report:
        """The errors by the names "1", "2", .. of the folds, and "all"."""
        counts = {str(fold.number): fold.windows for fold in self.folds}
        errors = {str(fold.number): fold.errors for fold in self.folds}
        counts[ALL_FOLDS], errors[ALL_FOLDS] = self.num_windows, self.errors
        return Report(
            {
                name: {**content, "windows": counts[name], "split_windows": counts[name]}
                for name, content in errors.items()
            },
            model=self.model,
            units=self.units,
            interval_seconds=self.interval_seconds,
            metrics=self.metrics,
        )

    def to_frame(self, *, by_horizon: bool = False) -> pd.DataFrame:
        """A row for each fold (and "all"), forecaster and channel.

        Columns: `fold`, `from` and `to` (times of the first and last target, rows where the series
        has no times), `train_windows`, `forecaster`, `channel`, a column per metric and
        `METRIC_average` (the mean of the steps' errors), and `count`, the observed targets.

        Args:
            by_horizon: a row for each horizon step, too, in the column `horizon`, in place of the
                averages.
        """
        frame = self.report.to_frame(by_horizon=by_horizon).rename(columns={"split": "fold"})
        periods = {str(fold.number): (fold.begins, fold.ends) for fold in self.folds}
        periods[ALL_FOLDS] = self.folds[0].begins, self.folds[-1].ends
        trained = {str(fold.number): fold.train_windows for fold in self.folds}
        frame.insert(1, "from", [periods[fold][0] for fold in frame["fold"]])
        frame.insert(2, "to", [periods[fold][1] for fold in frame["fold"]])
        counts = [trained.get(fold) for fold in frame["fold"]]
        frame.insert(3, "train_windows", pd.Series(counts, dtype="Int64"))
        return frame

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `pgti backtest --json` prints them."""
        return {
            "store": self.store,
            "model": self.model,
            "refit": self.refit,
            "folds": [
                {
                    "fold": fold.number,
                    "from": fold.begins,
                    "to": fold.ends,
                    "first_row": fold.first_row,
                    "windows": fold.windows,
                    "train_windows": fold.train_windows,
                    "epochs": fold.epochs,
                    "best_epoch": fold.best_epoch,
                    "seconds": fold.seconds,
                    "errors": dict(fold.errors),
                }
                for fold in self.folds
            ],
            ALL_FOLDS: {"windows": self.num_windows, **self.errors},
        }

    @property
    def title(self) -> str:
        """Model, folds and windows in one line."""
        unit = set(self.units.values())
        shown = f" in {unit.pop()}" if len(unit) == 1 and "" not in unit else ""
        return (
            f"{self.model}, {count_of(len(self.folds), 'fold')}, refit {self.refit}, "
            f"{count_of(self.num_windows, 'window')}: MAE and RMSE{shown}"
        )

    def summary(self) -> pd.DataFrame:
        """What `repr` shows: a row for each fold and, of several targets, each, over all steps."""
        columns = ["from", "train windows", "epochs"] + ["target"] * (len(self.units) > 1)
        columns += ["MAE", "RMSE", *(f"MAE {name}" for name in self.report.baselines)]
        index, rows = zip(*self._rows(), strict=True)
        return pd.DataFrame(list(rows), index=list(index), columns=columns)

    def _rows(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        for fold in self.folds:
            facts = fold.begins, f"{fold.train_windows:,}", str(fold.epochs)
            yield from self._rows_of(str(fold.number), facts, fold.errors)
        yield from self._rows_of(ALL_FOLDS, ("", "", ""), self.errors)

    def _rows_of(
        self, name: str, facts: tuple[str, ...], errors: Mapping[str, Any]
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        baselines = [errors[each] for each in self.report.baselines]
        if len(self.units) == 1:
            yield name, (*facts, *_errors_of(errors, baselines))
            return
        for target in self.units:
            of_target = [each["channels"][target] for each in baselines]
            yield name, (*facts, target, *_errors_of(errors["channels"][target], of_target))

    def __repr__(self) -> str:
        table = self.summary().to_string(float_format="{:.3f}".format, na_rep="-")
        return f"{self.title}\n{table}"

    def _repr_html_(self) -> str:
        table = self.summary().to_html(float_format="{:.3f}".format, na_rep="-")
        return f"<p>{self.title}</p>{table}"


def _errors_of(
    errors: Mapping[str, Any], baselines: Sequence[Mapping[str, Any]]
) -> tuple[float | None, ...]:
    of_baselines = (each["mae"]["mean"] for each in baselines)
    return (errors["mae"]["mean"], errors["rmse"]["mean"], *of_baselines)
