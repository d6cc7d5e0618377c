"""Wall clocks of time zones: from true epoch seconds to what a clock shows, and back."""

from datetime import UTC, datetime
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "SECONDS_PER_DAY",
    "SECONDS_PER_WEEK",
    "has_clock_changes",
    "is_zone",
    "true_seconds",
    "wall_seconds",
]

SECONDS_PER_DAY = 86_400
SECONDS_PER_WEEK = 7 * SECONDS_PER_DAY


def is_zone(name: str) -> bool:
    """Whether a time zone has that IANA name."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; not a relative path; a directory of zones
        return False
    return True


def wall_seconds(seconds: NDArray[np.int64], time_zone: str | None) -> NDArray[np.int64]:
    """What the clock of a zone shows at true epoch seconds, counted as if it were UTC.

    Args:
        seconds: of any shape.
        time_zone: IANA name; None returns the seconds themselves, which are wall clock then.
    """
    if time_zone is None:
        return seconds
    import pandas as pd  # noqa: PLC0415 - options are read without it

    times = pd.DatetimeIndex(seconds.ravel().astype("datetime64[s]"), tz="UTC")
    wall = times.tz_convert(time_zone).tz_localize(None).as_unit("s")
    return np.asarray(wall.asi8, dtype=np.int64).reshape(seconds.shape)


def true_seconds(
    wall: NDArray[np.int64],
    time_zone: str | None,
    skipped: Literal["shift_forward", "shift_backward"] = "shift_forward",
) -> NDArray[np.int64]:
    """Epoch seconds at which the clock of a zone shows a time, the first of them if there are two.

    Args:
        wall: what the clock shows, int64 [T].
        time_zone: IANA name; None returns `wall` itself.
        skipped: whether a time that the clock skips means the first second after the jump, or the
            last before it.
    """
    if time_zone is None:
        return wall
    import pandas as pd  # noqa: PLC0415 - options are read without it

    times = pd.DatetimeIndex(wall.astype("datetime64[s]")).tz_localize(
        time_zone, ambiguous=np.ones(len(wall), dtype=np.bool_), nonexistent=skipped
    )
    return np.asarray(times.as_unit("s").asi8, dtype=np.int64)


def has_clock_changes(time_zone: str | None, second: int) -> bool:
    """Whether the clocks of a zone change in the year that follows a time."""
    if time_zone is None:
        return False
    zone = ZoneInfo(time_zone)
    months = range(second, second + 366 * SECONDS_PER_DAY, 30 * SECONDS_PER_DAY)
    return (
        len({datetime.fromtimestamp(each, UTC).astimezone(zone).utcoffset() for each in months}) > 1
    )
