"""Which rows of the series a batch reads, and what the clock says about each of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgti.batching.base import WindowSource
from pgti.batching.buffers import RowRanges
from pgti.store import calendar_features
from pgti.windows import num_union_rows, plan_rows

__all__ = ["PAGE_ROWS", "BatchRows", "RowFeatures", "rows_of"]

# The union of a batch's rows is read in place of its windows where it has at most this share of
# their rows: every row is then decoded once, and windows are copied from what was decoded.
_UNION_SHARE = 0.6
PAGE_ROWS = 1 << 12  # rows that are worked out at a time, when one of them is asked for


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class BatchRows:
    """The rows that a batch reads, either window by window or each of them once.

    Args:
        rows: row numbers, int64: [B, R] of B windows of R rows, or [1, U], the union of them.
        runs: the same rows as runs of consecutive ones.
        window_index: for a union, where every row of every window lies in it, int64 [B, R]; else
            None.
    """

    rows: NDArray[np.int64]
    runs: RowRanges
    window_index: NDArray[np.int64] | None


def rows_of(starts: NDArray[np.int64], num_rows: int) -> BatchRows:
    """The rows of windows that share most of them, each once; else the rows of each window.

    Args:
        starts: first row of each window, int64 [B].
        num_rows: rows of a window that are read, R.
    """
    if num_union_rows(starts, num_rows) <= _UNION_SHARE * len(starts) * num_rows:
        plan = plan_rows(starts, num_rows)
        return BatchRows(
            rows=plan.rows[None], runs=_runs(plan.firsts, plan.stops), window_index=plan.window_rows
        )
    return BatchRows(
        rows=starts[:, None] + np.arange(num_rows),
        runs=_runs(starts, starts + num_rows),
        window_index=None,
    )


def _runs(firsts: NDArray[np.int64], stops: NDArray[np.int64]) -> RowRanges:
    return list(zip(firsts.tolist(), stops.tolist(), strict=True))


class RowFeatures:
    """Calendar features and profile slots of rows, computed when a row is first asked for.

    Every row is part of many windows, and a time zone makes its clock slow to tell. A page of rows
    is computed at a time and kept: some bytes a row, nothing beside the row's readings.

    Args:
        source: the series, its calendar features and its profile.
    """

    def __init__(self, source: WindowSource) -> None:
        self._source = source
        num_rows = source.store.meta.num_steps + source.spec.horizon
        self._calendar = np.empty((num_rows, len(source.calendar)), dtype=np.float32)
        self._week_bins = np.empty(0 if source.profile is None else num_rows, dtype=np.int64)
        self._is_known = np.zeros(-(-num_rows // PAGE_ROWS), dtype=np.bool_)
        self._is_complete = False

    def calendar(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Calendar features of the rows, float32, of the shape of `rows` with F appended."""
        if self._source.calendar:
            self._compute(rows)
        return self._calendar[rows]

    def week_bins(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Entries of the profile's table for the rows and for those H later.

        int64, of the shape of `rows` with 2 appended, or 0 without a profile.
        """
        if self._source.profile is None:
            return np.empty((*rows.shape, 0), dtype=np.int64)
        both = rows[..., None] + np.array([0, self._source.spec.horizon])
        self._compute(both)
        week_bins: NDArray[np.int64] = self._week_bins[both]
        return week_bins

    def _compute(self, rows: NDArray[np.int64]) -> None:
        if self._is_complete:
            return
        pages = rows // PAGE_ROWS
        if self._is_known[pages].all():
            return
        source = self._source
        for page in np.unique(pages):
            if self._is_known[page]:
                continue
            first = int(page) * PAGE_ROWS
            wanted = np.arange(first, min(first + PAGE_ROWS, len(self._calendar)))
            axis = source.store.time_axis
            self._calendar[wanted] = calendar_features(axis, source.calendar, wanted)
            if source.profile is not None:
                self._week_bins[wanted] = source.profile.week_bins(axis, wanted)
            self._is_known[page] = True  # last: another thread may be reading
        self._is_complete = bool(self._is_known.all())
