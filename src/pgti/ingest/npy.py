"""Readings in `.npy` and `.npz` files, streamed in their stored dtype."""

import math
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from pgti.errors import DataError
from pgti.ingest.node_matching import RawCoordinates, RawEdges, RawGraph, is_distance_name
from pgti.ingest.options import IngestOptions
from pgti.ingest.readings import (
    Chunk,
    Readings,
    as_floats,
    check_series_shape,
    choose_keys,
    find_ids,
    ids_to_text,
    reraise_read_errors,
    rows_per_chunk,
    stack,
)

__all__ = [
    "NpyHeader",
    "iterate_rows",
    "npz_headers",
    "open_npy",
    "open_npz",
    "read_coordinates",
    "read_edges",
    "read_header",
]


_COORDINATE_NAMES = (("lat", "lon"), ("latitude", "longitude"))

Arrays = Any  # numpy's NpzFile, or a dict of arrays


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What stands before the numbers.

    Args:
        shape: the array's shape.
        is_fortran: whether the first axis varies fastest.
        dtype: the array's dtype.
        offset: bytes of the header.
    """

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    offset: int

    @property
    def num_bytes(self) -> int:
        """Bytes of header and numbers."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    def check_size(self, name: str, size: int) -> None:
        """Refuse a file that is shorter than its header promises.

        Raises:
            DataError: giving both numbers of bytes.
        """
        if not self.dtype.hasobject and size < self.num_bytes:
            raise DataError(
                f"{name} is truncated: it has {size} bytes and its header promises "
                f"{self.num_bytes} ({self.dtype} {self.shape}); copy it again"
            )


Headers = dict[str, NpyHeader]


def read_header(file: BinaryIO) -> NpyHeader:
    """Read the header; the stream stands at the first number afterwards.

    Raises:
        ValueError: if it is no header of format 1 or 2.
    """
    version = npy_format.read_magic(file)
    if version == (1, 0):
        shape, is_fortran, dtype = npy_format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, is_fortran, dtype = npy_format.read_array_header_2_0(file)
    else:
        raise ValueError(f"format version {version} is not supported")
    return NpyHeader(shape=shape, is_fortran=is_fortran, dtype=dtype, offset=file.tell())


def npz_headers(path: Path) -> dict[str, NpyHeader]:
    """The header of each array of an `.npz` archive, by its key; no array is read.

    Raises:
        DataError: if an array is shorter than its header promises.
    """
    headers = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                continue
            key = member.filename.removesuffix(".npy")
            with archive.open(member) as file:
                headers[key] = read_header(cast(BinaryIO, file))
            headers[key].check_size(f"{key} of {path.name}", member.file_size)
    return headers


def iterate_rows(file: BinaryIO, header: NpyHeader, rows: int, name: str) -> Iterator[NDArray[Any]]:
    """Blocks of at most `rows` rows of a C-ordered array, from a stream after its header.

    Raises:
        DataError: if the stream ends too early.
    """
    num_rows, *rest = header.shape
    for first in range(0, num_rows, rows):
        block = np.empty((min(rows, num_rows - first), *rest), dtype=header.dtype)
        _fill(file, block, name)
        yield block


def _fill(file: BinaryIO, block: NDArray[Any], name: str) -> None:
    """Fill the block; a compressed stream hands its bytes out in pieces."""
    view = memoryview(block.data).cast("B")
    filled = 0
    while filled < len(view):
        count = file.readinto(view[filled:])  # type: ignore[attr-defined] # every binary stream has it; BinaryIO does not say so
        if not count:
            raise DataError(f"{name} is truncated: it ends before its last row; copy it again")
        filled += count


def open_npy(path: Path, options: IngestOptions) -> Readings:
    """Readings of shape [T, N] or [T, N, C] in an `.npy` file.

    Raises:
        DataError: if the file is damaged, or its array is not numbers of such a shape.
    """
    del options
    name = path.name
    with reraise_read_errors(name, "a NumPy array"), path.open("rb") as file:
        header = read_header(file)
    check_series_shape(name, header.shape, header.dtype)
    header.check_size(name, path.stat().st_size)

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        rows = rows_per_chunk(budget_bytes, header.shape[1] * _channels(header.shape))
        with reraise_read_errors(name, "a NumPy array"):
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
    with reraise_read_errors(name, "an npz archive"):
        headers = npz_headers(path)
    candidates = {
        key: str(header.shape)
        for key, header in headers.items()
        if key in options.values or _could_be_readings(key, header, options)
    }
    keys = choose_keys(name, candidates, options.values, "array", "arrays")
    parts = [_open_member(path, key, headers[key]) for key in keys]
    readings = parts[0] if len(keys) == 1 else stack(parts, keys, name)
    if readings.channels is None and readings.num_channels == 1:
        readings = replace(readings, channels=keys)
    with reraise_read_errors(name, "an npz archive"), np.load(path, allow_pickle=False) as archive:
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
        with reraise_read_errors(name, "a NumPy array"), zipfile.ZipFile(path) as archive:
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
    latlon = read_coordinates(archive, headers, num_nodes, options, name)
    if options.edges:
        return read_edges(archive, headers, options, name, latlon)
    if latlon is not None:
        return RawCoordinates(name=name, latlon=latlon, node_ids=ids)
    return None


def read_coordinates(
    arrays: Arrays, headers: Headers, num_nodes: int | None, options: IngestOptions, name: str
) -> NDArray[np.float64] | None:
    """Latitude and longitude [N, 2] under the named or the customary keys; None if absent.

    Raises:
        DataError: if named arrays are missing or have another length.
    """
    if not options.coordinates and _shape(headers, "coordinates") == (num_nodes, 2):
        return np.asarray(arrays["coordinates"], dtype=np.float64)  # as SensorGraph.save writes it
    pairs = (options.coordinates,) if options.coordinates else _COORDINATE_NAMES
    for latitude, longitude in pairs:
        found = [key for key in (latitude, longitude) if key in headers]
        if len(found) == 2:
            fits = (
                headers[latitude].shape == headers[longitude].shape
                and len(headers[latitude].shape) == 1
            )
            if fits and num_nodes in (None, headers[latitude].shape[0]):
                both = [np.asarray(arrays[key], dtype=np.float64) for key in found]
                return np.stack(both, axis=1)
            if options.coordinates:
                raise DataError(
                    f"{latitude} and {longitude} of {name} have shapes {headers[latitude].shape} "
                    f"and {headers[longitude].shape}: the rule is one number for each of "
                    f"{num_nodes} sensors"
                )
        elif options.coordinates:
            absent = latitude if latitude not in headers else longitude
            raise DataError(f"{name} has no array {absent!r}; it has {', '.join(headers)}")
    return None


def read_edges(
    arrays: Arrays,
    headers: Headers,
    options: IngestOptions,
    name: str,
    latlon: NDArray[np.float64] | None,
) -> RawEdges:
    """The edge list under the keys `options.edges`: two of [E], or one of [E, 2]; then values [E].

    Raises:
        DataError: if a key is unknown or a shape does not fit.
    """
    for key in options.edges:
        if key not in headers:
            raise DataError(f"{name} has no array {key!r}; it has {', '.join(headers)}")
    first, *others = [arrays[key] for key in options.edges]
    if first.ndim == 2 and first.shape[1] == 2:
        source, target = first[:, 0], first[:, 1]
    elif first.ndim == 1 and others:
        source, target = first, others.pop(0)
    else:
        raise DataError(
            f"{options.edges[0]} of {name} has shape {first.shape}: edges are two arrays [E] "
            "(source, target) or one of [E, 2]"
        )
    ends = (source, target, *others)
    if any(array.shape != source.shape for array in ends) or len(others) > 1:
        sizes = ", ".join(str(headers[key].shape) for key in options.edges)
        raise DataError(f"the edge arrays of {name} have shapes {sizes}: they must be one length")
    is_distance = bool(others) and is_distance_name(options.edges[-1])
    return RawEdges(
        name=name,
        source=ids_to_text(source),
        target=ids_to_text(target),
        value=np.asarray(others[0], dtype=np.float64) if others else None,
        values=options.edge_values or ("distance" if is_distance else "weight"),
        coordinates=latlon,
        is_topology=True,
    )


def _shape(headers: Headers, key: str) -> tuple[int, ...] | None:
    return headers[key].shape if key in headers else None
