"""Readings that arrive in any order and leave as consecutive rows, in bounded memory.

Rows are divided into bands, each of which fits the budget. What arrives waits in memory until that
is full; then each band's part is appended to a file of its own. A band is put together once, when
its rows are wanted, so that the disk is written and read in long pieces only.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pgti.errors import DataError, PgtiError, StoreError
from pgti.ingestion.options import Duplicates
from pgti.ingestion.readings import rows_per_chunk
from pgti.ingestion.scratch import scratch_directory
from pgti.storage import reraise_os_errors

__all__ = ["RowStage"]

Conflict: TypeAlias = Callable[[int, int, int, float, float], PgtiError]

_CELLS, _BLOCK = 0, 1
_HEADER_BYTES = 40  # five int64: kind, then what it needs to be placed
_SMALLEST_PIECE_BYTES = 1 << 12


class RowStage:
    """Readings [T, N, C] that are put in any order and taken as consecutive rows.

    NaN is no reading: it never replaces one. Use it as a context manager: leaving it, in any way,
    removes its files. It writes none while what waits fits the budget.

    Args:
        num_rows: rows, T.
        num_nodes: sensors, N.
        num_channels: channels, C.
        budget_bytes: memory for what waits, and for a band of rows (one row at least).
        dtype: float32 or float64.
        duplicates: which reading stays where several are put at one place: the first, the last,
            their mean; or "error", which accepts equal ones alone.
        conflict: the exception for two readings that differ ("error"), from row, sensor, channel,
            and both readings.

    Attributes:
        num_repeated: readings that were put where the bands taken so far had one already.
    """

    def __init__(
        self,
        num_rows: int,
        num_nodes: int,
        num_channels: int = 1,
        *,
        budget_bytes: int,
        dtype: type[np.floating[Any]] = np.float64,
        duplicates: Duplicates = "last",
        conflict: Conflict | None = None,
    ) -> None:
        self._shape = (num_rows, num_nodes, num_channels)
        self._dtype = np.dtype(dtype)
        self._duplicates = duplicates
        self._conflict = conflict or _describe_conflict
        self._band_rows = rows_per_chunk(budget_bytes // 2, num_nodes * num_channels)
        self._limit_bytes = budget_bytes // 2
        self._waiting: dict[int, list[NDArray[np.uint8]]] = {}
        self._num_bytes = 0
        self._next_row = 0
        self._directory: Path | None = None
        self.num_repeated = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._waiting.clear()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def put(
        self, rows: NDArray[np.integer[Any]], nodes: NDArray[np.integer[Any]], values: NDArray[Any]
    ) -> None:
        """Put readings at single places.

        Args:
            rows: row of each, [n], none of which was taken.
            nodes: sensor of each, [n].
            values: the readings, [n, C].
        """
        values = np.ascontiguousarray(values, dtype=self._dtype)
        for band, places in self._bands_of(np.asarray(rows)):
            cells = (rows[places] - band * self._band_rows) * self._shape[1] + nodes[places]
            parts = (cells.astype(np.uint32), values[places])
            self._wait(band, (_CELLS, len(cells), 0, 0, 0), parts)
        self._spill_if_full()

    def put_block(self, first_row: int, first_node: int, values: NDArray[Any]) -> None:
        """Put readings of consecutive rows and consecutive sensors.

        Args:
            first_row: row of the first; none of the rows was taken.
            first_node: sensor of the first.
            values: the readings, [rows, nodes, C].
        """
        stop = first_row + len(values)
        row = first_row
        while row < stop:
            band, offset = divmod(row, self._band_rows)
            # In pieces, so that what waits exceeds its limit by one of them only.
            num_rows = min(stop - row, self._band_rows - offset)
            piece = values[row - first_row : row - first_row + num_rows]
            header = (_BLOCK, offset, num_rows, first_node, piece.shape[1])
            self._wait(band, header, (np.ascontiguousarray(piece, dtype=self._dtype),))
            self._spill_if_full()
            row += num_rows

    def chunks(self, before: int | None = None) -> Iterator[NDArray[np.floating[Any]]]:
        """Consecutive rows [rows, N, C], from where the last call ended; NaN where there is none.

        Args:
            before: take only rows before this one, and only whole bands: nothing will be put there
                any more. By default all rows.

        Raises:
            PgtiError: where two readings differ and duplicates are errors.
        """
        stop = self._shape[0] if before is None else before // self._band_rows * self._band_rows
        while self._next_row < stop:
            band = self._next_row // self._band_rows
            self._next_row = min(self._next_row + self._band_rows, self._shape[0])
            yield self._take(band)

    def _bands_of(
        self, rows: NDArray[np.integer[Any]]
    ) -> Iterator[tuple[int, slice | NDArray[np.intp]]]:
        """The bands of the rows, and the places of each in its order."""
        if not len(rows):
            return
        bands = rows // self._band_rows
        first, last = int(bands.min()), int(bands.max())
        if first == last:
            yield first, slice(None)
            return
        small = bands - first  # 16 bits are sorted by counting
        order = np.argsort(
            small.astype(np.uint16 if last - first < 1 << 16 else np.int64), kind="stable"
        )
        ends = np.flatnonzero(np.diff(small[order])) + 1
        for places in np.split(order, ends):
            yield int(bands[places[0]]), places

    def _wait(self, band: int, header: tuple[int, ...], parts: tuple[NDArray[Any], ...]) -> None:
        pieces = [part.reshape(-1).view(np.uint8) for part in (np.array(header, np.int64), *parts)]
        self._waiting.setdefault(band, []).append(entry := np.concatenate(pieces))
        self._num_bytes += len(entry)

    def _spill_if_full(self) -> None:
        """Append what waits to the files of its bands once it exceeds the limit."""
        if self._num_bytes <= self._limit_bytes:
            return
        with self._writing():
            if self._directory is None:
                self._directory = Path(tempfile.mkdtemp(prefix="stage-", dir=scratch_directory()))
            for band, entries in self._waiting.items():
                with self._file(band).open("ab") as file:
                    for entry in entries:
                        file.write(entry.data)
        self._waiting.clear()
        self._num_bytes = 0

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        where = self._directory or scratch_directory()
        problem = f"{where} cannot hold the readings while they are put in the order of time"
        return reraise_os_errors(problem, StoreError)

    def _file(self, band: int) -> Path:
        assert self._directory is not None
        return self._directory / f"{band}.part"

    def _entries(self, band: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
        """Header and content of what was put in a band, in order."""
        if self._directory is not None and (path := self._file(band)).exists():
            with self._writing(), path.open("rb") as file:
                while len(header := np.fromfile(file, np.int64, 5)):
                    yield header, np.fromfile(file, np.uint8, self._content_bytes(header))
            path.unlink()
        for entry in self._waiting.pop(band, []):
            self._num_bytes -= len(entry)
            yield entry[:_HEADER_BYTES].view(np.int64), entry[_HEADER_BYTES:]

    def _content_bytes(self, header: NDArray[np.int64]) -> int:
        kind, first, second, _, last = header.tolist()
        reading_bytes = self._shape[2] * self._dtype.itemsize
        return int(first * (4 + reading_bytes) if kind == _CELLS else second * last * reading_bytes)

    def _take(self, band: int) -> NDArray[np.floating[Any]]:
        """The rows of a band."""
        num_rows = min(self._band_rows, self._shape[0] - band * self._band_rows)
        num_nodes, num_channels = self._shape[1:]
        joined = _Joined((num_rows, num_nodes, num_channels), self._dtype, self._duplicates)
        for header, content in self._entries(band):
            kind, first, second, node, num_columns = header.tolist()
            where: _Places
            if kind == _CELLS:
                where = content[: 4 * first].view(np.uint32)
                shape: tuple[int, ...] = (first, num_channels)
            else:
                where = (slice(first, first + second), slice(node, node + num_columns))
                shape = (second, num_columns, num_channels)
            values = content[4 * first if kind == _CELLS else 0 :].view(self._dtype)
            wrong = joined.add(where, values.reshape(shape))
            if wrong is not None:
                cell, channel, old, new = wrong
                row, node = divmod(cell, num_nodes)
                raise self._conflict(band * self._band_rows + row, node, channel, old, new)
        readings = joined.finish()
        self.num_repeated += joined.num_added - int(np.count_nonzero(~np.isnan(readings)))
        return readings


_Places: TypeAlias = "NDArray[np.uint32] | tuple[slice, slice]"


class _Joined:
    """The readings of a band, joined by the rule for duplicates.

    Args:
        shape: [rows, N, C] of the band.
        dtype: of the readings.
        rule: for duplicates.

    Attributes:
        num_added: readings that were added.
    """

    def __init__(
        self, shape: tuple[int, int, int], dtype: "np.dtype[Any]", rule: Duplicates
    ) -> None:
        planes = (shape[2], *shape[:2])  # a channel at a time is contiguous
        self._dtype, self._rule = dtype, rule
        self._readings = np.full(planes, np.nan, dtype)
        if rule == "mean":
            self._readings = np.zeros(planes, np.float64)
            self._counts = np.zeros(planes, np.uint32)
        self.num_added = 0

    def add(
        self, where: _Places, values: NDArray[np.floating[Any]]
    ) -> tuple[int, int, float, float] | None:
        """Add readings; if two differ and may not, the cell, the channel and both of one pair.

        Args:
            where: cells (row N + sensor) [n], or the rows and sensors of a block.
            values: the readings, [n, C] or [rows, nodes, C].
        """
        for channel in range(values.shape[-1]):
            new = values[..., channel]
            is_reading = ~np.isnan(new)
            self.num_added += int(np.count_nonzero(is_reading))
            places = where
            if isinstance(where, np.ndarray) and not is_reading.all():
                places, new, is_reading = where[is_reading], new[is_reading], np.array(True)
            wrong = self._add_to_channel(channel, places, new, is_reading)
            if wrong is not None:
                return (wrong[0], channel, *wrong[1:])
        return None

    def finish(self) -> NDArray[np.floating[Any]]:
        """The readings, [rows, N, C]."""
        readings = self._readings
        if self._rule == "mean":
            with np.errstate(invalid="ignore"):
                readings = (readings / self._counts).astype(self._dtype)
        return np.ascontiguousarray(np.moveaxis(readings, 0, -1))

    def _add_to_channel(
        self, channel: int, where: _Places, new: NDArray[Any], is_reading: NDArray[np.bool_]
    ) -> tuple[int, float, float] | None:
        plane = self._plane(self._readings, channel, where)
        if self._rule == "mean":
            counts = self._plane(self._counts, channel, where)
            if isinstance(where, tuple):
                plane[where] += np.where(is_reading, new, 0)
                counts[where] += is_reading
            else:
                np.add.at(plane, where, new)
                np.add.at(counts, where, np.uint32(1))
            return None
        old = plane[where].copy()
        takes = is_reading & np.isnan(old) if self._rule == "first" else is_reading
        if isinstance(where, tuple):
            plane[where] = np.where(takes, new, old)
        elif self._rule == "first":  # of places that are there twice, the last assignment stays
            plane[where[takes][::-1]] = new[takes][::-1]
        else:
            plane[where] = new
        if self._rule != "error":
            return None
        return _first_conflict(plane, where, old, new, is_reading)

    @staticmethod
    def _plane(planes: NDArray[Any], channel: int, where: _Places) -> NDArray[Any]:
        plane: NDArray[Any] = planes[channel]
        return plane if isinstance(where, tuple) else plane.reshape(-1)


def _first_conflict(
    plane: NDArray[Any], where: _Places, old: NDArray[Any], new: NDArray[Any], is_reading: Any
) -> tuple[int, float, float] | None:
    """The cell of a reading that differs from an older one or a newer one, and both readings."""
    stays = plane[where]
    is_other = is_reading & (((old != new) & ~np.isnan(old)) | (stays != new))
    if not is_other.any():
        return None
    place = np.unravel_index(int(np.argmax(is_other)), new.shape)
    if isinstance(where, tuple):
        row, node = (each.start + int(at) for each, at in zip(where, place, strict=True))
        cell = row * plane.shape[1] + node
    else:
        cell = int(where[place])
    differs = not np.isnan(old[place]) and old[place] != new[place]
    pair = (old[place], new[place]) if differs else (new[place], stays[place])
    return cell, float(pair[0]), float(pair[1])


def _describe_conflict(row: int, node: int, channel: int, old: float, new: float) -> PgtiError:
    return DataError(
        f"row {row} of sensor {node} has the readings {old:.15g} and {new:.15g} in channel "
        f"{channel}: each may occur once"
    )
