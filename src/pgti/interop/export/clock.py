"""The calendar of wall-clock times as arithmetic of whole numbers, which any runtime has.

The formulas are those of `pgti.store`, to the bit: the proleptic Gregorian calendar, days of 86,400
seconds. Times are int64 seconds since 1970-01-01 00:00 that the clock on the wall shows.
"""

import torch
from torch import Tensor

from pgti.store.clock import SECONDS_PER_DAY

__all__ = ["calendar_feature", "day_of_week", "month_of_year", "time_of_day"]

_CYCLE_DAYS = 146_097  # of 400 years, a whole number of weeks
_SHIFT_DAYS = 25 * _CYCLE_DAYS  # to positive numbers, whose division rounds down everywhere
_THURSDAY = 3  # 1970-01-01
_MARCH_FIRST_DAYS = 719_468  # from 0000-03-01 to 1970-01-01


def time_of_day(times: Tensor) -> Tensor:
    """Fraction of the day that has passed, float32."""
    seconds = (times + _SHIFT_DAYS * SECONDS_PER_DAY) % SECONDS_PER_DAY
    return (seconds.double() / SECONDS_PER_DAY).float()


def day_of_week(times: Tensor) -> Tensor:
    """Monday 0 to Sunday 6, int64."""
    return (_days(times) + _THURSDAY) % 7


def month_of_year(times: Tensor) -> Tensor:
    """January 0 to December 11, int64."""
    return _month_and_day_of_year(times)[0]


def calendar_feature(name: str, times: Tensor) -> Tensor:
    """A feature of `pgti.store.calendar`, other than holidays, float32 of the shape of `times`."""
    if name == "time-of-day":
        return time_of_day(times)
    if name == "day-of-week":
        return (day_of_week(times).double() / 7).float()
    if name == "day-of-year":
        return _month_and_day_of_year(times)[1].float() / 366
    assert name == "month-of-year", name
    return month_of_year(times).float() / 12


def _days(times: Tensor) -> Tensor:
    """Whole days since 1970-01-01, plus a number of cycles of the calendar."""
    return _divide(times + _SHIFT_DAYS * SECONDS_PER_DAY, SECONDS_PER_DAY)


def _divide(number: Tensor, by: int) -> Tensor:
    """The quotient of positive whole numbers, rounded down."""
    return number // by  # ONNX has torch.div of whole numbers in float32


def _month_and_day_of_year(times: Tensor) -> tuple[Tensor, Tensor]:
    """January as 0, and January 1 as 0, int64.

    Years begin on March 1 here, so that a leap day is the last of its year (Hinnant, chrono-
    Compatible Low-Level Date Algorithms).
    """
    of_cycle = (_days(times) + _MARCH_FIRST_DAYS) % _CYCLE_DAYS
    leaps = _divide(of_cycle, 1_460) - _divide(of_cycle, 36_524) + _divide(of_cycle, 146_096)
    year = _divide(of_cycle - leaps, 365)
    since_march = of_cycle - (365 * year + _divide(year, 4) - _divide(year, 100))
    month = (_divide(5 * since_march + 2, 153) + 2) % 12
    # January and February belong to the next year, which begins 306 days after March 1.
    is_leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    day = torch.where(since_march >= 306, since_march - 306, since_march + 59 + is_leap.long())
    return month, day
