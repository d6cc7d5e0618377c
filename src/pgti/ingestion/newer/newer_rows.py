"""Matched newer readings as a store: cleaned, and at the times of the series that they continue."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import DataError, option
from pgti.graph import SensorGraph
from pgti.ingestion.cleaning import Cleaner
from pgti.ingestion.instants import parse_start
from pgti.ingestion.newer.newer_times import NewerTimes
from pgti.ingestion.options import Gaps, IngestOptions
from pgti.ingestion.readings import Readings
from pgti.store import SeriesStore, StoreWriter, TimeAxis, format_interval
from pgti.store.clock import wall_seconds

__all__ = ["StoreBuilder", "notes_of_phase", "notes_of_rows"]


class StoreBuilder:
    """Makes a store of matched readings, whose chunks can be read again.

    Args:
        readings: of the sensors and channels of the series, on its clock.
        series: what they continue.
        options: how to clean them.
        clock: zone in which wall-clock times are read, for a series with a zone.
        gaps: what to do where rows are missing.

    Attributes:
        notes: what was filled and is empty, once a store is made.
    """

    def __init__(
        self,
        readings: Readings,
        series: SeriesStore,
        options: IngestOptions,
        clock: str | None,
        gaps: Gaps,
    ) -> None:
        self._readings, self._series, self._options = readings, series, options
        self._clock, self._gaps = clock, gaps
        self._axis = TimeAxis(num_steps=0)
        self.notes: tuple[str, ...] = ()

    def in_memory(self, max_bytes: int) -> SeriesStore | None:
        """The store in memory; None if it would be larger."""
        blocks, num_bytes, exact = [], 0, self._series.meta.is_exact
        for block in self._rows():
            with np.errstate(over="ignore"):
                blocks.append(block.astype(np.float64 if exact else np.float32, copy=False))
            if np.isinf(blocks[-1]).any():
                raise DataError(
                    f"{self._readings.name} has readings beyond the range of float32, such as "
                    f"{np.nanmax(np.abs(block)):g}: check their unit, or declare the value with "
                    f"{option('options.missing')}"
                )
            num_bytes += blocks[-1].nbytes
            if num_bytes > max_bytes:
                return None
        meta = self._series.meta
        return SeriesStore.in_memory(
            np.concatenate(blocks),
            SensorGraph.empty(meta.num_nodes),
            self._axis,
            node_ids=meta.node_ids,
            channels=meta.channels,
            units=meta.units,
            name=self._readings.name,
            exact=exact,
        )

    def on_disk(self, path: Path) -> SeriesStore:
        """The store at `path`."""
        meta = self._series.meta
        with StoreWriter(
            path,
            node_ids=meta.node_ids,
            channels=meta.channels,
            graph=SensorGraph.empty(meta.num_nodes),
            units=meta.units,
            time_zone=meta.time_zone,
            exact=meta.is_exact,
        ) as writer:
            writer.check_room(self._readings.num_rows or 0)
            for block in self._rows():
                writer.append(block)
            axis, rule = self._axis, self._axis.rule
            start = axis.start_seconds
            writer.finish(
                start=None if start is None else np.datetime64(start, "s"),
                interval_seconds=axis.interval_seconds,
                seconds=axis.seconds,
                time_rule=None if rule is None else rule.to_plain(),
            )
        return SeriesStore.open(path, verify_up_to_bytes=0)

    def _rows(self) -> Iterator[NDArray[np.floating[Any]]]:
        """The rows in blocks [rows, N, C]; then their times are known."""
        readings, axis, meta = self._readings, self._series.time_axis, self._series.meta
        cleaner = Cleaner(
            self._options,
            meta.channels,
            meta.node_ids,
            readings.row_labels,
            has_codes=readings.has_codes,
        )
        times = NewerTimes(readings, axis, self._clock, self._gaps, self._options.start)
        num_rows, num_placed, last, has_times = 0, 0, -1, False
        for chunk in readings.chunks(self._options.budget_bytes):
            values, seconds = cleaner.clean(chunk.values, num_rows), chunk.seconds
            has_times = seconds is not None
            blocks = [values] if seconds is None else times.place(values, seconds, num_rows)
            num_rows += len(values)
            if cleaner.has_failed:
                continue
            for block in blocks:
                observed = np.flatnonzero(~np.isnan(block).all(axis=(1, 2)))
                last = num_placed + int(observed[-1]) if len(observed) else last
                num_placed += len(block)
                yield block
        cleaner.check()
        if not num_rows:
            raise DataError(f"{readings.name} has no rows: there is nothing to forecast from")
        if last < 0:
            raise DataError(
                f"every reading of {readings.name} is missing: there is nothing to forecast from"
            )
        self._axis = times.finish() if has_times else self._times_without(num_placed)
        num_empty = num_placed - 1 - last
        self.notes = notes_of_rows(readings.name, num_empty, times.num_filled, self._axis)
        self.notes += notes_of_phase(readings.name, self._axis, axis)
        if times.is_guess:
            self.notes += (
                f"the clocks of {self._clock} show the times of {readings.name} twice: they are "
                "taken for the earlier; write them with their offset from UTC",
            )

    def _times_without(self, num_rows: int) -> TimeAxis:
        """Times of a source that has none, from the start that the user gives."""
        axis, start, name = self._series.time_axis, self._options.start, self._readings.name
        if not axis.is_dated:
            return replace(axis, num_steps=num_rows, seconds=None)
        interval = axis.interval_seconds or 1
        if start is None:
            raise DataError(
                f"{name} has no times and the run has them: add {option('start')}, the time of the "
                "first row"
            )
        if self._options.interval_seconds not in (None, interval):
            raise DataError(
                f"interval is {self._options.interval} and the rows of the run are "
                f"{format_interval(interval)} apart: leave {option('interval')} out"
            )
        first = parse_start(start, self._clock)
        seconds = None
        if axis.rule is not None:
            seconds = axis.rule.after(first - 1, num_rows, axis.time_zone)
            first = int(seconds[0])
        return replace(axis, num_steps=num_rows, start_seconds=first, seconds=seconds)


def notes_of_rows(name: str, num_empty: int, num_filled: int, axis: TimeAxis) -> tuple[str, ...]:
    """What was filled and what is empty in newer rows, one line each."""
    notes = []
    if num_filled:
        notes.append(
            f"{name} lacks {count_of(num_filled, 'row')} between others: "
            f"{'it was' if num_filled == 1 else 'they were'} filled with missing readings"
        )
    if num_empty:
        last = axis.num_steps - 1
        until = f" ({axis.isoformat(last)})" if axis.is_dated else ""
        rows = "row has" if num_empty == 1 else f"{num_empty:,} rows have"
        notes.append(
            f"the newest {rows} no reading in {name}: forecasts begin after the last row{until}"
        )
    return tuple(notes)


def notes_of_phase(name: str, axis: TimeAxis, series: TimeAxis) -> tuple[str, ...]:
    """A line if the rows lie between those of the series, as at 00:07, 01:07 for 00:00, 01:00."""
    interval = series.interval_seconds
    if not (axis.is_dated and series.is_dated) or interval is None or series.rule is not None:
        return ()
    first, other = axis.start_seconds or 0, series.start_seconds or 0
    ends = np.array([other, first], dtype=np.int64)
    true, wall = (
        int(np.diff(each)[0]) % interval for each in (ends, wall_seconds(ends, axis.time_zone))
    )
    if true == 0 or wall == 0:
        return ()
    off = min(wall, wall - interval, key=abs)
    return (
        f"the rows of {name} are {format_interval(abs(off))} {'after' if off > 0 else 'before'} "
        "those of the run: forecasts have the times of the newer rows",
    )
