"""Turning the times of a source into whole epoch seconds."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.errors import DataError
from pgti.ingest.durations import format_seconds

__all__ = [
    "UTC_ZONE",
    "Localiser",
    "epoch_unit",
    "parse_times",
    "seconds_of",
    "seconds_of_numbers",
    "zone_of_offset",
    "zone_of_text",
]

UTC_ZONE = "UTC"
_EPOCH_UNITS = ((1e8, 1e11, "s"), (1e11, 1e14, "ms"), (1e14, 1e17, "us"), (1e17, 1e20, "ns"))
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

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


def parse_times(
    cells: "pd.Series[str]",
    time_format: str | None,
    aware: bool,
    **place: Any,  # noqa: ANN401 - passed on to seconds_of
) -> NDArray[np.int64]:
    """Epoch seconds of times written as text.

    Args:
        cells: the text of each row.
        time_format: as for `strptime`; None for ISO 8601.
        aware: whether the text carries offsets from UTC.
        place: `first_row`, `name` and `label`, for messages.

    Raises:
        DataError: naming the first row that holds no such time.
    """
    parsed = pd.to_datetime(cells, format=time_format or "ISO8601", errors="coerce", utc=aware)
    unknown = np.flatnonzero(parsed.isna().to_numpy())
    if len(unknown):
        row = int(unknown[0])
        rule = f"format {time_format!r}" if time_format else "ISO 8601 (2012-03-01T00:05)"
        raise DataError(
            f"{place['label'](place['first_row'] + row)} of {place['name']} has the time "
            f"{cells.iloc[row]!r}, which is not {rule}: name the format with time_format"
        )
    return seconds_of(pd.DatetimeIndex(parsed), **place)


def zone_of_text(cell: str, time_format: str | None, name: str) -> str | None:
    """The zone that a written time's offset from UTC stands for; None without an offset.

    Raises:
        DataError: if the offset is no whole hour, so that no zone is named after it.
    """
    try:
        moment = (
            datetime.fromisoformat(cell)
            if time_format is None
            else datetime.strptime(cell, time_format)
        )
    except ValueError:
        return None
    offset = moment.utcoffset()
    if offset is None:
        return None
    return zone_of_offset(offset, name)


def zone_of_offset(offset: timedelta, name: str) -> str:
    """The zone with a constant offset from UTC.

    Raises:
        DataError: if the offset is no whole hour, so that no zone is named after it.
    """
    hours, rest = divmod(offset, timedelta(hours=1))
    if rest:
        raise DataError(
            f"{name} has times with the offset {offset} from UTC: name their zone with time_zone"
        )
    return UTC_ZONE if hours == 0 else f"Etc/GMT{-hours:+d}"  # POSIX counts westwards


def epoch_unit(value: float) -> str | None:
    """The unit in which `value` is an epoch time between 1973 and 5138; None if in none."""
    for low, high, unit in _EPOCH_UNITS:
        if low <= abs(value) < high:
            return unit
    return None


def seconds_of_numbers(
    values: NDArray[np.int64], unit: str, first_row: int, name: str, label: RowLabel
) -> NDArray[np.int64]:
    """Epoch seconds of whole numbers counted in `unit`.

    Raises:
        DataError: naming the first row that is not on a whole second.
    """
    seconds, rest = np.divmod(values, np.int64(_PER_SECOND[unit]))
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
                "check time_zone"
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
