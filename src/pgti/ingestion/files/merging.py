"""Rows of several sources, joined by time in one pass, in bounded memory and with few open files.

Sources are opened when their first time comes, so that files of one day each are open one after the
other. Of sources that are open at the same time, the rows up to a time that all of them have
reached are put together. Where more are open than files may be, their rest goes to one file on
disk, which is merged in their place.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import DataError, option
from pgti.ingestion.cleaning import numeric_codes
from pgti.ingestion.files.joined_labels import JoinedLabels
from pgti.ingestion.files.streams import Rows, Stream, read_times, spool
from pgti.ingestion.instants import show_time
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import Chunk, Readings, rows_per_chunk

__all__ = ["Merge", "Part"]

_MAX_OPEN = 64  # files, or rests of files on disk


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Part:
    """A source to merge.

    Attributes:
        readings: the source, with times or without.
        nodes: the place of each of its sensors among those of all, int64.
        channels: the place of each of its channels among those of all, int64.
        first: its first time, as `read_times` gives it.
    """

    readings: Readings
    nodes: NDArray[np.int64]
    channels: NDArray[np.int64]
    first: int


class Merge:
    """Merges parts by time.

    Args:
        parts: the sources; where two have a reading of one time, sensor and channel, their order
            decides which is the first.
        options: codes of missing readings, the zone of wall-clock times, and which of two readings
            stays.
        node_ids: of all sensors, for messages.
        channels: of all channels, for messages.
        name: what messages call the parts together.
        is_timed: whether the parts have times.

    Attributes:
        labels: of the merged rows.
        num_rows: merged rows.
        num_repeated: readings that stand in several parts.
        rows_of: rows that each part had, by its order.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        options: IngestOptions,
        *,
        node_ids: Sequence[str],
        channels: Sequence[str],
        name: str,
        is_timed: bool = True,
    ) -> None:
        self._parts, self._node_ids, self._channels = parts, node_ids, channels
        self._codes, self._clock = numeric_codes(options.missing), options.time_zone
        self._shown = options.time_zone or parts[0].readings.time_zone
        self._duplicates, self._is_timed = options.duplicates, is_timed
        self.labels = JoinedLabels(name)
        self.num_rows = self.num_repeated = 0
        self.rows_of: dict[int, int] = {}

    def chunks(self, budget_bytes: int) -> Iterator[Chunk]:
        """The merged rows; see `Readings.chunks`."""
        self.labels.pieces.clear()
        self.num_rows = self.num_repeated = 0
        self.rows_of = {}
        with contextlib.ExitStack() as held:
            every = np.arange(len(self._node_ids)), np.arange(len(self._channels))
            for chunk in self._merge(self._open_all(budget_bytes, held), *every, budget_bytes):
                self.num_rows += len(chunk.values)
                yield chunk if self._is_timed else Chunk(values=chunk.values)

    def _open_all(
        self, budget_bytes: int, held: contextlib.ExitStack
    ) -> Iterator[tuple[int, Callable[[int], Stream]]]:
        """First time of each part, rising, and what opens it beside so many open ones."""
        for order in sorted(range(len(self._parts)), key=lambda each: self._parts[each].first):
            part = self._parts[order]

            def opened(num_open: int, part: Part = part, order: int = order) -> Stream:
                budget = max(1, budget_bytes // (2 * (num_open + 1)))
                chunks = read_times(part.readings, self._codes, self._clock, budget, part.first)
                chunks = self._counted(chunks, order)
                labels = part.readings.row_labels
                stream = Stream(chunks, labels, part.nodes, part.channels, order)
                held.callback(stream.close)
                return stream

            yield part.first, opened

    def _counted(self, chunks: Iterator[Chunk], order: int) -> Iterator[Chunk]:
        self.rows_of[order] = 0
        for chunk in chunks:
            self.rows_of[order] += len(chunk.values)
            yield chunk

    def _merge(
        self,
        coming: Iterator[tuple[int, Callable[[int], Stream]]],
        nodes: NDArray[np.int64],
        channels: NDArray[np.int64],
        budget_bytes: int,
        streams: Sequence[Stream] = (),
        labels: JoinedLabels | None = None,
    ) -> Iterator[Chunk]:
        """Merged rows of some sensors and channels.

        Args:
            coming: parts to open.
            nodes: places of the sensors, rising.
            channels: places of the channels, rising.
            budget_bytes: see `Readings.chunks`.
            streams: those that are open already.
            labels: take down where rows come from.
        """
        labels = self.labels if labels is None else labels
        active, row = list(streams), 0
        size = rows_per_chunk(budget_bytes, len(nodes) * len(channels))
        waiting = next(coming, None)
        while True:
            active = [each for each in active if each.read()]
            while waiting is not None and (
                not active or waiting[0] <= min(each.last for each in active)
            ):
                active = self._make_room(active, budget_bytes)
                stream = waiting[1](len(active))
                active += [stream] if stream.read() else []
                waiting = next(coming, None)
            if not active:
                return
            limit = min(each.last for each in active)
            taken = [each.take(limit) for each in active]
            taken = sorted((each for each in taken if len(each.seconds)), key=_order)
            times = taken[0].seconds
            if len(taken) > 1:
                times = np.unique(np.concatenate([each.seconds for each in taken]))
            for first in range(0, len(times), size):
                block = times[first : first + size]
                yield Chunk(
                    values=self._join(taken, block, nodes, channels, labels, row), seconds=block
                )
                row += len(block)

    def _make_room(self, active: list[Stream], budget_bytes: int) -> list[Stream]:
        """The open streams; where they are too many, the rest of them as one on disk."""
        for is_on_disk in (False, True):
            chosen = [each for each in active if each.is_on_disk == is_on_disk]
            if len(chosen) >= _MAX_OPEN:
                rest = [each for each in active if each.is_on_disk != is_on_disk]
                spooled = self._spool(chosen, budget_bytes)
                active = [*rest, spooled] if spooled.read() else rest
        return active

    def _spool(self, streams: list[Stream], budget_bytes: int) -> Stream:
        """The merged rest of streams, written to disk."""
        nodes, channels = (
            np.unique(np.concatenate([getattr(each, name) for each in streams]))
            for name in ("nodes", "channels")
        )
        labels = JoinedLabels(self.labels.source)
        merged = self._merge(iter(()), nodes, channels, budget_bytes, streams, labels)
        order = min(each.order for each in streams)
        stream = Stream(spool(merged, (len(nodes), len(channels))), labels, nodes, channels, order)
        stream.is_on_disk = True
        return stream

    def _join(
        self,
        taken: Sequence[Rows],
        times: NDArray[np.int64],
        nodes: NDArray[np.int64],
        channels: NDArray[np.int64],
        labels: JoinedLabels,
        first_row: int,
    ) -> NDArray[np.floating[Any]]:
        """Readings [rows, N, C] at some of the times of rows that were taken."""
        if len(taken) == 1 and taken[0].stream.has_all(nodes, channels):
            first, stop = np.searchsorted(taken[0].seconds, (times[0], times[-1] + 1))
            labels.add(first_row, taken[0].stream.labels, taken[0].first_row + int(first))
            return np.ascontiguousarray(taken[0].values[first:stop])
        dtype = np.result_type(*(each.values.dtype for each in taken))
        joined = np.full((len(times), len(nodes), len(channels)), np.nan, dtype=dtype)
        counts = np.zeros(joined.shape, np.int32) if self._duplicates == "mean" else None
        unlabelled = np.ones(len(times), dtype=np.bool_)
        for rows in taken:
            begin, stop = np.searchsorted(rows.seconds, (times[0], times[-1] + 1))
            if begin == stop:
                continue
            places = np.searchsorted(times, rows.seconds[begin:stop])
            self._label(labels, rows, int(begin), places, unlabelled, first_row)
            where = np.ix_(
                places,
                np.searchsorted(nodes, rows.stream.nodes),
                np.searchsorted(channels, rows.stream.channels),
            )
            self._add(joined, counts, where, rows, int(begin), rows.values[begin:stop], taken)
        if counts is not None:
            joined /= np.maximum(counts, 1)
        return joined

    def _label(
        self,
        labels: JoinedLabels,
        rows: Rows,
        begin: int,
        places: NDArray[np.int64],
        unlabelled: NDArray[np.bool_],
        first_row: int,
    ) -> None:
        """Take down which rows are of a stream: those that no stream before it has."""
        new = np.flatnonzero(unlabelled[places])
        if not len(new):
            return
        unlabelled[places] = False
        # A stretch ends where either side skips a row.
        skips = np.diff(places[new]) != 1
        skips |= np.diff(new) != 1
        for start in new[np.append(True, skips)].tolist():
            labels.add(
                first_row + int(places[start]), rows.stream.labels, rows.first_row + begin + start
            )

    def _add(
        self,
        joined: NDArray[np.floating[Any]],
        counts: NDArray[np.int32] | None,
        where: Any,
        rows: Rows,
        begin: int,
        new: NDArray[np.floating[Any]],
        taken: Sequence[Rows],
    ) -> None:
        """Put readings of a stream into the joined ones, by the rule for duplicates."""
        old, observed = joined[where], ~np.isnan(new)
        both = observed & ~np.isnan(old)
        if both.any():
            self.num_repeated += int(np.count_nonzero(both))
            if counts is not None and any(each.stream.is_on_disk for each in taken):
                raise DataError(
                    f"more than {_MAX_OPEN} files are open at the same times and have readings of "
                    f"the same sensors: their mean cannot be taken; choose "
                    f"{option('duplicates', 'first')} or {option('duplicates', 'last')}"
                )
            if self._duplicates == "error" and (differs := both & (old != new)).any():
                row, node, channel = (int(each) for each in np.argwhere(differs)[0])
                second = int(rows.seconds[begin + row])
                pair = (old[row, node, channel], new[row, node, channel])
                place = (begin + row, node, channel)
                raise self._conflict(rows, place, second, pair, taken)
        if counts is not None:
            joined[where] = np.where(observed, np.where(both, old, 0) + new, old)
            counts[where] += observed
        elif self._duplicates == "last":
            joined[where] = np.where(observed, new, old)
        else:
            joined[where] = np.where(both, old, np.where(observed, new, old))

    def _conflict(
        self,
        rows: Rows,
        place: tuple[int, int, int],
        second: int,
        pair: tuple[float, float],
        taken: Sequence[Rows],
    ) -> DataError:
        """The refusal of two readings of one time, sensor and channel."""
        row, node, channel = place
        here = f"{rows.stream.labels(rows.first_row + row)} has {pair[1]:g}"
        others = []
        for other in taken:
            if other is rows:
                break
            at = int(np.searchsorted(other.seconds, second))
            if at < len(other.seconds) and other.seconds[at] == second:
                others.append(other.stream.labels(other.first_row + at))
        sensor = self._node_ids[int(rows.stream.nodes[node])]
        label = self._channels[int(rows.stream.channels[channel])]
        time = f" at {show_time(second, self._shown)}" if self._is_timed else ""
        return DataError(
            f"{here} and {others[-1]} {pair[0]:g} for sensor {sensor!r}, channel {label!r}{time}: "
            f"files that overlap must agree; correct them, choose with "
            f"{option('duplicates', 'last')} (or first, or mean), or say what each file holds with "
            f"{option('files', 'sensors')} or {option('files', 'channels')}"
        )


def _order(rows: Rows) -> int:
    return rows.stream.order
