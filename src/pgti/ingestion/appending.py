"""Appending newer readings to a store, read as its own source was."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import ConfigError, DataError, option
from pgti.ingestion.cleaning import Cleaner
from pgti.ingestion.formats import check_options_used
from pgti.ingestion.growth import GrowingTimes, KnownRows
from pgti.ingestion.matching import match_readings
from pgti.ingestion.newer import aggregates_of, open_as_recalled, scale_of, source_channels
from pgti.ingestion.newer_times import put_on_clock
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.recall import describe_recalled, given_options, recall_options
from pgti.ingestion.resample import resample
from pgti.ingestion.scratch import scratch_beside
from pgti.ingestion.sources import ReadingsSource, find_source, readings_suffix
from pgti.ingestion.times import Localizer, format_seconds, parse_start
from pgti.options import require_type
from pgti.signatures import accept_options
from pgti.store import SeriesStore, StoreAppender

__all__ = ["AppendedRows", "append", "append_rows"]

_OF_INGEST = ("units", "exact", "overwrite", "graph_kind", "graph_values", "edges", "edge_values",
              "threshold", "sigma", "coordinates", "neighbours")  # fmt: skip


_COMPARED = 1 << 18  # readings of the store that newer ones are compared with
_MARGIN, _FAR_SHARE = 0.05, 0.9  # of the range of the store's; of the newer readings


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class AppendedRows:
    """What an append did.

    Attributes:
        store: the grown store, opened.
        num_appended: rows after the last one, those that were inserted into gaps included.
        num_skipped: rows that the store had already.
        num_corrected: rows of the store that took the readings of the source.
        absent: sensors of the store that the source lacks.
        extra: sensors of the source that the store lacks; they were left out.
    """

    store: SeriesStore
    num_appended: int
    num_skipped: int
    num_corrected: int
    absent: tuple[str, ...]
    extra: tuple[str, ...]


@accept_options(IngestOptions)
def append(
    store: SeriesStore,
    source: ReadingsSource,
    options: IngestOptions | None = None,
    *,
    correct: bool = False,
    log: Callable[[str], None] = lambda _: None,
    **more: Any,
) -> SeriesStore:
    """Append the rows of a source that come after the last row of a store.

    The source is read as that of the store was, unless options say otherwise. Sensors are matched
    by id, channels by name; a sensor that is absent is missing. Rows that the store has already
    are skipped where they are the same.

    Args:
        store: a store on disk; what others have appended to it since it was opened counts.
        source: a file of readings, a DataFrame, an array [rows, N] or [rows, N, C], or opened
            `Readings`; or several, as for `pgti.ingest`. The rows of an array without times follow
            the last row.
        options: how to read the source; the keywords below come first.
        correct: write the rows that the store has with other readings anew, in place of refusing
            them. It takes a copy of the series.
        log: called with a line if another process has to finish first.
        **more: options of `IngestOptions`:

    Returns:
        The grown store, opened; its `notes` say what a user should know, one line each.

    Raises:
        ConfigError: if options cannot be used.
        DataError: if the readings are not of the series, or break a rule.
        StoreError: if the store cannot be written, or is of format 1.
        MissingExtraError: if a format needs a library that is not installed.
    """
    require_type("options", options, (IngestOptions, NoneType), "IngestOptions")
    given = given_options(options) | given_options(more)
    return append_rows(store, source, given, correct=correct, log=log).store


def append_rows(
    store: SeriesStore,
    source: ReadingsSource,
    given: Mapping[str, Any],
    *,
    correct: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> AppendedRows:
    """Append rows as `append` does, which has the arguments and errors, and count them.

    Args:
        store: that grows.
        source: of newer rows.
        given: options of `IngestOptions` that the user gave, by name.
        correct: whether the source corrects rows of the store.
        log: called with a line if another process has to finish first.
    """
    for name in _OF_INGEST:
        if name in given:
            raise ConfigError(f"{name} is an option of pgti.ingest: leave {option(name)} out")
    if store.is_in_memory:
        raise ConfigError(f"{store.path} is a store in memory: only one on disk can grow")
    busy = f"waiting for another process that writes to {store.path}"
    with (
        scratch_beside(store.path),
        StoreAppender(store.path, on_busy=lambda: log(busy)) as appender,
    ):
        source = find_source(source)
        current = store
        if store.meta != appender.meta:
            current = SeriesStore.open(store.path, verify_up_to_bytes=0)
        rows = _NewerRows(source, current, given)
        known = KnownRows(appender, rows.readings, rows.is_present, current, correct=correct)
        times = GrowingTimes(rows.readings, current, rows.gaps)
        row = 0
        for values, seconds in rows.chunks(known):
            if seconds is None:
                appender.append(values)
                continue
            num_known = times.check(seconds, row)
            known.compare(values[:num_known], seconds[:num_known])
            if num_known < len(values):
                known.write_corrections()
                newer = values[num_known:], seconds[num_known:]
                for block in times.place(*newer, row + num_known):
                    appender.append(block)
            row += len(values)
        rows.check()
        known.write_corrections()
        late = rows.readings.late_notes()
        lost = appender.lost.note(f"ingest the whole series with {option('exact', value=True)}")
        notes = (*rows.notes, *late, *known.notes(), *times.notes(), *lost)
        if appender.num_steps == current.meta.num_steps and not known.num_corrected:
            grown, notes = current, (*notes, f"{rows.readings.name} has no newer row")
        else:
            appender.finish(times.grown_axis(appender.num_steps))
            grown = SeriesStore.open(store.path, verify_up_to_bytes=0)
        num_appended = appender.num_steps - current.meta.num_steps
    return AppendedRows(
        store=replace(grown, notes=notes),
        num_appended=num_appended,
        num_skipped=known.num_rows - known.num_corrected,
        num_corrected=known.num_corrected,
        absent=rows.matched.absent,
        extra=rows.matched.extra,
    )


def _compare_units(
    store: SeriesStore, values: NDArray[np.floating[Any]], name: str
) -> tuple[str, ...]:
    """A line for each channel with nearly all newer readings outside those of the newest rows.

    Args:
        store: before it grows; about 2^18 of its readings are read.
        values: the first newer readings [rows, N, C].
        name: of their source.
    """
    meta = store.meta
    num_rows = max(1, _COMPARED // (meta.num_nodes * meta.num_channels))
    stored = store.read(max(0, meta.num_steps - num_rows), meta.num_steps)
    lines = []
    for channel, label in enumerate(meta.channels):
        old, new = (each[..., channel] for each in (stored, values[:num_rows]))
        old, new = old[~np.isnan(old)], new[~np.isnan(new)]
        if not len(old) or not len(new):
            continue
        low, high = float(old.min()), float(old.max())
        margin = _MARGIN * (high - low)
        if ((new < low - margin) | (new > high + margin)).mean() >= _FAR_SHARE:
            lines.append(
                f"nearly all readings of {label} in {name} ({new.min():g} to {new.max():g}) lie "
                f"outside those that the store has ({low:g} to {high:g}): check their unit, "
                f"{option('scale')} and {option('missing')}"
            )
    return tuple(lines)


class _NewerRows:
    """The rows of a source for the sensors and channels of a store, cleaned.

    Args:
        source: the source.
        store: the store.
        given: options that the user gave, by name.

    Attributes:
        matched: the source's sensors and channels.
        readings: the matched source.
        is_present: which sensors of the store the source has, bool [N].
        gaps: what to do where rows are missing.
        notes: what was recalled, put right or left out.
    """

    def __init__(
        self, source: ReadingsSource, store: SeriesStore, given: Mapping[str, Any]
    ) -> None:
        meta, remembered = store.meta, store.meta.read_options
        zone, suffix = meta.time_zone, readings_suffix(source)
        recalled = recall_options(remembered, {"time_zone": zone, **given}, suffix)
        check_options_used(suffix, None, recalled.options)
        readings, recalled = open_as_recalled(source, recalled, "long", "duplicates")
        known = source_channels(store)
        self.matched = match_readings(readings, meta.node_ids, known, given, series="store")
        self.gaps = given.get("gaps", remembered.get("gaps", "error"))
        if recalled.options.resample is not None and self.gaps == "error":
            self.gaps = "fill"  # as a grid does
        how = aggregates_of(self.matched, recalled.options, given)
        gridded = resample(self.matched.readings, replace(recalled.options, gaps=self.gaps), how)
        self.readings = put_on_clock(gridded, zone, given.get("time_zone"), series="store")
        self._store, self._may_follow = store, isinstance(source, np.ndarray)
        scale = scale_of(self.matched, readings, known, given)
        self._options = replace(recalled.options, scale=scale, channels=())
        self._clock = None if zone is None else given.get("time_zone") or zone
        absent = set(self.matched.absent)
        self.is_present = np.array([each not in absent for each in meta.node_ids])
        self._cleaner = Cleaner(
            self._options,
            meta.channels,
            meta.node_ids,
            self.readings.row_labels,
            has_codes=self.readings.has_codes,
        )
        self.notes = (*self.readings.notes, *self.matched.notes)
        described = describe_recalled(recalled, meta, given, is_aware=readings.is_aware)
        if described:
            note = f"{readings.name} is read as the store's source was: {described}"
            self.notes = (note, *self.notes)

    def chunks(
        self, known: KnownRows
    ) -> Iterator[tuple[NDArray[np.floating[Any]], NDArray[np.int64] | None]]:
        """Readings [rows, N, C] and, where the source or the user has them, their times."""
        row, name, axis = 0, self.readings.name, self._store.time_axis
        localizer = None
        if self._clock is not None and not self.readings.is_aware:
            localizer = Localizer(self._clock, self.readings.row_labels)
        for chunk in self.readings.chunks(self._options.budget_bytes):
            values, seconds = self._cleaner.clean(chunk.values, row), chunk.seconds
            if row == 0:
                self.notes += _compare_units(self._store, values, name)
            if seconds is not None and not axis.is_dated:
                raise DataError(f"{name} has times and {self._store.path} has none: remove them")
            if seconds is None and axis.is_dated:
                seconds = self._seconds_without(row, row + len(values))
            elif seconds is not None and localizer is not None:
                if row == 0 and localizer.begins_twice(seconds):
                    seconds = self._localize_first(localizer, values, seconds, known)
                else:
                    seconds = localizer.convert(seconds, row)
            row += len(values)
            if not self._cleaner.has_failed:
                yield values, seconds
        if not row:
            raise DataError(f"{name} has no rows: there is nothing to append")

    def _localize_first(
        self,
        localizer: Localizer,
        values: NDArray[np.floating[Any]],
        wall: NDArray[np.int64],
        known: KnownRows,
    ) -> NDArray[np.int64]:
        """True times of rows that begin in the hour which the clock shows twice.

        They have the meaning with which they follow the last row of the store, or repeat its rows.
        """
        end, axis = self._store.time_axis.last_seconds, self._store.time_axis
        meanings = [localizer.begin(wall, is_second=second) for second in (False, True)]
        agrees = [known.has(values[each <= end], each[each <= end]) for each in meanings]
        first, second = (int(each[0]) for each in meanings)
        following = int(axis.next_seconds(1)[0])
        if first > end or agrees[0]:
            is_second = first > end and first != following and second == following
        elif agrees[1] or second == following:
            is_second = True
        elif second <= end and known.corrects:
            raise DataError(
                f"{self.readings.row_labels(0)} has the time {format_seconds(int(wall[0]))}, which "
                f"the clocks of {self._clock} show twice: write the times of corrections with "
                "their offset from UTC"
            )
        else:
            is_second = second > end and not known.corrects
        return localizer.begin(wall, is_second=is_second)

    def _seconds_without(self, first: int, stop: int) -> NDArray[np.int64]:
        """Times of rows of a source that has none."""
        axis, start = self._store.time_axis, self._options.start
        if start is None and not self._may_follow:
            raise DataError(
                f"{self.readings.name} has no times and the store has them: add {option('start')}, "
                "the time of the first row"
            )
        if start is None:
            return axis.next_seconds(stop)[first:]
        second = parse_start(start, self._clock)
        if axis.rule is not None:
            return axis.rule.after(second - 1, stop, axis.time_zone)[first:]
        return second + np.arange(first, stop, dtype=np.int64) * (axis.interval_seconds or 1)

    def check(self) -> None:
        """Refuse the source if it had infinite readings."""
        self._cleaner.check()
