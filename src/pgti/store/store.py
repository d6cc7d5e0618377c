"""Reading a store: one read-only memory map, shared by all processes of a machine."""

import hashlib
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.display import Display, count_of, shorten
from pgti.errors import PARSER_ERRORS, ConfigError, DataError, StoreError
from pgti.figures import graph_objects
from pgti.graph import SensorGraph
from pgti.options import require_type
from pgti.store.codec import Codec, Float32Codec, GridCodec, Raw
from pgti.store.coverage import coverage, plot_coverage
from pgti.store.meta import (
    GRAPH_FILE,
    MOMENTS_FILE,
    SERIES_FILE,
    SERIES_OFFSET,
    TIME_FILE,
    StoreMeta,
)
from pgti.store.moments import Moments, moments_of_raw
from pgti.store.time_axis import TimeAxis
from pgti.store.time_rule import TimeRule

__all__ = ["SeriesStore", "open_store", "sha256_of"]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class SeriesStore(Display):
    """An open store; `SeriesStore.open` opens one.

    Attributes:
        path: the store's directory.
        meta: its description.
        raw: the stored series [T, N, C], a read-only memory map of int16 codes or float32.
        graph: the sensor graph.
        time_axis: the time of each row.
        codec: decodes the stored numbers.
        block_moments: count, mean and m2 (see `Moments`) of each `meta.block_rows` rows, float64
            [blocks, C, 3].
        notes: what writing the store found worth knowing, one line each; empty for a store that
            was opened.
    """

    path: Path
    meta: StoreMeta
    raw: Raw
    graph: SensorGraph
    time_axis: TimeAxis
    codec: Codec
    block_moments: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: str | Path, *, verify_up_to_bytes: int = 1 << 28) -> "SeriesStore":
        """Open the store at `path`, mapping its series without reading it.

        Args:
            path: the store's directory.
            verify_up_to_bytes: check parts up to this size against their SHA-256, and of larger
                ones the length alone (`verify` checks them all).

        Raises:
            StoreError: if the directory is not a store, is damaged, or has a newer format.
        """
        require_type("path", path, (str, os.PathLike), "the path of a store")
        path = Path(path)
        meta = StoreMeta.read(path)
        _check_parts(path, meta, verify_up_to_bytes)
        codec: Codec = GridCodec(meta.divisors) if meta.divisors is not None else Float32Codec()
        try:
            raw = np.lib.format.open_memmap(path / SERIES_FILE, mode="r")
            block_moments = _read_array(path / MOMENTS_FILE)
            graph = SensorGraph.load(path / GRAPH_FILE)
            start = None if meta.start is None else np.datetime64(meta.start, "s").astype(int)
            time_axis = TimeAxis(
                num_steps=meta.num_steps,
                start_seconds=None if start is None else int(start),
                interval_seconds=meta.interval_seconds,
                time_zone=meta.time_zone,
                seconds=None if meta.is_regular else _read_array(path / TIME_FILE),
                rule=None if meta.time_rule is None else TimeRule.from_plain(meta.time_rule),
            )
        except PARSER_ERRORS as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise StoreError(f"the store {path} is damaged: {reason}; ingest it again") from None
        store = cls(
            path=path,
            meta=meta,
            raw=raw,
            graph=graph,
            time_axis=time_axis,
            codec=codec,
            block_moments=block_moments,
        )
        problem = store._problem()
        if problem is not None:
            raise StoreError(f"the store {path} is damaged: {problem}; ingest it again")
        return store

    def _problem(self) -> str | None:
        """A contradiction between a part and the description, if there is one."""
        meta, raw = self.meta, self.raw
        described = f"its description says {meta.dtype} {meta.shape}"
        if raw.shape != meta.shape or raw.dtype != self.codec.dtype:
            return f"its series is {raw.dtype} {raw.shape} and {described}"
        if not raw.flags.c_contiguous or getattr(raw, "offset", None) != SERIES_OFFSET:
            return f"its series is not in C order from byte {SERIES_OFFSET}"
        if (self.graph.num_nodes, self.graph.num_edges) != (meta.num_nodes, meta.num_edges):
            return (
                f"its graph has {self.graph.num_nodes} nodes and {self.graph.num_edges} edges and "
                f"its description says {meta.num_nodes} and {meta.num_edges}"
            )
        return _problem_of_statistics(meta, self.block_moments)

    def __reduce__(self) -> tuple[Callable[[Path], "SeriesStore"], tuple[Path]]:
        """Pickle the path alone: another process opens the store again."""
        return SeriesStore.open, (self.path.resolve(),)

    def describe(self) -> tuple[str, dict[str, str]]:
        """A title, and facts by name; each is one line."""
        meta = self.meta
        channels = [
            f"{name} ({unit})" if unit else name
            for name, unit in zip(meta.channels, meta.units, strict=True)
        ]
        facts = {
            "series": f"{count_of(meta.num_steps, 'step')} of {count_of(meta.num_nodes, 'sensor')}"
            f", {shorten(channels)}",
            "times": self.time_axis.describe(),
            "sensors": shorten(meta.node_ids),
            "graph": count_of(meta.num_edges, "edge"),
            "missing": f"{meta.missing_count / meta.num_readings:.2%}",
            "stored": f"{meta.dtype}, {self.num_bytes / 1e6:,.1f} MB",
        }
        if self.notes:
            facts["notes"] = shorten(self.notes, 1)
        return f"SeriesStore {self.path}", facts

    def plot(self) -> Any:
        """A picture of what was observed: time from left to right, sensors from top to bottom.

        One pass over the series, in bounded memory.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            MissingExtraError: if plotly (the extra `report`) is not installed.
        """
        graph_objects()  # a missing library is known before the pass
        meta = self.meta
        rows, sensors, shares = coverage(self.read, meta.shape)
        self.release()
        return plot_coverage(
            self.time_axis.at(rows) if self.time_axis.is_dated else rows,
            [meta.node_ids[sensor] for sensor in sensors],
            shares,
            f"{self.path.name}: {meta.missing_count / meta.num_readings:.2%} of the readings are "
            "missing",
        )

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

    def release(self) -> None:
        """Unmap the rows that were read; they stay in the page cache.

        A mapped page counts as memory of its process until the system takes it back: a pass over a
        long series would seem to need as much memory as the series has bytes. Reading a row again
        maps it again.
        """
        mapped: object = self.raw.base
        if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)

    def moments(self, rows: range) -> Moments:
        """Statistics of the observed readings in `rows` (consecutive).

        Whole blocks come from the store's summary; only the rows at the two ends are read.
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


def open_store(store: str | Path | SeriesStore) -> SeriesStore:
    """The store itself, or the one at a path.

    Raises:
        ConfigError: if it is neither.
        StoreError: if it cannot be opened.
    """
    if isinstance(store, SeriesStore):
        return store
    if not isinstance(store, str | os.PathLike):
        raise ConfigError(
            f"store is a {type(store).__name__}: it must be a store or the path of one; "
            "pgti.ingest writes one from a table, an array or a file"
        )
    return SeriesStore.open(store)


def _read_array(path: Path) -> NDArray[Any]:
    """The array in an .npy file; unlike `np.load`, this reads no archive and no pickle."""
    with path.open("rb") as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _problem_of_statistics(meta: StoreMeta, moments: NDArray[np.float64]) -> str | None:
    expected = (meta.num_blocks, meta.num_channels, 3)
    if moments.shape != expected or moments.dtype != np.float64:
        return f"its statistics are {moments.dtype} {moments.shape} and not float64 {expected}"
    if not np.isfinite(moments).all() or (moments[..., [0, 2]] < 0).any():
        return "its statistics contain a non-finite or negative value"
    if moments[..., 0].sum() + meta.missing_count != meta.num_readings:
        return (
            f"its statistics count {moments[..., 0].sum():.0f} readings and its description "
            f"{meta.num_readings - meta.missing_count}"
        )
    return None


def _check_parts(path: Path, meta: StoreMeta, verify_up_to_bytes: int | None) -> None:
    expected = SERIES_OFFSET + meta.num_readings * (2 if meta.dtype == "int16" else 4)
    for name, digest in meta.parts.items():
        part = path / name
        try:
            size = part.stat().st_size
            small = verify_up_to_bytes is None or size <= verify_up_to_bytes
            intact = not small or sha256_of(part) == digest
        except FileNotFoundError:
            raise StoreError(f"the store {path} is damaged: {name} is missing") from None
        except OSError as error:
            raise StoreError(
                f"the store {path} cannot be read: {name}: {error.strerror or error}"
            ) from None
        if name == SERIES_FILE and size != expected:
            raise StoreError(
                f"the store {path} is damaged: {name} has {size} bytes and should have {expected}; "
                "ingest it again"
            )
        if not intact:
            raise StoreError(
                f"the store {path} is damaged: {name} does not match its SHA-256; ingest it again"
            )
