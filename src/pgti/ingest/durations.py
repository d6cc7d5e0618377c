"""Intervals and starts as people write them: "5min", "1h", "7d"; "2025-10-01T00:00"."""

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from pgti.errors import ConfigError

__all__ = ["format_interval", "format_seconds", "parse_interval", "parse_start"]

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


def parse_interval(text: str) -> int:
    """Seconds of an interval such as "30s", "5min", "1h", "7d" or "1w".

    Raises:
        ConfigError: if the text is no such interval, or is zero.
    """
    match = _INTERVAL.fullmatch(text.strip().lower())
    if match is None or match[2] not in _UNIT_SECONDS or int(match[1]) == 0:
        raise ConfigError(
            f"the interval {text!r} is not understood: write a whole number and a unit, "
            "such as 30s, 5min, 1h or 7d"
        )
    return int(match[1]) * _UNIT_SECONDS[match[2]]


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
            "to the second, and name the zone with time_zone"
        )
    zone = UTC if time_zone is None else ZoneInfo(time_zone)
    return int(moment.replace(tzinfo=zone).timestamp())
