"""Appending newer readings to a store, read as its own source was."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any

import numpy as np

from pgti.errors import ConfigError, option
from pgti.ingestion.contents import NoRowsError
from pgti.ingestion.covariates.future_files import future_series, read_future
from pgti.ingestion.later_rows import RowSplitter, lay_over, note_on_rows
from pgti.ingestion.newer.growth import GrowingTimes
from pgti.ingestion.newer.known_rows import KnownRows
from pgti.ingestion.newer.matched_rows import MatchedRows
from pgti.ingestion.newer.matching import MatchedReadings
from pgti.ingestion.newer.recall import given_options
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.scratch import scratch_beside
from pgti.ingestion.sources import ReadingsSource, find_source
from pgti.options import require_type
from pgti.signatures import accept_options
from pgti.store import SeriesStore, StoreAppender

__all__ = ["AppendedRows", "append", "append_rows"]

_OF_INGEST = ("units", "exact", "overwrite", "graph_kind", "graph_values", "edges", "edge_values",
              "threshold", "sigma", "coordinates", "neighbours", "known_future",
              "categorical")  # fmt: skip


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
    source: ReadingsSource | None = None,
    options: IngestOptions | None = None,
    *,
    future: ReadingsSource | None = None,
    correct: bool = False,
    log: Callable[[str], None] = lambda _: None,
    **more: Any,
) -> SeriesStore:
    """Append the rows of a source that come after the last row of a store.

    The source is read as that of the store was, unless options say otherwise. Sensors are matched
    by id, channels by name; a sensor that is absent is missing. Rows that the store has already
    are skipped where they are the same. Of channels known in advance, values that the store has for
    new rows stand where the source has none, and the source may lack the channel; newer values
    after the last row replace those that the store has.

    Args:
        store: a store on disk; what others have appended to it since it was opened counts.
        source: a file of readings, a DataFrame, an array [rows, N] or [rows, N, C], or opened
            `Readings`; or several, as for `pgti.ingest`. The rows of an array without times follow
            the last row. None if only values known in advance are newer.
        options: how to read the source; the keywords below come first.
        future: values known in advance from a source of their own, as for `pgti.ingest`.
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
    return append_rows(store, source, given, future=future, correct=correct, log=log).store


def append_rows(
    store: SeriesStore,
    source: ReadingsSource | None,
    given: Mapping[str, Any],
    *,
    future: ReadingsSource | None = None,
    correct: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> AppendedRows:
    """Append rows as `append` does, which has the arguments and errors, and count them.

    Args:
        store: that grows.
        source: of newer rows, if there are any.
        given: options of `IngestOptions` that the user gave, by name.
        future: of values known in advance.
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
        current = store
        if store.meta != appender.meta:
            current = SeriesStore.open(store.path, verify_up_to_bytes=0)
        growth = _Growth(appender, current, correct=correct)
        if source is not None:
            try:
                growth.take(find_source(source), given)
            except NoRowsError as error:
                growth.notes = (f"{str(error).split(': ')[0]}: nothing was appended",)
        grown = growth.finish(future, given if source is None else {})
    matched = growth.matched
    return AppendedRows(
        store=replace(grown, notes=growth.notes),
        num_appended=appender.num_steps - current.meta.num_steps,
        num_skipped=growth.num_same,
        num_corrected=growth.num_corrected,
        absent=() if matched is None else matched.absent,
        extra=() if matched is None else matched.extra,
    )


class _Growth:
    """The rows that a store gets, and what is known after them.

    Args:
        appender: writes to the store.
        store: as it is on disk.
        correct: whether the source corrects rows of the store.

    Attributes:
        matched: sensors and channels of the source; None without a source.
        num_same: rows of the source that the store has already.
        num_corrected: rows of the store that took its readings.
        notes: what the user should know, one line each.
    """

    def __init__(self, appender: StoreAppender, store: SeriesStore, *, correct: bool) -> None:
        self._appender, self._store, self._correct = appender, store, correct
        self._axis, self._later = store.time_axis, store.future
        self.matched: MatchedReadings | None = None
        self.num_same = self.num_corrected = 0
        self.notes: tuple[str, ...] = ()

    def take(self, source: ReadingsSource, given: Mapping[str, Any]) -> None:
        """Append the newer rows of a source.

        Raises:
            DataError: if they are not of the series, or break a rule.
        """
        store, appender = self._store, self._appender
        rows = MatchedRows(source, store, given)
        known = KnownRows(
            appender,
            rows.readings,
            rows.is_present,
            store,
            has_channel=np.array(rows.matched.channels) >= 0,
            correct=self._correct,
        )
        times = GrowingTimes(rows.readings, store, rows.gaps)
        splitter = RowSplitter(
            rows.readings.name,
            appender.append,
            appender.lost,
            store.meta.known_future,
            store.codec.reading_dtype,
            earlier=store.future,
            num_before=store.meta.num_steps,
        )
        row = 0
        for values, seconds in rows.chunks(known):
            if seconds is None:
                splitter.append(values)
                continue
            num_known = times.check(seconds, row)
            known.compare(values[:num_known], seconds[:num_known])
            if num_known < len(values):
                known.write_corrections()
                newer = values[num_known:], seconds[num_known:]
                for block in times.place(*newer, row + num_known):
                    splitter.append(block)
            row += len(values)
        rows.check()
        known.write_corrections()
        splitter.seconds = times.later(appender.num_steps)
        self._axis = times.grown_axis(appender.num_steps)
        self._later = splitter.later(self._axis)
        self.matched = rows.matched
        self.num_same, self.num_corrected = (
            known.num_rows - known.num_corrected,
            known.num_corrected,
        )
        late = rows.readings.late_notes()
        lost = appender.lost.note(f"ingest the whole series with {option('exact', value=True)}")
        self.notes = (*rows.notes, *late, *known.notes(), *times.notes(), *splitter.notes(), *lost)
        if splitter.num_used:
            were = "value was" if splitter.num_used == 1 else "values were"
            self.notes += (
                f"{splitter.num_used:,} {were} known in advance, and {rows.readings.name} lacks "
                "them: they are now readings",
            )
        if appender.num_steps == store.meta.num_steps and not self._has_changed():
            self.notes += (f"{rows.readings.name} has no newer row",)

    def finish(self, future: ReadingsSource | None, given: Mapping[str, Any]) -> SeriesStore:
        """Make all of it part of the store.

        Args:
            future: a source of values known in advance, if there is one.
            given: options that the user gave for it, by name.
        """
        store, known = self._store, self._store.meta.known_future
        if future is not None:
            if not known:
                raise ConfigError(
                    f"{store.path} has no channel that is known in advance: ingest its source with "
                    f"{option('known_future')}"
                )
            later, notes = read_future(future, future_series(store, self._axis), given)
            self._later = lay_over(self._later, later)
            self.notes += notes
        if not self._has_changed():
            if future is not None:
                self.notes += (f"{store.path} has these values already: nothing was changed",)
            return store
        if not np.array_equal(self._later, store.future, equal_nan=True) and len(self._later):
            name = str(store.path)
            self.notes += (note_on_rows(name, self._axis, self._later, known),)
        self._appender.finish(self._axis, self._later)
        return SeriesStore.open(store.path, verify_up_to_bytes=0)

    def _has_changed(self) -> bool:
        is_longer = self._appender.num_steps > self._store.meta.num_steps
        is_same = np.array_equal(self._later, self._store.future, equal_nan=True)
        return is_longer or self.num_corrected > 0 or not (is_same or not len(self._later))
