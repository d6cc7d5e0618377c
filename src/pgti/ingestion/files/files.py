"""One series of several files: each a stretch of time, a sensor or a channel, as they show."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of, shorten
from pgti.errors import ConfigError, DataError, option
from pgti.ingestion.contents import NoRowsError
from pgti.ingestion.files.kinds import OpenedFile, choose_kind, have_other_sensors, stem_of
from pgti.ingestion.files.labels import join_graphs, join_units
from pgti.ingestion.files.merging import Merge, Part
from pgti.ingestion.files.notes import notes_of_files, notes_of_rows, union_of
from pgti.ingestion.files.sets import SourceSet
from pgti.ingestion.files.streams import read_times
from pgti.ingestion.options import FilesKind, IngestOptions
from pgti.ingestion.readings import Chunk, Readings

__all__ = ["open_files"]

_FIRST_BYTES = 1 << 16  # of memory, to read the first rows of a file
_UNTIMED = 1 << 40  # rows of a file without times at most


def open_files(
    found: SourceSet[Any], options: IngestOptions, open_one: Callable[[Any], Readings]
) -> Readings:
    """Several files as one source, whose rows are in the order of time.

    Files of other times or other sensors are joined by the times, sensors and channels that they
    have; what a file lacks is missing. Of files with equal columns at equal times, each is one
    sensor, whose columns are channels, or one channel: their names show which, or `options.files`.

    Args:
        found: the files.
        options: see `IngestOptions`.
        open_one: opens one of them.

    Raises:
        ConfigError: if `options.files` does not suit them.
        DataError: if one of them cannot be read, or what they hold is not certain.
    """
    files, empty = _open_all(found, options, open_one)
    _check_alike(files)
    kind = choose_kind(found, files, options)
    if kind == "times":
        are_stretches = files[0].is_timed and not have_other_sensors(files)
        ordered = sorted(files, key=lambda each: each.first) if are_stretches else files
    else:
        ordered = [_relabel(each, kind, found) for each in files]
        _check_unique([each.name for each in files], kind)
    joined = _join(found, ordered, kind, options)
    if not empty:
        return joined
    note = f"{count_of(len(empty), 'file')} without rows: left out ({shorten(empty)})"
    return replace(joined, notes=(*joined.notes, note))


def _open_all(
    found: SourceSet[Any], options: IngestOptions, open_one: Callable[[Any], Readings]
) -> tuple[list[OpenedFile], list[str]]:
    """The files, and the names of those without rows; if none has any, the first is refused."""
    files, empty = [], []
    first: NoRowsError | None = None
    for name, source in found.sources.items():
        try:
            files.append(_open(name, source, options, open_one))
        except NoRowsError as error:
            first = first or error
            empty.append(name)
    if not files and first is not None:
        raise first
    return files, empty


def _open(
    name: str, source: Any, options: IngestOptions, open_one: Callable[[Any], Readings]
) -> OpenedFile:
    """Open a file and read its first rows."""
    readings = _with_name(name, open_one(source), source)
    if readings.first_seconds is not None:
        chunk: Chunk | None = Chunk(
            values=np.empty((1, readings.num_nodes, readings.num_channels)),
            seconds=np.array([readings.first_seconds], dtype=np.int64),
        )
    else:
        chunk = next(readings.chunks(_FIRST_BYTES), None)
    if chunk is None or not len(chunk.values):
        raise NoRowsError(f"{readings.name} has no rows: leave it out")
    times = read_times(replace(readings, chunks=lambda _: iter([chunk])), (), options.time_zone, 1)
    first = next(times).seconds
    assert first is not None
    is_timed = chunk.seconds is not None
    return OpenedFile(name=name, readings=readings, first=int(first[0]), is_timed=is_timed)


def _with_name(name: str, readings: Readings, source: Any) -> Readings:
    """The readings under a name that tells the file apart; its errors begin with it."""
    if not isinstance(source, str | Path):
        return replace(readings, name=f"source {name}")
    if name == Path(source).name:
        return readings

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        try:
            yield from readings.chunks(budget_bytes)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error

    return replace(readings, name=name, chunks=chunks)


def _check_alike(files: Sequence[OpenedFile]) -> None:
    """Refuse files of which some have times, offsets, ids or channel names, and others have not."""
    first = files[0]
    for each in files[1:]:
        mine, other = first.readings, each.readings
        for what, has, others in (
            ("times", first.is_timed, each.is_timed),
            ("times with an offset from UTC", mine.is_aware, other.is_aware),
            ("sensor ids", mine.node_ids is not None, other.node_ids is not None),
            ("names of channels", mine.channels is not None, other.channels is not None),
        ):
            if has != others:
                one, two = (first, each) if has else (each, first)
                raise DataError(
                    f"{one.readings.name} has {what} and {two.readings.name} has none: give files "
                    "of one kind"
                )
        if mine.node_ids is None and mine.num_nodes != other.num_nodes:
            raise DataError(
                f"{mine.name} has {count_of(mine.num_nodes, 'sensor')} without ids and {other.name}"
                f" has {other.num_nodes:,}: give files with the same sensors, or with their ids"
            )
        if mine.channels is None and mine.num_channels != other.num_channels:
            raise DataError(
                f"{mine.name} has {count_of(mine.num_channels, 'channel')} and {other.name} has "
                f"{other.num_channels:,}: give files with the same channels"
            )


def _check_unique(names: Sequence[str], kind: str) -> None:
    stems = [stem_of(name) for name in names]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise DataError(
            f"several files are called {twice!r}, and each is a {kind[:-1]} of that name: give "
            "them other names"
        )


def _relabel(file: OpenedFile, kind: FilesKind, found: SourceSet[Any]) -> OpenedFile:
    """A file as one sensor, whose columns are channels, or as one channel."""
    readings, label = file.readings, stem_of(file.name)
    if not found.are_named:
        raise ConfigError(
            f"files is {kind!r} and the sources have no names: give them by name, such as "
            "{'speed': ..., 'flow': ...}"
        )
    if kind == "channels":
        if readings.num_channels != 1:
            raise ConfigError(
                f"files is 'channels' and {readings.name} has {readings.num_channels} channels: "
                f"leave {option('files')} out"
            )
        return replace(file, readings=replace(readings, channels=(label,)))
    if readings.num_channels != 1 and readings.num_nodes != 1:
        raise ConfigError(
            f"files is 'sensors' and {readings.name} has {readings.num_nodes} sensors: leave "
            f"{option('files')} out"
        )
    channels = readings.channels if readings.num_nodes == 1 else None
    channels = channels or readings.node_ids
    num_channels = max(readings.num_nodes, readings.num_channels)

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        for chunk in readings.chunks(budget_bytes):
            values = chunk.values.reshape(len(chunk.values), 1, num_channels)
            yield replace(chunk, values=values)

    relabelled = replace(
        readings,
        num_nodes=1,
        num_channels=num_channels,
        node_ids=(label,),
        channels=channels,
        graph=None,
        chunks=chunks,
    )
    return replace(file, readings=relabelled)


def _join(
    found: SourceSet[Any], files: Sequence[OpenedFile], kind: FilesKind, options: IngestOptions
) -> Readings:
    """The files as one source."""
    opened = [each.readings for each in files]
    ids = union_of([each.node_ids for each in opened])
    channels = union_of([each.channels for each in opened])
    num_nodes = opened[0].num_nodes if ids is None else len(ids)
    num_channels = opened[0].num_channels if channels is None else len(channels)
    first, is_timed = opened[0], files[0].is_timed
    parts = [
        Part(
            readings=each.readings,
            nodes=_places(each.readings.node_ids, ids, num_nodes),
            channels=_places(each.readings.channels, channels, num_channels),
            first=each.first if is_timed else (number * _UNTIMED if kind == "times" else 0),
        )
        for number, each in enumerate(files)
    ]
    merge = Merge(
        parts,
        options,
        node_ids=ids or tuple(map(str, range(num_nodes))),
        channels=channels or tuple(map(str, range(num_channels))),
        name=found.name,
        is_timed=is_timed,
    )
    zones = {each.time_zone for each in opened}
    is_local = is_timed and options.time_zone is not None

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        assert found.sources  # temporary files live as long as the set
        yield from merge.chunks(budget_bytes)
        if not is_timed and kind != "times":
            _check_rows(files, merge.rows_of)

    return Readings(
        name=found.name,
        num_nodes=num_nodes,
        num_channels=num_channels,
        node_ids=ids,
        channels=channels,
        units=join_units(opened, channels),
        is_aware=is_local or first.is_aware,
        time_zone=options.time_zone if is_local else zones.pop() if len(zones) == 1 else None,
        interval_seconds=first.interval_seconds,
        has_named_axes=all(each.has_named_axes for each in opened),
        graph=join_graphs(opened, ids),
        counts_ids=all(each.counts_ids for each in opened),
        has_codes=False,
        labels=merge.labels,
        files=kind,
        notes=notes_of_files(files, kind, options),
        late_notes=lambda: notes_of_rows(files, kind, merge, options),
        chunks=chunks,
    )


def _places(
    names: tuple[str, ...] | None, every: tuple[str, ...] | None, count: int
) -> NDArray[np.int64]:
    if names is None or every is None:
        return np.arange(count, dtype=np.int64)
    positions = {name: place for place, name in enumerate(every)}
    return np.array([positions[name] for name in names], dtype=np.int64)


def _check_rows(files: Sequence[OpenedFile], rows_of: Mapping[int, int]) -> None:
    """Refuse files without times that have other numbers of rows."""
    for order, each in enumerate(files):
        if rows_of[order] != rows_of[0]:
            raise DataError(
                f"{files[0].readings.name} has {count_of(rows_of[0], 'row')} and "
                f"{each.readings.name} has {rows_of[order]:,}: without times, rows belong together "
                "by their number, so give as many"
            )
