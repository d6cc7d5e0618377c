"""The times of consecutive rows as true seconds that rise."""

import numpy as np
from numpy.typing import NDArray

from pgti.ingestion.instants import check_order, check_years
from pgti.ingestion.readings import Readings

__all__ = ["RisingTimes"]


class RisingTimes:
    """Checks the times of a source chunk by chunk, and reads wall-clock times in their zone.

    Args:
        readings: the source.
        clock: zone of its wall-clock times, if it is known.
        shown: zone of the clock on which messages show times.

    Attributes:
        last: the last time so far, if there is one.
    """

    def __init__(self, readings: Readings, clock: str | None, shown: str | None) -> None:
        self._labels, self._localizer = readings.row_labels, readings.localizer(clock)
        self._shown = shown
        self.last: int | None = None

    @property
    def is_guess(self) -> bool:
        """Whether all rows are of the hour that the clock shows twice: the earlier is taken."""
        return self._localizer is not None and self._localizer.is_guess

    def follow(self, seconds: NDArray[np.int64], first_row: int) -> tuple[NDArray[np.int64], int]:
        """The true times of a chunk behind the last one before it, and how many (0 or 1) that is.

        Args:
            seconds: epoch seconds as the chunk gives them, int64 [rows], at least one.
            first_row: number of its first row.

        Raises:
            DataError: naming the row and its time where no calendar writes it, the clock skips it,
                or times repeat or go back.
        """
        check_years(self._labels, seconds, first_row)
        if self._localizer is not None:
            seconds = self._localizer.convert(seconds, first_row)
        num_before = int(self.last is not None)
        times = seconds if self.last is None else np.append(self.last, seconds)
        check_order(self._labels, times, first_row - num_before, self._shown)
        self.last = int(seconds[-1])
        return times, num_before
