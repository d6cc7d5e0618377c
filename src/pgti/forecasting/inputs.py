"""What was missing in the inputs of forecasts."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.display import shorten
from pgti.forecasting.writers import ForecastLabels

__all__ = ["InputSummary"]


@dataclass(kw_only=True, slots=True)
class InputSummary:
    """What was missing in the inputs of the forecasts that it has seen; only target channels count.

    Attributes:
        num_inputs: inputs of all windows.
        num_missing: those of them that are missing.
        newest: the newest window: its `origin` (time of the last input), `last_reading` (time of
            the last row with a reading, None if there is none), `missing_inputs` (share of its
            inputs) and `never_observed` (sensors without a reading in the window).
    """

    num_inputs: int = 0
    num_missing: int = 0
    newest: dict[str, Any] | None = None

    def add(
        self,
        labels: ForecastLabels,
        last_rows: NDArray[np.int64],
        missing: NDArray[np.int32],
        newest_missing: NDArray[np.int32],
    ) -> None:
        """Count the inputs of windows.

        Args:
            labels: of their forecasts.
            last_rows: row of the last input of each window [S], rising.
            missing: missing inputs of each sensor and target [S, N, C].
            newest_missing: those of them after the last reading [S, N, C].
        """
        steps, last_row = labels.input_steps, int(last_rows[-1])
        self.num_inputs += missing.size * steps
        self.num_missing += int(missing.sum(dtype=np.int64))
        age = int(newest_missing[-1].min())
        never = (missing[-1] == steps).all(axis=-1)
        self.newest = {
            "origin": labels.name_of(last_row),
            "last_reading": None if age == steps else labels.name_of(last_row - age),
            "missing_inputs": float(missing[-1].mean() / steps),
            "never_observed": [labels.sensor_ids[node] for node in np.flatnonzero(never)],
        }

    def to_dict(self) -> dict[str, Any]:
        """The share `missing_inputs` of all windows, and facts on the newest one under `newest`.

        Those are its share and the sensors `never_observed` in it.
        """
        share = self.num_missing / self.num_inputs if self.num_inputs else 0.0
        names = ("missing_inputs", "never_observed")
        newest = None if self.newest is None else {name: self.newest[name] for name in names}
        return {"missing_inputs": share, "newest": newest}

    def describe(self) -> str | None:
        """The newest window in one line; None if none of its inputs is missing."""
        newest = self.newest
        if newest is None or not newest["missing_inputs"]:
            return None
        share = newest["missing_inputs"]
        parts = [f"the forecast from {newest['origin']} lacks {share:.1%} of its inputs"]
        if newest["last_reading"] is None:
            parts.append("the window has no reading")
        elif newest["last_reading"] != newest["origin"]:
            parts.append(f"the last reading is of {newest['last_reading']}")
        if newest["never_observed"]:
            parts.append(f"never observed in the window: {shorten(newest['never_observed'])}")
        return "; ".join(parts)
