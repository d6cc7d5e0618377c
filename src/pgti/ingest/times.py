"""Turning the times of a source into whole epoch seconds, and what they say of their zone."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.errors import ConfigError, DataError

__all__ = [
    "FIRST_SECOND",
    "LAST_SECOND",
    "PER_SECOND",
    "UTC_ZONE",
    "Localizer",
    "RowLabel",
    "check_years",
    "epoch_seconds",
    "epoch_seconds_of_numbers",
    "format_interval",
    "format_seconds",
    "parse_interval",
    "parse_start",
    "zone_from_offset",
    "zone_from_tzinfo",
]

UTC_ZONE = "UTC"
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

RowLabel = Callable[[int], str]


def epoch_seconds(
    times: pd.DatetimeIndex, first_row: int, name: str, label: RowLabel
) -> NDArray[np.int64]:
    """Epoch seconds of times; those without a zone are counted as if UTC.

    Raises:
        DataError: naming the first row whose time is missing or not on a whole second.
    """
    empty = np.flatnonzero(np.asarray(times.isna()))
    if len(empty):
        raise DataError(f"{label(first_row + int(empty[0]))} of {name} has no time: give it one")
    whole = times.as_unit("s")
    uneven = np.flatnonzero(np.asarray(whole != times))
    if len(uneven):
        row = int(uneven[0])
        raise DataError(
            f"{label(first_row + row)} of {name} has the time {times[row]}: times must be on "
            "whole seconds"
        )
    return np.asarray(whole.asi8, dtype=np.int64)


def zone_from_offset(offset: timedelta) -> str | None:
    """The zone with a constant offset from UTC; None if no zone is named after it."""
    hours, rest = divmod(offset, timedelta(hours=1))
    if rest or not -12 <= hours <= 14:
        return None
    return UTC_ZONE if hours == 0 else f"Etc/GMT{-hours:+d}"  # POSIX counts westwards


def zone_from_tzinfo(info: tzinfo) -> str | None:
    """The zone of an index in memory: its name, or its constant offset; None if neither helps."""
    name = getattr(info, "key", None) or getattr(info, "zone", None)  # zoneinfo, pytz
    if isinstance(name, str):
        return name
    return zone_from_offset(info.utcoffset(None)) if isinstance(info, timezone) else None


def check_years(seconds: NDArray[np.int64], first_row: int, name: str, label: RowLabel) -> None:
    """Refuse times that ISO 8601 cannot write.

    Raises:
        DataError: naming the first row outside the years 1 to 9999.
    """
    outside = np.flatnonzero((seconds < FIRST_SECOND) | (seconds > LAST_SECOND))
    if len(outside):
        row = int(outside[0])
        raise DataError(
            f"{label(first_row + row)} of {name} has a time {seconds[row]} s from 1970, which is "
            "outside the years 1 to 9999: correct it"
        )


def epoch_seconds_of_numbers(
    values: NDArray[np.int64], unit: str, first_row: int, name: str, label: RowLabel
) -> NDArray[np.int64]:
    """Epoch seconds of whole numbers counted in `unit`.

    Raises:
        DataError: naming the first row that is not on a whole second.
    """
    seconds, rest = np.divmod(values, np.int64(PER_SECOND[unit]))
    uneven = np.flatnonzero(rest)
    if len(uneven):
        row = int(uneven[0])
        raise DataError(
            f"{label(first_row + row)} of {name} has the time {values[row]} {unit}: times must be "
            "on whole seconds"
        )
    return np.asarray(seconds, dtype=np.int64)


class Localizer:
    """Turns wall-clock seconds into true epoch seconds, chunk after chunk.

    In the hour that an autumn repeats, a time is taken as the first of its two meanings unless
    that would not come after the row before it.

    Args:
        time_zone: IANA name of the clock's zone.
        name: what messages call the source.
        label: how messages call a row.
    """

    def __init__(self, time_zone: str, name: str, label: RowLabel) -> None:
        self._zone = time_zone
        self._name = name
        self._label = label
        self._last: int | None = None

    def convert(self, wall: NDArray[np.int64], first_row: int) -> NDArray[np.int64]:
        """True epoch seconds of consecutive rows.

        Raises:
            DataError: naming the first row whose time the zone's clock never shows.
        """
        times = pd.DatetimeIndex(wall.astype("datetime64[s]"))
        early, late = (
            times.tz_localize(self._zone, ambiguous=np.full(len(wall), first), nonexistent="NaT")
            for first in (True, False)
        )
        skipped = np.flatnonzero(np.asarray(early.isna()))
        if len(skipped):
            row = int(skipped[0])
            raise DataError(
                f"{self._label(first_row + row)} of {self._name} has the time "
                f"{format_seconds(int(wall[row]))}, which the clocks of {self._zone} skip: "
                "check --time-zone"
            )
        seconds = np.asarray(early.as_unit("s").asi8, dtype=np.int64).copy()
        second = np.asarray(late.as_unit("s").asi8, dtype=np.int64)
        for row in np.flatnonzero(seconds != second).tolist():
            before = self._last if row == 0 else int(seconds[row - 1])
            if before is not None and seconds[row] <= before:
                seconds[row] = second[row]
        if len(seconds):
            self._last = int(seconds[-1])
        return seconds


# What ISO 8601 can write in any zone: the years 1 to 9999 without their first and last day.
FIRST_SECOND = int(datetime(1, 1, 2, tzinfo=UTC).timestamp())
LAST_SECOND = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()) - 1

_UNIT_SECONDS = {
    "s": 1,
    "sec": 1,
    "second": 1,
    "min": 60,
    "minute": 60,
    "h": 3_600,
    "hour": 3_600,
    "d": 86_400,
    "day": 86_400,
    "w": 604_800,
    "week": 604_800,
}
_INTERVAL = re.compile(r"(\d+)\s*([a-z]+?)s?", re.ASCII)
_MAX_INTERVAL_SECONDS = 3_660 * 86_400  # ten years; a longer one is mistyped


def parse_interval(text: str) -> int:
    """Seconds of an interval such as "30s", "5min", "1h", "7d" or "1w".

    Raises:
        ConfigError: if the text is no such interval, or is zero or longer than ten years.
    """
    match = _INTERVAL.fullmatch(text.strip().lower())
    if match is None or match[2] not in _UNIT_SECONDS or not match[1].strip("0"):
        raise ConfigError(
            f"the interval {text!r} is not understood: write a whole number and a unit, "
            "such as 30s, 5min, 1h or 7d"
        )
    digits = match[1].lstrip("0")
    # Python refuses to turn thousands of digits into a number.
    seconds = int(digits[:12]) * _UNIT_SECONDS[match[2]]
    if len(digits) > 12 or seconds > _MAX_INTERVAL_SECONDS:
        raise ConfigError(
            f"the interval {text[:40]!r} is longer than ten years: write the time between two "
            "rows, such as 5min"
        )
    return seconds


def format_interval(seconds: int) -> str:
    """The shortest way to write an interval, such as "5min"."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds % size == 0 and seconds:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def format_seconds(seconds: int) -> str:
    """Epoch seconds as ISO 8601, without a zone."""
    return datetime.fromtimestamp(seconds, tz=UTC).replace(tzinfo=None).isoformat()


def parse_start(text: str, time_zone: str | None) -> int:
    """Epoch seconds of a wall-clock time such as "2025-10-01T00:00".

    Args:
        text: ISO 8601 date or date and time, to the second, without an offset.
        time_zone: IANA name of the zone whose wall clock it is; None counts it as if UTC.

    Raises:
        ConfigError: if the text is no such time.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(
            f"the start {text!r} is not understood: write ISO 8601, such as 2025-10-01T00:00"
        ) from None
    if moment.tzinfo is not None or moment.microsecond:
        raise ConfigError(
            f"the start {text!r} has an offset or parts of a second: write the wall-clock time "
            "to the second, and name the zone with --time-zone"
        )
    if not FIRST_SECOND <= int(moment.replace(tzinfo=UTC).timestamp()) <= LAST_SECOND:
        raise ConfigError(
            f"the start {text!r} is on the first day of year 1 or the last of 9999, which other "
            "zones cannot write: choose a time between"
        )
    zone = UTC if time_zone is None else ZoneInfo(time_zone)
    return int(moment.replace(tzinfo=zone).timestamp())
