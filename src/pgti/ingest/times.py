"""Turning the times of a source into whole epoch seconds, and what they say of their zone."""

from collections.abc import Callable
from datetime import timedelta, timezone, tzinfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.errors import DataError
from pgti.ingest.time_spelling import FIRST_SECOND, LAST_SECOND, format_seconds

__all__ = [
    "PER_SECOND",
    "UTC_ZONE",
    "Localiser",
    "RowLabel",
    "check_years",
    "seconds_of",
    "seconds_of_numbers",
    "zone_of_info",
    "zone_of_offset",
]

UTC_ZONE = "UTC"
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

RowLabel = Callable[[int], str]


def seconds_of(
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


def zone_of_offset(offset: timedelta) -> str | None:
    """The zone with a constant offset from UTC; None if no zone is named after it."""
    hours, rest = divmod(offset, timedelta(hours=1))
    if rest or not -12 <= hours <= 14:
        return None
    return UTC_ZONE if hours == 0 else f"Etc/GMT{-hours:+d}"  # POSIX counts westwards


def zone_of_info(info: tzinfo) -> str | None:
    """The zone of an index in memory: its name, or its constant offset; None if neither helps."""
    name = getattr(info, "key", None) or getattr(info, "zone", None)  # zoneinfo, pytz
    if isinstance(name, str):
        return name
    return zone_of_offset(info.utcoffset(None)) if isinstance(info, timezone) else None


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


def seconds_of_numbers(
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


class Localiser:
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
