"""The rows of a newer source for the sensors and channels of a store, cleaned."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import DataError, option
from pgti.ingestion.cleaning import Cleaner
from pgti.ingestion.contents import NoRowsError
from pgti.ingestion.formats import check_options_used
from pgti.ingestion.instants import Localizer, check_start, format_seconds, parse_start
from pgti.ingestion.newer.known_rows import KnownRows
from pgti.ingestion.newer.matching import match_readings
from pgti.ingestion.newer.newer import aggregates_of, open_as_recalled, scale_of, source_channels
from pgti.ingestion.newer.newer_times import put_on_clock
from pgti.ingestion.newer.recall import describe_recalled, recall_options
from pgti.ingestion.newer.unit_check import compare_units
from pgti.ingestion.sources import ReadingsSource, readings_suffix
from pgti.ingestion.times.resample import resample
from pgti.store import SeriesStore

__all__ = ["MatchedRows"]


class MatchedRows:
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
        readings, recalled = open_as_recalled(source, recalled, "long", "duplicates", "ignore")
        known = source_channels(store)
        self.matched = match_readings(
            readings, meta.node_ids, known, given, series="store", optional=meta.known_future
        )
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
        localizer = self.readings.localizer(self._clock)
        for chunk in self.readings.chunks(self._options.budget_bytes):
            values, seconds = self._cleaner.clean(chunk.values, row), chunk.seconds
            if row == 0:
                self.notes += compare_units(self._store, values, name)
            if seconds is not None and not axis.is_dated:
                raise DataError(f"{name} has times and {self._store.path} has none: remove them")
            if seconds is None and axis.is_dated:
                seconds = self._seconds_without(row, row + len(values))
            elif seconds is not None and localizer is not None:
                if row == 0 and localizer.begins_twice(seconds):
                    seconds = self._localize_first(localizer, values, seconds, known)
                else:
                    seconds = localizer.convert(seconds, row)
            if row == 0 and chunk.seconds is not None and seconds is not None and len(seconds):
                labels = self.readings.row_labels
                check_start(labels, int(seconds[0]), self._options.start, self._clock)
            row += len(values)
            if not self._cleaner.has_failed:
                yield values, seconds
        if not row:
            raise NoRowsError(f"{name} has no rows: there is nothing to append")
        self.notes += self._cleaner.notes()

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
