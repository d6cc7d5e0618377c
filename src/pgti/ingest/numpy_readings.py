"""Readings in `.npy` and `.npz` files, streamed in their stored dtype."""

import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from pgti.ingest.npy_stream import NpyHeader, iterate_rows, npz_headers, read_header
from pgti.ingest.npz_graph import coordinates_in, raw_edges_in
from pgti.ingest.options import IngestOptions
from pgti.ingest.raw_graph import RawCoordinates, RawGraph
from pgti.ingest.readings import (
    Chunk,
    Readings,
    as_floats,
    check_series_shape,
    choose,
    reading,
    rows_per_chunk,
    stack,
)
from pgti.ingest.sensor_ids import find_ids

__all__ = ["open_npy", "open_npz"]


def open_npy(path: Path, options: IngestOptions) -> Readings:
    """Readings of shape [T, N] or [T, N, C] in an `.npy` file.

    Raises:
        DataError: if the file is damaged, or its array is not numbers of such a shape.
    """
    del options
    name = path.name
    with reading(name, "a NumPy array"), path.open("rb") as file:
        header = read_header(file)
    check_series_shape(name, header.shape, header.dtype)
    header.check_size(name, path.stat().st_size)

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        rows = rows_per_chunk(budget_bytes, header.shape[1] * _channels(header.shape))
        with reading(name, "a NumPy array"):
            if header.is_fortran:
                yield from _mapped_chunks(path, rows)
                return
            with path.open("rb") as file:
                file.seek(header.offset)
                for block in iterate_rows(file, header, rows, name):
                    yield _chunk(block)

    return _describe(name, header.shape, chunks)


def open_npz(path: Path, options: IngestOptions, has_graph: bool) -> Readings:
    """Readings in an `.npz` archive: one array [T, N] or [T, N, C], or several [T, N] as channels.

    Ids and edges of the same archive are taken along. A member in Fortran order cannot be
    streamed by rows and is read whole.

    Args:
        path: the archive.
        options: see `IngestOptions`.
        has_graph: whether the user gives a graph of their own.

    Raises:
        ConfigError: if the array of ids that the user names does not fit.
        DataError: if the archive is damaged, or it is not clear which array is meant.
    """
    name = path.name
    with reading(name, "an npz archive"):
        headers = npz_headers(path)
    candidates = {
        key: str(header.shape)
        for key, header in headers.items()
        if key in options.values or _could_be_readings(key, header, options)
    }
    keys = choose(name, candidates, options.values, "array", "arrays")
    parts = [_open_member(path, key, headers[key]) for key in keys]
    readings = parts[0] if len(keys) == 1 else stack(parts, keys, name)
    if readings.channels is None and readings.num_channels == 1:
        readings = replace(readings, channels=keys)
    with reading(name, "an npz archive"), np.load(path, allow_pickle=False) as archive:
        ids = find_ids(headers, archive.__getitem__, readings.num_nodes, options.ids, name)
        graph = None
        if not has_graph:
            graph = _graph(archive, headers, readings.num_nodes, ids, options, name)
    return replace(readings, name=name, node_ids=ids, graph=graph)


def _could_be_readings(key: str, header: NpyHeader, options: IngestOptions) -> bool:
    named_otherwise = key in (*options.edges, *options.coordinates, options.graph_values)
    return (
        len(header.shape) in (2, 3)
        and header.dtype.kind in "iuf"
        and not header.dtype.hasobject
        and not named_otherwise
    )


def _open_member(path: Path, key: str, header: NpyHeader) -> Readings:
    name = f"{key} of {path.name}"
    check_series_shape(name, header.shape, header.dtype)

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        rows = rows_per_chunk(budget_bytes, header.shape[1] * _channels(header.shape))
        with reading(name, "a NumPy array"), zipfile.ZipFile(path) as archive:
            if header.is_fortran:
                with np.load(path, allow_pickle=False) as arrays:
                    whole = arrays[key]
                for first in range(0, len(whole), rows):
                    yield _chunk(whole[first : first + rows])
                return
            with archive.open(f"{key}.npy") as file:
                stream = cast(BinaryIO, file)
                read_header(stream)
                for block in iterate_rows(stream, header, rows, name):
                    yield _chunk(block)
                # The checksum is compared when the member's end is reached.
                file.read(1)

    return _describe(name, header.shape, chunks)


def _mapped_chunks(path: Path, rows: int) -> Iterator[Chunk]:
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    with closing(mapped._mmap):
        for first in range(0, len(mapped), rows):
            yield _chunk(mapped[first : first + rows])


def _channels(shape: tuple[int, ...]) -> int:
    return shape[2] if len(shape) == 3 else 1


def _chunk(block: NDArray[Any]) -> Chunk:
    values = as_floats(block)
    return Chunk(values=values[..., np.newaxis] if values.ndim == 2 else values)


def _describe(name: str, shape: tuple[int, ...], chunks: Any) -> Readings:
    return Readings(
        name=name,
        num_rows=shape[0],
        num_nodes=shape[1],
        num_channels=_channels(shape),
        chunks=chunks,
    )


def _graph(
    archive: Any,
    headers: dict[str, NpyHeader],
    num_nodes: int,
    ids: tuple[str, ...] | None,
    options: IngestOptions,
    name: str,
) -> RawGraph | None:
    latlon = coordinates_in(archive, headers, num_nodes, options, name)
    if options.edges:
        return raw_edges_in(archive, headers, options, name, latlon)
    if latlon is not None:
        return RawCoordinates(name=name, latlon=latlon, node_ids=ids)
    return None
