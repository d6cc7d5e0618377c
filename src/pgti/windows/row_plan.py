"""Which rows a batch reads: those of each window, or the union of all windows' rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgti.errors import require_whole_number

__all__ = ["RowPlan", "RowRanges", "num_union_rows", "plan_rows", "union_rows"]

RowRanges = Sequence[tuple[int, int]]
"""First row of each range of consecutive rows, and the row after its last."""

_MAX_UNION = 0.6  # of the windows' rows: above it, copying windows from the union costs more


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RowPlan:
    """The rows that B windows read, either window by window or each row once.

    Attributes:
        rows: row numbers, int64: [B, R] of B windows of R rows, or [1, U], their union, rising.
        ranges: the same rows, in the same order, as ranges.
        window_index: for a union, where each row of each window is in it, int64 [B, R]; else None.
    """

    rows: NDArray[np.int64]
    ranges: RowRanges
    window_index: NDArray[np.int64] | None = None


def plan_rows(
    starts: NDArray[np.int64], offsets: range, *, max_union: float = _MAX_UNION
) -> RowPlan:
    """The rows of windows that share most of them, each once; else the rows of each window.

    Args:
        starts: first row of each window, in any order, int64 [B].
        offsets: the rows of a window relative to its start (`WindowSpec.row_offsets`).
        max_union: read the union where it has at most this fraction of the windows' rows.
    """
    if num_union_rows(starts, offsets) <= max_union * len(starts) * len(offsets):
        return union_rows(starts, offsets)
    firsts = starts + offsets.start
    return RowPlan(
        rows=firsts[:, None] + np.arange(len(offsets)),
        ranges=_ranges(firsts, firsts + len(offsets)),
    )


def union_rows(starts: NDArray[np.int64], offsets: range) -> RowPlan:
    """The union of the rows of all windows, in as few ranges as possible.

    Args:
        starts: first row of each window, in any order, int64 [B].
        offsets: the rows of a window relative to its start.

    Raises:
        ConfigError: if a window has no rows.

    >>> plan = union_rows(np.array([40, 3, 4]), range(3))
    >>> plan.ranges, plan.window_index[:, 0].tolist()
    ([(3, 7), (40, 43)], [4, 0, 1])
    """
    require_whole_number("rows of a window", len(offsets), 1)
    firsts = starts + offsets.start
    rising = np.sort(firsts)
    begins_range = np.ones(len(rising), dtype=np.bool_)
    begins_range[1:] = np.diff(rising) > len(offsets)
    range_firsts = rising[begins_range]
    range_stops = rising[np.roll(begins_range, -1)] + len(offsets)
    lengths = range_stops - range_firsts
    before = np.cumsum(lengths) - lengths
    inside = np.searchsorted(range_firsts, firsts, side="right") - 1
    places = firsts - range_firsts[inside] + before[inside]
    rows = np.repeat(range_firsts - before, lengths) + np.arange(int(lengths.sum()))
    return RowPlan(
        rows=rows[None],
        ranges=_ranges(range_firsts, range_stops),
        window_index=places[:, None] + np.arange(len(offsets)),
    )


def num_union_rows(starts: NDArray[np.int64], offsets: range) -> int:
    """How many rows the windows have, each row counted once.

    >>> num_union_rows(np.array([40, 3, 4]), range(3))
    7
    """
    if not len(starts):
        return 0
    steps = np.diff(np.sort(starts))
    return int(np.minimum(steps, len(offsets)).sum()) + len(offsets)


def _ranges(firsts: NDArray[np.int64], stops: NDArray[np.int64]) -> RowRanges:
    return list(zip(firsts.tolist(), stops.tolist(), strict=True))
