"""The files of a store: opening them, and checking them against the description."""

import hashlib
import math
import mmap
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import StoreError
from pgti.graph import SensorGraph
from pgti.storage import reraise_os_errors
from pgti.store.codec import Codec, Raw, Values
from pgti.store.layout import PART_OFFSET, check_header, read_rows, write_header
from pgti.store.meta import (
    DIGESTS_FILE,
    FUTURE_FILE,
    GRAPH_FILE,
    MOMENTS_FILE,
    SERIES_FILE,
    SERIES_OFFSET,
    STATIC_FILE,
    TIME_FILE,
    StoreMeta,
    codec_of,
    is_constant_part,
)
from pgti.store.static_features import StaticFeatures
from pgti.store.statistics import DIGEST_BYTES, ReadingsDigest, digest_of

__all__ = [
    "Parts",
    "check_constant_parts",
    "check_files",
    "check_future",
    "check_sample",
    "check_series",
    "committed_bytes",
    "no_match",
    "open_parts",
    "read_part",
    "release",
    "sha256_of",
    "write_headers",
]

_SAMPLED_GROUPS = 64  # of a quarter of a million readings


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Parts:
    """The opened files of a store.

    Attributes:
        raw: the stored series [T, N, C].
        mapping: the memory map that `raw` is a view of.
        block_moments: of each whole block of rows, float64 [blocks, C, 3].
        links: of the chain of digests, uint8 [groups, 32]; None in format 1.
        graph: the sensor graph.
        seconds: epoch seconds of every row, int64 [T], where the interval is not constant.
        future: values of the channels known in advance after the last row, [rows, N, F].
        static: features of the sensors.
    """

    raw: Raw
    mapping: mmap.mmap
    block_moments: NDArray[np.float64]
    links: NDArray[np.uint8] | None
    graph: SensorGraph
    seconds: NDArray[np.int64] | None
    future: Values
    static: StaticFeatures | None


def open_parts(path: Path, meta: StoreMeta, codec: Codec, verify_up_to_bytes: int | None) -> Parts:
    """Open the files, and check them against their SHA-256 if they have up to so many bytes.

    Raises:
        StoreError: if a file is missing, damaged or contradicts the description.
        ValueError: and others of `PARSER_ERRORS`, if a file cannot be parsed.
    """
    check_files(path, meta, verify_up_to_bytes)
    raw, mapping = _map_series(path, meta, codec)
    graph = SensorGraph.load(path / GRAPH_FILE)
    moments = read_part(path, meta, MOMENTS_FILE)
    problem = _problem_of_graph(meta, graph) or _problem_of_moments(meta, moments)
    if problem is not None:
        raise StoreError(f"the store {path} is damaged: {problem}; ingest it again")
    return Parts(
        raw=raw,
        mapping=mapping,
        block_moments=moments[: meta.num_steps // meta.block_rows],
        links=None if meta.format_version == 1 else read_part(path, meta, DIGESTS_FILE),
        graph=graph,
        seconds=None if meta.is_regular else read_part(path, meta, TIME_FILE),
        future=_map_future(path, meta, verify_up_to_bytes),
        static=_read_static(path, meta),
    )


def check_files(path: Path, meta: StoreMeta, verify_up_to_bytes: int | None) -> None:
    """Check that the files are there, long enough, and intact if they have up to so many bytes.

    Raises:
        StoreError: naming the first that is not.
    """
    series_bytes = SERIES_OFFSET + meta.num_readings * np.dtype(meta.dtype).itemsize
    can_grow = meta.format_version > 1
    for name, digest in meta.parts.items():
        file = meta.file_of(name)
        is_hashed = not can_grow or is_constant_part(name)  # the others: where they are read
        try:
            size = (path / file).stat().st_size
            is_small = verify_up_to_bytes is None or size <= verify_up_to_bytes
            # Of stores that can grow, what is written once is read whole in any case.
            is_hashed = is_hashed and (is_small or (can_grow and verify_up_to_bytes != 0))
            intact = not is_hashed or sha256_of(path / file) == digest
        except FileNotFoundError:
            raise StoreError(f"the store {path} is damaged: {file} is missing") from None
        except OSError as error:
            raise StoreError(
                f"the store {path} cannot be read: {file}: {error.strerror or error}"
            ) from None
        if name == SERIES_FILE and (size < series_bytes or (size > series_bytes and not can_grow)):
            raise StoreError(
                f"the store {path} is damaged: {file} has {size} bytes and should have "
                f"{series_bytes}; ingest it again"
            )
        if not intact:
            raise no_match(path, file)


def committed_bytes(path: Path, meta: StoreMeta, part: str) -> int:
    """Bytes of a file that belong to the store.

    Raises:
        StoreError: if the size of a file that does not grow cannot be read.
    """
    if meta.format_version == 1 or is_constant_part(part):
        with reraise_os_errors(f"the store {path} cannot be read", StoreError):
            return (path / part).stat().st_size
    shape, dtype, offset = _layout(meta)[part]
    return offset + math.prod(shape) * dtype.itemsize


def write_headers(path: Path, meta: StoreMeta) -> None:
    """Write into the files that grow how many rows they have, for others that open them.

    Raises:
        OSError: if they cannot be written.
    """
    if meta.format_version == 1:
        return
    for part, (shape, dtype, offset) in _layout(meta).items():
        with (path / meta.file_of(part)).open("r+b") as file:
            write_header(file, dtype, shape, offset)


def _layout(meta: StoreMeta) -> dict[str, tuple[tuple[int, ...], np.dtype[Any], int]]:
    """Shape, dtype and first byte of the arrays of a store that can grow."""
    parts = {
        SERIES_FILE: (meta.shape, np.dtype(meta.dtype).newbyteorder("<")),
        MOMENTS_FILE: ((meta.num_blocks, meta.num_channels, 3), np.dtype("<f8")),
        DIGESTS_FILE: ((meta.num_steps // meta.sizes.group_rows, DIGEST_BYTES), np.dtype("u1")),
        TIME_FILE: ((meta.num_steps,), np.dtype("<i8")),
        FUTURE_FILE: (
            (meta.future_steps, meta.num_nodes, len(meta.known_future)),
            codec_of(meta).reading_dtype,
        ),
    }
    return {
        part: (*parts[part], SERIES_OFFSET if part == SERIES_FILE else PART_OFFSET)
        for part in parts
        if part in meta.parts
    }


def check_series(
    path: Path,
    meta: StoreMeta,
    links: NDArray[np.uint8],
    read: Callable[[int, int], Values],
    mapping: mmap.mmap | None,
) -> None:
    """Check all rows against the chain of digests, in bounded memory.

    Raises:
        StoreError: if they do not match.
    """
    rows = meta.sizes.group_rows
    digest = ReadingsDigest(rows)
    for first in range(0, meta.num_steps, rows):
        digest.update(read(first, min(meta.num_steps, first + rows)))
        release(mapping)
    is_same = np.array_equal(digest.links_array(), links)
    if not is_same or digest.hexdigest() != meta.parts[SERIES_FILE]:
        raise no_match(path, meta.file_of(SERIES_FILE))


def check_sample(
    path: Path,
    meta: StoreMeta,
    links: NDArray[np.uint8],
    read: Callable[[int, int], Values],
    mapping: mmap.mmap | None,
) -> None:
    """Check some groups of rows, other ones each time, and the last rows.

    Raises:
        StoreError: if one of them does not match its link.
    """
    rows, num_groups = meta.sizes.group_rows, len(links)
    ends = np.linspace(0, num_groups, min(num_groups, _SAMPLED_GROUPS) + 1).astype(int).tolist()
    choice = random.Random()
    for place in (*(choice.randrange(first, stop) for first, stop in pairwise(ends)), num_groups):
        before = links[place - 1].tobytes() if place else bytes(DIGEST_BYTES)
        digest = ReadingsDigest(rows, before, place * rows)
        digest.update(read(place * rows, min(meta.num_steps, (place + 1) * rows)))
        release(mapping)
        is_last = place == num_groups
        expected = meta.parts[SERIES_FILE] if is_last else links[place].tobytes().hex()
        if digest.hexdigest() != expected:
            raise no_match(path, meta.file_of(SERIES_FILE))


def release(mapping: mmap.mmap | None) -> None:
    """Unmap the pages of a memory map that were read; they stay in the page cache."""
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def read_part(path: Path, meta: StoreMeta, part: str) -> NDArray[Any]:
    """The rows of a small array that belong to the store.

    Raises:
        StoreError: if they do not match their SHA-256.
        OSError: or ValueError, if the file cannot be read.
    """
    shape, dtype, _ = _layout(meta)[part]
    rows = read_rows(path / meta.file_of(part), shape[0], shape[1:], dtype)
    if meta.format_version > 1 and digest_of(rows) != meta.parts[part]:
        raise no_match(path, meta.file_of(part))
    return rows


def _map_series(path: Path, meta: StoreMeta, codec: Codec) -> tuple[Raw, mmap.mmap]:
    file = path / meta.file_of(SERIES_FILE)
    with file.open("rb") as stream:
        for problem in check_header(stream, codec.dtype, meta.shape[1:]):
            raise ValueError(f"its series {problem}")
        if stream.tell() != SERIES_OFFSET:
            raise ValueError(f"its series does not begin at byte {SERIES_OFFSET}")
        raw = np.memmap(stream, dtype=codec.dtype, mode="r", offset=SERIES_OFFSET, shape=meta.shape)
    mapping: Any = raw.base
    return raw, mapping


def _map_future(path: Path, meta: StoreMeta, verify_up_to_bytes: int | None) -> Values:
    """Values after the last row, mapped; they are checked if they have up to so many bytes."""
    shape = (meta.future_steps, meta.num_nodes, len(meta.known_future))
    dtype = codec_of(meta).reading_dtype
    if not meta.future_steps:
        return np.empty(shape, dtype=dtype)
    file = path / meta.file_of(FUTURE_FILE)
    with file.open("rb") as stream:
        for problem in check_header(stream, dtype, shape[1:]):
            raise ValueError(f"{file.name} {problem}")
        future: Values = np.memmap(stream, dtype=dtype, mode="r", offset=PART_OFFSET, shape=shape)
    if verify_up_to_bytes is None or future.nbytes <= verify_up_to_bytes:
        check_future(path, meta, future)
    return future


def check_constant_parts(path: Path, meta: StoreMeta) -> None:
    """Check the files that are written once, whatever their size.

    Raises:
        StoreError: naming the first that does not match its SHA-256.
    """
    for part, digest in meta.parts.items():
        if is_constant_part(part) and sha256_of(path / part) != digest:
            raise no_match(path, part)


def check_future(path: Path, meta: StoreMeta, future: Values) -> None:
    """Check the values after the last row against their digest.

    Raises:
        StoreError: if they do not match.
    """
    if meta.future_steps and digest_of(future) != meta.parts[FUTURE_FILE]:
        raise no_match(path, meta.file_of(FUTURE_FILE))


def _read_static(path: Path, meta: StoreMeta) -> StaticFeatures | None:
    if STATIC_FILE not in meta.parts:
        return None
    file = path / STATIC_FILE
    return StaticFeatures.from_bytes(file.read_bytes(), meta.num_nodes, str(file))


def no_match(path: Path, file: str) -> StoreError:
    """The error of a file that does not match its SHA-256."""
    return StoreError(
        f"the store {path} is damaged: {file} does not match its SHA-256; ingest it again"
    )


def _problem_of_graph(meta: StoreMeta, graph: SensorGraph) -> str | None:
    if (graph.num_nodes, graph.num_edges) == (meta.num_nodes, meta.num_edges):
        return None
    return (
        f"its graph has {graph.num_nodes} nodes and {graph.num_edges} edges and its description "
        f"says {meta.num_nodes} and {meta.num_edges}"
    )


def _problem_of_moments(meta: StoreMeta, moments: NDArray[np.float64]) -> str | None:
    if not np.isfinite(moments).all() or (moments[..., [0, 2]] < 0).any():
        return "its statistics contain a non-finite or negative value"
    counted = moments[..., 0].sum() + sum(count for count, _, _ in meta.open_moments)
    observed = meta.num_readings - meta.missing_count
    # Rows of the piece that is begun are in no statistic yet; format 1 had none of them.
    sizes = meta.sizes
    begun = 0
    if meta.format_version > 1:
        begun = meta.num_steps % sizes.block_rows % sizes.piece_rows
    if not counted <= observed <= counted + begun * meta.num_nodes * meta.num_channels:
        return f"its statistics count {counted:.0f} readings and its description {observed}"
    return None
