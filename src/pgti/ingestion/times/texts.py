"""Formats of times that are written as text, where the text shows them.

ISO 8601 needs none. "03/04/2021" could be in March or in April: a row whose day is above 12
decides, or else the user.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

__all__ = ["day_month_places", "find_formats", "fit_format", "is_date"]

_DATE = re.compile(r"\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(\D.*)?")
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_NAMED = re.compile(
    rf"\s*(?:\d{{1,2}}(?P<sign>[- /]){_MONTH}(?P=sign)\d{{4}}"
    rf"|(?P<first>{_MONTH}) \d{{1,2}},? \d{{4}})(?P<rest>\D.*)?\s*",
    re.IGNORECASE,
)
_YEAR_MONTH = re.compile(r"\s*[12]\d{3}[-/](0[1-9]|1[0-2])\s*")
_NUMERIC = re.compile(r"\s*(\d{1,2})([-/.])(\d{1,2})\2(\d{4})(?P<rest>\D.*)?")
_ISO = re.compile(r"\s*\d{4}([-/.])\d{1,2}\1\d{1,2}(?P<rest>\D.*)?")
_CLOCK = re.compile(
    r"(?P<gap>[T ]| - |, ?)\d{1,2}:\d{2}(?P<second>:\d{2}(?P<part>\.\d+)?)?(?P<half> ?[ap]m)?\s*",
    re.IGNORECASE,
)


def is_date(cell: str) -> bool:
    """Whether a cell begins like a date."""
    return any(each.fullmatch(cell) for each in (_DATE, _NAMED, _YEAR_MONTH))


def fit_format(cells: Iterable[Any], time_format: str) -> bool:
    """Whether all cells are times in a format."""
    try:
        return all(datetime.strptime(str(cell).strip(), time_format) for cell in cells)
    except ValueError:
        return False


def find_formats(text: str) -> tuple[str, ...]:
    """Formats for `strptime` in which a text is a time; none where it is ISO 8601 or unknown.

    Several differ in which number is the month: they are to be told apart.
    """
    orders: tuple[str, ...]
    numeric, named, iso = (each.fullmatch(text) for each in (_NUMERIC, _NAMED, _ISO))
    if numeric:
        sign, clock = numeric[2], _clock_format(numeric["rest"])
        orders = (f"%d{sign}%m{sign}%Y", f"%m{sign}%d{sign}%Y")
    elif named:
        clock, sign = _clock_format(named["rest"]), named["sign"]
        month = "%b" if re.search(r"\b[a-z]{3}\b", text, re.IGNORECASE) else "%B"
        comma = "," if "," in text.split(":", maxsplit=1)[0] else ""
        orders = (f"{month} %d{comma} %Y",) if named["first"] else (f"%d{sign}{month}{sign}%Y",)
    elif iso and re.search("[ap]m", text, re.IGNORECASE):
        clock, orders = _clock_format(iso["rest"]), (f"%Y{iso[1]}%m{iso[1]}%d",)
    else:
        return ()
    return () if clock is None else tuple(order + clock for order in orders)


def _clock_format(text: str | None) -> str | None:
    """The format of a time of day with the sign before it; None if it is not one."""
    if not (text or "").strip():
        return ""
    clock = _CLOCK.fullmatch(text or "")
    if clock is None:
        return None
    half = clock["half"] or ""
    second = ":%S" if clock["second"] else ""
    part = ".%f" if clock["part"] else ""
    hour = "%I" if half else "%H"
    return (
        f"{clock['gap']}{hour}:%M{second}{part}{' ' * half.startswith(' ')}{'%p' if half else ''}"
    )


def day_month_places(cells: Iterable[str]) -> tuple[int, str] | None:
    """Which of the first two numbers of dates is the day, 0 or 1, and the date that shows it.

    None if no date has a number above 12 there.
    """
    for cell in cells:
        found = _NUMERIC.fullmatch(cell)
        if found is None:
            continue
        for place, number in enumerate((int(found[1]), int(found[3]))):
            if number > 12:
                return place, cell
    return None
