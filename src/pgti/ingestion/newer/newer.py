"""Newer readings of a series as a store of its sensors, channels and clock."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pgti.display import count_of
from pgti.errors import ConfigError, DataError, option
from pgti.ingestion.formats import check_options_used
from pgti.ingestion.newer.future_stores import last_observed_row, split_later
from pgti.ingestion.newer.matching import MatchedReadings, SourceChannels, match_readings
from pgti.ingestion.newer.newer_rows import StoreBuilder, notes_of_phase, notes_of_rows
from pgti.ingestion.newer.newer_times import put_on_clock
from pgti.ingestion.newer.recall import RecalledOptions, describe_recalled, recall_options
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import Chunk, Readings, row_blocks, rows_per_chunk
from pgti.ingestion.scratch import scratch_beside, scratch_directory
from pgti.ingestion.sources import ReadingsSource, find_source, open_readings, readings_suffix
from pgti.ingestion.times.resample import resample
from pgti.store import SeriesStore

__all__ = [
    "NewerSeries",
    "aggregates_of",
    "open_as_recalled",
    "open_newer_series",
    "scale_of",
    "source_channels",
]

_MEMORY_BYTES = 1 << 28  # larger newer readings go to a temporary store
_LAYOUT = (
    *("values", "ids", "time_format", "delimiter", "header", "timestamps"),
    *("axes", "transpose", "long"),
)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class NewerSeries:
    """Newer readings of a series.

    Attributes:
        store: of the sensors and channels of the series, in its order, on its clock.
        absent: sensors of the series that the newer readings lack; they are missing.
        extra: sensors that the series lacks; they were left out.
        notes: what was recalled, put right, filled or left out, one line each.
        num_earlier: rows at the beginning of `store` that are the series' own, for the history of
            windows; those of the newer readings follow.
    """

    store: SeriesStore
    absent: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    num_earlier: int = 0


@contextmanager
def open_newer_series(
    source: ReadingsSource | SeriesStore,
    series: SeriesStore,
    given: Mapping[str, Any] | None = None,
    *,
    num_rows: int | None = None,
) -> Iterator[NewerSeries]:
    """Read newer readings of a series, as its own source was read.

    Files, tables and arrays are read with the options that the store of the series remembers; those
    that the user gives come first. Of a store nothing is converted. Sensors are matched by id and
    channels by name; what is absent is missing. A time without an offset is one of the clock of the
    series. Rows that are missing between two others become rows of missing readings.

    Args:
        source: a file, a table, an array, or a store.
        series: what they continue.
        given: options of `IngestOptions` that the user gave, by name.
        num_rows: newest rows of a store that are needed at least, where not all are. Files and
            tables are read and checked as a whole.

    Raises:
        ConfigError: if options cannot be used.
        DataError: if the readings are not of the series, or break a rule.
        MissingExtraError: if a format needs a library that is not installed.
    """
    given = given or {}
    with ExitStack() as held:
        if isinstance(source, SeriesStore):
            newer = _read_store(source, series, num_rows, held)
        else:
            held.enter_context(scratch_beside(Path(tempfile.gettempdir()) / "pgti"))
            newer = _read_source(source, series, given, held)
        yield newer


def _read_source(
    source: ReadingsSource, series: SeriesStore, given: Mapping[str, Any], held: ExitStack
) -> NewerSeries:
    if given.get("exact"):
        raise ConfigError(
            f"exact is an option of pgti.ingest: leave {option('exact')} out, newer readings are "
            "as exact as those of the run"
        )
    source = find_source(source)
    suffix = readings_suffix(source)
    remembered, zone = series.meta.read_options, series.meta.time_zone
    recalled = recall_options(remembered, {"time_zone": zone, **given}, suffix)
    check_options_used(suffix, None, recalled.options)
    # Another file of the same format may well call its arrays otherwise, or be wide.
    readings, recalled = open_as_recalled(
        source, recalled, "values", "ids", "long", "duplicates", "ignore"
    )
    try:
        newer = _read(readings, series, source_channels(series), recalled.options, given, held)
    except DataError as error:
        layout = recalled.without(*(set(recalled.recalled) - set(_LAYOUT)))
        if not layout.recalled:
            raise
        raise DataError(f"{error} (read as in training: {layout.describe()})") from error
    described = describe_recalled(recalled, series.meta, given, is_aware=readings.is_aware)
    if not described:
        return newer
    note = f"{readings.name} is read as in training: {described}"
    return replace(newer, notes=(note, *newer.notes))


def open_as_recalled(
    source: ReadingsSource, recalled: RecalledOptions, *dispensable: str
) -> tuple[Readings, RecalledOptions]:
    """Open newer readings with the recalled options, and the options that were used.

    Args:
        source: the newer readings.
        recalled: the options.
        dispensable: remembered options without which the source is tried if it cannot be opened.

    Raises:
        ConfigError: if options cannot be used.
        DataError: if the source cannot be read.
    """
    try:
        return _open(source, recalled), recalled
    except (ConfigError, DataError) as error:
        plain = recalled.without(*dispensable)
        if plain.options == recalled.options:
            raise
        try:
            return _open(source, plain), plain
        except (ConfigError, DataError):
            raise error from None


def _open(source: ReadingsSource, recalled: RecalledOptions) -> Readings:
    readings = open_readings(source, recalled.options, has_graph=True)
    values = recalled.options.values
    if readings.channels is None and len(values) == readings.num_channels == 1:
        return replace(readings, channels=values)
    return readings


def _read_store(
    source: SeriesStore, series: SeriesStore, num_rows: int | None, held: ExitStack
) -> NewerSeries:
    mine, other = series.meta, source.meta
    is_same = (
        mine.node_ids == other.node_ids
        and mine.channels == other.channels
        and mine.time_zone == other.time_zone
        and mine.interval_seconds == other.interval_seconds
        and source.time_axis.seconds is None
        and source.time_axis.rule == series.time_axis.rule
    )
    if is_same:
        last = last_observed_row(source, other.num_steps)
        if last is None:
            raise DataError(
                f"every reading of {source.path} is missing: there is nothing to forecast from"
            )
        num_empty = other.num_steps - 1 - last
        notes = notes_of_rows(str(source.path), num_empty, 0, source.time_axis)
        notes += notes_of_phase(str(source.path), source.time_axis, series.time_axis)
        return NewerSeries(store=split_later(source, mine.known_future), notes=notes)
    first = 0 if num_rows is None else max(0, other.num_steps - num_rows)
    readings = _store_readings(source, first)
    channels = SourceChannels(names=mine.channels)  # its readings are in their own units
    return _read(readings, series, channels, IngestOptions(), {}, held)


def _store_readings(store: SeriesStore, first: int) -> Readings:
    """The rows of a store from `first`, and what is known after them, as readings of a source."""
    meta, axis = store.meta, store.time_axis
    num_rows = meta.num_steps - first

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        size = rows_per_chunk(budget_bytes, meta.num_nodes * meta.num_channels)
        for begin, stop in row_blocks(num_rows, size):
            rows = np.arange(first + begin, first + stop)
            yield Chunk(
                values=store.read(first + begin, first + stop),
                seconds=axis.seconds_at(rows) if axis.is_dated else None,
            )
            store.release()
        for begin, stop in row_blocks(len(store.future), size):
            rows = np.arange(meta.num_steps + begin, meta.num_steps + stop)
            values = np.full((len(rows), *store.raw.shape[1:]), np.nan, store.future.dtype)
            values[..., list(meta.known_indices)] = store.future[begin:stop]
            yield Chunk(values=values, seconds=axis.seconds_at(rows) if axis.is_dated else None)

    return Readings(
        name=str(store.path),
        num_rows=num_rows + len(store.future),
        num_nodes=meta.num_nodes,
        num_channels=meta.num_channels,
        node_ids=meta.node_ids,
        channels=meta.channels,
        is_aware=meta.time_zone is not None,
        time_zone=meta.time_zone,
        chunks=chunks,
    )


def _read(
    readings: Readings,
    series: SeriesStore,
    known: SourceChannels,
    options: IngestOptions,
    given: Mapping[str, Any],
    held: ExitStack,
) -> NewerSeries:
    """Match, place and clean the readings: in memory if they are small, else in a store."""
    notes: tuple[str, ...] = ()
    if _only_counts_ids(readings, series.meta.node_ids):
        readings = replace(readings, node_ids=None)
        notes = (f"the columns of {readings.name} are numbered: they are taken in their order",)
    meta, zone, given_zone = series.meta, series.meta.time_zone, given.get("time_zone")
    matched = match_readings(readings, meta.node_ids, known, given)
    gridded = resample(matched.readings, options, aggregates_of(matched, options, given))
    builder = StoreBuilder(
        put_on_clock(gridded, zone, given_zone),
        series,
        replace(options, scale=scale_of(matched, readings, known, given), channels=()),
        None if zone is None else given_zone or zone,
        given.get("gaps", "fill"),
    )
    store = builder.in_memory(_MEMORY_BYTES)
    if store is None:
        scratch = held.enter_context(tempfile.TemporaryDirectory(dir=scratch_directory()))
        store = builder.on_disk(Path(scratch) / "readings")
    return NewerSeries(
        store=split_later(store, meta.known_future),
        absent=matched.absent,
        extra=matched.extra,
        notes=(*notes, *gridded.notes, *matched.notes, *gridded.late_notes(), *builder.notes),
    )


def source_channels(series: SeriesStore) -> SourceChannels:
    """The channels of a series, and what its source called them."""
    meta, remembered = series.meta, series.meta.read_options
    sources = tuple(remembered.get("source_channels", ())) or tuple(remembered.get("values", ()))
    scale = tuple(remembered.get("scale", ()))
    return SourceChannels(
        names=meta.channels,
        sources=sources if len(sources) == meta.num_channels else (),
        scale=scale if len(scale) == meta.num_channels else scale * meta.num_channels,
    )


def scale_of(
    matched: MatchedReadings, readings: Readings, known: SourceChannels, given: Mapping[str, Any]
) -> tuple[float, ...]:
    """The scale of each channel of the series; what the user gives is in the source's order."""
    if "scale" not in given:
        return known.scale
    scale = tuple(given["scale"])
    if len(scale) not in (0, 1, readings.num_channels):
        raise ConfigError(
            f"scale has {count_of(len(scale), 'value')} ({', '.join(map(str, scale))}) and "
            f"{readings.name} has {count_of(readings.num_channels, 'channel')}: give one each, or "
            "one for all"
        )
    return scale if len(scale) < 2 else tuple(scale[place] for place in matched.channels)


def aggregates_of(
    matched: MatchedReadings, options: IngestOptions, given: Mapping[str, Any]
) -> tuple[str, ...]:
    """How each channel of the series is aggregated; the user names those of the source."""
    how = options.aggregate
    if "aggregate" not in given or len(how) < 2 or len(how) < len(matched.channels):
        return how
    return tuple(how[place] for place in matched.channels if place < len(how))


def _only_counts_ids(readings: Readings, node_ids: tuple[str, ...]) -> bool:
    """Whether the ids of a table only count its columns, and the series has others."""
    return readings.counts_ids and not set(readings.node_ids or ()) & set(node_ids)
