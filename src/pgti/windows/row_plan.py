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
    starts: NDArray[np.int64], offsets: Sequence[range], *, max_union: float = _MAX_UNION
) -> RowPlan:
    """The rows of windows that share most of them, each once; else the rows of each window.

    Args:
        starts: first row of each window, in any order, int64 [B].
        offsets: the rows of a window relative to its start, as rising ranges that do not touch
            (`WindowSpec.row_offsets`).
        max_union: read the union where it has at most this fraction of the windows' rows.
    """
    num_rows = sum(map(len, offsets))
    if num_union_rows(starts, offsets) <= max_union * len(starts) * num_rows:
        return union_rows(starts, offsets)
    firsts, stops = _window_ranges(starts, offsets)
    return RowPlan(
        rows=starts[:, None]
        + np.concatenate([np.arange(each.start, each.stop) for each in offsets]),
        ranges=_ranges(firsts.reshape(-1), stops.reshape(-1)),
    )


def union_rows(
    starts: NDArray[np.int64],
    offsets: Sequence[range],
    readable_from: NDArray[np.int64] | None = None,
) -> RowPlan:
    """The union of the rows of all windows, in as few ranges as possible.

    Args:
        starts: first row of each window, in any order, int64 [B].
        offsets: the rows of a window relative to its start, as rising ranges.
        readable_from: the first row that each window may read, int64 [B]: those before it are
            left out, and their index is 0; None leaves none out.

    >>> plan = union_rows(np.array([40, 3, 4]), [range(3)])
    >>> plan.ranges, plan.window_index[:, 0].tolist()
    ([(3, 7), (40, 43)], [4, 0, 1])
    """
    firsts, stops = _window_ranges(starts, offsets)
    read_from = firsts if readable_from is None else np.maximum(firsts, readable_from[:, None])
    is_read = read_from < stops
    union_firsts, union_stops = _merge(read_from[is_read], stops[is_read])
    lengths = union_stops - union_firsts
    before = np.cumsum(lengths) - lengths
    shifts = np.zeros_like(firsts)  # from a row to its place
    inside = np.searchsorted(union_firsts, read_from[is_read], side="right") - 1
    shifts[is_read] = (before - union_firsts)[inside]
    index = []
    for k, each in enumerate(offsets):
        wanted = firsts[:, [k]] + np.arange(len(each))
        index.append(np.where(wanted >= read_from[:, [k]], wanted + shifts[:, [k]], 0))
    rows = np.repeat(union_firsts - before, lengths) + np.arange(int(lengths.sum()))
    return RowPlan(
        rows=rows[None],
        ranges=_ranges(union_firsts, union_stops),
        window_index=np.concatenate(index, axis=1),
    )


def num_union_rows(starts: NDArray[np.int64], offsets: Sequence[range]) -> int:
    """How many rows the windows have, each row counted once.

    >>> num_union_rows(np.array([40, 3, 4]), [range(3)])
    7
    """
    if not len(starts):
        return 0
    if len(offsets) == 1:
        steps = np.diff(np.sort(starts))
        return int(np.minimum(steps, len(offsets[0])).sum()) + len(offsets[0])
    firsts, stops = _window_ranges(starts, offsets)
    union_firsts, union_stops = _merge(firsts.reshape(-1), stops.reshape(-1))
    return int((union_stops - union_firsts).sum())


def _window_ranges(
    starts: NDArray[np.int64], offsets: Sequence[range]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First row of each range of each window, and the row after its last: [B, ranges] each."""
    for each in offsets:
        require_whole_number("rows of a window", len(each), 1)
    firsts, stops = (
        starts[:, None] + np.array([getattr(each, end) for each in offsets], dtype=np.int64)
        for end in ("start", "stop")
    )
    return firsts, stops


def _merge(
    firsts: NDArray[np.int64], stops: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The union of ranges as rising ranges that neither overlap nor touch."""
    order = np.argsort(firsts, kind="stable")
    firsts, reach = firsts[order], np.maximum.accumulate(stops[order])
    begins = np.ones(len(firsts), dtype=np.bool_)
    begins[1:] = firsts[1:] > reach[:-1]
    return firsts[begins], reach[np.append(begins[1:], True)] if len(reach) else reach


def _ranges(firsts: NDArray[np.int64], stops: NDArray[np.int64]) -> RowRanges:
    return list(zip(firsts.tolist(), stops.tolist(), strict=True))
