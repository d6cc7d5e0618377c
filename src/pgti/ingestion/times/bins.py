"""Bins of time: when they begin, and what the readings in them come to."""

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from pgti.store.clock import SECONDS_PER_DAY, true_seconds, wall_seconds
from pgti.store.time_rule import MONDAY

__all__ = ["Bins", "bin_starts", "bins_of", "starts_after"]

_MIN_PART_SECONDS = 3 * 3_600  # clocks jump over shorter parts of a day, which follow true time


def bin_starts(
    seconds: NDArray[np.int64], step_seconds: int, time_zone: str | None
) -> NDArray[np.int64]:
    """When the bin of each time begins, in epoch seconds as the times are.

    Bins are counted from Monday 1970-01-05 00:00: days from midnight, weeks from Monday. Whole days
    and parts of a day of three hours or more begin by the wall clock of the zone. Others are as
    long as one another and begin at whole steps of the clock in the zone's standard time.

    Args:
        seconds: rising, int64 [T].
        step_seconds: length of a bin.
        time_zone: IANA name; None where the times are wall clock.
    """
    if not _follows_clock(step_seconds):
        phase = MONDAY - _standard_offset(time_zone, int(seconds[0]))
        return phase + (seconds - phase) // step_seconds * step_seconds
    wall = wall_seconds(seconds, time_zone)
    begins = true_seconds(
        MONDAY + (wall - MONDAY) // step_seconds * step_seconds, time_zone, "shift_forward"
    )
    # Clocks that go back at the beginning of a bin return to the one before it.
    return np.maximum.accumulate(begins)


def starts_after(
    begin: int, count: int, step_seconds: int, time_zone: str | None
) -> NDArray[np.int64]:
    """When the bins after one begin, int64 [count].

    Args:
        begin: of the one, as `bin_starts` gives it.
        count: of the bins.
        step_seconds: length of a bin.
        time_zone: see `bin_starts`.
    """
    numbers = np.arange(1, count + 1, dtype=np.int64)
    if not _follows_clock(step_seconds):
        return begin + numbers * step_seconds
    wall = wall_seconds(np.array([begin], dtype=np.int64), time_zone)
    # A bin whose beginning the clock skips begins later.
    wall = MONDAY + (wall - MONDAY) // step_seconds * step_seconds
    return true_seconds(wall + numbers * step_seconds, time_zone)


def _follows_clock(step_seconds: int) -> bool:
    parts_a_day = SECONDS_PER_DAY % step_seconds == 0 and step_seconds >= _MIN_PART_SECONDS
    return parts_a_day or step_seconds % SECONDS_PER_DAY == 0


def _standard_offset(time_zone: str | None, second: int) -> int:
    """Seconds by which the clock of a zone is ahead of UTC outside summer, in a time's year."""
    if time_zone is None:
        return 0
    year, zone = datetime.fromtimestamp(second, UTC).year, ZoneInfo(time_zone)
    offsets = (datetime(year, month, 1, tzinfo=zone).utcoffset() for month in (1, 7))
    return min(int(each.total_seconds()) for each in offsets if each is not None)


@dataclass(kw_only=True, slots=True)
class Bins:
    """Aggregates of consecutive bins that hold rows.

    Attributes:
        begins: epoch seconds of their beginnings, int64 [bins].
        sums: of the observed readings, float64 [bins, N, C].
        counts: of the observed readings, int64 [bins, N, C].
        lasts: the last observed reading, float64 [bins, N, C]; NaN without one.
    """

    begins: NDArray[np.int64]
    sums: NDArray[np.float64]
    counts: NDArray[np.int64]
    lasts: NDArray[np.float64]

    def __getitem__(self, bins: slice) -> "Bins":
        return Bins(
            begins=self.begins[bins],
            sums=self.sums[bins],
            counts=self.counts[bins],
            lasts=self.lasts[bins],
        )

    def precede(self, later: "Bins") -> "Bins":
        """These, and then the later ones, whose first bin may be the last of these."""
        if self.begins[-1] == later.begins[0]:
            later.sums[0] += self.sums[-1]
            later.counts[0] += self.counts[-1]
            later.lasts[0] = np.where(np.isnan(later.lasts[0]), self.lasts[-1], later.lasts[0])
            return later if len(self.begins) == 1 else self[:-1].precede(later)
        return Bins(
            begins=np.concatenate([self.begins, later.begins]),
            sums=np.concatenate([self.sums, later.sums]),
            counts=np.concatenate([self.counts, later.counts]),
            lasts=np.concatenate([self.lasts, later.lasts]),
        )

    def aggregate(self, how: tuple[str, ...]) -> NDArray[np.float64]:
        """Readings of the bins, [bins, N, C]."""
        values = np.where(self.counts > 0, self.sums, np.nan)
        for channel in range(values.shape[-1]):
            kind = how[channel if len(how) > 1 else 0]
            if kind == "mean":
                values[..., channel] /= np.maximum(self.counts[..., channel], 1)
            elif kind == "last":
                values[..., channel] = self.lasts[..., channel]
        return values


def bins_of(values: NDArray[np.float64], begins: NDArray[np.int64]) -> Bins:
    """The bins of rows [rows, N, C]."""
    firsts = np.flatnonzero(np.append(True, begins[1:] != begins[:-1]))
    observed = ~np.isnan(values)
    rows = np.arange(len(values), dtype=np.int64)[:, None, None]
    last = np.maximum.reduceat(np.where(observed, rows, -1), firsts, axis=0)
    lasts = np.take_along_axis(values, np.maximum(last, 0), axis=0)
    lasts[last < 0] = np.nan
    return Bins(
        begins=begins[firsts],
        sums=np.add.reduceat(np.where(observed, values, 0.0), firsts, axis=0),
        counts=np.add.reduceat(observed, firsts, axis=0, dtype=np.int64),
        lasts=lasts,
    )
