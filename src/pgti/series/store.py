"""Reading a store: one read-only memory map that every process of a machine shares."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pgti.errors import DataError, StoreError
from pgti.graph import SensorGraph
from pgti.series.codec import Codec, Float32Codec, GridCodec, Raw
from pgti.series.meta import StoreMeta
from pgti.series.moments import Moments, moments_of_raw
from pgti.series.time_axis import TimeAxis

__all__ = ["SERIES_OFFSET", "SeriesStore", "sha256_of"]

SERIES_OFFSET = 4096  # the series' first byte: page-aligned for direct I/O and device mapping
SERIES_FILE = "series.npy"
TIME_FILE = "time.npy"
MOMENTS_FILE = "moments.npy"
GRAPH_FILE = "graph.npz"
_HASH_CHUNK_BYTES = 1 << 22


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_HASH_CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


@dataclass(frozen=True, eq=False, slots=True)
class SeriesStore:
    """An opened store. Make one with `SeriesStore.open`.

    Args:
        path: the store's directory.
        meta: its description.
        raw: the stored series [T, N, C], a read-only memory map of int16 codes or float32.
        graph: the sensor graph.
        time_axis: when each row was read.
        codec: what the stored numbers mean.
        block_moments: statistics of each run of `meta.block_rows` rows, float64 [blocks, C, 3].
    """

    path: Path
    meta: StoreMeta
    raw: Raw
    graph: SensorGraph
    time_axis: TimeAxis
    codec: Codec
    block_moments: NDArray[np.float64]

    @classmethod
    def open(cls, path: str | Path, *, verify_up_to_bytes: int = 1 << 28) -> "SeriesStore":
        """Open the store at `path`, mapping its series without reading it.

        Args:
            path: the store's directory.
            verify_up_to_bytes: parts up to this size are checked against their SHA-256; larger
                ones only for their length (`verify` checks them all).

        Raises:
            StoreError: if the directory is no store, is damaged, or is of a newer format.
        """
        path = Path(path)
        if not path.is_dir():
            raise StoreError(
                f"{path} is not a store: there is no such directory; make one with `pgti ingest`"
            )
        meta = StoreMeta.read(path)
        _check_parts(path, meta, verify_up_to_bytes)
        codec: Codec = GridCodec(meta.divisors) if meta.divisors is not None else Float32Codec()
        try:
            raw = np.load(path / SERIES_FILE, mmap_mode="r", allow_pickle=False)
            seconds = None if meta.is_regular else np.load(path / TIME_FILE, allow_pickle=False)
            block_moments = np.load(path / MOMENTS_FILE, allow_pickle=False)
            graph = SensorGraph.load(path / GRAPH_FILE)
        except (OSError, ValueError, DataError) as error:
            raise StoreError(f"the store {path} is damaged: {error}; ingest it again") from None
        if raw.shape != meta.shape or raw.dtype != codec.dtype:
            raise StoreError(
                f"the store {path} is damaged: its series is {raw.dtype} {raw.shape} and its "
                f"description says {meta.dtype} {meta.shape}; ingest it again"
            )
        if graph.num_nodes != meta.num_nodes:
            raise StoreError(
                f"the store {path} is damaged: its graph has {graph.num_nodes} nodes and its "
                f"series {meta.num_nodes}; ingest it again"
            )
        return cls(
            path=path,
            meta=meta,
            raw=raw,
            graph=graph,
            time_axis=_time_axis(meta, seconds),
            codec=codec,
            block_moments=block_moments,
        )

    def __reduce__(self) -> tuple[Callable[[Path], "SeriesStore"], tuple[Path]]:
        """Another process opens the store again: data never travels, only the path."""
        return SeriesStore.open, (self.path.resolve(),)

    @property
    def fingerprint(self) -> str:
        """SHA-256 that identifies the store's content."""
        return self.meta.fingerprint

    @property
    def num_bytes(self) -> int:
        """Bytes of the series on disk."""
        return int(self.raw.nbytes)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Readings of rows start..stop-1 in original units, float32 [rows, N, C], NaN = missing."""
        return self.codec.decode(self.raw[start:stop])

    def moments(self, rows: range) -> Moments:
        """Statistics of the observed readings in `rows` (consecutive).

        Whole blocks come from the store's own summary; only the rows at the two ends are read.
        """
        size = self.meta.block_rows
        first, last = -(-rows.start // size), rows.stop // size
        if last <= first:
            return moments_of_raw(self.raw[rows.start : rows.stop], self.codec)
        parts = [
            moments_of_raw(self.raw[rows.start : first * size], self.codec),
            *(Moments(*self.block_moments[block].T) for block in range(first, last)),
            moments_of_raw(self.raw[last * size : rows.stop], self.codec),
        ]
        return Moments.merge_all(parts, self.meta.num_channels)

    def verify(self) -> None:
        """Check every part against its SHA-256, whatever its size.

        Raises:
            StoreError: naming the first part that differs.
        """
        _check_parts(self.path, self.meta, verify_up_to_bytes=None)

    def channel_indices(self, names: tuple[str, ...]) -> tuple[int, ...]:
        """Positions of the named channels.

        Raises:
            DataError: if there is no such channel, or one is named twice.
        """
        known = self.meta.channels
        for name in names:
            if name not in known:
                raise DataError(f"there is no channel {name!r}: the store has {', '.join(known)}")
        if len(set(names)) != len(names):
            raise DataError(f"a channel is named twice in {', '.join(names)}")
        return tuple(known.index(name) for name in names)


def _time_axis(meta: StoreMeta, seconds: NDArray[np.int64] | None) -> TimeAxis:
    start = None if meta.start is None else int(np.datetime64(meta.start, "s").astype(np.int64))
    return TimeAxis(
        num_steps=meta.num_steps,
        start_seconds=start,
        interval_seconds=meta.interval_seconds,
        time_zone=meta.time_zone,
        seconds=seconds,
    )


def _check_parts(path: Path, meta: StoreMeta, verify_up_to_bytes: int | None) -> None:
    width = 2 if meta.dtype == "int16" else 4
    expected = SERIES_OFFSET + meta.num_steps * meta.num_nodes * meta.num_channels * width
    for name, digest in meta.parts.items():
        part = path / name
        try:
            size = part.stat().st_size
        except OSError:
            raise StoreError(f"the store {path} is damaged: {name} is missing") from None
        if name == SERIES_FILE and size != expected:
            raise StoreError(
                f"the store {path} is damaged: {name} has {size} bytes and should have {expected}; "
                "ingest it again"
            )
        small = verify_up_to_bytes is None or size <= verify_up_to_bytes
        if small and sha256_of(part) != digest:
            raise StoreError(
                f"the store {path} is damaged: {name} does not match its SHA-256; ingest it again"
            )
