"""Which windows to forecast: of the run's own series, or of newer readings of its sensors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from types import NoneType
from typing import TypeAlias
from zoneinfo import ZoneInfo

import numpy as np

from pgti.batching import Batch, BatchLoader, WindowSource
from pgti.display import count_of
from pgti.errors import ConfigError, option
from pgti.forecasting import ForecastLabels
from pgti.ingestion.covariates.future_files import future_series, read_future
from pgti.ingestion.later_rows import note_on_rows
from pgti.ingestion.newer.future_stores import last_observed_row, with_future
from pgti.ingestion.newer.newer import NewerSeries
from pgti.ingestion.newer.recall import given_options
from pgti.ingestion.sources import ReadingsSource, find_source
from pgti.options import require_type
from pgti.run.loaded import LoadedRun
from pgti.run.newer import NEWER_TYPES, NewerOptions, NewerReadings, open_newer
from pgti.store import TypicalReadings, parse_time
from pgti.windows import SplitName, Starts

__all__ = ["ForecastSummary", "SelectedWindows", "Selection", "TimeLike", "wall_clock"]

TimeLike: TypeAlias = str | datetime | np.datetime64
"""A wall-clock time: ISO 8601 text, or an object whose `str` is that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastSummary:
    """What was forecast, and from what.

    Attributes:
        windows: number of windows.
        readings: what they were forecast from: the path of a store or a file, or "the DataFrame".
        origin: time of the last input of the last window, ISO 8601; its row where times are
            unknown.
        last_reading: time of the newest row up to it with a reading, likewise; None if there is
            none.
        absent: sensors of the run that the readings lack.
        extra: sensors of the readings that the run does not know.
        notes: what was recalled, put right, filled or left out, one line each.
    """

    windows: int
    readings: str
    origin: str | int | None
    last_reading: str | int | None
    absent: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class SelectedWindows:
    """Windows to forecast.

    Attributes:
        batches: of the windows.
        labels: of their forecasts.
        summary: what they are.
        source: what they hold.
        first: start of the first.
    """

    batches: Iterator[Batch]
    labels: ForecastLabels
    summary: ForecastSummary
    source: WindowSource
    first: int


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Selection:
    """Windows to forecast; by default the one whose horizon follows the end of the series.

    Attributes:
        readings: newer readings, in place of the run's series.
        split: the windows of this split.
        between: the windows whose first forecast step lies in [first, last].
        options: how to read `readings` that are a file, a table or an array; without them, how to
            read `future`.
        future: values known in advance after the last reading, from a source of their own.
        with_past: read all of newer readings, not the last of them alone.
        last: so many of the last windows at most; all if not given.

    Raises:
        ConfigError: if the choices contradict one another.
    """

    readings: NewerReadings | None = None
    split: SplitName | None = None
    between: tuple[TimeLike, TimeLike] | None = None
    options: NewerOptions = None
    future: ReadingsSource | None = None
    with_past: bool = False
    last: int | None = None

    def __post_init__(self) -> None:
        kinds = (*NEWER_TYPES, str, NoneType, list, tuple)
        what = "a frame, an array, a store or the path of a file or store, or several"
        require_type("readings", self.readings, kinds, what)
        between: object = self.between
        if between is not None and not (isinstance(between, tuple | list) and len(between) == 2):
            raise ConfigError(f"between is {between!r}: it must be two times, (first, last)")
        if self.split is not None and self.between is not None:
            raise ConfigError("forecast either a split or the windows between two times, not both")
        if self.split is not None and self.readings is not None:
            raise ConfigError(f"newer readings have no splits: leave {option('split')} out")
        if self.future is not None and (self.split is not None or self.between is not None):
            raise ConfigError(
                "values known in advance belong to the forecast past the end: leave "
                f"{option('future')} out"
            )
        if self.readings is None and self.future is None and self.options:
            raise ConfigError(
                f"options of ingest say how newer readings are read, and there are none: give "
                f"{option('readings')}, or leave them out"
            )

    @contextmanager
    def open(self, run: LoadedRun, load: Callable[..., BatchLoader]) -> Iterator[SelectedWindows]:
        """The windows to forecast; newer readings exist in the block alone.

        Args:
            run: whose network forecasts them.
            load: a loader of (starts, source, with_targets=).

        Raises:
            ConfigError: if there is nothing to forecast, or options cannot be used.
            DataError: if newer readings are not of the run's sensors and channels, or break a rule.
            RunError: if the run's own series is needed and its store is gone.
            StoreError: if a store of newer readings cannot be opened.
        """
        with self._open_source(run) as (opened, newer):
            source, future_notes = self._add_future(opened, run)
            first = 0 if newer is None else newer.num_earlier
            known, beyond = self._choose_starts(source, run, first)
            whole = run.config.windows.whole(source.store, known)
            num_left_out, known = len(known) - len(whole), whole
            if not len(known) + len(beyond):
                raise ConfigError(
                    "every forecast that begins between these times reaches across missing rows: "
                    "choose others"
                )
            if len(beyond):
                future_notes += _check_future(source, int(beyond[-1]), run)
            loaders = [
                load(starts, source, with_targets=starts is known)
                for starts in (known, beyond)
                if len(starts)
            ]
            axis = source.store.time_axis
            last = int((beyond if len(beyond) else known)[-1])
            last_input = last + source.spec.input_steps - 1
            rows = last_input, last_observed_row(source.store, last_input + 1)
            origin, last_reading = (
                axis.isoformat(row).replace(" ", "T") if row is not None and axis.is_dated else row
                for row in rows
            )
            labels = ForecastLabels.of_source(source, past_the_end=len(beyond) > 0)
            yield SelectedWindows(
                batches=(batch for loader in loaders for batch in loader.epoch(0)),
                labels=labels,
                source=source,
                first=int((known if len(known) else beyond)[0]),
                summary=ForecastSummary(
                    windows=len(known) + len(beyond),
                    readings=str(source.store.path),
                    origin=origin,
                    last_reading=last_reading,
                    absent=() if newer is None else newer.absent,
                    extra=() if newer is None else newer.extra,
                    notes=(
                        *(() if newer is None else newer.notes),
                        *future_notes,
                        *_notes_on_times(labels, last_input, num_left_out),
                    ),
                ),
            )

    @contextmanager
    def _open_source(self, run: LoadedRun) -> Iterator[tuple[WindowSource, NewerSeries | None]]:
        """The run's own source, or that of the newer readings."""
        if self.split is not None:
            run.require_rows()
            yield run.source, None
            return
        readings = run.newer if self.readings is None else self.readings
        note = None
        if readings is None:
            readings, note = run.newest_store()
            if note is None:
                yield replace(run.source, store=readings), None
                return
        needs_all = self.with_past or self.between is not None
        spec = run.source.spec
        num_rows = None if needs_all else spec.input_steps - spec.reach.start
        with open_newer(run, readings, self.options, num_rows=num_rows) as newer:
            source = run.source
            if source.typical is None and source.fill == "last" and newer.store.meta.missing_count:
                rows = run.splits.train_rows(source.spec)
                source = replace(source, typical=TypicalReadings.fit(run.store, rows))
            notes = newer.notes if note is None else (note, *newer.notes)
            yield replace(source, store=newer.store), replace(newer, notes=notes)

    def _add_future(
        self, source: WindowSource, run: LoadedRun
    ) -> tuple[WindowSource, tuple[str, ...]]:
        """The source with the values known in advance that the user gives, and notes."""
        if self.future is None:
            return source, ()
        known = run.store.meta.known_future
        if not known:
            raise ConfigError(
                "no channel of the run is known in advance: leave "
                f"{option('future')} out, or ingest its series with {option('known_future')}"
            )
        axis = source.store.time_axis
        given = given_options(self.options) if self.readings is None else {}
        series = future_series(run.store, axis)
        values, notes = read_future(find_source(self.future), series, given)
        store = with_future(source.store, known, values)
        return replace(source, store=store), (
            *notes,
            note_on_rows("the forecast", axis, store.future, known),
        )

    def _choose_starts(
        self, source: WindowSource, run: LoadedRun, first_row: int
    ) -> tuple[Starts, Starts]:
        """Starts of the windows, first those with targets, then those that end the series.

        Rows before the first are there for history alone.
        """
        none = range(0)
        if self.split is not None:
            starts = run.splits.starts(self.split)
            return starts[-self.last :] if self.last else starts, none
        num_steps, spec = source.store.meta.num_steps, source.spec
        latest = num_steps - spec.input_steps
        if latest < first_row:
            num_steps -= first_row
            raise ConfigError(
                f"the readings have {count_of(num_steps, 'step')}, too few to forecast from: the "
                f"model needs the last {spec.input_steps}"
            )
        starts = np.array([latest])
        if self.between is not None:
            zone = source.store.time_axis.time_zone
            first, last = (wall_clock(time, zone) for time in self.between)
            rows = np.arange(first_row + spec.input_steps, num_steps + 1)
            times = source.store.time_axis.at(rows)
            starts = rows[(first <= times) & (times <= last)] - spec.input_steps
            starts = starts[-self.last :] if self.last else starts
            if not len(starts):
                raise ConfigError(
                    f"no forecast can begin between {self.between[0]} and {self.between[1]}: the "
                    f"series has {count_of(num_steps, 'step')}"
                    f"{source.store.time_axis.extent(first_row)} and a forecast needs "
                    f"{spec.input_steps} before it"
                )
        num_known = int((starts + spec.span <= num_steps).sum())
        return starts[:num_known], starts[num_known:]


def _check_future(source: WindowSource, start: int, run: LoadedRun) -> tuple[str, ...]:
    """Refuse a window past the end whose known values are not there, if the network reads them.

    Returns:
        A note on those that are missing in the rows that are there.

    Raises:
        ConfigError: saying how many rows there are, and how to give the others.
    """
    if not source.known_indices or not run.forecaster.uses_future:
        return ()
    meta = source.store.meta
    needed = start + source.spec.span - meta.num_steps
    known = [run.store.meta.channels[index] for index in source.known_indices]
    there = meta.future_steps if set(known) <= set(meta.known_future) else 0
    if there < needed:
        raise ConfigError(
            f"the network reads {', '.join(known)} at the steps to forecast, and of the "
            f"{count_of(needed, 'row')} after the last reading {source.store.path} has {there:,}: "
            f"give them with {option('future')}, or append them to the store"
        )
    places = [meta.known_future.index(name) for name in known]
    num_missing = int(np.isnan(source.store.future[:needed, :, places]).sum())
    if not num_missing:
        return ()
    missing = "1 value is" if num_missing == 1 else f"{num_missing:,} values are"
    return (f"{missing} missing of {', '.join(known)} at the steps to forecast: filled as inputs",)


def _notes_on_times(labels: ForecastLabels, last_row: int, num_left_out: int) -> tuple[str, ...]:
    """What is to be known about the times of forecasts, one line each.

    Args:
        labels: of the forecasts.
        last_row: row of the last input of the newest one.
        num_left_out: forecasts that reach across missing rows.
    """
    notes = []
    if num_left_out:
        reach = "forecast reaches" if num_left_out == 1 else "forecasts reach"
        are = "is" if num_left_out == 1 else "are"
        notes.append(f"{num_left_out:,} {reach} across missing rows and {are} left out")
    holes = labels.time_axis.holes
    holes = holes[(last_row - labels.input_steps < holes) & (holes < last_row)]
    if len(holes):
        notes.append(
            f"the inputs of the forecast from {labels.name_of(last_row)} reach across rows that "
            f"are missing after {labels.name_of(int(holes[-1]))}: the model takes them for "
            "consecutive steps"
        )
    if labels.numbered:
        why = "the readings have no times"
        if labels.time_axis.is_dated:
            why = "the times of the readings are irregular, and what follows the last is not known"
        notes.append(f"{why}: forecasts have the numbers of their rows in place of times")
    return tuple(notes)


def wall_clock(time: TimeLike, zone: str | None) -> np.datetime64:
    """The time on the clock of the series; one with an offset is shown on that clock."""
    if isinstance(time, datetime) and time.tzinfo is not None and zone is not None:
        time = time.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    return parse_time("time", str(time))
