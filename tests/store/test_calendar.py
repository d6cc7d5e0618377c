"""Calendar features: days of the year, months, holidays."""

import sys

import holidays
import numpy as np
import pandas as pd
import pytest

from pgti.errors import ConfigError, MissingExtraError
from pgti.store import TimeAxis, calendar_features
from pgti.store.calendar import _holidays_in


def axis(start: str, steps: int, interval: int = 3_600, zone: str | None = None) -> TimeAxis:
    return TimeAxis(
        num_steps=steps,
        start_seconds=int(np.datetime64(start, "s").astype(np.int64)),
        interval_seconds=interval,
        time_zone=zone,
    )


def test_day_and_month_of_the_year_are_those_of_pandas() -> None:
    """Over a leap year and a usual one, past the end too."""
    rows = np.arange(2 * 366)
    times = pd.date_range("2024-01-01", periods=len(rows), freq="D")
    features = calendar_features(
        axis("2024-01-01", 100, 86_400), ("day-of-year", "month-of-year"), rows.reshape(2, -1)
    )
    assert features.shape == (2, 366, 2)
    flat = features.reshape(-1, 2)
    np.testing.assert_array_equal(
        flat[:, 0], (times.day_of_year.to_numpy() - 1).astype("f4") / np.float32(366)
    )
    np.testing.assert_array_equal(
        flat[:, 1], (times.month.to_numpy() - 1).astype("f4") / np.float32(12)
    )
    assert 0 <= flat.min() <= flat.max() < 1


@pytest.mark.parametrize(("country", "part"), [("US", None), ("US", "CA"), ("DE", "BY")])
def test_holidays_are_those_of_the_library(country: str, part: str | None) -> None:
    rows = np.arange(4 * 365)
    days = pd.date_range("2020-06-01", periods=len(rows), freq="D").date
    every = holidays.country_holidays(country, subdiv=part, years=range(2020, 2025))
    name = country if part is None else f"{country}-{part}"
    features = calendar_features(axis("2020-06-01", 3, 86_400), (f"holiday:{name}",), rows)
    np.testing.assert_array_equal(features[:, 0], [day in every for day in days])
    assert 20 < features.sum() < 80


def test_a_holiday_is_a_day_of_the_clock() -> None:
    """July 4 begins at 07:00 UTC in Los Angeles."""
    times = axis("2025-07-04T00:00", 48, zone="America/Los_Angeles")
    features = calendar_features(times, ("holiday:US",), np.arange(48))[:, 0]
    np.testing.assert_array_equal(np.flatnonzero(features), np.arange(7, 31))


def test_the_library_is_asked_once_a_year(monkeypatch: pytest.MonkeyPatch) -> None:
    _holidays_in.cache_clear()
    calls = []
    original = holidays.country_holidays

    def counted(*arguments: object, **options: object) -> object:
        calls.append(options.get("years"))
        return original(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(holidays, "country_holidays", counted)
    times = axis("2024-12-30", 10)
    for _ in range(3):
        calendar_features(times, ("holiday:US",), np.arange(200))
    assert [years for years in calls if years is not None] == [[2024], [2025]]


@pytest.mark.parametrize(
    ("name", "start", "message"),
    [
        ("holiday:XX", "2024-01-01", "'XX' is not the code of a country"),
        ("holiday:US-QQ", "2024-01-01", "US has no part 'QQ'; it has AK, AL"),
        ("holiday:US", "1700-01-01", "known for 1777 to 2100, and the series .* reach 1700"),
        ("holiday:US", "2101-01-01", "known for 1777 to 2100, and the series .* reach 2101"),
        ("holiday:IN", "2060-01-01", "those of 2060 are not all known .*2001 to 2035"),
        ("moon", "2024-01-01", "no calendar feature 'moon': it is one of .*holiday:US"),
    ],
)
def test_what_is_not_known_is_refused(name: str, start: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        calendar_features(axis(start, 3), (name,), np.arange(3))


def test_the_library_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    _holidays_in.cache_clear()
    monkeypatch.setitem(sys.modules, "holidays", None)
    with pytest.raises(MissingExtraError, match=r"pgti\[holidays\]"):
        calendar_features(axis("2024-01-01", 3), ("holiday:US",), np.arange(3))
