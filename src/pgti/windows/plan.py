"""Which rows a batch needs: the union of its windows' rows, and where each window lies in it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgti.errors import require_whole_number

__all__ = ["RowPlan", "num_union_rows", "plan_rows"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RowPlan:
    """The rows of B windows, each row once.

    Args:
        firsts: first row of each range, rising, int64 [R]. Ranges neither overlap nor touch.
        stops: row after the last of each range, int64 [R].
        offsets: where each window begins in the rows of all ranges, one range after the other,
            int64 [B].
        span: rows in a window.
    """

    firsts: NDArray[np.int64]
    stops: NDArray[np.int64]
    offsets: NDArray[np.int64]
    span: int

    @property
    def num_rows(self) -> int:
        """Rows of all ranges, U: at most B * span."""
        return int((self.stops - self.firsts).sum())

    @property
    def rows(self) -> NDArray[np.int64]:
        """The rows of all ranges, rising, int64 [U]."""
        lengths = self.stops - self.firsts
        before = np.cumsum(lengths) - lengths
        rows: NDArray[np.int64] = np.repeat(self.firsts - before, lengths)
        return rows + np.arange(self.num_rows)

    @property
    def window_rows(self) -> NDArray[np.int64]:
        """Positions among `rows` of every row of every window, int64 [B, span]."""
        rows: NDArray[np.int64] = self.offsets[:, None] + np.arange(self.span)
        return rows


def num_union_rows(starts: NDArray[np.int64], span: int) -> int:
    """How many rows the windows have together, each row counted once: `num_rows` of their plan.

    >>> num_union_rows(np.array([40, 3, 4]), span=3)
    7
    """
    if not len(starts):
        return 0
    steps = np.diff(np.sort(starts))
    return int(np.minimum(steps, span).sum()) + span


def plan_rows(starts: NDArray[np.int64], span: int) -> RowPlan:
    """The union of the rows start..start+span-1 of all windows, as few ranges as possible.

    Args:
        starts: first row of each window, in any order, int64 [B].
        span: rows in a window, >= 1.

    Raises:
        ConfigError: if the span is not a positive whole number.

    >>> plan = plan_rows(np.array([40, 3, 4]), span=3)
    >>> plan.firsts.tolist(), plan.stops.tolist(), plan.offsets.tolist()
    ([3, 40], [7, 43], [4, 0, 1])
    """
    require_whole_number("span", span, 1)
    rising = np.sort(starts)
    begins = np.ones(len(rising), dtype=np.bool_)
    begins[1:] = rising[1:] > rising[:-1] + span
    firsts = rising[begins]
    stops = rising[np.append(begins[1:], True)] + span if len(rising) else rising
    lengths = stops - firsts
    ranges = np.searchsorted(firsts, starts, side="right") - 1
    offsets = starts - firsts[ranges] + (np.cumsum(lengths) - lengths)[ranges]
    return RowPlan(firsts=firsts, stops=stops, offsets=offsets, span=span)
