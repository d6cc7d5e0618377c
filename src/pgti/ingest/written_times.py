"""Turning times that are written as text into whole epoch seconds, and offsets into zones."""

import re
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.errors import DataError
from pgti.ingest.times import RowLabel, seconds_of, zone_of_offset

__all__ = ["WrittenTimes"]

# An offset from UTC stands at the end, behind a time of day.
_OFFSET = re.compile(r"[T ]\d\d.*?(Z|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)\s*$", re.IGNORECASE)


class WrittenTimes:
    """The times of a source whose first one tells how they are written.

    Args:
        first: the first time as written.
        time_format: as for `strptime`; None for ISO 8601.
        name: what messages call the source.
        label: how messages call a row.
        time_zone: the zone that the user names; then offsets may change from row to row.
    """

    def __init__(
        self,
        first: str,
        *,
        time_format: str | None,
        name: str,
        label: RowLabel,
        time_zone: str | None,
    ) -> None:
        self._format = time_format
        self._name = name
        self._label = label
        self._may_change = time_zone is not None
        self._offset: str = self._offsets(pd.Series([first], dtype=str))[0]

    @property
    def is_aware(self) -> bool:
        """Whether the times carry offsets from UTC."""
        return bool(self._offset)

    @property
    def time_zone(self) -> str | None:
        """The zone with the offset of the first time; None if there is none so."""
        if not self._offset:
            return None
        sign = -1 if self._offset[0] == "-" else 1
        hours, minutes = int(self._offset[1:3]), int(self._offset[3:5])
        return zone_of_offset(sign * timedelta(hours=hours, minutes=minutes))

    def seconds(self, cells: "pd.Series[str]", first_row: int) -> NDArray[np.int64]:
        """Epoch seconds of the rows from `first_row`.

        Raises:
            DataError: naming the first row that holds no such time, or whose offset is another.
        """
        self._check_offsets(cells, first_row)
        parsed = pd.to_datetime(
            cells, format=self._format or "ISO8601", errors="coerce", utc=self.is_aware
        )
        unknown = np.flatnonzero(parsed.isna().to_numpy())
        if len(unknown):
            rule = f"format {self._format!r}" if self._format else "ISO 8601 (2012-03-01T00:05)"
            raise DataError(
                f"{self._at(cells, first_row, int(unknown[0]))}, which is not {rule}: name the "
                "format with --time-format"
            )
        return seconds_of(pd.DatetimeIndex(parsed), first_row, self._name, self._label)

    def _at(self, cells: "pd.Series[str]", first_row: int, row: int) -> str:
        return f"{self._label(first_row + row)} of {self._name} has the time {cells.iloc[row]!r}"

    def _offsets(self, cells: "pd.Series[str]") -> NDArray[Any]:
        """Offset of each cell as +HHMM, "" where it has none."""
        if self._format is None:
            found = cells.str.extract(_OFFSET, expand=False).fillna("")
            spelled = {offset: _spelled(str(offset)) for offset in found.unique()}
            return found.map(spelled).to_numpy(dtype=object)
        if "%z" not in self._format:
            return np.full(len(cells), "", dtype=object)
        return np.array([_offset_of(str(cell), self._format) for cell in cells], dtype=object)

    def _check_offsets(self, cells: "pd.Series[str]", first_row: int) -> None:
        offsets = self._offsets(cells)
        other = np.flatnonzero(offsets != self._offset)
        for row in other.tolist():
            offset = offsets[row]
            if bool(offset) != self.is_aware:
                # A cell that is no time at all is told as such, by parsing it.
                if self._is_no_time(str(cells.iloc[row])):
                    return
                has, have = ("an", "none") if offset else ("no", "one")
                raise DataError(
                    f"{self._at(cells, first_row, row)}, which has {has} offset from UTC, and the "
                    f"rows before have {have}: write all times the same way"
                )
            if not self._may_change:
                raise DataError(
                    f"{self._at(cells, first_row, row)}, and the first row has the offset "
                    f"{self._offset[:3]}:{self._offset[3:5]}: offsets that change belong to a zone "
                    "whose clocks change, name it with --time-zone (such as Europe/Berlin)"
                )

    def _is_no_time(self, cell: str) -> bool:
        parsed = pd.to_datetime(
            pd.Series([cell], dtype=str),
            format=self._format or "ISO8601",
            errors="coerce",
            utc=True,
        )
        return bool(parsed.isna().iloc[0])


def _spelled(offset: str) -> str:
    if not offset:
        return ""
    return "+0000" if offset in "Zz" else offset.replace(":", "").ljust(5, "0")


def _offset_of(cell: str, time_format: str) -> str:
    try:
        return datetime.strptime(cell.strip(), time_format).strftime("%z")
    except ValueError:
        return ""
