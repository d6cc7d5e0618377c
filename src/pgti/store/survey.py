"""What a look at a store shows, found in one pass over one of its channels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgti.store.coverage import CoverageSum
from pgti.store.gaps import Gap, GapFinder
from pgti.store.store import SeriesStore
from pgti.store.time_axis import SECONDS_PER_DAY, TimeAxis
from pgti.store.typical import add_by_bin, has_times_of_day, read_chunks

__all__ = ["Season", "Survey", "season_of", "survey_store"]

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Season:
    """What repeats in a series: the week by hours or days, or the year by months.

    Attributes:
        name: "week" or "year".
        part: "hour", "day" or "month".
        bins: what its parts are called.
        bins_of: the part that each row is in.
        every: one of how many bins begins a part that is worth a tick.
    """

    name: str
    part: str
    bins: Sequence[str]
    bins_of: Callable[[NDArray[np.int64]], NDArray[np.int64]]
    every: int = 1


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Survey:
    """A channel of a store at a glance.

    Attributes:
        rows: first row of each block of rows, int64 [K].
        sensors: first sensor of each block of sensors, int64 [M].
        shares: of the readings that were observed in them, [K, M].
        gaps: the longest, the longest first.
        season: what repeats; None where times are not known.
        typical: mean reading of each sensor in each bin of the season, NaN where it has none,
            [bins, N]; without a season there is one bin.
        means: mean reading of each sensor, [N].
    """

    rows: NDArray[np.int64]
    sensors: NDArray[np.int64]
    shares: NDArray[np.float64]
    gaps: list[Gap]
    season: Season | None
    typical: NDArray[np.float64]
    means: NDArray[np.float64]


def survey_store(store: SeriesStore, channel: int) -> Survey:
    """Read a channel of the whole series once, in bounded memory.

    Args:
        store: the store, which has rows.
        channel: position of the channel.
    """
    meta, season = store.meta, season_of(store.time_axis)
    num_bins = 1 if season is None else len(season.bins)
    coverage = CoverageSum(meta.num_steps, meta.num_nodes)
    gaps = GapFinder(meta.num_nodes)
    shape = (num_bins, meta.num_nodes, 1)
    sums, counts = np.zeros(shape), np.zeros(shape, dtype=np.int32)
    for rows, chunk in read_chunks(store, range(meta.num_steps)):
        values = chunk[..., [channel]]
        observed = np.isfinite(values)
        coverage.add(observed)
        gaps.add(observed[..., 0])
        bins = np.zeros(len(rows), np.int64) if season is None else season.bins_of(rows)
        add_by_bin(sums, counts, bins, values)
    with np.errstate(invalid="ignore"):  # 0 / 0: a sensor that was not observed then
        typical, means = sums / counts, sums.sum(axis=0) / counts.sum(axis=0)
    return Survey(
        rows=coverage.rows,
        sensors=coverage.sensors,
        shares=coverage.shares(1),
        gaps=gaps.longest(),
        season=season,
        typical=typical[..., 0],
        means=means[:, 0],
    )


def season_of(axis: TimeAxis) -> Season | None:
    """What repeats in a series by its times; None where they, or how far apart, are not known."""
    if axis.has_months:
        return Season(name="year", part="month", bins=_MONTHS, bins_of=axis.month_of_year)
    if has_times_of_day(axis):
        return Season(
            name="week",
            part="hour",
            bins=[f"{day} {hour:02d}:00" for day in _DAYS for hour in range(24)],
            bins_of=lambda rows: (
                axis.day_of_week(rows) * 24
                + axis.at(rows).astype("datetime64[s]").astype(np.int64) % SECONDS_PER_DAY // 3600
            ),
            every=24,
        )
    if axis.is_dated:
        return Season(name="week", part="day", bins=_DAYS, bins_of=axis.day_of_week)
    return None
