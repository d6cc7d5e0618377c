"""Data sets of BasicTS: `data.dat` with `desc.json`, or a file for each split with `meta.json`.

Until version 0.5 a data set is the bytes of a float32 array [T, N, C], whose shape `desc.json` has
(https://github.com/GestaltCogTeam/BasicTS, docs/dataset_design.md); since 1.0 it is
`train_data.npy`, `val_data.npy` and `test_data.npy`, which follow one another, and `meta.json`.
"""

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pgti.display import count_of, shorten
from pgti.errors import DataError, option
from pgti.ingestion.arrays.axes_arrays import BoxReader, StoredArray, arrange
from pgti.ingestion.arrays.npy import NpyHeader, open_npy
from pgti.ingestion.axes import Axes
from pgti.ingestion.graphs.arrays import read_pickled_graph
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import Chunk, Readings, reraise_read_errors

__all__ = ["find_basicts", "open_basicts"]

_SPLITS = ("train_data.npy", "val_data.npy", "test_data.npy")
_MAX_JSON_BYTES = 1 << 20
_CALENDAR = ("time of day", "time in day", "day of week", "day in week", "day of month")
_CALENDAR_NAMES = (*_CALENDAR, "day in month", "day of year", "day in year")
_MAX_MINUTES = 366 * 24 * 60


def find_basicts(path: Path) -> Path | None:
    """The description of the data set of which a path is the directory or a main file, if it is."""
    is_file = path.name in ("data.dat", "desc.json", "meta.json") and path.is_file()
    directory = path.parent if is_file else path
    for described, data in (("desc.json", "data.dat"), ("meta.json", _SPLITS[0])):
        about = directory / described
        if (
            about.is_file()
            and (directory / data).is_file()
            and path
            in (
                directory,
                about,
                directory / "data.dat",
            )
        ):
            return about
    return None


def open_basicts(about: Path, options: IngestOptions, has_graph: bool) -> Readings:
    """Readings of the data set that a file describes, its interval, and its graph `adj_mx.pkl`.

    Channels that only repeat the calendar are left out, unless the user names every channel.

    Args:
        about: `desc.json` or `meta.json`.
        options: `channels` may name every channel.
        has_graph: whether the user gives a graph.

    Raises:
        DataError: if the data is not what the description promises.
    """
    described = _read_description(about)
    directory = about.parent
    if about.name == "desc.json":
        readings = _open_bytes(directory / "data.dat", described, about.name)
    else:
        readings = _open_splits(directory, options)
    readings = _without_calendar(readings, described, options)
    graph = directory / "adj_mx.pkl"
    if not has_graph and graph.is_file():
        note = f"the graph of {readings.name} is {graph.name} beside it"
        raw = read_pickled_graph(graph)
        readings = replace(readings, graph=raw, notes=(*readings.notes, note))
    minutes = described.get("frequency (minutes)")
    if isinstance(minutes, int | float) and 0 < minutes < _MAX_MINUTES:
        seconds = minutes * 60
        interval = int(seconds) if seconds == int(seconds) else None
        readings = replace(readings, interval_seconds=interval)
    return replace(readings, has_named_axes=True)


def _read_description(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise DataError(f"{path.name} has {path.stat().st_size} bytes: it is no description")
    with reraise_read_errors(path.name, "JSON"):
        described = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(described, dict):
        raise DataError(f"{path.name} is no description of a data set: it must be a JSON object")
    return described


def _open_bytes(path: Path, described: dict[str, Any], about: str) -> Readings:
    shape = described.get("shape")
    are_sizes = isinstance(shape, list) and all(
        isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in shape
    )
    if not isinstance(shape, list) or not are_sizes or len(shape) not in (2, 3):
        raise DataError(f"the shape in {about} is {shape}: the rule is [steps, sensors, channels]")
    header = NpyHeader(shape=tuple(shape), is_fortran=False, dtype=np.dtype("<f4"), offset=0)
    size, promised = path.stat().st_size, 4 * math.prod(shape)
    if size != promised:
        raise DataError(
            f"{path.name} has {size} bytes and {about} promises {promised} (float32 "
            f"{tuple(shape)}): copy both again"
        )

    @contextlib.contextmanager
    def open_pieces() -> Iterator[BoxReader]:
        with reraise_read_errors(path.name, "an array"), path.open("rb") as file:
            yield header.piece_reader(file, path.name)

    stored: StoredArray = header.stored(path.name, open_pieces)
    return arrange(stored, Axes.usual(len(shape)))


def _open_splits(directory: Path, options: IngestOptions) -> Readings:
    """The splits, one after another."""
    paths = [directory / name for name in _SPLITS if (directory / name).is_file()]
    plain = replace(options, axes=(), transpose=False)
    parts = [open_npy(path, plain) for path in paths]
    for before, after in pairwise(parts):
        shapes = [(each.num_nodes, each.num_channels) for each in (before, after)]
        if shapes[0] != shapes[1]:
            raise DataError(
                f"{after.name} has {count_of(after.num_nodes, 'sensor')} and "
                f"{count_of(after.num_channels, 'channel')}, unlike {before.name} ({shapes[0][0]} "
                f"and {shapes[0][1]}): splits of a series have one shape"
            )

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        for part in parts:
            yield from part.chunks(budget_bytes)

    names = ", ".join(part.name for part in parts)
    return replace(
        parts[0],
        name=directory.name,
        num_rows=sum(part.num_rows or 0 for part in parts),
        notes=(f"{names} of {directory.name} follow one another: they were joined in this order",),
        chunks=chunks,
    )


def _without_calendar(
    readings: Readings, described: dict[str, Any], options: IngestOptions
) -> Readings:
    """The channels under their names, without those that repeat the calendar."""
    names = described.get("feature_description")
    num_channels = readings.num_channels
    if not isinstance(names, list) or len(names) != num_channels:
        return readings
    texts = [str(name).strip() for name in names]
    kept = [i for i, text in enumerate(texts) if text.lower() not in _CALENDAR_NAMES]
    if len(options.channels) == num_channels or not kept:
        kept = list(range(num_channels))
    named = [texts[place] for place in kept]
    if len(set(named)) == len(named) and all(named):
        readings = replace(readings, channels=tuple(named))
    if len(kept) == num_channels:
        return readings
    left = [text for place, text in enumerate(texts) if place not in kept]
    note = (
        f"the channels {shorten(left)} of {readings.name} were left out: calendar features are "
        f"computed when batches are made; {option('channels')} with a name for each of the "
        f"{num_channels} channels keeps them"
    )

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        for chunk in readings.chunks(budget_bytes):
            yield Chunk(values=np.take(chunk.values, kept, axis=2))

    return replace(readings, num_channels=len(kept), notes=(*readings.notes, note), chunks=chunks)
