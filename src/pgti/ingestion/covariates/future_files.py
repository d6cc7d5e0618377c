"""Values known in advance from a source of their own, such as a weather forecast."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import DataError, option
from pgti.ingestion.cleaning import Cleaner
from pgti.ingestion.formats import check_options_used
from pgti.ingestion.later_rows import WaitingRows, place_rows
from pgti.ingestion.newer.growth import show
from pgti.ingestion.newer.matching import SourceChannels, match_readings
from pgti.ingestion.newer.newer import scale_of, source_channels
from pgti.ingestion.newer.newer_times import put_on_clock
from pgti.ingestion.newer.recall import recall_options
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import Readings
from pgti.ingestion.sources import ReadingsSource, open_readings, readings_suffix
from pgti.store import SeriesStore, TimeAxis
from pgti.store.codec import Values
from pgti.store.rounding import LostDigits
from pgti.store.statistics import canonical

__all__ = ["FutureSeries", "future_series", "read_future"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class FutureSeries:
    """What values known in advance belong to.

    Attributes:
        node_ids: ids of the sensors.
        channels: of the series, and what its source called them.
        known: those that are known in advance.
        remembered: how its source was read.
        axis: times of its rows, after which the values are.
        dtype: of its readings.
    """

    node_ids: tuple[str, ...]
    channels: SourceChannels
    known: tuple[str, ...]
    remembered: Mapping[str, Any]
    axis: TimeAxis
    dtype: np.dtype[Any]


def future_series(store: SeriesStore, axis: TimeAxis) -> FutureSeries:
    """What values known in advance belong to: a store, at times that may have grown."""
    return FutureSeries(
        node_ids=store.meta.node_ids,
        channels=source_channels(store),
        known=store.meta.known_future,
        remembered=store.meta.read_options,
        axis=axis,
        dtype=store.codec.reading_dtype,
    )


def read_future(
    source: ReadingsSource, series: FutureSeries, given: Mapping[str, Any]
) -> tuple[Values, tuple[str, ...]]:
    """Read values known in advance, as the source of the series was read.

    Sensors are matched by id, channels by name; rows that are not after the last one are skipped.

    Args:
        source: a file, a frame or an array; rows without times follow the last one.
        series: what they belong to.
        given: options of `IngestOptions` that the user gave, by name.

    Returns:
        The values after the last row [rows, N, F], NaN where missing; notes, one line each.

    Raises:
        DataError: if there is no row after the last one, a time is none of those that follow it, or
            another channel has readings there.
    """
    axis, opened = series.axis, _open(source, series, given)
    readings, channels = opened.readings, opened.channels
    known = [channels.index(name) for name in series.known]
    others = [place for place in range(len(channels)) if place not in known]
    waiting = WaitingRows(
        (len(series.node_ids), len(known)), series.dtype, opened.options.budget_bytes
    )
    lost = LostDigits(series.node_ids, series.known)
    times: list[NDArray[np.int64]] = []
    num_skipped = 0
    for rows, seconds in opened.rows(axis):
        values = rows
        if seconds is not None:
            is_later = seconds > axis.last_seconds
            num_skipped += int((~is_later).sum())
            values = rows[is_later]
            times.append(seconds[is_later])
        _check_others(readings, values[..., others], [channels[each] for each in others])
        later = values[..., known]
        lost.compare(later, canonical(later, series.dtype), axis.num_steps + waiting.num_rows)
        waiting.add(later)
    later = waiting.values()
    if not len(later):
        last = f" ({show(axis.last_seconds, axis)})" if axis.is_dated else ""
        raise DataError(
            f"{readings.name} has no value of {', '.join(series.known)} after the last row of the "
            f"series{last}: give later ones"
        )
    notes = opened.notes
    if times:
        later = place_rows(readings.name, axis, np.concatenate(times)[: len(later)], later)
    elif axis.is_dated:
        notes += (f"{readings.name} has no times: its rows follow the last one",)
    if num_skipped:
        skipped, are = count_of(num_skipped, "row"), "is" if num_skipped == 1 else "are"
        notes += (f"{readings.name} has {skipped} that {are} not after the last one: skipped",)
    return later, (*notes, *lost.note(f"ingest the series with {option('exact', value=True)}"))


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class _Opened:
    """A source of values known in advance, matched with the series.

    Attributes:
        readings: of the sensors of the series.
        channels: those of the series that it has.
        options: how to clean them.
        clock: zone in which wall-clock times are read, for a series with a zone.
        node_ids: of the series.
        notes: what was put right or left out.
    """

    readings: Readings
    channels: tuple[str, ...]
    options: IngestOptions
    clock: str | None
    node_ids: tuple[str, ...]
    notes: tuple[str, ...]

    def rows(self, axis: TimeAxis) -> Iterator[tuple[Values, NDArray[np.int64] | None]]:
        """Cleaned rows [rows, N, C], and their times if the source has them."""
        labels, row = self.readings.row_labels, 0
        cleaner = Cleaner(
            self.options,
            self.channels,
            self.node_ids,
            labels,
            has_codes=self.readings.has_codes,
        )
        localizer = self.readings.localizer(self.clock)
        for chunk in self.readings.chunks(self.options.budget_bytes):
            values, seconds = cleaner.clean(chunk.values, row), chunk.seconds
            if seconds is not None and not axis.is_dated:
                raise DataError(
                    f"{self.readings.name} has times and the series has none: remove them"
                )
            if seconds is not None and localizer is not None:
                seconds = localizer.convert(seconds, row)
            row += len(values)
            if not cleaner.has_failed:
                yield values, seconds
        cleaner.check()


def _open(source: ReadingsSource, series: FutureSeries, given: Mapping[str, Any]) -> _Opened:
    zone, suffix = series.axis.time_zone, readings_suffix(source)
    recalled = recall_options(series.remembered, {"time_zone": zone, **given}, suffix)
    check_options_used(suffix, None, recalled.options)
    opened = open_readings(source, recalled.options, has_graph=True)
    channels = _channels_of(opened, series)
    matched = match_readings(opened, series.node_ids, channels, given, series="store")
    scale = scale_of(matched, opened, channels, given)
    return _Opened(
        readings=put_on_clock(matched.readings, zone, given.get("time_zone"), series="store"),
        channels=channels.names,
        options=replace(recalled.options, scale=scale, channels=()),
        clock=None if zone is None else given.get("time_zone") or zone,
        node_ids=series.node_ids,
        notes=matched.notes,
    )


def _channels_of(readings: Readings, series: FutureSeries) -> SourceChannels:
    """The channels known in advance, and the others as far as the source has them."""
    every = series.channels
    chosen = set(series.known)
    if readings.channels is not None:
        found = {every.find(name) for name in readings.channels}
        chosen |= {name for place, name in enumerate(every.names) if place in found}
    elif readings.num_channels == len(every.names):
        chosen = set(every.names)
    places = [place for place, name in enumerate(every.names) if name in chosen]
    return SourceChannels(
        names=tuple(every.names[place] for place in places),
        sources=tuple(every.sources[place] for place in places) if every.sources else (),
        scale=tuple(every.scale[place] for place in places) if every.scale else (),
    )


def _check_others(readings: Readings, values: Values, names: list[str]) -> None:
    """Refuse readings of other channels, which are no values known in advance."""
    for place, name in enumerate(names):
        if not np.isnan(values[..., place]).all():
            raise DataError(
                f"{readings.name} has readings of {name} after the last row of the series, which "
                "is not known in advance: append the readings, or leave the channel out"
            )
