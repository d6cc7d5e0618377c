"""What messages call rows that are of several sources."""

from dataclasses import dataclass, field

import numpy as np

from pgti.ingestion.instants import RowLabels, show_time

__all__ = ["JoinedLabels"]

_MAX_PIECES = 100_000  # later rows are called by their number


@dataclass(frozen=True, slots=True)
class JoinedLabels(RowLabels):
    """What messages call rows that are of several sources: "line 4 of a.csv".

    Attributes:
        pieces: first row of each stretch of consecutive rows of a source, with the labels of that
            source and the number of the row there.
    """

    pieces: list[tuple[int, RowLabels, int]] = field(default_factory=list)

    def short(self, row: int) -> str:
        """The row and its source."""
        found = self._find(row)
        return f"row {row}" if found is None else found[0](found[1])

    def __call__(self, row: int) -> str:
        """The row and its source."""
        return self.short(row) if self._find(row) is not None else f"row {row} of {self.source}"

    def time(self, row: int, second: int | np.int64, time_zone: str | None) -> str:
        """The time of a row as its source writes it, else as the clock of a zone shows it."""
        found = self._find(row)
        if found is None:
            return show_time(second, time_zone)
        return found[0].time(found[1], second, time_zone)

    def add(self, row: int, labels: RowLabels, number: int) -> None:
        """Say that `row` and those after it are of a source, from its row `number`."""
        if self.pieces:
            first, before, start = self.pieces[-1]
            if before is labels and row - first == number - start:
                return
        if len(self.pieces) < _MAX_PIECES:
            self.pieces.append((row, labels, number))

    def _find(self, row: int) -> tuple[RowLabels, int] | None:
        """Labels of a row's source, and its number there."""
        place = np.searchsorted([first for first, _, _ in self.pieces], row, side="right") - 1
        if place < 0 or (place == _MAX_PIECES - 1 and len(self.pieces) == _MAX_PIECES):
            return None
        first, labels, number = self.pieces[place]
        source_row = number + row - first
        if isinstance(labels, JoinedLabels):
            return labels._find(source_row)
        return labels, source_row
