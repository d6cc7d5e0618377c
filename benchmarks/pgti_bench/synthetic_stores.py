"""Simulated stores of a given shape, or a short simulated one followed by a hole.

A hole takes no disk space and reads as zeros, so a series of any length is written in seconds. It
serves measurements of memory, which does not depend on the observed values.
"""

import ast
import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pgti.datasets.simulated import SimulationOptions, simulate
from pgti.errors import ConfigError
from pgti.graph import SensorGraph
from pgti.ingestion import IngestOptions, read_graph
from pgti.store import Moments, SeriesStore, StoreMeta
from pgti.store.meta import META_FILE, MOMENTS_FILE, SERIES_FILE, SERIES_OFFSET
from pgti.store.moments import moments_of_raw
from pgti.store.store import sha256_of
from pgti_bench.errors import BenchError
from pgti_bench.paper_datasets import DatasetShape

__all__ = ["Road", "disk_usage", "drop_page_cache", "lengthen", "read_road", "synthetic_store"]

_SIMULATED_STEPS = 2016  # simulated steps of a sparse series: a week of five-minute intervals
_HASH_PIECE_BYTES = 1 << 22


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Road:
    """A graph to simulate on.

    Attributes:
        path: file that it was read from.
        graph: the graph.
        node_ids: its sensors; None if the file does not name them.
    """

    path: Path
    graph: SensorGraph
    node_ids: tuple[str, ...] | None


def read_road(path: Path) -> Road:
    """The graph in a file that `pgti ingest` reads.

    Raises:
        DataError: the file cannot be read, or holds no graph.
    """
    graph, node_ids = read_graph(path, IngestOptions())
    return Road(path=path, graph=graph, node_ids=node_ids)


def synthetic_store(
    shape: DatasetShape,
    directory: Path,
    road: Road | None = None,
    *,
    log: Callable[[str], None] = lambda _: None,
) -> SeriesStore:
    """A simulated store of the shape; an existing one is reused.

    Args:
        shape: steps, sensors and interval; one channel.
        directory: where it is, or will be written, under the shape's name.
        road: the graph to simulate on, if it has as many nodes as the shape; a road-like graph is
            generated otherwise.
        log: receives one line for each thing that is done.

    Raises:
        BenchError: a store of another shape or graph has that name.
        StoreError: it cannot be written, or is not a store.
    """
    path = directory / shape.name
    fits = road is not None and road.graph.num_nodes == shape.num_nodes
    if os.path.lexists(path):
        return _check(SeriesStore.open(path), shape, road if fits else None)
    options = SimulationOptions(
        sensors=shape.num_nodes,
        steps=min(_SIMULATED_STEPS, shape.num_steps) if shape.is_sparse else shape.num_steps,
        interval_seconds=shape.interval_seconds,
    )
    graph, node_ids = (road.graph, road.node_ids) if road is not None and fits else (None, None)
    log(f"writing {path}: {shape.num_steps:,} steps of {shape.num_nodes:,} simulated sensors")
    if not shape.is_sparse:
        simulate(path, options, graph, node_ids=node_ids)
        return SeriesStore.open(path)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{shape.name}.", dir=directory) as scratch:
        short = Path(scratch) / "store"
        simulate(short, options, graph, node_ids=node_ids)
        log(f"{path} is sparse: after its first {options.steps:,} steps every observation is 0")
        lengthen(short, shape.num_steps)
        short.rename(path)
    return SeriesStore.open(path)


def lengthen(path: Path, num_steps: int) -> StoreMeta:
    """Append time steps to a store by a hole at the end of its series: observed values of 0.

    Its statistics and hashes are those of the longer series, so that it is a valid store. It is
    changed in place: an interruption leaves a store that cannot be opened.

    Args:
        path: the store; its times are regular.
        num_steps: its new number of time steps.

    Returns:
        Its new description.

    Raises:
        ConfigError: it has at least as many steps already, or irregular times.
        StoreError: there is no store, or it is damaged.
    """
    store = SeriesStore.open(path)
    old = store.meta
    if num_steps <= old.num_steps or not old.is_regular:
        raise ConfigError(
            f"num_steps is {num_steps} and {path} has {old.num_steps} "
            f"{'regular' if old.is_regular else 'irregular'} rows: a regular series gets longer"
        )
    np.save(path / MOMENTS_FILE, _lengthen_moments(store, num_steps))
    real_bytes = SERIES_OFFSET + store.num_bytes
    row_bytes = store.raw[0].nbytes
    del store
    _lengthen_series(path / SERIES_FILE, num_steps, SERIES_OFFSET + num_steps * row_bytes)
    parts = old.parts | {
        MOMENTS_FILE: sha256_of(path / MOMENTS_FILE),
        SERIES_FILE: _sha256_with_hole(path / SERIES_FILE, real_bytes),
    }
    meta = replace(old, num_steps=num_steps, parts=parts)
    (path / META_FILE).write_text(meta.to_json(), encoding="utf-8")
    return meta


def drop_page_cache(directory: Path) -> None:
    """Drop the pages of a directory's files from the page cache, where the system can.

    Pages are charged to the control group that first reads them: a group whose pages others have
    read would seem to need none.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())  # dirty pages cannot be dropped
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def disk_usage(directory: Path) -> int:
    """Bytes that the files of a directory take on disk, without holes."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def _check(store: SeriesStore, shape: DatasetShape, road: Road | None) -> SeriesStore:
    meta = store.meta
    wanted = (shape.num_steps, shape.num_nodes, 1)
    if meta.shape != wanted:
        raise BenchError(
            f"{store.path} is a store of {meta.shape} and {shape.name} is {wanted}: remove it or "
            "choose another --workdir"
        )
    if road is not None and meta.num_edges != road.graph.num_edges:
        raise BenchError(
            f"{store.path} has {meta.num_edges} edges and {road.path} has {road.graph.num_edges}: "
            "remove it or choose another --workdir"
        )
    return store


def _lengthen_moments(store: SeriesStore, num_steps: int) -> np.ndarray:
    """Moments of every block of rows [blocks, C, 3], the appended rows being zeros."""
    meta, table = store.meta, store.block_moments
    size = meta.block_rows

    def zeros(rows: int) -> Moments:
        raw = np.zeros((rows, meta.num_nodes, meta.num_channels), dtype=store.raw.dtype)
        return moments_of_raw(raw, store.codec)

    def entry(moments: Moments) -> np.ndarray:
        return np.stack([moments.count, moments.mean, moments.m2], axis=-1)

    whole, begun = divmod(meta.num_steps, size)
    blocks = list(table[:whole])
    if begun:
        rest = min(size, num_steps - whole * size) - begun
        blocks.append(entry(Moments(*table[whole].T).merge(zeros(rest))))
    more, last = divmod(max(0, num_steps - len(blocks) * size), size)
    blocks += [entry(zeros(size))] * more if more else []
    if last:
        blocks.append(entry(zeros(last)))
    return np.stack(blocks)


def _lengthen_series(path: Path, num_steps: int, num_bytes: int) -> None:
    """Write the new number of rows into the header, whose length is unchanged; make the hole."""
    with path.open("r+b") as file:
        prologue = file.read(10)  # magic, version, length of the header
        header = ast.literal_eval(file.read(SERIES_OFFSET - len(prologue)).decode("latin1"))
        header["shape"] = (num_steps, *header["shape"][1:])
        text = repr(header).encode("latin1").ljust(SERIES_OFFSET - len(prologue) - 1) + b"\n"
        file.seek(len(prologue))
        file.write(text)
        file.truncate(num_bytes)
        file.flush()
        os.fsync(file.fileno())


def _sha256_with_hole(path: Path, real_bytes: int) -> str:
    """SHA-256 of a file that is a hole after its first `real_bytes`; the hole is not read."""
    digest = hashlib.sha256()
    hole = path.stat().st_size - real_bytes
    with path.open("rb") as file:
        while real_bytes:
            piece = file.read(min(_HASH_PIECE_BYTES, real_bytes))
            digest.update(piece)
            real_bytes -= len(piece)
    zeros = bytes(_HASH_PIECE_BYTES)
    for first in range(0, hole, len(zeros)):
        digest.update(zeros[: hole - first])
    return digest.hexdigest()
