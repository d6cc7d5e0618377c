"""Calendar features of rows: computed when they are asked for, never stored."""

import warnings
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import ConfigError, MissingExtraError, option
from pgti.store.clock import SECONDS_PER_DAY
from pgti.store.time_axis import MONTHS_PER_YEAR, TimeAxis

__all__ = [
    "CALENDAR_FEATURES",
    "calendar_features",
    "default_calendar",
    "holiday_feature",
]

CALENDAR_FEATURES = ("time-of-day", "day-of-week", "day-of-year", "month-of-year")
"""Names of the features of any calendar; `holiday_feature` gives those of a country."""

_HOLIDAY = "holiday:"
_DAYS_PER_YEAR = 366


def calendar_features(
    time_axis: TimeAxis, names: tuple[str, ...], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Calendar features of rows, past or future: float32, the shape of `rows` with F appended.

    All are those of the wall clock. `time-of-day` is the fraction of the day that has passed, in
    [0, 1), as in DCRNN's data; `day-of-week` is Monday 0 to Sunday 6, divided by 7; `day-of-year`
    is January 1 as 0 to December 31 of a leap year as 365, divided by 366; `month-of-year` is
    January 0 to December 11, divided by 12. `holiday:US` is 1 on a public holiday of the country,
    else 0; `holiday:US-CA` is that of a part of the country (ISO 3166-2).

    Args:
        time_axis: of the series.
        names: the features, F of them.
        rows: row numbers, of any shape.

    Raises:
        ConfigError: if there is no such feature or country, the series has no times, or they leave
            the years whose holidays are known.
        MissingExtraError: if holidays are asked for and the library is not installed.
    """
    features = np.empty((*rows.shape, len(names)), dtype=np.float32)
    for position, name in enumerate(names):
        feature: NDArray[np.float32]
        if name == "time-of-day":
            feature = time_axis.time_of_day(rows)
        elif name == "day-of-week":
            feature = (time_axis.day_of_week(rows) / np.float32(7)).astype(np.float32)
        elif name == "day-of-year":
            days = _days(time_axis, rows)
            feature = (days - _years(days).astype("datetime64[D]")).astype(np.float32)
            feature /= np.float32(_DAYS_PER_YEAR)
        elif name == "month-of-year":
            months = time_axis.month_of_year(rows).astype(np.float32)
            feature = months / np.float32(MONTHS_PER_YEAR)
        elif name.startswith(_HOLIDAY):
            feature = _is_holiday(_days(time_axis, rows), name.removeprefix(_HOLIDAY))
        else:
            raise ConfigError(
                f"there is no calendar feature {name!r}: it is one of "
                f"{', '.join(CALENDAR_FEATURES)}, or {holiday_feature('US')} for the holidays of a "
                "country"
            )
        features[..., position] = feature
    return features


def default_calendar(time_axis: TimeAxis, *, day_of_week: bool = False) -> tuple[str, ...]:
    """The features that fit a series: the time of day, if a day has several rows.

    Args:
        time_axis: of the series.
        day_of_week: the day of the week too, if every day has a row.
    """
    interval = time_axis.interval_seconds
    if not time_axis.is_dated or interval is None or interval > SECONDS_PER_DAY:
        return ()
    of_day = ("time-of-day",) if interval < SECONDS_PER_DAY else ()
    return (*of_day, "day-of-week") if day_of_week else of_day


def holiday_feature(country: str) -> str:
    """Name of the feature of a country's holidays, or of a part of it: US, US-CA."""
    return f"{_HOLIDAY}{country}"


def _days(time_axis: TimeAxis, rows: NDArray[np.int64]) -> NDArray[np.datetime64]:
    """The date of each row on the wall clock."""
    return time_axis.at(rows).astype("datetime64[D]")


def _years(days: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
    return days.astype("datetime64[Y]")


def _is_holiday(days: NDArray[np.datetime64], country: str) -> NDArray[np.float32]:
    """1 where a date is a public holiday, else 0."""
    every = np.unique(days)  # far fewer than rows
    years = np.unique(_years(every)).astype(np.int64) + 1970
    known = [_holidays_in(country, int(year)) for year in years]
    found = np.isin(every, np.concatenate([np.empty(0, dtype="datetime64[D]"), *known]))
    return found[np.searchsorted(every, days)].astype(np.float32)


@lru_cache(maxsize=4096)
def _holidays_in(country: str, year: int) -> NDArray[np.datetime64]:
    """The public holidays of a year, those that are moved to another day included."""
    library = _import_holidays()
    name, _, part = country.partition("-")
    given = f"holidays are those of {country!r}"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            every = library.country_holidays(name, subdiv=part or None)
            first, last = every.start_year, every.end_year
            if not first <= year <= last:
                raise ConfigError(
                    f"{given}, which are known for {first} to {last}, and the series or its "
                    f"forecasts reach {year}: leave {option('windows.holidays')} out"
                )
            found = library.country_holidays(name, subdiv=part or None, years=[year], expand=False)
        except NotImplementedError as error:
            raise ConfigError(f"{given}: {_reason(library, name, part)}") from error
        except UserWarning as error:  # lunar calendars are not computed for every year
            raise ConfigError(
                f"{given}, and those of {year} are not all known ({error}): leave "
                f"{option('windows.holidays')} out"
            ) from error
    return np.array(sorted(found), dtype="datetime64[D]")


def _reason(library: Any, name: str, part: str) -> str:
    """Why there are no holidays of a country or a part of it."""
    parts = library.list_supported_countries().get(name)
    if parts is None:
        return f"{name!r} is not the code of a country, such as US or DE, or US-CA for a part of it"
    return f"{name} has no part {part!r}; it has {', '.join(parts) or 'none'}"


def _import_holidays() -> Any:
    try:
        import holidays  # noqa: PLC0415 - optional
    except ImportError:
        raise MissingExtraError("holidays", "holidays") from None
    return holidays
