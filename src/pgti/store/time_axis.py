"""The time of each row, regular, irregular or unknown."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import ConfigError, DataError, option
from pgti.store.clock import SECONDS_PER_DAY, SECONDS_PER_WEEK, is_zone, wall_seconds
from pgti.store.time_rule import TimeRule, format_interval

__all__ = [
    "MONTHS_PER_YEAR",
    "SECONDS_PER_DAY",
    "SECONDS_PER_WEEK",
    "TimeAxis",
    "format_interval",
    "is_zone",
    "parse_time",
]

_MONDAY_OFFSET = 3 * SECONDS_PER_DAY  # 1970-01-01 was a Thursday
MONTHS_PER_YEAR = 12
_MOSTLY = 0.9  # of the steps are the interval, where times without a rule continue at it


@dataclass(frozen=True, kw_only=True, eq=False)
class TimeAxis:
    """The time of every row of a series.

    Times without a zone are wall-clock times, counted as if they were UTC; with a zone, the
    stored seconds are true epoch seconds and `at` converts them to the zone's wall clock.

    Attributes:
        num_steps: rows, T.
        start_seconds: epoch seconds of row 0, or None where times are unknown.
        interval_seconds: seconds from a row to the next, or None where unknown; where `seconds`
            is given, the most common distance.
        time_zone: IANA name, or None.
        seconds: epoch seconds of every row, int64 [T], strictly increasing; only where the
            interval is not constant.
        rule: that the times follow, where they do not continue at the interval: calendar months,
            working days, hours of service; None where there is none.

    Raises:
        DataError: if the parts contradict one another.
    """

    num_steps: int
    start_seconds: int | None = None
    interval_seconds: int | None = None
    time_zone: str | None = None
    seconds: NDArray[np.int64] | None = None
    rule: TimeRule | None = None

    def __post_init__(self) -> None:
        if self.interval_seconds is not None and self.interval_seconds < 1:
            raise DataError(
                f"the interval is {self.interval_seconds} s: it must be at least one second"
            )
        if self.start_seconds is not None and self.interval_seconds is None:
            raise DataError(
                f"the series has a start but no interval: name it, for example "
                f"{option('interval', '5min')}"
            )
        if self.seconds is not None and len(self.seconds) != self.num_steps:
            raise DataError(
                f"the time axis has {count_of(len(self.seconds), 'time')} for "
                f"{count_of(self.num_steps, 'row')}"
            )
        if self.seconds is not None and (
            self.seconds.ndim != 1
            or self.seconds.dtype != np.int64
            or not (self.seconds[1:] > self.seconds[:-1]).all()
        ):
            raise DataError("the times of the rows must be whole seconds that increase")
        if self.rule is not None and self.start_seconds is None:
            raise DataError("the times of the series follow a rule and are not known")

    @property
    def is_dated(self) -> bool:
        """Whether the time of each row is known."""
        return self.start_seconds is not None

    @cached_property
    def continues(self) -> bool:
        """Whether it is known what comes after the last row.

        It is where times follow a rule, and where at least nine steps of ten are the interval.
        """
        if self.rule is not None or self.seconds is None or self.num_steps < 2:
            return self.is_dated
        return bool((np.diff(self.seconds) == self.interval_seconds).mean() >= _MOSTLY)

    @cached_property
    def holes(self) -> NDArray[np.int64]:
        """The rows that a hole follows, rising, int64.

        A hole is a step longer than the rule or the interval. Times that follow neither have none.
        """
        if self.seconds is None or self.num_steps < 2 or not self.continues:
            return np.empty(0, dtype=np.int64)
        if self.rule is not None:
            return np.flatnonzero(self.rule.lacks(self.seconds, self.time_zone))
        return np.flatnonzero(np.diff(self.seconds) > (self.interval_seconds or 0))

    @property
    def step_seconds(self) -> int | None:
        """The time between two rows that follow one another; None if it varies or is unknown."""
        interval = self.interval_seconds
        if self.rule is None or (interval is not None and interval < SECONDS_PER_DAY):
            return interval if self.continues or not self.is_dated else None
        every_day = self.rule.after(self.last_seconds, 8, None)
        return interval if len(set(np.diff(every_day).tolist())) == 1 else None

    @property
    def last_seconds(self) -> int:
        """Stored seconds of the last row.

        Raises:
            ConfigError: if the series has no times.
        """
        return int(self.seconds_at(np.array([self.num_steps - 1], dtype=np.int64))[0])

    def next_seconds(self, count: int) -> NDArray[np.int64]:
        """Stored seconds of the `count` rows after the last: by the rule, else at the interval.

        Raises:
            ConfigError: if the series has no times.
        """
        return self.seconds_at(self.num_steps + np.arange(count, dtype=np.int64))

    def describe(self) -> str:
        """First and last time and what lies between two rows, in one line."""
        if not self.is_dated:
            return "unknown"
        first, last = (self.isoformat(row) for row in (0, self.num_steps - 1))
        kind = f"every {format_interval(self.interval_seconds or 0)}"
        if self.rule is not None:
            kind = self.rule.describe()
        elif self.seconds is not None:
            kind = f"irregular, mostly {kind}" if self.continues else "irregular"
        if len(self.holes):
            kind += f", {count_of(len(self.holes), 'hole')}"
        return f"{first} to {last}, {kind}"

    @property
    def title(self) -> str:
        """What an axis of these times is called: "time (Europe/Berlin)", or "row"."""
        if not self.is_dated:
            return "row"
        return f"time ({self.time_zone})" if self.time_zone else "time"

    def extent(self, first: int = 0) -> str:
        """The times of a row and of the last one as ` from A to B`; empty if they are unknown."""
        if not self.is_dated:
            return ""
        return f" from {self.isoformat(first)} to {self.isoformat(self.num_steps - 1)}"

    def isoformat(self, row: int) -> str:
        """Time of a row in ISO 8601: wall clock, with its offset from UTC where there is a zone."""
        stored = int(self.seconds_at(np.array([row], dtype=np.int64))[0])
        zone = UTC if self.time_zone is None else ZoneInfo(self.time_zone)
        time = datetime.fromtimestamp(stored, zone)
        return (time if self.time_zone else time.replace(tzinfo=None)).isoformat(" ")

    @property
    def steps_per_day(self) -> int | None:
        """Rows of a day; None where that is not a whole number, or times are unknown."""
        interval = self.interval_seconds
        if not self.is_dated or interval is None or SECONDS_PER_DAY % interval:
            return None
        return SECONDS_PER_DAY // interval

    def seconds_at(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Stored seconds of the given rows; those past the end follow the rule or the interval.

        Raises:
            ConfigError: if the series has no times.
        """
        if self.start_seconds is None or self.interval_seconds is None:
            raise ConfigError(
                f"the series has no times, and this needs them: ingest it with {option('start')} "
                f"and "
                f"{option('interval')}"
            )
        rows = np.asarray(rows, dtype=np.int64)
        last = self.num_steps - 1
        beyond = np.clip(rows - last, 0, None)
        if self.seconds is None or not self.num_steps:
            end = self.start_seconds + last * self.interval_seconds
            times = self.start_seconds + rows * np.int64(self.interval_seconds)
        else:
            end = int(self.seconds[last])
            known: NDArray[np.int64] = self.seconds[np.clip(rows, 0, last)]
            times = known + beyond * np.int64(self.interval_seconds)
        if self.rule is not None and beyond.any():
            end = end if self.num_steps else self.start_seconds - 1
            later = self.rule.after(end, int(beyond.max()), self.time_zone)
            times = np.where(beyond > 0, later[np.maximum(beyond, 1) - 1], times)
        return times

    def before(self, row: int, count: int) -> "TimeAxis":
        """The `count` times before a row, by the rule, else at the interval; unknown like its own.

        Args:
            row: such as the first, or one after a hole.
            count: how many times.
        """
        if self.start_seconds is None or self.interval_seconds is None:
            return replace(self, num_steps=count)
        end = int(self.seconds_at(np.array([row]))[0])
        if self.rule is None:
            first = end - count * self.interval_seconds
            return replace(self, num_steps=count, start_seconds=first, seconds=None)
        seconds = self.rule.before(end, count, self.time_zone)
        first = int(seconds[0]) if count else end
        return replace(self, num_steps=count, start_seconds=first, seconds=seconds)

    def at(self, rows: NDArray[np.int64]) -> NDArray[np.datetime64]:
        """Wall-clock times of the given rows, datetime64[s], of the same shape.

        Raises:
            ConfigError: if the series has no times.
        """
        return self._wall_seconds(rows).astype("datetime64[s]")

    def row_of(self, time: np.datetime64) -> int:
        """First row whose wall clock shows `time` or later; `num_steps` if there is none.

        Where the clock goes back, it shows an hour twice: a time in it means the first pass, and
        the second only where the series begins after the first (or has a gap there). A time that
        the clock skips means the row right after the jump.

        Raises:
            ConfigError: if the series has no times.
        """
        wanted = int(time.astype("datetime64[s]").astype(np.int64))
        if self.time_zone is None:
            return self._first_row_from(wanted)
        # The wall clock of a zone is not monotonic but differs from UTC by less than a day: only
        # rows within a day of the wanted time need their wall clock.
        first = self._first_row_from(wanted - SECONDS_PER_DAY)
        stop = self._first_row_from(wanted + SECONDS_PER_DAY)
        late = np.flatnonzero(self._wall_seconds(np.arange(first, stop)) >= wanted)
        return first + int(late[0]) if len(late) else stop

    def _first_row_from(self, stored_seconds: int) -> int:
        """First row at or after a stored time; `num_steps` if there is none."""
        first = int(self.seconds_at(np.zeros(1, dtype=np.int64))[0])
        if self.seconds is not None:
            return int(np.searchsorted(self.seconds, stored_seconds))
        interval = self.interval_seconds or 1
        return min(max(0, -(-(stored_seconds - first) // interval)), self.num_steps)

    def time_of_day(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Fraction of the wall-clock day that has passed, float32 in [0, 1)."""
        seconds = self._wall_seconds(rows) % SECONDS_PER_DAY
        return (seconds / SECONDS_PER_DAY).astype(np.float32)

    def day_of_week(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Day of the week, Monday 0 to Sunday 6."""
        return self._seconds_of_week(rows) // SECONDS_PER_DAY

    @property
    def num_week_bins(self) -> int:
        """Intervals in a week; 1 where times are unknown or an interval exceeds a week."""
        if not self.is_dated or self.interval_seconds is None:
            return 1
        return max(1, -(-SECONDS_PER_WEEK // self.interval_seconds))

    def week_bins(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The interval of the week that each row is in: 0..num_week_bins-1 from Monday 00:00."""
        rows = np.asarray(rows, dtype=np.int64)
        if self.num_week_bins == 1 or self.interval_seconds is None:
            return np.zeros(rows.shape, dtype=np.int64)
        return self._seconds_of_week(rows) // self.interval_seconds

    @property
    def has_months(self) -> bool:
        """Whether rows are a week or more apart, so that the season that repeats is the year."""
        interval = self.interval_seconds
        return self.is_dated and interval is not None and interval >= SECONDS_PER_WEEK

    @property
    def num_season_bins(self) -> int:
        """Months of a year, where rows are a week or more apart; else intervals of a week."""
        return MONTHS_PER_YEAR if self.has_months else self.num_week_bins

    def season_bins(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The month of each row, from January as 0, or its interval of the week."""
        return self.month_of_year(rows) if self.has_months else self.week_bins(rows)

    def month_of_year(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Month of each row on the wall clock, from January as 0."""
        months = self.at(rows).astype("datetime64[M]").astype(np.int64)
        return np.asarray(months % MONTHS_PER_YEAR, dtype=np.int64)

    def _seconds_of_week(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return (self._wall_seconds(rows) + _MONDAY_OFFSET) % SECONDS_PER_WEEK

    def _wall_seconds(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return wall_seconds(self.seconds_at(rows), self.time_zone)


def parse_time(name: str, text: str) -> np.datetime64:
    """A wall-clock time, datetime64[s].

    Raises:
        ConfigError: if `text` is not an ISO 8601 time.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{name} is {text!r}: it must be a time such as 2025-10-22 or 2025-10-22T06:00"
        ) from None
    if moment.tzinfo is not None:
        raise ConfigError(
            f"{name} is {text!r}: it must be a wall-clock time without an offset, in the series' "
            "own zone"
        )
    return np.datetime64(moment, "s")
