"""Rows at any times, aggregated onto a grid of times: each reading is that of a bin of time."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import ConfigError, DataError, option
from pgti.ingestion.cleaning import Cleaner
from pgti.ingestion.contents import NoRowsError
from pgti.ingestion.instants import parse_interval, show_time
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import Chunk, Readings
from pgti.ingestion.times.bins import Bins, bin_starts, bins_of, starts_after
from pgti.ingestion.times.rising import RisingTimes
from pgti.store import format_interval

__all__ = ["resample", "with_interval_of_grid"]

_COPIES = 6  # of a chunk: as it is read, in float64, what is observed, and sums
_MAX_EMPTY_BINS = 110_000  # a year of five-minute steps: a longer gap is a mistyped time


def resample(
    readings: Readings, options: IngestOptions, aggregate: tuple[str, ...] | None = None
) -> Readings:
    """The readings on the grid of `options.resample`; as they are where that is not given.

    A bin has the time of its beginning, on the clock of the zone. Bins of parts of an hour and of
    hours have one length; days, weeks and parts of a day of three hours or more follow the clock
    and are longer or shorter where it changes. Only observed readings count; a bin without one is
    missing. The first and the last bin are left out where rows lack at their outer end, so that
    newer readings can complete them.

    Args:
        readings: at rising times, which may be irregular.
        options: `resample`, the codes of missing readings, the zone, and whether empty bins become
            rows (all `gaps` but "keep").
        aggregate: how to aggregate each channel, or all; that of the options if not given.

    Raises:
        ConfigError: if aggregates and channels are not as many.
        DataError: from `chunks`, if there are no times, they do not rise, or rows are farther
            apart than bins.
    """
    if options.resample is None:
        return readings
    how = options.aggregate if aggregate is None else aggregate
    if len(how) not in (1, readings.num_channels):
        raise ConfigError(
            f"aggregate has {count_of(len(how), 'value')} ({', '.join(how)}) and {readings.name} "
            f"has {count_of(readings.num_channels, 'channel')}: give one each, or one for all"
        )
    zone = options.time_zone or readings.time_zone
    grid = _Grid(readings, options, how, zone)
    return replace(
        readings,
        chunks=grid.chunks,
        num_rows=None,
        first_line=None,
        is_aware=readings.is_aware or zone is not None,
        time_zone=zone,
        has_codes=False,
        labels=None,
        first_seconds=None,
        late_notes=lambda: (*readings.late_notes(), *grid.notes()),
    )


def with_interval_of_grid(options: IngestOptions) -> IngestOptions:
    """Options with the interval of a grid that has a row for every bin."""
    if options.resample is None or options.gaps == "keep":
        return options
    return replace(options, interval=options.resample)


@dataclass(kw_only=True, slots=True)
class _Counts:
    """What a pass over the rows found.

    Attributes:
        rows: of the source.
        bins: rows of the result.
        empty: those of them that no row of the source is in.
        left_out: the beginnings of the first and the last bin, where they are not whole.
        first: the first time.
        last: the last time.
        apart: seconds between two rows of the source, which nine of ten steps do not exceed.
    """

    rows: int = 0
    bins: int = 0
    empty: int = 0
    left_out: list[int] = field(default_factory=list)
    first: int = 0
    last: int | None = None
    apart: float | None = None


class _Grid:
    """Aggregates the rows of a source, in chunks.

    Args:
        readings: the source.
        options: see `resample`.
        how: to aggregate each channel.
        time_zone: of the clock that bins follow.
    """

    def __init__(
        self,
        readings: Readings,
        options: IngestOptions,
        how: tuple[str, ...],
        time_zone: str | None,
    ) -> None:
        assert options.resample is not None
        self._readings, self._options, self._how = readings, options, how
        self._zone, self._step = time_zone, parse_interval(options.resample)
        self._counts = _Counts()
        self._code_notes: tuple[str, ...] = ()

    def chunks(self, budget_bytes: int) -> Iterator[Chunk]:
        """Rows of the grid; see `Readings.chunks`."""
        counts = self._counts = _Counts()
        waiting: Bins | None = None  # the last bin so far
        before: int | None = None  # the one that was yielded last
        for values, seconds in self._rows(budget_bytes):
            bins = bins_of(values, bin_starts(seconds, self._step, self._zone))
            bins = bins if waiting is None else waiting.precede(bins)
            whole, waiting = bins[:-1], bins[-1:]
            if before is None and len(whole.begins):
                whole = self._without_first(whole)
            if len(whole.begins):
                yield from self._fill(whole, before, budget_bytes)
                before = int(whole.begins[-1])
        if waiting is None:
            return
        if before is None and not counts.left_out:
            waiting = self._without_first(waiting)
        if len(waiting.begins) and self._is_last_whole(int(waiting.begins[0])):
            yield from self._fill(waiting, before, budget_bytes)
        elif len(waiting.begins):
            counts.left_out.append(int(waiting.begins[0]))
        if not counts.bins:
            raise NoRowsError(
                f"{self._readings.name} has no whole {format_interval(self._step)}: its "
                f"{count_of(counts.rows, 'row')} {'is' if counts.rows == 1 else 'are'} of "
                f"{self._show(counts.first)} to {self._show(counts.last or 0)}; give more, or "
                f"{option('resample')} a shorter interval"
            )

    def _rows(self, budget_bytes: int) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
        """Cleaned rows [rows, N, C] and their times on the clock of the zone."""
        readings, counts, zone = self._readings, self._counts, self._zone
        rising = RisingTimes(readings, zone, zone)
        channels = readings.channels or tuple(map(str, range(readings.num_channels)))
        ids = readings.node_ids or tuple(map(str, range(readings.num_nodes)))
        cleaner = Cleaner(
            replace(self._options, scale=()),
            channels,
            ids,
            readings.row_labels,
            has_codes=readings.has_codes,
        )
        for chunk in readings.chunks(max(1, budget_bytes // _COPIES)):
            seconds, row = chunk.seconds, counts.rows
            if seconds is None:
                raise DataError(
                    f"{readings.name} has no times, and {option('resample')} needs them: leave it "
                    "out, or give a source with times"
                )
            times, num_before = rising.follow(seconds, row)
            self._check_distance(times)
            seconds = times[num_before:]
            counts.first = counts.first if row else int(seconds[0])
            counts.last, counts.rows = rising.last, row + len(seconds)
            values = cleaner.clean(chunk.values, row)
            if not cleaner.has_failed:
                yield values.astype(np.float64, copy=False), seconds
        cleaner.check()
        self._code_notes = cleaner.notes()

    def _check_distance(self, times: NDArray[np.int64]) -> None:
        """Refuse a grid that is finer than the rows; the first chunk shows how far they are."""
        if self._counts.apart is not None or len(times) < 2:
            return
        self._counts.apart = float(np.quantile(np.diff(times), 0.9))
        apart = float(np.median(np.diff(times)))
        if apart > self._step:
            raise DataError(
                f"the rows of {self._readings.name} are {format_interval(round(apart))} apart and "
                f"resample is {self._options.resample}: a grid that is finer than the rows would "
                f"have readings that nobody took; give {option('resample')} at least "
                f"{format_interval(round(apart))}"
            )

    def _without_first(self, bins: Bins) -> Bins:
        """The bins without the first one of the source where its beginning lacks rows."""
        counts = self._counts
        if counts.first - (counts.apart or 0) < bins.begins[0]:
            return bins
        counts.left_out.append(int(bins.begins[0]))
        return bins[1:]

    def _is_last_whole(self, begin: int) -> bool:
        """Whether the rows of the last bin reach as far as the next one."""
        apart = self._counts.apart
        return (
            apart is not None
            and (self._counts.last or 0) + apart
            >= starts_after(begin, 1, self._step, self._zone)[0]
        )

    def _fill(self, bins: Bins, before: int | None, budget_bytes: int) -> Iterator[Chunk]:
        """The readings of bins, with rows of NaN for the empty ones before and between them."""
        values, begins = bins.aggregate(self._how), bins.begins
        self._counts.bins += len(begins)
        known = begins if before is None else np.append(before, begins)
        apart = np.diff(known) // self._step > 1  # a day of 23 hours is not two
        if self._options.gaps == "keep" or not apart.any():
            yield Chunk(values=values, seconds=begins)
            return
        done, offset = 0, len(begins) - len(known)  # -1 where a bin was before
        for place in np.flatnonzero(apart).tolist():
            stop = place + 1 + offset
            if stop > done:
                yield Chunk(values=values[done:stop], seconds=begins[done:stop])
            done = stop
            empty = self._empty_between(int(known[place]), int(known[place + 1]))
            size = max(1, budget_bytes // (8 * values[0].size))
            for first in range(0, len(empty), size):
                block = empty[first : first + size]
                rows = np.full((len(block), *values.shape[1:]), np.nan)
                yield Chunk(values=rows, seconds=block)
        yield Chunk(values=values[done:], seconds=begins[done:])

    def _empty_between(self, first: int, second: int) -> NDArray[np.int64]:
        """Beginnings of the bins between two, which hold no row."""
        count = (second - first) // self._step + 1
        if count > _MAX_EMPTY_BINS:
            raise DataError(
                f"{self._readings.name} has no row between {self._show(first)} and "
                f"{self._show(second)}: {count:,} bins of {format_interval(self._step)} would be "
                f"empty, more than {_MAX_EMPTY_BINS:,}; correct the time, or use "
                f"{option('gaps', 'keep')}"
            )
        begins = starts_after(first, count, self._step, self._zone)
        begins = begins[begins < second]
        self._counts.empty += len(begins)
        self._counts.bins += len(begins)
        return begins

    def notes(self) -> tuple[str, ...]:
        """What became of the rows, one line each."""
        counts, step = self._counts, format_interval(self._step)
        name, how = self._readings.name, ", ".join(self._how)
        notes = [
            f"{count_of(counts.rows, 'row')} of {name} became {counts.bins:,}, one every {step} "
            f"({how} of the observed readings); {counts.empty:,} of them hold no row"
        ]
        if counts.left_out:
            begins = " and ".join(map(self._show, counts.left_out))
            is_one = len(counts.left_out) == 1
            notes.append(
                f"{name} does not cover the whole {step} that {'begins' if is_one else 'begin'} at "
                f"{begins}: {'it was' if is_one else 'they were'} left out"
            )
        return (*notes, *self._code_notes)

    def _show(self, second: int) -> str:
        return show_time(second, self._zone)
