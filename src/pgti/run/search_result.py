"""What a search found."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pgti.display import count_of
from pgti.run.run import Run

__all__ = ["TrialResult", "TuneResult"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResult:
    """A trial of a search.

    Attributes:
        number: from 0.
        state: "complete", "pruned", "failed", or "running" in another process.
        val_mae: lowest validation MAE of its epochs, in original units; None if there is none.
        params: options by dotted name.
        curve: validation MAE by epoch, from 1.
        seconds: of training and validation.
        error: why it failed.
    """

    number: int
    state: str
    val_mae: float | None
    params: Mapping[str, Any]
    curve: Mapping[int, float]
    seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class TuneResult:
    """The result of a search: the best trial is the complete one of the lowest validation MAE.

    Attributes:
        path: directory of the search.
        trials: in the order of their numbers.
        best: the best trial.
        importance: share of each option in the spread of the errors, after PED-ANOVA; empty where
            there are too few trials.
    """

    path: Path
    trials: tuple[TrialResult, ...]
    best: TrialResult
    importance: Mapping[str, float]

    @property
    def best_config(self) -> Path:
        """`best.toml`, the configuration of the best trial."""
        return self.path / "best.toml"

    @property
    def report_file(self) -> Path:
        """`report.html`, which is there if plotly is installed."""
        return self.path / "report.html"

    def best_run(self) -> Run:
        """The run of the best trial."""
        return Run.open(self.run_directory(self.best.number))

    def run_directory(self, number: int) -> Path:
        """The directory of a trial's run."""
        return self.path / "trials" / f"{number:04d}"

    def count(self, state: str) -> int:
        """How many trials ended so."""
        return sum(each.state == state for each in self.trials)

    def to_frame(self) -> pd.DataFrame:
        """A row for each trial: `trial`, `state`, `val_mae`, `epochs`, `seconds` and options."""
        return pd.DataFrame(
            {
                "trial": each.number,
                "state": each.state,
                "val_mae": each.val_mae,
                "epochs": len(each.curve),
                "seconds": each.seconds,
                **each.params,
            }
            for each in self.trials
        )

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "out": str(self.path),
            "trials": len(self.trials),
            **{state: self.count(state) for state in ("complete", "pruned", "failed")},
            "best": {
                "trial": self.best.number,
                "val": {"mae": self.best.val_mae},
                "params": dict(self.best.params),
                "run": str(self.run_directory(self.best.number)),
                "config": str(self.best_config),
            },
            "importance": dict(self.importance),
        }

    def __repr__(self) -> str:
        frame = self.to_frame().sort_values("val_mae").head(10)
        return (
            f"search in {self.path}: {count_of(len(self.trials), 'trial')}, best validation MAE "
            f"{self.best.val_mae:.4f} of trial {self.best.number}\n{frame.to_string(index=False)}"
        )
