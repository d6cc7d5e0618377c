"""What the first column of a table is, and times that are written as numbers."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.errors import DataError
from pgti.ingest.times import UTC_ZONE, RowLabel, seconds_of_numbers

__all__ = ["EpochTimes", "FirstColumn", "epoch_unit", "first_column", "is_compact_date"]

FirstColumn = Literal["times", "rows", "readings"]

_TIME_NAMES = ("time", "timestamp", "timestamps", "date", "datetime", "date_time")
_ROW_NAMES = ("", "index", "step", "row", "unnamed: 0", *_TIME_NAMES)
_EPOCH_UNITS = ((1e8, 1e11, "s"), (1e11, 1e14, "ms"), (1e14, 1e17, "us"), (1e17, 9.2e18, "ns"))
_COMPACT_DATE = re.compile(
    r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(([01]\d|2[0-3])[0-5]\d([0-5]\d)?)?"
)


def epoch_unit(value: float) -> str | None:
    """The unit in which `value` is an epoch time between 1973 and 5138; None if in none."""
    return next((unit for low, high, unit in _EPOCH_UNITS if low <= value < high), None)


def is_compact_date(value: float) -> bool:
    """Whether a number reads as yyyymmdd, yyyymmddHHMM or yyyymmddHHMMSS."""
    return value == int(value) and _COMPACT_DATE.fullmatch(str(int(value))) is not None


def first_column(
    name: str, title: str | None, numbers: Sequence[float], timestamps: bool | None
) -> FirstColumn:
    """What a first column of numbers holds.

    Args:
        name: what messages call the table.
        title: the column's title, None without a header.
        numbers: its first cells.
        timestamps: what the user says of it.

    Raises:
        DataError: if it is likely to hold times and nothing says so; or if its times are compact
            dates, which would be taken for epoch times.
    """
    known = None if title is None else title.strip().lower()
    shown = "the first column" if not title else f"the first column ({title.strip()})"
    counts = bool(numbers) and list(numbers) == list(range(len(numbers)))
    if counts and known in _ROW_NAMES and not timestamps:
        return "rows"
    if timestamps is False or not numbers or not np.isfinite(numbers).all():
        return (
            "times" if timestamps or (known in _TIME_NAMES and timestamps is None) else "readings"
        )
    compact = all(is_compact_date(value) for value in numbers)
    if timestamps or known in _TIME_NAMES:
        if compact:
            raise DataError(
                f"{shown} of {name} holds {numbers[0]:.0f}, which reads as a date without "
                "separators: name its format (--time-format %Y%m%d), or say --no-timestamps if it "
                "holds readings"
            )
        return "times"
    whole = all(value == int(value) for value in numbers)
    rises = len(numbers) > 1 and all(a < b for a, b in pairwise(numbers))
    if whole and rises and (compact or all(epoch_unit(value) for value in numbers)):
        raise DataError(
            f"{shown} of {name} holds {numbers[0]:.0f}, {numbers[1]:.0f}, ..., which could be "
            "times: say --timestamps if it holds times (with --time-format for dates such as "
            "20250131), or --no-timestamps if it holds readings"
        )
    return "readings"


class EpochTimes:
    """Times counted from 1970 in the unit that the first one shows.

    Args:
        first: the first time.
        name: what messages call the source.
        label: how messages call a row.

    Raises:
        DataError: if the first time is in no unit.
    """

    def __init__(self, first: float, name: str, label: RowLabel) -> None:
        unit = epoch_unit(first)
        if unit is None:
            raise DataError(
                f"{label(0)} of {name} has the time {first:.15g}, which is neither a date nor an "
                "epoch time: say --no-timestamps if the column holds readings"
            )
        self._unit = unit
        self._name = name
        self._label = label

    @property
    def is_aware(self) -> bool:
        """Epoch times are true times."""
        return True

    @property
    def time_zone(self) -> str:
        """They name no zone: UTC."""
        return UTC_ZONE

    def seconds(self, cells: "pd.Series[Any]", first_row: int) -> NDArray[np.int64]:
        """Epoch seconds of the rows from `first_row`.

        Raises:
            DataError: naming the first row that is no number, in another unit, or not on a whole
                second.
        """
        numbers = pd.to_numeric(cells, errors="coerce")
        bad = numbers.isna().to_numpy(dtype=bool)
        if not bad.any():
            values = numbers.to_numpy()
            bad = np.array([epoch_unit(value) != self._unit for value in values.tolist()])
        if bad.any():
            raise self._refused(
                cells, bad, first_row, f"it must be a number of {self._unit} as in the rows before"
            )
        if values.dtype.kind == "f":
            uneven = values != np.floor(values)
            if uneven.any():
                raise self._refused(cells, uneven, first_row, "times must be on whole seconds")
        return seconds_of_numbers(
            values.astype(np.int64), self._unit, first_row, self._name, self._label
        )

    def _refused(
        self, cells: "pd.Series[Any]", bad: NDArray[np.bool_], first_row: int, rule: str
    ) -> DataError:
        row = int(np.flatnonzero(bad)[0])
        cell = cells.iloc[row]
        return DataError(
            f"{self._label(first_row + row)} of {self._name} has the time "
            f"{cell if isinstance(cell, str) else f'{cell:.15g}'}: {rule}"
        )
