"""Times of NetCDF and CF: units, dates, calendars, and what floating numbers can hold."""

import numpy as np
import pytest

from pgti.errors import DataError
from pgti.ingestion.times.cf_times import civil_times, decode_times, is_since

cftime = pytest.importorskip("cftime", reason="cftime is not installed")


def times(numbers: object, units: str, calendar: str = "standard") -> list[str]:
    """The times in ISO 8601."""
    seconds = decode_times(np.asarray(numbers), units, calendar, "time of a.nc").seconds
    return seconds.astype("M8[s]").astype(str).tolist()


@pytest.mark.parametrize(
    ("numbers", "units", "first"),
    [
        (np.array([0, 1]), "hours since 1900-01-01", "1900-01-01T00:00:00"),
        (np.array([17532], "i4"), "hours since 1970-01-01 00:00:00.0", "1972-01-01T12:00:00"),
        (np.array([3600.0]), "seconds since 2020-1-1 0:0:0", "2020-01-01T01:00:00"),
        (np.array([1 / 24]), "days since 2020-02-28 23:00 UTC", "2020-02-29T00:00:00"),
        (np.array([60]), "Minutes since 2020-01-01T00:00:00Z", "2020-01-01T01:00:00"),
        (np.array([0]), "days since 2020-01-01 00:00:00 +05:30", "2019-12-31T18:30:00"),
        (np.array([0]), "days since 2020-01-01 06:00 -6", "2020-01-01T12:00:00"),
        (np.array([5_000_000_000]), "nanoseconds since 1970-01-01", "1970-01-01T00:00:05"),
        (np.array([1735689600000], "u8"), "ms since 1970-01-01", "2025-01-01T00:00:00"),
        (np.array([13]), "months since 1960-01-01", "1961-02-01T00:00:00"),
        (np.array([2.0]), "years since 1999-06-15 12:00", "2001-06-15T12:00:00"),
    ],
)
def test_units(numbers: np.ndarray, units: str, first: str) -> None:
    """Units and dates as they are written."""
    assert times(numbers, units)[0] == first


@pytest.mark.parametrize("calendar", ["standard", "gregorian", "proleptic_gregorian", "noleap"])
@pytest.mark.parametrize("unit", ["days", "hours", "minutes", "seconds"])
def test_equal_to_cftime(calendar: str, unit: str) -> None:
    """Random times in float64 and whole numbers are those of cftime."""
    rng = np.random.default_rng(3)
    size = {"days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1}[unit]
    numbers = rng.integers(0, 250 * 365 * 86_400, 200) / size
    units = f"{unit} since 1850-01-01"
    expected = [date.isoformat() for date in cftime.num2date(numbers, units, calendar)]
    assert times(numbers, units, calendar) == [text[:19] for text in map(_rounded, expected)]


def _rounded(text: str) -> str:
    """A time to the nearest second."""
    return str((np.datetime64(text, "us") + np.timedelta64(500, "ms")).astype("M8[s]"))


def test_old_reference_dates() -> None:
    """Days since the year 1 of the standard calendar are Julian until 1582."""
    assert times([715_877], "days since 0001-01-01", "standard") == ["1961-01-01T00:00:00"]
    assert times([715_875], "days since 0001-01-01", "proleptic_gregorian") == [
        "1961-01-01T00:00:00"
    ]


def test_float32_is_rounded_to_the_clock_that_it_can_mean() -> None:
    """Hours since 1900 in float32 are off by minutes; whole hours are meant, and said."""
    hours = np.arange(1_050_000, 1_050_048, dtype=np.float32) / np.float32(24)
    decoded = decode_times(hours, "days since 1900-01-01", "standard", "time")
    assert set(np.diff(decoded.seconds)) == {3600}
    assert "rounded to whole hours" in decoded.notes[0]
    half = np.float32([43750.01, 43750.02])
    with pytest.raises(DataError, match=r"holds its times to .* s only"):
        decode_times(half, "days since 1900-01-01", "standard", "time")


@pytest.mark.parametrize(
    ("numbers", "units", "calendar", "match"),
    [
        ([0], "fortnights since 2000-01-01", "standard", "unit 'fortnights since 2000-01-01'"),
        ([0], "days since yesterday", "standard", "unit 'days since yesterday'"),
        ([0], "days since 2000-13-01", "standard", "unit 'days since 2000-13-01'"),
        ([0], "days since 2000-01-01", "mayan", "calendar 'mayan': known are"),
        ([0.5], "months since 2000-01-01", "standard", "row 0 of t has 0.5 months.*no date"),
        ([0, np.nan], "days since 2000-01-01", "standard", "row 1 of t has no time"),
        ([0, 0.123456], "seconds since 2000-01-01", "standard", "row 1 of t has a time that is"),
        ([0, 10**15], "days since 2000-01-01", "standard", "row 1 of t has 1000000000000000 days"),
        ([58, 59], "days since 2001-01-01", "360_day", "row 0 of t has the time 2001-02-29"),
        ([59], "days since 2001-01-01", "366_day", "row 0 of t has the time 2001-02-29"),
        (["a"], "days since 2000-01-01", "standard", "t holds <U1"),
    ],
)
def test_refusals(numbers: list[object], units: str, calendar: str, match: str) -> None:
    """What could be two times or is none is refused, with the row."""
    with pytest.raises(DataError, match=match):
        decode_times(np.array(numbers), units, calendar, "t")


def test_shorter_calendars_say_what_they_lack() -> None:
    """A calendar without 29 February has gaps there, and a note."""
    decoded = decode_times(np.array([58, 59]), "days since 2004-01-01", "365_day", "t")
    assert decoded.seconds.astype("M8[s]").astype(str).tolist() == [
        "2004-02-28T00:00:00",
        "2004-03-01T00:00:00",
    ]
    assert "lacks 29 February" in decoded.notes[0]
    dates = [cftime.Datetime360Day(2001, 1, 30), cftime.Datetime360Day(2001, 3, 30)]
    assert len(civil_times(dates, "360_day", "t").seconds) == 2


def test_is_since() -> None:
    """Only text of a unit since a date is a unit of times."""
    assert is_since("days since 2000-01-01")
    assert not any(map(is_since, ("days", "m s-1", None, 3)))
