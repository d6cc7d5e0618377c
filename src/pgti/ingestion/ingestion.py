"""From a source of readings and a graph to a store, in bounded memory and all or nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from pgti.display import count_of, size_text
from pgti.errors import ConfigError, DataError, option
from pgti.graph import SensorGraph
from pgti.ingestion.arrays.axes_guards import note_other_axes, refuse_other_axes
from pgti.ingestion.cleaning import Cleaner
from pgti.ingestion.contents import NoRowsError
from pgti.ingestion.covariates.covariates import CovariateSources, DescribedSeries, IngestedFuture
from pgti.ingestion.covariates.static_tables import StaticTable
from pgti.ingestion.formats import IDS_IN_READINGS, check_options_used
from pgti.ingestion.graphs.node_matching import MatchedGraph, match_nodes, wrap_longitudes
from pgti.ingestion.graphs.sources import GraphSource, graph_suffix, read_raw_graph
from pgti.ingestion.later_rows import RowSplitter
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.raw_graphs import RawCoordinates, RawEdges, RawGraph
from pgti.ingestion.readings import Readings
from pgti.ingestion.scratch import scratch_beside
from pgti.ingestion.sources import (
    ReadingsSource,
    TableSource,
    find_source,
    open_readings,
    readings_suffix,
)
from pgti.ingestion.times.resample import resample, with_interval_of_grid
from pgti.ingestion.times.start_times import finish_without_times, with_interval
from pgti.ingestion.times.timeline import Timeline
from pgti.memory import available_bytes
from pgti.options import check_names, require_path, require_type
from pgti.signatures import accept_options
from pgti.store import SeriesStore, StoreWriter, check_target

__all__ = ["ingest", "read_graph"]

_NODE_BYTES = 512  # of an id, its place and its copies


@accept_options(IngestOptions)
def ingest(
    source: ReadingsSource,
    target: Path | str,
    options: IngestOptions | None = None,
    *,
    graph: GraphSource | None = None,
    static: TableSource | None = None,
    future: ReadingsSource | None = None,
    node_ids: tuple[str, ...] | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    **more: Any,
) -> SeriesStore:
    """Write readings and a graph to a store.

    Args:
        source: a file of readings, a DataFrame, an array [T, N] or [T, N, C], or opened
            `Readings`. Several of one kind make one series: a list, a pattern such as
            "readings/*.csv", a directory, a zip, or a mapping from names.
        target: the store's directory, created when everything else has succeeded.
        options: how to read the source; the keywords below come first.
        graph: a graph file, a matrix, `(edge_index, edge_weight)`, a graph of NetworkX, `Data` of
            PyTorch Geometric, a frame of edges or places, or a SensorGraph; None takes the graph
            of the source, or else no edges.
        static: a file or a frame of features of the sensors, a row for each, with its id; its
            columns of latitudes and longitudes place them where the graph does not.
        future: values of the channels `known_future` after the last row, from a source of their
            own; those of the source itself are the rows at its end in which all other channels
            are missing.
        node_ids: sensor ids, in order, for a source without ids; a source's own ids win.
        progress: called with the number of rows written and, where known, their total.
        **more: options of `IngestOptions`:

    Returns:
        The new store, opened; its `notes` say what a user should know, one line each.

    Raises:
        ConfigError: if options contradict one another or the source.
        DataError: if readings or graph break a rule.
        StoreError: if the target exists or cannot be written.
        MissingExtraError: if a format needs a library that is not installed.
    """
    check_names(more, IngestOptions.__slots__)
    require_type("options", options, (IngestOptions, NoneType), "IngestOptions")
    options = replace(options or IngestOptions(), **more)
    target = require_path("target", target)
    check_target(target, overwrite=options.overwrite)
    with scratch_beside(target):
        covariates = CovariateSources(static=static, future=future)
        return _ingest(source, target, options, graph, covariates, node_ids, progress)


def _ingest(
    source: ReadingsSource,
    target: Path,
    options: IngestOptions,
    graph: GraphSource | None,
    covariates: CovariateSources,
    node_ids: tuple[str, ...] | None,
    progress: Callable[[int, int | None], None] | None,
) -> SeriesStore:
    """Write a store; temporary files are beside it."""
    source = find_source(source)
    suffix = readings_suffix(source)
    check_options_used(suffix, None if graph is None else graph_suffix(graph), options)
    readings = _add_ids(open_readings(source, options, has_graph=graph is not None), node_ids)
    readings = resample(readings, options)
    time_zone = _time_zone(readings, options)
    ids_used = options.ids is not None and suffix in IDS_IN_READINGS
    raw = _find_graph(readings, graph, options, ids_used)
    matched = _match_graph(readings, raw, options, is_given=graph is not None)
    channels = _channel_names(readings, options)
    cleaner = Cleaner(
        options, channels, matched.node_ids, readings.row_labels, has_codes=readings.has_codes
    )
    static = covariates.read_static(matched.node_ids, options)
    graph_with_places, place_notes = _place(matched.graph, static)
    with StoreWriter(
        target,
        node_ids=matched.node_ids,
        channels=channels,
        graph=graph_with_places,
        units=options.units or readings.units,
        time_zone=time_zone,
        read_options=_read_options(readings, options),
        overwrite=options.overwrite,
        exact=options.exact,
        known_future=options.known_future,
        static=static.features,
    ) as writer:
        timeline = Timeline(readings, with_interval_of_grid(options), time_zone)
        dtype = np.dtype(np.float64 if options.exact else np.float32)
        rows = RowSplitter(
            readings.name,
            writer.append,
            writer.lost,
            options.known_future,
            dtype,
            budget_bytes=options.budget_bytes,
        )
        writer.check_room(readings.num_rows or 0)
        _write_rows(readings, rows, cleaner, timeline, options.budget_bytes, progress)
        described = DescribedSeries(
            node_ids=matched.node_ids, channels=channels, dtype=dtype, options=options
        )
        later = IngestedFuture(readings, rows, covariates.future, described)
        if timeline.has_times:
            timeline.finish(writer, rows, later)
        else:
            finish_without_times(with_interval(options, readings), writer, later)
    notes = (*readings.notes, *readings.late_notes(), *matched.notes, *timeline.notes)
    notes += (*cleaner.notes(), *static.notes, *place_notes, *rows.notes(), *later.notes)
    if not timeline.has_times:
        notes = (*notes, *note_other_axes(readings, writer.num_steps, raw))
    notes += writer.lost.note(f"{option('exact', value=True)} makes a store that has them all")
    if timeline.num_filled:
        were = "was" if timeline.num_filled == 1 else "were"
        filled = count_of(timeline.num_filled, "row")
        notes = (*notes, f"{filled} of missing readings {were} inserted into gaps")
    # It was hashed as it was written.
    return replace(SeriesStore.open(target, verify_up_to_bytes=0), notes=notes)


def _read_options(readings: Readings, options: IngestOptions) -> dict[str, Any]:
    """What a store remembers of how its source was read."""
    remembered = {"source_channels": list(readings.channels or ()), "dataset": readings.dataset}
    remembered["files"] = None if readings.files == "times" else readings.files
    return options.of_readings() | {
        key: each for key, each in remembered.items() if each is not None
    }


def read_graph(
    source: GraphSource, options: IngestOptions | None = None
) -> tuple[SensorGraph, tuple[str, ...]]:
    """A graph on its own, and the ids of its nodes ("0", "1", ... where it has none).

    The nodes of an edge list are those that it names, in order of appearance; whole numbers that
    are all below their count are positions.

    Raises:
        ConfigError: if options name what cannot be used.
        DataError: if the source is damaged or does not hold a graph.
    """
    options = options or IngestOptions()
    check_options_used(None, graph_suffix(source), options)
    raw = read_raw_graph(source, options)
    _check_neighbours(raw, options, is_given=True)
    node_ids = None
    if isinstance(raw, RawEdges):
        labels = raw.node_ids or tuple(dict.fromkeys([*raw.source, *raw.target]))
        size = len(labels)
        by_position = all(label.isdecimal() and int(label) < size for label in labels)
        if raw.by_position and raw.node_ids is None:
            size = 1 + max(map(int, labels), default=0)
        node_ids = None if by_position or raw.by_position else labels
    else:
        size = len(raw.latlon) if isinstance(raw, RawCoordinates) else raw.matrix.shape[0]
    matched = match_nodes(raw, size, node_ids, options)
    return matched.graph, matched.node_ids


def _add_ids(readings: Readings, node_ids: tuple[str, ...] | None) -> Readings:
    """The readings, with the ids given if they have none; empty ids are refused."""
    if readings.node_ids is None and node_ids is not None:
        if len(node_ids) != readings.num_nodes:
            raise DataError(
                f"{readings.name} has {count_of(readings.num_nodes, 'sensor')} without ids, for "
                f"{count_of(len(node_ids), 'id')} ({', '.join(node_ids[:2])}, ...): give one each"
            )
        return replace(readings, node_ids=node_ids)
    empty = [place for place, label in enumerate(readings.node_ids or ()) if not label.strip()]
    if empty:
        raise DataError(
            f"sensor {empty[0] + 1} of {readings.num_nodes} of {readings.name} has an empty id: "
            "give its column a title, or remove it if it holds no readings"
        )
    return readings


def _time_zone(readings: Readings, options: IngestOptions) -> str | None:
    """The zone of the store: the user's, else the source's.

    Aware times are shown on its clock; wall-clock times were read on it.
    """
    zone = options.time_zone or readings.time_zone
    if readings.is_aware and zone is None:
        raise DataError(
            f"{readings.name} has times with an offset from UTC that is not a zone with a name: "
            f"name the zone with {option('time_zone')} (such as Asia/Kolkata)"
        )
    return zone


def _check_neighbours(raw: RawGraph, options: IngestOptions, *, is_given: bool) -> None:
    """Refuse coordinates that the user gives without neighbours, and neighbours without them."""
    if isinstance(raw, RawCoordinates):
        if is_given and options.neighbours is None:
            raise ConfigError(
                f"{raw.name} holds coordinates and no edges: pass {option('neighbours')}, the "
                f"number of "
                "nearest sensors that each is joined with"
            )
    elif options.neighbours is not None:
        raise ConfigError(
            f"neighbours is {options.neighbours} and {raw.name} holds edges or a matrix: leave "
            f"{option('neighbours')} out, or pass {option('graph_kind', 'coordinates')}"
        )


def _find_graph(
    readings: Readings, graph: GraphSource | None, options: IngestOptions, ids_used: bool
) -> RawGraph | None:
    """The graph that the user gives, else that of the source."""
    if graph is None:
        return readings.graph
    return read_raw_graph(graph, options, readings, ids_elsewhere=ids_used)


def _match_graph(
    readings: Readings, raw: RawGraph | None, options: IngestOptions, *, is_given: bool
) -> MatchedGraph:
    if _NODE_BYTES * readings.num_nodes > (free := available_bytes()):
        raise DataError(
            f"{readings.name} has {count_of(readings.num_nodes, 'sensor')}, whose ids take "
            f"{size_text(_NODE_BYTES * readings.num_nodes)} of memory, and {size_text(free)} are "
            "free"
        )
    if raw is not None:
        _check_neighbours(raw, options, is_given=is_given)
        refuse_other_axes(readings, raw)
        return match_nodes(raw, readings.num_nodes, readings.node_ids, options)
    for name in ("edges", "coordinates", "neighbours"):
        if getattr(options, name):
            raise ConfigError(
                f"{name} is {getattr(options, name)} without a graph: give a graph file"
            )
    ids = readings.node_ids or tuple(map(str, range(readings.num_nodes)))
    note = "no graph was given: the store has sensors and no edges"
    return MatchedGraph(graph=SensorGraph.empty(readings.num_nodes), node_ids=ids, notes=(note,))


def _place(graph: SensorGraph, static: StaticTable) -> tuple[SensorGraph, tuple[str, ...]]:
    """The graph with the coordinates of the table of features, if it has none of its own."""
    if graph.coordinates is not None or static.coordinates is None:
        return graph, ()
    coordinates, notes = wrap_longitudes("the table of features", static.coordinates)
    return SensorGraph(adjacency=graph.adjacency, coordinates=coordinates), notes


def _channel_names(readings: Readings, options: IngestOptions) -> tuple[str, ...]:
    """Names of the channels; refuses channels, units and scales that do not fit their number."""
    num_channels = readings.num_channels
    for name in ("channels", "units", "scale"):
        given = getattr(options, name)
        if given and len(given) != num_channels and (name, len(given)) != ("scale", 1):
            raise ConfigError(
                f"{name} has {count_of(len(given), 'value')} ({', '.join(map(str, given))}) and "
                f"{readings.name} has {count_of(num_channels, 'channel')}: give one each"
                + (", or one for all" if name == "scale" else "")
            )
    if options.channels or readings.channels is not None:
        return options.channels or readings.channels or ()
    if num_channels == 1:
        return ("value",)
    return tuple(f"channel{channel}" for channel in range(num_channels))


def _write_rows(
    readings: Readings,
    rows: RowSplitter,
    cleaner: Cleaner,
    timeline: Timeline,
    budget_bytes: int,
    progress: Callable[[int, int | None], None] | None,
) -> None:
    row = 0
    for chunk in readings.chunks(budget_bytes):
        values, seconds = cleaner.clean(chunk.values, row), chunk.seconds
        if not cleaner.has_failed:
            for block in [values] if seconds is None else timeline.place(values, seconds, row):
                rows.append(block)
        row += len(values)
        if progress is not None:
            progress(row, readings.num_rows)
    cleaner.check()
    if not row:
        raise NoRowsError(f"{readings.name} has no rows: a series needs at least one")
    if row != (readings.num_rows or row):
        raise DataError(
            f"{readings.name} promises {count_of(readings.num_rows or 0, 'row')} and has {row:,}: "
            "copy it again"
        )
