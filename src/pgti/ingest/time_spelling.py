"""Intervals and instants as people write them: "5min", "1h", "7d"; "2025-10-01T00:00"."""

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from pgti.errors import ConfigError

__all__ = [
    "FIRST_SECOND",
    "LAST_SECOND",
    "format_interval",
    "format_seconds",
    "parse_interval",
    "parse_start",
]

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
