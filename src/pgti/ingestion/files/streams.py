"""Rows of one source among several: read on demand, with checked times, and closed at their end."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import StoreError
from pgti.ingestion.cleaning import drop_codes
from pgti.ingestion.instants import RowLabels
from pgti.ingestion.readings import Chunk, Readings
from pgti.ingestion.scratch import scratch_directory
from pgti.ingestion.times.rising import RisingTimes
from pgti.storage import reraise_os_errors

__all__ = ["Rows", "Stream", "read_times", "spool"]


def read_times(
    readings: Readings,
    codes: Sequence[float],
    clock: str | None,
    budget_bytes: int,
    first: int = 0,
) -> Iterator[Chunk]:
    """The chunks of a source with true times and NaN for codes of missing readings, checked.

    Rows of a source without times have their numbers for times.

    Args:
        readings: the source.
        codes: of missing readings.
        clock: zone of wall-clock times, if it is known.
        budget_bytes: see `Readings.chunks`.
        first: number of the first row of a source without times.

    Raises:
        DataError: naming the rows whose times repeat or go back.
    """
    times, row = RisingTimes(readings, clock, clock or readings.time_zone), 0
    for chunk in readings.chunks(budget_bytes):
        if readings.has_codes:
            drop_codes(chunk.values, codes)
        seconds, stop = chunk.seconds, row + len(chunk.values)
        if seconds is None:
            seconds = np.arange(first + row, first + stop)
        else:
            followed, num_before = times.follow(seconds, row)
            seconds = followed[num_before:]
        yield Chunk(values=chunk.values, seconds=seconds)
        row = stop


class Stream:
    """The rows of a part that were read and not merged yet.

    Args:
        chunks: of the part; closing it closes its files.
        labels: of its rows.
        nodes: see `Part`.
        channels: see `Part`.
        order: of the part among all, which decides which of two readings is the first.
    """

    def __init__(
        self,
        chunks: Iterator[Chunk],
        labels: RowLabels,
        nodes: NDArray[np.int64],
        channels: NDArray[np.int64],
        order: int,
    ) -> None:
        self.labels, self.nodes, self.channels, self.order = labels, nodes, channels, order
        self.is_on_disk = False
        self._chunks = chunks
        self._row = 0  # of the part, at the beginning of what was read
        self._values: NDArray[np.floating[Any]]
        self._seconds: NDArray[np.int64]
        self._forget()

    @property
    def last(self) -> int:
        """The last time that was read."""
        return int(self._seconds[-1])

    def has_all(self, nodes: NDArray[np.int64], channels: NDArray[np.int64]) -> bool:
        """Whether its sensors and channels are these, in this order."""
        return np.array_equal(self.nodes, nodes) and np.array_equal(self.channels, channels)

    def read(self) -> bool:
        """Read on if nothing is left of what was read; False at the end."""
        while not len(self._seconds):
            chunk = next(self._chunks, None)  # a generator closes its files at its end
            if chunk is None:
                return False
            assert chunk.seconds is not None
            self._values, self._seconds = chunk.values, chunk.seconds
        return True

    def take(self, limit: int) -> "Rows":
        """The rows up to a time, which are taken away."""
        stop = int(np.searchsorted(self._seconds, limit, side="right"))
        rows = Rows(self._values[:stop], self._seconds[:stop], self._row, self)
        self._values, self._seconds = self._values[stop:], self._seconds[stop:]
        self._row += stop
        if not len(self._seconds):
            self._forget()
        return rows

    def _forget(self) -> None:
        self._values = np.empty((0, len(self.nodes), len(self.channels)))
        self._seconds = np.empty(0, dtype=np.int64)

    def close(self) -> None:
        """Close the files of the part."""
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """Consecutive rows of a stream."""

    values: NDArray[np.floating[Any]]
    seconds: NDArray[np.int64]
    first_row: int
    stream: Stream


def spool(chunks: Iterator[Chunk], shape: tuple[int, int]) -> Iterator[Chunk]:
    """Write all chunks of rows [rows, N, C] to disk now, to be read again once.

    Args:
        chunks: with times.
        shape: sensors N, and channels C.

    Raises:
        StoreError: if they find no room.
    """
    where = scratch_directory()
    problem = f"{where} cannot hold the readings while they are put in the order of time"
    with reraise_os_errors(problem, StoreError):
        file = tempfile.TemporaryFile(dir=where)  # noqa: SIM115 - closed when it was read
        for chunk in chunks:
            assert chunk.seconds is not None
            np.array([len(chunk.seconds)], dtype=np.int64).tofile(file)
            chunk.seconds.tofile(file)
            np.ascontiguousarray(chunk.values, dtype=np.float64).tofile(file)
        file.seek(0)
    return _read_spool(file, shape)


def _read_spool(file: IO[bytes], shape: tuple[int, int]) -> Iterator[Chunk]:
    """The chunks of a file on disk, which is closed at the end."""
    size = shape[0] * shape[1]
    with file:
        while len(header := np.fromfile(file, np.int64, 1)):
            seconds = np.fromfile(file, np.int64, int(header[0]))
            values = np.fromfile(file, np.float64, int(header[0]) * size)
            yield Chunk(values=values.reshape(len(seconds), *shape), seconds=seconds)
