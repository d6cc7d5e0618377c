"""How the papers on a data set evaluate: what a model sees and forecasts, on which windows.

Window counts are those of the official code, whose rounding differs: DCRNN and PGT round the test
and the training windows and leave the rest to validation; BasicTS, Torch-MTS and LargeST round the
training and the validation windows and leave the rest to the test.
"""

from dataclasses import dataclass
from typing import Any

__all__ = ["Protocol"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """The published protocol of a data set.

    Attributes:
        source: where it is stated.
        fractions: of the training, validation and test windows, in time order.
        num_windows: training, validation and test windows that the official code makes.
        num_steps: rows that it makes them of.
        input_steps: rows that a model sees.
        horizon: rows that it forecasts.
        inputs: channels that a model sees.
        targets: channels that it forecasts.
        calendar: calendar features that it sees.
        zeros: what zeros are in the loss and in errors.
        across_holes: whether windows reach across rows that are missing, as if there were none.
        notes: where stores of `fetch` differ, one line each.
    """

    source: str
    fractions: tuple[float, float, float]
    num_windows: tuple[int, int, int]
    num_steps: int
    input_steps: int = 12
    horizon: int = 12
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    calendar: tuple[str, ...] = ()
    zeros: str
    across_holes: bool = False
    notes: tuple[str, ...] = ()

    def window_options(self, num_steps: int) -> dict[str, Any]:
        """Options of `WindowConfig` for a series of so many rows.

        Fractions of a series of the published length are such that every split has exactly the
        published number of windows.
        """
        fractions = self.fractions
        if num_steps == self.num_steps:
            total = sum(self.num_windows)
            fractions = tuple(count / total for count in self.num_windows)  # type: ignore[assignment] # three of them
        across_holes = {"across_holes": True} if self.across_holes else {}
        return {
            "input_steps": self.input_steps,
            "horizon": self.horizon,
            "inputs": self.inputs,
            "targets": self.targets,
            "calendar": self.calendar,
            "fractions": fractions,
            **across_holes,
        }

    @property
    def summary(self) -> str:
        """All of it in one line."""
        shares = " / ".join(f"{100 * fraction:g}" for fraction in self.fractions)
        counts = " / ".join(f"{count:,}" for count in self.num_windows)
        seen = ", ".join((*self.inputs, *self.calendar))
        return (
            f"{self.input_steps} + {self.horizon} steps, {seen} -> {', '.join(self.targets)}; "
            f"{shares} % of the windows train, validate and test: {counts}; {self.zeros}"
        )
