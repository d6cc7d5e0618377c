"""Times of a source as whole epoch seconds: intervals, instants, zones, and their checks."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from pgti.errors import ConfigError, DataError, option

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "FIRST_SECOND",
    "LAST_SECOND",
    "PER_SECOND",
    "Localizer",
    "RowLabels",
    "check_order",
    "check_start",
    "check_years",
    "epoch_seconds",
    "format_seconds",
    "parse_interval",
    "parse_start",
    "show_time",
    "zone_from_tzinfo",
]

# What ISO 8601 can write in any zone: the years 1 to 9999 without their first and last day.
FIRST_SECOND = int(datetime(1, 1, 2, tzinfo=UTC).timestamp())
LAST_SECOND = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()) - 1

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_INTERVAL = re.compile(r"(\d+)\s*(s|sec|second|min|minute|h|hour|d|day|w|week)s?", re.ASCII)
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}  # by first letter
_MAX_CLOCK_CHANGE_SECONDS = 3_600
_MAX_INTERVAL_SECONDS = 3_660 * 86_400  # ten years; a longer one is mistyped


@dataclass(frozen=True, slots=True)
class RowLabels:
    """What messages call the rows of a source: "row 3 of a.npy", "line 4 of a.csv".

    Attributes:
        source: name of the source.
        first_line: number of the line that holds row 0; None where a source has no lines.
        written: reads the time of a row again, as the source writes it, where that may be another
            text than that of the clock on which times are shown.
    """

    source: str
    first_line: int | None = None
    written: Callable[[int], str] | None = field(default=None, compare=False)

    def short(self, row: int) -> str:
        """The row without its source: "line 4"."""
        return f"row {row}" if self.first_line is None else f"line {self.first_line + row}"

    def __call__(self, row: int) -> str:
        """The row and its source: "line 4 of a.csv"."""
        return f"{self.short(row)} of {self.source}"

    def time(self, row: int, second: int | np.int64, time_zone: str | None) -> str:
        """The time of a row as the source writes it, else as the clock of a zone shows it."""
        return show_time(second, time_zone) if self.written is None else self.written(row)

    def refuse_where(
        self, wrong: NDArray[np.bool_], first_row: int, problem: Callable[[int], str]
    ) -> None:
        """Refuse a chunk of rows if any of them is wrong.

        Args:
            wrong: bool [rows].
            first_row: number of the chunk's first row.
            problem: what is wrong with the row at a position in the chunk, as "has ...".

        Raises:
            DataError: naming the first wrong row and its problem.
        """
        places = np.flatnonzero(wrong)
        if len(places):
            place = int(places[0])
            raise DataError(f"{self(first_row + place)} {problem(place)}")


def parse_interval(text: str) -> int:
    """Seconds of an interval such as "30s", "5min", "1h", "7d" or "1w".

    Raises:
        ConfigError: if the text is not a whole number and a unit, is zero, or exceeds ten years.
    """
    match = _INTERVAL.fullmatch(text.strip().lower())
    if match is None or not match[1].strip("0"):
        raise ConfigError(
            f"the interval {text!r} is not valid: write it as a whole number and a unit, "
            "such as 5min"
        )
    digits = match[1].lstrip("0")
    # Python refuses to convert thousands of digits.
    seconds = int(digits[:12]) * _UNIT_SECONDS[match[2][0]]
    if len(digits) > 12 or seconds > _MAX_INTERVAL_SECONDS:
        raise ConfigError(
            f"the interval {text[:40]!r} is longer than ten years: it is the time between two rows"
        )
    return seconds


def format_seconds(seconds: int) -> str:
    """Epoch seconds as ISO 8601, without a zone."""
    return str(np.datetime64(seconds, "s"))


def check_start(labels: RowLabels, first: int, start: str | None, time_zone: str | None) -> None:
    """Refuse a start that is not the time of the first row of a source with times.

    Args:
        labels: of the source.
        first: epoch second of its first row.
        start: wall-clock time that the user gave, if any.
        time_zone: zone of that clock.

    Raises:
        DataError: naming both times.
    """
    if start is None or (given := parse_start(start, time_zone)) == first:
        return
    raise DataError(
        f"{labels.source} starts at {labels.time(0, first, time_zone)} and start is "
        f"{show_time(given, time_zone)}: leave {option('start')} out, or correct it"
    )


def parse_start(text: str, time_zone: str | None) -> int:
    """Epoch seconds of a wall-clock time such as "2025-10-01T00:00".

    Args:
        text: ISO 8601 date or date and time, to the second, without an offset.
        time_zone: IANA name of the zone of the wall clock; None reads it as UTC.

    Raises:
        ConfigError: if the text is not such a time.
    """
    try:
        time = datetime.fromisoformat(text.strip())
        is_between = FIRST_SECOND <= time.replace(tzinfo=UTC).timestamp() <= LAST_SECOND
    except ValueError:
        is_between = False
    if not is_between:
        raise ConfigError(
            f"the start {text!r} is not valid: write ISO 8601, such as 2025-10-01T00:00, between "
            "the first day of year 1 and the last of 9999"
        )
    if time.tzinfo is not None or time.microsecond:
        raise ConfigError(
            f"the start {text!r} has an offset or fractions of a second: write the wall-clock "
            f"time to the second, and name the zone with {option('time_zone')}"
        )
    zone = UTC if time_zone is None else ZoneInfo(time_zone)
    return int(time.replace(tzinfo=zone).timestamp())


def epoch_seconds(
    times: "pd.DatetimeIndex | NDArray[np.datetime64]", first_row: int, labels: RowLabels
) -> NDArray[np.int64]:
    """Epoch seconds of the times of a chunk; times without a zone count as UTC.

    Raises:
        DataError: naming the first row whose time is missing or not on a whole second.
    """
    import pandas as pd  # noqa: PLC0415 - options are read without it

    times = pd.DatetimeIndex(times)
    missing = np.asarray(times.isna())
    labels.refuse_where(missing, first_row, lambda _: "has no time: give it one")
    whole = times.as_unit("s")

    def describe(row: int) -> str:
        # A Timestamp of a year beyond Python's has no text.
        time = np.datetime64(int(times.asi8[row]), times.unit)
        zone = "" if times.tz is None else " UTC"
        return f"has the time {time}{zone}: times must be on whole seconds"

    labels.refuse_where(np.asarray(whole != times), first_row, describe)
    return np.asarray(whole.asi8, dtype=np.int64)


def zone_from_tzinfo(info: tzinfo | None) -> str | None:
    """The IANA name of a zone or a constant offset; None without one, as for half hours."""
    name = getattr(info, "key", None) or getattr(info, "zone", None)  # zoneinfo, pytz
    if isinstance(name, str):
        return name
    if not isinstance(info, timezone):
        return None
    hours, rest = divmod(info.utcoffset(None), timedelta(hours=1))
    if rest or not -12 <= hours <= 14:
        return None
    return "UTC" if hours == 0 else f"Etc/GMT{-hours:+d}"  # POSIX counts westwards


class Localizer:
    """Turns wall-clock seconds into true epoch seconds, chunk by chunk.

    In the hour that an autumn repeats, a time has its first meaning unless that would not come
    after the row before it. Where the rows begin in that hour and leave it without repeating it,
    they have their second meaning, which is next to the row after the hour.

    Args:
        time_zone: IANA name of the clock's zone.
        labels: what messages call the rows.

    Attributes:
        is_guess: whether all rows so far are of that hour and could have the other meaning.
    """

    def __init__(self, time_zone: str, labels: RowLabels) -> None:
        self._zone = time_zone
        self._labels = labels
        self._last: int | None = None
        self.is_guess = False

    def begins_twice(self, wall: NDArray[np.int64]) -> bool:
        """Whether the first of the rows is of the hour that is there twice."""
        early, late = self._meanings(wall[:1])
        return bool((early != late).any()) and not early.isna().any()

    def begin(self, wall: NDArray[np.int64], *, is_second: bool) -> NDArray[np.int64]:
        """True epoch seconds of rows whose first one has its first or its second meaning."""
        early, _ = self._meanings(wall[:1])
        first = int(early.as_unit("s").asi8[0])
        self._last = first if is_second else first - 1
        return self.convert(wall, 0)

    def convert(self, wall: NDArray[np.int64], first_row: int) -> NDArray[np.int64]:
        """True epoch seconds of consecutive rows.

        Raises:
            DataError: naming the first row whose time the zone's clock never shows.
        """
        early, late = self._meanings(wall)
        self._labels.refuse_where(
            np.asarray(early.isna()),
            first_row,
            lambda row: (
                f"has the time {format_seconds(int(wall[row]))}, which the clocks of "
                f"{self._zone} skip: check {option('time_zone')}"
            ),
        )
        seconds: NDArray[np.int64] = np.array(early.as_unit("s").asi8, dtype=np.int64)
        second: Any = late.as_unit("s").asi8
        is_twice = seconds != second
        if self._last is None and len(wall) and is_twice[0]:
            (others,) = np.nonzero(~is_twice)
            stop = int(others[0]) if len(others) else len(wall)
            is_rising = bool((np.diff(wall[:stop]) > 0).all())
            if is_rising and stop < len(wall):
                seconds[:stop] = second[:stop]
            self.is_guess = is_rising and stop == len(wall)
        elif is_twice.size:
            self.is_guess = False
        for row in np.flatnonzero(is_twice).tolist():
            before = self._last if row == 0 else int(seconds[row - 1])
            if before is not None and seconds[row] <= before:
                seconds[row] = second[row]
        if len(seconds):
            self._last = int(seconds[-1])
        return seconds

    def _meanings(self, wall: NDArray[np.int64]) -> tuple[Any, Any]:
        """The times in the zone, as early and as late as they may be; NaT where it skips them."""
        import pandas as pd  # noqa: PLC0415 - options are read without it

        times = pd.DatetimeIndex(wall.astype("datetime64[s]"))
        early, late = (
            times.tz_localize(self._zone, ambiguous=np.full(len(wall), first), nonexistent="NaT")
            for first in (True, False)
        )
        return early, late


def show_time(second: int | np.int64, time_zone: str | None) -> str:
    """Epoch seconds as the clock of a zone shows them, with the offset from UTC, in ISO 8601."""
    if time_zone is None:
        return format_seconds(int(second))
    return datetime.fromtimestamp(int(second), ZoneInfo(time_zone)).isoformat()


def check_years(labels: RowLabels, seconds: NDArray[np.int64], first_row: int) -> None:
    """Refuse times that no calendar writes.

    Args:
        labels: what messages call the rows.
        seconds: epoch seconds of consecutive rows.
        first_row: number of the first of them.

    Raises:
        DataError: naming the first row whose time is outside the years 1 to 9999.
    """
    labels.refuse_where(
        (seconds < FIRST_SECOND) | (seconds > LAST_SECOND),
        first_row,
        lambda row: (
            f"has a time {seconds[row]} s from 1970, outside the years 1 to 9999: correct it"
        ),
    )


def check_order(
    labels: RowLabels, times: NDArray[np.int64], first_row: int, time_zone: str | None
) -> None:
    """Refuse times that repeat or go back.

    Args:
        labels: what messages call the rows.
        times: epoch seconds of consecutive rows.
        first_row: number of the first of them.
        time_zone: of the clock on which messages show times.

    Raises:
        DataError: naming both rows and their times.
    """
    steps = np.diff(times)
    wrong = np.flatnonzero(steps <= 0)
    if not len(wrong):
        return
    place = int(wrong[0])
    row = first_row + place
    earlier, later = (labels.time(row + each, times[place + each], time_zone) for each in (0, 1))
    rows = f"{labels.short(row)} and {labels(row + 1)}"
    if steps[place] == 0:
        raise DataError(f"{rows} have the same time {earlier}: each time may occur once")
    advice = "sort the rows by time"
    if time_zone is None and steps[place] >= -_MAX_CLOCK_CHANGE_SECONDS:
        advice += (
            f", or name the zone of a clock that was put back with "
            f"{option('time_zone', 'Europe/Berlin')}"
        )
    raise DataError(f"{rows} have the times {earlier} and {later}: {advice}")
