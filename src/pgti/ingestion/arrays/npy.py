"""Arrays in `.npy` and `.npz` files: readings, streamed in their stored dtype, ids and edges."""

import contextlib
import math
import tokenize
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from pgti.display import size_text
from pgti.errors import DataError
from pgti.ingestion.arrays.axes_arrays import Box, BoxReader, StoredArray
from pgti.ingestion.arrays.axes_labels import Labels, label_axes, open_stored, wanted_ndims
from pgti.ingestion.arrays.stacked import stack_channels
from pgti.ingestion.keys import choose_keys
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.raw_graphs import RawCoordinates, RawEdges, RawGraph
from pgti.ingestion.readings import (
    Readings,
    ids_to_text,
    reraise_read_errors,
    row_blocks,
    split_rows,
)
from pgti.memory import available_bytes

__all__ = [
    "Arrays",
    "Headers",
    "NpyHeader",
    "npz_headers",
    "open_members",
    "open_npy",
    "open_npz",
    "read_blocks",
    "read_coordinates",
    "read_edges",
    "read_header",
]

_NPY, _NPZ = "a NumPy array", "an npz archive"
_MAX_TEXT_BYTES = 1 << 14
_COPIES, _TEXT_BYTES = 3, 32  # of a whole array: itself, as float64 or as text, and as a graph
_COORDINATE_NAMES = (("lat", "lon"), ("latitude", "longitude"))

Arrays = Any  # numpy's NpzFile, or a dict of arrays


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """The header of an array in NumPy's format.

    Attributes:
        shape: the array's shape.
        is_fortran: whether the first axis varies fastest.
        dtype: the array's dtype.
        offset: bytes of the header.
    """

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    offset: int

    def check_size(self, name: str, size: int) -> None:
        """Refuse a file that is shorter than its header promises.

        Raises:
            DataError: giving both numbers of bytes.
        """
        promised = self.offset + math.prod(self.shape) * self.dtype.itemsize
        if not self.dtype.hasobject and size < promised:
            raise DataError(
                f"{name} is truncated: it has {size} bytes and its header promises {promised} "
                f"({self.dtype} {self.shape}); copy it again"
            )

    def check_whole(self, name: str) -> None:
        """Refuse an array that is read whole and does not fit into memory with what follows.

        Raises:
            DataError: giving its size; of text, where a single one is longer than any id.
        """
        if self.dtype.kind in "SU" and self.dtype.itemsize > _MAX_TEXT_BYTES:
            raise DataError(
                f"{name} holds texts of {self.dtype.itemsize:,} bytes each: at most "
                f"{_MAX_TEXT_BYTES:,} are read"
            )
        is_matrix = len(self.shape) == 2 and self.shape[0] == self.shape[1]
        becomes_text = self.dtype.kind in "iu" and not is_matrix  # ends of edges, ids
        least = _TEXT_BYTES if becomes_text else np.dtype(np.float64).itemsize
        num_bytes = math.prod(self.shape) * max(self.dtype.itemsize, least)
        if _COPIES * num_bytes > (free := available_bytes()):
            raise DataError(
                f"{name} has the shape {self.shape} and is read whole: it and what is made of it "
                f"take {size_text(_COPIES * num_bytes)}, and {size_text(free)} are free"
            )

    def stored(
        self, name: str, open_pieces: Callable[[], AbstractContextManager[BoxReader]]
    ) -> StoredArray:
        """The array as it is stored: its axes are reversed where the first one varies fastest."""
        shape = self.shape[::-1] if self.is_fortran else self.shape
        return StoredArray(name=name, shape=shape, dtype=self.dtype, open=open_pieces)

    def piece_reader(self, file: BinaryIO, name: str) -> BoxReader:
        """Reads the array's boxes one after another from a stream that stands after the header."""

        def read(box: Box) -> NDArray[Any]:
            piece = np.empty([part.stop - part.start for part in box], dtype=self.dtype)
            view = memoryview(piece.reshape(-1).data).cast("B")
            filled = 0
            while filled < len(view):  # a compressed stream returns its bytes in pieces
                count = file.readinto(view[filled:])  # type: ignore[attr-defined] # not in BinaryIO
                if not count:
                    raise DataError(
                        f"{name} is truncated: it ends before its last row; copy it again"
                    )
                filled += count
            return piece

        return read


Headers = dict[str, NpyHeader]


@dataclass(frozen=True, slots=True)
class _Members:
    """The arrays of an archive that are read whole: ids, coordinates and graphs."""

    archive: Any
    headers: Headers
    name: str

    def __getitem__(self, key: str) -> NDArray[Any]:
        header = self.headers[key]
        header.check_whole(f"{key} of {self.name}")
        array: NDArray[Any] = self.archive[key]
        return array


@contextlib.contextmanager
def open_members(path: Path, headers: Headers) -> Iterator[Arrays]:
    """The arrays of an archive by key; one that does not fit into memory is refused.

    Raises:
        DataError: if the archive is damaged, also while it is read in the context.
    """
    with (
        reraise_read_errors(path.name, _NPZ),
        np.load(path, allow_pickle=False) as archive,
    ):
        yield _Members(archive, headers, path.name)


def read_header(file: BinaryIO) -> NpyHeader:
    """Read the header; the stream stands at the first number afterwards.

    Raises:
        ValueError: if it is not a header of format 1 or 2.
    """
    version = npy_format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format version {version} is not supported")
    first = version == (1, 0)
    read = npy_format.read_array_header_1_0 if first else npy_format.read_array_header_2_0
    try:
        shape, is_fortran, dtype = read(file)
    except (SyntaxError, tokenize.TokenError):  # NumPy parses it as Python
        raise ValueError("its header is damaged; copy it again") from None
    return NpyHeader(shape=shape, is_fortran=is_fortran, dtype=dtype, offset=file.tell())


def npz_headers(path: Path) -> Headers:
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


def open_npy(path: Path, options: IngestOptions) -> Readings:
    """Readings in an `.npy` file, of shape [T, N] or [T, N, C] or with the axes of the options.

    Raises:
        DataError: if the file is damaged, or its array is not numbers of such a shape.
    """
    name = path.name
    with reraise_read_errors(name, _NPY), path.open("rb") as file:
        header = read_header(file)

    @contextlib.contextmanager
    def open_pieces() -> Iterator[BoxReader]:
        with reraise_read_errors(name, _NPY), path.open("rb") as file:
            file.seek(header.offset)
            yield header.piece_reader(file, name)

    readings = open_stored(header.stored(name, open_pieces), options, is_reversed=header.is_fortran)
    header.check_size(name, path.stat().st_size)
    labels = Labels(name=name, arrays={}, read=dict[str, NDArray[Any]]().__getitem__)
    return label_axes(readings, header.shape, labels, options)


def open_npz(path: Path, options: IngestOptions, has_graph: bool) -> Readings:
    """Readings in an `.npz` archive: one array [T, N] or [T, N, C], or several [T, N] as channels.

    Other axes are those of the options. Ids and, unless the user gives a graph, edges of the same
    archive are read as well; where the axes are named, also coordinates and times along them.

    Raises:
        ConfigError: if the array of ids that the user names does not fit.
        DataError: if the archive is damaged, or several arrays fit and none was chosen.
    """
    name = path.name
    with reraise_read_errors(name, _NPZ):
        headers = npz_headers(path)
    candidates = {
        key: str(header.shape)
        for key, header in headers.items()
        if key in options.values or _could_be_readings(key, header, options)
    }
    others = (f"{key} {header.dtype} {header.shape}" for key, header in headers.items())
    keys = choose_keys(name, candidates, options.values, "array", "arrays", others=others)
    parts = [_open_member(path, key, headers[key], options) for key in keys]
    readings = parts[0] if len(keys) == 1 else stack_channels(parts, keys, name)
    shape = headers[keys[0]].shape
    with open_members(path, headers) as archive:
        labels = Labels(name=name, arrays=headers, read=archive.__getitem__)
        readings = label_axes(readings, shape, labels, options)
        if readings.channels is None and readings.num_channels == 1:
            readings = replace(readings, channels=keys)
        if not has_graph:
            latlon = read_coordinates(archive, headers, readings.num_nodes, options, name)
            graph: RawGraph | None = None
            if options.edges:
                graph = read_edges(archive, headers, options, name, latlon)
            elif latlon is not None:
                graph = RawCoordinates(name=name, latlon=latlon, node_ids=readings.node_ids)
            if graph is not None:
                readings = replace(readings, graph=graph)
    return replace(readings, name=name)


def _could_be_readings(key: str, header: NpyHeader, options: IngestOptions) -> bool:
    is_named_otherwise = key in (*options.edges, *options.coordinates, options.graph_values)
    has_numbers = header.dtype.kind in "iuf" and not header.dtype.hasobject
    return len(header.shape) in wanted_ndims(options) and has_numbers and not is_named_otherwise


def read_blocks(path: Path, key: str, rows: int) -> Iterator[NDArray[Any]]:
    """Blocks of at most `rows` of the first axis of an array in an archive.

    An array in Fortran order is read whole.

    Raises:
        DataError: if the archive is damaged.
    """
    with reraise_read_errors(path.name, _NPZ):
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
            header = read_header(cast(BinaryIO, file))
            if not header.is_fortran:
                read = header.piece_reader(cast(BinaryIO, file), f"{key} of {path.name}")
                whole = [slice(0, size) for size in header.shape[1:]]
                for first, stop in row_blocks(header.shape[0], rows):
                    yield read((slice(first, stop), *whole))
                file.read(1)  # the checksum is compared at the end
                return
        with np.load(path, allow_pickle=False) as arrays:
            yield from split_rows(arrays[key], rows)


def _open_member(path: Path, key: str, header: NpyHeader, options: IngestOptions) -> Readings:
    name = f"{key} of {path.name}"

    @contextlib.contextmanager
    def open_pieces() -> Iterator[BoxReader]:
        with (
            reraise_read_errors(name, _NPY),
            zipfile.ZipFile(path) as archive,
            archive.open(f"{key}.npy") as file,
        ):
            stream = cast(BinaryIO, file)
            read_header(stream)
            yield header.piece_reader(stream, name)
            # The checksum is compared when the member's end is reached.
            file.read(1)

    return open_stored(header.stored(name, open_pieces), options, is_reversed=header.is_fortran)


def read_coordinates(
    arrays: Arrays, headers: Headers, num_nodes: int | None, options: IngestOptions, name: str
) -> NDArray[np.float64] | None:
    """Latitude and longitude [N, 2] under the named or the usual keys; None if absent.

    Raises:
        DataError: if named arrays are missing or have another length.
    """
    shapes = {key: header.shape for key, header in headers.items()}
    if not options.coordinates and shapes.get("coordinates") == (num_nodes, 2):
        return np.asarray(arrays["coordinates"], dtype=np.float64)  # as SensorGraph.save writes it
    _check_keys(options.coordinates, headers, name)
    for keys in (options.coordinates,) if options.coordinates else _COORDINATE_NAMES:
        if not all(key in headers for key in keys):
            continue
        texts = [key for key in keys if headers[key].dtype.kind not in "iuf"]
        if texts:
            raise DataError(
                f"{texts[0]} of {name} holds {headers[texts[0]].dtype}: coordinates are numbers"
            )
        latitude, longitude = (shapes[key] for key in keys)
        fits = latitude == longitude and len(latitude) == 1
        if fits and num_nodes in (None, latitude[0]):
            return np.stack([np.asarray(arrays[key], dtype=np.float64) for key in keys], axis=1)
        if options.coordinates:
            raise DataError(
                f"{' and '.join(keys)} of {name} have shapes {latitude} and {longitude}: the rule "
                f"is one number for each of {num_nodes} sensors"
            )
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
    _check_keys(options.edges, headers, name)
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
    if any(array.shape != source.shape for array in (target, *others)) or len(others) > 1:
        sizes = ", ".join(str(headers[key].shape) for key in options.edges)
        raise DataError(f"the edge arrays of {name} have shapes {sizes}: they must be one length")
    return RawEdges(
        name=name,
        source=ids_to_text(source),
        target=ids_to_text(target),
        value=np.asarray(others[0], dtype=np.float64) if others else None,
        value_name=options.edges[-1] if others else None,
        coordinates=latlon,
        is_topology=True,
    )


def _check_keys(keys: tuple[str, ...], headers: Headers, name: str) -> None:
    for key in keys:
        if key not in headers:
            raise DataError(f"{name} has no array {key!r}; it has {', '.join(headers)}")
