"""Rows of a source that a store has already: compared, and corrected where the user asks for it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import DataError, option
from pgti.ingestion.newer.growth import show
from pgti.ingestion.readings import Readings
from pgti.store import SeriesStore, StoreAppender

__all__ = ["KnownRows"]


class KnownRows:
    """Compares rows that a store has already with those of a source, and collects corrections.

    Args:
        appender: writes to the store.
        readings: the source.
        is_present: which of the store's sensors the source has, bool [N]; of the others the store
            keeps what it has.
        store: as it is on disk.
        has_channel: which of the store's channels the source has, bool [C]; likewise.
        correct: whether the store takes the readings of the source.

    Attributes:
        corrects: that.
        num_rows: rows compared so far.
        num_corrected: those that were different.
    """

    def __init__(
        self,
        appender: StoreAppender,
        readings: Readings,
        is_present: NDArray[np.bool_],
        store: SeriesStore,
        *,
        has_channel: NDArray[np.bool_],
        correct: bool,
    ) -> None:
        self._appender, self._readings, self._store = appender, readings, store
        self._is_present, self.corrects = is_present, correct
        self._has_channel = has_channel
        self._corrections: dict[int, NDArray[np.floating[Any]]] = {}
        self.num_rows = self.num_corrected = 0

    def compare(self, values: NDArray[np.floating[Any]], seconds: NDArray[np.int64]) -> None:
        """Compare rows [rows, N, C] at times that are not after the last row of the store.

        Raises:
            DataError: naming the first row that the store has with other readings, or the first
                time that none of its rows has.
        """
        if not len(values):
            return
        rows = self._rows_of(seconds)
        newer, stored = self._pairs(values, rows)
        is_same = _is_same(newer, stored)
        different = np.flatnonzero(~is_same.all(axis=(1, 2)))
        if len(different) and not self.corrects:
            self._refuse(int(different[0]), rows, newer, stored, is_same)
        for place in different.tolist():
            self._corrections[int(rows[place])] = newer[place]
        self.num_rows += len(rows)
        self.num_corrected += len(different)

    def has(self, values: NDArray[np.floating[Any]], seconds: NDArray[np.int64]) -> bool:
        """Whether the store has these readings, at least one of them observed, at these times."""
        rows, is_wrong = self._find_rows(seconds)
        if not len(rows) or is_wrong.any():
            return False
        newer, stored = self._pairs(values, rows)
        observed = ~np.isnan(newer[:, self._is_present])
        return bool(observed.any() and _is_same(newer, stored).all())

    def write_corrections(self) -> None:
        """Write the store anew from the first row that is different; the first call alone does."""
        if not self._corrections:
            return
        corrections, self._corrections = self._corrections, {}
        first, num_steps = min(corrections), self._store.meta.num_steps
        self._appender.rewrite_from(first)
        size = max(1, (1 << 22) // corrections[first].size)
        for begin in range(first, num_steps, size):
            block = self._appender.read(begin, min(begin + size, num_steps))
            for row in range(begin, begin + len(block)):
                if row in corrections:
                    block[row - begin] = corrections[row]
            self._appender.append(block)

    def notes(self) -> tuple[str, ...]:
        """What was found, one line each."""
        name, same = self._readings.name, self.num_rows - self.num_corrected
        notes = []
        if same:
            rows, were = count_of(same, "row"), "it was" if same == 1 else "they were"
            notes.append(f"{name} has {rows} that the store has already: {were} skipped")
        if self.num_corrected:
            were = "was" if self.num_corrected == 1 else "were"
            notes.append(f"{count_of(self.num_corrected, 'row')} of the store {were} corrected")
        return tuple(notes)

    def _pairs(
        self, values: NDArray[np.floating[Any]], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
        """Newer readings and those of the store at its rows; of absent sensors they are its own."""
        stored = self._appender.read(int(rows[0]), int(rows[-1]) + 1)[rows - rows[0]]
        newer = values.astype(stored.dtype)
        newer[:, ~self._is_present] = stored[:, ~self._is_present]
        newer[..., ~self._has_channel] = stored[..., ~self._has_channel]
        return newer, stored

    def _rows_of(self, seconds: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows that have these times."""
        axis, (rows, wrong) = self._store.time_axis, self._find_rows(seconds)
        labels, zone = self._readings.row_labels, self._store.time_axis.time_zone
        labels.refuse_where(
            wrong,
            self.num_rows,
            lambda row: (
                f"has the time {labels.time(self.num_rows + row, seconds[row], zone)}, and no row "
                f"of the store has it: rows are appended after the last one "
                f"({show(axis.last_seconds, axis)})"
            ),
        )
        return rows

    def _find_rows(self, seconds: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The rows at these times, and where there is none."""
        axis, num_steps = self._store.time_axis, self._store.meta.num_steps
        if axis.seconds is not None:
            rows = np.searchsorted(axis.seconds, seconds)
        else:
            rows = (seconds - (axis.start_seconds or 0)) // (axis.interval_seconds or 1)
        rows = rows.astype(np.int64)
        inside = np.clip(rows, 0, num_steps - 1)
        return rows, (rows != inside) | (axis.seconds_at(inside) != seconds)

    def _refuse(
        self,
        place: int,
        rows: NDArray[np.int64],
        newer: NDArray[np.floating[Any]],
        stored: NDArray[np.floating[Any]],
        is_same: NDArray[np.bool_],
    ) -> None:
        node, channel = (int(each) for each in np.argwhere(~is_same[place])[0])
        meta = self._store.meta
        old, new = (_show_reading(each[place, node, channel]) for each in (stored, newer))
        raise DataError(
            f"{self._readings.row_labels(self.num_rows + place)} has {new} for sensor "
            f"{meta.node_ids[node]!r}, channel {meta.channels[channel]!r}, at "
            f"{self._store.time_axis.isoformat(int(rows[place]))}, and the store has {old}: pass "
            f"{option('correct', value=True)} to correct rows that it has already"
        )


def _is_same(
    newer: NDArray[np.floating[Any]], stored: NDArray[np.floating[Any]]
) -> NDArray[np.bool_]:
    return np.asarray((newer == stored) | (np.isnan(newer) & np.isnan(stored)))


def _show_reading(value: np.floating[Any]) -> str:
    return "no reading" if np.isnan(value) else np.format_float_positional(value, trim="-")
