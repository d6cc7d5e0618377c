"""Times as NetCDF and CF store them: numbers of a unit since a date, on one of several calendars.

Source: "CF Metadata Conventions" 1.11, section 4.4.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import DataError, MissingExtraError
from pgti.ingestion.instants import RowLabels, epoch_seconds

__all__ = ["CfTimes", "civil_times", "decode_times", "has_offset", "is_since"]

_SINCE = re.compile(r"\s*([a-z]+)\s+since\s+(.+?)\s*", re.IGNORECASE)
_DATE = re.compile(
    r"(\d{1,4})-(\d{1,2})-(\d{1,2})"
    r"(?:[T ]+(\d{1,2})(?::(\d{1,2}))?(?::(\d{1,2})(?:\.(\d*))?)?)?"
    r"\s*(?:(UTC|GMT|Z)|([+-])(\d{1,2}):?(\d{2})?)?",
    re.IGNORECASE,
)
_UNITS = {
    **dict.fromkeys(("days", "day", "d"), 86_400.0),
    **dict.fromkeys(("hours", "hour", "hrs", "hr", "h"), 3_600.0),
    **dict.fromkeys(("minutes", "minute", "mins", "min"), 60.0),
    **dict.fromkeys(("seconds", "second", "secs", "sec", "s"), 1.0),
    **dict.fromkeys(("milliseconds", "millisecond", "millisec", "msec", "ms"), 1e-3),
    **dict.fromkeys(("microseconds", "microsecond", "microsec", "us"), 1e-6),
    **dict.fromkeys(("nanoseconds", "nanosecond", "ns"), 1e-9),
}
_MONTHS = {"months": 1, "month": 1, "years": 12, "year": 12}
_CIVIL = ("standard", "gregorian", "proleptic_gregorian")
_GREGORIAN_SINCE = datetime(1582, 10, 15, tzinfo=UTC)  # standard calendars are Julian before
_SHORTER = ("noleap", "365_day", "all_leap", "366_day", "360_day")
_FARTHEST_SECONDS = 4e11  # more than 12,000 years
_ROUNDED_SECONDS = 1e-3  # 1/24 day is no binary fraction
_COARSE_SECONDS = (86_400, 3_600, 60, 1)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class CfTimes:
    """Times of rows.

    Attributes:
        seconds: epoch seconds, int64 [T]; UTC where the unit has no offset.
        notes: what a user should know about them.
    """

    seconds: NDArray[np.int64]
    notes: tuple[str, ...] = ()


def is_since(units: object) -> bool:
    """Whether a unit is one of times, such as "hours since 2000-01-01"."""
    return isinstance(units, str) and _SINCE.fullmatch(units) is not None


def has_offset(units: object) -> bool:
    """Whether a unit of times says how far its date is from UTC."""
    match = _SINCE.fullmatch(units) if isinstance(units, str) else None
    date = None if match is None else _DATE.fullmatch(match[2].strip())
    return date is not None and any(date.group(8, 9))


def decode_times(numbers: NDArray[Any], units: str, calendar: str, name: str) -> CfTimes:
    """The times that numbers of a unit since a date mean.

    Args:
        numbers: of the rows, [T].
        units: such as "hours since 1900-01-01".
        calendar: as CF names it.
        name: what messages call their array.

    Raises:
        DataError: if the unit cannot be read, the calendar has dates that no civil one has, or a
            time is missing or not on a whole second.
        MissingExtraError: if the calendar needs cftime, which is not installed.
    """
    labels = RowLabels(name)
    if numbers.dtype.kind not in "iuf":
        raise DataError(f"{name} holds {numbers.dtype} and has the unit {units!r}: give numbers")
    labels.refuse_where(~np.isfinite(numbers), 0, lambda _: "has no time: give it one")
    match = _SINCE.fullmatch(units)
    unit, date = (match[1].lower(), match[2]) if match else ("", units)
    since = _parse_date(date)
    if since is None or (unit not in _UNITS and unit not in _MONTHS):
        raise DataError(
            f"{name} has the unit {units[:60]!r}: the rule is a unit since a date, such as hours "
            "since 1970-01-01"
        )
    calendar = calendar.lower()
    if calendar not in (*_CIVIL, *_SHORTER):
        raise DataError(
            f"{name} has the calendar {calendar!r}: known are {', '.join((*_CIVIL, *_SHORTER))}"
        )
    scale = _UNITS.get(unit, 31 * 86_400.0 * _MONTHS.get(unit, 1))
    far = np.abs(numbers.astype(np.float64)) * scale > _FARTHEST_SECONDS
    labels.refuse_where(far, 0, lambda row: f"has {numbers[row]} {units}: no calendar goes so far")
    if unit in _MONTHS:
        return _months_later(numbers, since, _MONTHS[unit], units, name)
    is_proleptic = calendar == "proleptic_gregorian" or since >= _GREGORIAN_SINCE
    if calendar in _SHORTER or not is_proleptic:
        return _decode_others(numbers, units, calendar, name)
    seconds, notes = _whole_seconds(numbers, _UNITS[unit], labels)
    return CfTimes(seconds=seconds + int(since.timestamp()), notes=notes)


def civil_times(dates: Sequence[Any], calendar: str, name: str) -> CfTimes:
    """The times of dates of another calendar, by their names, where a civil calendar has them.

    Args:
        dates: with year, month, day, hour, minute, second and microsecond (cftime's), [T].
        calendar: what it is called.
        name: what messages call their array.

    Raises:
        DataError: naming the first row with a date that does not exist.
    """
    seconds = np.empty(len(dates), dtype=np.int64)
    for row, date in enumerate(dates):
        clock = (date.year, date.month, date.day, date.hour, date.minute, date.second)
        try:
            time = datetime(*clock, date.microsecond, tzinfo=UTC)
        except ValueError:
            raise DataError(
                f"{RowLabels(name)(row)} has the time {date} of the calendar {calendar}, which no "
                "civil calendar has: convert it (in xarray: convert_calendar)"
            ) from None
        # What was stored as a fraction of a day is off by microseconds.
        time += timedelta(microseconds=500_000)
        seconds[row] = int(time.replace(microsecond=0).timestamp())
        if abs(time.microsecond - 500_000) > _ROUNDED_SECONDS * 1e6:
            raise DataError(f"{RowLabels(name)(row)} has the time {date}: times must be on seconds")
    if calendar in _CIVIL:
        return CfTimes(seconds=seconds)
    without = "29 February" if calendar in ("noleap", "365_day") else "some dates"
    note = (
        f"{name} has the calendar {calendar}: its dates are taken for the civil ones of the same "
        f"name, of which it lacks {without}"
    )
    return CfTimes(seconds=seconds, notes=(note,))


def _parse_date(text: str) -> datetime | None:
    match = _DATE.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    sign, hours, minutes = match.group(9, 10, 11)
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    if int(match[7] or 0):
        return None  # a fraction of a second
    try:
        zone = timezone(-offset if sign == "-" else offset)
        # Year 0, which climatologies have, is another calendar's.
        return datetime(max(year, 1), month, day, hour, minute, second, tzinfo=zone)
    except ValueError:
        return None


def _whole_seconds(
    numbers: NDArray[Any], unit_seconds: float, labels: RowLabels
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Numbers of a unit as whole seconds, and a note where they were rounded to do so."""
    if numbers.dtype.kind in "iu" and unit_seconds >= 1:
        return numbers.astype(np.int64) * int(unit_seconds), ()
    if numbers.dtype.kind in "iu":
        per_second = round(1 / unit_seconds)
        labels.refuse_where(numbers % per_second != 0, 0, lambda _: _NOT_WHOLE)
        return numbers.astype(np.int64) // per_second, ()
    exact = numbers.astype(np.float64) * unit_seconds
    error = float(np.spacing(np.abs(numbers).max(initial=0))) * unit_seconds
    if error <= 0.5:
        seconds = np.rint(exact)
        tolerance = max(_ROUNDED_SECONDS, error)
        labels.refuse_where(np.abs(exact - seconds) > tolerance, 0, lambda _: _NOT_WHOLE)
        return seconds.astype(np.int64), ()
    # float32 holds hours since 1900 to 225 s: the coarsest clock that all times show is meant.
    for size in _COARSE_SECONDS:
        rounded = np.rint(exact / size) * size
        if size > 2 * error and (np.abs(exact - rounded) <= error).all():
            note = (
                f"{labels.source} is {numbers.dtype}, which holds its times to {error:.0f} s: they "
                f"were rounded to whole {_CLOCKS[size]}"
            )
            return rounded.astype(np.int64), (note,)
    raise DataError(
        f"{labels.source} is {numbers.dtype}, which holds its times to {error:.0f} s only: store "
        "them as whole numbers or as float64"
    )


_NOT_WHOLE = "has a time that is not on a whole second: times must be on whole seconds"
_CLOCKS = {86_400: "days", 3_600: "hours", 60: "minutes", 1: "seconds"}


def _months_later(
    numbers: NDArray[Any], since: datetime, per_unit: int, units: str, name: str
) -> CfTimes:
    """Whole months or years after a date, which UDUNITS takes for twelfths of 365.2425 days."""
    months = numbers.astype(np.float64) * per_unit
    parts = months != np.rint(months)
    RowLabels(name).refuse_where(
        parts | (since.day > 28),
        0,
        lambda row: f"has {numbers[row]} {units}: such parts of months have no date; store days",
    )
    start = np.datetime64(since.strftime("%Y-%m"), "M")
    first = np.datetime64(since.astimezone(UTC).replace(tzinfo=None), "s")
    rest = first - start.astype("M8[s]")
    times = (start + np.rint(months).astype(np.int64)).astype("M8[s]") + rest
    note = f"{name} counts {units}: they are taken for months of the calendar"
    return CfTimes(seconds=epoch_seconds(times, 0, RowLabels(name)), notes=(note,))


def _decode_others(numbers: NDArray[Any], units: str, calendar: str, name: str) -> CfTimes:
    """Times on a calendar that is not Gregorian all along."""
    try:
        import cftime  # noqa: PLC0415 - an optional library
    except ImportError:
        raise MissingExtraError("cftime", "netcdf") from None
    try:
        dates = cftime.num2date(numbers.astype(numbers.dtype.newbyteorder("=")), units, calendar)
    except (ValueError, OverflowError, TypeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{name} has times that cannot be read ({units}): {reason}") from None
    return civil_times(np.atleast_1d(dates).tolist(), calendar, name)
